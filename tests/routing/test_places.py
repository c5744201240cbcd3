"""The endpoint that answers is found wherever it lives, as the app itself finds it."""

from __future__ import annotations

from collections.abc import Callable

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
)
from fastapi_maintenance._routing import finder, routes
from tests.routing.apps import (
    EXPECTED,
    HTTP,
    MARKS,
    NESTED,
    SOCKETS,
    TRIED,
    Resource,
    Rewriting,
    as_added,
    as_wrapped,
    asked,
    fill,
    hiding,
    in_an_included_router,
    in_routers_three_deep,
    on_the_app,
    starlette_routes,
)
from tests.support import client, handshake, websocket_scope

pytestmark = MARKS


def in_a_router_that_is_included_twice() -> FastAPI:
    router, app = fill(APIRouter()), FastAPI()
    app.include_router(router, prefix="/a")
    app.include_router(router, prefix="/b")
    return app


def in_a_mounted_fastapi() -> FastAPI:
    app = FastAPI()
    app.mount("/a", in_an_included_router())
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


HIDDEN = {
    behind_middleware_of_a_mount_that_hides_the_app,
    behind_middleware_of_a_mount_in_an_included_router,
    behind_other_middleware_that_hides_the_app,
}


def expected_at(place: Callable[[], FastAPI], maintenance: bool) -> list[int]:
    """Return what is expected there: what a layer that nobody knows hides is never left to the app."""
    return [503, 200, 503, 503] if maintenance and place in HIDDEN else EXPECTED[maintenance]


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


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.__name__)
@pytest.mark.parametrize("maintenance", [True, False])
async def test_the_mark_of_the_endpoint_is_found(place: Callable[[], FastAPI], maintenance: bool) -> None:
    for arrange in (as_added, as_wrapped):
        app = arrange(place(), MemoryBackend(state=maintenance))
        assert await http_statuses(app, PLACES[place]) == expected_at(place, maintenance)
        assert await socket_verdicts(app, PLACES[place]) == expected_at(place, maintenance)


async def test_the_mark_is_found_behind_the_class_as_behind_the_factory() -> None:
    for place in (in_routers_three_deep, behind_other_middleware_that_hides_the_app):
        app = place()
        app.add_middleware(MaintenanceModeMiddleware, backend=MemoryBackend(state=True))
        assert await http_statuses(app, PLACES[place]) == expected_at(place, maintenance=True)


class Delegating:
    """An endpoint that is an app, and hands its requests on to another."""

    def __init__(self, app: ASGIApp) -> None:
        self.inner = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.inner(scope, receive, send)


def maintained(state: bool, *around: Middleware, inside: tuple[Middleware, ...] = ()) -> list[Middleware]:
    """Return layers with the class variant among them."""
    return [*around, Middleware(MaintenanceModeMiddleware, backend=MemoryBackend(state=state)), *inside]


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
async def test_around_one_route_the_mark_of_that_very_route_is_found(layers: str, prefix: str) -> None:
    verdicts = {}
    for state in (False, True):
        routes: list[BaseRoute] = [
            *(Route(path, endpoint, middleware=AROUND_ONE[layers](state)) for path, endpoint in HTTP.items()),
            *(
                WebSocketRoute(path, endpoint, middleware=AROUND_ONE[layers](state))
                for path, endpoint in SOCKETS.items()
            ),
            Route("/class", Resource, middleware=AROUND_ONE[layers](state)),
        ]
        outer = FastAPI(routes=[Mount("/in", routes=routes), Mount("/starlette", Starlette(routes=routes)), *routes])
        asked_for = [*((f"GET {prefix}{path}") for path in ("/plain", "/off", "/on", "/class")), f"POST {prefix}/class"]
        verdicts[state] = [await asked(outer, each) for each in asked_for], await socket_verdicts(outer, prefix)
    assert verdicts == {
        False: ([200, 200, 503, 200, 200], [200, 200, 503, 404]),
        True: ([503, 200, 503, 200, 503], [503, 200, 503, 404]),
    }


async def test_inside_of_a_marked_endpoint_or_app_its_mark_counts() -> None:
    inner = MaintenanceModeMiddleware(hiding(on_the_app()), backend=MemoryBackend(state=True))
    routes = [Route("/off", force_maintenance_mode_off(Delegating(inner))), Route("/plain", Delegating(inner))]
    app = FastAPI(routes=[*routes, Mount("/in", force_maintenance_mode_off(Delegating(inner)))])
    assert [await asked(app, f"GET {path}") for path in ("/off", "/plain", "/in/off")] == [200, 503, 200]


@pytest.fixture
def _without_the_private_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """FastAPI has its private class no longer."""
    if not NESTED:
        pytest.skip("included routers are flat in this FastAPI")
    if not hasattr(fastapi.routing, "iter_route_contexts"):
        pytest.skip("FastAPI 0.137.0 and 0.137.1 have no public way")
    for module in (finder, routes):
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
    [context] = fastapi.routing.iter_route_contexts(FastAPI(openapi_url=None, routes=[Route("/", print)]).routes)
    assert context._effective_route is context.route
    if hasattr(FastAPI, "frontend"):
        assert callable(APIRouter()._match_low_priority)
