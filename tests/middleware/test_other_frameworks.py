"""The middleware blocks, exempts and passes WebSockets around the apps of other ASGI frameworks as well.

Of Starlette alone it knows the routes. Of the others it cannot know what they would answer with 404, so all their paths
count as answered, and are blocked.

`cast` is for the type checkers alone: these frameworks describe the messages of ASGI in other types than Starlette.
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
def test_a_request_is_blocked_while_maintenance_is_on(framework: Framework) -> None:
    on, off = clients(framework)
    blocked = on.get("/")
    assert (503, "7", "no-store") == (blocked.status_code, *map(blocked.headers.get, ("Retry-After", "Cache-Control")))
    assert {"detail": "Service temporarily unavailable due to maintenance"} == blocked.json()
    assert "open" == off.get("/").text


@each_framework
def test_an_exempt_request_passes(framework: Framework) -> None:
    for either in clients(framework):
        answer = either.get("/health/live")
        assert (200, "open") == (answer.status_code, answer.text)


@pytest.mark.parametrize(("framework", "status"), [(starlette, 404), (litestar, 503), (quart, 503), (django, 503)])
def test_a_path_without_a_route_is_blocked_unless_the_routes_are_known(framework: Framework, status: int) -> None:
    on, off = clients(framework)
    assert status == on.get("/nothing").status_code
    assert 404 == on.get("/health/nothing").status_code
    assert 404 == off.get("/nothing").status_code


def echoed(client: TestClient, url: str) -> str:
    """Send a text over a WebSocket, and return what comes back."""
    with client.websocket_connect(url) as socket:
        socket.send_text("hello")
        return socket.receive_text()


@each_framework
def test_a_websocket_is_blocked_while_maintenance_is_on(framework: Framework) -> None:
    on, _ = clients(framework)
    with pytest.raises(WebSocketDenialResponse) as denied, on.websocket_connect("/ws"):
        pass
    assert (503, "7") == (denied.value.status_code, denied.value.headers["Retry-After"])


@each_with_websockets
def test_an_exempt_websocket_passes_and_any_while_maintenance_is_off(framework: Framework) -> None:
    on, off = clients(framework)
    assert ["hello"] * 3 == [echoed(on, "/health/ws"), echoed(off, "/health/ws"), echoed(off, "/ws")]


def test_a_websocket_that_passes_reaches_django_which_refuses_it() -> None:
    """It does so by an error of its own, maintenance or not, which a server answers with 500."""
    on, off = clients(django)
    for either, url in ((on, "/health/ws"), (off, "/ws")):
        with pytest.raises(ValueError, match="Django can only handle ASGI/HTTP connections, not websocket"):
            echoed(either, url)


@each_with_websockets
def test_the_lifespan_reaches_the_framework(framework: Framework) -> None:
    for either in clients(framework):
        with either:
            assert 200 == either.get("/health/live").status_code


def test_the_middleware_serves_django_though_it_has_no_lifespan() -> None:
    on, _ = clients(django)
    with pytest.raises(ValueError, match="not lifespan"), on:
        pass
    assert 503 == on.get("/").status_code
