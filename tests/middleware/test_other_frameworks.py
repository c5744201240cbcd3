"""`middleware.py`: the middleware works around the apps of other ASGI frameworks, whose routes it does not know.

`cast` is for type checkers: these frameworks have other types than Starlette for the messages of ASGI.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import HttpRequest, HttpResponse
from django.urls import path
from litestar import Litestar, get, websocket
from litestar.connection import WebSocket as LitestarWebSocket
from litestar.enums import MediaType
from quart import Quart
from quart import websocket as quart_websocket
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient, WebSocketDenialResponse
from starlette.types import ASGIApp
from starlette.websockets import WebSocket

from fastapi_maintenance import MemoryBackend, maintenance_middleware, path_prefix


def starlette() -> ASGIApp:
    async def answer(_request: Request) -> PlainTextResponse:
        return PlainTextResponse("open")

    async def echo(socket: WebSocket) -> None:
        await socket.accept()
        await socket.send_text(await socket.receive_text())

    return Starlette(
        routes=[
            *(Route(each, answer) for each in ("/", "/health/live")),
            *(WebSocketRoute(each, echo) for each in ("/ws", "/health/ws")),
        ]
    )


def litestar() -> ASGIApp:
    @get(["/", "/health/live"], media_type=MediaType.TEXT)
    async def answer() -> str:
        return "open"

    @websocket(["/ws", "/health/ws"])
    async def echo(socket: LitestarWebSocket[Any, Any, Any]) -> None:
        await socket.accept()
        await socket.send_text(await socket.receive_text())

    return cast("ASGIApp", Litestar([answer, echo], logging_config=None))  # else it disables loggers of others


def quart() -> ASGIApp:
    app = Quart(__name__)

    async def answer() -> str:
        return "open"

    async def echo() -> None:
        await quart_websocket.send(await quart_websocket.receive())

    for each in ("/", "/health/live"):
        app.add_url_rule(each, view_func=answer)
    for each in ("/ws", "/health/ws"):
        app.add_websocket(each, view_func=echo)
    return cast("ASGIApp", app)


async def django_answer(_request: HttpRequest) -> HttpResponse:
    return HttpResponse("open")


urlpatterns = [path("", django_answer), path("health/live", django_answer)]


def django() -> ASGIApp:
    """Return Django's ASGI handler, which has neither WebSockets nor a lifespan."""
    if not settings.configured:
        settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["testserver"])
    return cast("ASGIApp", get_asgi_application())


Framework = Callable[[], ASGIApp]
WITH_WEBSOCKETS: list[Framework] = [starlette, litestar, quart]
each_framework = pytest.mark.parametrize("framework", [*WITH_WEBSOCKETS, django])
each_with_websockets = pytest.mark.parametrize("framework", WITH_WEBSOCKETS)


def clients(framework: Framework) -> tuple[TestClient, TestClient]:
    """Return a client for which maintenance is on, and one for which it is off; below `/health` it is exempt."""

    def client(*, state: bool) -> TestClient:
        around = maintenance_middleware(
            backend=MemoryBackend(state=state), exempt=path_prefix("/health"), retry_after=7
        )
        return TestClient(around(framework()))

    return client(state=True), client(state=False)


@each_framework
def test_framework_request_in_maintenance_is_blocked(framework: Framework) -> None:
    on, off = clients(framework)
    blocked = on.get("/")
    assert (blocked.status_code, blocked.headers["Retry-After"], blocked.headers["Cache-Control"]) == (
        503,
        "7",
        "no-store",
    )
    assert blocked.json() == {"detail": "Service temporarily unavailable due to maintenance"}
    assert off.get("/").text == "open"


@each_framework
def test_framework_request_that_is_exempt_passes(framework: Framework) -> None:
    for either in clients(framework):
        answer = either.get("/health/live")
        assert (answer.status_code, answer.text) == (200, "open")


@pytest.mark.parametrize(("framework", "status"), [(starlette, 404), (litestar, 503), (quart, 503), (django, 503)])
def test_framework_path_without_a_route_is_blocked_unless_routes_are_known(framework: Framework, status: int) -> None:
    on, off = clients(framework)
    found = [on.get("/nothing"), on.get("/health/nothing"), off.get("/nothing")]
    assert [response.status_code for response in found] == [status, 404, 404]


def echoed(client: TestClient, url: str) -> str:
    """Send a text over a WebSocket, and return what comes back."""
    with client.websocket_connect(url) as socket:
        socket.send_text("hello")
        return socket.receive_text()


@each_framework
def test_framework_websocket_in_maintenance_is_blocked(framework: Framework) -> None:
    on, _ = clients(framework)
    with pytest.raises(WebSocketDenialResponse) as denied, on.websocket_connect("/ws"):
        pass
    assert (denied.value.status_code, denied.value.headers["Retry-After"]) == (503, "7")


@each_with_websockets
def test_framework_websocket_that_is_exempt_or_without_maintenance_passes(framework: Framework) -> None:
    on, off = clients(framework)
    assert [echoed(on, "/health/ws"), echoed(off, "/health/ws"), echoed(off, "/ws")] == ["hello"] * 3


def test_framework_django_gets_a_websocket_that_passes_and_refuses_it() -> None:
    on, off = clients(django)
    for either, url in ((on, "/health/ws"), (off, "/ws")):
        with pytest.raises(ValueError, match="Django can only handle ASGI/HTTP connections, not websocket"):
            echoed(either, url)


@each_with_websockets
def test_framework_gets_its_lifespan(framework: Framework) -> None:
    for either in clients(framework):
        with either:
            assert either.get("/health/live").status_code == 200


def test_framework_django_without_a_lifespan_is_served() -> None:
    on, _ = clients(django)
    with pytest.raises(ValueError, match="not lifespan"), on:
        pass
    assert on.get("/").status_code == 503
