"""The index of routes is a shortcut: it never gives another answer than asking every route one after the other."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest
from fastapi import APIRouter
from fastapi.routing import APIRoute
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.endpoints import HTTPEndpoint
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import BaseRoute, Host, Match, Mount, Route, Router, WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from fastapi_maintenance import force_maintenance_mode_off, force_maintenance_mode_on
from fastapi_maintenance._routing.endpoints import UNANSWERED, Answer
from fastapi_maintenance._routing.finder import RouteFinder
from fastapi_maintenance._routing.routes import Candidate, RouteIndex, list_routes
from tests.support import websocket_scope

TEMPLATES = st.lists(
    st.sampled_from(["/a", "/b", "/{x}", "/{x:int}", "/{x:path}", "/v{x}", "/{x}.{y}", "/"]), min_size=1, max_size=3
).map("".join)


class Layer:
    """Middleware that nobody knows."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on."""


class CaseInsensitive(APIRoute):
    """A route whose pattern is not the one of its path."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **facts: Any) -> None:  # noqa: ANN401 -- of FastAPI
        super().__init__(path, endpoint, **facts)
        self.path_regex = re.compile(self.path_regex.pattern, re.IGNORECASE)


class OnlyPosts(APIRoute):
    """A route that matches in its own way."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Match whatever is posted."""
        return (Match.FULL, {"endpoint": self.endpoint}) if scope.get("method") == "POST" else (Match.NONE, {})


class Anything(BaseRoute):
    """A route whose path says nothing."""

    path = "/anything"

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Match whatever has an odd number of letters."""
        return (Match.FULL, {"endpoint": PlainTextResponse("")}) if len(scope["path"]) % 5 == 0 else (Match.NONE, {})


class Handling(Route):
    """A route that handles requests in its own way."""

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle nothing."""


class HandlingRoute(APIRoute):
    """The same of FastAPI."""

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle nothing."""


class HandlingMount(Mount):
    """The same of a mount."""

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle nothing."""


class HandlingRouter(APIRouter):
    """The same of a router."""

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle nothing."""


class Uncompiled(Mount):
    """A mount with a pattern of its own, whose path cannot be compiled."""

    def __init__(self, path: str, app: ASGIApp) -> None:
        super().__init__(path, app)
        self.path += "/{a}{a}"


class Dispatching(HTTPEndpoint):
    """A class that dispatches by method."""

    @force_maintenance_mode_off
    def get(self, request: Request) -> PlainTextResponse:
        """Answer."""
        return PlainTextResponse(request.method)


class DispatchingByItself(Dispatching):
    """A class that dispatches by itself."""

    async def dispatch(self) -> None:
        """Answer nothing."""


async def hidden(scope: Scope, receive: Receive, send: Send) -> None:
    """Show no routes."""


def endpoint_with(mark: bool | None) -> Callable[[], None]:
    """Return an endpoint with a mark, or without."""

    def endpoint() -> None: ...

    if mark is None:
        return endpoint
    return (force_maintenance_mode_on if mark else force_maintenance_mode_off)(endpoint)


ROUTES: dict[str, Callable[[str, Any, str], BaseRoute]] = {
    "plain": lambda path, endpoint, method: Route(path, endpoint, methods=[method]),
    "socket": lambda path, endpoint, _: WebSocketRoute(path, endpoint),
    "class": lambda path, endpoint, method: CaseInsensitive(path, endpoint, methods=[method]),
    "posts": lambda path, endpoint, _: OnlyPosts(path, endpoint, methods=["POST"]),
    "own": lambda _, __, ___: Anything(),
    "handling": lambda path, endpoint, method: Handling(path, endpoint, methods=[method]),
    "dispatching": lambda path, _, __: Route(path, Dispatching),
    "dispatching by itself": lambda path, _, __: Route(path, DispatchingByItself),
    "behind a layer": lambda path, _, __: Route(path, Dispatching, middleware=[Middleware(Layer)]),
}
NESTING: dict[str, Callable[[str, APIRouter], BaseRoute]] = {
    "mount": lambda path, inner: Mount(path, routes=inner.routes),
    "layered": lambda path, inner: Mount(path, inner, middleware=[Middleware(Layer)]),
    "known layer": lambda path, inner: Mount(path, inner, middleware=[Middleware(GZipMiddleware)]),
    "handling mount": HandlingMount,
    "uncompiled": Uncompiled,
    "host": lambda _, inner: Host("testserver", inner),
    "hidden": lambda path, inner: Mount(path, app=hidden, routes=inner.routes),
}


@st.composite
def routers(draw: st.DrawFn, depth: int = 2) -> APIRouter:
    """Generate routers with routes of all kinds, included and mounted in each other."""
    kind = draw(st.sampled_from([APIRouter, APIRouter, HandlingRouter]))
    classes = [APIRoute, APIRoute, APIRoute, CaseInsensitive, OnlyPosts, HandlingRoute]
    router: APIRouter = kind(route_class=draw(st.sampled_from(classes)))
    kinds = ["api", *ROUTES, *(["include", *NESTING] if depth else [])]
    for what in draw(st.lists(st.sampled_from(kinds), min_size=1, max_size=5)):
        add(router, what, draw, depth)
    return router


def add(router: APIRouter, what: str, draw: Callable[..., Any], depth: int = 0) -> None:
    """Add something to a router."""
    path = draw(TEMPLATES).replace("//", "/")
    path = re.sub(r"\{(\w)", lambda found: "{" + found[1] + str(found.start()) + f"d{depth}", path)
    endpoint: Any = endpoint_with(draw(st.sampled_from([None, True, False])))
    method = draw(st.sampled_from(["GET", "POST"]))
    if what == "api":
        router.add_api_route(path, endpoint, methods=[method])
    elif what == "include":
        router.include_router(draw(routers(depth - 1)), prefix=path.rstrip("/") or "/a")
    elif what in ROUTES:
        router.routes.append(ROUTES[what](path, endpoint, method))
    else:
        router.routes.append(NESTING[what](path, draw(routers(depth - 1))))


def http_scope(method: str, path: str) -> Scope:
    """Return the scope of a request."""
    return {**websocket_scope(path), "type": "http", "method": method, "headers": [(b"host", b"testserver")]}


@st.composite
def scopes_for(draw: st.DrawFn, router: APIRouter) -> Scope:
    """Generate requests that one of a router's routes may match, or nearly."""
    paths = ["/"]
    for route in router.routes:
        with contextlib.suppress(ValueError):  # of a path that FastAPI cannot compile where it is included
            paths += [each.path for each in list_routes([route])]
    template = draw(st.sampled_from(paths))
    path = re.sub(r"\{[^}]*\}", lambda _: draw(st.sampled_from(["a", "7", "b/a", "v1", "a.b"])), template)
    path = draw(st.sampled_from([path, path, path.upper(), path + "\n", path + "/", path + "/a", path[:-1]]))
    method = draw(st.sampled_from(["GET", "POST", "HEAD", None]))
    return websocket_scope(path) if method is None else http_scope(method, path)


def one_after_the_other(index: RouteIndex, _path: str) -> list[Candidate]:
    """Have every route asked."""
    return [Candidate(place, route, route) for place, route in enumerate(index.router.routes)]


def slow_answer(router: Router, scope: Scope) -> Answer:
    """Ask every route, at every depth."""
    with mock.patch.object(RouteIndex, "candidates", one_after_the_other):
        return RouteFinder(router).find(scope)[1]


@settings(max_examples=2 * settings().max_examples)
@given(router=routers(), data=st.data())
def test_the_index_gives_the_answer_that_all_routes_give(router: APIRouter, data: st.DataObject) -> None:
    finder = RouteFinder(router)

    def agree() -> None:
        scopes = data.draw(st.lists(scopes_for(router), min_size=5, max_size=20))
        found = [finder.find(scope)[1]._replace(path=None) for scope in scopes]
        assert found == [slow_answer(router, scope)._replace(path=None) for scope in scopes]

    agree()
    inner = [route.original_router for route in router.routes if hasattr(route, "original_router")]
    add(data.draw(st.sampled_from([router, *inner])), data.draw(st.sampled_from(["api", "own"])), data.draw)
    if data.draw(st.booleans(), "remove the first"):
        del router.routes[0]
    agree()


@pytest.mark.parametrize("kind", [APIRoute, CaseInsensitive, OnlyPosts])
@pytest.mark.parametrize("path", ["/a/b", "/a/{x}"])
@pytest.mark.parametrize("asked", ["/a/b", "/a/b\n", "/A/B", "/c"])
def test_a_route_is_asked_whatever_its_way_to_match(kind: type[APIRoute], path: str, asked: str) -> None:
    router = APIRouter(route_class=kind)
    router.add_api_route(path, endpoint_with(None), methods=["POST"])
    scope = http_scope("POST", asked)
    assert slow_answer(router, scope) == RouteFinder(router).find(scope)[1]


def test_a_route_that_is_added_late_to_an_inner_router_is_seen() -> None:
    router, outer, inner = APIRouter(), APIRouter(prefix="/outer"), APIRouter(prefix="/inner")
    inner.add_api_route("/early", endpoint_with(None))
    outer.include_router(inner)
    router.include_router(outer)
    finder, scope = RouteFinder(router), http_scope("GET", "/outer/inner/late")
    assert UNANSWERED == finder.find(scope)[1]
    inner.add_api_route("/late", endpoint_with(True))
    assert slow_answer(router, scope) == finder.find(scope)[1]


def test_few_of_many_routes_are_asked() -> None:
    router, outer = APIRouter(), APIRouter(prefix="/api")
    for number in range(100):
        inner = APIRouter(prefix=f"/things{number}")
        inner.add_api_route("/{thing}", endpoint_with(None))
        inner.add_api_route("/all", endpoint_with(None))
        outer.include_router(inner)
    router.include_router(outer)
    index = RouteIndex(router)
    assert ["/api/things7/{thing}", "/api/things7/all"] == [
        each.effective.path for each in index.candidates("/api/things7/all")
    ]
    assert ["/api/things7/{thing}"] == [each.effective.path for each in index.candidates("/api/things7/8")]
    assert [] == index.candidates("/nothing" * 1000)


def test_what_a_route_answers_is_remembered_until_somebody_marks_an_endpoint() -> None:
    router = APIRouter()
    router.add_api_route("/items", lambda: None)
    endpoint = router.routes[0].endpoint  # type: ignore[attr-defined]  # an APIRoute
    finder = RouteFinder(router)
    scope = {"type": "http", "method": "GET", "path": "/items", "headers": []}

    def found() -> Answer:
        return finder.find(scope)[1]

    assert found() is found()
    force_maintenance_mode_on(endpoint)
    assert found().mark is True
    assert found() is found()
