"""The endpoint that answers is found wherever it lives, as the app itself finds it."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any, TypeVar

import fastapi.routing
import httpx
import pytest
from fastapi import APIRouter, FastAPI, Request, WebSocket
from fastapi.middleware.cors import CORSMiddleware
from fastapi.routing import APIRoute
from starlette.applications import Starlette
from starlette.convertors import StringConvertor
from starlette.endpoints import HTTPEndpoint
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.middleware.httpsredirect import HTTPSRedirectMiddleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import PlainTextResponse
from starlette.routing import BaseRoute, Host, Match, Mount, Route, Router, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send

from fastapi_maintenance import (
    MaintenanceModeMiddleware,
    MemoryBackend,
    force_maintenance_mode_off,
    force_maintenance_mode_on,
    maintenance_middleware,
    not_,
    path_prefix,
)
from fastapi_maintenance._routing import index, layers, routes
from fastapi_maintenance.decorators import mark_of
from fastapi_maintenance.middleware import MaintainedApp
from fastapi_maintenance.testing import maintenance_forced
from tests.support import client, handshake, websocket_scope

pytestmark = [
    pytest.mark.anyio,
    # Newer FastAPI prefers that the server is told; an app that still has its own is right all the same.
    pytest.mark.filterwarnings("ignore:The `root_path` parameter is deprecated"),
]

NESTED = hasattr(fastapi.routing, "_IncludedRouter")


_Filled = TypeVar("_Filled", FastAPI, APIRouter)

# --- endpoints, for HTTP and WebSocket, for FastAPI and Starlette ----------------------------------------------------


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


# --- places ----------------------------------------------------------------------------------------------------------


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


def in_a_router_that_is_included_twice() -> FastAPI:
    router, app = fill(APIRouter()), FastAPI()
    app.include_router(router, prefix="/a")
    app.include_router(router, prefix="/b")
    return app


def in_a_mounted_fastapi() -> FastAPI:
    app = FastAPI()
    app.mount("/a", in_an_included_router())
    return app


def in_a_mounted_starlette() -> FastAPI:
    app = FastAPI()
    app.mount("/a", Starlette(routes=starlette_routes()))
    return app


def in_a_mounted_plain_router() -> FastAPI:
    app = FastAPI()
    app.mount("/a", Router(starlette_routes()))
    return app


def in_the_routes_of_a_mount() -> FastAPI:
    return FastAPI(routes=[Mount("/a", routes=[Mount("/b", routes=starlette_routes())])])


def behind_the_middleware_of_a_mount() -> FastAPI:
    app = FastAPI()
    app.mount("/a", CORSMiddleware(on_the_app(), allow_origins=["*"]))
    return app


def behind_middleware_of_a_mount_that_hides_the_app() -> FastAPI:
    return FastAPI(routes=[Mount("/a", routes=starlette_routes(), middleware=[Middleware(hiding)])])


def in_a_mount_in_an_included_router() -> FastAPI:
    router, app = APIRouter(), FastAPI()
    router.mount("/b", on_the_app())
    app.include_router(router, prefix="/a")
    return app


def behind_middleware_of_a_mount_in_an_included_router() -> FastAPI:
    router, app = APIRouter(), FastAPI()
    router.routes.append(Mount("/b", routes=starlette_routes(), middleware=[Middleware(hiding)]))
    app.include_router(router, prefix="/a")
    return app


def under_a_host() -> FastAPI:
    return FastAPI(routes=[Host("elsewhere", Router()), Host("testserver", on_the_app())])


def under_a_host_in_an_included_router() -> FastAPI:
    router, app = APIRouter(), FastAPI()
    router.host("testserver", on_the_app())
    app.include_router(router)
    return app


def with_a_root_path_of_its_own() -> FastAPI:
    app = FastAPI(root_path="/behind/proxy")
    app.include_router(fill(APIRouter()), prefix="/a")
    return app


def with_a_mounted_app_that_has_a_root_path_of_its_own() -> FastAPI:
    inner, app = FastAPI(root_path="/a"), FastAPI()
    app.mount("/a", fill(inner))
    return app


def in_a_class_of_route_of_its_own() -> FastAPI:
    class OwnRoute(APIRoute):
        """A route with no rule of its own."""

    app = FastAPI()
    app.include_router(fill(APIRouter(route_class=OwnRoute)), prefix="/a")
    return app


def hiding(app: ASGIApp) -> ASGIApp:
    """Be middleware that shows nobody what it wraps."""

    async def hidden(scope: Scope, receive: Receive, send: Send) -> None:
        await app(scope, receive, send)

    return hidden


def behind_other_middleware_that_hides_the_app() -> FastAPI:
    app = in_an_included_router()
    app.add_middleware(hiding)
    return app


PLACES: dict[Callable[[], FastAPI], str] = {
    on_the_app: "",
    in_an_included_router: "/b/a",
    in_routers_three_deep: "/d/c/b/a",
    in_a_router_that_is_included_twice: "/b",
    in_a_mounted_fastapi: "/a/b/a",
    in_a_mounted_starlette: "/a",
    in_a_mounted_plain_router: "/a",
    in_the_routes_of_a_mount: "/a/b",
    behind_the_middleware_of_a_mount: "/a",
    behind_middleware_of_a_mount_that_hides_the_app: "/a",
    in_a_mount_in_an_included_router: "/a/b",
    behind_middleware_of_a_mount_in_an_included_router: "/a/b",
    under_a_host: "",
    under_a_host_in_an_included_router: "",
    with_a_root_path_of_its_own: "/a",
    with_a_mounted_app_that_has_a_root_path_of_its_own: "/a",
    in_a_class_of_route_of_its_own: "/a",
    behind_other_middleware_that_hides_the_app: "/b/a",
}
if not NESTED:  # FastAPI with flat routers includes no mounts and no hosts
    del PLACES[in_a_mount_in_an_included_router], PLACES[under_a_host_in_an_included_router]
    del PLACES[behind_middleware_of_a_mount_in_an_included_router]
TRIED = ("/plain", "/off", "/on", "/nothing")
EXPECTED = {True: [503, 200, 503, 404], False: [200, 200, 503, 404]}
HIDDEN = {
    behind_middleware_of_a_mount_that_hides_the_app,
    behind_middleware_of_a_mount_in_an_included_router,
    behind_other_middleware_that_hides_the_app,
}


def expected_at(place: Callable[[], FastAPI], maintenance: bool) -> list[int]:
    """Return what is expected there: what a layer that nobody knows hides is never left to the app."""
    return [503, 200, 503, 503] if maintenance and place in HIDDEN else EXPECTED[maintenance]


def as_added(app: FastAPI, backend: MemoryBackend) -> ASGIApp:
    app.add_middleware(maintenance_middleware(backend=backend))
    return app


def as_added_class(app: FastAPI, backend: MemoryBackend) -> ASGIApp:
    app.add_middleware(MaintenanceModeMiddleware, backend=backend)
    return app


def as_wrapped(app: FastAPI, backend: MemoryBackend) -> ASGIApp:
    return maintenance_middleware(backend=backend)(app)


async def http_statuses(app: ASGIApp, prefix: str) -> list[int]:
    async with client(app) as http:
        return [(await http.get(prefix + path)).status_code for path in TRIED]


async def socket_verdicts(app: ASGIApp, prefix: str) -> list[int]:
    """Return what becomes of handshakes, as the status that a request would have got."""
    verdicts = {"websocket.accept": 200, 1013: 503, 1000: 404}
    first: list[int] = []
    for path in TRIED:
        scope = websocket_scope(f"{prefix}/ws{path}", headers={"host": "testserver"})
        message = (await handshake(app, scope))[0]
        first.append(verdicts[message.get("code", message["type"])])
    return first


@pytest.fixture(autouse=True)
def _marks_of_this_module_are_known() -> None:
    """The endpoints above were marked before the test began, whose process is as new."""
    force_maintenance_mode_on(on)


@pytest.mark.parametrize("arrange", [as_added, as_added_class, as_wrapped])
@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.__name__)
@pytest.mark.parametrize("maintenance", [True, False])
async def test_the_mark_of_the_endpoint_is_found(
    place: Callable[[], FastAPI], arrange: Callable[[FastAPI, MemoryBackend], ASGIApp], maintenance: bool
) -> None:
    app = arrange(place(), MemoryBackend(state=maintenance))
    assert expected_at(place, maintenance) == await http_statuses(app, PLACES[place])
    assert expected_at(place, maintenance) == await socket_verdicts(app, PLACES[place])


@pytest.fixture
def _without_the_private_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """FastAPI has its private class no longer."""
    if not NESTED:
        pytest.skip("included routers are flat in this FastAPI")
    if not hasattr(fastapi.routing, "iter_route_contexts"):
        pytest.skip("FastAPI 0.137.0 and 0.137.1 have no public way")
    for module in (routes, index):
        monkeypatch.setattr(module, "IncludedRouter", ())


@pytest.mark.usefixtures("_without_the_private_way")
@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.__name__)
async def test_the_mark_is_found_by_the_public_way_where_the_private_one_is_gone(place: Callable[[], FastAPI]) -> None:
    app = as_added(place(), MemoryBackend(state=True))
    assert expected_at(place, maintenance=True) == await http_statuses(app, PLACES[place])
    assert expected_at(place, maintenance=True) == await socket_verdicts(app, PLACES[place])


@pytest.mark.usefixtures("_without_the_private_way")
async def test_the_documentation_in_an_included_router_is_found_by_the_public_way_too() -> None:
    async with client(as_added(in_a_mount_in_an_included_router(), MemoryBackend(state=True))) as http:
        assert 200 == (await http.get("/a/b/docs")).status_code


@pytest.mark.skipif(not NESTED, reason="included routers are flat in this FastAPI")
def test_the_private_names_that_are_used_are_there() -> None:
    included = fastapi.routing._IncludedRouter
    assert callable(included._match)
    if hasattr(FastAPI, "frontend"):
        assert callable(APIRouter()._match_low_priority)


# --- what kind of endpoint -------------------------------------------------------------------------------------------


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


@force_maintenance_mode_off
def marked() -> str:
    return "open"


def unmarked() -> str:
    return "open"


def with_argument(text: str = "open") -> str:
    return text


def wrapping(function: Callable[..., str]) -> Callable[..., str]:
    """Decorate a function as most decorators do."""

    @functools.wraps(function)
    def wrapper(*args: object, **kwargs: object) -> str:
        return function(*args, **kwargs)

    return wrapper


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


class Resource(HTTPEndpoint):
    """A class of Starlette that dispatches by method."""

    @force_maintenance_mode_off
    async def get(self, request: Request) -> PlainTextResponse:
        return PlainTextResponse(request.method)

    async def post(self, request: Request) -> PlainTextResponse:
        return PlainTextResponse(request.method)


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
    app = as_added(FastAPI(routes=[Route("/a", Resource), Route("/b", OpenResource)]), MemoryBackend(state=True))
    async with client(app) as http:
        for path in ("/a", "/b"):
            statuses = [(await http.request(method, path)).status_code for method in ("GET", "HEAD", "POST", "PUT")]
            assert [200, 200, 503, 405] == statuses


# --- per route, in the app's own order -------------------------------------------------------------------------------


async def test_a_mark_holds_for_the_route_and_not_for_its_path() -> None:
    app = FastAPI()
    app.get("/x")(marked)
    app.post("/x")(unmarked)
    app.put("/x")(force_maintenance_mode_on(wrapping(unmarked)))
    for maintenance, expected in ((True, [200, 503, 503, 405]), (False, [200, 200, 503, 405])):
        wrapped = as_wrapped(app, MemoryBackend(state=maintenance))
        async with client(wrapped) as http:
            statuses = [(await http.request(method, "/x")).status_code for method in ("GET", "POST", "PUT", "DELETE")]
        assert expected == statuses


async def test_a_route_that_is_shadowed_by_an_earlier_one_does_not_count() -> None:
    app = FastAPI()
    app.add_api_route("/{anything}", unmarked)
    app.add_api_route("/off", marked)
    router = APIRouter()
    router.add_api_route("/{anything}", marked)
    router.add_api_route("/off", unmarked)
    app.include_router(router, prefix="/a")
    closed = as_added(app, MemoryBackend(state=True))
    async with client(closed) as http:
        assert [503, 200] == [(await http.get(path)).status_code for path in ("/off", "/a/off")]


async def test_routes_that_are_added_after_the_first_request_are_seen() -> None:
    router, inner, app = APIRouter(), FastAPI(), FastAPI()
    app.include_router(router, prefix="/a")
    app.mount("/b", inner)
    closed = as_added(app, MemoryBackend(state=True))
    added = [(app, "/late"), (inner, "/late")] + ([(router, "/late")] if NESTED else [])
    paths = ["/late", "/b/late"] + (["/a/late"] if NESTED else [])
    async with client(closed) as http:
        before = [(await http.get(path)).status_code for path in paths]
        for where, path in added:
            where.add_api_route(path, marked)
            where.add_api_route(path + "/unmarked", unmarked)
        after = [(await http.get(path + end)).status_code for path in paths for end in ("", "/unmarked")]
    assert ([404] * len(paths), [200, 503] * len(paths)) == (before, after)


async def test_an_app_that_is_mounted_in_the_place_of_another_is_seen() -> None:
    before, after, app = FastAPI(), FastAPI(), FastAPI()
    before.add_api_route("/x", unmarked)
    after.add_api_route("/x", marked)
    app.mount("/a", before)
    closed = as_added(app, MemoryBackend(state=True))
    async with client(closed) as http:
        statuses = [(await http.get("/a/x")).status_code]
        mount = app.routes[-1]
        assert isinstance(mount, Mount)
        mount.app = after
        statuses += [(await http.get("/a/x")).status_code for _ in range(2)]
    assert [503, 200, 200] == statuses


@pytest.mark.parametrize(("path", "is_open", "closed"), [("/a/x", 404, 404), ("/a/a/x", 200, 503)])
async def test_a_mounted_app_is_asked_as_it_reads_the_path_with_its_own_root_path(
    path: str, is_open: int, closed: int
) -> None:
    inner, app = FastAPI(root_path="/elsewhere"), FastAPI()
    inner.add_api_route("/a/a/x", unmarked)
    inner.add_api_route("/x", unmarked)
    app.mount("/a", inner)
    statuses = []
    for maintenance in (False, True):
        async with client(as_wrapped(app, MemoryBackend(state=maintenance))) as http:
            statuses.append((await http.get(path)).status_code)
    assert [is_open, closed] == statuses


class ByVersion(APIRoute):
    """A class of route that asks for a header as well."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        match, child = super().matches(scope)
        versions = [value for name, value in scope["headers"] if name == b"x-version"]
        return (match, child) if versions == [self.name.encode()] else (Match.NONE, {})


@pytest.mark.parametrize("included", [False, True])
async def test_a_class_of_route_with_a_rule_of_its_own_is_asked_itself(included: bool) -> None:
    app, router = FastAPI(), APIRouter(route_class=ByVersion)
    where = router if included else app.router
    app.router.route_class = ByVersion
    where.add_api_route("/x", unmarked, name="1")
    where.add_api_route("/x", marked, name="2")
    if included:
        app.include_router(router, prefix="/a")
    closed = as_added(app, MemoryBackend(state=True))
    async with client(closed) as http:
        statuses = [
            (await http.get("/a/x" if included else "/x", headers={"X-Version": version})).status_code
            for version in ("1", "2", "3")
        ]
    assert [503, 200, 404] == statuses


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


@pytest.mark.parametrize("match", [Match.FULL, Match.PARTIAL])
async def test_a_route_of_an_unknown_class_has_the_mark_of_what_it_calls_its_endpoint(match: Match) -> None:
    statuses = []
    for child in ({}, {"endpoint": marked}):
        async with client(as_added(FastAPI(routes=[Anything(child, match)]), MemoryBackend(state=True))) as http:
            statuses.append((await http.get("/")).status_code)
    assert [503, 200] == statuses


async def test_a_route_that_fails_to_say_whether_it_matches_fails_in_the_app() -> None:
    app = FastAPI(routes=[Anything(None)])
    async with client(as_wrapped(app, MemoryBackend(state=True))) as http:
        assert 503 == (await http.get("/")).status_code
    async with client(as_wrapped(app, MemoryBackend(state=False))) as http:
        with pytest.raises(ZeroDivisionError):
            await http.get("/")


async def test_what_a_route_notes_in_the_scope_while_it_is_asked_is_for_the_app_to_be_noted_again() -> None:
    class Noting(Anything):
        def matches(self, scope: Scope) -> tuple[Match, Scope]:
            noted.append("noted" in scope)
            scope["noted"] = True
            return super().matches(scope)

    noted: list[bool] = []
    app = FastAPI(routes=[Noting({"endpoint": marked})])
    async with client(as_added(app, MemoryBackend(state=True))) as http:
        assert 200 == (await http.get("/")).status_code
    assert not noted[-1]


async def test_the_scope_is_left_as_it_is() -> None:
    app = in_routers_three_deep()
    seen: list[Scope] = []

    async def inner(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(dict(scope))
        await app(scope, receive, send)

    inner.app = app  # type: ignore[attr-defined]  # as classes of middleware have it
    wrapped = maintenance_middleware(backend=MemoryBackend(state=False))(inner)
    async with client(wrapped) as http:
        await http.get("/d/c/b/a/plain")
    assert {"route", "endpoint", "fastapi", "path_params"}.isdisjoint(seen[0])


# --- what is left to the app -----------------------------------------------------------------------------------------


def app_with_files(folder: Path) -> FastAPI:
    (folder / "page.html").write_text("a page", encoding="utf-8")
    app = on_the_app()
    app.mount("/static", StaticFiles(directory=folder))
    app.add_api_route("/slash/", unmarked)
    return app


@pytest.mark.parametrize(
    ("method", "path", "left", "blocked"),
    [
        ("GET", "/nothing", 404, 503),
        ("POST", "/plain", 405, 503),
        ("GET", "/slash", 307, 503),
        ("GET", "/plain/", 307, 503),
        ("GET", "/static/page.html", 503, 503),
        ("GET", "/static/nothing.html", 503, 503),
        ("OPTIONS", "/plain", 405, 503),
    ],
)
async def test_what_no_route_answers_is_left_to_the_app_unless_it_is_to_be_blocked(
    method: str, path: str, left: int, blocked: int, tmp_path: Path
) -> None:
    statuses = []
    for unmatched in ("pass", "block"):
        settings: dict[str, Any] = {"unmatched": unmatched, "backend": MemoryBackend(state=True)}
        async with client(maintenance_middleware(**settings)(app_with_files(tmp_path))) as http:
            statuses.append((await http.request(method, path)).status_code)
    assert [left, blocked] == statuses


async def test_a_preflight_to_an_app_that_nobody_can_see_into_is_closed() -> None:
    headers = {"Origin": "https://shop.example", "Access-Control-Request-Method": "GET"}
    app = FastAPI(routes=[Mount("/in", PlainTextResponse("open"))])
    async with client(as_wrapped(app, MemoryBackend(state=True))) as http:
        assert [503, 404] == [(await http.options(path, headers=headers)).status_code for path in ("/in/x", "/nothing")]


@pytest.mark.parametrize("outside", [True, False])
async def test_cors_preflights_stay_the_apps(outside: bool) -> None:
    app = FastAPI()
    app.api_route("/any", methods=["GET", "OPTIONS"])(unmarked)
    app.get("/plain")(plain)
    middleware = [maintenance_middleware(backend=MemoryBackend(state=True)), CORSMiddleware]
    for added in middleware if outside else reversed(middleware):
        app.add_middleware(added, **({"allow_origins": ["*"]} if added is CORSMiddleware else {}))
    headers = {"Origin": "https://shop.example", "Access-Control-Request-Method": "GET"}
    async with client(app) as http:
        preflights = [(await http.options(path, headers=headers)).status_code for path in ("/any", "/plain", "/none")]
        assert [200, 200, 200] == preflights
        assert 503 == (await http.options("/any")).status_code


@pytest.mark.parametrize("is_built", [True, False])
async def test_a_preflight_that_no_layer_answers_does_not_come_to_a_route_that_takes_options(is_built: bool) -> None:
    """It could be anybody's request, with two more headers."""
    app = FastAPI()
    app.api_route("/any", methods=["GET", "OPTIONS"])(unmarked)
    headers = {"Origin": "https://shop.example", "Access-Control-Request-Method": "GET"}
    statuses = []
    for answers_preflights in (False, True):
        if answers_preflights:
            app.add_middleware(CORSMiddleware, allow_origins=["*"])
        if is_built:
            app.middleware_stack = app.build_middleware_stack()
        async with client(as_wrapped(app, MemoryBackend(state=True))) as http:
            statuses.append((await http.options("/any", headers=headers)).status_code)
        app.middleware_stack = None
    assert [503, 200] == statuses


async def test_a_default_app_of_a_router_answers_and_is_closed() -> None:
    async def page(scope: Scope, receive: Receive, send: Send) -> None:
        await PlainTextResponse("the single page")(scope, receive, send)

    closed = as_wrapped_app(Router(starlette_routes(), default=page))
    async with client(closed) as http:
        statuses = [(await http.get(path)).status_code for path in ("/anything", "/off", "/plain/", "/")]
    assert [503, 200, 307, 503] == statuses


@pytest.mark.parametrize(
    ("path", "redirect_slashes", "expected"),
    [
        ("/slash", True, 307),
        ("/slash", False, 503),
        ("/MAX/", True, 307),
        ("/items/7", True, 307),
        ("/items/seven", True, 503),
        ("/", True, 503),
    ],
)
async def test_a_default_app_answers_what_its_router_does_not_redirect(
    path: str, redirect_slashes: bool, expected: int
) -> None:
    class WithoutPath(Anything):
        def matches(self, scope: Scope) -> tuple[Match, Scope]:
            return (Match.FULL if "" == scope["path"] else Match.NONE), {}

    page = PlainTextResponse("the single page")
    answered = [Route("/slash/", plain), Route("/MAX", plain), Route("/items/{number:int}/", plain), WithoutPath({})]
    router = Router(answered, redirect_slashes=redirect_slashes, default=page)
    async with client(as_wrapped_app(router)) as http:
        assert expected == (await http.get(path)).status_code


async def test_a_handshake_is_never_redirected_so_a_default_app_answers_and_is_closed() -> None:
    async def accepting(scope: Scope, receive: Receive, send: Send) -> None:
        await WebSocket(scope, receive, send).accept()

    router = Router([WebSocketRoute("/socket/", plain_socket)], default=accepting)
    assert "websocket.accept" == (await handshake(router, websocket_scope("/socket")))[0]["type"]
    assert "websocket.close" == (await handshake(as_wrapped_app(router), websocket_scope("/socket")))[0]["type"]


def as_wrapped_app(app: ASGIApp) -> ASGIApp:
    """Return any ASGI app with maintenance around it."""
    return maintenance_middleware(backend=MemoryBackend(state=True))(app)


@pytest.mark.skipif(not hasattr(FastAPI, "frontend"), reason="this FastAPI serves no frontend")
async def test_the_files_of_a_frontend_answer_and_are_closed(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("the frontend", encoding="utf-8")
    app, router = on_the_app(), APIRouter()
    router.frontend("/", directory=tmp_path)
    app.include_router(router, prefix="/shop")
    for path, maintenance, expected in [
        ("/shop/index.html", False, 200),
        ("/shop/index.html", True, 503),
        ("/off", True, 200),
        ("/nothing", True, 404),
    ]:
        async with client(as_wrapped(app, MemoryBackend(state=maintenance))) as http:
            assert expected == (await http.get(path)).status_code
    async with client(as_wrapped(app, MemoryBackend(state=True))) as http:
        assert 405 == (await http.post("/shop/index.html")).status_code


# --- what cannot be seen through -------------------------------------------------------------------------------------


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


async def rewrite(request: Request, call_next: Callable[[Request], Any]) -> Any:  # noqa: ANN401 -- any response
    """Do the same as a function."""
    responses: list[Any] = []

    async def inner(scope: Scope, receive: Receive, send: Send) -> None:
        responses.append(await call_next(Request(scope, receive, send)))

    async def unsent(_: Any) -> None: ...  # noqa: ANN401 -- any message

    if request.url.path == "/metrics":
        return PlainTextResponse("served")
    await Rewriting(inner)(request.scope, request.receive, unsent)
    return responses[0]


class ByName(BaseHTTPMiddleware):
    """Do the same as a class of Starlette's kind."""

    async def dispatch(self, request: Request, call_next: Callable[[Request], Any]) -> Any:  # noqa: ANN401 -- as above
        return await rewrite(request, call_next)


class CarefulCORS(CORSMiddleware):
    """A class of known middleware with a call of its own."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await Rewriting(self.app)(scope, receive, send)


class DressedCORS(CarefulCORS):
    """The same, dressed up as the known one."""


functools.update_wrapper(DressedCORS, CORSMiddleware, updated=())


class RewritingApp(FastAPI):
    """An app that does the same in its own call."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await Rewriting(super().__call__)(scope, receive, send)


class RewritingStack(FastAPI):
    """An app that builds its layers in its own way."""

    def build_middleware_stack(self) -> ASGIApp:
        return Rewriting(super().build_middleware_stack())


class RewritingRouter(Router):
    """A router that does the same in its own call."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await Rewriting(super().__call__)(scope, receive, send)


class RewritingInApp(APIRouter):
    """A router that does the same where it is an app."""

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        await Rewriting(super().app)(scope, receive, send)


class RewritingMount(Mount):
    """A mount that does the same."""

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        await Rewriting(super().handle)(scope, receive, send)


class NotNotFound(Router):
    """A router that serves what is not found."""

    async def not_found(self, scope: Scope, receive: Receive, send: Send) -> None:
        await PlainTextResponse("served")(scope, receive, send)


def posting_routes() -> list[BaseRoute]:
    return [Route("/items", plain, methods=["POST"]), Route("/health", off), Route("/retired", on)]


def app_with(*layers: Any, kind: type[FastAPI] = FastAPI) -> FastAPI:  # noqa: ANN401 -- of any kind
    return kind(routes=posting_routes(), middleware=[Middleware(layer) for layer in layers])


def app_with_a_function() -> FastAPI:
    app = app_with()
    app.middleware("http")(rewrite)
    return app


def built(app: FastAPI) -> FastAPI:
    app.middleware_stack = app.build_middleware_stack()
    return app


def with_a_stack_of_its_own() -> FastAPI:
    app = app_with()
    app.middleware_stack = Rewriting(app.build_middleware_stack())
    return app


def with_a_build_of_its_own() -> FastAPI:
    app = app_with()
    build = app.build_middleware_stack
    app.build_middleware_stack = lambda: Rewriting(build())  # type: ignore[method-assign]  # as instrumentations do
    return app


def with_another_app_in_its_stack() -> FastAPI:
    app = app_with()
    app.middleware_stack = app_with(Rewriting)
    return app


def router_with_a_stack_of_its_own() -> Router:
    router = Router(posting_routes())
    router.middleware_stack = Rewriting(router.middleware_stack)
    return router


def router_with_another_stack() -> Router:
    router = Router(posting_routes())
    router.middleware_stack = Router(posting_routes(), middleware=[Middleware(Rewriting)])
    return router


class RewritingRoute(Route):
    """A route that does the same where it is an app."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await Rewriting(super().__call__)(scope, receive, send)


UNKNOWN: dict[str, Callable[[], ASGIApp]] = {
    "a class of middleware": lambda: app_with(Rewriting),
    "a class of middleware, built": lambda: built(app_with(Rewriting)),
    "among known ones": lambda: app_with(GZipMiddleware, Rewriting, CORSMiddleware),
    "among known ones, built": lambda: built(app_with(GZipMiddleware, Rewriting, CORSMiddleware)),
    "middleware that hides the app": lambda: built(app_with(rewriting)),
    "a function as middleware": app_with_a_function,
    "a class with a dispatch": lambda: app_with(ByName),
    "a class of known middleware with a call of its own": lambda: app_with(CarefulCORS),
    "a class that has the name of a known one": lambda: app_with(DressedCORS),
    "a layer around an app": lambda: Rewriting(app_with()),
    "a call of the app's own": lambda: app_with(kind=RewritingApp),
    "a stack of the app's own": with_a_stack_of_its_own,
    "a class of app that builds its own stack": lambda: app_with(kind=RewritingStack),
    "an app that is given a build of its own": with_a_build_of_its_own,
    "an app with another one in its stack": with_another_app_in_its_stack,
    "a call of the router's own": lambda: RewritingRouter(posting_routes()),
    "an app method of the router's own": lambda: RewritingInApp(routes=posting_routes()),
    "middleware of a router": lambda: Router(posting_routes(), middleware=[Middleware(Rewriting)]),
    "a stack that a router was given": router_with_a_stack_of_its_own,
    "another router in the place of a router's stack": router_with_another_stack,
    "a handle of a mount's own": lambda: RewritingMount("", routes=posting_routes()),
    "a call of a route's own": lambda: RewritingRoute("/items", plain, methods=["POST"]),
    "middleware of a mount": lambda: Mount("", routes=posting_routes(), middleware=[Middleware(Rewriting)]),
    "middleware of a mount that hides": lambda: Mount("", routes=posting_routes(), middleware=[Middleware(rewriting)]),
}
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


@pytest.mark.parametrize("where", [itself, mounted])
@pytest.mark.parametrize("kind", UNKNOWN)
async def test_what_may_rewrite_a_request_or_answer_it_leaves_nothing_to_the_app(
    kind: str, where: Callable[[ASGIApp], ASGIApp]
) -> None:
    app = where(UNKNOWN[kind]())
    async with client(app) as http:
        assert 200 == (await http.post("/items")).status_code
    for _ in range(2):  # before the stack of layers is built and after it
        async with client(as_wrapped_app(where(UNKNOWN[kind]()))) as http:
            for method, path, headers in WAYS_AROUND:
                assert 503 == (await http.request(method, path, headers=headers)).status_code
            if "route's" not in kind:
                assert [200, 503] == [(await http.get(path)).status_code for path in ("/health", "/retired")]
            assert 503 == (await http.get("/nothing")).status_code


async def test_a_layer_that_is_added_between_two_requests_is_seen() -> None:
    app = app_with()
    mount = Mount("/in", app_with(GZipMiddleware))
    app.router.routes.append(mount)
    closed = as_wrapped(app, MemoryBackend(state=True))
    statuses = []

    async def look() -> None:
        statuses.append([(await http.get(path)).status_code for path in ("/nothing", "/in/nothing")])

    async with client(closed) as http:
        await look()
        mount.app = Rewriting(mount.app)
        await look()
        assert app.middleware_stack is not None
        app.middleware_stack = Rewriting(app.middleware_stack)
        await look()
    assert [[404, 404], [404, 503], [503, 503]] == statuses


KNOWN: list[Any] = [
    Middleware(GZipMiddleware),
    Middleware(CORSMiddleware, allow_origins=["*"]),
    Middleware(HTTPSRedirectMiddleware),
    Middleware(TrustedHostMiddleware, allowed_hosts=["testserver"]),
    Middleware(SessionMiddleware, secret_key="secret"),  # noqa: S106 -- of a test
    Middleware(MaintenanceModeMiddleware, backend="memory:"),
    Middleware(maintenance_middleware(backend="memory:")),
]


@pytest.mark.parametrize("is_built", [True, False])
@pytest.mark.parametrize("in_a_mount", [True, False])
async def test_known_middleware_is_seen_through(is_built: bool, in_a_mount: bool) -> None:
    app = FastAPI(routes=posting_routes(), middleware=KNOWN)
    app = built(app) if is_built else app
    async with client(as_wrapped_app(mounted(app) if in_a_mount else app)) as http:
        http.base_url = httpx.URL("https://testserver")
        statuses = [(await http.get(path)).status_code for path in ("/nothing", "/items", "/items/", "/health")]
    assert [404, 405, 307, 200] == statuses


def test_the_names_of_known_middleware_are_those_of_classes_that_are_there() -> None:
    """Those of packages and versions that are not installed apart."""
    ours = {name for name in layers._KNOWN if name.startswith("fastapi_maintenance.")}
    assert ours == {
        f"{kind.__module__}.{kind.__qualname__}"
        for kind in (MaintainedApp, MaintenanceModeMiddleware, maintenance_middleware())
    }
    given = {f"{middleware.cls.__module__}.{middleware.cls.__qualname__}" for middleware in KNOWN}
    newer = {
        "fastapi._body_limit._BodyLimitExceptionMiddleware",
        "starlette.middleware.body_limit.RequestBodyLimitMiddleware",
        "starlette.middleware.opentelemetry.OpenTelemetryMiddleware",
    }
    assert newer == layers._KNOWN - given - ours


@pytest.mark.skipif("max_body_size" not in inspect.signature(FastAPI).parameters, reason="it has no limit of bodies")
async def test_limits_of_bodies_are_seen_through() -> None:
    limit: Any = {"max_body_size": 1000}
    router = APIRouter(**limit)
    router.add_api_route("/items", unmarked, methods=["POST"])
    app = FastAPI(**limit)
    app.include_router(router)
    app.router.routes += [
        Mount("/a", router),
        Mount("/b", routes=posting_routes(), **limit),
        Route("/c", Resource, **limit),
    ]
    paths = ["/nothing", "/items", "/a/items", "/a/nothing", "/b/items", "/b/nothing"]
    async with client(as_wrapped(app, MemoryBackend(state=True))) as http:
        assert [404, 405, 405, 404, 405, 404] == [(await http.get(path)).status_code for path in paths]
        assert 405 == (await http.put("/c")).status_code


async def test_a_test_that_forces_an_app_sees_through_to_its_layers() -> None:
    backend = MemoryBackend()
    for added, expected in (((), 404), ((GZipMiddleware,), 404), ((Rewriting,), 503)):
        app = app_with(*added)
        async with client(as_wrapped(app, backend)) as http:
            with maintenance_forced(app):
                assert [expected] * 2 == [(await http.get("/nothing")).status_code for _ in range(2)]


# --- endpoints that dispatch by themselves ---------------------------------------------------------------------------


def served(request: Request) -> PlainTextResponse:
    return PlainTextResponse(request.method)


class ByItself(Resource):
    """A class that dispatches by itself."""

    async def dispatch(self) -> None:
        await served(Request(self.scope))(self.scope, self.receive, self.send)


class ServingAll(Resource):
    """A class that answers methods for which it has no function."""

    async def method_not_allowed(self, request: Request) -> PlainTextResponse:
        return served(request)


class Awaited(Resource):
    """A class that is awaited in its own way."""

    def __await__(self) -> Generator[Any, None, None]:
        return served(Request(self.scope))(self.scope, self.receive, self.send).__await__()


class Initialized(Resource):
    """A class that makes a function for a method while it is made."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.put = served
        super().__init__(scope, receive, send)


class Dynamic(Resource):
    """A class that has a function for whatever is asked of it."""

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 -- of any name
        if name.startswith("_"):
            raise AttributeError(name)
        return served


class Calling(type):
    """A class of classes that answer when they are called."""

    def __call__(cls, scope: Scope, receive: Receive, send: Send) -> Any:  # noqa: ANN401, N805, RUF100 -- awaitable
        return served(Request(scope))(scope, receive, send)


class Called(Resource, metaclass=Calling):
    """A class that never comes to be an endpoint."""


OWN_DISPATCH = [ByItself, ServingAll, Awaited, Initialized, Dynamic, Called]


@pytest.mark.parametrize("endpoint", OWN_DISPATCH)
async def test_a_class_that_dispatches_by_itself_answers_all_methods(endpoint: Any) -> None:  # noqa: ANN401 -- a class
    app = FastAPI(routes=[Route("/a", endpoint), Mount("/in", routes=[Route("/a", endpoint)])])
    async with client(app) as http:
        assert 200 == (await http.put("/a")).status_code
    async with client(as_wrapped(app, MemoryBackend(state=True))) as http:
        for method in ("GET", "POST", "PUT", "OPTIONS"):
            for path in ("/a", "/in/a"):
                assert 503 == (await http.request(method, path, headers=dict(WAYS_AROUND[-1][2]))).status_code


async def test_the_mark_of_a_class_that_dispatches_by_itself_counts_and_of_its_methods_only_forced_on() -> None:
    @force_maintenance_mode_off
    class Open(ByItself):
        @force_maintenance_mode_on
        async def post(self, request: Request) -> PlainTextResponse:
            return served(request)

    @force_maintenance_mode_on
    class Shut(ByItself):
        pass

    app = FastAPI(routes=[Route("/open", Open), Route("/shut", Shut)])
    statuses = {}
    for maintenance in (True, False):
        async with client(as_wrapped(app, MemoryBackend(state=maintenance))) as http:
            for path in ("/open", "/shut"):
                methods = ("GET", "POST", "PUT")
                statuses[path, maintenance] = [(await http.request(each, path)).status_code for each in methods]
    assert {
        ("/open", True): [200, 503, 200],
        ("/shut", True): [503, 503, 503],
        ("/open", False): [200, 503, 200],
        ("/shut", False): [503, 503, 503],
    } == statuses


def with_middleware() -> BaseRoute:
    return Route("/a", Resource, middleware=[Middleware(Rewriting)])


def with_an_app_in_its_place() -> BaseRoute:
    route = Route("/a", Resource)
    route.app = rewriting(route.app)
    return route


class Handling(Route):
    """A route that handles requests in its own way."""

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        await served(Request(scope))(scope, receive, send)


def with_a_handle_of_its_class() -> BaseRoute:
    return Handling("/a", plain, methods=["POST"])


def with_a_handle_of_its_own() -> BaseRoute:
    route = Route("/a", plain, methods=["POST"])
    route.handle = Handling("/a", plain).handle  # type: ignore[method-assign]  # what is tested
    return route


@pytest.mark.parametrize(
    "route", [with_middleware, with_an_app_in_its_place, with_a_handle_of_its_class, with_a_handle_of_its_own]
)
async def test_a_route_that_handles_requests_in_its_own_way_answers_all_methods(route: Callable[[], BaseRoute]) -> None:
    async with client(as_wrapped_app(FastAPI(routes=[route()]))) as http:
        headers = {"X-HTTP-Method-Override": "POST"}
        assert [503, 503] == [(await http.request(each, "/a", headers=headers)).status_code for each in ("PUT", "POST")]


async def test_a_route_that_handles_requests_in_its_own_way_keeps_its_mark() -> None:
    app = FastAPI(routes=[Handling("/off", off, methods=["POST"]), Handling("/on", on, methods=["POST"])])
    for maintenance in (True, False):
        async with client(as_wrapped(app, MemoryBackend(state=maintenance))) as http:
            assert [200, 503] == [(await http.put(path)).status_code for path in ("/off", "/on")]


async def test_known_middleware_of_a_route_leaves_405_to_its_class() -> None:
    route = Route("/a", Resource, middleware=[Middleware(GZipMiddleware)])
    async with client(as_wrapped_app(FastAPI(routes=[route]))) as http:
        assert [200, 503, 405] == [(await http.request(each, "/a")).status_code for each in ("GET", "POST", "PUT")]


class HandlingRoute(APIRoute):
    """The same of FastAPI."""

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        await served(Request(scope))(scope, receive, send)


@pytest.mark.parametrize("prefix", ["", "/a", "/a/b"])
async def test_a_class_of_route_with_a_handle_of_its_own_answers_all_methods_wherever_it_is(prefix: str) -> None:
    router, app = APIRouter(route_class=HandlingRoute), FastAPI()
    router.add_api_route("/x", unmarked, methods=["POST"])
    for part in prefix.split("/")[:0:-1]:
        outer = APIRouter()
        outer.include_router(router, prefix=f"/{part}")
        router = outer
    app.include_router(router)
    async with client(app) as http:
        assert 200 == (await http.get(f"{prefix}/x")).status_code
    async with client(as_wrapped(app, MemoryBackend(state=True))) as http:
        assert [503, 404] == [(await http.get(prefix + path)).status_code for path in ("/x", "/nothing")]


@pytest.mark.skipif(not NESTED, reason="included routers are flat in this FastAPI")
async def test_an_included_router_with_a_handle_of_its_own_answers_all_methods() -> None:
    class HandlingRouter(APIRouter):
        async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
            await served(Request(scope))(scope, receive, send)

    router, app = HandlingRouter(), FastAPI()
    router.add_api_route("/x", unmarked, methods=["POST"])
    router.add_api_route("/off", marked, methods=["POST"])
    app.include_router(router, prefix="/a")
    async with client(as_wrapped(app, MemoryBackend(state=True))) as http:
        statuses = [(await http.get(path)).status_code for path in ("/a/x", "/a/off", "/a/nothing")]
    assert [503, 200, 404] == statuses


async def test_a_router_that_serves_what_is_not_found_answers_and_is_closed() -> None:
    for where in (itself, mounted):
        async with client(as_wrapped_app(where(NotNotFound(posting_routes())))) as http:
            assert [503, 405] == [(await http.get(path)).status_code for path in ("/anything", "/items")]


# --- failures while looking ------------------------------------------------------------------------------------------


class Strange(Route):
    """A route with a pattern of its own, whose path cannot be compiled, or with an attribute that fails."""

    failing = ""

    def __init__(self, path: str, failing: str = "") -> None:
        super().__init__("/x", plain)
        self.path = path
        self.path_regex = re.compile("^/strange/(?P<rest>.*)$")
        self.param_convertors = {"rest": StringConvertor()}
        self.failing = failing

    def __getattribute__(self, name: str) -> Any:  # noqa: ANN401 -- of any attribute
        if name == object.__getattribute__(self, "failing"):
            raise ZeroDivisionError(name)
        return super().__getattribute__(name)


@pytest.mark.parametrize(
    "route",
    [
        Strange("/x/{bad"),
        Strange("{a}{a}"),
        Strange("/{a:nothing}"),
        Strange("/x", "path"),
        Strange("/x", "path_regex"),
        Strange("/x", "matches"),
        Strange("/x", "methods"),
        Strange("/x", "handle"),
    ],
)
@pytest.mark.parametrize("where", [itself, mounted])
async def test_a_route_that_cannot_be_indexed_is_asked_and_is_in_nobodys_way(
    route: Strange, where: Callable[[ASGIApp], ASGIApp]
) -> None:
    app = where(FastAPI(routes=[Route("/health", off), Route("/closed", plain), route]))
    async with client(as_wrapped_app(app)) as http:
        assert [200, 503, 503] == [
            (await http.get(path)).status_code for path in ("/health", "/closed", "/strange/thing")
        ]


@pytest.mark.skipif(not NESTED, reason="included routers are flat in this FastAPI")
async def test_a_route_that_fails_in_an_included_router_is_in_nobodys_way() -> None:
    router, app = APIRouter(), FastAPI()
    app.add_api_route("/health", marked)
    router.routes.append(Strange("{a}{a}"))
    app.include_router(router)
    async with client(as_wrapped(app, MemoryBackend(state=True))) as http:
        assert [200, 503] == [(await http.get(path)).status_code for path in ("/health", "/anything")]


async def test_a_failure_on_the_way_to_the_routes_blocks() -> None:
    class Failing(FastAPI):
        @property
        def user_middleware(self) -> Any:  # noqa: ANN401 -- there is none
            raise ZeroDivisionError

        @user_middleware.setter
        def user_middleware(self, value: Any) -> None: ...  # noqa: ANN401 -- there is none

    async with client(as_wrapped(Failing(), MemoryBackend(state=True))) as http:
        assert 503 == (await http.get("/")).status_code


# --- documentation ---------------------------------------------------------------------------------------------------

DEFAULT_DOCS = ["/docs", "/docs/oauth2-redirect", "/redoc", "/openapi.json"]


@pytest.mark.parametrize(
    ("settings", "is_open", "not_open"),
    [
        ({}, DEFAULT_DOCS, ["/docsx", "/docs/x", "/openapi.json.bak", "/redoc/more"]),
        ({"docs_url": "/a/help", "openapi_url": "/a/spec"}, ["/a/help", "/a/spec"], ["/docs", "/openapi.json"]),
        ({"openapi_url": None}, [], DEFAULT_DOCS),
        ({"docs_url": None, "redoc_url": None}, ["/openapi.json"], ["/docs", "/redoc"]),
    ],
)
@pytest.mark.parametrize("prefix", ["", "/mounted"])
async def test_the_documentation_stays_open_wherever_the_app_put_it(
    settings: dict[str, Any], is_open: list[str], not_open: list[str], prefix: str
) -> None:
    documented = FastAPI(**settings)
    documented.add_api_route("/{path:path}", unmarked, methods=["GET", "POST"], include_in_schema=False)
    documented.add_route("/{path:path}", plain, methods=["PATCH"])
    app = FastAPI(openapi_url=None)
    if prefix:
        app.mount(prefix, documented)
    async with client(as_added(app if prefix else documented, MemoryBackend(state=True))) as http:
        assert [200] * len(is_open) == [(await http.get(prefix + path)).status_code for path in is_open]
        assert [200] * len(is_open) == [(await http.head(prefix + path)).status_code for path in is_open]
        assert [503] * len(not_open) == [(await http.get(prefix + path)).status_code for path in not_open]
        assert 503 == (await http.post(prefix + "/docs")).status_code
        assert 503 == (await http.patch(prefix + "/docs")).status_code


async def test_an_endpoint_of_the_app_in_the_place_of_its_documentation_is_closed_as_others_are() -> None:
    app = FastAPI()
    app.router.routes.insert(0, APIRoute("/docs", unmarked))
    async with client(as_added(app, MemoryBackend(state=True))) as http:
        assert [503, 200] == [(await http.get(path)).status_code for path in ("/docs", "/redoc")]


async def test_the_documentation_is_closed_on_request() -> None:
    app = FastAPI()
    app.add_middleware(maintenance_middleware(backend=MemoryBackend(state=True), exempt_docs=False))
    async with client(app) as http:
        assert [503] * 4 == [(await http.get(path)).status_code for path in DEFAULT_DOCS]


# --- other arrangements ----------------------------------------------------------------------------------------------


async def test_the_server_may_have_a_root_path() -> None:
    app = as_added(in_an_included_router(), MemoryBackend(state=True))
    async with client(app, root_path="/behind/proxy") as http:
        statuses = [(await http.get(f"/behind/proxy/b/a{path}")).status_code for path in TRIED]
        docs = (await http.get("/behind/proxy/docs")).status_code
    assert ([503, 200, 503, 404], 200) == (statuses, docs)


async def test_the_middleware_may_be_inside_a_mounted_app_and_around_it_too() -> None:
    inner, outer = in_an_included_router(), FastAPI()
    outer.mount("/in", as_added(inner, MemoryBackend(state=True)))
    outer.add_api_route("/outside", unmarked)
    async with client(outer) as http:
        assert EXPECTED[True] == [(await http.get(f"/in/b/a{path}")).status_code for path in TRIED]
        assert 200 == (await http.get("/outside")).status_code
    async with client(as_wrapped(outer, MemoryBackend(state=False))) as http:
        assert EXPECTED[True] == [(await http.get(f"/in/b/a{path}")).status_code for path in TRIED]


async def test_what_fastapi_has_noted_in_the_scope_on_the_way_to_a_mounted_app_is_left_as_it_is() -> None:
    seen: list[Scope] = []

    def note(app: ASGIApp) -> ASGIApp:
        async def noting(scope: Scope, receive: Receive, send: Send) -> None:
            scope["fastapi"] = {"noted": True}
            await app(scope, receive, send)
            seen.append(scope["fastapi"])

        return noting

    inner = in_routers_three_deep()
    async with client(note(as_added(inner, MemoryBackend(state=True)))) as http:
        assert EXPECTED[True] == [(await http.get(f"/d/c/b/a{path}")).status_code for path in TRIED]
    assert [True] * 4 == [noted["noted"] for noted in seen]
    assert {"noted"} == set(seen[0])  # of a request that was blocked, nothing but that


async def test_an_app_that_nobody_can_see_into_is_closed_as_a_whole() -> None:
    """Also where it is mounted in an app whose routes would say something else."""
    outer = FastAPI()
    outer.add_api_route("/off", marked)
    outer.mount("/in", as_wrapped_app(hiding(on_the_app())))
    async with client(outer) as http:
        statuses = [(await http.get(path)).status_code for path in ("/in/off", "/in/plain", "/in/nothing", "/off")]
    assert [503, 503, 503, 200] == statuses


@pytest.mark.parametrize(
    "app",
    [Starlette(routes=starlette_routes()), Router(starlette_routes()), Mount("", routes=starlette_routes())],
    ids=["Starlette", "Router", "Mount"],
)
async def test_an_application_that_is_not_fastapi_can_be_wrapped(app: ASGIApp) -> None:
    async with client(as_wrapped_app(app)) as http:
        assert [503, 200, 503, 404] == [(await http.get(path)).status_code for path in TRIED]


async def test_a_chain_of_middleware_without_end_is_not_followed_for_ever() -> None:
    class Circle:
        """Middleware that wraps itself."""

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            await PlainTextResponse("open")(scope, receive, send)

    circle = Circle()
    circle.app = circle  # type: ignore[attr-defined]  # the mistake that is tested
    async with client(as_wrapped_app(circle)) as http:
        assert 503 == (await http.get("/")).status_code


@pytest.mark.parametrize("key", [404, 405, StarletteHTTPException])
async def test_a_refusal_that_the_app_handles_in_its_own_way_is_blocked(key: Any) -> None:  # noqa: ANN401 -- a status or a class
    app = FastAPI()
    app.add_middleware(maintenance_middleware(backend=MemoryBackend(state=True)))

    @app.exception_handler(key)
    async def serve(request: Request, _: Exception) -> PlainTextResponse:
        return PlainTextResponse(f"the whole application, as of {request.url.path}")

    app.add_api_route("/items", plain)
    async with client(app) as http:
        assert [503, 503] == [(await http.get("/dashboard")).status_code, (await http.post("/items")).status_code]


async def test_a_route_of_the_users_at_a_documentation_url_is_no_documentation() -> None:
    app = FastAPI(routes=[Route("/docs", plain)])
    app.add_middleware(maintenance_middleware(backend=MemoryBackend(state=True)))
    async with client(app) as http:
        assert [503, 200] == [(await http.get(path)).status_code for path in ("/docs", "/redoc")]


async def test_behind_a_layer_that_hides_the_app_a_path_may_have_a_root_path_before_it() -> None:
    app = FastAPI(root_path="/api")
    app.add_api_route("/billing", plain)
    app.add_api_route("/items", plain)

    async def hiding(scope: Scope, receive: Receive, send: Send) -> None:
        await app(scope, receive, send)

    outside = maintenance_middleware(backend=MemoryBackend(state=True), exempt=not_(path_prefix("/billing")))
    async with client(outside(hiding)) as http:
        paths = ("/api/billing", "/billing", "/api/items", "/items")
        assert [503, 503, 200, 200] == [(await http.get(path)).status_code for path in paths]
