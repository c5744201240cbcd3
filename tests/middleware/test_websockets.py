"""`middleware.py`: a blocked WebSocket handshake is answered as a request if the server can do that, else closed."""

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
    types = [start["type"], *dict.fromkeys(message["type"] for message in bodies)]
    assert types == ["websocket.http.response.start", "websocket.http.response.body"]
    return start["status"], dict(start["headers"]), b"".join(message.get("body", b"") for message in bodies)


async def test_blocked_handshake_with_the_extension_gets_the_response_of_a_request() -> None:
    app = app_with(retry_after=7)
    status, headers, body = await denial(app)
    async with client(app) as http:
        over_http = await http.get("/http")
    assert (status, body) == (over_http.status_code, over_http.content)
    names = ["content-length", "content-type", "retry-after", "cache-control"]
    assert [headers[name.encode()].decode() for name in names] == [over_http.headers[name] for name in names]


@pytest.mark.parametrize("extensions", ["missing", None, {}])
async def test_blocked_handshake_without_the_extension_is_closed_before_it_is_accepted(extensions: object) -> None:
    scope = {**websocket_scope(), "extensions": extensions}
    if extensions == "missing":
        del scope["extensions"]
    assert await handshake(app_with(), scope) == [{"type": "websocket.close", "code": 1013, "reason": "maintenance"}]


@pytest.mark.parametrize(
    ("path", "settings", "expected"),
    [
        ("/nothing", {}, 1000),  # which no route answers, so it is left to the app
        ("/http", {}, 1000),
        ("/nothing", {"unmatched": "block"}, 1013),
        ("/ws", {}, 1013),
        ("/ws", {"exempt": path_is("/ws")}, "websocket.accept"),
        ("/ws", {"exempt": safe_method}, "websocket.accept"),
    ],
)
async def test_handshake_is_decided_by_the_rules_of_requests(
    path: str, settings: dict[str, Any], expected: object
) -> None:
    message = (await handshake(app_with(**settings), websocket_scope(path)))[0]
    assert message.get("code", message["type"]) == expected


async def test_handshake_is_an_http_get_for_predicates_and_callbacks() -> None:
    seen: list[tuple[str, str, str, str]] = []

    def record(request: Request) -> bool:
        seen.append((request.scope["type"], request.method, str(request.url), request.headers["x-key"]))
        return False

    app = app_with(exempt=record, response=lambda request: PlainTextResponse(str(record(request)), 503))
    for scheme in ("ws", "wss"):
        headers = {"X-Key": "1", "Host": "shop.example"}
        scope = {**websocket_scope("/ws", denial=True, headers=headers), "scheme": scheme}
        assert (await denial(app, scope))[0] == 503
    urls = ["http://shop.example/ws"] * 2 + ["https://shop.example/ws"] * 2
    assert seen == [("http", "GET", url, "1") for url in urls]


async def test_blocked_handshake_gets_responses_of_every_class(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text("a page", encoding="utf-8")

    async def parts() -> AsyncIterator[str]:
        for part in ("in ", "parts"):
            yield part

    bodies = []
    for each in (FileResponse(page, 503), StreamingResponse(parts(), 503)):
        status, headers, body = await denial(app_with(response=lambda _request, each=each: each))
        bodies.append((status, headers[b"retry-after"], body))
    assert bodies == [(503, b"3600", b"a page"), (503, b"3600", b"in parts")]


async def test_handshake_has_no_body_and_ends_with_the_disconnect() -> None:
    async def read(request: Request) -> Response:
        messages: list[Message] = [await request.receive(), await request.receive()]
        return PlainTextResponse(" ".join(message["type"] for message in messages), 503)

    _, _, body = await denial(app_with(response=read), impatient=True)
    assert body == b"http.request http.disconnect"


async def test_blocked_handshake_of_a_callback_that_fails_gets_the_default_response() -> None:
    status, _, body = await denial(app_with(response=lambda _request: 1 / 0))
    assert (status, body) == (503, b'{"detail":"Service temporarily unavailable due to maintenance"}')
