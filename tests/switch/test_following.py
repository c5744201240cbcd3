"""Following a store: requests read a local value, which is never older than what this process wrote."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
import weakref
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, cast

import anyio
import pytest
from anyio.lowlevel import checkpoint
from fastapi import FastAPI
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fastapi_maintenance import (
    MaintenanceState,
    MemoryBackend,
    StateBackend,
    cached,
    configure_backend,
    get_maintenance_mode,
    maintenance_middleware,
    maintenance_mode_on,
    set_maintenance_mode,
)
from fastapi_maintenance._switch import writes
from tests.middleware.test_failures import app_on, hang, records, status
from tests.stores import BareSwitch, DetailedStore, WatchableStore, be_down
from tests.support import client, eventually

pytestmark = pytest.mark.anyio

ON = MaintenanceState(active=True)
OFF = MaintenanceState()


@asynccontextmanager
async def living(app: ASGIApp) -> AsyncIterator[list[str]]:
    """Run the lifespan of an app as a server does; give the types of the messages that it sent."""
    sent: list[str] = []
    started, end = anyio.Event(), anyio.Event()
    received = 0

    async def receive() -> Message:
        nonlocal received
        received += 1
        if received > 1:
            await end.wait()
        return {"type": "lifespan.startup" if received == 1 else "lifespan.shutdown"}

    async def send(message: Message) -> None:
        await checkpoint()
        sent.append(message["type"])
        started.set()

    async def live() -> None:
        await app({"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}, receive, send)

    async with anyio.create_task_group() as group:
        group.start_soon(live)
        with anyio.fail_after(10):
            await started.wait()
        yield sent
        end.set()


async def answers(app: FastAPI, expected: int) -> None:
    """Wait until the app answers with this status."""

    async def does() -> bool:
        return expected == await status(app)

    await eventually(does)


async def test_a_request_reads_a_local_value_while_the_store_is_followed() -> None:
    store = WatchableStore(True)
    app = app_on(store)
    async with living(app):
        store.before_read = be_down
        assert [503, 503] == [await status(app) for _ in range(2)]
        assert 1 == store.watchers
    assert (0, 1) == (store.watchers, store.ended)


async def test_each_change_is_pushed() -> None:
    store = WatchableStore()
    app = app_on(store)
    async with living(app):
        for active in (True, False, True):
            await store.set_value(active)  # as another process would
            await answers(app, 503 if active else 200)


async def test_a_store_that_hangs_holds_no_request_once_it_is_followed() -> None:
    store = WatchableStore(True)
    app = app_on(store, read_timeout=3600)
    async with living(app):
        store.before_read = store.before_tell = hang
        store.ring()
        with anyio.fail_after(10):
            assert [503, 503] == [await status(app) for _ in range(2)]
        store.come_back()


@pytest.mark.parametrize("closed", [True, False])
async def test_an_app_starts_although_its_store_hangs_or_is_down(
    closed: bool, caplog: pytest.LogCaptureFixture
) -> None:
    for failure in (hang, be_down):
        store = WatchableStore(not closed)
        store.before_tell = failure
        app = app_on(store, read_timeout=0.05, fail_closed=closed)
        async with living(app) as sent:
            assert ["lifespan.startup.complete"] == sent
            assert (503 if closed else 200) == await status(app)
            store.before_tell = checkpoint
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
            store.cut_off()
            await answers_after(caplog, "cannot be read")
            assert 503 == await status(app)
            await store.set_value(False)
            await anyio.sleep(0.2)  # several tries
            assert 503 == await status(app)
            store.before_tell = checkpoint
            await answers(app, 200)
            (ended,) = records(caplog)
            assert "can be read again" in ended
            await store.set_value(True)
            await answers(app, 503)


async def answers_after(caplog: pytest.LogCaptureFixture, text: str) -> None:
    """Wait for one record, and take it."""

    async def is_there() -> bool:
        return bool(caplog.records)

    await eventually(is_there)
    (record,) = records(caplog)
    assert text in record


async def test_a_watch_that_ends_is_an_outage(caplog: pytest.LogCaptureFixture) -> None:
    class Ending(WatchableStore):
        async def watch(self) -> AsyncIterator[MaintenanceState]:
            yield await self.get_state()

    app = app_on(Ending(True))
    async with living(app):
        await answers_after(caplog, "EOFError: watch() has ended")
        assert 503 == await status(app)
    caplog.clear()


async def test_nonsense_from_a_watch_is_an_outage(caplog: pytest.LogCaptureFixture) -> None:
    class Talking(WatchableStore):
        async def watch(self) -> AsyncIterator[MaintenanceState]:
            yield ON
            yield "off"  # type: ignore[misc]  # the nonsense that is tested

    app = app_on(Talking())
    async with living(app):
        await answers_after(caplog, "must return a MaintenanceState, got str 'off'")
        assert 503 == await status(app)
    caplog.clear()


async def test_a_watch_without_aclose_will_do(caplog: pytest.LogCaptureFixture) -> None:
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

    app = app_on(Store())
    async with living(app):
        assert 503 == await status(app)
        await answers_after(caplog, "EOFError: watch() has ended")
    caplog.clear()


# What this process writes


async def test_a_write_counts_at_once_in_its_own_process() -> None:
    store = WatchableStore()
    app = app_on(store)
    async with living(app):
        store.before_tell = hang  # the push is late
        for active in (True, False):
            await set_maintenance_mode(active, store)
            assert (503 if active else 200) == await status(app)
        async with maintenance_mode_on(store):
            assert 503 == await status(app)
        assert 200 == await status(app)


async def test_a_push_from_before_a_write_does_not_undo_it() -> None:
    store = WatchableStore()
    app = app_on(store)
    async with living(app):
        reached, go_on = anyio.Event(), anyio.Event()

        async def wait() -> None:
            store.before_tell = checkpoint
            reached.set()
            await go_on.wait()

        store.before_tell = wait
        store.ring()
        await reached.wait()  # the watch has read that it is off
        await set_maintenance_mode(True, store)
        go_on.set()
        for _ in range(20):
            assert 503 == await status(app)


async def test_a_write_that_ends_after_a_newer_one_of_another_process_does_not_undo_it() -> None:
    store = WatchableStore()
    app = app_on(store)
    async with living(app):
        ended = anyio.Event()

        async def be_overtaken() -> None:
            store.after_write = checkpoint
            await store.memory.update_state(lambda _: OFF)  # another process
            store.ring()
            await anyio.sleep(0.05)  # long enough for the watch to tell
            ended.set()

        store.after_write = be_overtaken
        await set_maintenance_mode(True, store)
        assert ended.is_set()
        assert 200 == await status(app)


@pytest.mark.parametrize("failure", [be_down, hang])
async def test_a_write_counts_although_the_store_cannot_be_read_after_it(failure: Any) -> None:  # noqa: ANN401 -- a hook
    store = WatchableStore()
    app = app_on(store, read_timeout=0.05)
    async with living(app):

        async def tell_and_fail() -> None:
            store.after_write = checkpoint
            store.ring()
            await anyio.sleep(0.05)
            store.before_read = failure

        store.after_write = tell_and_fail
        await set_maintenance_mode(True, store)
        assert 503 == await status(app)
        store.come_back()


async def test_a_write_in_another_thread_with_its_own_loop_counts_at_once() -> None:
    store = WatchableStore()
    app = app_on(store)
    async with living(app):
        store.before_tell = hang
        store.ring = lambda: None  # type: ignore[method-assign]  # an event belongs to one loop
        thread = threading.Thread(target=anyio.run, args=(set_maintenance_mode, True, store))
        thread.start()
        await anyio.to_thread.run_sync(thread.join)
        assert 503 == await status(app)


async def test_a_bare_switch_that_can_be_watched_counts_at_once_too() -> None:
    class Watchable(BareSwitch):
        async def watch(self) -> AsyncIterator[MaintenanceState]:
            yield MaintenanceState(active=await self.get_value())
            await anyio.sleep_forever()

    store = Watchable()
    app = app_on(store)
    async with living(app):
        await set_maintenance_mode(True, store)
        assert 503 == await status(app)


async def test_a_push_that_is_read_again_while_another_write_is_made_does_not_undo_that() -> None:
    store = WatchableStore()
    app = app_on(store)
    async with living(app):
        reached, go_on = anyio.Event(), anyio.Event()
        reading, read_on = anyio.Event(), anyio.Event()

        async def wait_before_telling() -> None:
            store.before_tell = checkpoint
            reached.set()
            await go_on.wait()

        async def read_slowly() -> MaintenanceState:
            del store.get_state  # once
            state = await store.memory.get_state()
            reading.set()
            await read_on.wait()
            return state

        store.before_tell = wait_before_telling
        store.ring()
        await reached.wait()
        await set_maintenance_mode(False, store)  # what is told next may be from before this, so it is read again
        store.get_state = read_slowly  # type: ignore[method-assign]
        go_on.set()
        await reading.wait()
        await set_maintenance_mode(True, store)
        read_on.set()
        for _ in range(20):
            assert 503 == await status(app)


async def test_what_another_process_undoes_is_seen_also_where_a_watch_tells_differences_only() -> None:
    class Differing(WatchableStore):
        async def watch(self) -> AsyncIterator[MaintenanceState]:
            told = None
            async for state in super().watch():
                if state != told:
                    told = state
                    yield state

    store = Differing()
    app = app_on(store)
    async with living(app):
        undo = store.memory.set_value

        async def undo_at_once() -> None:
            store.after_write = checkpoint
            store.before_read = hold_on
            store.ring()

        async def hold_on() -> None:
            store.before_read = checkpoint
            await undo(False)  # another process, before this one looks

        store.after_write = undo_at_once
        await set_maintenance_mode(True, store)
        await answers(app, 200)
        await anyio.sleep(0.05)
        assert 200 == await status(app)


# Without a lifespan


async def test_without_a_lifespan_one_read_serves_all_requests_that_wait() -> None:
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
    with anyio.fail_after(10):
        async with anyio.create_task_group() as group:
            await first()
    assert 503 == await status(app)
    assert await store.get_value()


async def test_without_a_lifespan_a_write_counts_at_once() -> None:
    store = WatchableStore()
    app = app_on(store)
    assert 200 == await status(app)
    await set_maintenance_mode(True, store)
    assert 503 == await status(app)


async def test_without_a_lifespan_a_store_that_hangs_holds_the_first_request_only(
    caplog: pytest.LogCaptureFixture,
) -> None:
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


async def test_while_a_store_is_away_one_request_tries_and_the_others_do_not_wait() -> None:
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
        with anyio.fail_after(10):
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


# The lifespan


async def test_a_backend_that_is_configured_while_the_app_starts_is_followed() -> None:
    store = WatchableStore(True)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        configure_backend(store)
        yield
        assert 0 == store.watchers, "the client is closed after following has ended"

    app = FastAPI(lifespan=lifespan)
    app.add_middleware(maintenance_middleware())
    app.add_api_route("/", lambda: "open")
    async with living(app):
        assert (503, 1) == (await status(app), store.watchers)


async def test_a_backend_that_is_configured_later_is_followed_instead() -> None:
    first, second = WatchableStore(), WatchableStore(True)
    configure_backend(first)
    app = app_on(None)
    async with living(app):
        assert 200 == await status(app)
        configure_backend(second)
        assert 503 == await status(app)

        async def has_turned() -> bool:
            await checkpoint()
            return (first.watchers, second.watchers) == (0, 1)

        await eventually(has_turned)
        configure_backend(MemoryBackend())
        assert 200 == await status(app)
    assert (0, 0) == (first.watchers, second.watchers)


async def test_a_backend_that_is_configured_later_is_waited_for() -> None:
    first, second = MemoryBackend(True), WatchableStore(True)
    configure_backend(first)
    app = app_on(None)
    async with living(app):
        assert 503 == await status(app)
        second.before_read = lambda: anyio.sleep(0.1)
        configure_backend(second)
        assert [503] * 5 == [await status(app) for _ in range(5)]


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
async def test_what_ends_a_process_comes_out_of_a_lifespan_as_it_is(error: type[BaseException]) -> None:
    async def fails(_scope: Scope, _receive: Receive, _send: Send) -> None:
        await checkpoint()
        raise error

    with pytest.raises(error):
        await maintenance_middleware(backend=WatchableStore())(fails)({"type": "lifespan"}, checkpoint, checkpoint)  # type: ignore[arg-type]


async def test_what_an_app_raises_in_its_lifespan_comes_out_as_it_is() -> None:
    async def fails(_scope: Scope, _receive: Receive, _send: Send) -> None:
        await checkpoint()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await maintenance_middleware(backend=WatchableStore())(fails)({"type": "lifespan"}, checkpoint, checkpoint)  # type: ignore[arg-type]


async def test_an_app_whose_start_fails_follows_nothing() -> None:
    store = WatchableStore()

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        if not store.ended:
            raise ZeroDivisionError
        yield

    app = FastAPI(lifespan=lifespan)
    app.add_middleware(maintenance_middleware(backend=store))
    with pytest.raises(BaseException) as caught:  # noqa: PT011 -- it comes out of a group of this test
        async with living(app) as sent:
            pass
    assert "ZeroDivisionError" in repr(caught.value)
    assert ["lifespan.startup.failed"] == sent
    assert 0 == store.watchers + store.ended


async def test_an_app_that_is_started_again_follows_again() -> None:
    store = WatchableStore()
    app = app_on(store)
    for active in (True, False):
        await store.set_value(active)
        async with living(app):
            assert (1, 503 if active else 200) == (store.watchers, await status(app))


async def test_an_app_that_is_started_twice_at_once_follows_once() -> None:
    store = WatchableStore(True)
    app = app_on(store)
    async with living(app), living(app):
        assert (1, 503) == (store.watchers, await status(app))


async def test_two_apps_on_one_store_each_know_what_either_writes() -> None:
    store = WatchableStore()
    apps = [app_on(store), app_on(store)]

    @apps[0].get("/close")
    async def close() -> None:
        await set_maintenance_mode(True)

    async with living(apps[0]), living(apps[1]):
        store.before_tell = hang
        async with client(apps[0]) as http:
            await http.get("/close")
        assert [503, 503] == [await status(app) for app in apps]


async def test_an_app_that_is_dropped_leaves_nothing_behind() -> None:
    def make(backend: StateBackend) -> weakref.ref[object]:
        return weakref.ref(maintenance_middleware(backend=backend)(app_on(MemoryBackend())))

    store = WatchableStore()
    made = make(store)
    gc.collect()
    assert (None, []) == (made(), list(writes._listeners))


# Event loops that were closed with tasks still in them


left_behind = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # by what was left


class Abandoned:
    """A loop of asyncio that is run for a while, and closed without cancelling what is in it."""

    def __init__(self, coroutine: Coroutine[Any, Any, None]) -> None:
        loop = asyncio.new_event_loop()
        self._tasks = [loop.create_task(coroutine)]
        loop.run_until_complete(asyncio.sleep(0.05))
        self._tasks = list(asyncio.all_tasks(loop))
        loop.close()

    def let_go(self) -> None:
        """Drop what was left, without the words that Python has for that."""
        for task in self._tasks:
            task._log_destroy_pending = False  # type: ignore[attr-defined]  # asyncio's own
            with contextlib.suppress(Exception):  # what awaits on its way out cannot
                cast("Coroutine[Any, Any, None]", task.get_coro()).close()


@left_behind
@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_a_store_that_was_followed_in_a_loop_that_was_closed_is_read_and_followed_in_the_next(loop: str) -> None:
    store = WatchableStore()
    app = app_on(store)

    async def live() -> None:
        async with living(app):
            await asyncio.sleep(60)

    left = Abandoned(live())
    store._changed = anyio.Event()  # a store has none of an event loop

    async def be(state: MaintenanceState) -> None:
        await store.memory.update_state(lambda _: state)
        store.ring()

    async def next_life() -> None:
        await be(ON)
        with anyio.fail_after(20):
            await answers(app, 503)  # read now and then
            async with living(app):
                await be(OFF)
                await answers(app, 200)
                left.let_go()  # which must not end what goes on here
                await be(ON)
                await answers(app, 503)

    anyio.run(next_life, backend=loop)


@left_behind
@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_a_cached_read_that_was_left_in_a_loop_that_was_closed_is_made_again_in_the_next(loop: str) -> None:
    store = DetailedStore()
    backend = cached(store)

    async def get() -> None:
        await get_maintenance_mode(backend)

    store.before_read = hang
    left = Abandoned(get())
    store.before_read = checkpoint

    async def next_life() -> bool:
        with anyio.fail_after(5):
            return await get_maintenance_mode(backend)

    assert not anyio.run(next_life, backend=loop)
    left.let_go()


@left_behind
def test_a_backend_that_is_configured_after_a_loop_was_closed_is_read() -> None:
    first, second = WatchableStore(), MemoryBackend(state=True)
    configure_backend(first)
    app = FastAPI()
    app.add_api_route("/", lambda: "open")
    app.add_middleware(maintenance_middleware())

    async def live() -> None:
        async with living(app):
            await asyncio.sleep(60)

    left = Abandoned(live())
    configure_backend(second)
    assert 503 == anyio.run(status, app)
    left.let_go()
