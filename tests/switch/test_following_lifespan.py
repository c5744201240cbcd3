"""Following a store from the start of an app to its end, also in an event loop that is closed before."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
import weakref
from collections.abc import AsyncGenerator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, cast

import anyio
import pytest
from anyio.lowlevel import checkpoint
from fastapi import FastAPI
from starlette.types import Receive, Scope, Send

from fastapi_maintenance import (
    MaintenanceState,
    MemoryBackend,
    StateBackend,
    cached,
    configure_backend,
    get_maintenance_mode,
    maintenance_middleware,
)
from fastapi_maintenance.backends.known import known_of
from tests.middleware.test_failures import app_on, hang, status
from tests.stores import DetailedStore, WatchableStore
from tests.support import eventually
from tests.switch.lifespans import OFF, ON, answers, living

pytestmark = pytest.mark.anyio


# The lifespan


async def test_a_backend_that_is_configured_while_the_app_starts_is_followed() -> None:
    store = WatchableStore(True)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncGenerator[None]:
        configure_backend(store)
        yield
        assert 0 == store.watchers, "the client is closed after following has ended"

    app = FastAPI(lifespan=lifespan)
    app.add_middleware(maintenance_middleware(read_timeout=60))
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


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, ZeroDivisionError])
async def test_lifespan_that_raises_lets_the_error_out(error: type[BaseException]) -> None:
    async def fails(_scope: Scope, _receive: Receive, _send: Send) -> None:
        await checkpoint()
        raise error

    with pytest.raises(error):
        await maintenance_middleware(backend=WatchableStore())(fails)({"type": "lifespan"}, checkpoint, checkpoint)  # type: ignore[arg-type]


async def test_an_app_whose_start_fails_follows_nothing() -> None:
    store = WatchableStore()

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncGenerator[None]:
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


async def test_an_app_that_is_dropped_leaves_nothing_behind() -> None:
    def make(backend: StateBackend) -> weakref.ref[object]:
        return weakref.ref(maintenance_middleware(backend=backend)(app_on(MemoryBackend())))

    store = WatchableStore()
    known = weakref.ref(known_of(store))
    made = make(store)
    gc.collect()
    assert (None, None) == (made(), known())


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
        """Drop what was left as the garbage collector may: in a thread that runs no event loop."""
        thread = threading.Thread(target=self._close)
        thread.start()
        thread.join()

    def _close(self) -> None:
        """Close it without the words that Python has for that."""
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
        with anyio.fail_after(30):
            await answers(app, 503)  # read now and then
            async with living(app):
                await be(OFF)
                await answers(app, 200)
                left.let_go()  # which must not end what goes on here
                assert known_of(store).is_followed
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
        with anyio.fail_after(30):
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
