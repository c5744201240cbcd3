"""`routes`: what each route of an app gets in maintenance, and why."""

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
from starlette.types import ASGIApp

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
from fastapi_maintenance.predicates.bypass import bypass_cookie
from tests.cli.driving import command, errors
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


typed_by_hand: dict[str, Any] = {}
exec("async def exempt(request): return await request.body()", typed_by_hand)  # noqa: S102 -- its source is not known


def by_body(item: Annotated[str, Body()]) -> bool:
    return item == "a"


def rows(app: ASGIApp) -> list[str]:
    """Return the verdict on each route in short."""
    return [
        " ".join(
            filter(
                None,
                [
                    row.verdict,
                    "/".join(row.methods) or "any",
                    (row.host or "") + row.path,
                    row.why and f"- {row.why}",
                    f"- on {', '.join(row.depends_on)}" if row.depends_on else None,
                    row.hidden_by and f"- {row.hidden_by}",
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
        (None, "blocked GET/HEAD /a"),
        (path_prefix("/a"), "open GET/HEAD /a - exempt by path_prefix('/a')"),
        (any_of(ADMIN, path_is("/a")), "open GET/HEAD /a - exempt by path_is('/a')"),
        (any_of(is_staff, path_is("/a")), "depends GET/HEAD /a - on function is_staff"),  # which may raise
        (all_of(safe_method, ADMIN), "depends GET/HEAD /a - on header X-Admin-Key"),
        (
            all_of(safe_method, not_(path_prefix("/b"))),
            "open GET/HEAD /a - exempt by all_of(safe_method, not_(path_prefix('/b')))",
        ),
        (any_of(method_in("POST"), path_matches("/b.*")), "blocked GET/HEAD /a"),
        (query_equals("q", "secret"), "depends GET/HEAD /a - on query parameter q"),
        (cookie_equals("c", "secret"), "depends GET/HEAD /a - on cookie c"),
        (bypass_cookie("0123456789abcdefg"), "depends GET/HEAD /a - on cookie maintenance_bypass"),
        (host_is("a.example"), "depends GET/HEAD /a - on host"),
        (client_in("10.0.0.0/8"), "depends GET/HEAD /a - on client address"),
        (reads_body, "depends GET/HEAD /a - on function reads_body, the body"),
        (ReadsBody(), "depends GET/HEAD /a - on function ReadsBody, the body"),
        (typed_by_hand["exempt"], "depends GET/HEAD /a - on function exempt"),
        (asks_elsewhere, "depends GET/HEAD /a - on function asks_elsewhere"),
        (dependency(by_body) & ADMIN, "depends GET/HEAD /a - on the dependency by_body, the body, header X-Admin-Key"),
        (dependency(reads_body), "depends GET/HEAD /a - on the dependency reads_body, the body"),
        (any_of(path_is("/a"), dependency(is_staff)), "open GET/HEAD /a - exempt by path_is('/a')"),
        (any_of(dependency(is_staff), path_is("/a")), "depends GET/HEAD /a - on the dependency is_staff"),
        (partial(is_staff), "depends GET/HEAD /a - on function is_staff"),
        (always, "open GET/HEAD /a - exempt by always"),
    ],
)
def test_routes_name_what_exempts_or_what_it_depends_on(exempt: ExemptCallback | None, expected: str) -> None:
    assert rows(closed(Route("/a", plain), exempt=exempt)) == [expected]


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
def test_path_predicate_may_be_unknown_for_a_template(template: str, exempt: ExemptCallback, verdict: str) -> None:
    assert [row.split()[0] for row in rows(closed(Route(template, plain), exempt=exempt))] == [verdict]


class Reading(BaseRoute):
    """A route of a class of its own."""

    def matches(self, scope: object) -> tuple[Match, dict[str, object]]:  # noqa: ARG002 -- as Starlette has it
        return Match.FULL, {}


def handling(app: FastAPI) -> FastAPI:
    """Add a handler of 404."""
    app.add_exception_handler(404, handled)
    return app


def layered(app: FastAPI) -> FastAPI:
    """Add an unknown layer inside."""
    inner = FastAPI(openapi_url=None, routes=app.routes)
    inner.add_middleware(Layer)
    inner.add_middleware(maintenance_middleware(backend=MemoryBackend()))
    return inner


def in_two(app: ASGIApp) -> ASGIApp:
    """Put maintenance around an app twice."""
    for exempt in (path_prefix("/a"), any_of(path_is("/a/b"), ADMIN)):
        app = maintenance_middleware(backend=MemoryBackend(), exempt=exempt)(app)
    return app


def including(router: APIRouter) -> FastAPI:
    """Return an app that includes a router."""
    router.add_api_route("/a", off)
    app = closed()
    app.include_router(router)
    return app


def below(root_path: str) -> FastAPI:
    """Return an app with a root path of its own."""
    app = FastAPI(openapi_url=None, routes=[Route("/a", plain)])
    app.root_path = root_path
    return app


def recursive() -> FastAPI:
    """Return an app that is mounted in itself."""
    app = closed(Route("/off", off))
    app.mount("/again", app.router)
    return app


OPEN_A = Route("/a", off)


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (
            lambda: closed(Route("/off", off), Route("/on", on), WebSocketRoute("/ws", off_socket), exempt=always),
            ["open GET/HEAD /off - forced off", "blocked GET/HEAD /on - forced on", "open WEBSOCKET /ws - forced off"],
        ),
        (
            lambda: closed(OPEN_A, Route("/b", plain), enabled=False),
            ["open GET/HEAD /a - forced off", "open GET/HEAD /b - enabled=False"],
        ),
        (
            lambda: closed(Route("/c", Methods)),
            ["open GET/HEAD /c - forced off", "blocked POST /c"],
        ),
        (lambda: closed(Route("/c", DispatchesItself)), ["blocked DELETE/GET/HEAD/OPTIONS/PATCH/POST/PUT/TRACE /c"]),
        (
            lambda: closed(Mount("/m", FastAPI(openapi_url=None, routes=[OPEN_A, Route("/b", plain)]))),
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
        (
            lambda: closed(Mount("/m", below("/v1")), exempt=path_is("/m/a")),
            ["depends GET/HEAD /m/a - on path"],
        ),
        (
            lambda: including(HandlingRouter(prefix="/r")),
            ["blocked GET /r/a - HandlingRouter", "blocked any /{path:path} - HandlingRouter"]
            if NESTED
            else ["open GET /r/a - forced off"],
        ),
        (
            lambda: closed(Host("a.example", Router([Route("/a", plain)]))),
            ["blocked GET/HEAD a.example/a"],
        ),
        (
            lambda: handling(closed(Route("/a", plain))),
            ["blocked GET/HEAD /a", "blocked any /{path:path} - handled"],
        ),
        (
            lambda: closed(Mount("/m", NotNotFound([Route("/a", plain)]))),
            ["blocked GET/HEAD /m/a", "blocked any /m/{path:path} - NotNotFound"],
        ),
        (
            lambda: layered(FastAPI(openapi_url=None, routes=[OPEN_A, Route("/b", plain)])),
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
            recursive,
            [
                "open GET/HEAD /off - forced off",
                "depends any /again/{path:path} - on what APIRouter does - APIRouter",
            ],
        ),
        (
            lambda: in_two(Router([Route("/a", plain), Route("/a/b", plain), Route("/b", plain)])),
            [
                "depends GET/HEAD /a - on header X-Admin-Key",
                "open GET/HEAD /a/b - exempt by path_is('/a/b'), exempt by path_prefix('/a')",
                "blocked GET/HEAD /b",
            ],
        ),
        (
            lambda: FastAPI(openapi_url=None, routes=[Route("/a", plain), Mount("/m", closed(Route("/b", plain)))]),
            ["open GET/HEAD /a - no maintenance middleware", "blocked GET/HEAD /m/b"],
        ),
    ],
)
def test_routes_go_by_what_the_finder_can_know(make: Callable[[], ASGIApp], expected: list[str]) -> None:
    assert rows(make()) == expected


# The command

APP = """
from fastapi import FastAPI
from starlette.responses import Response
from fastapi_maintenance import LocalFileBackend, any_of, header_equals, maintenance_middleware, path_is, path_prefix

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
plain = FastAPI()


class Broken:
    def __init__(self, app: object) -> None:
        raise ValueError("no license")


broken = FastAPI()
broken.add_middleware(Broken)
"""


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> str:
    """Write a module with apps."""
    Path("routed.py").write_text(APP)
    monkeypatch.delitem(sys.modules, "routed", raising=False)
    return "routed"


def test_routes_are_a_table(module: str) -> None:
    result = command("routes", "--app", f"{module}:app")
    assert (result.exit_code, result.stdout.splitlines()) == (
        0,
        [
            "open     GET   /health/{check}     exempt by path_prefix('/health')",
            "depends  POST  /orders             on header X-Admin-Key",
            "depends  any   /files/{path:path}  on header X-Admin-Key; behind Response, which may answer by itself",
        ],
    )
    assert result.stderr == f"switch: file:{Path('shop').absolute()} of routed:app\n"


def test_routes_as_json_have_each_field(module: str) -> None:
    Path("pyproject.toml").write_text(f'[tool.fastapi]\nentrypoint = "{module}:app"\n')
    result = command("routes", "--json", FASTAPI_MAINTENANCE_BACKEND="file:other")
    order = {"path": "/orders", "host": None, "methods": ["POST"], "verdict": "depends", "why": ""}
    order |= {"depends_on": ["header X-Admin-Key"], "hidden_by": None}
    assert json.loads(result.stdout) == {
        "app": "routed:app",
        "switches": [f"file:{Path('shop').absolute()}"],
        "routes": [
            {
                "path": "/health/{check}",
                "host": None,
                "methods": ["GET"],
                "verdict": "open",
                "why": "exempt by path_prefix('/health')",
                "depends_on": [],
                "hidden_by": None,
            },
            order,
            {**order, "path": "/files/{path:path}", "methods": [], "hidden_by": "Response"},
        ],
    }
    assert result.stderr == ""


@pytest.mark.parametrize(("name", "verdicts"), [("shop", {"open"}), ("bills", {"blocked"}), ("", {"blocked"})])
def test_routes_are_those_of_one_switch_if_it_is_named(module: str, name: str, verdicts: set[str]) -> None:
    result = command("routes", "--app", f"{module}:two", *(["--switch", name] if name else []))
    assert {line.split()[0] for line in result.stdout.splitlines()} == verdicts
    assert len(result.stderr.splitlines()) == (1 if name else 2)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ([], "no app given: give --app module:attribute, or have an entrypoint under [tool.fastapi] in pyproject.toml"),
        (["--app", "{}:plain"], "routed:plain is not an app with a maintenance middleware"),
        (["--app", "{}:APP"], "the app routed:APP cannot be imported: AttributeError: "),
        (["--app", "{}:broken"], "the app routed:broken cannot be built: ValueError: no license"),
    ],
)
def test_routes_without_an_app_say_what_to_do(module: str, words: list[str], text: str) -> None:
    result = command("routes", *(word.format(module) for word in words))
    assert (result.exit_code, text in errors(result)) == (2, True)


def test_repr_of_a_predicate_shows_no_secret() -> None:
    exempt = any_of(
        header_equals("X-Key", "s3cret"), query_equals("q", "s3cret"), cookie_equals("c", "s3cret"), partial(is_staff)
    )
    assert repr(exempt) == (
        "any_of(header_equals('X-Key', ...), query_equals('q', ...), cookie_equals('c', ...), is_staff)"
    )
