"""`_routing/left_to_app.py`, `_routing/documentation.py`: refusals, redirects, preflights and documentation stay."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
from fastapi import APIRouter, FastAPI
from fastapi.exception_handlers import http_exception_handler
from fastapi.middleware.cors import CORSMiddleware
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import PlainTextResponse
from starlette.routing import BaseRoute, Match, Mount, Route, Router, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Scope

from fastapi_maintenance import MemoryBackend, maintenance_middleware
from tests.middleware.test_fuzz import HandlesItself
from tests.routing.apps import (
    MARKS,
    PREFLIGHT,
    Anything,
    Case,
    NotNotFound,
    Rewriting,
    added,
    around,
    assert_decided,
    below,
    built,
    fill,
    itself,
    mounted,
    on,
    plain,
    plain_socket,
    posting_routes,
    rewriting,
    serve,
    served,
    starlette_routes,
    statuses,
    unmarked,
)
from tests.support import client

pytestmark = MARKS
CORS, UNKNOWN = Middleware(CORSMiddleware, allow_origins=["*"]), Middleware(Rewriting)


@pytest.mark.parametrize(("unmatched", "expected"), [("pass", [404, 405, 307, 307, 405]), ("block", [503] * 5)])
async def test_request_that_no_route_answers_is_left_to_the_app_or_blocked_by_unmatched(
    unmatched: Literal["pass", "block"], expected: list[int], tmp_path: Path
) -> None:
    (tmp_path / "page.html").write_text("a page", encoding="utf-8")
    app = fill(FastAPI())
    app.mount("/static", StaticFiles(directory=tmp_path))
    app.add_api_route("/slash/", unmarked)
    closed = maintenance_middleware(backend=MemoryBackend(state=True), unmatched=unmatched)(app)
    found = await statuses(closed, "/nothing", "POST /plain", "/slash", "/plain/", "OPTIONS /plain")
    assert found == expected
    assert await statuses(closed, "/static/page.html", "/static/nothing.html") == [503, 503]


# Preflights


async def test_preflight_that_no_layer_answers_is_blocked_where_a_route_or_app_may_answer_it() -> None:
    """Anybody can send a request with two more headers."""
    app = FastAPI(routes=[Mount("/in", PlainTextResponse("open")), Route("/any", plain, methods=["OPTIONS"])])
    assert await statuses(around(app), "PREFLIGHT /in/x", "PREFLIGHT /any", "PREFLIGHT /nothing") == [503, 503, 404]


@pytest.mark.parametrize("is_cors_outside", [True, False])
async def test_preflight_is_left_to_cors_and_a_request_that_only_resembles_one_is_blocked(
    is_cors_outside: bool,
) -> None:
    """Fetch 4.8: an OPTIONS request with its origin and the method that it announces."""
    app = FastAPI()
    app.api_route("/any", methods=["GET", "POST", "OPTIONS"])(unmarked)
    app.get("/plain")(plain)
    maintenance = Middleware(maintenance_middleware(backend=MemoryBackend(state=True)))
    app.user_middleware = [CORS, maintenance] if is_cors_outside else [maintenance, CORS]
    origin, method = ({name: value} for name, value in PREFLIGHT.items())
    async with client(app) as http:
        for headers in (PREFLIGHT, PREFLIGHT | {"X-Other": "1"}):
            found = [(await http.options(path, headers=headers)).status_code for path in ("/any", "/plain", "/none")]
            assert found == [200, 200, 200]
        found = [(await http.options("/any", headers=headers)).status_code for headers in ({}, origin, method)]
        found += [(await http.request(verb, "/any", headers=PREFLIGHT)).status_code for verb in ("GET", "POST")]
        assert found == [503] * 5


def layered(routes: list[BaseRoute], layers: list[Middleware]) -> ASGIApp:
    app: ASGIApp = Router(routes)
    for kind, args, kwargs in reversed(layers):
        app = kind(app, *args, **kwargs)
    return app


WHERE: dict[str, Callable[[list[BaseRoute], list[Middleware]], Any]] = {
    "app": lambda routes, layers: FastAPI(routes=routes, middleware=layers),
    "built app": lambda routes, layers: built(FastAPI(routes=routes, middleware=layers)),
    "mount": lambda routes, layers: FastAPI(routes=[Mount("", routes=routes, middleware=layers)]),
    "mounted app": lambda routes, layers: mounted(FastAPI(routes=routes, middleware=layers)),
    "mounted, built app": lambda routes, layers: mounted(built(FastAPI(routes=routes, middleware=layers))),
    "mounted router": lambda routes, layers: mounted(Router(routes, middleware=layers)),
    "mounted layers": lambda routes, layers: mounted(layered(routes, layers)),
}


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ([CORS], 200),
        ([CORS, UNKNOWN], 200),
        ([CORS, Middleware(rewriting)], 200),
        ([Middleware(GZipMiddleware), CORS, UNKNOWN], 200),
        ([CORS, UNKNOWN, CORS], 200),
        ([UNKNOWN, CORS], 503),
        ([Middleware(rewriting), CORS], 503),
        ([UNKNOWN], 503),
    ],
)
async def test_preflight_is_left_to_cors_unless_a_layer_before_it_may_refuse(
    layers: list[Middleware], expected: int, where: str
) -> None:
    routes: list[BaseRoute] = [
        Route("/any", plain, methods=["GET", "OPTIONS"]),
        Route("/on", on, methods=["GET", "OPTIONS"]),
        HandlesItself("/own", plain),
        Mount("/opaque", PlainTextResponse("open")),
    ]
    app = around(WHERE[where](routes, layers))
    paths = ("/any", "/on", "/own", "/opaque/x", "/nothing")
    assert await statuses(app, *(f"PREFLIGHT {path}" for path in paths)) == [expected] * 5
    assert await statuses(app, "OPTIONS /any", "/any") == [503, 503]


# What a router serves that no route matches


class EmptyPath(Anything):
    """A route that matches the empty path alone."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        return (Match.FULL if scope["path"] == "" else Match.NONE), {}


def slashes(*, redirect: bool) -> Router:
    routes = [Route("/slash/", plain), Route("/MAX", plain), Route("/items/{number:int}/", plain), EmptyPath({})]
    return Router(routes, redirect_slashes=redirect, default=served)


DEFAULTS: dict[str, Case] = {
    "default app": Case(
        lambda: Router(starlette_routes(), default=served),
        blocked=["/anything", "/"],
        passed=["/off"],
        left=["/plain/"],
    ),
    "redirects before the default app": Case(
        lambda: slashes(redirect=True), blocked=["/items/seven", "/"], left=["/slash", "/MAX/", "/items/7"]
    ),
    "default app without redirects": Case(lambda: slashes(redirect=False), blocked=["/slash"]),
    "handshake, which is never redirected": Case(
        lambda: Router([WebSocketRoute("/socket/", plain_socket)], default=served), blocked=["WS /socket"]
    ),
    "own not_found": Case(lambda: NotNotFound(posting_routes()), blocked=["/anything"], left=["/items"]),
}


@pytest.mark.parametrize("name", DEFAULTS)
@pytest.mark.parametrize("where", [itself, mounted])
async def test_router_that_serves_what_no_route_matches_is_blocked(
    name: str, where: Callable[[ASGIApp], ASGIApp]
) -> None:
    case = DEFAULTS[name]
    await assert_decided(case._replace(app=lambda: where(case.app())))


@pytest.mark.skipif(not hasattr(FastAPI, "frontend"), reason="this FastAPI serves no frontend")
@pytest.mark.parametrize(
    ("handlers", "blocked", "doubtful", "left"),
    [
        ({}, [], [], ["/nothing", "POST /shop/nothing", "POST /shop/index.html"]),
        ({404: serve}, ["/nothing", "POST /shop/nothing"], ["POST /shop/index.html"], []),
        ({405: serve}, ["POST /shop/index.html"], ["POST /shop/nothing"], ["/nothing"]),
    ],
)
async def test_router_with_a_frontend_has_its_files_and_what_handlers_answer_blocked(
    handlers: dict[Any, Any], blocked: list[str], doubtful: list[str], left: list[str], tmp_path: Path
) -> None:
    (tmp_path / "index.html").write_text("the frontend", encoding="utf-8")

    def app() -> FastAPI:
        outer, router = fill(FastAPI(exception_handlers=handlers)), APIRouter()
        router.frontend("/", directory=tmp_path)
        outer.include_router(router, prefix="/shop")
        return outer

    blocked = ["/shop/index.html", *blocked]
    await assert_decided(Case(app, blocked=blocked, passed=["/off"], doubtful=doubtful, left=left))


# Handlers of refusals


@pytest.mark.parametrize("where", ["app", "mounted", "included"])
@pytest.mark.parametrize(
    ("key", "handler", "handles"),
    [
        (HTTPException, serve, {404, 405}),
        (404, serve, {404}),
        (405, serve, {405}),
        (500, serve, set()),
        (ValueError, serve, set()),
        (HTTPException, http_exception_handler, set()),
        (404, http_exception_handler, set()),
    ],
)
async def test_handler_of_refusals_has_what_it_handles_blocked_and_nothing_else(
    key: Any,  # noqa: ANN401 -- a status or a class
    handler: Any,  # noqa: ANN401 -- of any exception
    handles: set[int],
    where: str,
) -> None:
    def app() -> ASGIApp:
        routes: list[BaseRoute] = [Route("/items", plain), Route("/slash/", plain)]
        handling = FastAPI(exception_handlers={key: handler}, routes=[] if where == "included" else routes)
        if where == "included":
            router = APIRouter()
            router.routes += routes
            handling.include_router(router)
        return mounted(handling) if where == "mounted" else handling

    refusals = {404: "/nothing", 405: "POST /items"}
    blocked = ["/items", *(refusals[status] for status in handles)]
    left = ["/items/", "/slash", *(refusals[status] for status in ({404, 405} - handles if len(handles) != 1 else ()))]
    await assert_decided(Case(app, blocked=blocked, left=left))


# The documentation of the app


DEFAULT = ["/docs", "/docs/oauth2-redirect", "/redoc", "/openapi.json"]


@pytest.mark.parametrize(
    ("settings", "is_open", "not_open"),
    [
        ({}, DEFAULT, ["/docsx", "/docs/x", "/openapi.json.bak", "/redoc/more"]),
        ({"docs_url": "/a/help", "openapi_url": "/a/spec"}, ["/a/help", "/a/spec"], ["/docs", "/openapi.json"]),
        ({"openapi_url": None}, [], DEFAULT),
        ({"docs_url": None, "redoc_url": None}, ["/openapi.json"], ["/docs", "/redoc"]),
    ],
)
@pytest.mark.parametrize("prefix", ["", "/mounted"])
async def test_documentation_wherever_the_app_put_it_stays_open(
    settings: dict[str, Any], is_open: list[str], not_open: list[str], prefix: str
) -> None:
    documented = FastAPI(**settings)
    documented.add_api_route("/{path:path}", unmarked, methods=["GET", "POST"], include_in_schema=False)
    documented.add_route("/{path:path}", plain, methods=["PATCH"])
    outer = FastAPI(openapi_url=None)
    if prefix:
        outer.mount(prefix, documented)
    app = added(outer if prefix else documented)
    opened = below(prefix, *is_open)
    assert await statuses(app, *opened, *(f"HEAD {path}" for path in opened)) == [200] * 2 * len(opened)
    closed = [*below(prefix, *not_open), *(f"{method} {prefix}/docs" for method in ("POST", "PATCH"))]
    assert await statuses(app, *closed) == [503] * len(closed)


async def test_documentation_replaced_by_an_endpoint_of_the_app_is_blocked() -> None:
    app = FastAPI()
    app.router.routes.insert(0, APIRoute("/docs", unmarked))
    assert await statuses(around(app), "/docs", "/redoc") == [503, 200]


async def test_documentation_without_exempt_docs_is_blocked() -> None:
    app = maintenance_middleware(backend=MemoryBackend(state=True), exempt_docs=False)(FastAPI())
    assert await statuses(app, *DEFAULT) == [503] * 4
