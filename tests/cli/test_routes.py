"""`routes`: what each route of an app does during maintenance, and why."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import httpx
import pytest
from fastapi import APIRouter, Body, FastAPI, Request
from starlette.routing import BaseRoute, Host, Match, Mount, Route, Router, WebSocketRoute
from starlette.types import ASGIApp, Scope

from fastapi_maintenance import (
    ExemptCallback,
    MemoryBackend,
    all_of,
    always,
    any_of,
    client_in,
    cookie_equals,
    dependency,
    force_maintenance_mode_on,
    header_equals,
    host_is,
    maintenance_middleware,
    method_in,
    not_,
    path_is,
    path_matches,
    path_prefix,
    query_equals,
    safe_method,
)
from fastapi_maintenance.cli.routes import routes_in_maintenance
from fastapi_maintenance.predicates.bypass_cookie import bypass_cookie
from tests.cli.driving import errors, invoke
from tests.middleware.test_fuzz import (
    DispatchesItself,
    HandlesByHeader,
    HandlesItself,
    Hiding,
    Layer,
    MethodFromHeader,
    Methods,
    RoutesItself,
    handled,
)
from tests.routing.apps import NESTED, NotNotFound, off, off_socket, on, plain
from tests.routing.test_routes_property import HandlingRouter, own

ADMIN = header_equals("X-Admin-Key", "secret-key")
OPEN_A, A, B = Route("/a", off), Route("/a", plain), Route("/b", plain)


def is_staff(request: Request) -> bool:
    return "x-staff" in request.headers


async def reads_body(request: Request) -> bool:
    return bool(await request.json())


class ReadsBody:
    """A callable object."""

    async def __call__(self, request: Request) -> bool:
        return bool(await request.body())


async def asks_elsewhere(request: Request) -> bool:
    async with httpx.AsyncClient() as http:
        response = await http.get("http://auth", headers=request.headers)
        return bool(response.json())


without_source: dict[str, Any] = {}
exec("async def exempt(request): return await request.body()", without_source)  # noqa: S102


def by_body(item: Annotated[str, Body()]) -> bool:
    return item == "a"


def rows(app: ASGIApp) -> list[str]:
    """Return each row as `verdict methods path - why - on depends_on - hidden_by`."""
    return [
        " - ".join(
            filter(
                None,
                [
                    f"{row.verdict} {'/'.join(row.methods) or 'any'} {row.host or ''}{row.path}".rstrip(),
                    row.why,
                    f"on {', '.join(row.depends_on)}" if row.depends_on else None,
                    row.hidden_by,
                ],
            )
        )
        for row in routes_in_maintenance(app)
    ]


def closed(*routes: BaseRoute, exempt: ExemptCallback | None = None, **settings: bool) -> FastAPI:
    """Return an app with these routes, and maintenance around it."""
    app = FastAPI(openapi_url=None, routes=list(routes))
    app.add_middleware(maintenance_middleware(backend=MemoryBackend(), exempt=exempt, **settings))  # type: ignore[call-overload]  # each is one of them
    return app


@pytest.mark.parametrize(
    ("exempt", "expected"),
    [
        (None, "blocked"),
        (path_prefix("/a"), "open - exempt by path_prefix('/a')"),
        (any_of(ADMIN, path_is("/a")), "open - exempt by path_is('/a')"),
        (any_of(is_staff, path_is("/a")), "depends - on function is_staff"),  # which may raise
        (all_of(safe_method, ADMIN), "depends - on header X-Admin-Key"),
        (all_of(safe_method, not_(path_is("/b"))), "open - exempt by all_of(safe_method, not_(path_is('/b')))"),
        (any_of(method_in("POST"), path_matches("/b.*")), "blocked"),
        (query_equals("q", "secret"), "depends - on query parameter q"),
        (cookie_equals("c", "secret"), "depends - on cookie c"),
        (bypass_cookie("0123456789abcdefg"), "depends - on cookie maintenance_bypass"),
        (host_is("a.example"), "depends - on host"),
        (client_in("10.0.0.0/8"), "depends - on client address"),
        (reads_body, "depends - on function reads_body, the body"),
        (ReadsBody(), "depends - on function ReadsBody, the body"),
        (without_source["exempt"], "depends - on function exempt"),
        (asks_elsewhere, "depends - on function asks_elsewhere"),
        (dependency(by_body) & ADMIN, "depends - on the dependency by_body, the body, header X-Admin-Key"),
        (dependency(reads_body), "depends - on the dependency reads_body, the body"),
        (any_of(path_is("/a"), dependency(is_staff)), "open - exempt by path_is('/a')"),
        (any_of(dependency(is_staff), path_is("/a")), "depends - on the dependency is_staff"),
        (partial(is_staff), "depends - on function is_staff"),
        (always, "open - exempt by always"),
    ],
)
def test_routes_names_what_exempts_or_what_it_depends_on(exempt: ExemptCallback | None, expected: str) -> None:
    assert [row.replace(" GET/HEAD /a", "") for row in rows(closed(A, exempt=exempt))] == [expected]


@pytest.mark.parametrize(
    ("template", "exempt", "verdict"),
    [
        ("/items/{id}", path_is("/items/7"), "depends"),
        ("/items/{id}", path_prefix("/items"), "open"),
        ("/items/{id}", path_prefix("/item"), "blocked"),
        ("/{rest:path}", path_prefix("/items"), "depends"),
        ("/items/{id}", not_(path_prefix("/billing")), "open"),
        ("/items/{id}", path_matches(".*"), "depends"),
    ],
)
def test_routes_with_a_path_parameter_may_depend_on_the_path(
    template: str, exempt: ExemptCallback, verdict: str
) -> None:
    assert [row.split()[0] for row in rows(closed(Route(template, plain), exempt=exempt))] == [verdict]


class Reading(BaseRoute):
    """A route of a class of its own."""

    def matches(self, scope: object) -> tuple[Match, dict[str, object]]:  # noqa: ARG002 -- Starlette's own signature
        return Match.FULL, {}


def with_handler() -> FastAPI:
    app = closed(A)
    app.add_exception_handler(404, handled)
    return app


def with_layer_inside() -> FastAPI:
    app = FastAPI(openapi_url=None, routes=[OPEN_A, B])
    app.add_middleware(Layer)
    app.add_middleware(maintenance_middleware(backend=MemoryBackend()))
    return app


def in_two() -> ASGIApp:
    app: ASGIApp = Router([A, Route("/a/b", plain), B])
    for exempt in (path_prefix("/a"), any_of(path_is("/a/b"), ADMIN)):
        app = maintenance_middleware(backend=MemoryBackend(), exempt=exempt)(app)
    return app


class MatchingRouter(APIRouter):
    """A router that chooses its requests in its own way."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        return super().matches(scope)


def including_a_router(kind: type[APIRouter]) -> FastAPI:
    app, router = closed(), kind(prefix="/r")
    router.add_api_route("/a", off)
    app.include_router(router)
    return app


def below_a_root_path() -> FastAPI:
    inner = FastAPI(openapi_url=None, routes=[A])
    inner.root_path = "/v1"
    return closed(Mount("/m", inner), exempt=path_is("/m/a"))


def mounted_in_itself() -> FastAPI:
    app = closed(Route("/off", off))
    app.mount("/again", app.router)
    return app


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (
            lambda: closed(Route("/off", off), Route("/on", on), WebSocketRoute("/ws", off_socket), exempt=always),
            ["open GET/HEAD /off - forced off", "blocked GET/HEAD /on - forced on", "open WEBSOCKET /ws - forced off"],
        ),
        (
            lambda: closed(OPEN_A, B, enabled=False),
            ["open GET/HEAD /a - forced off", "open GET/HEAD /b - enabled=False"],
        ),
        (lambda: closed(Route("/c", Methods)), ["open GET/HEAD /c - forced off", "blocked POST /c"]),
        (lambda: closed(Route("/c", DispatchesItself)), ["blocked DELETE/GET/HEAD/OPTIONS/PATCH/POST/PUT/TRACE /c"]),
        (
            lambda: closed(Mount("/m", FastAPI(openapi_url=None, routes=[OPEN_A, B]))),
            ["open GET/HEAD /m/a - forced off", "blocked GET/HEAD /m/b"],
        ),
        (lambda: closed(Mount("/m", own)), ["blocked any /m/{path:path} - own"]),
        (
            lambda: closed(Mount("/m", force_maintenance_mode_on(partial(own)))),
            ["blocked any /m/{path:path} - forced on - partial"],
        ),
        (
            lambda: closed(Mount("/m", Layer(Router([OPEN_A, Route("/on", on)])))),
            [
                "blocked GET/HEAD /m/a - Layer",
                "blocked GET/HEAD /m/on - forced on - Layer",
                "blocked any /m/{path:path} - Layer",
            ],
        ),
        (
            lambda: closed(Mount("/m", RoutesItself([OPEN_A]))),
            ["blocked GET/HEAD /m/a - RoutesItself", "blocked any /m/{path:path} - RoutesItself"],
        ),
        (
            lambda: closed(HandlesByHeader("/m", routes=[OPEN_A])),
            ["blocked GET/HEAD /m/a - HandlesByHeader", "blocked any /m/{path:path} - HandlesByHeader"],
        ),
        (
            lambda: closed(HandlesItself("/a", off), exempt=ADMIN),
            ["depends any /a - on header X-Admin-Key - HandlesItself"],
        ),
        (
            lambda: closed(MethodFromHeader("/a", off)),
            ["depends GET/HEAD /a - on what MethodFromHeader does - MethodFromHeader"],
        ),
        (lambda: closed(Reading(), exempt=always), ["depends any - on what Reading does - Reading"]),
        (below_a_root_path, ["depends GET/HEAD /m/a - on path"]),
        (
            lambda: including_a_router(MatchingRouter),
            ["depends GET /r/a - on what MatchingRouter does - MatchingRouter"]
            if NESTED
            else ["open GET /r/a - forced off"],
        ),
        (
            lambda: including_a_router(HandlingRouter),
            ["blocked GET /r/a - HandlingRouter", "blocked any /{path:path} - HandlingRouter"]
            if NESTED
            else ["open GET /r/a - forced off"],
        ),
        (lambda: closed(Host("a.example", Router([A]))), ["blocked GET/HEAD a.example/a"]),
        (with_handler, ["blocked GET/HEAD /a", "blocked any /{path:path} - handled"]),
        (
            lambda: closed(Mount("/m", NotNotFound([A]))),
            ["blocked GET/HEAD /m/a", "blocked any /m/{path:path} - NotNotFound"],
        ),
        (
            with_layer_inside,
            [
                "open GET/HEAD /a - forced off",
                "blocked GET/HEAD /b",
                "depends any /{path:path} - on what Layer does - Layer",
            ],
        ),
        (
            lambda: maintenance_middleware(backend=MemoryBackend(), exempt=not_(path_is("/b")))(Hiding(closed(OPEN_A))),
            ["depends any /{path:path} - on path - Hiding"],
        ),
        (
            mounted_in_itself,
            ["open GET/HEAD /off - forced off", "depends any /again/{path:path} - on what APIRouter does - APIRouter"],
        ),
        (
            in_two,
            [
                "depends GET/HEAD /a - on header X-Admin-Key",
                "open GET/HEAD /a/b - exempt by path_is('/a/b'), exempt by path_prefix('/a')",
                "blocked GET/HEAD /b",
            ],
        ),
        pytest.param(
            lambda: FastAPI(openapi_url=None, routes=[A, Mount("/m", closed(B))]),
            ["open GET/HEAD /a - no maintenance middleware", "blocked GET/HEAD /m/b"],
            id="maintenance in a mount",
        ),
    ],
)
def test_routes_has_each_route_and_what_may_answer_by_itself(make: Callable[[], ASGIApp], expected: list[str]) -> None:
    assert rows(make()) == expected


# The command

APP = """
from fastapi import FastAPI
from starlette.responses import Response
from fastapi_maintenance import LocalFileBackend, any_of, header_equals, maintenance_middleware, path_prefix

app = FastAPI(openapi_url=None)
exempt = any_of(path_prefix("/health"), header_equals("X-Admin-Key", "secret-key"))
app.add_middleware(maintenance_middleware(backend=LocalFileBackend("shop"), exempt=exempt))


@app.get("/health/{check}")
def health(check: str) -> None: ...


@app.post("/orders")
def order() -> None: ...


app.mount("/files", Response())
two = FastAPI(openapi_url=None, routes=app.routes)
two.add_middleware(maintenance_middleware(backend=LocalFileBackend("shop"), exempt=path_prefix("/")))
two.add_middleware(maintenance_middleware(backend=LocalFileBackend("bills")))
plain, broken = FastAPI(), FastAPI()


class Broken:
    def __init__(self, app: object) -> None:
        raise ValueError("no license")


broken.add_middleware(Broken)
"""


@pytest.fixture(autouse=True)
def _apps(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("routed.py").write_text(APP)
    monkeypatch.delitem(sys.modules, "routed", raising=False)


def test_routes_prints_a_table() -> None:
    result = invoke("routes", "--app", "routed:app")
    assert (result.exit_code, result.stderr) == (0, f"switch: file:{Path('shop').absolute()} of routed:app\n")
    assert result.stdout.splitlines() == [
        "open     GET   /health/{check}     exempt by path_prefix('/health')",
        "depends  POST  /orders             on header X-Admin-Key",
        "depends  any   /files/{path:path}  on header X-Admin-Key; behind Response, which may answer by itself",
    ]


def test_routes_as_json_has_each_field() -> None:
    Path("pyproject.toml").write_text('[tool.fastapi]\nentrypoint = "routed:app"\n')
    result = invoke("routes", "--json", FASTAPI_MAINTENANCE_BACKEND="file:other")
    fields = ("path", "methods", "verdict", "why", "depends_on", "hidden_by")
    admin = ["header X-Admin-Key"]
    expected = [
        ("/health/{check}", ["GET"], "open", "exempt by path_prefix('/health')", [], None),
        ("/orders", ["POST"], "depends", "", admin, None),
        ("/files/{path:path}", [], "depends", "", admin, "Response"),
    ]
    assert json.loads(result.stdout) == {
        "app": "routed:app",
        "switches": [f"file:{Path('shop').absolute()}"],
        "routes": [{"host": None, **dict(zip(fields, row, strict=True))} for row in expected],
    }
    assert result.stderr == ""


@pytest.mark.parametrize(
    ("words", "verdict", "switches"),
    [("--switch shop", "open", 1), ("--switch bills", "blocked", 1), ("", "blocked", 2)],
)
def test_routes_of_an_app_with_two_switches_are_those_of_one_or_of_both(
    words: str, verdict: str, switches: int
) -> None:
    result = invoke("routes", "--app", "routed:two", *words.split())
    assert {line.split()[0] for line in result.stdout.splitlines()} == {verdict}
    assert len(result.stderr.splitlines()) == switches


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (
            "routes",
            "no app given: give --app module:attribute, or have an entrypoint under [tool.fastapi] in pyproject.toml",
        ),
        ("routes --app routed:plain", "routed:plain is not an app with a maintenance middleware"),
        ("routes --app routed:APP", "the app routed:APP cannot be imported: AttributeError: "),
        ("routes --app routed:broken", "the app routed:broken cannot be built: ValueError: no license"),
        ("--backend file:x routes --app routed:app", "`routes` shows the routes of an app: give --app and --switch"),
        ("routes --app routed:app --backend file:x", "`routes` shows the routes of an app: give --app and --switch"),
    ],
)
def test_routes_without_an_app_prints_what_to_do(words: str, text: str) -> None:
    result = invoke(*words.split())
    assert (result.exit_code, errors(result).startswith(f"error: {text}")) == (2, True)


def test_repr_of_a_predicate_shows_no_secret() -> None:
    exempt = any_of(
        header_equals("X-Key", "s3cret"), query_equals("q", "s3cret"), cookie_equals("c", "s3cret"), partial(is_staff)
    )
    assert repr(exempt) == (
        "any_of(header_equals('X-Key', ...), query_equals('q', ...), cookie_equals('c', ...), is_staff)"
    )
