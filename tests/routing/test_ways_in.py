"""`_routing/finder.py`: a request is blocked if it is not certain what answers it, also after routes have changed."""

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
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.responses import PlainTextResponse
from starlette.routing import BaseRoute, Host, Match, Mount, Route, Router, compile_path
from starlette.types import ASGIApp, Scope

from fastapi_maintenance import force_maintenance_mode_off
from tests.middleware.test_fuzz import (
    AnyMethod,
    Gateway,
    HandlesByHeader,
    HandlesItself,
    MethodFromHeader,
    Moving,
    RoutesItself,
    TakesMethodFromHeader,
)
from tests.routing.apps import (
    MARKS,
    Case,
    Resource,
    Rewriting,
    answered,
    around,
    assert_decided,
    below,
    built,
    hiding,
    marked,
    off,
    on,
    plain,
    serve,
    served,
    unmarked,
)

pytestmark = MARKS


def off_on_and_plain() -> list[BaseRoute]:
    return [Route("/off", off), Route("/on", on), Route("/items", plain)]


def documented(*routes: BaseRoute, **settings: Any) -> FastAPI:  # noqa: ANN401 -- of FastAPI
    """Return an app with documentation, these routes, and an endpoint of each kind."""
    return FastAPI(routes=[*routes, *off_on_and_plain()], **settings)


def mounting(app: ASGIApp) -> FastAPI:
    """Return an app with another one mounted at `/in`."""
    return documented(Mount("/in", app))


# --- routes that match in their own way -------------------------------------------------------------------------------


class APIMethodFromHeader(TakesMethodFromHeader, APIRoute): ...


class MountWithMethodFromHeader(TakesMethodFromHeader, Mount): ...


class PartlyMethodFromHeader(MethodFromHeader):
    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        match, child = super().matches(scope)
        return (match if match is Match.NONE else Match.PARTIAL), child


class Changing(Route):
    """A route that passes its endpoint a changed request."""

    def __init__(self, path: str, endpoint: Any, changed: Scope) -> None:  # noqa: ANN401 -- of Starlette
        super().__init__(path, endpoint)
        self.methods = {"GET", "HEAD", "POST"}
        self.changed = changed

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        match, child = super().matches(scope)
        return match, {**child, **self.changed}


def changing(changed: Scope) -> Router:
    return Router([Changing(f"/{endpoint.__name__}", endpoint, changed) for endpoint in (off, on, plain)])


def api_app(kind: type[APIRoute], *, included: bool = False) -> FastAPI:
    """Return an app with a class of route, on the app or in an included router."""
    app, router = FastAPI(), APIRouter()
    app.router.route_class = router.route_class = kind
    where = router if included else app
    where.add_api_route("/get", unmarked, methods=["GET"])
    where.add_api_route("/post", unmarked, methods=["POST"])
    where.add_api_route("/off", marked, methods=["GET"])
    app.include_router(router)
    return app


def with_matches_of_its_own() -> FastAPI:
    """Return an app whose routes were given a `matches` each, as an instrumentation does."""

    def wrap(matches: Callable[[Scope], tuple[Match, Scope]], scope: Scope) -> tuple[Match, Scope]:
        match, child = matches(scope)
        return (match if match is Match.NONE else Match.FULL), child

    app = api_app(APIRoute)
    for route in app.routes[-3:]:
        route.matches = functools.partial(wrap, route.matches)  # type: ignore[method-assign]  # under test
    return app


LEFT = ["/nothing"]
ANY_METHOD = {"blocked": ["/get", "POST /post"], "passed": ["/off"], "left": LEFT, "before": ["POST /get", "/post"]}
FROM_HEADER = {"blocked": ["/post as POST", "POST /get as GET"], "passed": ["/off"], "left": LEFT}
MATCHING: dict[str, Case] = {
    "for all methods, included": Case(lambda: api_app(AnyMethod, included=True), **ANY_METHOD),
    "with a given matches": Case(with_matches_of_its_own, **ANY_METHOD),
    "with another method of a class": Case(
        lambda: documented(MethodFromHeader("/x", Resource)), ["/x as POST"], ["/x", "/off"], LEFT
    ),
    "with another method, of FastAPI": Case(lambda: api_app(APIMethodFromHeader), **FROM_HEADER),
    "with another method, of FastAPI, included": Case(
        lambda: api_app(APIMethodFromHeader, included=True), **FROM_HEADER
    ),
    "with another method, in part": Case(
        lambda: documented(PartlyMethodFromHeader("/x", plain, methods=["POST"])), ["/x as POST"], ["/off"], LEFT
    ),
    "mount with another method": Case(
        lambda: documented(MountWithMethodFromHeader("/in", routes=[Route("/x", Resource)])),
        ["/in/x as POST"],
        ["/off"],
        LEFT,
    ),
    "with another request for the next routes": Case(
        lambda: documented(Moving(), Route("/own/target", plain)), ["/own/start", "/own/target"], ["/off"], LEFT
    ),
    **{
        f"with changed {changed}": Case(
            functools.partial(changing, changed),
            **({"blocked": ["/plain"], "passed": ["/off"]} if is_certain else {"blocked": ["/plain", "/off"]}),
            left=LEFT,
            shut=["/on"],
        )
        for changed, is_certain in (
            ({"method": "POST"}, False),
            ({"path": "/other"}, False),
            ({"headers": []}, False),
            ({"query_string": b"a=b"}, False),
            ({"root_path": "/other"}, False),
            ({}, True),
            ({"tenant": "a"}, True),
        )
    },
}


@pytest.mark.parametrize("name", MATCHING)
async def test_request_to_a_route_that_may_change_it_is_blocked(name: str) -> None:
    await assert_decided(MATCHING[name])


# --- handlers of refusals ---------------------------------------------------------------------------------------------


@functools.wraps(http_exception_handler)
async def dressed(request: Request, _: Exception) -> PlainTextResponse:
    return await serve(request)


HANDLERS: Any = {404: serve, 405: serve}


def built_with_a_handler_that_is_removed() -> FastAPI:
    app = built(documented(exception_handlers=HANDLERS))
    app.exception_handlers.clear()
    return app


def handling(handlers: Any = HANDLERS) -> list[Middleware]:  # noqa: ANN401 -- of Starlette
    return [Middleware(ExceptionMiddleware, handlers=handlers)]


class Falsy(FastAPI):
    def __len__(self) -> int:
        return 0


def with_an_endpoint_that_resembles_the_docs() -> FastAPI:
    app = documented()
    original: Any = next(route for route in app.routes if getattr(route, "path", "") == "/docs")

    @functools.wraps(original.endpoint)
    async def endpoint(request: Request) -> PlainTextResponse:
        return await serve(request)

    app.router.routes.insert(0, Route("/docs", endpoint))
    return app


class DressedRoute(Route):
    handle = HandlesItself.handle


functools.update_wrapper(DressedRoute, Route, updated=())

BOTH_IN = ["/in/nothing", "POST /in/items"]
HANDLING: dict[str, Case] = {
    "resembling FastAPI's": Case(
        lambda: documented(exception_handlers={HTTPException: dressed}), ["/nothing", "POST /items"], ["/off"]
    ),
    "of a status, resembling FastAPI's": Case(
        lambda: documented(exception_handlers={404: dressed}), ["/nothing"], ["/off"]
    ),
    "of a mounted app": Case(
        lambda: mounting(documented(exception_handlers={404: dressed})), ["/in/nothing"], ["/off"], LEFT
    ),
    "removed after the app was built": Case(
        built_with_a_handler_that_is_removed, ["/nothing", "POST /items"], ["/off"]
    ),
    "in a layer of a mount": Case(
        lambda: documented(Mount("/in", routes=off_on_and_plain(), middleware=handling())),
        BOTH_IN,
        ["/in/off"],
        ["/in/items/", "/nothing"],
        ["/in/on"],
    ),
    "in a mounted layer": Case(
        lambda: mounting(ExceptionMiddleware(Router(off_on_and_plain()), handlers=HANDLERS)),
        BOTH_IN,
        left=["/nothing", "POST /items"],
    ),
    "in a layer of a mounted router": Case(
        lambda: mounting(Router(off_on_and_plain(), middleware=handling())),
        BOTH_IN,
        ["/in/off"],
        ["/in/items/", "/nothing"],
    ),
    "in a layer of a route": Case(
        lambda: documented(Route("/x", Resource, middleware=handling())),
        ["PUT /x", "POST /x"],
        ["/x"],
        ["PUT /nothing"],
    ),
    "in a layer, of other exceptions or none": Case(
        lambda: documented(
            Mount("/in", routes=off_on_and_plain(), middleware=[Middleware(ExceptionMiddleware)]),
            Mount("/other", routes=off_on_and_plain(), middleware=handling({ValueError: serve})),
        ),
        ["/in/items"],
        ["/in/off"],
        ["/in/nothing", "POST /in/items", "/other/nothing", "POST /other/items"],
    ),
    "of FastAPI itself": Case(
        lambda: documented(exception_handlers={HTTPException: http_exception_handler, 404: http_exception_handler}),
        ["/items"],
        ["/docs"],
        ["/nothing", "POST /items", "/items/"],
    ),
    "behind a decorator of Starlette": Case(
        lambda: documented(exception_handlers={404: requires([])(serve)}), ["/nothing"], ["/off"], ["POST /items"]
    ),
    "of an app that is false": Case(
        lambda: mounting(Falsy(routes=off_on_and_plain(), exception_handlers=HANDLERS)), BOTH_IN, ["/in/off"], LEFT
    ),
    "a route that resembles Starlette's": Case(
        lambda: documented(DressedRoute("/x", plain, methods=["POST"])), ["/x", "POST /x"], ["/off"], LEFT
    ),
    "an endpoint that resembles the docs": Case(with_an_endpoint_that_resembles_the_docs, ["/docs"], ["/redoc"], LEFT),
}


@pytest.mark.parametrize("name", HANDLING)
async def test_request_that_a_handler_of_the_user_may_answer_is_blocked(name: str) -> None:
    await assert_decided(HANDLING[name])


# --- what decides by itself what answers ------------------------------------------------------------------------------


class RoutesByProperty(APIRouter):
    @property
    def routes(self) -> Any:  # noqa: ANN401 -- under test
        return off_on_and_plain()

    @routes.setter
    def routes(self, value: object) -> None: ...


class OwnStack(FastAPI):
    def build_middleware_stack(self) -> ASGIApp:
        return served


def with_router(kind: type[Router]) -> FastAPI:
    """Return an app whose router was replaced, as Cadwyn does."""
    app = documented()
    app.router = kind(routes=app.routes)  # type: ignore[assignment]  # a plain router is enough
    return app


class Listing(Gateway):
    """A gateway that lists routes which it does not use."""

    @property
    def routes(self) -> list[BaseRoute]:
        return off_on_and_plain()


def with_a_gateway(wrap: Callable[[ASGIApp], ASGIApp]) -> FastAPI:
    app = documented()
    app.mount("/in", wrap(app))
    return app


def with_its_own_router() -> FastAPI:
    app = documented()
    app.mount("/again", app.router)
    return app


EVERYTHING = ["/off", "/items", "/docs", "/openapi.json", "/on", "/nothing"]
DECIDING: dict[str, Case] = {
    "router": Case(lambda: with_router(RoutesItself), ["/7", "/off", "/items", "/docs"], shut=["/on"]),
    "computed routes": Case(lambda: with_router(RoutesByProperty), ["/off", "/items"], shut=["/on"]),
    "stack of a class of app": Case(
        lambda: built(OwnStack(routes=off_on_and_plain())), ["/off", "/docs", "/nothing"], shut=["/on"]
    ),
    "the app's own router, mounted in it": Case(
        with_its_own_router, ["/again/items"], ["/again/off"], ["/again/nothing"], ["/again/on"]
    ),
    "mount": Case(
        lambda: documented(HandlesByHeader("/in", documented())),
        ["/in/off as 2", "/in/docs as 2", "/in/off", "/in/docs"],
        ["/off"],
        LEFT,
        ["/in/on"],
    ),
    "mounted unknown layer": Case(
        lambda: mounting(Rewriting(documented())),
        below("/in", "/off", "/items", "/docs", "/openapi.json"),
        ["/off"],
        LEFT,
        ["/in/on"],
    ),
    "middleware of a mount that hides its app, which decides nothing": Case(
        lambda: documented(Mount("/in", routes=off_on_and_plain(), middleware=[Middleware(hiding)])),
        ["/in/items"],
        ["/in/off"],
        LEFT,
        ["/in/on"],
        ["/in/nothing"],
    ),
    "gateway to its parent": Case(
        lambda: with_a_gateway(Gateway), below("/in", *EVERYTHING, "/in/off"), ["/off"], LEFT
    ),
    "gateway to its parent behind a known layer": Case(
        lambda: with_a_gateway(lambda app: CORSMiddleware(Gateway(app), allow_origins=["*"])),
        below("/in", *EVERYTHING),
        ["/off"],
        LEFT,
    ),
    "gateway that lists routes": Case(lambda: mounting(Listing(served)), below("/in", *EVERYTHING), ["/off"], LEFT),
    "gateway under a host": Case(lambda: documented(Host("testserver", Gateway(served))), ["/off", "/nothing"]),
    "hidden app under a host": Case(lambda: documented(Host("testserver", hiding(served))), ["/off", "/nothing"]),
}


@pytest.mark.parametrize("name", DECIDING)
async def test_request_to_an_app_that_decides_by_itself_is_blocked(name: str) -> None:
    await assert_decided(DECIDING[name])


# --- what changes between two requests --------------------------------------------------------------------------------


KEPT_OPEN = "kept open"


@force_maintenance_mode_off
async def kept_open(_: Request) -> PlainTextResponse:
    """Answer with another text than all others here."""
    return PlainTextResponse(KEPT_OPEN)


def move(route: Any, path: str) -> None:  # noqa: ANN401 -- a mount
    """Give a mount another path, as Starlette would."""
    route.path = path
    route.path_regex, route.path_format, route.param_convertors = compile_path(path)


class Change(NamedTuple):
    """A mount, what is done to it after the first requests, and what is requested. A new one replaces it."""

    route: Callable[[], BaseRoute]
    change: Callable[[Any], BaseRoute | None]
    requests: list[str]


def mount_at_x(kind: type[Router] = Router) -> Mount:
    return Mount("/x", kind([Route("/off7", kept_open)]))


CHANGES = {
    "path": Change(
        lambda: Mount("/old", routes=[Route("/x", plain)]), lambda route: move(route, "/new/{path:path}"), ["/new/x"]
    ),
    "an equal one of another class": Change(
        mount_at_x, lambda route: HandlesByHeader("/x", app=route.app), ["/x/nothing as 2", "/x/off7 as 2"]
    ),
    "an equal one of another router": Change(mount_at_x, lambda _: mount_at_x(RoutesItself), ["/x/7", "/x/off7"]),
    "class of a router": Change(
        mount_at_x, lambda route: setattr(route.app, "__class__", RoutesItself), ["/x/7", "/x/off7"]
    ),
    "handler of a layer": Change(
        lambda: Mount("/x", ExceptionMiddleware(Router())),
        lambda route: route.app.add_exception_handler(404, serve),
        ["/x/nothing"],
    ),
}


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("where", ["mounted", "included"])
async def test_request_to_a_mount_that_has_changed_is_decided_by_what_it_is_now(name: str, where: str) -> None:
    """As the app itself sees it, which keeps a copy of an included router; test_fuzz.py changes routes."""
    make, change, requests = CHANGES[name]
    wanted = [re.sub(r"^(\w+ )?/", r"\1/in/", each) for each in requests] * 2
    before, after = [], []
    for state in (None, False, True):
        app, inner = FastAPI(), APIRouter()
        inner.routes.extend([Route("/first", plain), make()])
        if where == "included":
            app.include_router(inner, prefix="/in")
        else:
            app.router.routes.append(Mount("/in", inner))
        maintained = around(app, state)
        before.append([await answered(maintained, each) for each in wanted])
        new = change(inner.routes[1])
        inner.routes[1] = new if isinstance(new, BaseRoute) else inner.routes[1]
        after.append([await answered(maintained, each) for each in wanted])
    assert where == "included" or [status for status, _ in after[0]] == [200] * len(wanted)
    assert (before[1], after[1]) == (before[0], after[0])
    for (status, text), (closed, _) in zip(after[0], after[2], strict=True):
        if (status, text) == (200, KEPT_OPEN):
            assert closed in ((200, 503) if where == "included" else (200,))
        else:
            assert closed == (503 if status == 200 else status)
