"""A `CancelledError` that a user's code lets out is an error like others; the cancellation of a request is none."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import anyio
import pytest
from fastapi import FastAPI, Request

from fastapi_maintenance import (
    MaintenanceState,
    MemoryBackend,
    StateBackend,
    any_of,
    maintenance_middleware,
    maintenance_mode_on,
    set_maintenance_mode,
)
from tests.middleware.test_failures import status
from tests.stores import BareSwitch, DetailedStore, DrainableStore, Hook, WatchableStore
from tests.support import client, on_jumping_clock
from tests.switch.lifespans import living

pytestmark = pytest.mark.anyio


async def endpoint() -> str:
    return "open"


@pytest.fixture
def anyio_backend(monkeypatch: pytest.MonkeyPatch) -> tuple[str, dict[str, Any]]:
    """Run on asyncio, whose cancellation is an exception like others, and wait for no seconds."""
    return on_jumping_clock("asyncio", monkeypatch)


async def cancel() -> None:
    """Raise what a client raises whose own background task was cancelled."""
    raise asyncio.CancelledError


async def cancel_later() -> None:
    """Wait for a task that is cancelled, as a client waits for its reader."""
    task = asyncio.ensure_future(asyncio.sleep(1000))
    asyncio.get_running_loop().call_soon(task.cancel)
    await task


class Peekable(MemoryBackend):
    """A backend whose `peek` can raise."""

    cancelled = False

    def peek(self) -> MaintenanceState:
        if self.cancelled:
            raise asyncio.CancelledError
        return super().peek()


def app_on(backend: StateBackend, **settings: Any) -> FastAPI:  # noqa: ANN401 -- those of the middleware
    app = FastAPI()
    app.add_middleware(maintenance_middleware(backend=backend, **{"read_timeout": 60, **settings}))
    app.add_api_route("/", endpoint)
    return app


async def outcome(awaitable: Awaitable[object]) -> object:
    """Return what it returns or raises; the cancellation of a task is "cancelled"."""
    task = asyncio.ensure_future(awaitable)
    with anyio.fail_after(600):
        await asyncio.wait([task])
    return "cancelled" if task.cancelled() else task.exception() or task.result()


each_cancel = pytest.mark.parametrize("hook", [cancel, cancel_later])


@each_cancel
@pytest.mark.parametrize("make", [BareSwitch, DetailedStore])
@pytest.mark.parametrize("last", [True, False])
async def test_request_read_is_cancelled_by_itself_gets_the_last_known_state(
    make: type[BareSwitch | DetailedStore], last: bool, hook: Hook, caplog: pytest.LogCaptureFixture
) -> None:
    store = make(last)
    app = app_on(store)
    known = await status(app)
    store.before_read = hook
    assert [await outcome(status(app)) for _ in range(3)] == [known] * 3
    assert 1 == sum("cannot be read" in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize("closed", [True, False])
async def test_request_first_read_is_cancelled_by_itself_gets_what_fail_closed_says(closed: bool) -> None:
    for store in (BareSwitch(), DetailedStore(), WatchableStore()):
        store.before_read = cancel
        assert await outcome(status(app_on(store, fail_closed=closed))) == (503 if closed else 200)


async def test_request_peek_raises_cancelled_error_gets_the_last_known_state() -> None:
    backend = Peekable(state=True)
    app = app_on(backend)
    assert await status(app) == 503
    backend.cancelled = True
    assert await outcome(status(app)) == 503


async def cancelled_predicate(_: Request) -> bool:
    raise asyncio.CancelledError


async def later_cancelled_predicate(_: Request) -> bool:
    await cancel_later()
    return True


def raising_predicate(_: Request) -> bool:
    raise asyncio.CancelledError


@pytest.mark.parametrize(
    "predicate",
    [cancelled_predicate, later_cancelled_predicate, raising_predicate, any_of(cancelled_predicate)],
    ids=["async", "later", "sync", "any_of"],
)
async def test_request_predicate_is_cancelled_by_itself_is_blocked(predicate: Any) -> None:  # noqa: ANN401
    assert await outcome(status(app_on(MemoryBackend(state=True), exempt=predicate))) == 503


@pytest.mark.parametrize("callback", [cancelled_predicate, later_cancelled_predicate, raising_predicate])
async def test_request_response_callback_is_cancelled_by_itself_gets_the_default(callback: Any) -> None:  # noqa: ANN401
    assert await outcome(status(app_on(MemoryBackend(state=True), response=callback))) == 503


@asynccontextmanager
async def served(backend: StateBackend, **settings: Any) -> AsyncGenerator[FastAPI]:  # noqa: ANN401 -- the middleware's
    """Serve an app; fail if its lifespan ends before it is asked to, or not then."""
    app = app_on(backend, **settings)
    async with living(app) as sent:
        yield app
        assert sent == ["lifespan.startup.complete"]
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


class Watched(WatchableStore):
    """A store that counts how often it is watched."""

    def __init__(self, state: MaintenanceState | bool = False) -> None:
        super().__init__(state)
        self.watches = 0

    async def watch(self) -> AsyncIterator[MaintenanceState]:
        self.watches += 1
        async for state in super().watch():
            yield state


@each_cancel
async def test_served_app_watch_is_cancelled_by_itself_is_watched_again_after_pauses(hook: Hook) -> None:
    store = Watched(True)
    async with served(store) as app:
        assert await status(app) == 503
        store.before_tell = hook
        store.ring()
        await anyio.sleep(2)
        assert 2 <= store.watches <= 16  # the pauses grow from 0.05 to 0.8 seconds
        assert await outcome(status(app)) == 503
        store.before_tell = anyio.lowlevel.checkpoint
        await set_maintenance_mode(False, store)
        await anyio.sleep(2)
        assert await status(app) == 200
    assert store.watchers == 0


async def test_served_app_starts_while_its_watch_is_cancelled_by_itself() -> None:
    store = Watched()
    store.before_tell = store.before_read = cancel
    async with served(store, fail_closed=True, read_timeout=1) as app:
        assert await outcome(status(app)) == 503


async def test_served_app_its_record_is_cancelled_by_itself_is_drained() -> None:
    store = DrainableStore()
    store.workers.before_write = cancel
    async with served(store):
        await anyio.sleep(3)
        store.workers.come_back()
        assert await outcome(drain(store)) == "drained"


async def drain(backend: StateBackend) -> str:
    async with maintenance_mode_on(backend, drain=30):
        return "drained"


async def test_served_app_predicate_of_a_request_in_progress_is_cancelled_by_itself_is_waited_for() -> None:
    backend, begun, goes_on = MemoryBackend(), anyio.Event(), anyio.Event()
    async with served(backend, exempt=cancelled_predicate) as app:

        @app.get("/long")
        async def take_long() -> None:
            begun.set()
            await goes_on.wait()

        async def ask() -> int:
            async with client(app) as http:
                return (await http.get("/long")).status_code

        request = asyncio.ensure_future(ask())
        await begun.wait()
        draining = asyncio.ensure_future(drain(backend))
        await anyio.sleep(5)
        assert not draining.done()
        goes_on.set()
        assert [await outcome(request), await outcome(draining)] == [200, "drained"]


@each_cancel
async def test_block_renewal_is_cancelled_by_itself_is_tried_again(hook: Hook) -> None:
    store = DetailedStore()

    async def hold() -> str:
        async with maintenance_mode_on(store, lease=timedelta(seconds=9)):
            store.before_write = hook
            await anyio.sleep(5)
            store.come_back()
            await anyio.sleep(30)
            assert await status(app_on(store)) == 503
        return "left"

    assert await outcome(hold()) == "left"
    assert (await store.memory.get_state()).holds == ()


async def hang(_: Request) -> bool:
    await anyio.sleep_forever()
    return True


async def wait_for_ever() -> None:
    await anyio.sleep_forever()


def hanging_read() -> FastAPI:
    store = DetailedStore()
    store.before_read = wait_for_ever
    return app_on(store)


@pytest.mark.parametrize(
    "make",
    [
        hanging_read,
        lambda: app_on(MemoryBackend(state=True), exempt=hang),
        lambda: app_on(MemoryBackend(state=True), response=hang),
    ],
    ids=["read", "predicate", "response"],
)
async def test_request_is_cancelled_by_its_server_is_cancelled(make: Callable[[], FastAPI]) -> None:
    task = asyncio.ensure_future(status(make()))
    await anyio.sleep(0.5)
    task.cancel()
    assert await outcome(task) == "cancelled"
