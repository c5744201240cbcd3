"""Endpoints and routes that dispatch or handle requests by themselves answer all methods."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI, Request
from starlette.endpoints import HTTPEndpoint
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import PlainTextResponse
from starlette.routing import BaseRoute, Mount, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from fastapi_maintenance import (
    MemoryBackend,
    force_maintenance_mode_off,
    force_maintenance_mode_on,
    maintenance_middleware,
)
from tests.middleware.test_fuzz import HandlesItself
from tests.routing.apps import (
    MARKS,
    NESTED,
    WAYS_AROUND,
    NotNotFound,
    Resource,
    Rewriting,
    as_wrapped,
    as_wrapped_app,
    asked,
    itself,
    marked,
    mounted,
    off,
    on,
    plain,
    posting_routes,
    rewriting,
    unmarked,
)
from tests.routing.test_routes_property import HandlingRoute, HandlingRouter
from tests.support import client

pytestmark = MARKS


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


def with_a_handle_of_its_class() -> BaseRoute:
    return HandlesItself("/a", plain, methods=["POST"])


def with_a_handle_of_its_own() -> BaseRoute:
    route = Route("/a", plain, methods=["POST"])
    route.handle = HandlesItself("/a", plain).handle  # type: ignore[method-assign]  # what is tested
    return route


@pytest.mark.parametrize(
    "route", [with_middleware, with_an_app_in_its_place, with_a_handle_of_its_class, with_a_handle_of_its_own]
)
async def test_a_route_that_handles_requests_in_its_own_way_answers_all_methods(route: Callable[[], BaseRoute]) -> None:
    later = Route("/a", plain, methods=["PATCH"])
    async with client(as_wrapped_app(FastAPI(routes=[route(), later]))) as http:
        headers = {"X-HTTP-Method-Override": "POST"}
        assert [503, 503] == [(await http.request(each, "/a", headers=headers)).status_code for each in ("PUT", "POST")]


async def test_a_route_that_handles_requests_in_its_own_way_keeps_its_mark_only_if_it_is_forced_on() -> None:
    app = FastAPI(routes=[HandlesItself("/off", off, methods=["POST"]), HandlesItself("/on", on, methods=["POST"])])
    for maintenance, expected in ((True, [503, 503]), (False, [200, 503])):
        async with client(as_wrapped(app, MemoryBackend(state=maintenance))) as http:
            assert [(await http.put(path)).status_code for path in ("/off", "/on")] == expected


async def test_known_middleware_of_a_route_leaves_405_to_its_class() -> None:
    route = Route("/a", Resource, middleware=[Middleware(GZipMiddleware)])
    async with client(as_wrapped_app(FastAPI(routes=[route]))) as http:
        assert [200, 503, 405] == [(await http.request(each, "/a")).status_code for each in ("GET", "POST", "PUT")]


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
    router, app = HandlingRouter(), FastAPI()
    router.add_api_route("/x", unmarked, methods=["POST"])
    router.add_api_route("/off", marked, methods=["POST"])
    app.include_router(router, prefix="/a")
    async with client(as_wrapped(app, MemoryBackend(state=True))) as http:
        statuses = [(await http.get(path)).status_code for path in ("/a/x", "/a/off", "/a/nothing")]
    assert [503, 503, 404] == statuses


class Helped(HTTPEndpoint):
    """A class with functions that are no methods of HTTP, and marks on them."""

    @force_maintenance_mode_on
    async def get(self, request: Request) -> PlainTextResponse:
        return served(request)

    async def post(self, request: Request) -> PlainTextResponse:
        return served(request)

    @force_maintenance_mode_off
    async def put(self, request: Request) -> PlainTextResponse:
        return served(request)

    @force_maintenance_mode_on
    async def purge(self, request: Request) -> PlainTextResponse:
        return served(request)

    @force_maintenance_mode_on
    async def query(self, request: Request) -> PlainTextResponse:
        return served(request)


@pytest.mark.parametrize("arrange", [itself, mounted])
async def test_a_class_answers_the_methods_on_the_list_of_starlette_and_refuses_all_others(
    arrange: Callable[[ASGIApp], ASGIApp],
) -> None:
    """A server lets any word be the method, and `get` is another one than `GET` (RFC 9110 9.1)."""
    words = ["DISPATCH", "dispatch", "METHOD_NOT_ALLOWED", "__INIT__", "SCOPE", "get", "post", "put", "PURGE", "Get"]
    if await asked(FastAPI(routes=[Route("/a", Helped)]), "PURGE /a") != 405:
        words = []  # an older Starlette takes any function of the class
    statuses = {}
    for state in (None, False, True):
        app = arrange(FastAPI(routes=[Route("/a", Helped), Mount("/in", routes=[Route("/a", Helped)])]))
        app = app if state is None else maintenance_middleware(backend=MemoryBackend(state=state))(app)
        methods = [*words, "GET", "HEAD", "POST", "PUT", "QUERY", "DELETE"]
        statuses[state] = [await asked(app, f"{method} {path}") for method in methods for path in ("/a", "/in/a")]
    query = [503, 503] if statuses[None][-4:-2] == [200, 200] else [405, 405]  # which Starlette learned in 2026
    refused = [405, 405] * len(words)
    assert statuses[None][: len(refused)] == refused
    assert statuses[False] == [*refused, 503, 503, 503, 503, 200, 200, 200, 200, *query, 405, 405]
    assert statuses[True] == [*refused, 503, 503, 503, 503, 503, 503, 200, 200, *query, 405, 405]


async def test_a_router_that_serves_what_is_not_found_answers_and_is_closed() -> None:
    for where in (itself, mounted):
        async with client(as_wrapped_app(where(NotNotFound(posting_routes())))) as http:
            assert [503, 405] == [(await http.get(path)).status_code for path in ("/anything", "/items")]
