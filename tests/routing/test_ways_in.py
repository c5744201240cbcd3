"""What runs in a way that cannot be known for certain is blocked: nothing comes in by a mark, the docs or a refusal."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from fastapi import APIRouter, FastAPI, Request
from fastapi.exception_handlers import http_exception_handler
from fastapi.routing import APIRoute
from starlette.authentication import requires
from starlette.endpoints import HTTPEndpoint
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.responses import PlainTextResponse
from starlette.routing import BaseRoute, Host, Match, Mount, Route, Router, compile_path, request_response
from starlette.types import ASGIApp, Receive, Scope, Send

from fastapi_maintenance import (
    MaintenanceModeMiddleware,
    MemoryBackend,
    force_maintenance_mode_off,
    maintenance_middleware,
    path_prefix,
)
from tests.middleware.test_fuzz import AnyMethod, Gateway, HandlesItself
from tests.routing.apps import (
    MARKS,
    Resource,
    Rewriting,
    answered,
    as_added,
    as_wrapped,
    asked,
    hiding,
    marked,
    off,
    on,
    plain,
    unmarked,
)
from tests.support import client

pytestmark = MARKS


async def serve(request: Request, _: Exception | None = None) -> PlainTextResponse:
    """Answer, as an endpoint, or as a handler of what no endpoint answers."""
    return PlainTextResponse(f"served {request.method} {request.url.path}")


async def served(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer as an app."""
    await PlainTextResponse("served")(scope, receive, send)


def said(scope: Scope) -> str:
    """Return what a request says in the header by which some apps here decide."""
    return str(dict(scope["headers"]).get(b"x-as", b"").decode())


def open_shut_and_plain() -> list[BaseRoute]:
    return [Route("/off", off), Route("/on", on), Route("/items", plain)]


def documented(**facts: Any) -> FastAPI:  # noqa: ANN401 -- of FastAPI
    """Return an app with documentation, and an endpoint of each kind."""
    return FastAPI(routes=open_shut_and_plain(), **facts)


def with_route(*routes: BaseRoute) -> FastAPI:
    """Return an app with these routes before its own."""
    return FastAPI(routes=[*routes, *open_shut_and_plain()])


def mounting(app: ASGIApp) -> FastAPI:
    """Return an app with another one mounted at `/in`."""
    return with_route(Mount("/in", app))


# --- routes that match in their own way -------------------------------------------------------------------------------


class TakesMethodFromHeader(BaseRoute):
    """A route that takes the method from a header."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        changed = {"method": said(scope)} if said(scope) else {}
        match, child = super().matches({**scope, **changed})
        return match, {**child, **changed}


class MethodFromHeader(TakesMethodFromHeader, Route): ...


class APIMethodFromHeader(TakesMethodFromHeader, APIRoute): ...


class PartlyMethodFromHeader(MethodFromHeader):
    """The same, but any other route is preferred."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        match, child = super().matches(scope)
        return (match if match is Match.NONE else Match.PARTIAL), child


class MountWithMethodFromHeader(Mount):
    """The same of a mount."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        match, child = super().matches(scope)
        return match, {**child, **({"method": said(scope)} if said(scope) else {})}


class Moving(BaseRoute):
    """A route that never matches, and changes the request for the routes after it."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        if scope["path"] == "/moving":
            scope.update(path="/post", method="POST")
        return Match.NONE, {}


def api_app(kind: type[APIRoute], *, included: bool) -> FastAPI:
    """Return an app with a class of route, on the app or in an included router."""
    app, router = FastAPI(), APIRouter()
    app.router.route_class = router.route_class = kind
    where = router if included else app
    where.add_api_route("/get", unmarked, methods=["GET"])
    where.add_api_route("/post", unmarked, methods=["POST"])
    where.add_api_route("/off", marked, methods=["GET"])
    if included:
        app.include_router(router)
    return app


def with_matches_of_its_own() -> FastAPI:
    """Return an app whose routes were given one each, as an instrumentation does."""

    def wrap(matches: Callable[[Scope], tuple[Match, Scope]], scope: Scope) -> tuple[Match, Scope]:
        match, child = matches(scope)
        return (match if match is Match.NONE else Match.FULL), child

    app = api_app(APIRoute, included=False)
    for route in app.routes[-3:]:
        route.matches = functools.partial(wrap, route.matches)  # type: ignore[method-assign]  # what is tested
    return app


# --- handlers of refusals ---------------------------------------------------------------------------------------------


@functools.wraps(http_exception_handler)
async def dressed(request: Request, _: Exception) -> PlainTextResponse:
    return await serve(request)


HANDLERS: Any = {404: serve, 405: serve}


def built_with_a_handler_that_is_taken_away() -> FastAPI:
    app = documented(exception_handlers=HANDLERS)
    app.middleware_stack = app.build_middleware_stack()
    app.exception_handlers.clear()
    return app


def with_handlers(**facts: Any) -> Middleware:  # noqa: ANN401 -- of the middleware
    return Middleware(ExceptionMiddleware, handlers=HANDLERS, **facts)


class Falsy(FastAPI):
    """An app that is false, with a handler of its own."""

    def __len__(self) -> int:
        return 0


class RoutesByProperty(APIRouter):
    """A router that computes its routes."""

    @property
    def routes(self) -> Any:  # noqa: ANN401 -- what is tested
        return open_shut_and_plain()

    @routes.setter
    def routes(self, value: object) -> None: ...


class BuildsItself(FastAPI):
    """An app that builds a stack which does not lead to its router."""

    def build_middleware_stack(self) -> ASGIApp:
        return served


class ByProperty(HTTPEndpoint):
    """A class that has a method for some requests."""

    @property
    def get(self) -> Any:  # noqa: ANN401 -- a method, or nothing
        return self.served if self.scope.get("headers") else None

    async def served(self, request: Request) -> PlainTextResponse:
        return await serve(request)


class DressedRoute(Route):
    """A route that answers whatever the method, dressed up as the known one."""

    handle = HandlesItself.handle


functools.update_wrapper(DressedRoute, Route, updated=())


def with_an_endpoint_in_the_name_of_the_docs() -> FastAPI:
    app = documented()
    original = next(route for route in app.routes if getattr(route, "path", "") == "/docs")
    assert isinstance(original, Route)

    @functools.wraps(original.endpoint)
    async def dressed(request: Request) -> PlainTextResponse:
        return await serve(request)

    app.router.routes.insert(0, Route("/docs", dressed))
    return app


# --- what decides by itself what answers ------------------------------------------------------------------------------


class RoutesByHeader(Router):
    """A router that goes by a header before it goes by the path."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await (served if said(scope) else super().__call__)(scope, receive, send)


class AppByHeader(FastAPI):
    """The same of an app."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await (served if scope["type"] == "http" and said(scope) else super().__call__)(scope, receive, send)


class MountByHeader(Mount):
    """The same of a mount."""

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        await (served if said(scope) else super().handle)(scope, receive, send)


def with_router(kind: type[Router]) -> FastAPI:
    """Return an app whose router is put in another's place, as Cadwyn does."""
    app = documented()
    app.router = kind(routes=app.routes)  # type: ignore[assignment]  # a plain router will do
    return app


class Listing(Gateway):
    """A gateway that lists routes which it does not go by."""

    @property
    def routes(self) -> list[BaseRoute]:
        return open_shut_and_plain()


def with_a_gateway(around: Callable[[ASGIApp], ASGIApp]) -> FastAPI:
    app = documented()
    app.mount("/in", around(app))
    return app


def built(app: FastAPI) -> FastAPI:
    app.middleware_stack = app.build_middleware_stack()
    return app


def with_its_own_router() -> FastAPI:
    app = documented()
    app.mount("/again", app.router)
    return app


ALL_OF_IT = ["/off", "/on", "/items", "/docs", "/openapi.json"]


def below(prefix: str, paths: list[str]) -> list[str]:
    return [f"GET {prefix}{path}" for path in paths]


class Way(NamedTuple):
    """An app, and what is asked for there: `GET /path`, and `as X` for what the header says."""

    app: Callable[[], ASGIApp]
    blocked: list[str]  # what the app answers with 200, and maintenance blocks
    left: list[str] = ["GET /off", "GET /nothing"]  # what it lets pass  # noqa: RUF012 -- of a tuple
    shut: list[str] = []  # what is blocked at all times  # noqa: RUF012 -- of a tuple
    first: list[str] = []  # what is asked before, whatever the answer  # noqa: RUF012 -- of a tuple


WAYS = {
    "a route for all methods": Way(
        lambda: api_app(AnyMethod, included=False), ["GET /get", "POST /post"], first=["POST /get", "GET /post"]
    ),
    "a route for all methods, included": Way(
        lambda: api_app(AnyMethod, included=True), ["GET /get", "POST /post"], first=["POST /get", "GET /post"]
    ),
    "a route that was given a matches": Way(
        with_matches_of_its_own, ["GET /get", "POST /post"], first=["POST /get", "GET /post"]
    ),
    "a route that changes the method": Way(
        lambda: with_route(MethodFromHeader("/x", plain, methods=["POST"])), ["GET /x as POST", "POST /x"]
    ),
    "a route that changes the method of a class": Way(
        lambda: with_route(MethodFromHeader("/x", Resource)), ["GET /x as POST"], ["GET /x", "GET /nothing"]
    ),
    "a route of FastAPI that changes the method": Way(
        lambda: api_app(APIMethodFromHeader, included=False), ["GET /post as POST", "POST /get as GET"]
    ),
    "a route of FastAPI that changes the method, included": Way(
        lambda: api_app(APIMethodFromHeader, included=True), ["GET /post as POST", "POST /get as GET"]
    ),
    "a route that changes the method, and matches in part": Way(
        lambda: with_route(PartlyMethodFromHeader("/x", plain, methods=["POST"])), ["GET /x as POST"]
    ),
    "a mount that changes the method": Way(
        lambda: with_route(MountWithMethodFromHeader("/in", routes=[Route("/x", Resource)])), ["GET /in/x as POST"]
    ),
    "a route that changes the request for others": Way(
        lambda: with_route(Moving(), Route("/post", plain, methods=["POST"])), ["GET /moving", "POST /post"]
    ),
    "a handler in the name of FastAPI's": Way(
        lambda: documented(exception_handlers={HTTPException: dressed}), ["GET /nothing", "POST /items"], ["GET /off"]
    ),
    "a handler of a status in the name of FastAPI's": Way(
        lambda: documented(exception_handlers={404: dressed}), ["GET /nothing"], ["GET /off"]
    ),
    "a handler in the name of FastAPI's, mounted": Way(
        lambda: mounting(documented(exception_handlers={404: dressed})), ["GET /in/nothing"]
    ),
    "a handler that is taken from the app when it is built": Way(
        built_with_a_handler_that_is_taken_away, ["GET /nothing", "POST /items"], ["GET /off"]
    ),
    "handlers in a layer of a mount": Way(
        lambda: with_route(Mount("/in", routes=open_shut_and_plain(), middleware=[with_handlers()])),
        ["GET /in/nothing", "POST /in/items"],
        ["GET /in/off", "GET /in/items/", "GET /nothing"],
        ["GET /in/on"],
    ),
    "handlers in a layer that is mounted": Way(
        lambda: mounting(ExceptionMiddleware(Router(open_shut_and_plain()), handlers=HANDLERS)),
        ["GET /in/nothing", "POST /in/items"],
        ["GET /nothing", "POST /items"],
    ),
    "handlers in a layer of a mounted router": Way(
        lambda: mounting(Router(open_shut_and_plain(), middleware=[with_handlers()])),
        ["GET /in/nothing", "POST /in/items"],
        ["GET /in/off", "GET /in/items/", "GET /nothing"],
    ),
    "handlers in a layer of a route": Way(
        lambda: with_route(Route("/x", Resource, middleware=[with_handlers()])),
        ["PUT /x", "POST /x"],
        ["GET /x", "PUT /nothing"],
    ),
    "no handlers in a layer": Way(
        lambda: with_route(
            Mount("/in", routes=open_shut_and_plain(), middleware=[Middleware(ExceptionMiddleware)]),
            Mount(
                "/other",
                routes=open_shut_and_plain(),
                middleware=[Middleware(ExceptionMiddleware, handlers={ValueError: serve})],
            ),
        ),
        ["GET /in/items"],
        ["GET /in/nothing", "POST /in/items", "GET /in/off", "GET /other/nothing", "POST /other/items"],
    ),
    "the handlers of FastAPI itself": Way(
        lambda: documented(exception_handlers={HTTPException: http_exception_handler, 404: http_exception_handler}),
        ["GET /items"],
        ["GET /nothing", "POST /items", "GET /items/", "GET /docs"],
    ),
    "a route in the name of Starlette's": Way(
        lambda: with_route(DressedRoute("/x", plain, methods=["POST"])), ["GET /x", "POST /x"]
    ),
    "an endpoint in the name of the docs": Way(
        with_an_endpoint_in_the_name_of_the_docs, ["GET /docs"], ["GET /redoc", "GET /nothing"]
    ),
    "a router that decides": Way(
        lambda: with_router(RoutesByHeader),
        ["GET /off as 2", "GET /docs as 2", *below("", ["/off", "/items", "/docs"])],
        [],
        ["GET /on"],
    ),
    "a handler behind a decorator of Starlette": Way(
        lambda: documented(exception_handlers={404: requires([])(serve)}), ["GET /nothing"], ["GET /off", "POST /items"]
    ),
    "a handler of an app that is false": Way(
        lambda: mounting(Falsy(routes=open_shut_and_plain(), exception_handlers=HANDLERS)),
        ["GET /in/nothing", "POST /in/items"],
        ["GET /in/off", "GET /nothing"],
    ),
    "a class with a method that is computed": Way(lambda: with_route(Route("/x", ByProperty)), ["GET /x as 2"]),
    "a router that computes its routes": Way(
        lambda: with_router(RoutesByProperty), ["GET /off", "GET /items"], [], ["GET /on"]
    ),
    "an app that builds another stack": Way(
        lambda: built(BuildsItself(routes=open_shut_and_plain())),
        ["GET /off", "GET /docs", "GET /nothing"],
        [],
        ["GET /on"],
    ),
    "the app's own router, mounted in it": Way(
        with_its_own_router, ["GET /again/items"], ["GET /again/off", "GET /again/nothing"], ["GET /again/on"]
    ),
    "an app that decides, mounted": Way(
        lambda: mounting(AppByHeader(routes=open_shut_and_plain())),
        ["GET /in/off as 2", "GET /in/docs as 2", "GET /in/off", "GET /in/docs"],
    ),
    "a mount that decides": Way(
        lambda: with_route(MountByHeader("/in", documented())),
        ["GET /in/off as 2", "GET /in/docs as 2", "GET /in/off", "GET /in/docs"],
        shut=["GET /in/on"],
    ),
    "an unknown layer that is mounted": Way(
        lambda: mounting(Rewriting(documented())),
        below("/in", ["/off", "/items", "/docs", "/openapi.json"]),
        shut=["GET /in/on"],
    ),
    "an unknown layer of the app": Way(
        lambda: documented(middleware=[Middleware(Rewriting)]),
        ["GET /items", "GET /api/items"],
        ["GET /off", "GET /docs"],
        ["GET /on"],
    ),
    "a gateway to its parent": Way(lambda: with_a_gateway(Gateway), below("/in", [*ALL_OF_IT, "/nothing", "/in/off"])),
    "a gateway to its parent behind a known layer": Way(
        lambda: with_a_gateway(lambda app: CORSMiddleware(Gateway(app), allow_origins=["*"])),
        below("/in", [*ALL_OF_IT, "/nothing"]),
    ),
    "a gateway that lists routes": Way(lambda: mounting(Listing(served)), below("/in", [*ALL_OF_IT, "/nothing"])),
}


@pytest.mark.parametrize("name", WAYS)
async def test_what_cannot_be_known_for_certain_is_blocked(name: str) -> None:
    way = WAYS[name]
    statuses = {}
    for state in (None, False, True):
        app = way.app()
        app = app if state is None else maintenance_middleware(backend=MemoryBackend(state=state))(app)
        for turn in range(2):  # since something may be remembered of the first
            for each in (*way.first, *way.blocked, *way.left, *way.shut):
                statuses[state, turn, each] = await asked(app, each)
    for turn in range(2):
        plain, watched, closed = (
            {each: statuses[state, turn, each] for each in (*way.blocked, *way.left, *way.shut)}
            for state in (None, False, True)
        )
        assert [plain[each] for each in (*way.blocked, *way.shut)] == [200] * len(way.blocked + way.shut)
        assert watched == plain | dict.fromkeys(way.shut, 503)
        assert closed == plain | dict.fromkeys((*way.blocked, *way.shut), 503)


class Changing(Route):
    """A route that hands its endpoint a changed request."""

    def __init__(self, path: str, endpoint: Any, changed: Scope) -> None:  # noqa: ANN401 -- of Starlette
        super().__init__(path, endpoint)
        self.changed = changed

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        match, child = super().matches(scope)
        return match, {**child, **self.changed}


@pytest.mark.parametrize(
    ("changed", "is_certain"),
    [
        ({"method": "POST"}, False),
        ({"path": "/other"}, False),
        ({"headers": []}, False),
        ({"query_string": b"a=b"}, False),
        ({"root_path": "/other"}, False),
        ({}, True),
        ({"tenant": "a"}, True),
    ],
)
async def test_a_mark_off_counts_where_the_route_leaves_the_request_as_it_is(changed: Scope, is_certain: bool) -> None:
    methods = {"GET", "HEAD", "POST"}
    routes: list[Any] = [
        Changing("/off", off, changed),
        Changing("/on", on, changed),
        Changing("/plain", plain, changed),
    ]
    for route in routes:
        route.methods = methods
    statuses = {}
    for state in (False, True):
        app = maintenance_middleware(backend=MemoryBackend(state=state))(FastAPI(routes=routes))
        statuses[state] = [await asked(app, f"GET {path} as 2") for path in ("/off", "/on", "/plain", "/nothing")]
    assert statuses == {False: [200, 503, 200, 404], True: [200 if is_certain else 503, 503, 503, 404]}


# --- what changes between two requests --------------------------------------------------------------------------------


KEPT_OPEN = "kept open"


class CaseInsensitive(Route):
    """A route that is equal to a plain one, and matches more."""

    def __init__(self, path: str, endpoint: Any, **facts: Any) -> None:  # noqa: ANN401 -- of Starlette
        super().__init__(path, endpoint, **facts)
        self.path_regex = re.compile(self.path_regex.pattern, re.IGNORECASE)


@force_maintenance_mode_off
async def kept_open(_: Request) -> PlainTextResponse:
    """Answer with something else than all others here."""
    return PlainTextResponse(KEPT_OPEN)


def move(route: Any, path: str = "/new") -> None:  # noqa: ANN401 -- a route, or a mount
    """Give a route another path, as Starlette would have done."""
    route.path = path
    route.path_regex, route.path_format, route.param_convertors = compile_path(path)


def turn(route: Any, endpoint: Any) -> None:  # noqa: ANN401 -- a route
    """Have a route call another endpoint."""
    route.endpoint, route.app = endpoint, request_response(endpoint)


def handling(route: Any) -> None:  # noqa: ANN401 -- a route
    """Give a route a handle of its own."""
    route.handle = served


def matching(route: Any) -> None:  # noqa: ANN401 -- a route
    """Give a route a matches of its own."""
    route.matches = lambda _: (Match.FULL, {"endpoint": route.endpoint})


class Change(NamedTuple):
    """A route, and what is done to the routes among which it is after the first look."""

    route: Callable[[], BaseRoute]
    change: Callable[[list[Any], int], object]  # given the routes, and the place of that one
    asked: list[str]


CHANGES = {
    "another path": Change(lambda: Route("/old", plain), lambda routes, at: move(routes[at]), ["GET /new"]),
    "another path of FastAPI's": Change(
        lambda: APIRoute("/old", unmarked), lambda routes, at: move(routes[at]), ["GET /new"]
    ),
    "another path of a mount": Change(
        lambda: Mount("/old", routes=[Route("/x", plain)]),
        lambda routes, at: move(routes[at], "/new/{path:path}"),
        ["GET /new/x"],
    ),
    "other methods": Change(
        lambda: Route("/x", plain),
        lambda routes, at: routes[at].methods.add("POST"),
        ["POST /x"],
    ),
    "other methods of FastAPI's": Change(
        lambda: APIRoute("/x", unmarked, methods=["GET"]),
        lambda routes, at: routes[at].methods.add("POST"),
        ["POST /x"],
    ),
    "another endpoint": Change(lambda: Route("/x", kept_open), lambda routes, at: turn(routes[at], plain), ["GET /x"]),
    "another endpoint of FastAPI's": Change(
        lambda: APIRoute("/x", kept_open), lambda routes, at: turn(routes[at], plain), ["GET /x"]
    ),
    "another endpoint that is forced off": Change(
        lambda: APIRoute("/x", plain), lambda routes, at: turn(routes[at], kept_open), ["GET /x"]
    ),
    "a handle of its own": Change(lambda: Route("/x", kept_open), lambda routes, at: handling(routes[at]), ["GET /x"]),
    "a handle of its own of FastAPI's": Change(
        lambda: APIRoute("/x", kept_open), lambda routes, at: handling(routes[at]), ["GET /x"]
    ),
    "a matches of its own": Change(
        lambda: Route("/x", plain), lambda routes, at: matching(routes[at]), ["GET /elsewhere", "GET /x"]
    ),
    "an equal one that matches more": Change(
        lambda: Route("/x", plain),
        lambda routes, at: routes.__setitem__(at, CaseInsensitive("/x", plain)),
        ["GET /X", "GET /x"],
    ),
    "an equal one that handles all": Change(
        lambda: Route("/x", plain, methods=["POST"]),
        lambda routes, at: routes.__setitem__(at, HandlesItself("/x", plain, methods=["POST"])),
        ["GET /x", "POST /x"],
    ),
    "an equal mount of another class": Change(
        lambda: Mount("/x", routes=[Route("/off", kept_open)]),
        lambda routes, at: routes.__setitem__(at, MountByHeader("/x", app=routes[at].app)),
        ["GET /x/nothing as 2", "GET /x/off as 2"],
    ),
    "an equal mount of an equal router": Change(
        lambda: Mount("/x", Router([Route("/off", kept_open)])),
        lambda routes, at: routes.__setitem__(at, Mount("/x", RoutesByHeader(routes[at].app.routes))),
        ["GET /x/nothing as 2", "GET /x/off as 2"],
    ),
    "a router of another class": Change(
        lambda: Mount("/x", Router([Route("/off", kept_open)])),
        lambda routes, at: setattr(routes[at].app, "__class__", RoutesByHeader),
        ["GET /x/nothing as 2", "GET /x/off as 2"],
    ),
    "a handler of a layer": Change(
        lambda: Mount("/x", ExceptionMiddleware(Router())),
        lambda routes, at: routes[at].app.add_exception_handler(404, serve),
        ["GET /x/nothing"],
    ),
}


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("where", ["mounted", "included"])
async def test_a_route_that_changes_after_the_first_look_is_seen_as_it_is(name: str, where: str) -> None:
    """Where the app itself sees it: FastAPI keeps a copy of what is in an included router."""
    change = CHANGES[name]
    before, after = [], []
    for state in (None, False, True):
        app, inner = FastAPI(), APIRouter()
        inner.routes.extend([Route("/first", plain), change.route()])
        if where == "included":
            app.include_router(inner, prefix="/in")
        else:
            app.router.routes.append(Mount("/in", inner))
        served = app if state is None else as_wrapped(app, MemoryBackend(state=state))
        wanted = [each.replace(" /", " /in/", 1) for each in change.asked] * 2
        before.append([await answered(served, each) for each in wanted])
        change.change(inner.routes, 1)
        after.append([await answered(served, each) for each in wanted])
    assert where == "included" or [status for status, _ in after[0]] == [200] * len(wanted)
    assert (before[1], after[1]) == (before[0], after[0])
    for (status, text), (closed, _) in zip(after[0], after[2], strict=True):
        if (status, text) == (200, KEPT_OPEN):
            assert closed in ((200, 503) if where == "included" else (200,))
        else:
            assert closed == (503 if status == 200 else status)


# --- one middleware in another's place --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["class", "function"])
async def test_the_routes_of_a_parent_say_nothing_of_an_app_that_nobody_can_see_into(kind: str) -> None:
    """Also where the parent has the very same middleware."""
    app = documented()
    exempt = path_prefix("/in")
    if kind == "class":
        inner: ASGIApp = MaintenanceModeMiddleware(served, backend=MemoryBackend(state=True))
        app.add_middleware(MaintenanceModeMiddleware, backend=MemoryBackend(state=True), exempt_callback=exempt)
    else:
        both = maintenance_middleware(backend=MemoryBackend(state=True), exempt=exempt)
        inner = both(served)
        app.add_middleware(both)
    app.mount("/in", inner)
    statuses = [await asked(app, each) for each in (*below("/in", [*ALL_OF_IT, "/nothing"]), "GET /off", "GET /items")]
    assert statuses == [503] * 6 + [200, 503]


@pytest.mark.parametrize("kind", [Gateway, hiding])
async def test_an_app_under_a_host_is_blocked_as_a_whole_if_it_is_opaque(kind: Callable[[ASGIApp], ASGIApp]) -> None:
    app = with_route(Host("testserver", kind(served)))
    statuses = []
    for state in (False, True):
        async with client(as_wrapped(app, MemoryBackend(state=state))) as http:
            statuses.append([(await http.get(path)).status_code for path in ("/off", "/nothing")])
    assert statuses == [[200, 200], [503, 503]]


async def test_the_routes_of_an_app_are_found_where_a_layer_of_its_own_hides_them() -> None:
    app = documented(middleware=[Middleware(hiding)])
    closed = as_added(app, MemoryBackend(state=True))
    statuses = [await asked(closed, f"GET {path}") for path in ALL_OF_IT]
    assert statuses == [200, 503, 503, 200, 200]
