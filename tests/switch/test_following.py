"""The follower: requests read a local value, which it keeps current; without a lifespan, a read counts for a second."""

from __future__ import annotations

import logging
import threading
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial

import anyio
import pytest
from anyio.lowlevel import checkpoint

from fastapi_maintenance import MaintenanceState, Switch, Window, maintenance_mode_on, set_maintenance_mode
from fastapi_maintenance._helpers import background, clock
from fastapi_maintenance._switch import source
from fastapi_maintenance._switch.follower import Follower, Subscription, following, subscribe
from fastapi_maintenance.backends.last_known import forget_parent, known_of, moment
from tests.middleware.test_failures import app_on, hang, records, status
from tests.stores import BareSwitch, Hook, WatchableStore, be_down
from tests.support import OddError, RunJumping, eventually
from tests.switch.lifespans import ON, answers, answers_after, cancel, living, once
from tests.switch.services import Service

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("failure", [be_down, hang])
async def test_request_of_a_followed_store_reads_only_the_local_value(failure: Hook) -> None:
    store = WatchableStore(True)
    app = app_on(store, read_timeout=3600)
    async with living(app):
        assert store.watchers == 1
        store.before_read = store.before_tell = failure
        store.ring()
        with anyio.fail_after(30):
            assert [await status(app) for _ in range(2)] == [503, 503]
        store.come_back()
    assert (store.watchers, store.ended) == (0, 1)


async def test_request_of_a_bare_switch_asks_it_each_time() -> None:
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
        known_of(store).put(MaintenanceState(), moment())  # as when a request reads it
        await store.set_value(True)  # as another process would
        await answers(app, 503)


async def test_subscriber_that_another_thread_removes_leaves_its_follower_to_one_that_is_added_now(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store, notified = WatchableStore(), anyio.Event()
    first, second = Subscription(store, lambda: None), Subscription(store, lambda: notified.set())  # noqa: PLW0108 -- the newest event
    follower, add = subscribe(first), Follower.add

    def remove_and_add(self: Follower, subscription: Subscription) -> None:
        thread = threading.Thread(target=follower.remove, args=(first,))
        thread.start()
        thread.join()
        add(self, subscription)

    monkeypatch.setattr(Follower, "add", remove_and_add)
    assert subscribe(second) is follower
    await eventually(lambda: follower.subscriptions == [second])
    for value in (True, False, True):
        notified = anyio.Event()
        await store.set_value(value)
        await eventually(notified.is_set)
    follower.remove(second)


async def test_subscriber_is_notified_of_a_state_that_another_thread_learns() -> None:
    store, statuses = WatchableStore(), []

    def notify() -> None:
        statuses.append(known_of(store).state)

    async with following(store, notify):
        thread = threading.Thread(target=known_of(store).put, args=(ON, moment()))  # as another event loop does
        thread.start()
        thread.join()
        await eventually(lambda: ON in statuses)


async def test_forked_child_takes_no_switch_for_followed() -> None:
    store = WatchableStore()
    async with living(app_on(store)):
        assert known_of(store).is_followed
        forget_parent()  # as the fork does in the child
        assert not known_of(store).is_followed


@pytest.mark.parametrize(
    ("failure", "patience", "logged"),
    [
        (hang, 0.05, ["TimeoutError: no answer within 0.05 seconds"]),
        (be_down, 60, ["the store is down", "can be read again"]),
        (cancel, 60, ["it raised CancelledError", "can be read again"]),
    ],
)
@pytest.mark.parametrize("closed", [True, False])
async def test_app_whose_store_hangs_or_fails_starts(
    closed: bool, failure: Hook, patience: float, logged: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    store = WatchableStore(not closed)
    store.before_read = store.before_tell = failure
    app = app_on(store, read_timeout=patience, fail_closed=closed)
    async with living(app):
        assert await status(app) == (503 if closed else 200)
        store.before_read = store.before_tell = checkpoint
        if failure is not hang:
            await answers(app, 200 if closed else 503)
    assert [text in record for text, record in zip(logged, records(caplog), strict=True)] == [True] * len(logged)


async def test_lost_store_is_followed_again_with_two_log_records_for_each_outage(
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = WatchableStore(True)
    app = app_on(store)
    async with living(app):
        for _ in range(2):
            store.go_down()
            store.cut_off()
            await answers_after(caplog, "cannot be read")
            await store.memory.set_value(False)
            await anyio.sleep(0.2)  # several tries
            assert await status(app) == 503
            store.come_back()
            store.before_tell = checkpoint
            await answers(app, 200)
            (ended,) = records(caplog)
            assert "can be read again" in ended
            await store.set_value(True)
            await answers(app, 503)


def test_planned_window_opens_and_closes_in_each_app_without_a_push(run_jumping: RunJumping) -> None:
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


async def test_log_of_off_names_who_set_it_only_if_that_was_during_this_maintenance(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "fastapi_maintenance")
    store = WatchableStore(MaintenanceState(switch=Switch(by="old", since=datetime(2020, 1, 1, tzinfo=UTC))))

    async def is_logged(number: int) -> bool:
        return len(caplog.records) == number

    async with living(app_on(store)):
        async with maintenance_mode_on(store, by="job"):
            await eventually(partial(is_logged, 1))
            await set_maintenance_mode(True, store)
        await set_maintenance_mode(False, store, by="bob")
        await eventually(partial(is_logged, 2))
        async with maintenance_mode_on(store, by="job"):
            await eventually(partial(is_logged, 3))
        await eventually(partial(is_logged, 4))
    fields = [vars(record) for record in caplog.records]
    logged = [(each["maintenance_active"], each.get("maintenance_by")) for each in fields]
    assert logged == [(True, "job"), (False, "bob"), (True, "job"), (False, None)]
    values = [value for each in fields for name, value in each.items() if "maintenance_" in name]
    assert {type(value) for value in values} == {bool, str}


# A watch that fails, of a store that can be read


@pytest.mark.parametrize(
    ("yielded", "error", "logged"),
    [
        ([], None, "EOFError: watch() has ended"),
        (["off"], None, "InvalidStateError: a backend must return a MaintenanceState, got str 'off'"),
        ([ON], OddError(), "OddError"),
        ([ON], SystemExit(3), "SystemExit"),
        ([ON], BaseExceptionGroup("several", [OddError()]), "BaseExceptionGroup"),
    ],
    ids=str,
)
async def test_watch_that_fails_is_logged_once_and_the_store_is_polled(
    yielded: Sequence[MaintenanceState],
    error: BaseException | None,
    logged: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(background, "_PAUSES", (0.001,))

    class Store(WatchableStore):
        async def watch(self) -> AsyncIterator[MaintenanceState]:
            await checkpoint()
            for state in yielded:
                yield state
            if error is not None:
                raise error

    store = Store(True)
    app = app_on(store)
    async with living(app):
        await answers_after(caplog, f"Changes of Store are not pushed, so it is read every second: {logged}")
        assert await status(app) == 503
        await store.set_value(False)
        if not yielded:
            await answers(app, 200)
    assert records(caplog) == []


async def test_watch_and_read_that_raise_no_exception_do_not_end_the_app(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background, "_PAUSES", (0.001,))

    class Store(WatchableStore):
        fails = False

        async def get_state(self) -> MaintenanceState:
            if self.fails:
                raise OddError
            return await super().get_state()

    store = Store(True)
    app = app_on(store)
    async with living(app):
        store.fails = True
        store.cut_off()
        await answers_after(caplog, "Background work failed; retrying until it succeeds")
        assert await status(app) == 503
        store.fails = False
        store.before_tell = checkpoint
        await store.set_value(False)
        await answers(app, 200)
    caplog.clear()


async def test_watch_without_aclose_is_followed() -> None:
    class States:
        def __init__(self) -> None:
            self.has_yielded = False

        def __aiter__(self) -> States:
            return self

        async def __anext__(self) -> MaintenanceState:
            if self.has_yielded:
                raise StopAsyncIteration
            self.has_yielded = True
            await checkpoint()
            return ON

    class Store(WatchableStore):
        def watch(self) -> States:
            return States()

    app = app_on(Store(True))
    async with living(app):
        assert await status(app) == 503


# Without a lifespan


async def test_read_without_lifespan_serves_all_waiting_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "_UNFOLLOWED_TTL", 3600)
    store = WatchableStore(True)
    app, all_wait = app_on(store), anyio.Event()
    once(store, "before_read", all_wait.wait)
    statuses: list[int] = []

    async def ask() -> None:
        statuses.append(await status(app))

    async with anyio.create_task_group() as group:
        for _ in range(20):
            group.start_soon(ask)
        await anyio.wait_all_tasks_blocked()
        store.before_read = be_down  # for each read but the first
        all_wait.set()
    assert [*statuses, await status(app)] == [503] * 21


async def test_change_without_lifespan_is_seen_after_the_time_to_live() -> None:
    store = WatchableStore()
    app = app_on(store)
    assert await status(app) == 200
    await store.set_value(True)
    await answers(app, 503)


async def test_hanging_store_without_lifespan_delays_only_the_first_request(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "_UNFOLLOWED_TTL", 3600)
    store = WatchableStore(True)
    reads: list[bool] = []

    async def count_and_hang() -> None:
        reads.append(True)
        await hang()

    store.before_read = count_and_hang
    app = app_on(store, fail_closed=True, read_timeout=0.05)
    assert [await status(app) for _ in range(3)] == [503, 503, 503]
    assert reads == [True]
    (begun,) = records(caplog)
    assert "TimeoutError: no answer within 0.05 seconds" in begun


async def test_request_during_an_outage_does_not_wait_for_the_read_of_another() -> None:
    store = WatchableStore(True)
    store.before_read = be_down
    app = app_on(store, fail_closed=True, read_timeout=3600)
    assert await status(app) == 503
    go_on = anyio.Event()

    async def try_again() -> None:
        await go_on.wait()
        await be_down()

    trying = once(store, "before_read", try_again)
    async with anyio.create_task_group() as group:

        async def ask() -> None:
            while not trying.is_set():
                await status(app)
                await anyio.sleep(0.01)

        group.start_soon(ask)
        with anyio.fail_after(30):
            await trying.wait()
            assert [await status(app) for _ in range(2)] == [503, 503]
        go_on.set()


async def test_cancelled_request_leaves_its_read_to_a_waiting_one() -> None:
    store = WatchableStore(True)
    reading = once(store, "before_read", anyio.sleep_forever)
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
        await anyio.wait_all_tasks_blocked()
        scope.cancel()
    assert statuses == [503]


async def test_request_in_one_event_loop_does_not_wait_for_a_read_in_another() -> None:
    store = WatchableStore(True)
    go_on = anyio.Event()
    reading = once(store, "before_read", go_on.wait)
    app = app_on(store)
    other: list[int] = []

    async def ask() -> None:
        other.append(await status(app))

    async with anyio.create_task_group() as group:
        group.start_soon(status, app)
        await reading.wait()
        await anyio.to_thread.run_sync(anyio.run, ask)
        go_on.set()
    assert other == [503]
