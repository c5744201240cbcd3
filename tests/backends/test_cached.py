"""A cache before a backend: seldom asked, never behind what was written, and there while the store is not."""

from __future__ import annotations

import re
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
    Switch,
    cached,
    get_maintenance_mode,
    maintenance_mode_on,
    plan_maintenance,
    set_maintenance_mode,
)
from fastapi_maintenance._helpers.waiting import current_loop
from fastapi_maintenance.backends.known import known_of, moment
from fastapi_maintenance.testing import moved_clock
from fastapi_maintenance.typing import DetailedStateBackend, PeekableStateBackend, WatchableStateBackend
from tests.middleware.test_failures import app_on, hang, records, status
from tests.stores import BareSwitch, DetailedStore, Hook, WatchableStore, be_down
from tests.support import eventually
from tests.switch.lifespans import answers

pytestmark = pytest.mark.anyio

both = pytest.mark.parametrize("make", [BareSwitch, DetailedStore])


def counting(store: BareSwitch | DetailedStore) -> list[str]:
    """Return a list that grows with each read of the store."""
    reads: list[str] = []

    async def count() -> None:
        reads.append("read")
        await anyio.sleep(0.01)

    store.before_read = count
    return reads


@both
async def test_one_read_serves_all_until_the_time_to_live_is_over(make: type[BareSwitch | DetailedStore]) -> None:
    store = make(True)
    reads = counting(store)
    app = app_on(cached(store, ttl=60), read_timeout=60)
    async with anyio.create_task_group() as group:
        for _ in range(10):
            group.start_soon(status, app)
    assert (503, 1) == (await status(app), len(reads))


@both
async def test_a_change_by_others_is_seen_when_the_time_to_live_is_over(make: type[BareSwitch | DetailedStore]) -> None:
    store = make()
    backend = cached(store, ttl=0.05)
    assert not await get_maintenance_mode(backend)
    await store.set_value(True)
    await eventually(lambda: get_maintenance_mode(backend))


@both
@pytest.mark.parametrize("through_it", [True, False])
async def test_what_is_written_in_this_process_counts_at_once(
    make: type[BareSwitch | DetailedStore], through_it: bool
) -> None:
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


@both
async def test_the_last_value_counts_while_the_store_is_away(
    make: type[BareSwitch | DetailedStore], caplog: pytest.LogCaptureFixture
) -> None:
    store = make(True)
    backend = cached(store, ttl=0.02)
    app = app_on(backend, read_timeout=0.3)
    assert 503 == await status(app)
    for failure in (be_down, hang):
        store.before_read = failure
        await anyio.sleep(0.03)
        assert [503, 503, 503] == [await status(app) for _ in range(3)]
        store.come_back()

        async def can_be_read() -> bool:
            await status(app)
            return "again" in str(caplog.records[-1].msg)

        await eventually(can_be_read)
        begun, ended = records(caplog)
        assert ("cannot be read" in begun, "can be read again" in ended) == (True, True)


@both
async def test_what_was_told_last_is_what_the_cache_itself_says_while_the_store_is_away(
    make: type[BareSwitch | DetailedStore],
) -> None:
    store = make()
    backend = cached(store, ttl=0.001)
    store.before_read = be_down
    with pytest.raises(ConnectionError, match="the store is down"):
        await backend.get_value()
    await backend.set_value(True)
    await anyio.sleep(0.01)
    assert await backend.get_value()


async def test_a_read_that_never_ends_does_not_keep_others_from_reading() -> None:
    store = DetailedStore(True)
    backend = cached(store, ttl=0.02)

    async def hang_once() -> None:
        store.before_read = checkpoint
        await anyio.sleep_forever()

    store.before_read = hang_once
    app = app_on(backend, read_timeout=0.1)
    async with anyio.create_task_group() as group:
        group.start_soon(get_maintenance_mode, backend)  # without a limit, as an application may ask
        await anyio.sleep(0.01)
        assert 200 == await status(app)
        await answers(app, 503)
        group.cancel_scope.cancel()


async def test_those_who_wait_share_a_read_however_short_it_counts() -> None:
    store = DetailedStore(True)
    reads = counting(store)
    backend = cached(store, ttl=1e-9)
    async with anyio.create_task_group() as group:
        for _ in range(10):
            group.start_soon(backend.get_value)
    assert 1 == len(reads)


async def test_it_takes_a_url(tmp_path: Path) -> None:
    backend = cached(f"file:{tmp_path}/switch")
    assert not await backend.get_value()
    await backend.set_value(True)
    assert (tmp_path / "switch").read_text() == "1\n"


async def test_a_read_from_before_a_write_does_not_undo_it() -> None:
    store = BareSwitch()
    backend = cached(store, ttl=60)
    reading, go_on = anyio.Event(), anyio.Event()

    async def read_and_wait() -> bool:
        value = store.value
        reading.set()
        await go_on.wait()
        return value

    store.get_value = read_and_wait  # type: ignore[method-assign]  # a slow answer
    async with anyio.create_task_group() as group:
        group.start_soon(backend.get_value)
        await reading.wait()
        await backend.set_value(True)
        go_on.set()
    assert await backend.get_value()


@both
async def test_of_writes_that_overtake_each_other_the_last_one_in_the_store_counts(
    make: type[BareSwitch | DetailedStore],
) -> None:
    store = make()
    backend = cached(store, ttl=60)
    may_land = anyio.Event()

    async def wait_until_overtaken() -> None:
        store.before_write = checkpoint  # for the one that overtakes
        await may_land.wait()

    store.before_write = wait_until_overtaken
    async with anyio.create_task_group() as group:
        group.start_soon(backend.set_value, False)
        await anyio.wait_all_tasks_blocked()
        await backend.set_value(True)
        may_land.set()
    assert not await backend.get_value()


async def test_a_store_that_goes_away_after_such_a_write_fails_no_writer() -> None:
    store = DetailedStore()
    backend = cached(store, ttl=60)

    async def let_another_write() -> None:
        store.after_write = checkpoint
        await backend.set_value(True)
        store.before_read = be_down

    store.after_write = let_another_write
    await backend.set_value(True)
    assert await backend.get_value()


async def test_a_window_in_a_cached_state_opens_by_itself() -> None:
    backend = cached(DetailedStore(), ttl=60)
    with moved_clock() as clock:
        await plan_maintenance(clock.now() + timedelta(hours=1), None, backend)
        before = await backend.get_value()
        clock.move(hours=1)
        assert (before, await backend.get_value()) == (False, True)


def test_it_offers_what_the_backend_offers_and_is_never_watched() -> None:
    def offers(backend: StateBackend) -> tuple[bool, bool, bool]:
        return (
            isinstance(backend, DetailedStateBackend),
            isinstance(backend, WatchableStateBackend),
            isinstance(backend, PeekableStateBackend),
        )

    assert (True, False, False) == offers(cached(WatchableStore()))
    assert (True, False, False) == offers(cached(MemoryBackend()))
    assert (False, False, False) == offers(cached(BareSwitch()))


class LateAnswers(DetailedStore):
    """A store whose answers take their way back."""

    def __init__(self, state: bool) -> None:
        super().__init__(state)
        self.before_answer: Hook = checkpoint

    async def get_state(self) -> MaintenanceState:
        state = await super().get_state()
        await self.before_answer()
        return state


@pytest.mark.parametrize("through_the_cache", [True, False])
async def test_an_answer_from_before_a_write_that_arrives_after_it_is_not_taken_for_new(
    through_the_cache: bool,
) -> None:
    store = LateAnswers(True)
    backend = cached(store)
    app = app_on(backend)
    arrived = anyio.Event()
    async with anyio.create_task_group() as group:

        async def ask_meanwhile() -> None:
            store.before_answer = arrived.wait
            group.start_soon(status, app)
            await anyio.wait_all_tasks_blocked()

        store.before_write = ask_meanwhile
        await (backend.set_value(False) if through_the_cache else set_maintenance_mode(False, store))
        arrived.set()
        await anyio.wait_all_tasks_blocked()
        assert 200 == await status(app)


async def test_a_bare_switch_behind_it_still_takes_no_message() -> None:
    with pytest.raises(NotSupportedError, match="update_state"):
        await set_maintenance_mode(True, cached(BareSwitch()), message="Back soon")


def test_a_cache_of_a_cache_is_one_cache_which_counts_for_a_second_unless_told_otherwise() -> None:
    assert "cached(BareSwitch, ttl=2)" == repr(cached(cached(BareSwitch(), ttl=9), ttl=2))
    assert "cached(MemoryBackend(), ttl=1)" == repr(cached(MemoryBackend()))


@pytest.mark.parametrize(
    ("backend", "ttl", "error", "text"),
    [
        (1, 1.0, TypeError, "backend must be an object with the async methods"),
        (BareSwitch, 1.0, TypeError, "backend must be .*, got the class BareSwitch"),
        (BareSwitch(), "1", TypeError, "ttl must be a number of seconds or a timedelta, got str '1'"),
        (BareSwitch(), 0, ValueError, re.escape("ttl must be a finite number of seconds above 0, got 0")),
    ],
)
def test_wrong_arguments_are_refused(backend: StateBackend, ttl: float, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        cached(backend, ttl)


def test_outside_of_event_loops_there_is_none_whether_their_library_was_imported_or_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert current_loop() is None
    monkeypatch.delitem(sys.modules, "trio.lowlevel", raising=False)
    assert current_loop() is None


async def test_known_read_that_began_during_a_write_and_ends_after_it_is_dropped() -> None:
    store = DetailedStore()
    known = known_of(store)
    asked: list[int] = []

    async def write() -> MaintenanceState:
        asked.append(moment())  # of a read that saw the store before the write
        return await store.update_state(lambda _: MaintenanceState(switch=Switch(on=True)))

    await known.write(store, write)
    assert not known.put(MaintenanceState(), *asked)
    assert known.state == MaintenanceState(switch=Switch(on=True))
