"""A blocked WebSocket handshake is answered as a request would be, where the server can do that, else closed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI, Request, WebSocket
from starlette.responses import FileResponse, PlainTextResponse, Response, StreamingResponse
from starlette.types import ASGIApp, Message, Scope

from fastapi_maintenance import MemoryBackend, maintenance_middleware, path_is, safe_method
from tests.support import client, handshake, websocket_scope

pytestmark = pytest.mark.anyio


async def accept(websocket: WebSocket) -> None:
    await websocket.accept()


def app_with(**settings: Any) -> FastAPI:  # noqa: ANN401 -- those of the middleware
    """Return an app in maintenance with a WebSocket endpoint, and one for HTTP."""
    app = FastAPI()
    app.add_middleware(maintenance_middleware(backend=MemoryBackend(state=True), **settings))
    app.add_api_websocket_route("/ws", accept)
    app.add_api_route("/http", lambda: "open")
    return app


async def denial(
    app: ASGIApp, scope: Scope | None = None, *, impatient: bool = False
) -> tuple[int, dict[bytes, bytes], bytes]:
    """Return the status, headers and body with which a handshake is denied."""
    start, *bodies = await handshake(app, scope or websocket_scope(denial=True), impatient=impatient)
    assert "websocket.http.response.start" == start["type"]
    assert {"websocket.http.response.body"} == {message["type"] for message in bodies}
    return start["status"], dict(start["headers"]), b"".join(message.get("body", b"") for message in bodies)


async def test_with_the_extension_a_blocked_handshake_gets_the_response_of_a_request() -> None:
    app = app_with(retry_after=7)
    status, headers, body = await denial(app)
    async with client(app) as http:
        over_http = await http.get("/http")
    assert (over_http.status_code, over_http.content) == (status, body)
    names = ["content-length", "content-type", "retry-after", "cache-control"]
    assert [over_http.headers[name] for name in names] == [headers[name.encode()].decode() for name in names]


async def test_without_the_extension_a_blocked_handshake_is_closed_before_it_is_accepted() -> None:
    (message,) = await handshake(app_with(), websocket_scope())
    assert {"type": "websocket.close", "code": 1013, "reason": "maintenance"} == message


@pytest.mark.parametrize("extensions", [None, {}])
async def test_a_server_may_have_no_extensions_at_all(extensions: dict[str, object] | None) -> None:
    for scope in ({**websocket_scope(), "extensions": extensions}, websocket_scope()):
        if extensions is None:
            scope.pop("extensions")
        (message,) = await handshake(app_with(), scope)
        assert 1013 == message["code"]


async def test_a_handshake_that_no_route_answers_is_left_to_the_app() -> None:
    (left,) = await handshake(app_with(), websocket_scope("/nothing"))
    (blocked,) = await handshake(app_with(unmatched="block"), websocket_scope("/nothing"))
    (of_http,) = await handshake(app_with(), websocket_scope("/http"))
    assert [1000, 1013, 1000] == [left["code"], blocked["code"], of_http["code"]]


async def test_predicates_and_callbacks_see_the_http_get_that_a_handshake_is() -> None:
    seen: list[tuple[str, str, str, str]] = []

    def note(request: Request) -> None:
        seen.append((request.scope["type"], request.method, str(request.url), request.headers["x-key"]))

    def predicate(request: Request) -> bool:
        note(request)
        return False

    def response(request: Request) -> Response:
        note(request)
        return PlainTextResponse("closed", 503)

    app = app_with(exempt=predicate, response=response)
    for scheme in ("ws", "wss"):
        headers = {"X-Key": "1", "Host": "shop.example"}
        scope = {**websocket_scope("/ws", denial=True, headers=headers), "scheme": scheme}
        assert 503 == (await denial(app, scope))[0]
    assert [("http", "GET", "http://shop.example/ws", "1")] * 2 == seen[:2]
    assert [("http", "GET", "https://shop.example/ws", "1")] * 2 == seen[2:]


async def test_an_exempt_handshake_is_let_in() -> None:
    for exempt in (path_is("/ws"), safe_method):
        sent = await handshake(app_with(exempt=exempt), websocket_scope("/ws"))
        assert "websocket.accept" == sent[0]["type"]


async def test_responses_of_every_class_can_deny_a_handshake(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text("a page", encoding="utf-8")

    async def parts() -> AsyncIterator[str]:
        for part in ("in ", "parts"):
            yield part

    bodies = []
    for made in (FileResponse(page, 503), StreamingResponse(parts(), 503)):
        status, headers, body = await denial(app_with(response=lambda _request, made=made: made))
        bodies.append((status, headers[b"retry-after"], body))
    assert [(503, b"3600", b"a page"), (503, b"3600", b"in parts")] == bodies


async def test_a_callback_that_fails_denies_a_handshake_with_the_default_response() -> None:
    status, _, body = await denial(app_with(response=lambda _request: 1 / 0))
    assert (503, b'{"detail":"Service temporarily unavailable due to maintenance"}') == (status, body)


async def test_a_handshake_has_no_body_and_ends_with_the_disconnect() -> None:
    async def read(request: Request) -> Response:
        messages: list[Message] = [await request.receive(), await request.receive()]
        return PlainTextResponse(" ".join(message["type"] for message in messages), 503)

    _, _, body = await denial(app_with(response=read), impatient=True)
    assert b"http.request http.disconnect" == body
