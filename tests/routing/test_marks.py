"""A mark holds for every kind of endpoint, whatever is wrapped around it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI, Request, WebSocket
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint, WebSocketEndpoint
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import PlainTextResponse
from starlette.routing import BaseRoute, Host, Mount, Route, Router, WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from fastapi_maintenance import (
    MemoryBackend,
    force_maintenance_mode_off,
    force_maintenance_mode_on,
)
from fastapi_maintenance.decorators import mark_of
from tests.routing.apps import (
    MARKS,
    NESTED,
    Resource,
    Rewriting,
    as_added,
    as_wrapped,
    marked,
    off,
    on,
    plain,
    plain_socket,
    rewriting,
    unmarked,
    wrapping,
)
from tests.support import client, handshake, websocket_scope

pytestmark = MARKS


class Shop:
    """A class whose methods are endpoints."""

    @force_maintenance_mode_off
    def marked_in_the_class(self) -> str:
        return "open"

    def marked_when_bound(self) -> str:
        return "open"

    @staticmethod
    @force_maintenance_mode_off
    def marked_below_staticmethod() -> str:
        return "open"

    @force_maintenance_mode_off
    @staticmethod
    def marked_above_staticmethod() -> str:
        return "open"

    @force_maintenance_mode_off
    @classmethod
    def marked_above_classmethod(cls) -> str:
        return "open"

    def unmarked(self) -> str:
        return "open"


class MarkedCall:
    """An object that is called, with its call marked."""

    @force_maintenance_mode_off
    def __call__(self) -> str:
        return "open"


def with_argument(text: str = "open") -> str:
    return text


def wrapping_without_attributes(function: Callable[..., str]) -> Callable[..., str]:
    """Decorate a function and leave but a trace of what was decorated."""

    def wrapper() -> str:
        return function()

    wrapper.__wrapped__ = function  # type: ignore[attr-defined]  # what inspect.signature follows
    return wrapper


MARKED_OFF: dict[str, Callable[..., object]] = {
    "a function": marked,
    "a function below another decorator": wrapping(marked),
    "a function above another decorator": force_maintenance_mode_off(wrapping(unmarked)),
    "a function below a decorator that copies no attributes": wrapping_without_attributes(marked),
    "a method marked in its class": Shop().marked_in_the_class,
    "a method marked when bound": force_maintenance_mode_off(Shop().marked_when_bound),
    "a static method marked below": Shop.marked_below_staticmethod,
    "a static method marked above": Shop().marked_above_staticmethod,
    "a class method marked above": Shop.marked_above_classmethod,
    "a partial of a marked function": functools.partial(marked),
    "a marked partial": force_maintenance_mode_off(functools.partial(with_argument, text="open")),
    "an object with a marked call": MarkedCall(),
    "the outermost of two marks": force_maintenance_mode_off(wrapping(force_maintenance_mode_on(with_argument))),
}


@pytest.mark.parametrize("kind", MARKED_OFF)
@pytest.mark.filterwarnings("ignore:.*iscoroutinefunction:DeprecationWarning")
async def test_a_mark_holds_for_every_kind_of_endpoint(kind: str) -> None:
    app = FastAPI()
    app.add_api_route("/", MARKED_OFF[kind])
    app.add_api_route("/unmarked", Shop().unmarked)
    closed = as_added(app, MemoryBackend(state=True))
    async with client(closed) as http:
        assert [200, 503] == [(await http.get(path)).status_code for path in ("/", "/unmarked")]


def test_a_mark_returns_the_same_function() -> None:
    def endpoint_of_this_test() -> str:
        return "open"

    class ClassOfThisTest(Shop):
        pass

    for endpoint in (endpoint_of_this_test, functools.partial(unmarked), ClassOfThisTest, MarkedCall()):
        assert endpoint is force_maintenance_mode_off(endpoint)
    method = Shop().marked_when_bound
    assert method is force_maintenance_mode_on(method)


def test_a_mark_on_a_bound_method_is_not_one_for_other_instances() -> None:
    first, second = Shop(), Shop()
    force_maintenance_mode_on(first.marked_when_bound)
    marks = [mark_of(shop.marked_when_bound) for shop in (first, second)]
    assert [True, None] == marks


class Slotted:
    """An object that cannot carry a mark."""

    __slots__ = ()

    def endpoint(self) -> str:
        return "open"


@pytest.mark.parametrize(
    ("endpoint", "text"),
    [
        ("/path", "^endpoint must be callable, got str '/path'"),
        (None, "^endpoint must be callable, got NoneType None"),
        *((thing, "^endpoint must be callable") for thing in ({"app": len}, Middleware(GZipMiddleware), [len])),
        (len, "^endpoint must be able to carry a mark, got <built-in function len>"),
        (Slotted().endpoint, "^endpoint must be able to carry a mark, got <bound method"),
    ],
)
def test_what_cannot_carry_a_mark_is_refused(endpoint: object, text: str) -> None:
    for mark in (force_maintenance_mode_off, force_maintenance_mode_on):
        with pytest.raises(TypeError, match=text):
            mark(endpoint)


def test_the_search_for_a_mark_ends_also_where_wrappers_go_in_a_circle() -> None:
    first, second = wrapping(unmarked), wrapping(unmarked)
    first.__wrapped__, second.__wrapped__ = second, first  # type: ignore[attr-defined]  # what wraps leaves
    assert mark_of(first) is None


@force_maintenance_mode_off
class OpenResource(HTTPEndpoint):
    """A class that is marked as a whole, but for one method."""

    async def get(self, request: Request) -> PlainTextResponse:
        return PlainTextResponse(request.method)

    @force_maintenance_mode_on
    async def post(self, request: Request) -> PlainTextResponse:
        return PlainTextResponse(request.method)


class WithHead(Resource):
    """A class that has a function of its own for HEAD."""

    @force_maintenance_mode_on
    async def head(self, request: Request) -> PlainTextResponse:
        return PlainTextResponse(request.method)


class Readable(HTTPEndpoint):
    """A class without marks."""

    async def get(self, request: Request) -> PlainTextResponse:
        return PlainTextResponse(request.method)


async def test_a_class_based_endpoint_answers_head_as_get_unless_it_has_its_own() -> None:
    paths = {"/a": Resource, "/b": WithHead, "/c": Readable}
    app = as_added(FastAPI(routes=[Route(path, it) for path, it in paths.items()]), MemoryBackend(state=True))
    async with client(app) as http:
        assert [200, 503, 503] == [(await http.head(path)).status_code for path in paths]


async def test_the_methods_of_a_class_based_endpoint_have_marks_of_their_own() -> None:
    paths: dict[str, Any] = {"/a": Resource, "/b": OpenResource, "/c": functools.partial(OpenResource)}
    for state in (False, True):
        app = as_added(FastAPI(routes=[Route(path, it) for path, it in paths.items()]), MemoryBackend(state=state))
        async with client(app) as http:
            for path in paths:
                statuses = [(await http.request(method, path)).status_code for method in ("GET", "HEAD", "POST", "PUT")]
                assert statuses == [200, 200, 503 if state or path != "/a" else 200, 405]


async def opaque(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer all requests and handshakes, as an app without routes."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.accept"})
    else:
        await PlainTextResponse("open")(scope, receive, send)


class Opaque:
    """The same as an object."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await opaque(scope, receive, send)


def three_routes() -> list[BaseRoute]:
    return [
        Route("/plain", plain),
        Route("/off", off),
        Route("/on", on),
        WebSocketRoute("/ws/plain", plain_socket),
    ]


def with_three_routes(kind: Any) -> Any:  # noqa: ANN401 -- an app of a kind
    return kind(routes=three_routes())


def rewritten(app: ASGIApp) -> ASGIApp:
    return Rewriting(app)


def behind_cors(app: ASGIApp) -> ASGIApp:
    return CORSMiddleware(app, allow_origins=["*"])


MOUNTED: dict[str, tuple[Callable[[Any], ASGIApp], tuple[int, ...]]] = {  # and which marks inside count
    "an app of FastAPI": (lambda mark: mark(with_three_routes(FastAPI)), (200, 503)),
    "an app of Starlette": (lambda mark: mark(with_three_routes(Starlette)), (200, 503)),
    "a router": (lambda mark: mark(with_three_routes(Router)), (200, 503)),
    "an app behind a layer": (lambda mark: behind_cors(mark(with_three_routes(FastAPI))), (200, 503)),
    "a layer around an app": (lambda mark: mark(behind_cors(with_three_routes(FastAPI))), (200, 503)),
    "an app with a layer of its own": (
        lambda mark: mark(FastAPI(routes=three_routes(), middleware=[Middleware(Rewriting)])),
        (200, 503),
    ),
    "an app with a layer that hides": (
        lambda mark: mark(FastAPI(routes=three_routes(), middleware=[Middleware(rewriting)])),
        (200, 503),
    ),
    "a layer between others": (lambda mark: rewritten(mark(behind_cors(with_three_routes(FastAPI)))), (503,)),
    "an unknown layer": (lambda mark: mark(rewritten(with_three_routes(FastAPI))), (503,)),
    "a function": (lambda mark: mark(functools.partial(opaque)), ()),
    "an object": (lambda mark: mark(Opaque()), ()),
    "an object behind a layer": (lambda mark: behind_cors(mark(Opaque())), ()),
    "an app of another kind": (lambda mark: mark(RoutesItself(three_routes())), (503,)),
}


class RoutesItself(Router):
    """A router that decides by itself."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await super().__call__(scope, receive, send)


def at_a_mount(app: ASGIApp) -> FastAPI:
    return FastAPI(routes=[Route("/plain", plain), Mount("/in", app)])


def at_a_mount_in_a_mounted_app(app: ASGIApp) -> FastAPI:
    return FastAPI(routes=[Route("/plain", plain), Mount("/i", FastAPI(routes=[Mount("/n", app)]))])


def at_a_mount_in_an_app_of_the_other_mark(app: ASGIApp) -> FastAPI:
    outer = FastAPI(routes=[Mount("/n", app)])
    other = force_maintenance_mode_off if mark_of(app) else force_maintenance_mode_on
    return FastAPI(routes=[Route("/plain", plain), Mount("/i", other(outer))])


def at_a_mount_with_a_layer(app: ASGIApp) -> FastAPI:
    layers = [Middleware(GZipMiddleware), Middleware(Rewriting)]
    return FastAPI(routes=[Route("/plain", plain), Mount("/in", app, middleware=layers)])


def at_a_host(app: ASGIApp) -> FastAPI:
    return FastAPI(routes=[Route("/plain", plain), Host("testserver", Router([Mount("/in", app)]))])


def at_a_mount_in_an_included_router(app: ASGIApp) -> FastAPI:
    router, outer = APIRouter(), FastAPI(routes=[Route("/plain", plain)])
    router.mount("/n", app)
    outer.include_router(router, prefix="/i")
    return outer


MOUNTS: dict[Callable[[ASGIApp], FastAPI], str] = {
    at_a_mount: "/in",
    at_a_mount_in_a_mounted_app: "/i/n",
    at_a_mount_in_an_app_of_the_other_mark: "/i/n",
    at_a_mount_with_a_layer: "/in",
    at_a_host: "/in",
}
if NESTED:
    MOUNTS[at_a_mount_in_an_included_router] = "/i/n"


@pytest.mark.parametrize(
    ("name", "where"),
    [*((name, at_a_mount) for name in MOUNTED), *(("an app of FastAPI", where) for where in MOUNTS)],
)
@pytest.mark.parametrize("mark", [force_maintenance_mode_on, force_maintenance_mode_off])
async def test_a_mark_on_a_mounted_app_holds_for_all_below_that_has_none_of_its_own(
    mark: Callable[[Any], Any], name: str, where: Callable[[ASGIApp], FastAPI]
) -> None:
    make, counting = MOUNTED[name]
    prefix, forced_on = MOUNTS[where], mark is force_maintenance_mode_on
    paths = [f"{prefix}{path}" for path in ("/plain", "/off", "/on", "/nothing", "/docs")]
    statuses, sockets = {}, {}
    for state in (None, False, True):
        app = where(make(mark))
        app_around = app if state is None else as_wrapped(app, MemoryBackend(state=state))
        async with client(app_around) as http:
            statuses[state] = [(await http.get(path)).status_code for path in [*paths, "/plain"]]
        scope = websocket_scope(f"{prefix}/ws/plain", headers={"host": "testserver"})
        message = (await handshake(app_around, scope))[0]
        sockets[state] = message.get("code", message["type"])
    plain_ones = statuses[None]
    for state in (False, True):
        expected = [503] * 5 if forced_on else plain_ones[:5]
        for status in counting:  # of what is marked by itself
            expected[1 if status == 200 else 2] = status
        assert statuses[state] == [*expected, 503 if state else 200]
        assert sockets[state] == (1013 if forced_on else sockets[None])


@pytest.mark.parametrize("mark", [force_maintenance_mode_on, force_maintenance_mode_off])
async def test_a_mark_on_a_route_or_a_mount_itself_counts_for_what_has_none_of_its_own(
    mark: Callable[[Any], Any],
) -> None:
    statuses = {}
    for state in (False, True):
        routes = [mark(Route("/plain", plain)), mark(Mount("/in", routes=three_routes()))]
        async with client(as_wrapped(FastAPI(routes=routes), MemoryBackend(state=state))) as http:
            paths = ("/plain", "/in/plain", "/in/off", "/in/on")
            statuses[state] = [(await http.get(path)).status_code for path in paths]
    marked_status = 503 if mark is force_maintenance_mode_on else 200
    assert statuses[False] == statuses[True] == [marked_status, marked_status, 200, 503]


async def test_the_mark_on_connecting_of_a_class_of_websocket_endpoints_counts() -> None:
    class Shut(WebSocketEndpoint):
        @force_maintenance_mode_on
        async def on_connect(self, websocket: WebSocket) -> None:
            await websocket.accept()

    app = FastAPI(routes=[WebSocketRoute("/ws", Shut)])
    for state in (False, True):
        message = (await handshake(as_wrapped(app, MemoryBackend(state=state)), websocket_scope("/ws")))[0]
        assert message.get("code", message["type"]) == 1013


async def test_a_mark_on_a_mounted_app_counts_as_soon_as_it_is_put_there() -> None:
    inner = FastAPI(routes=three_routes())
    closed = as_wrapped(FastAPI(routes=[Mount("/in", inner)]), MemoryBackend(state=True))
    statuses = []
    async with client(closed) as http:
        statuses.append((await http.get("/in/plain")).status_code)
        force_maintenance_mode_off(inner)
        statuses.append((await http.get("/in/plain")).status_code)
        force_maintenance_mode_on(inner)
        statuses.append((await http.get("/in/plain")).status_code)
    assert statuses == [503, 200, 503]
