"""The endpoint that answers is found wherever it lives, as the app itself finds it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import fastapi.routing
import pytest
from fastapi import APIRouter, FastAPI, Request, WebSocket
from fastapi.middleware.cors import CORSMiddleware
from fastapi.routing import APIRoute
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import BaseRoute, Host, Match, Mount, Route, Router, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send

from fastapi_maintenance import (
    MaintenanceModeMiddleware,
    MemoryBackend,
    _index,
    force_maintenance_mode_off,
    force_maintenance_mode_on,
    maintenance_middleware,
)
from fastapi_maintenance import _routes as routes
from fastapi_maintenance.decorators import mark_of
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
    assert EXPECTED[maintenance] == await http_statuses(app, PLACES[place])
    assert EXPECTED[maintenance] == await socket_verdicts(app, PLACES[place])


@pytest.fixture
def _without_the_private_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """FastAPI has its private class no longer."""
    if not NESTED:
        pytest.skip("included routers are flat in this FastAPI")
    if not hasattr(fastapi.routing, "iter_route_contexts"):
        pytest.skip("FastAPI 0.137.0 and 0.137.1 have no public way")
    for module in (routes, _index):
        monkeypatch.setattr(module, "IncludedRouter", ())


@pytest.mark.usefixtures("_without_the_private_way")
@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.__name__)
async def test_the_mark_is_found_by_the_public_way_where_the_private_one_is_gone(place: Callable[[], FastAPI]) -> None:
    app = as_added(place(), MemoryBackend(state=True))
    assert EXPECTED[True] == await http_statuses(app, PLACES[place])
    assert EXPECTED[True] == await socket_verdicts(app, PLACES[place])


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
