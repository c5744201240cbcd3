"""Apps with endpoints at all the places where they can be, and what is expected of them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TypeVar

import fastapi.routing
import pytest
from fastapi import APIRouter, FastAPI, Request, WebSocket
from starlette.endpoints import HTTPEndpoint
from starlette.responses import PlainTextResponse
from starlette.routing import BaseRoute, Match, Mount, Route, Router, WebSocketRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fastapi_maintenance import (
    MemoryBackend,
    force_maintenance_mode_off,
    force_maintenance_mode_on,
    maintenance_middleware,
)
from tests.support import make_request

MARKS = [
    pytest.mark.anyio,
    pytest.mark.usefixtures("marks_of_apps_are_known"),
    # Newer FastAPI prefers that the server is told; an app that still has its own is right all the same.
    pytest.mark.filterwarnings("ignore:The `root_path` parameter is deprecated"),
]
"""Of the tests with these apps."""

NESTED = hasattr(fastapi.routing, "_IncludedRouter")


_Filled = TypeVar("_Filled", FastAPI, APIRouter)


async def plain(request: Request) -> PlainTextResponse:
    return PlainTextResponse(request.url.path)


@force_maintenance_mode_off
async def off(request: Request) -> PlainTextResponse:
    return PlainTextResponse(request.url.path)


@force_maintenance_mode_on
def on(request: Request) -> PlainTextResponse:
    return PlainTextResponse(request.url.path)


async def plain_socket(websocket: WebSocket) -> None:
    await websocket.accept()


@force_maintenance_mode_off
async def off_socket(websocket: WebSocket) -> None:
    await websocket.accept()


@force_maintenance_mode_on
async def on_socket(websocket: WebSocket) -> None:
    await websocket.accept()


HTTP = {"/plain": plain, "/off": off, "/on": on}


SOCKETS = {"/ws/plain": plain_socket, "/ws/off": off_socket, "/ws/on": on_socket}


def fill(router: _Filled) -> _Filled:
    """Add the endpoints to an app or a router of FastAPI."""
    for path, endpoint in HTTP.items():
        router.add_api_route(path, endpoint)
    for path, socket in SOCKETS.items():
        router.add_api_websocket_route(path, socket)
    return router


def starlette_routes() -> list[BaseRoute]:
    """Return the endpoints as routes of Starlette."""
    return [
        *(Route(path, endpoint) for path, endpoint in HTTP.items()),
        *(WebSocketRoute(path, socket) for path, socket in SOCKETS.items()),
    ]


def on_the_app() -> FastAPI:
    return fill(FastAPI())


def in_an_included_router() -> FastAPI:
    app = FastAPI()
    app.include_router(fill(APIRouter(prefix="/a")), prefix="/b")
    return app


def in_routers_three_deep() -> FastAPI:
    first, second, app = APIRouter(prefix="/c"), APIRouter(), FastAPI()
    second.include_router(fill(APIRouter(prefix="/a")), prefix="/b")
    first.include_router(second)
    app.include_router(first, prefix="/d")
    return app


def hiding(app: ASGIApp) -> ASGIApp:
    """Be middleware that shows nobody what it wraps."""

    async def hidden(scope: Scope, receive: Receive, send: Send) -> None:
        await app(scope, receive, send)

    return hidden


async def answered(app: ASGIApp, what: str) -> tuple[int, str]:
    """Return status and body of `GET /path`, or of `GET /path as X` with a header `X-As: X`; case matters."""
    method, path, *said = what.split(" ")
    headers = [("X-As", value) for value in said[1:]]
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    await app(dict(make_request(path, method=method, headers=headers).scope), receive, send)
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent).decode()


async def asked(app: ASGIApp, what: str) -> int:
    """Return the status alone."""
    return (await answered(app, what))[0]


TRIED = ("/plain", "/off", "/on", "/nothing")


EXPECTED = {True: [503, 200, 503, 404], False: [200, 200, 503, 404]}


def as_added(app: FastAPI, backend: MemoryBackend) -> ASGIApp:
    app.add_middleware(maintenance_middleware(backend=backend))
    return app


def as_wrapped(app: FastAPI, backend: MemoryBackend) -> ASGIApp:
    return maintenance_middleware(backend=backend)(app)


@force_maintenance_mode_off
def marked() -> str:
    return "open"


def unmarked() -> str:
    return "open"


def wrapping(function: Callable[..., str]) -> Callable[..., str]:
    """Decorate a function as most decorators do."""

    @functools.wraps(function)
    def wrapper(*args: object, **kwargs: object) -> str:
        return function(*args, **kwargs)

    return wrapper


class Resource(HTTPEndpoint):
    """A class of Starlette that dispatches by method."""

    @force_maintenance_mode_off
    async def get(self, request: Request) -> PlainTextResponse:
        return PlainTextResponse(request.method)

    async def post(self, request: Request) -> PlainTextResponse:
        return PlainTextResponse(request.method)


class Anything(BaseRoute):
    """A route of a class that nobody knows."""

    def __init__(self, child: Scope | None, match: Match = Match.FULL) -> None:
        self.child = child
        self.match = match

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        if self.child is None:
            raise ZeroDivisionError
        return (self.match, self.child) if scope["type"] == "http" else (Match.NONE, {})

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        await PlainTextResponse("open")(scope, receive, send)


def as_wrapped_app(app: ASGIApp) -> ASGIApp:
    """Return any ASGI app with maintenance around it."""
    return maintenance_middleware(backend=MemoryBackend(state=True))(app)


class Rewriting:
    """A layer that answers `/metrics`, strips `/api`, and takes the method from a header, as some do."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
        elif scope["path"] == "/metrics":
            await PlainTextResponse("served")(scope, receive, send)
        else:
            methods = [value.decode() for name, value in scope["headers"] if name == b"x-http-method-override"]
            path = scope["path"].replace("/api", "", 1)
            scope.update(path=path, raw_path=path.encode(), method=[scope["method"], *methods][-1])
            await self.app(scope, receive, send)


def rewriting(app: ASGIApp) -> ASGIApp:
    """Do the same, and hide what is wrapped."""
    layer = Rewriting(app)

    async def layered(scope: Scope, receive: Receive, send: Send) -> None:
        await layer(scope, receive, send)

    return layered


class NotNotFound(Router):
    """A router that serves what is not found."""

    async def not_found(self, scope: Scope, receive: Receive, send: Send) -> None:
        await PlainTextResponse("served")(scope, receive, send)


def posting_routes() -> list[BaseRoute]:
    return [Route("/items", plain, methods=["POST"]), Route("/health", off), Route("/retired", on)]


WAYS_AROUND = [
    ("POST", "/api/items", {}),
    ("GET", "/items", {"X-HTTP-Method-Override": "POST"}),
    ("PATCH", "/nothing", {}),
    (
        "OPTIONS",
        "/items",
        {"X-HTTP-Method-Override": "POST", "Origin": "https://a.b", "Access-Control-Request-Method": "GET"},
    ),
]


def itself(app: ASGIApp) -> ASGIApp:
    return app


def mounted(app: ASGIApp) -> ASGIApp:
    return FastAPI(routes=[Mount("", app)])
