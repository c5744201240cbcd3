"""What an open WebSocket that maintenance closes leaves in traces and logs: no error."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest
from fastapi import WebSocket, WebSocketDisconnect
from opentelemetry.trace import StatusCode
from starlette.types import ASGIApp, Receive, Scope, Send

from fastapi_maintenance import MemoryBackend, set_maintenance_mode
from tests.middleware.test_open_websockets import CLOSED, Client, service
from tests.support import on_jumping_clock
from tests.switch.lifespans import living
from tests.telemetry.services import Collected, set_up, traced_kinds

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend(anyio_backend: str, monkeypatch: pytest.MonkeyPatch) -> tuple[str, dict[str, Any]]:
    """Let no test wait for the seconds between two reads of a store."""
    return on_jumping_clock(anyio_backend, monkeypatch)


async def listen(websocket: WebSocket) -> None:
    while True:
        await websocket.receive_text()


async def push(websocket: WebSocket) -> None:
    while True:
        await websocket.send_text("tick")
        await anyio.sleep(1)


async def say_goodbye(websocket: WebSocket) -> None:
    """Send to a client that has left, as chats do that inform all the others of it."""
    try:
        await listen(websocket)
    except WebSocketDisconnect:
        await websocket.send_text("goodbye")


async def talk(websocket: WebSocket) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(listen, websocket)
        group.start_soon(push, websocket)


async def connect_and_close(
    behave: Callable[[WebSocket], Awaitable[None]], kind: str = "none", collected: Collected | None = None
) -> list[object]:
    """Connect to an endpoint, and switch maintenance on; return the exceptions that the server sees."""
    switch, client, begun, errors = MemoryBackend(), Client(), anyio.Event(), list[object]()

    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        begun.set()
        await behave(websocket)

    async def serve(app: ASGIApp) -> None:
        try:
            await client.connect(app)
        except Exception as error:  # noqa: BLE001 -- as servers do
            errors.append(error)

    with set_up(kind, collected or Collected(), switch) as app:
        app.add_api_websocket_route("/ws", endpoint)
        async with living(app), anyio.create_task_group() as group:
            group.start_soon(serve, app)
            await begun.wait()
            await set_maintenance_mode(True, switch)
            await client.is_closed()
    client.close()
    assert client.sent[-1] == CLOSED
    return errors


@traced_kinds
@pytest.mark.parametrize("behave", [listen, push, say_goodbye])
async def test_websocket_maintenance_closes_it_leaves_no_error_in_traces_and_logs(
    kind: str, behave: Callable[[WebSocket], Awaitable[None]], caplog: pytest.LogCaptureFixture
) -> None:
    collected = Collected()
    assert await connect_and_close(behave, kind, collected) == []
    spans = collected.spans.get_finished_spans()
    assert [span.name for span in spans if span.status.status_code is StatusCode.ERROR or span.events] == []
    assert collected.log_records == []
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []


async def test_websocket_maintenance_closes_one_with_a_task_group_leaves_no_error_to_the_server() -> None:
    assert await connect_and_close(talk) == []


async def fail(websocket: WebSocket) -> None:
    try:
        await listen(websocket)
    finally:
        raise KeyError


async def fail_with_a_code_of_its_own(websocket: WebSocket) -> None:
    try:
        await websocket.receive_text()
    except WebSocketDisconnect:
        raise WebSocketDisconnect(4000, "upstream failed") from None


async def fail_in_part(websocket: WebSocket) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(listen, websocket)
        group.start_soon(fail, websocket)


@pytest.mark.parametrize(
    ("behave", "error"),
    [(fail, KeyError), (fail_in_part, ExceptionGroup), (fail_with_a_code_of_its_own, WebSocketDisconnect)],
)
async def test_websocket_endpoint_fails_after_maintenance_closed_it_raises(
    behave: Callable[[WebSocket], Awaitable[None]], error: type[Exception]
) -> None:
    assert list(map(type, await connect_and_close(behave))) == [error]


async def test_websocket_endpoint_raises_a_disconnect_while_it_is_open_raises() -> None:
    async def disconnect(websocket: WebSocket) -> None:
        await websocket.accept()
        raise WebSocketDisconnect

    app, client = service(MemoryBackend(), disconnect), Client()
    with pytest.raises(WebSocketDisconnect):
        await client.connect(app)
    client.close()


async def test_websocket_app_without_starlette_sends_after_it_was_closed_gets_an_os_error() -> None:
    switch, client, errors = MemoryBackend(), Client(), list[object]()

    class Framework:
        async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
            await send({"type": "websocket.accept"})
            await set_maintenance_mode(True, switch)
            await client.is_closed()
            try:
                await send({"type": "websocket.send", "text": "tick"})
            except OSError as error:
                errors.append(str(error))
                raise

    app = service(switch, listen)
    app.mount("/asgi", Framework())
    async with living(app):
        await client.connect(app, "/asgi/ws")
    client.close()
    assert errors == ["the WebSocket is closed, since maintenance has begun"]
