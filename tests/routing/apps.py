"""Apps with endpoints wherever they can be, a short notation for requests, and the check of what is blocked."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import anyio
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
from tests.support import handshake, make_request, websocket_scope

MARKS = [
    pytest.mark.anyio,
    pytest.mark.usefixtures("_marks_of_apps"),
    # Newer FastAPI prefers that the server is given the root path; apps that have their own still work.
    pytest.mark.filterwarnings("ignore:The `root_path` parameter is deprecated"),
]
"""The marks of tests with these apps."""

NESTED = hasattr(fastapi.routing, "_IncludedRouter")
"""Whether included routers stay nested in this FastAPI."""

Filled = TypeVar("Filled", FastAPI, APIRouter)
OVERRIDE = "X-HTTP-Method-Override"
PREFLIGHT = {"Origin": "https://shop.example", "Access-Control-Request-Method": "GET"}  # Fetch 4.8


# Endpoints


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


@force_maintenance_mode_off
def marked() -> str:
    return "open"


def unmarked() -> str:
    return "open"


async def served(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer everything, as an app."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.accept"})
    else:
        await PlainTextResponse("served")(scope, receive, send)


async def serve(request: Request, _: Exception | None = None) -> PlainTextResponse:
    """Answer everything, as an endpoint or as a handler of exceptions."""
    return PlainTextResponse(f"served {request.method} {request.url.path}")


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


# Routes and layers


class Anything(BaseRoute):
    """A route of an unknown class."""

    def __init__(self, child: Scope | None, match: Match = Match.FULL) -> None:
        self.child = child
        self.match = match

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        if self.child is None:
            raise ZeroDivisionError
        return (self.match, self.child) if scope["type"] == "http" else (Match.NONE, {})

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        await served(scope, receive, send)


def overridden_method(scope: Scope) -> str:
    """Return the method in the header that some apps here obey, "" without one."""
    return str(dict(scope["headers"]).get(OVERRIDE.lower().encode(), b"").decode())


class Rewriting:
    """A layer that answers `/metrics`, strips `/api`, and takes the method from a header, as some do."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
        elif scope["path"] == "/metrics":
            await served(scope, receive, send)
        else:
            path = scope["path"].replace("/api", "", 1)
            scope.update(path=path, raw_path=path.encode(), method=overridden_method(scope) or scope["method"])
            await self.app(scope, receive, send)


def hiding(app: ASGIApp) -> ASGIApp:
    """Wrap an app in middleware that does not show it."""

    async def hidden(scope: Scope, receive: Receive, send: Send) -> None:
        await app(scope, receive, send)

    return hidden


def rewriting(app: ASGIApp) -> ASGIApp:
    """Wrap an app in `Rewriting`, and hide it."""
    return hiding(Rewriting(app))


class NotNotFound(Router):
    """A router that serves what is not found."""

    async def not_found(self, scope: Scope, receive: Receive, send: Send) -> None:
        await served(scope, receive, send)


# Apps


def fill(router: Filled) -> Filled:
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


def posting_routes() -> list[BaseRoute]:
    return [Route("/items", plain, methods=["POST"]), Route("/health", off), Route("/retired", on)]


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


def itself(app: ASGIApp) -> ASGIApp:
    return app


def mounted(app: ASGIApp) -> ASGIApp:
    return FastAPI(routes=[Mount("", app)])


def built(app: FastAPI) -> FastAPI:
    """Return the app with its layers built, as after the first request."""
    app.middleware_stack = app.build_middleware_stack()
    return app


def around(app: ASGIApp, state: bool | None = True) -> ASGIApp:
    """Return the app with maintenance around it, on or off; None: the app itself."""
    return app if state is None else maintenance_middleware(backend=MemoryBackend(state=state))(app)


def added(app: FastAPI, state: bool = True) -> ASGIApp:
    """Return the app with maintenance added to it."""
    app.add_middleware(maintenance_middleware(backend=MemoryBackend(state=state)))
    return app


# Requests


async def answered(app: ASGIApp, request: str) -> tuple[int, str]:
    """Send a request to an app, and return the status and the text of the answer.

    Args:
        app: The app.
        request: `/path` for GET, `METHOD /path`, or `METHOD /path as OTHER` with the headers that some apps obey.
            `PREFLIGHT` is a CORS preflight. `WS` is a handshake: 200 means that it is accepted, 503 that maintenance
            closes it, 404 that the app closes it.
    """
    method, path, *rest = (request if request[0] != "/" else f"GET {request}").split(" ")
    if method == "WS":
        scope = websocket_scope(path, headers={"host": "testserver"})
        message = (await handshake(app, scope))[0]
        return {"websocket.accept": 200, 1013: 503, 1000: 404}[message.get("code", message["type"])], ""
    headers = [("Host", "testserver"), *((name, value) for value in rest[1:] for name in (OVERRIDE, "X-Other"))]
    if method == "PREFLIGHT":
        method, headers = "OPTIONS", [*headers, *PREFLIGHT.items()]
    sent: list[Message] = []
    is_received, has_ended = False, anyio.Event()

    async def receive() -> Message:
        nonlocal is_received
        if is_received:
            await has_ended.wait()
            return {"type": "http.disconnect"}
        is_received = True
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)
        if message["type"] == "http.response.body" and not message.get("more_body"):
            has_ended.set()

    await app(dict(make_request(path, method=method, headers=headers).scope), receive, send)
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent).decode()


async def statuses(app: ASGIApp, *requests: str) -> list[int]:
    """Return the status of the answer to each request, one after the other."""
    return [(await answered(app, each))[0] for each in requests]


def below(prefix: str, *paths: str) -> list[str]:
    return [f"{prefix}{path}" for path in paths]


class Case(NamedTuple):
    """An app, and requests by what becomes of them: see `assert_decided`."""

    app: Callable[[], Any]
    blocked: Sequence[str] = ()
    passed: Sequence[str] = ()
    left: Sequence[str] = ()
    shut: Sequence[str] = ()
    doubtful: Sequence[str] = ()
    before: Sequence[str] = ()


async def assert_decided(case: Case) -> None:
    """Compare the answers of an app without the middleware, with maintenance off, and with maintenance on.

    By itself the app answers 200 to `blocked`, `passed` and `shut`, and refuses or redirects `left` and `doubtful`.
    Maintenance blocks `blocked` and `doubtful`; `shut` is blocked at all times. `before` is asked first. All is asked
    twice, since something may be remembered.
    """
    answers = {}
    for state in (None, False, True):
        app = around(case.app(), state)
        for turn in range(2):
            await statuses(app, *case.before)
            for each in (*case.blocked, *case.passed, *case.left, *case.shut, *case.doubtful):
                answers[state, turn, each] = (await answered(app, each))[0]
    refused = {*case.left, *case.doubtful}
    for turn in range(2):
        alone, watched, closed = (
            {each: status for (of, when, each), status in answers.items() if (of, when) == (state, turn)}
            for state in (None, False, True)
        )
        assert {each for each, status in alone.items() if status != 200} == refused, alone
        assert watched == alone | dict.fromkeys(case.shut, 503)
        assert closed == alone | dict.fromkeys((*case.blocked, *case.shut, *case.doubtful), 503)
