"""Hints at the start: one warning where the arrangement will disappoint, with the way to mend it."""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Literal

import pytest
from fastapi import APIRouter, FastAPI, Request, Response
from starlette.applications import Starlette
from starlette.convertors import CONVERTOR_TYPES, Convertor
from starlette.endpoints import HTTPEndpoint
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.routing import BaseRoute, Host, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Receive, Scope, Send

from fastapi_maintenance import (
    ExemptCallback,
    MaintenanceModeMiddleware,
    MemoryBackend,
    any_of,
    force_maintenance_mode_off,
    force_maintenance_mode_on,
    header_equals,
    maintenance_middleware,
    not_,
    path_is,
    path_prefix,
)
from fastapi_maintenance._routing.routes import list_routes
from fastapi_maintenance.router import maintenance_router
from tests.middleware.test_fuzz import Hiding, Layer
from tests.routing.apps import NESTED, Rewriting
from tests.support import ROOT, client
from tests.switch.lifespans import living

pytestmark = pytest.mark.anyio

HINTS = "fastapi_maintenance.hints"


class Around(Layer):
    """A middleware that has the maintenance middleware in it."""

    def __init__(self, app: ASGIApp) -> None:
        super().__init__(maintenance_middleware()(app))


async def hints_of(app: ASGIApp, caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    """Start an app, and return the topic and the text of each hint that it gives."""
    async with living(app):
        pass
    return [
        (record.name.removeprefix(f"{HINTS}."), record.getMessage())
        for record in caplog.records
        if record.name.startswith(HINTS)
    ]


async def topics_of(app: ASGIApp, caplog: pytest.LogCaptureFixture) -> list[str]:
    """Start an app, and return the topic of each hint that it gives."""
    return [topic for topic, _ in await hints_of(app, caplog)]


def shop() -> FastAPI:
    """Return an app with routes of all kinds."""
    inner, api, app = APIRouter(prefix="/inner"), APIRouter(prefix="/api"), FastAPI()
    inner.add_api_route("/users/{user}/orders", lambda user: user)
    inner.add_api_route("/files/{path:path}", lambda path: path)
    api.include_router(inner)
    app.include_router(api)
    app.add_api_route("/rss/v{version}/page", lambda version: version)
    app.add_api_route("/health/live", lambda: "alive", methods=["POST"])
    app.mount("/static", StaticFiles(directory=ROOT / "docs" if (ROOT / "docs").exists() else ROOT / "tests"))
    app.mount("/sub", Starlette(routes=[Route("/page", lambda _: None), Mount("/deep", routes=[Route("/end", print)])]))
    app.router.routes.append(Host("admin.example", Starlette(routes=[Route("/panel", lambda _: None)])))
    return app


async def test_an_arrangement_that_is_right_gives_no_hint(caplog: pytest.LogCaptureFixture) -> None:
    app = shop()
    app.include_router(maintenance_router(dependencies=[], anyone_may_switch=True), prefix="/ops")
    app.add_middleware(GZipMiddleware)
    app.add_middleware(maintenance_middleware(exempt=any_of(path_prefix("/health"), header_equals("X-Admin", "yes"))))
    app.add_middleware(CORSMiddleware, allow_origins=["https://shop.example"])
    assert [] == await hints_of(app, caplog)


@pytest.mark.parametrize("topic", ["hints", "hints.path"])
async def test_a_hint_can_be_silenced_by_itself_or_with_all_others(
    topic: str, caplog: pytest.LogCaptureFixture
) -> None:
    app = FastAPI()
    app.add_middleware(Rewriting)
    app.add_middleware(maintenance_middleware(exempt=path_prefix("/nowhere")))
    logger = logging.getLogger(f"fastapi_maintenance.{topic}")
    logger.setLevel(logging.ERROR)
    try:
        assert ({"hints": [], "hints.path": ["layer"]}[topic]) == await topics_of(app, caplog)
    finally:
        logger.setLevel(logging.NOTSET)


@pytest.mark.parametrize(
    ("exempt", "named"),
    [
        (path_prefix("/heath"), ["no route lies under the path prefix '/heath'"]),
        (path_prefix("/health/live/"), ["no route lies under the path prefix '/health/live/'"]),
        (path_is("/health"), ["no route has the path '/health'"]),
        (not_(path_prefix("/biling")), ["no route lies under the path prefix '/biling'"]),
        (any_of(header_equals("X-Admin", "yes"), path_prefix("/a", "/api", "/b")), ["prefix '/a'", "prefix '/b'"]),
        (path_prefix("/api/inner/users/7/bills"), ["prefix '/api/inner/users/7/bills'"]),
        (path_prefix("/sub/pages"), ["prefix '/sub/pages'"]),
        (any_of(path_prefix("/a"), path_prefix("/a")), ["prefix '/a'"]),
        (path_is("/rss/v1"), ["no route has the path '/rss/v1'"]),
        (path_prefix("/rss/v1"), []),
        (path_is("/rss/v1/page"), []),
        (path_is("/static"), []),
        (path_prefix("/"), []),
        (path_prefix("/health"), []),
        (path_prefix("/docs"), []),
        (path_is("/health/live"), []),
        (path_prefix("/api/inner/users/7"), []),
        (path_is("/api/inner/users/7/orders"), []),
        (path_prefix("/api/inner/files/a/b/c"), []),
        (path_prefix("/static/pictures"), []),
        (path_prefix("/sub/deep/end"), []),
        (path_prefix("/panel"), []),
        (path_is("/health/live/"), ["no route has the path '/health/live/'"]),
        (lambda _: False, []),
    ],
)
async def test_an_exempted_path_that_no_route_has_is_told(
    exempt: ExemptCallback, named: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    app = shop()
    app.add_middleware(maintenance_middleware(exempt=exempt))
    hints = await hints_of(app, caplog)
    assert ["path"] * len(named) == [topic for topic, _ in hints]
    assert [True] * len(named) == [name in text for name, (_, text) in zip(named, hints, strict=True)]


async def test_a_path_that_an_unknown_kind_of_route_or_what_answers_without_one_may_have_is_not_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    unknown, falling_back = FastAPI(routes=[BaseRoute()]), FastAPI()
    falling_back.router.default = StaticFiles(directory=ROOT / "tests")
    for app in (unknown, falling_back):
        app.add_middleware(maintenance_middleware(exempt=path_is("/conftest.py")))
        assert [] == await hints_of(app, caplog)


def catching_all_first(router: APIRouter) -> FastAPI:
    """Include the router behind a route that matches every path."""
    app = FastAPI()
    app.add_api_route("/{path:path}", lambda path: path)
    app.include_router(router)
    app.add_middleware(maintenance_middleware())
    return app


def in_a_hidden_app(router: APIRouter) -> ASGIApp:
    """Include the router in an app that a middleware wraps and hides, on both sides of the maintenance middleware."""
    app = FastAPI()
    app.include_router(router)
    app.add_middleware(Hiding)
    app.add_middleware(GZipMiddleware)
    app.add_middleware(Around)
    app.add_middleware(Hiding)
    return app


@pytest.mark.parametrize("arrange", [catching_all_first, in_a_hidden_app])
async def test_a_router_that_would_be_blocked_is_told(
    arrange: Callable[[APIRouter], ASGIApp], caplog: pytest.LogCaptureFixture
) -> None:
    *layer, (topic, text) = await hints_of(arrange(maintenance_router(dependencies=[], anyone_may_switch=True)), caplog)
    assert (["layer"] if arrange is in_a_hidden_app else []) == [topic for topic, _ in layer]
    assert "router" == topic
    assert text.startswith("GET /maintenance")
    assert ("PUT /maintenance" in text) is (arrange is in_a_hidden_app)


async def test_hints_router_that_the_predicate_exempts_is_not_named(caplog: pytest.LogCaptureFixture) -> None:
    app = FastAPI()
    app.add_api_route("/{path:path}", lambda path: path)
    app.include_router(maintenance_router(anyone_may_switch=True, dependencies=[]))
    app.add_middleware(maintenance_middleware(exempt=path_prefix("/maintenance")))
    assert await hints_of(app, caplog) == []


async def test_hints_app_that_is_mounted_in_itself_starts_at_once_with_its_hints(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = FastAPI()
    for number in range(300):
        app.add_api_route(f"/items{number}", lambda: "item")
    app.mount("/again", app.router)
    app.mount("/self", app)
    app.add_middleware(maintenance_middleware(exempt=path_prefix("/typo")))
    assert await topics_of(app, caplog) == ["path"]
    listed = list(list_routes(app.routes))
    assert len(listed) < 3 * len(app.routes)


async def test_a_router_under_a_path_with_parameters_is_trusted(caplog: pytest.LogCaptureFixture) -> None:
    app = FastAPI()
    app.include_router(maintenance_router(dependencies=[], anyone_may_switch=True), prefix="/{tenant:int}")
    app.add_middleware(maintenance_middleware())
    assert [] == await hints_of(app, caplog)


class Timing(BaseHTTPMiddleware):
    """A middleware that answers."""


class OwnCall(FastAPI):
    """An app that may do anything in its own call."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on."""
        await super().__call__(scope, receive, send)


async def log(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    """Pass on."""
    return await call_next(request)


def with_layers(*layers: Any) -> FastAPI:  # noqa: ANN401 -- of any kind
    return FastAPI(middleware=[Middleware(layer) for layer in layers])


def with_functions() -> FastAPI:
    app = FastAPI()
    app.middleware("http")(log)
    app.middleware("http")(log)
    return app


REWRITES = (
    "{} may change the path or method of a request or answer it, so requests that no route answers (404, 405) are "
    "blocked too: add it after the maintenance middleware, which puts it outside"
)
DECIDES = (
    "{} decides by itself what answers, so @force_maintenance_mode_off and exempt_docs have no effect behind it, and "
    "requests that no route answers (404, 405) are blocked too: exempt what must stay open with a predicate"
)
ADVICE = " (to silence it: logging.getLogger('fastapi_maintenance.hints.layer').setLevel('ERROR'))"


@pytest.mark.parametrize(
    ("inside", "expected"),
    [
        (lambda: with_layers(GZipMiddleware, Layer), REWRITES.format("Layer")),
        (lambda: with_layers(Timing, Hiding), REWRITES.format("Timing, Hiding")),
        (with_functions, REWRITES.format("log")),
        (OwnCall, DECIDES.format("OwnCall")),
        (lambda: with_layers(GZipMiddleware), None),
        (lambda: with_layers(MaintenanceModeMiddleware, maintenance_middleware(backend="memory:")), None),
    ],
)
@pytest.mark.parametrize("unmatched", ["pass", "block"])
@pytest.mark.parametrize("interest", ["none", "an exempt path", "a mark"])
@pytest.mark.parametrize("is_mounted", [True, False])
async def test_hints_layer_that_may_answer_is_named_where_that_matters(
    inside: Callable[[], FastAPI],
    expected: str | None,
    unmatched: Literal["pass", "block"],
    interest: str,
    is_mounted: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    inner = inside()
    inner.add_api_route("/page", force_maintenance_mode_off(lambda: "page") if interest == "a mark" else lambda: "page")
    app = FastAPI(routes=[Mount("/in", inner)]) if is_mounted else inner
    exempt = path_is("/in/page" if is_mounted else "/page") if interest == "an exempt path" else None
    closed = maintenance_middleware(backend=MemoryBackend(), unmatched=unmatched, exempt=exempt)(app)
    where = "in the app that is mounted at '/in', " if is_mounted else "inside the maintenance middleware, "
    is_expected = expected and unmatched == "pass" and not (is_mounted and interest == "none")
    hints = [text for topic, text in await hints_of(closed, caplog) if topic == "layer"]
    assert hints == ([f"{where}{expected}{ADVICE}"] if is_expected else [])


async def test_hints_unknown_app_that_is_mounted_with_a_mark_below_it_decides_by_itself(
    caplog: pytest.LogCaptureFixture,
) -> None:
    inner = FastAPI()
    inner.add_api_route("/page", force_maintenance_mode_off(lambda: "page"))
    app = FastAPI(routes=[Mount("/in", Layer(inner))])
    hints = await hints_of(maintenance_middleware(backend=MemoryBackend())(app), caplog)
    assert hints == [("layer", f"in the app that is mounted at '/in', {DECIDES.format('Layer')}{ADVICE}")]


async def answer(_request: Request, _error: Exception) -> Response:
    """Handle a refusal."""
    return Response(status_code=404)


@pytest.mark.parametrize("key", [404, 405, HTTPException, 500])
@pytest.mark.parametrize("is_built", [True, False])
@pytest.mark.parametrize("silenced", ["", "mark", "block"])
async def test_hints_handler_of_refusals_is_named_with_what_helps(
    key: Any,  # noqa: ANN401 -- a status or a class
    is_built: bool,
    silenced: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    handler = force_maintenance_mode_off(functools.partial(answer)) if silenced == "mark" else answer
    app = FastAPI(exception_handlers={key: handler})
    app.middleware_stack = app.build_middleware_stack() if is_built else None
    unmatched: Literal["pass", "block"] = "block" if silenced == "block" else "pass"
    closed = maintenance_middleware(backend=MemoryBackend(state=True), unmatched=unmatched)(app)
    hints = await hints_of(closed, caplog)
    assert [topic for topic, _ in hints] == (["handler"] if key != 500 and not silenced else [])
    for _, text in hints:
        assert text.startswith("inside the maintenance middleware, answer handles 404, 405 or HTTPException and may")
        assert "with @force_maintenance_mode_off if" in text
        assert "or set unmatched='block'" in text
    if silenced == "mark":
        async with client(closed) as http:
            assert (await http.get("/nothing")).status_code == 404


@force_maintenance_mode_on
async def retired() -> str:
    """Answer no more."""
    return "retired"


class Closed(HTTPEndpoint):
    """A class with a method that is forced on."""

    @force_maintenance_mode_on
    async def get(self, request: Request) -> Response:
        """Answer no more."""
        return Response(request.method)


def with_marks(arrangement: str) -> tuple[FastAPI, list[Any]]:
    """Return an app, and what must be kept while its hints are looked for."""
    app, inner, router = FastAPI(), FastAPI(), APIRouter(prefix="/shop")
    force_maintenance_mode_on(retired)
    force_maintenance_mode_on(Closed.get)
    where = inner if "endpoints in" in arrangement else app
    where.add_api_route("/retired", functools.partial(retired))
    where.router.routes.append(Route("/closed", Closed))
    router.add_api_route("/page", lambda: "page")
    if arrangement == "a marked router that is included":
        app.include_router(force_maintenance_mode_on(router))
    elif arrangement == "a marked app that is not mounted":
        force_maintenance_mode_off(inner)
    elif arrangement == "a marked app that is hidden":
        app.mount("/in", Hiding(force_maintenance_mode_off(inner)))
    elif arrangement == "a marked app and a marked router that are mounted":
        app.mount("/in", GZipMiddleware(force_maintenance_mode_off(inner)))
        app.mount("/router", force_maintenance_mode_on(router))
    elif arrangement == "endpoints in an app that is wrapped":
        app.mount("/in", Layer(inner))
    elif arrangement == "endpoints in an app that is hidden":
        app.mount("/in", Hiding(inner))
    elif arrangement == "endpoints in an app that is hidden at a route":
        app.router.routes.append(Route("/in", Hiding(inner)))
    elif arrangement == "endpoints, and an app that is opaque":
        app.mount("/static", StaticFiles(directory=ROOT / "tests"))
    return app, [inner, router]


@pytest.mark.parametrize(
    ("arrangement", "starts"),
    [
        ("marks alone", []),
        ("a marked router that is included", ["the mark on APIRouter '/shop' has no effect"] if NESTED else []),
        ("a marked app that is not mounted", []),
        ("a marked app that is hidden", ["FastAPI 'FastAPI' is marked, but no route"]),
        ("a marked app and a marked router that are mounted", []),
        ("endpoints in an app that is wrapped", []),
        ("endpoints in an app that is hidden", ["retired is marked", "get is marked"]),
        ("endpoints in an app that is hidden at a route", ["retired is marked", "get is marked"]),
        ("endpoints, and an app that is opaque", []),
    ],
)
async def test_hints_mark_that_no_route_leads_to_is_named(
    arrangement: str, starts: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    app, _kept = with_marks(arrangement)
    hints = [
        text
        for topic, text in await hints_of(maintenance_middleware(backend=MemoryBackend())(app), caplog)
        if topic == "mark"
    ]
    assert [text[: len(start)] for text, start in zip(hints, starts, strict=True)] == starts
    if "hidden" in arrangement:
        assert "the mark has no effect if the app at '/in', which hides its routes, leads to it" in hints[0]


async def test_hints_app_that_is_hidden_as_a_whole_decides_by_itself(caplog: pytest.LogCaptureFixture) -> None:
    app = FastAPI()
    app.add_api_route("/retired", force_maintenance_mode_on(functools.partial(retired)))
    hints = await hints_of(maintenance_middleware(backend=MemoryBackend())(Hiding(app)), caplog)
    assert [topic for topic, _ in hints] == ["layer", "mark"]
    assert hints[0][1] == f"inside the maintenance middleware, {DECIDES.format('Hiding')}{ADVICE}"
    assert "if the app at '/', which hides" in hints[1][1]


async def test_hints_path_of_a_route_with_a_convertor_of_its_own_is_not_missed(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Pair(Convertor[str]):
        regex = "[a-z]+/[a-z]+"

        def convert(self, value: str) -> str:
            return value

        def to_string(self, value: str) -> str:
            return value

    monkeypatch.setitem(CONVERTOR_TYPES, "pair", Pair())
    app = FastAPI()
    app.router.routes.append(Route("/items/{item:pair}", lambda _: None, methods=["POST"]))
    app.add_middleware(maintenance_middleware(exempt=path_is("/items/a/b")))
    assert await hints_of(app, caplog) == []


@pytest.mark.parametrize("entered", [True, False])
def test_hints_lifespan_that_a_test_client_does_not_run_is_not_missed(
    entered: bool, caplog: pytest.LogCaptureFixture
) -> None:
    app = FastAPI()
    app.add_middleware(maintenance_middleware(backend=MemoryBackend(state=True)))
    http = TestClient(app)
    with http if entered else contextlib.nullcontext():
        assert http.get("/docs").status_code == 200
    assert [record.name for record in caplog.records if record.name.startswith(HINTS)] == []


@pytest.mark.parametrize("same", [True, False])
async def test_two_middlewares_on_one_switch_are_told_once(same: bool, caplog: pytest.LogCaptureFixture) -> None:
    switch = MemoryBackend()
    app = FastAPI()
    app.add_middleware(maintenance_middleware(backend=switch))
    app.add_middleware(MaintenanceModeMiddleware, backend=switch if same else MemoryBackend())
    assert (["twice"] if same else []) == await topics_of(app, caplog)


async def test_two_middlewares_on_one_file_are_on_one_switch_and_tell_each_hint_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    app = FastAPI()
    app.add_middleware(Rewriting)
    app.add_middleware(maintenance_middleware(backend="file:switch"))
    app.add_middleware(maintenance_middleware(backend=f"file:{tmp_path / 'switch'}"))
    assert ["layer", "twice"] == sorted(await topics_of(app, caplog))


async def test_an_app_that_cannot_be_looked_at_starts_all_the_same(caplog: pytest.LogCaptureFixture) -> None:
    class Strange(BaseRoute):
        @property
        def path(self) -> str:
            message = "not yet"
            raise RuntimeError(message)

    app = FastAPI()
    app.router.routes.append(Strange())
    app.add_middleware(maintenance_middleware(exempt=path_prefix("/nowhere")))
    with caplog.at_level(logging.DEBUG, HINTS):
        assert [(HINTS, "The app could not be checked for hints")] == await hints_of(app, caplog)


async def test_an_app_without_routes_of_its_own_gives_no_hint(caplog: pytest.LogCaptureFixture) -> None:
    async def plain(scope: Scope, receive: Receive, send: Send) -> None:
        assert "lifespan" == scope["type"]
        for word in ("startup", "shutdown"):
            assert f"lifespan.{word}" == (await receive())["type"]
            await send({"type": f"lifespan.{word}.complete"})

    assert [] == await hints_of(maintenance_middleware(exempt=path_prefix("/health"))(plain), caplog)
