"""Following a store during an app's lifespan, in several apps and event loops, also in ones closed without cleanup."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager

import anyio
import pytest
from anyio import to_thread
from anyio.lowlevel import checkpoint
from fastapi import FastAPI
from starlette.types import Receive, Scope, Send

from fastapi_maintenance import (
    MaintenanceState,
    MaintenanceStatus,
    MemoryBackend,
    StateBackend,
    cached,
    configure_backend,
    get_maintenance_mode,
    get_maintenance_state,
    get_maintenance_status,
    maintenance_changes,
    maintenance_middleware,
    set_maintenance_mode,
)
from fastapi_maintenance._switch import follower
from fastapi_maintenance.backends.last_known import known_of
from fastapi_maintenance.middleware import backend_of
from tests.middleware.test_failures import app_on, hang, status
from tests.middleware.test_open_websockets import Client, Talk, service
from tests.stores import DetailedStore, WatchableStore
from tests.support import eventually
from tests.switch.lifespans import OFF, ON, Abandoned, answers, left_behind, living, once

pytestmark = pytest.mark.anyio


# Which backend is followed


async def test_backend_configured_while_the_app_starts_is_followed() -> None:
    store = WatchableStore(True)
    watchers_at_the_end: list[int] = []

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncGenerator[None]:
        configure_backend(store)
        yield
        watchers_at_the_end.append(store.watchers)  # here an app closes its client

    app = FastAPI(lifespan=lifespan)
    app.add_middleware(maintenance_middleware(read_timeout=60))
    app.add_api_route("/", lambda: "open")
    async with living(app):
        assert (await status(app), store.watchers) == (503, 1)
    assert watchers_at_the_end == [0]


async def test_backend_configured_later_is_read_and_followed_instead() -> None:
    first, second = WatchableStore(), WatchableStore(True)
    configure_backend(first)
    app = app_on(None)
    async with living(app):
        assert await status(app) == 200
        once(second, "before_read", lambda: anyio.sleep(0.1))
        configure_backend(second)
        assert [await status(app) for _ in range(5)] == [503] * 5
        await eventually(lambda: (first.watchers, second.watchers) == (0, 1))
        configure_backend(MemoryBackend())
        assert await status(app) == 200
    assert (first.watchers, second.watchers) == (0, 0)


async def test_backend_configured_later_that_a_thread_uses_first_is_followed_instead() -> None:
    first, second = WatchableStore(), WatchableStore(True)
    configure_backend(first)
    app = app_on(None)
    async with living(app):
        configure_backend(second)
        assert await to_thread.run_sync(backend_of, app) is second
        assert await status(app) == 503
        await eventually(lambda: (first.watchers, second.watchers) == (0, 1))
    assert (first.watchers, second.watchers) == (0, 0)


async def test_app_whose_start_fails_follows_nothing() -> None:
    store = WatchableStore()

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncGenerator[None]:
        if not store.ended:
            raise ZeroDivisionError
        yield

    app = FastAPI(lifespan=lifespan)
    app.add_middleware(maintenance_middleware(backend=store))
    with pytest.RaisesGroup(ZeroDivisionError):
        async with living(app) as sent:
            pass
    assert sent == ["lifespan.startup.failed"]
    assert store.watchers + store.ended == 0


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, ZeroDivisionError])
async def test_lifespan_that_raises_lets_the_error_out(error: type[BaseException]) -> None:
    async def fails(_scope: Scope, _receive: Receive, _send: Send) -> None:
        await checkpoint()
        raise error

    with pytest.raises(error):
        await maintenance_middleware(backend=WatchableStore())(fails)({"type": "lifespan"}, checkpoint, checkpoint)  # type: ignore[arg-type]


async def test_app_started_again_or_twice_at_once_follows_once() -> None:
    store = WatchableStore()
    app = app_on(store)
    for active in (True, False):
        await store.set_value(active)
        async with living(app), living(app):
            assert (store.watchers, await status(app)) == (1, 503 if active else 200)


async def test_app_that_is_dropped_leaves_nothing() -> None:
    def make(backend: StateBackend) -> weakref.ref[object]:
        return weakref.ref(maintenance_middleware(backend=backend)(app_on(MemoryBackend())))

    store = WatchableStore()
    known, made = weakref.ref(known_of(store)), make(store)
    gc.collect()
    assert (made(), known()) == (None, None)


async def test_read_in_progress_at_the_shutdown_ends_before_the_app() -> None:
    store, has_ended = DetailedStore(), anyio.Event()

    async def read_slowly() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(0.05)  # as when a connection returns to its pool
            has_ended.set()

    async with living(app_on(store)):
        await once(store, "before_read", read_slowly).wait()
    assert has_ended.is_set()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_read_that_lets_out_a_cancellation_raises_a_runtime_error() -> None:
    class Store(DetailedStore):
        async def get_state(self) -> MaintenanceState:
            await checkpoint()
            raise asyncio.CancelledError

    for get in (get_maintenance_mode, get_maintenance_status, get_maintenance_state):
        with pytest.raises(RuntimeError, match="although its task was not cancelled"):
            await get(Store())


# Several apps on one switch


class OwnClient(WatchableStore):
    """An app's own client of one store; the app closes it when it ends."""

    switch_identity = "one store"

    def close(self) -> None:
        self.go_down()
        self.cut_off()


async def test_app_whose_neighbour_has_closed_its_own_client_is_followed_by_its_own() -> None:
    first, second = OwnClient(), OwnClient()
    apps = app_on(first), app_on(second)
    has_begun, ends, has_ended = anyio.Event(), anyio.Event(), anyio.Event()

    async def live_first() -> None:
        async with living(apps[0]):
            has_begun.set()
            await ends.wait()
        first.close()
        has_ended.set()

    async with anyio.create_task_group() as group:
        group.start_soon(live_first)
        await has_begun.wait()
        async with living(apps[1]):
            assert [await status(app) for app in apps] == [200, 200]
            ends.set()
            await has_ended.wait()
            await second.set_value(True)  # as another process would
            await answers(apps[1], 503)
            assert second.watchers == 1


async def test_websocket_of_an_app_without_lifespan_is_closed_after_another_app_has_ended() -> None:
    switch, talk, visitor = MemoryBackend(), Talk(), Client()
    app = service(switch, talk)
    async with anyio.create_task_group() as group:
        async with living(app_on(switch)):
            group.start_soon(visitor.connect, app)
            await talk.begun.wait()
        await set_maintenance_mode(True, switch)
        await visitor.is_closed()
    visitor.close()
    await eventually(lambda: follower.followers == {})


# Event loops that were closed with tasks still in them


async def live(app: FastAPI) -> None:
    async with living(app):
        await asyncio.sleep(60)


@left_behind
@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_store_followed_in_a_closed_loop_is_read_and_followed_in_the_next(loop: str) -> None:
    store = WatchableStore()
    app = app_on(store)
    left = Abandoned(live(app))
    store._changed = anyio.Event()  # a real store belongs to no event loop

    async def be(state: MaintenanceState) -> None:
        await store.memory.update_state(lambda _: state)
        store.ring()

    async def next_life() -> None:
        await be(ON)
        with anyio.fail_after(30):
            await answers(app, 503)  # by reads
            async with living(app):
                await be(OFF)
                await answers(app, 200)
                left.let_go()  # which must not end what runs here
                assert known_of(store).is_followed
                await be(ON)
                await answers(app, 503)

    anyio.run(next_life, backend=loop)


@left_behind
@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_cached_read_left_in_a_closed_loop_is_made_again_in_the_next(loop: str) -> None:
    store = DetailedStore()
    backend = cached(store)
    store.before_read = hang
    left = Abandoned(get_maintenance_mode(backend))
    store.before_read = checkpoint

    async def next_life() -> bool:
        with anyio.fail_after(30):
            return await get_maintenance_mode(backend)

    assert not anyio.run(next_life, backend=loop)
    left.let_go()


@left_behind
def test_backend_configured_after_a_loop_was_closed_is_read() -> None:
    configure_backend(WatchableStore())
    app = app_on(None)
    left = Abandoned(live(app))
    configure_backend(MemoryBackend(state=True))
    assert anyio.run(status, app) == 503
    left.let_go()


def begun_changes(store: WatchableStore, number: int) -> list[AsyncGenerator[MaintenanceStatus]]:
    """Return generators of changes that wait in an event loop which was closed."""
    generators = [maintenance_changes(store) for _ in range(number)]
    loop = asyncio.new_event_loop()
    for each in generators:
        loop.run_until_complete(anext(each))  # called outside of the loop, which therefore does not close it
    for task in asyncio.all_tasks(loop):
        task._log_destroy_pending = False  # type: ignore[attr-defined]  # asyncio's own
    loop.close()
    store._changed = anyio.Event()  # a real store belongs to no event loop
    return generators


def test_changes_kept_in_a_closed_loop_leave_the_switch_to_the_next() -> None:
    store = WatchableStore()
    kept = begun_changes(store, 1)

    async def follow() -> tuple[bool, int]:
        async with aclosing(maintenance_changes(store)) as statuses:
            return (await anext(statuses)).active, len(follower.followers)

    assert asyncio.run(follow()) == (False, 1)
    kept.clear()
    gc.collect()
    assert follower.followers == {}


def test_changes_dropped_after_their_loop_was_closed_leave_nothing() -> None:
    dropped = begun_changes(WatchableStore(), 3)
    dropped.pop()
    gc.collect()

    async def drop_in_another_loop() -> int:
        dropped.clear()
        gc.collect()
        await anyio.sleep(0.01)
        return len(asyncio.all_tasks())

    assert asyncio.run(drop_in_another_loop()) == 1
    assert follower.followers == {}
