"""The 503 in an API's own documentation: at each operation that maintenance can close, and at no other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp

from fastapi_maintenance import (
    ExemptCallback,
    MaintenanceModeMiddleware,
    ResponseCallback,
    all_of,
    always,
    any_of,
    as_event_stream,
    as_html,
    as_json,
    as_problem,
    as_redirect,
    client_in,
    dependency,
    document_maintenance,
    force_maintenance_mode_off,
    force_maintenance_mode_on,
    header_equals,
    maintenance_middleware,
    negotiate,
    never,
    not_,
    path_is,
    path_matches,
    path_prefix,
    safe_method,
)
from fastapi_maintenance.predicates.verdicts import verdict_on
from fastapi_maintenance.router import maintenance_router
from tests.strategies import verdict_of
from tests.support import client, make_request

pytestmark = pytest.mark.anyio

ADMIN = header_equals("X-Admin", "yes")
JSON = {"schema": {"type": "object", "properties": {"detail": {"type": "string"}}, "required": ["detail"]}}


def documented_app(**settings: Any) -> FastAPI:  # noqa: ANN401 -- those of the middleware
    """Return an app with routes here and in routers, which documents its maintenance."""
    inner, outer, app = APIRouter(prefix="/inner"), APIRouter(prefix="/outer"), FastAPI()
    document_maintenance(app)
    inner.add_api_route("/items/{item:int}", lambda item: item)
    inner.add_api_route("/on", force_maintenance_mode_on(lambda: "never"))
    outer.add_api_route("/off", force_maintenance_mode_off(lambda: "always"), methods=["POST"])
    outer.add_api_route("/off", lambda: "now and then")
    outer.include_router(inner)
    app.include_router(outer)
    app.add_api_route("/health", lambda: "alive")
    app.add_middleware(maintenance_middleware(**settings))
    return app


def closable(document: dict[str, Any]) -> set[str]:
    """Return each operation that is documented with a 503."""
    return {
        f"{method.upper()} {path}"
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
        if method != "summary" and "503" in operation["responses"]
    }


def test_operation_that_maintenance_can_close_has_a_503_with_its_retry_after() -> None:
    responses = documented_app().openapi()["paths"]["/health"]["get"]["responses"]
    assert set(responses) == {"200", "503"}
    assert responses["503"]["content"]["application/json"] == JSON
    assert set(responses["503"]["headers"]) == {"Retry-After", "X-Maintenance-Mode"}


@pytest.mark.parametrize(
    ("exempt", "expected"),
    [
        (None, {"GET /health", "GET /outer/off", "GET /outer/inner/items/{item}", "GET /outer/inner/on"}),
        (path_prefix("/outer"), {"GET /health", "GET /outer/inner/on"}),
        (not_(path_prefix("/outer/inner")), {"GET /outer/inner/items/{item}", "GET /outer/inner/on"}),
        (always, {"GET /outer/inner/on"}),
    ],
)
def test_operation_that_is_open_to_every_request_has_no_503(exempt: ExemptCallback, expected: set[str]) -> None:
    assert closable(documented_app(exempt=exempt).openapi()) == expected


async def test_operations_are_documented_as_they_are_answered() -> None:
    app = documented_app(exempt=any_of(ADMIN, path_prefix("/outer/inner/items")), enabled=True)
    async with client(app) as http:
        document = (await http.get("/openapi.json")).json()
        for path, operations in document["paths"].items():
            for method in operations:
                response = await http.request(method, path.replace("{item}", "7"))
                assert (response.status_code == 503) is (f"{method.upper()} {path}" in closable(document))


def test_admin_api_is_documented_as_always_open() -> None:
    app = FastAPI()
    app.include_router(maintenance_router(dependencies=[], anyone_may_switch=True), prefix="/v1")
    before = {path: dict(operations) for path, operations in app.openapi()["paths"].items()}
    document_maintenance(app)
    app.add_middleware(maintenance_middleware())
    assert app.openapi()["paths"] == before


def test_description_says_which_dependency_or_that_the_body_decides_and_no_name_of_a_header() -> None:
    def current_user() -> bool:
        return True

    async def is_query(request: Request) -> bool:
        return b"mutation" not in await request.body()

    descriptions = []
    for exempt in (ADMIN, ADMIN | dependency(current_user), any_of(is_query, dependency(current_user))):
        operation = documented_app(exempt=exempt).openapi()["paths"]["/outer/inner/items/{item}"]["get"]
        descriptions.append(operation["responses"]["503"]["description"])
    depends = "Closed for maintenance; whether a request passes depends on "
    assert descriptions == [
        "Closed for maintenance",
        f"{depends}the dependency `current_user`",
        f"{depends}the body and on the dependency `current_user`",
    ]


def test_operation_with_a_503_of_its_own_keeps_it() -> None:
    app = documented_app()
    app.add_api_route("/", lambda: "open", responses={503: {"description": "Too busy"}})
    assert app.openapi()["paths"]["/"]["get"]["responses"]["503"] == {"description": "Too busy"}


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        (as_json(), {"503": ["application/json"]}),
        (as_problem(), {"503": ["application/problem+json"]}),
        (negotiate(as_html(), as_json()), {"503": ["text/html", "application/json"]}),
        (negotiate(as_redirect("/closed"), as_json()), {"303": [], "503": ["application/json"]}),
        (as_redirect("/closed"), {"303": []}),
        (lambda _: PlainTextResponse("closed", 503), {"503": []}),
    ],
)
def test_response_is_documented_as_far_as_known(response: ResponseCallback, expected: dict[str, list[str]]) -> None:
    responses = documented_app(response=response).openapi()["paths"]["/health"]["get"]["responses"]
    shown = {status: list(answer.get("content", {})) for status, answer in responses.items() if status != "200"}
    assert shown == expected


@pytest.mark.parametrize(
    ("own", "shown"),
    [
        ({}, ["application/json", "text/event-stream"]),
        ({"status_code": 201}, ["text/event-stream"]),
        ({"methods": ["POST"]}, ["application/json"]),
        ({"responses": {200: {"content": {"text/event-stream": {"schema": {}}}}}}, None),
    ],
)
def test_stream_is_documented_beside_what_a_get_answers_itself(own: dict[str, Any], shown: list[str] | None) -> None:
    app = FastAPI()
    app.add_api_route("/", lambda: "open", **own)
    before = app.openapi()["paths"]["/"]
    document_maintenance(app)
    app.add_middleware(maintenance_middleware(response=negotiate(as_json(), as_event_stream())))
    ((method, operation),) = app.openapi()["paths"]["/"].items()
    stream = operation["responses"]["200"]["content"].get("text/event-stream")
    if shown is None:
        assert operation["responses"]["200"]["content"] == before[method]["responses"]["200"]["content"]
    else:
        assert list(operation["responses"]["200"]["content"]) == shown
        assert stream == ({"schema": {"type": "string"}} if "text/event-stream" in shown else None)
    assert list(operation["responses"]["503"]["content"]) == ["application/json"]


def test_document_is_made_once_and_the_one_of_fastapi_is_left_as_it_was() -> None:
    app = documented_app()
    document = app.openapi()
    assert app.openapi() is document
    assert app.openapi_schema is not None
    assert closable(app.openapi_schema) == set()
    app.openapi_schema = None
    app.add_api_route("/late", lambda: "later")
    assert "GET /late" in closable(app.openapi())


def test_operation_that_only_the_document_knows_is_documented_by_its_path() -> None:
    app = FastAPI()
    app.add_middleware(maintenance_middleware(exempt=path_prefix("/open")))
    operation = {"responses": {"200": {"description": "By another layer"}}}
    document = {"paths": {"/open/metrics": {"get": operation, "summary": "Open"}, "/metrics": {"get": operation}}}
    app.openapi = lambda: document  # type: ignore[method-assign]  # FastAPI's own way to extend it
    document_maintenance(app)
    assert closable(app.openapi()) == {"GET /metrics"}


def test_document_of_two_middlewares_is_of_both_whether_function_or_class() -> None:
    app = documented_app(exempt=path_prefix("/health"))
    app.add_middleware(
        MaintenanceModeMiddleware, exempt_callback=path_prefix("/outer/off"), response_callback=as_html()
    )
    responses = app.openapi()["paths"]
    for path, kind in (("/health", "text/html"), ("/outer/off", "application/json")):
        assert list(responses[path]["get"]["responses"]["503"]["content"]) == [kind]


@pytest.mark.parametrize("wrap", [FastAPI.build_middleware_stack, lambda app: app])
async def test_mounted_app_documents_the_maintenance_of_the_one_around_it(wrap: Callable[[FastAPI], Any]) -> None:
    app, sub = FastAPI(), FastAPI()
    sub.add_api_route("/items", lambda: "open")
    sub.add_api_route("/health", lambda: "alive")
    app.mount("/sub", wrap(sub))
    app.add_middleware(maintenance_middleware(exempt=path_is("/sub/health"), enabled=True))
    document_maintenance(sub, within=app)
    assert closable(sub.openapi()) == {"GET /items"}
    async with client(app) as http:
        assert [(await http.get(path)).status_code for path in ("/sub/items", "/sub/health")] == [503, 200]


def test_mounted_app_that_is_forced_off_documents_what_is_forced_on_alone() -> None:
    app, sub = FastAPI(), FastAPI()
    sub.add_api_route("/items", lambda: "open")
    sub.add_api_route("/retired", force_maintenance_mode_on(lambda: "closed"))
    app.mount("/sub", force_maintenance_mode_off(sub))
    app.add_middleware(maintenance_middleware())
    document_maintenance(sub, within=app)
    assert closable(sub.openapi()) == {"GET /retired"}


def test_wrapped_app_documents_what_wraps_it() -> None:
    app = FastAPI()
    app.add_api_route("/items", lambda: "open")
    document_maintenance(app, within=maintenance_middleware()(app))
    assert closable(app.openapi()) == {"GET /items"}


@pytest.mark.parametrize("within", [None, maintenance_middleware()(PlainTextResponse("an app without routes"))])
def test_app_without_maintenance_is_documented_as_it_is_with_a_warning(
    within: ASGIApp | None, caplog: pytest.LogCaptureFixture
) -> None:
    app = FastAPI()
    app.add_api_route("/items", lambda: "open")
    document_maintenance(app, within=within)
    assert bool(closable(app.openapi())) is (within is not None)
    assert ("no maintenance middleware" in caplog.text) is (within is None)


def test_document_of_what_is_not_an_app_is_refused() -> None:
    with pytest.raises(TypeError, match="app must be a FastAPI app, got str 'app'"):
        document_maintenance("app")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="within must be callable, got str 'app'"):
        document_maintenance(FastAPI(), within="app")  # type: ignore[arg-type]


async def on_path(request: Request) -> bool:
    """Exempt by the path, asynchronously."""
    return request.url.path == "/items"


async def on_header(request: Request) -> bool:
    """Exempt by a header, asynchronously."""
    return "x-admin" in request.headers


async def on_body(request: Request) -> bool:
    """Exempt what has no body that is JSON."""
    try:
        await request.json()
    except Exception:  # noqa: BLE001 -- as users write it
        return True
    return False


async def on_path_later(request: Request) -> bool:
    """Exempt by the path, once others have run."""
    await asyncio.sleep(0)
    return request.url.path == "/items"


class Later:
    """An awaitable that is no coroutine, and takes its time."""

    def __await__(self) -> Any:  # noqa: ANN401 -- anything can be awaited
        return iter([None])


@pytest.mark.parametrize(
    ("predicate", "expected"),
    [
        (always, True),
        (path_matches(r"/it.*"), True),
        (safe_method, True),
        (lambda request: request.url.path.startswith("/items"), True),
        (lambda request: request.url.query == "", None),
        (lambda request: request.scope.get("client") is None, None),
        (lambda request: "client" in request.scope, None),
        (lambda request: "path" in request.scope, True),
        (lambda request: request.state.admin, None),
        (lambda request: request.cookies, None),
        (lambda _: 1 / 0, None),
        (on_path, True),
        (on_header, None),
        (on_body, None),
        (on_path_later, None),
        (lambda _: Later(), None),
        (client_in("10.0.0.0/8"), None),
        (ADMIN, None),
        (not_(ADMIN), None),
        (any_of(ADMIN, path_prefix("/items")), True),
        (any_of(on_header, on_path), True),
        (all_of(ADMIN, path_prefix("/other")), False),
        (all_of(ADMIN, path_prefix("/items")), None),
        (any_of(), False),
        (all_of(), True),
    ],
)
def test_verdict_is_what_is_known_from_method_and_path(predicate: ExemptCallback, expected: bool | None) -> None:
    assert verdict_on(predicate, "GET", "/items") is expected


LEAVES = st.sampled_from([ADMIN, safe_method, path_prefix("/items"), path_is("/"), on_path, on_header, always, never])
COMPOSED = st.recursive(
    LEAVES,
    lambda inner: (
        inner.map(not_)
        | st.lists(inner, max_size=3).map(lambda parts: any_of(*parts))
        | st.lists(inner, max_size=3).map(lambda parts: all_of(*parts))
    ),
    max_leaves=6,
)


@given(COMPOSED, st.sampled_from(["GET", "POST"]), st.sampled_from(["/", "/items", "/health"]), st.booleans())
def test_verdict_on_a_method_and_a_path_holds_for_each_request(
    predicate: ExemptCallback, method: str, path: str, admin: bool
) -> None:
    request = make_request(path, method=method, headers=[("X-Admin", "yes")] if admin else [])
    assert verdict_on(predicate, method, path) in (None, verdict_of(predicate, request))
