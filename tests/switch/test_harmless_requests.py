"""A request whose coroutine is closed or garbage-collected ends without an error, and is no longer in progress."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import types
from collections.abc import Callable, Coroutine, Generator
from typing import Any, cast

import anyio
import pytest
from fastapi import FastAPI
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fastapi_maintenance import MemoryBackend, maintenance_middleware, maintenance_mode_on
from tests.middleware.test_failures import app_on, status
from tests.stores import DetailedStore, Hook
from tests.support import make_request, on_jumping_clock, websocket_scope
from tests.switch.lifespans import living

pytestmark = pytest.mark.anyio
Running = Coroutine[Any, Any, None]
End = Callable[[list[Running]], None]


@pytest.fixture
def anyio_backend(anyio_backend: str, monkeypatch: pytest.MonkeyPatch) -> tuple[str, dict[str, Any]]:
    """Run on a clock that jumps."""
    return on_jumping_clock(anyio_backend, monkeypatch)


@types.coroutine
def suspend() -> Generator[None, None, None]:
    """Wait forever, without an event loop."""
    while True:
        yield


def close(running: list[Running]) -> None:
    running.pop().close()


def close_in_another_context(running: list[Running]) -> None:
    contextvars.Context().run(close, running)


def collect(running: list[Running]) -> None:
    """Let it be garbage-collected; an error would be a warning, and fail the test."""
    running.clear()
    gc.collect()


def collect_in_another_context(running: list[Running]) -> None:
    contextvars.Context().run(collect, running)


each_end = pytest.mark.parametrize("end", [close, close_in_another_context, collect, collect_in_another_context])


async def run_suspended(_scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001 -- as in ASGI
    await suspend()


async def run_receiving(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    if scope["type"] == "websocket":
        await send({"type": "websocket.accept"})
    await receive()


each_app = pytest.mark.parametrize("inner", [run_suspended, run_receiving])
each_kind = pytest.mark.parametrize("kind", ["http", "websocket"])


def app_around(inner: ASGIApp, *backends: MemoryBackend) -> FastAPI:
    app = FastAPI()
    app.mount("/", inner)
    for backend in backends:
        app.add_middleware(maintenance_middleware(backend=backend))
    return app


class Connection:
    """A connection whose first message arrives at once, and the next one never."""

    def __init__(self, kind: str) -> None:
        self.scope = dict(make_request().scope) if kind == "http" else websocket_scope()
        self.messages: list[Message] = [{"type": "websocket.connect" if kind == "websocket" else "http.request"}]

    async def receive(self) -> Message:
        if not self.messages:
            await suspend()
        return self.messages.pop()

    async def send(self, message: Message) -> None:
        pass

    def run(self, app: ASGIApp) -> Running:
        return cast("Running", app(self.scope, self.receive, self.send))


def begun(app: ASGIApp, kind: str = "http") -> list[Running]:
    """Return a request that has run until it waits for something."""
    running = Connection(kind).run(app)
    running.send(None)
    return [running]


async def assert_drained(*backends: MemoryBackend) -> None:
    for backend in backends:
        async with maintenance_mode_on(backend, drain=10):
            pass


@each_end
@each_app
@each_kind
async def test_request_that_is_closed_or_collected_is_no_longer_in_progress(
    end: End, inner: ASGIApp, kind: str
) -> None:
    backends = MemoryBackend(), MemoryBackend()
    app = app_around(inner, *backends)
    async with living(app):
        end(begun(app, kind))
        await assert_drained(*backends)


async def suspend_in_callback(_: Request) -> Any:  # noqa: ANN401 -- never returned
    await suspend()


@each_end
@pytest.mark.parametrize("setting", ["exempt", "response"])
async def test_request_that_is_closed_or_collected_in_a_callback_is_no_longer_in_progress(
    end: End, setting: str
) -> None:
    backend, callbacks = MemoryBackend(state=True), {setting: suspend_in_callback}
    app = app_on(backend, **callbacks)
    async with living(app):
        end(begun(app))
        await assert_drained(backend)


@each_end
async def test_request_that_is_closed_or_collected_while_it_reads_the_state_leaves_others_alone(end: End) -> None:
    store = DetailedStore()
    app = app_on(store)
    store.before_read = cast("Hook", suspend)
    end(begun(app))
    store.come_back()
    assert await status(app) == 200


@each_app
@each_kind
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_request_whose_event_loop_is_closed_around_it_is_no_longer_in_progress(inner: ASGIApp, kind: str) -> None:
    """A loop that is closed with tasks in it, as `run_until_complete` leaves it, leaves them to the collector."""
    backend = MemoryBackend()
    app = app_around(inner, backend)
    tasks: list[asyncio.Task[None]] = []

    def run_elsewhere() -> None:
        loop = asyncio.new_event_loop()
        loop.set_exception_handler(lambda *_: None)  # a pending task is destroyed
        tasks.append(loop.create_task(Connection(kind).run(app)))
        loop.run_until_complete(asyncio.sleep(0.01))
        loop.close()

    async with living(app):
        await anyio.to_thread.run_sync(run_elsewhere)
        tasks.clear()
        gc.collect()
        await assert_drained(backend)
