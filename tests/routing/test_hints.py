"""`_routing/hints.py`: one warning at the start for each arrangement that will surprise the owner, with what helps."""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import Callable
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
from fastapi_maintenance.router import maintenance_router
from tests.middleware.test_fuzz import Hiding, Layer
from tests.routing.apps import NESTED, Rewriting, around, built, plain, serve, statuses
from tests.support import ROOT
from tests.switch.lifespans import living

pytestmark = pytest.mark.anyio

HINTS = "fastapi_maintenance.hints"
Hints = list[tuple[str, str]]


async def hints_of(app: ASGIApp, caplog: pytest.LogCaptureFixture) -> Hints:
    """Start an app, and return the topic and the text of each hint that it gives."""
    async with living(app):
        pass
    found = [record for record in caplog.records if record.name.startswith(HINTS)]
    return [(record.name.removeprefix(f"{HINTS}."), record.getMessage()) for record in found]


async def topics_of(app: ASGIApp, caplog: pytest.LogCaptureFixture) -> list[str]:
    return [topic for topic, _ in await hints_of(app, caplog)]


def admin_router() -> APIRouter:
    return maintenance_router(dependencies=[], anyone_may_switch=True)


class Foreign:
    """An app of another framework, whose attribute `routes` is not a list."""

    def routes(self) -> None: ...

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None: ...


def shop(exempt: ExemptCallback | None = None) -> FastAPI:
    """Return an app with routes of all kinds."""
    inner, api, app = APIRouter(prefix="/inner"), APIRouter(prefix="/api"), FastAPI()
    inner.add_api_route("/users/{user}/orders", lambda user: user)
    inner.add_api_route("/files/{path:path}", lambda path: path)
    api.include_router(inner)
    app.include_router(api)
    app.add_api_route("/rss/v{version}/page", lambda version: version)
    app.add_api_route("/health/live", lambda: "alive", methods=["POST"])
    app.mount("/static", StaticFiles(directory=ROOT / "tests"))
    app.mount("/foreign", Foreign())
    app.mount("/sub", Starlette(routes=[Route("/page", plain), Mount("/deep", routes=[Route("/end", plain)])]))
    app.router.routes.append(Host("admin.example", Starlette(routes=[Route("/panel", plain)])))
    app.add_middleware(maintenance_middleware(exempt=exempt))
    return app


async def lifespan_only(scope: Scope, receive: Receive, send: Send) -> None:
    """Be an app without routes."""
    assert scope["type"] == "lifespan"
    for word in ("startup", "shutdown"):
        assert (await receive())["type"] == f"lifespan.{word}"
        await send({"type": f"lifespan.{word}.complete"})


class Unready:
    """An app whose attribute `app` is for later."""

    @property
    def app(self) -> ASGIApp:
        raise LookupError

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await lifespan_only(scope, receive, send)


def catching_all(exempt: ExemptCallback | None = None) -> FastAPI:
    """Return an app in which another route answers the paths of the admin API."""
    app = FastAPI()
    app.add_api_route("/{path:path}", lambda path: path)
    app.include_router(admin_router())
    app.add_middleware(maintenance_middleware(exempt=exempt))
    return app


def with_everything_right() -> FastAPI:
    app = shop(any_of(path_prefix("/health"), header_equals("X-Admin", "yes")))
    app.include_router(admin_router(), prefix="/ops")
    app.user_middleware.append(Middleware(GZipMiddleware))
    app.add_middleware(CORSMiddleware, allow_origins=["https://shop.example"])
    return app


def with_an_exempt_file(change: Callable[[FastAPI], object]) -> FastAPI:
    app = FastAPI()
    change(app)
    app.add_middleware(maintenance_middleware(exempt=path_is("/conftest.py")))
    return app


def below_a_parameter() -> FastAPI:
    app = FastAPI()
    app.include_router(admin_router(), prefix="/{tenant:int}")
    app.add_middleware(maintenance_middleware())
    return app


RIGHT: dict[str, Callable[[], ASGIApp]] = {
    "everything right": with_everything_right,
    "no routes": lambda: maintenance_middleware(exempt=path_prefix("/health"))(lifespan_only),
    "an app that does not show what is inside yet": lambda: maintenance_middleware()(Unready()),
    "a path that an unknown route may have": lambda: with_an_exempt_file(lambda app: app.routes.append(BaseRoute())),
    "a path that a default app may have": lambda: with_an_exempt_file(
        lambda app: setattr(app.router, "default", StaticFiles(directory=ROOT / "tests"))
    ),
    "an admin API below a parameter": below_a_parameter,
    "an admin API that is exempt": lambda: catching_all(path_prefix("/maintenance")),
}


@pytest.mark.parametrize("name", RIGHT)
async def test_hints_arrangement_that_is_right_gives_none(name: str, caplog: pytest.LogCaptureFixture) -> None:
    assert await hints_of(RIGHT[name](), caplog) == []


@pytest.mark.parametrize(("topic", "expected"), [("hints", []), ("hints.path", ["layer"])])
async def test_hints_of_a_logger_that_is_silenced_are_not_logged(
    topic: str, expected: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    app = FastAPI()
    app.add_middleware(Rewriting)
    app.add_middleware(maintenance_middleware(exempt=path_prefix("/nowhere")))
    logger = logging.getLogger(f"fastapi_maintenance.{topic}")
    logger.setLevel(logging.ERROR)
    try:
        assert await topics_of(app, caplog) == expected
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
        (path_prefix("/foreign/page"), []),
        (path_prefix("/sub/deep/end"), []),
        (path_prefix("/panel"), []),
        (path_is("/health/live/"), ["no route has the path '/health/live/'"]),
        (lambda _: False, []),
    ],
)
async def test_hints_exempt_path_that_no_route_has_is_named(
    exempt: ExemptCallback, named: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    hints = await hints_of(shop(exempt), caplog)
    assert [topic for topic, _ in hints] == ["path"] * len(named)
    assert [name in text for name, (_, text) in zip(named, hints, strict=True)] == [True] * len(named)


class Around(Layer):
    """A middleware with the maintenance middleware inside."""

    def __init__(self, app: ASGIApp) -> None:
        super().__init__(maintenance_middleware()(app))


async def test_hints_router_of_the_library_that_would_be_blocked_is_named(caplog: pytest.LogCaptureFixture) -> None:
    ((topic, text),) = await hints_of(catching_all(), caplog)
    assert (topic, text.startswith("GET /maintenance"), "PUT /maintenance" in text) == ("router", True, False)
    caplog.clear()
    hidden = FastAPI(middleware=[Middleware(layer) for layer in (Hiding, Around, GZipMiddleware, Hiding)])
    hidden.include_router(admin_router())
    layer, (topic, text) = await hints_of(hidden, caplog)
    assert (layer[0], topic, text.startswith("GET /maintenance"), "PUT /maintenance" in text) == (
        *("layer", "router", True, True),
    )


async def test_hints_app_that_is_mounted_in_itself_gives_them_at_once(caplog: pytest.LogCaptureFixture) -> None:
    app = FastAPI()
    for number in range(300):
        app.add_api_route(f"/items{number}", lambda: "item")
    app.mount("/again", app.router)
    app.mount("/self", app)
    app.add_middleware(maintenance_middleware(exempt=path_prefix("/typo")))
    assert await topics_of(app, caplog) == ["path"]


class Timing(BaseHTTPMiddleware): ...


class OwnCall(FastAPI):
    """An app that may do anything in its own call."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await super().__call__(scope, receive, send)


async def log(request: Any, call_next: Any) -> Any:  # noqa: ANN401 -- as in Starlette
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


@pytest.mark.parametrize("key", [404, 405, HTTPException, 500])
@pytest.mark.parametrize("is_built", [True, False])
@pytest.mark.parametrize("silenced", ["", "mark", "block"])
async def test_hints_handler_of_refusals_is_named_with_what_helps(
    key: Any,  # noqa: ANN401 -- a status or a class
    is_built: bool,
    silenced: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    handler = force_maintenance_mode_off(functools.partial(serve)) if silenced == "mark" else serve
    app = FastAPI(exception_handlers={key: handler})
    app = built(app) if is_built else app
    unmatched: Literal["pass", "block"] = "block" if silenced == "block" else "pass"
    closed = maintenance_middleware(backend=MemoryBackend(state=True), unmatched=unmatched)(app)
    hints = await hints_of(closed, caplog)
    assert [topic for topic, _ in hints] == (["handler"] if key != 500 and not silenced else [])
    for _, text in hints:
        assert text.startswith("inside the maintenance middleware, serve handles 404, 405 or HTTPException and may")
        assert "with @force_maintenance_mode_off if" in text
        assert "or set unmatched='block'" in text
    if silenced == "mark":  # it may answer during maintenance
        assert await statuses(closed, "/nothing") == [200 if key in (404, HTTPException) else 404]


# Marks


@force_maintenance_mode_on
async def retired() -> str:
    return "retired"


class Closed(HTTPEndpoint):
    @force_maintenance_mode_on
    async def get(self, request: Request) -> Response:
        return Response(request.method)


off, on = force_maintenance_mode_off, force_maintenance_mode_on
ARRANGEMENTS: dict[str, tuple[Callable[[FastAPI, FastAPI, APIRouter], object], list[str]]] = {
    "marks alone": (lambda *_: None, []),
    "an included router": (
        lambda app, _, router: app.include_router(on(router)),
        ["the mark on APIRouter '/shop' has no effect"] if NESTED else [],
    ),
    "an app that is not mounted": (lambda _, inner, __: off(inner), []),
    "an app that is hidden": (
        lambda app, inner, _: app.mount("/in", Hiding(off(inner))),
        ["FastAPI 'FastAPI' is marked, but no route"],
    ),
    "a mounted app": (lambda app, inner, _: app.mount("/in", GZipMiddleware(off(inner))), []),
    "a mounted router": (lambda app, _, router: app.mount("/router", on(router)), []),
    "endpoints in an app that is wrapped": (lambda app, inner, _: app.mount("/in", Layer(inner)), []),
    "endpoints in an app that is hidden": (
        lambda app, inner, _: app.mount("/in", Hiding(inner)),
        ["retired is marked", "get is marked"],
    ),
    "endpoints in an app that is hidden at a route": (
        lambda app, inner, _: app.router.routes.append(Route("/in", Hiding(inner))),
        ["retired is marked", "get is marked"],
    ),
    "endpoints, and an app without routes": (
        lambda app, *_: app.mount("/static", StaticFiles(directory=ROOT / "tests")),
        [],
    ),
}


@pytest.mark.parametrize("name", ARRANGEMENTS)
async def test_hints_mark_that_no_route_leads_to_is_named(name: str, caplog: pytest.LogCaptureFixture) -> None:
    arrange, starts = ARRANGEMENTS[name]
    app, inner, router = FastAPI(), FastAPI(), APIRouter(prefix="/shop")  # kept while hints are looked for
    where = inner if "endpoints in" in name else app
    where.add_api_route("/retired", functools.partial(on(retired)))
    where.router.routes.append(Route("/closed", Closed))
    on(Closed.get)
    router.add_api_route("/page", lambda: "page")
    arrange(app, inner, router)
    hints = [text for topic, text in await hints_of(around(app), caplog) if topic == "mark"]
    assert [text[: len(start)] for text, start in zip(hints, starts, strict=True)] == starts
    if "hidden" in name:
        assert "the mark has no effect if the app at '/in', which hides its routes, leads to it" in hints[0]


async def test_hints_app_that_is_hidden_as_a_whole_decides_by_itself(caplog: pytest.LogCaptureFixture) -> None:
    app = FastAPI()
    app.add_api_route("/retired", on(functools.partial(retired)))
    (_, layer), (_, mark) = await hints_of(around(Hiding(app)), caplog)
    assert layer == f"inside the maintenance middleware, {DECIDES.format('Hiding')}{ADVICE}"
    assert "if the app at '/', which hides" in mark


# Others


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


@pytest.mark.parametrize("is_same", [True, False])
async def test_hints_two_middlewares_on_one_switch_are_named_once(
    is_same: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    app = FastAPI(middleware=[Middleware(Rewriting)])
    switch = MemoryBackend()
    for backend in (switch, switch if is_same else MemoryBackend()):
        app.add_middleware(maintenance_middleware(backend=backend))
    files = FastAPI(middleware=[Middleware(Rewriting)])
    files.add_middleware(maintenance_middleware(backend="file:switch"))
    files.add_middleware(
        MaintenanceModeMiddleware, backend=f"file:{tmp_path / 'switch'}" if is_same else "file:another"
    )
    for each in (app, files):
        assert sorted(await topics_of(each, caplog)) == ["layer", *(["twice"] if is_same else [])]
        caplog.clear()


async def test_hints_app_that_cannot_be_inspected_starts_all_the_same(caplog: pytest.LogCaptureFixture) -> None:
    class Strange(BaseRoute):
        @property
        def path(self) -> str:
            raise ZeroDivisionError

    app = FastAPI(routes=[Strange()])
    app.add_middleware(maintenance_middleware(exempt=path_prefix("/nowhere")))
    with caplog.at_level(logging.DEBUG, HINTS):
        assert await hints_of(app, caplog) == [(HINTS, "The app could not be checked for hints")]
