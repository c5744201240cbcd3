"""`cached`: one read per time to live, the process's own writes at once, and the last value during an outage."""

from __future__ import annotations

import sys
from datetime import timedelta
from pathlib import Path

import anyio
import pytest
from anyio.lowlevel import checkpoint

from fastapi_maintenance import (
    MaintenanceState,
    MemoryBackend,
    NotSupportedError,
    StateBackend,
    cached,
    get_maintenance_mode,
    maintenance_mode_on,
    plan_maintenance,
    set_maintenance_mode,
)
from fastapi_maintenance.backends.last_known import known_of, moment
from fastapi_maintenance.testing import moved_clock
from fastapi_maintenance.typing import DetailedStateBackend, PeekableStateBackend, WatchableStateBackend
from tests.middleware.test_failures import app_on, hang, records, status
from tests.stores import BareSwitch, DetailedStore, WatchableStore, be_down
from tests.support import eventually
from tests.switch.lifespans import answers

pytestmark = pytest.mark.anyio
Make = type[BareSwitch | DetailedStore]
each_store = pytest.mark.parametrize("make", [BareSwitch, DetailedStore])


@each_store
@pytest.mark.parametrize("ttl", [60, 1e-9])
async def test_cached_reads_at_once_share_one_read(make: Make, ttl: float) -> None:
    store, reads = make(True), list[str]()

    async def count() -> None:
        reads.append("read")
        await anyio.sleep(0.01)

    store.before_read = count
    backend = cached(store, ttl)
    async with anyio.create_task_group() as group:
        for _ in range(10):
            group.start_soon(backend.get_value)
    assert len(reads) == 1
    assert (await status(app_on(backend)), len(reads)) == (503, 1 if ttl > 1 else 2)


@each_store
async def test_cached_sees_a_change_by_others_after_the_time_to_live(make: Make) -> None:
    store = make()
    backend = cached(store, ttl=0.05)
    assert not await get_maintenance_mode(backend)
    await store.set_value(True)
    await eventually(lambda: get_maintenance_mode(backend))


@each_store
@pytest.mark.parametrize("through_it", [True, False])
async def test_cached_sees_writes_of_this_process_at_once(make: Make, through_it: bool) -> None:
    store = make()
    backend = cached(store, ttl=60)
    written, app = backend if through_it else store, app_on(backend)
    assert await status(app) == 200
    await set_maintenance_mode(True, written)
    assert (await status(app), await store.get_value()) == (503, True)
    await (backend.set_value(False) if through_it else set_maintenance_mode(False, store))
    assert (await status(app), await store.get_value()) == (200, False)
    async with maintenance_mode_on(written):
        assert (await status(app), await store.get_value()) == (503, True)
    assert (await status(app), await store.get_value()) == (200, False)


@each_store
async def test_cached_uses_the_last_value_during_an_outage(
    make: Make, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = sys.modules["fastapi_maintenance.backends.cached"]
    store = make()
    backend = cached(store, ttl=0.02)
    app = app_on(backend, read_timeout=0.3)
    for failure, patience, error, text in (
        (be_down, 60, ConnectionError, "the store is down"),
        (hang, 0.05, TimeoutError, "no answer within 0.05 seconds"),
    ):
        monkeypatch.setattr(module, "ANSWER_TIMEOUT", patience)
        store.before_read = failure
        with pytest.raises(error, match=text):
            await backend.get_value()
        await anyio.sleep(0.03)
    store.come_back()
    await backend.set_value(True)
    records(caplog)
    for failure in (be_down, hang):
        store.before_read = failure
        await anyio.sleep(0.03)
        assert [await status(app) for _ in range(3)] == [503, 503, 503]
        assert await backend.get_value()
        assert await get_maintenance_mode(backend)
        store.come_back()

        async def can_be_read() -> bool:
            await status(app)
            return "again" in str(caplog.records[-1].msg)

        await eventually(can_be_read)
        begun, ended = records(caplog)
        assert ("cannot be read" in begun, "can be read again" in ended) == (True, True)


async def test_cached_read_that_never_ends_does_not_keep_others_from_reading() -> None:
    store = DetailedStore(True)
    backend = cached(store, ttl=0.02)

    async def hang_once() -> None:
        store.before_read = checkpoint
        await anyio.sleep_forever()

    store.before_read = hang_once
    app = app_on(backend, read_timeout=0.1)
    async with anyio.create_task_group() as group:
        group.start_soon(get_maintenance_mode, backend)  # without a limit, as an application may read
        await anyio.wait_all_tasks_blocked()
        assert await status(app) == 200
        await answers(app, 503)
        group.cancel_scope.cancel()


@pytest.mark.parametrize("ttl", [0, 0.1])
async def test_known_read_that_hangs_does_not_count_after_a_later_one_that_succeeds(
    ttl: float, caplog: pytest.LogCaptureFixture
) -> None:
    store = DetailedStore(True)
    known = known_of(store)

    async def be_overtaken_and_hang() -> None:
        store.come_back()
        known.put(await store.get_state(), moment())
        await hang()

    store.before_read = be_overtaken_and_hang
    await known.read(store, ttl, 0.1)
    assert (known.is_available, records(caplog)) == (True, [])


@pytest.mark.parametrize("began", ["before", "during"])
@pytest.mark.parametrize("through_it", [True, False])
async def test_cached_read_that_began_before_the_end_of_a_write_does_not_undo_it(began: str, through_it: bool) -> None:
    class SlowAnswers(DetailedStore):
        async def get_value(self) -> bool:
            value = await super().get_value()
            await answered.wait()
            return value

        async def get_state(self) -> MaintenanceState:
            state = await super().get_state()
            await answered.wait()
            return state

    answered = anyio.Event()
    store = SlowAnswers(True)
    backend = cached(store)
    app = app_on(backend)
    async with anyio.create_task_group() as group:

        async def read() -> None:
            group.start_soon(status, app)
            await anyio.wait_all_tasks_blocked()

        if began == "before":
            await read()
        else:
            store.before_write = read
        await (backend.set_value(False) if through_it else set_maintenance_mode(False, store))
        answered.set()
        await anyio.wait_all_tasks_blocked()
        assert await status(app) == 200


@each_store
@pytest.mark.parametrize("is_lost", [False, True])
async def test_cached_writes_that_overlap_are_read_again_if_possible(make: Make, is_lost: bool) -> None:
    store = make()
    backend = cached(store, ttl=60)
    overtaken = anyio.Event()

    async def wait_until_overtaken() -> None:
        store.before_write = checkpoint  # for the one that overtakes
        await overtaken.wait()
        if is_lost:
            store.before_read = be_down

    store.before_write = wait_until_overtaken
    async with anyio.create_task_group() as group:
        group.start_soon(backend.set_value, False)
        await anyio.wait_all_tasks_blocked()
        await backend.set_value(True)
        overtaken.set()
    assert await backend.get_value() is False


@pytest.mark.parametrize(
    ("backend", "is_detailed", "text"),
    [
        (cached(WatchableStore()), True, "cached(WatchableStore, ttl=1)"),
        (cached(MemoryBackend()), True, "cached(MemoryBackend(), ttl=1)"),
        (cached(cached(BareSwitch(), ttl=9), ttl=2), False, "cached(BareSwitch, ttl=2)"),
    ],
)
def test_cached_offers_states_if_its_backend_does_and_no_watch(
    backend: StateBackend, is_detailed: bool, text: str
) -> None:
    assert repr(backend) == text
    assert isinstance(backend, DetailedStateBackend) is is_detailed
    assert not isinstance(backend, (WatchableStateBackend, PeekableStateBackend))


@pytest.mark.parametrize(
    ("backend", "ttl", "error", "text"),
    [
        (1, 1.0, TypeError, "backend must be an object with the async methods"),
        (BareSwitch, 1.0, TypeError, "backend must be .*, got the class BareSwitch"),
        (BareSwitch(), "1", TypeError, "ttl must be a number of seconds or a timedelta, got str '1'"),
        (BareSwitch(), 0, ValueError, "ttl must be a finite number of seconds above 0, got 0"),
    ],
)
def test_cached_invalid_arguments_raise(backend: StateBackend, ttl: float, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        cached(backend, ttl)


async def test_cached_window_opens_by_itself() -> None:
    backend = cached(DetailedStore(), ttl=60)
    with moved_clock() as clock:
        await plan_maintenance(clock.now() + timedelta(hours=1), None, backend)
        before = await backend.get_value()
        clock.move(hours=1)
        assert (before, await backend.get_value()) == (False, True)


async def test_cached_bare_switch_refuses_a_message() -> None:
    with pytest.raises(NotSupportedError, match="update_state"):
        await set_maintenance_mode(True, cached(BareSwitch()), message="Back soon")


async def test_cached_takes_a_url(tmp_path: Path) -> None:
    backend = cached(f"file:{tmp_path}/switch")
    assert not await backend.get_value()
    await backend.set_value(True)
    assert (tmp_path / "switch").read_text() == "1\n"
