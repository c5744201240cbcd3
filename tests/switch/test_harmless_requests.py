"""A request whose coroutine is closed or collected by the garbage collector ends without an error, and is over."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import types
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any, cast

import anyio
import pytest
from fastapi import FastAPI
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fastapi_maintenance import MemoryBackend, maintenance_middleware, maintenance_mode_on
from tests.middleware.test_failures import status
from tests.stores import DetailedStore
from tests.support import make_request, on_jumping_clock, websocket_scope
from tests.switch.lifespans import living

pytestmark = pytest.mark.anyio

Running = Coroutine[Any, Any, None]
End = Callable[[list[Running]], None]


async def endpoint() -> str:
    return "open"


@pytest.fixture
def anyio_backend(anyio_backend: str, monkeypatch: pytest.MonkeyPatch) -> tuple[str, dict[str, Any]]:
    """Let no test wait for the seconds of a drain."""
    return on_jumping_clock(anyio_backend, monkeypatch)


@types.coroutine
def suspend() -> Generator[None, None, None]:
    """Wait for ever, for no event loop."""
    while True:
        yield


def close(running: list[Running]) -> None:
    running.pop().close()


def close_in_another_context(running: list[Running]) -> None:
    contextvars.Context().run(running.pop().close)


def collect(running: list[Running]) -> None:
    """Collect it, as what nobody refers to any more; an error would be a warning, and those fail a test."""
    running.clear()
    gc.collect()


def collect_in_another_context(running: list[Running]) -> None:
    contextvars.Context().run(collect, running)


each_end = pytest.mark.parametrize("end", [close, close_in_another_context, collect, collect_in_another_context])


async def run_suspended(_scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001 -- as ASGI has it
    await suspend()


async def run_receiving(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    if scope["type"] == "websocket":
        await send({"type": "websocket.accept"})
    await receive()


async def suspend_predicate(_: Request) -> bool:
    await suspend()
    return True


async def suspend_response(_: Request) -> Any:  # noqa: ANN401 -- there is none
    await suspend()


class Connection:
    """Its first message is there at once, the next one never."""

    def __init__(self, kind: str) -> None:
        self.messages: list[Message] = [{"type": "websocket.connect" if kind == "websocket" else "http.request"}]

    async def receive(self) -> Message:
        if not self.messages:
            await suspend()
        return self.messages.pop()

    async def send(self, message: Message) -> None:
        pass


def begin(app: ASGIApp, scope: Scope) -> Running:
    """Run a request until it waits for something."""
    connection = Connection(scope["type"])
    running = cast("Running", app(scope, connection.receive, connection.send))
    running.send(None)
    return running


def scope_of(kind: str) -> Scope:
    return dict(make_request().scope) if kind == "http" else websocket_scope()


async def assert_nothing_in_progress(backend: MemoryBackend) -> None:
    async with maintenance_mode_on(backend, drain=10):
        pass


@each_end
@pytest.mark.parametrize("inner", [run_suspended, run_receiving])
@pytest.mark.parametrize("kind", ["http", "websocket"])
async def test_request_coroutine_is_closed_is_no_longer_in_progress(end: End, inner: ASGIApp, kind: str) -> None:
    backend = MemoryBackend()
    app = FastAPI()
    app.mount("/", inner)
    app.add_middleware(maintenance_middleware(backend=backend))
    async with living(app):
        running = [begin(app, scope_of(kind))]
        end(running)
        await assert_nothing_in_progress(backend)


@each_end
async def test_request_coroutine_is_closed_behind_two_middlewares_is_no_longer_in_progress(end: End) -> None:
    backends = MemoryBackend(), MemoryBackend()
    app = FastAPI()
    app.mount("/", run_suspended)
    for backend in backends:
        app.add_middleware(maintenance_middleware(backend=backend))
    async with living(app):
        running = [begin(app, scope_of("http"))]
        end(running)
        for backend in backends:
            await assert_nothing_in_progress(backend)


@each_end
@pytest.mark.parametrize("settings", [{"exempt": suspend_predicate}, {"response": suspend_response}])
async def test_request_coroutine_is_closed_in_a_callback_is_no_longer_in_progress(
    end: End, settings: dict[str, Any]
) -> None:
    backend = MemoryBackend(state=True)
    app = FastAPI()
    app.add_api_route("/", endpoint)
    app.add_middleware(maintenance_middleware(backend=backend, **settings))
    async with living(app):
        running = [begin(app, scope_of("http"))]
        end(running)
        await assert_nothing_in_progress(backend)


@each_end
async def test_request_coroutine_is_closed_while_the_state_is_read_leaves_others_alone(end: End) -> None:
    store = DetailedStore()
    app = FastAPI()
    app.add_api_route("/", endpoint)
    app.add_middleware(maintenance_middleware(backend=store))
    store.before_read = cast("Callable[[], Awaitable[object]]", suspend)
    running = [begin(app, scope_of("http"))]
    end(running)
    store.come_back()
    assert await status(app) == 200


@pytest.mark.parametrize("inner", [run_suspended, run_receiving])
@pytest.mark.parametrize("kind", ["http", "websocket"])
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_request_event_loop_is_closed_around_it_is_no_longer_in_progress(inner: ASGIApp, kind: str) -> None:
    """A loop that is closed with tasks in it, as `run_until_complete` leaves it, leaves them to the collector."""
    backend = MemoryBackend()
    app = FastAPI()
    app.mount("/", inner)
    app.add_middleware(maintenance_middleware(backend=backend))

    tasks: list[asyncio.Task[None]] = []

    def run_elsewhere() -> None:
        loop = asyncio.new_event_loop()
        loop.set_exception_handler(lambda *_: None)  # a task that was destroyed while it was pending
        connection = Connection(kind)
        tasks.append(loop.create_task(app(scope_of(kind), connection.receive, connection.send)))
        loop.run_until_complete(asyncio.sleep(0.01))
        loop.close()

    async with living(app):
        await anyio.to_thread.run_sync(run_elsewhere)
        tasks.clear()
        gc.collect()
        await assert_nothing_in_progress(backend)
