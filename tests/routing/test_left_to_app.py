"""What no route answers is left to the app: 404 and 405, redirects of trailing slashes, CORS preflights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI, Request, WebSocket
from fastapi.exception_handlers import http_exception_handler
from fastapi.middleware.cors import CORSMiddleware
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import PlainTextResponse
from starlette.routing import BaseRoute, Match, Mount, Route, Router, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send

from fastapi_maintenance import MemoryBackend, maintenance_middleware
from tests.middleware.test_fuzz import HandlesItself
from tests.routing.apps import (
    MARKS,
    Anything,
    Rewriting,
    as_wrapped,
    as_wrapped_app,
    on,
    on_the_app,
    plain,
    plain_socket,
    rewriting,
    starlette_routes,
    unmarked,
)
from tests.support import client, handshake, websocket_scope

pytestmark = MARKS
PREFLIGHT = {"Origin": "https://shop.example", "Access-Control-Request-Method": "GET"}
CORS, UNKNOWN = Middleware(CORSMiddleware, allow_origins=["*"]), Middleware(Rewriting)


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


async def test_a_preflight_that_no_layer_answers_does_not_come_to_a_route_or_app_that_may_answer() -> None:
    """It could be anybody's request, with two more headers."""
    app = FastAPI(routes=[Mount("/in", PlainTextResponse("open")), Route("/any", plain, methods=["OPTIONS"])])
    async with client(as_wrapped(app, MemoryBackend(state=True))) as http:
        statuses = [(await http.options(path, headers=PREFLIGHT)).status_code for path in ("/in/x", "/any", "/nothing")]
    assert [503, 503, 404] == statuses


@pytest.mark.parametrize("outside", [True, False])
async def test_cors_preflights_stay_the_apps_and_nothing_that_is_only_like_one(outside: bool) -> None:
    """Fetch 4.8: an OPTIONS request that says where it comes from, and what it will send."""
    app = FastAPI()
    app.api_route("/any", methods=["GET", "POST", "OPTIONS"])(unmarked)
    app.get("/plain")(plain)
    middleware = [maintenance_middleware(backend=MemoryBackend(state=True)), CORSMiddleware]
    for added in middleware if outside else reversed(middleware):
        app.add_middleware(added, **({"allow_origins": ["*"]} if added is CORSMiddleware else {}))
    origin, method = ({name: value} for name, value in PREFLIGHT.items())
    async with client(app) as http:
        for headers in (PREFLIGHT, PREFLIGHT | {"X-Other": "1"}):
            statuses = [(await http.options(path, headers=headers)).status_code for path in ("/any", "/plain", "/none")]
            assert statuses == [200, 200, 200]
        for headers in ({}, origin, method):
            assert (await http.options("/any", headers=headers)).status_code == 503
        for verb in ("GET", "POST"):
            assert (await http.request(verb, "/any", headers=PREFLIGHT)).status_code == 503


@pytest.mark.parametrize("is_built", [True, False])
@pytest.mark.parametrize("where", ["app", "mount", "mounted app", "mounted router", "mounted layer"])
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
async def test_preflight_is_answered_by_a_cors_middleware_before_which_nothing_may_refuse_it(
    layers: list[Middleware], expected: int, where: str, is_built: bool
) -> None:
    routes: list[BaseRoute] = [
        Route("/any", plain, methods=["GET", "OPTIONS"]),
        Route("/on", on, methods=["GET", "OPTIONS"]),
        HandlesItself("/own", plain),
        Mount("/opaque", PlainTextResponse("open")),
    ]
    app = FastAPI(routes=routes, middleware=layers) if where in ("app", "mounted app") else FastAPI()
    app.middleware_stack = app.build_middleware_stack() if is_built else None
    if where == "mount":
        app = FastAPI(routes=[Mount("/in", routes=routes, middleware=layers)])
    elif where == "mounted app":
        app = FastAPI(routes=[Mount("/in", app)])
    elif where == "mounted router":
        app = FastAPI(routes=[Mount("/in", Router(routes, middleware=layers))])
    elif where == "mounted layer":
        inner: ASGIApp = Router(routes)
        for kind, args, kwargs in reversed(layers):
            inner = kind(inner, *args, **kwargs)
        app = FastAPI(routes=[Mount("/in", inner)])
    prefix = "" if where == "app" else "/in"
    async with client(as_wrapped(app, MemoryBackend(state=True))) as http:
        statuses = {
            path: (await http.options(prefix + path, headers=PREFLIGHT)).status_code
            for path in ("/any", "/on", "/own", "/opaque/x", "/nothing")
        }
        assert statuses == dict.fromkeys(statuses, expected)
        assert (await http.options(prefix + "/any")).status_code == 503
        assert (await http.get(prefix + "/any", headers=PREFLIGHT)).status_code == 503


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


async def serve(request: Request, _: Exception) -> PlainTextResponse:
    return PlainTextResponse(f"the whole application, as of {request.url.path}")


HANDLED: list[tuple[Any, Any, list[int | None]]] = [  # and what becomes of 404, 405 and slashes; None: not said
    (HTTPException, serve, [503, 503, 307, 307]),
    (404, serve, [503, None, 307, 307]),
    (405, serve, [None, 503, 307, 307]),
    (500, serve, [404, 405, 307, 307]),
    (ValueError, serve, [404, 405, 307, 307]),
    (HTTPException, http_exception_handler, [404, 405, 307, 307]),
    (404, http_exception_handler, [404, 405, 307, 307]),
]


@pytest.mark.parametrize("where", ["app", "mounted", "included"])
@pytest.mark.parametrize(("key", "handler", "expected"), HANDLED)
async def test_a_handler_of_refusals_takes_no_part_in_redirects_nor_in_what_it_does_not_handle(
    key: Any,  # noqa: ANN401 -- a status or a class
    handler: Any,  # noqa: ANN401 -- of any exception
    expected: list[int | None],
    where: str,
) -> None:
    routes: list[BaseRoute] = [Route("/items", plain), Route("/slash/", plain)]
    app = FastAPI(exception_handlers={key: handler}, routes=[] if where == "included" else routes)
    if where == "included":
        router = APIRouter()
        router.routes += routes
        app.include_router(router, prefix="/in")
    app = FastAPI(routes=[Mount("/in", app)]) if where == "mounted" else app
    prefix = "" if where == "app" else "/in"
    asked_for = [("GET", "/nothing"), ("POST", "/items"), ("GET", "/items/"), ("GET", "/slash"), ("GET", "/items")]
    statuses = {}
    for state in (None, False, True):
        async with client(app if state is None else as_wrapped(app, MemoryBackend(state=state))) as http:
            statuses[state] = [(await http.request(method, prefix + path)).status_code for method, path in asked_for]
    assert statuses[None][2:] == [307, 307, 200]
    assert statuses[False] == statuses[None]
    said = [status if wanted else None for status, wanted in zip(statuses[True], expected, strict=False)]
    assert (said, statuses[True][-1]) == (expected, 503)
