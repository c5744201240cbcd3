"""`_routing/finder.py`: the endpoint that will answer is found wherever it is, around, inside and below any app."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import fastapi.routing
import pytest
from fastapi import APIRouter, FastAPI
from fastapi.middleware.cors import CORSMiddleware
from fastapi.routing import APIRoute
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.routing import BaseRoute, Host, Mount, Route, Router, WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from fastapi_maintenance import (
    MaintenanceModeMiddleware,
    MemoryBackend,
    force_maintenance_mode_off,
    maintenance_middleware,
    not_,
    path_prefix,
)
from fastapi_maintenance._routing import finder, routes
from tests.routing.apps import (
    HTTP,
    MARKS,
    NESTED,
    SOCKETS,
    Case,
    Resource,
    Rewriting,
    added,
    around,
    assert_decided,
    below,
    fill,
    hiding,
    in_an_included_router,
    in_routers_three_deep,
    plain,
    served,
    starlette_routes,
    statuses,
    unmarked,
)
from tests.support import client

pytestmark = MARKS


def including(*prefixes: str, route_class: type[APIRoute] = APIRoute, **settings: Any) -> FastAPI:  # noqa: ANN401 -- of FastAPI
    """Return an app that includes a router with all endpoints under each prefix."""
    app, router = FastAPI(**settings), fill(APIRouter(route_class=route_class))
    for prefix in prefixes:
        app.include_router(router, prefix=prefix)
    return app


def mounting(app: ASGIApp, path: str = "/a") -> FastAPI:
    outer = FastAPI()
    outer.mount(path, app)
    return outer


def with_routes_of_a_router(*, include_at: str = "/a", add: Callable[[APIRouter], object]) -> FastAPI:
    router, app = APIRouter(), FastAPI()
    add(router)
    app.include_router(router, prefix=include_at)
    return app


def with_layer(app: FastAPI, layer: Any) -> FastAPI:  # noqa: ANN401 -- of any kind
    app.add_middleware(layer)
    return app


class OwnRoute(APIRoute):
    """A route with no rule of its own."""


HIDDEN_MOUNT = [Middleware(hiding)]
PLACES: dict[str, tuple[str, Callable[[], FastAPI]]] = {
    "on the app": ("", lambda: fill(FastAPI())),
    "in an included router": ("/b/a", in_an_included_router),
    "in routers three deep": ("/d/c/b/a", in_routers_three_deep),
    "in a router included twice": ("/b", lambda: including("/a", "/b")),
    "in a mounted FastAPI": ("/a/b/a", lambda: mounting(in_an_included_router())),
    "in the routes of a mount": (
        "/a/b",
        lambda: FastAPI(routes=[Mount("/a", routes=[Mount("/b", routes=starlette_routes())])]),
    ),
    "behind known middleware of a mount": (
        "/a",
        lambda: mounting(CORSMiddleware(fill(FastAPI()), allow_origins=["*"])),
    ),
    "under a host": ("", lambda: FastAPI(routes=[Host("elsewhere", Router()), Host("testserver", fill(FastAPI()))])),
    "in an app with a root path": ("/a", lambda: including("/a", root_path="/behind/proxy")),
    "in a mounted app with a root path": ("/a", lambda: mounting(fill(FastAPI(root_path="/a")))),
    "in a class of route": ("/a", lambda: including("/a", route_class=OwnRoute)),
    "in a mount in an included router": (
        "/a/b",
        lambda: with_routes_of_a_router(add=lambda router: router.mount("/b", fill(FastAPI()))),
    ),
    "under a host in an included router": (
        "",
        lambda: with_routes_of_a_router(include_at="", add=lambda router: router.host("testserver", fill(FastAPI()))),
    ),
    # Nothing is left to the app behind a layer that hides it.
    "hidden by the middleware of a mount": (
        "/a",
        lambda: FastAPI(routes=[Mount("/a", routes=starlette_routes(), middleware=HIDDEN_MOUNT)]),
    ),
    "hidden by the middleware of a mount in an included router": (
        "/a/b",
        lambda: with_routes_of_a_router(
            add=lambda router: router.routes.append(Mount("/b", routes=starlette_routes(), middleware=HIDDEN_MOUNT))
        ),
    ),
    "hidden by other middleware": ("/b/a", lambda: with_layer(in_an_included_router(), hiding)),
}
if not NESTED:  # FastAPI with flat routers includes neither mounts nor hosts
    PLACES = {name: place for name, place in PLACES.items() if not name.endswith("in an included router")} | {
        "in an included router": PLACES["in an included router"]
    }


def all_at(prefix: str, path: str) -> list[str]:
    """Return a request and a handshake to an endpoint at a prefix."""
    return [f"{prefix}{path}", f"WS {prefix}/ws{path}"]


def case_at(name: str, make: Callable[[], ASGIApp] | None = None) -> Case:
    prefix, app = PLACES[name]
    nothing = all_at(prefix, "/nothing")
    return Case(
        make or app,
        blocked=all_at(prefix, "/plain"),
        passed=all_at(prefix, "/off"),
        shut=all_at(prefix, "/on"),
        **{"doubtful" if name.startswith("hidden") else "left": nothing},
    )


@pytest.mark.parametrize("name", PLACES)
async def test_finder_endpoint_at_any_place_has_its_mark_found(name: str) -> None:
    case = case_at(name)
    await assert_decided(case)
    requests = [*case.blocked, *case.passed, *case.shut, *case.left, *case.doubtful]
    for state in (False, True):
        assert await statuses(added(case.app(), state), *requests) == await statuses(
            around(case.app(), state), *requests
        )


@pytest.fixture
def _without_private_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the private class of included routers away, as a later FastAPI may."""
    if not NESTED:
        pytest.skip("included routers are flat in this FastAPI")
    if not hasattr(fastapi.routing, "iter_route_contexts"):
        pytest.skip("FastAPI 0.137.0 and 0.137.1 have no public way")
    for module in (finder, routes):
        monkeypatch.setattr(module, "IncludedRouter", ())


@pytest.mark.usefixtures("_without_private_names")
@pytest.mark.parametrize("name", PLACES)
async def test_finder_without_the_private_names_of_fastapi_finds_the_mark(name: str) -> None:
    case = case_at(name)
    await assert_decided(case)
    if name == "in a mount in an included router":
        assert await statuses(around(case.app()), "/a/b/docs") == [200]


@pytest.mark.skipif(not NESTED, reason="included routers are flat in this FastAPI")
def test_finder_private_names_of_fastapi_exist() -> None:
    included = fastapi.routing._IncludedRouter
    assert callable(included._match)
    if hasattr(FastAPI, "frontend"):
        assert callable(APIRouter()._match_low_priority)


# Around one route


def maintained(state: bool, *outside: Middleware, inside: tuple[Middleware, ...] = ()) -> list[Middleware]:
    """Return layers with the class of the middleware among them."""
    return [*outside, Middleware(MaintenanceModeMiddleware, backend=MemoryBackend(state=state)), *inside]


ENDPOINTS: dict[str, Any] = {**HTTP, "/class": Resource}
GZIP, UNKNOWN = Middleware(GZipMiddleware), Middleware(Rewriting)
AROUND_ONE: dict[str, Callable[[bool], list[Middleware]]] = {
    "alone": maintained,
    "behind known": lambda state: maintained(state, GZIP),
    "behind unknown": lambda state: maintained(state, UNKNOWN),
    "before known": lambda state: maintained(state, inside=(GZIP,)),
    "before unknown": lambda state: maintained(state, inside=(UNKNOWN,)),
    "twice": lambda state: [*maintained(False), *maintained(state)],
    "by the factory": lambda state: [Middleware(maintenance_middleware(backend=MemoryBackend(state=state)))],
}


@pytest.mark.parametrize("layers", AROUND_ONE)
@pytest.mark.parametrize("prefix", ["", "/in", "/starlette"])
async def test_finder_around_one_route_finds_the_mark_of_that_route(layers: str, prefix: str) -> None:
    found = {}
    for state in (False, True):
        make = AROUND_ONE[layers]
        inner: list[BaseRoute] = [
            *(Route(path, endpoint, middleware=make(state)) for path, endpoint in ENDPOINTS.items()),
            *(WebSocketRoute(path, endpoint, middleware=make(state)) for path, endpoint in SOCKETS.items()),
        ]
        outer = FastAPI(routes=[Mount("/in", routes=inner), Mount("/starlette", Starlette(routes=inner)), *inner])
        requests = below(prefix, "/plain", "/off", "/on", "/class")
        requests += [f"POST {prefix}/class", *(f"WS {prefix}/ws{path}" for path in ("/plain", "/off", "/on"))]
        found[state] = await statuses(outer, *requests)
    assert found == {False: [200, 200, 503, 200, 200, 200, 200, 503], True: [503, 200, 503, 200, 503, 503, 200, 503]}


class Delegating:
    """An endpoint that is an app, and passes its requests on to another."""

    def __init__(self, app: ASGIApp) -> None:
        self.inner = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.inner(scope, receive, send)


async def test_finder_inside_a_marked_endpoint_or_app_uses_its_mark() -> None:
    inner = MaintenanceModeMiddleware(hiding(fill(FastAPI())), backend=MemoryBackend(state=True))
    inner_routes = [Route("/off", force_maintenance_mode_off(Delegating(inner))), Route("/plain", Delegating(inner))]
    app = FastAPI(routes=[*inner_routes, Mount("/in", force_maintenance_mode_off(Delegating(inner)))])
    assert await statuses(app, "/off", "/plain", "/in/off") == [200, 503, 200]


# Other arrangements


TRIED = ("/plain", "/off", "/on", "/nothing")


@pytest.mark.parametrize(
    "make", [lambda routes: Starlette(routes=routes), Router, lambda routes: Mount("", routes=routes)]
)
async def test_finder_around_an_app_that_is_not_fastapi_sees_its_routes(make: Any) -> None:  # noqa: ANN401 -- an app of a kind
    assert await statuses(around(make(starlette_routes())), *TRIED) == [503, 200, 503, 404]


async def test_finder_root_path_of_the_server_is_taken_off() -> None:
    async with client(added(in_an_included_router()), root_path="/behind/proxy") as http:
        found = [(await http.get(f"/behind/proxy{path}")).status_code for path in [*below("/b/a", *TRIED), "/docs"]]
    assert found == [503, 200, 503, 404, 200]


async def test_finder_root_path_of_a_hidden_app_may_precede_a_path() -> None:
    app = FastAPI(root_path="/api", routes=[Route("/billing", plain), Route("/items", plain)])
    outside = maintenance_middleware(backend=MemoryBackend(state=True), exempt=not_(path_prefix("/billing")))
    found = await statuses(outside(hiding(app)), "/api/billing", "/billing", "/api/items", "/items")
    assert found == [503, 503, 200, 200]


@pytest.mark.parametrize(("path", "expected"), [("/a/x", [404, 404]), ("/a/a/x", [200, 503])])
async def test_finder_root_path_of_a_mounted_app_is_read_as_the_app_reads_it(path: str, expected: list[int]) -> None:
    inner = FastAPI(root_path="/elsewhere", routes=[Route("/a/a/x", plain), Route("/x", plain)])
    app = mounting(inner)
    assert [(await statuses(around(app, state), path))[0] for state in (False, True)] == expected


async def test_finder_inside_a_mounted_app_finds_its_routes_also_with_another_middleware_around() -> None:
    outer = mounting(added(in_an_included_router()), "/in")
    outer.add_api_route("/outside", unmarked)
    for app in (outer, around(outer, state=False)):
        assert await statuses(app, *below("/in/b/a", *TRIED), "/outside") == [503, 200, 503, 404, 200]


async def test_finder_middleware_that_wraps_itself_is_not_followed_forever() -> None:
    class Circle:
        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            await served(scope, receive, send)

    circle = Circle()
    circle.app = circle  # type: ignore[attr-defined]  # the mistake under test
    assert await statuses(around(circle), "/") == [503]


async def test_finder_leaves_the_scope_of_a_request_alone() -> None:
    """Neither the app nor a layer outside sees what was put there to find a route; telemetry sees a blocked one's."""
    seen: list[Scope] = []

    def recording(app: ASGIApp, state: bool | None) -> ASGIApp:
        inner = around(app, state)

        async def record(scope: Scope, receive: Receive, send: Send) -> None:
            scope.setdefault("fastapi", {"noted": True})
            seen.append({**scope, "fastapi": {**scope["fastapi"]}})
            await inner(scope, receive, send)
            seen.append(scope)

        record.app = inner  # type: ignore[attr-defined]  # as classes of middleware have it
        return record

    path, put = "/d/c/b/a/plain", {"route", "endpoint", "path_params"}
    await statuses(recording(recording(in_routers_three_deep(), None), state=False), path)
    assert [(set(scope) & put, scope["fastapi"]) for scope in seen[:2]] == [(set(), {"noted": True})] * 2
    assert await statuses(recording(in_routers_three_deep(), state=True), path) == [503]
    assert (set(seen[-1]) & put, seen[-1]["fastapi"]) == (put, {"noted": True})
