"""Following a store: requests read a local value, with a lifespan or without one."""

from __future__ import annotations

import logging
import threading
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from functools import partial

import anyio
import pytest
from anyio.lowlevel import checkpoint

from fastapi_maintenance import MaintenanceState, Switch, Window, maintenance_mode_on, set_maintenance_mode
from fastapi_maintenance._helpers import background, clock
from fastapi_maintenance._switch import source
from fastapi_maintenance.backends.known import known_of, moment
from tests.middleware.test_failures import app_on, hang, records, status
from tests.stores import BareSwitch, WatchableStore, be_down
from tests.support import RunJumping, eventually
from tests.switch.lifespans import ON, answers, answers_after, living
from tests.switch.services import Service

pytestmark = pytest.mark.anyio


async def test_a_request_reads_a_local_value_while_the_store_is_followed() -> None:
    store = WatchableStore(True)
    app = app_on(store)
    async with living(app):
        store.before_read = be_down
        assert [503, 503] == [await status(app) for _ in range(2)]
        assert 1 == store.watchers
    assert (0, 1) == (store.watchers, store.ended)


async def test_backend_that_can_only_be_asked_is_asked_on_each_request_of_an_app_with_a_lifespan() -> None:
    switch = BareSwitch()
    app = app_on(switch)
    async with living(app):
        for value in (True, False, True):
            switch.value = value  # as another process would
            assert await status(app) == (503 if value else 200)


async def test_pushed_state_counts_although_another_one_became_known_since_the_last() -> None:
    store = WatchableStore()
    app = app_on(store)
    async with living(app):
        await answers(app, 200)
        known_of(store).put(MaintenanceState(), moment())  # as a request reads it
        await store.set_value(True)  # as another process would
        await answers(app, 503)


async def test_a_store_that_hangs_holds_no_request_once_it_is_followed() -> None:
    store = WatchableStore(True)
    app = app_on(store, read_timeout=3600)
    async with living(app):
        store.before_read = store.before_tell = hang
        store.ring()
        with anyio.fail_after(30):
            assert [503, 503] == [await status(app) for _ in range(2)]
        store.come_back()


@pytest.mark.parametrize("closed", [True, False])
async def test_an_app_starts_although_its_store_hangs_or_is_down(
    closed: bool, caplog: pytest.LogCaptureFixture
) -> None:
    for failure, patience in ((hang, 0.05), (be_down, 60)):
        store = WatchableStore(not closed)
        store.before_read = store.before_tell = failure
        app = app_on(store, read_timeout=patience, fail_closed=closed)
        async with living(app) as sent:
            assert ["lifespan.startup.complete"] == sent
            assert (503 if closed else 200) == await status(app)
            store.before_read = store.before_tell = checkpoint
            if failure is be_down:
                await answers(app, 200 if closed else 503)
        assert ["lifespan.startup.complete", "lifespan.shutdown.complete"] == sent
    hung, begun, ended = records(caplog)
    assert "TimeoutError: no answer within 0.05 seconds" in hung
    assert "the store is down" in begun
    assert "can be read again" in ended


async def test_a_lost_store_is_followed_again_with_two_records_for_each_outage(
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = WatchableStore(True)
    app = app_on(store)
    async with living(app):
        for _ in range(3):
            store.go_down()
            store.cut_off()
            await answers_after(caplog, "cannot be read")
            assert 503 == await status(app)
            await store.memory.set_value(False)
            await anyio.sleep(0.2)  # several tries
            assert 503 == await status(app)
            store.come_back()
            store.before_tell = checkpoint
            await answers(app, 200)
            (ended,) = records(caplog)
            assert "can be read again" in ended
            await store.set_value(True)
            await answers(app, 503)


def test_a_window_that_was_announced_opens_and_closes_by_itself_in_every_app(run_jumping: RunJumping) -> None:
    """One app follows before the window is announced, one is started in between; nothing tells them the time."""

    async def main() -> None:
        store = WatchableStore()
        early, late = Service(store), Service(store)
        early.let_go.set()
        late.let_go.set()
        now = clock.now()
        window = Window(id="a", starts_at=now + timedelta(seconds=10), ends_at=now + timedelta(seconds=20))
        async with living(early.app):
            await store.update_state(lambda _: MaintenanceState(windows=(window,)))
            async with living(late.app):
                statuses = []
                for _ in range(3):
                    statuses.append([await service.get("/work/a") for service in (early, late)])
                    await anyio.sleep(12)
        assert statuses == [[200, 200], [503, 503], [200, 200]]

    run_jumping(main)


async def test_log_of_off_names_who_set_it_only_where_that_was_during_this_maintenance(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "fastapi_maintenance")
    store = WatchableStore(MaintenanceState(switch=Switch(by="old", since=datetime(2020, 1, 1, tzinfo=UTC))))

    def logged() -> list[tuple[object, object]]:
        return [(fields["maintenance_active"], fields.get("maintenance_by")) for fields in map(vars, caplog.records)]

    async def is_logged(number: int) -> bool:
        return len(logged()) == number

    async with living(app_on(store)):
        async with maintenance_mode_on(store, by="job"):
            await eventually(partial(is_logged, 1))
            await set_maintenance_mode(True, store)
        await set_maintenance_mode(False, store, by="bob")
        await eventually(partial(is_logged, 2))
        async with maintenance_mode_on(store, by="job"):
            await eventually(partial(is_logged, 3))
        await eventually(partial(is_logged, 4))
    assert logged() == [(True, "job"), (False, "bob"), (True, "job"), (False, None)]
    values = [value for record in caplog.records for name, value in vars(record).items() if "maintenance_" in name]
    assert {type(value) for value in values} == {bool, str}


# A watch that fails, of a store that can be read


NOT_PUSHED = "Changes of {} are not pushed, so it is read each second: {}"


@pytest.fixture
def _tried_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "_PAUSES", (0.001,))


@pytest.mark.usefixtures("_tried_at_once")
async def test_watch_that_ends_is_logged_once_and_the_store_is_polled(caplog: pytest.LogCaptureFixture) -> None:
    class Ending(WatchableStore):
        async def watch(self) -> AsyncIterator[MaintenanceState]:
            await checkpoint()
            for state in list[MaintenanceState]():
                yield state

    store = Ending(True)
    app = app_on(store)
    async with living(app):
        await answers_after(caplog, NOT_PUSHED.format("Ending", "EOFError: watch() has ended"))
        assert 503 == await status(app)
        await store.set_value(False)
        await answers(app, 200)
    assert records(caplog) == []
    caplog.clear()


@pytest.mark.usefixtures("_tried_at_once")
async def test_watch_that_yields_no_state_is_logged_once_and_the_store_is_polled(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Talking(WatchableStore):
        async def watch(self) -> AsyncIterator[MaintenanceState]:
            await checkpoint()
            yield "off"  # type: ignore[misc]  # what is tested

    app = app_on(Talking(True))
    async with living(app):
        error = "InvalidStateError: a backend must return a MaintenanceState, got str 'off'"
        await answers_after(caplog, NOT_PUSHED.format("Talking", error))
        assert 503 == await status(app)
    caplog.clear()


async def test_watch_without_aclose_is_followed() -> None:
    class States:
        def __init__(self) -> None:
            self.told = False

        def __aiter__(self) -> States:
            return self

        async def __anext__(self) -> MaintenanceState:
            if self.told:
                raise StopAsyncIteration
            self.told = True
            await checkpoint()
            return ON

    class Store(WatchableStore):
        def watch(self) -> States:
            return States()

    app = app_on(Store(True))
    async with living(app):
        assert 503 == await status(app)


# Without a lifespan


async def test_without_a_lifespan_one_read_serves_all_requests_that_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "_UNFOLLOWED_TTL", 3600)
    store = WatchableStore(True)
    reads = 0

    async def count() -> None:
        nonlocal reads
        reads += 1
        await anyio.sleep(0.05)

    store.before_read = count
    app = app_on(store)
    statuses: list[int] = []

    async def ask() -> None:
        statuses.append(await status(app))

    async with anyio.create_task_group() as group:
        for _ in range(20):
            group.start_soon(ask)
    assert ([503] * 20, 1) == (statuses, reads)
    assert (503, 1) == (await status(app), reads)


async def test_without_a_lifespan_a_change_is_seen_when_the_time_to_live_is_over() -> None:
    store = WatchableStore()
    app = app_on(store)
    assert 200 == await status(app)
    await store.set_value(True)
    await answers(app, 503)


async def test_of_writes_that_overtake_each_other_the_last_one_in_the_store_counts() -> None:
    store = WatchableStore()
    app = app_on(store)
    second_is_in_the_store, first_has_ended = anyio.Event(), anyio.Event()
    assert 200 == await status(app)

    async def first() -> None:
        await set_maintenance_mode(True, store)
        first_has_ended.set()

    async def let_the_second_in() -> None:
        store.before_write, store.after_write = checkpoint, wait_for_the_first
        group.start_soon(set_maintenance_mode, False, store)
        await second_is_in_the_store.wait()
        store.after_write = checkpoint

    async def wait_for_the_first() -> None:
        second_is_in_the_store.set()
        await first_has_ended.wait()

    store.before_write = let_the_second_in
    with anyio.fail_after(30):
        async with anyio.create_task_group() as group:
            await first()
    assert 503 == await status(app)
    assert await store.get_value()


async def test_without_a_lifespan_a_store_that_hangs_holds_the_first_request_only(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "_UNFOLLOWED_TTL", 3600)
    store = WatchableStore(True)
    hung = 0

    async def count_and_hang() -> None:
        nonlocal hung
        hung += 1
        await anyio.sleep_forever()

    store.before_read = count_and_hang
    app = app_on(store, fail_closed=True, read_timeout=0.05)
    assert [503, 503, 503] == [await status(app) for _ in range(3)]
    assert 1 == hung
    (begun,) = records(caplog)
    assert "TimeoutError: no answer within 0.05 seconds" in begun


async def test_requests_during_an_outage_wait_for_no_read_of_another() -> None:
    store = WatchableStore(True)
    store.before_read = be_down
    app = app_on(store, fail_closed=True, read_timeout=3600)
    assert 503 == await status(app)
    trying, go_on = anyio.Event(), anyio.Event()

    async def try_again() -> None:
        trying.set()
        await go_on.wait()
        await be_down()

    store.before_read = try_again
    async with anyio.create_task_group() as group:

        async def ask() -> None:
            while not trying.is_set():
                await status(app)
                await anyio.sleep(0.01)

        group.start_soon(ask)
        with anyio.fail_after(30):
            await trying.wait()
            assert [503, 503] == [await status(app) for _ in range(2)]
        go_on.set()


async def test_a_request_that_is_cancelled_hands_its_read_to_one_that_waits() -> None:
    store = WatchableStore(True)
    reading = anyio.Event()

    async def wait_once() -> None:
        store.before_read = checkpoint
        reading.set()
        await anyio.sleep_forever()

    store.before_read = wait_once
    app = app_on(store)
    scope = anyio.CancelScope()
    statuses = []

    async def first() -> None:
        with scope:
            await status(app)

    async def second() -> None:
        statuses.append(await status(app))

    async with anyio.create_task_group() as group:
        group.start_soon(first)
        await reading.wait()
        group.start_soon(second)
        await anyio.sleep(0.02)
        scope.cancel()
    assert [503] == statuses


async def test_an_app_in_two_event_loops_at_once_waits_for_neither_in_the_other() -> None:
    store = WatchableStore(True)
    reading, go_on = anyio.Event(), anyio.Event()

    async def wait() -> None:
        store.before_read = checkpoint
        reading.set()
        await go_on.wait()

    store.before_read = wait
    app = app_on(store)
    other: list[int] = []

    async def ask() -> None:
        other.append(await status(app))

    async with anyio.create_task_group() as group:
        group.start_soon(status, app)
        await reading.wait()
        thread = threading.Thread(target=anyio.run, args=(ask,))
        thread.start()
        await anyio.to_thread.run_sync(thread.join)
        go_on.set()
    assert [503] == other
