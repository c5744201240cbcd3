"""`openapi`: the 503 in the app's own document, and `predicates/in_advance.py`, which decides from method and path."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount
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
from fastapi_maintenance.predicates.in_advance import verdict_on
from fastapi_maintenance.router import maintenance_router
from tests.routing.test_routes_property import HandlingRoute
from tests.strategies import verdict_of
from tests.support import client, make_request

pytestmark = pytest.mark.anyio

ADMIN = header_equals("X-Admin", "yes")
JSON = {"schema": {"type": "object", "properties": {"detail": {"type": "string"}}, "required": ["detail"]}}


def app_with(**settings: Any) -> FastAPI:  # noqa: ANN401 -- those of the middleware
    """Return an app with routes of its own and in routers, which documents its maintenance."""
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
    """Return the operations that are documented with a 503."""
    return {
        f"{method.upper()} {path}"
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
        if method != "summary" and "503" in operation["responses"]
    }


def responses_of(app: FastAPI, path: str = "/health") -> dict[str, Any]:
    """Return the documented responses to a GET."""
    responses: dict[str, Any] = app.openapi()["paths"][path]["get"]["responses"]
    return responses


@pytest.mark.parametrize(
    ("exempt", "expected"),
    [
        (None, {"GET /health", "GET /outer/off", "GET /outer/inner/items/{item}", "GET /outer/inner/on"}),
        (path_prefix("/outer"), {"GET /health", "GET /outer/inner/on"}),
        (not_(path_prefix("/outer/inner")), {"GET /outer/inner/items/{item}", "GET /outer/inner/on"}),
        (always, {"GET /outer/inner/on"}),
    ],
)
def test_openapi_has_a_503_for_operations_that_some_request_meets_closed(
    exempt: ExemptCallback, expected: set[str]
) -> None:
    assert closable(app_with(exempt=exempt).openapi()) == expected


async def test_openapi_agrees_with_the_responses_of_the_app() -> None:
    app = app_with(exempt=any_of(ADMIN, path_prefix("/outer/inner/items")), enabled=True)
    async with client(app) as http:
        document = (await http.get("/openapi.json")).json()
        for path, operations in document["paths"].items():
            for method in operations:
                response = await http.request(method, path.replace("{item}", "7"))
                assert (response.status_code == 503) is (f"{method.upper()} {path}" in closable(document))


def test_openapi_of_the_admin_api_does_not_change() -> None:
    app = FastAPI()
    app.include_router(maintenance_router(dependencies=[], anyone_may_switch=True), prefix="/v1")
    before = {path: dict(operations) for path, operations in app.openapi()["paths"].items()}
    document_maintenance(app)
    app.add_middleware(maintenance_middleware())
    assert app.openapi()["paths"] == before


def test_description_names_the_dependency_or_the_body_and_no_header() -> None:
    def current_user() -> bool:
        return True

    async def is_query(request: Request) -> bool:
        return b"mutation" not in await request.body()

    depends = "; whether a request passes depends on "
    for exempt, expected in (
        (ADMIN, ""),
        (ADMIN | dependency(current_user), f"{depends}the dependency `current_user`"),
        (any_of(is_query, dependency(current_user)), f"{depends}the body and on the dependency `current_user`"),
    ):
        response = responses_of(app_with(exempt=exempt), "/outer/inner/items/{item}")["503"]
        assert response["description"] == f"Closed for maintenance{expected}"


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
def test_responses_are_documented_with_their_media_types(
    response: ResponseCallback, expected: dict[str, list[str]]
) -> None:
    responses = responses_of(app_with(response=response))
    shown = {status: list(answer.get("content", {})) for status, answer in responses.items() if status != "200"}
    assert shown == expected
    headers = {name for status in expected for name in responses[status]["headers"]}
    assert headers == {"Retry-After", "X-Maintenance-Mode", *(["Location"] if "303" in expected else [])}
    if expected == {"503": ["application/json"]}:
        assert responses["503"]["content"]["application/json"] == JSON


def test_response_503_of_the_operation_itself_is_kept() -> None:
    app = app_with()
    app.add_api_route("/", lambda: "open", responses={503: {"description": "Too busy"}})
    assert responses_of(app, "/")["503"] == {"description": "Too busy"}


OWN_STREAM: dict[int, Any] = {200: {"content": {"text/event-stream": {"schema": {}}}}}


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        ({}, {"application/json": {"schema": {}}, "text/event-stream": {"schema": {"type": "string"}}}),
        ({"status_code": 201}, {"text/event-stream": {"schema": {"type": "string"}}}),
        ({"methods": ["POST"]}, {"application/json": {"schema": {}}}),
        ({"responses": OWN_STREAM}, {"application/json": {"schema": {}}, "text/event-stream": {"schema": {}}}),
    ],
)
def test_stream_is_documented_with_the_200_of_a_get(own: dict[str, Any], expected: dict[str, object]) -> None:
    app = FastAPI()
    app.add_api_route("/", lambda: "open", **own)
    document_maintenance(app)
    app.add_middleware(maintenance_middleware(response=negotiate(as_json(), as_event_stream())))
    ((_, operation),) = app.openapi()["paths"]["/"].items()
    assert operation["responses"]["200"]["content"] == expected
    assert list(operation["responses"]["503"]["content"]) == ["application/json"]


def test_openapi_is_created_once_and_that_of_fastapi_does_not_change() -> None:
    app = app_with()
    document = app.openapi()
    assert app.openapi() is document
    assert app.openapi_schema is not None
    assert closable(app.openapi_schema) == set()
    app.openapi_schema = None
    app.add_api_route("/late", lambda: "later")
    assert "GET /late" in closable(app.openapi())


def test_operation_without_a_route_is_documented_by_its_path() -> None:
    app = FastAPI()
    app.add_middleware(maintenance_middleware(exempt=path_prefix("/open")))
    operation = {"responses": {"200": {"description": "By another layer"}}}
    document = {"paths": {"/open/metrics": {"get": operation, "summary": "Open"}, "/metrics": {"get": operation}}}
    app.openapi = lambda: document  # type: ignore[method-assign]  # the way that FastAPI documents
    document_maintenance(app)
    assert closable(app.openapi()) == {"GET /metrics"}


def test_openapi_of_two_middlewares_has_the_responses_of_both() -> None:
    app = app_with(exempt=path_prefix("/health"))
    settings: dict[str, Any] = {"exempt_callback": path_prefix("/outer/off"), "response_callback": as_html()}
    app.add_middleware(MaintenanceModeMiddleware, **settings)
    for path, kind in (("/health", "text/html"), ("/outer/off", "application/json")):
        assert list(responses_of(app, path)["503"]["content"]) == [kind]


@pytest.mark.parametrize(
    ("mounted_of", "is_off"),
    [(FastAPI.build_middleware_stack, False), (lambda app: app, False), (force_maintenance_mode_off, True)],
)
async def test_openapi_of_a_mounted_app_has_the_maintenance_around_it(
    mounted_of: Callable[[FastAPI], Any], is_off: bool
) -> None:
    app, sub = FastAPI(), FastAPI()
    sub.add_api_route("/items", lambda: "open")
    sub.add_api_route("/health", lambda: "alive")
    sub.add_api_route("/retired", force_maintenance_mode_on(lambda: "closed"))
    app.mount("/sub", mounted_of(sub))
    app.add_middleware(maintenance_middleware(exempt=path_is("/sub/health"), enabled=True))
    document_maintenance(sub, within=app)
    expected = {"GET /retired"} if is_off else {"GET /items", "GET /retired"}
    assert closable(sub.openapi()) == expected
    async with client(app) as http:
        for path in ("items", "health", "retired"):
            assert ((await http.get(f"/sub/{path}")).status_code == 503) is (f"GET /{path}" in expected)


@pytest.mark.parametrize("where", ["app", "mount", "mounted app", "route", "hidden endpoint"])
@pytest.mark.parametrize("mark", [force_maintenance_mode_on, force_maintenance_mode_off])
async def test_openapi_agrees_with_the_responses_wherever_a_mark_is(mark: Callable[[Any], Any], where: str) -> None:
    sub, is_on = FastAPI(), mark is force_maintenance_mode_on
    sub.router.route_class = HandlingRoute if where == "hidden endpoint" else APIRoute
    sub.add_api_route("/items/{item:int}", endpoint := lambda: "open")
    mount = Mount("/{name:str}", sub)
    app = FastAPI(routes=[mount])
    app.add_middleware(maintenance_middleware(exempt=always if is_on else never, enabled=True))
    document_maintenance(sub, within=app)
    places = {"app": app, "mount": mount, "mounted app": sub, "route": sub.routes[-1], "hidden endpoint": endpoint}
    mark(places[where])
    is_closed = is_on or where == "hidden endpoint"  # its route may answer by itself
    assert closable(sub.openapi()) == ({"GET /items/{item}"} if is_closed else set())
    async with client(app) as http:
        assert ((await http.get("/sub/items/7")).status_code == 503) is is_closed


@pytest.mark.parametrize(
    ("within_of", "is_found"),
    [
        (lambda _: None, False),
        (maintenance_middleware(), True),
        (lambda _: maintenance_middleware()(PlainTextResponse("an app without routes")), True),
    ],
)
def test_openapi_without_a_middleware_does_not_change_and_logs_a_warning(
    within_of: Callable[[FastAPI], ASGIApp | None], is_found: bool, caplog: pytest.LogCaptureFixture
) -> None:
    app = FastAPI()
    app.add_api_route("/items", lambda: "open")
    document_maintenance(app, within=within_of(app))
    assert closable(app.openapi()) == ({"GET /items"} if is_found else set())
    assert ("no maintenance middleware" in caplog.text) is not is_found


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"app": "app"}, "app must be a FastAPI app, got str 'app'"),
        ({"app": FastAPI(), "within": "app"}, "within must be callable, got str 'app'"),
    ],
)
def test_argument_that_is_not_an_app_is_refused(arguments: dict[str, Any], text: str) -> None:
    with pytest.raises(TypeError, match=text):
        document_maintenance(**arguments)


async def on_path(request: Request) -> bool:
    """Exempt a path."""
    return request.url.path == "/items"


async def on_header(request: Request) -> bool:
    """Exempt requests with a header."""
    return "x-admin" in request.headers


async def on_body(request: Request) -> bool:
    """Exempt requests without a JSON body."""
    try:
        await request.json()
    except Exception:  # noqa: BLE001 -- as users write it
        return True
    return False


async def on_path_later(request: Request) -> bool:
    """Exempt a path, after another task has run."""
    await asyncio.sleep(0)
    return request.url.path == "/items"


class Later:
    """An awaitable that is not a coroutine."""

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
def test_verdict_is_unknown_if_it_needs_more_than_method_and_path(
    predicate: ExemptCallback, expected: bool | None
) -> None:
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
def test_verdict_on_a_method_and_path_agrees_with_each_request(
    predicate: ExemptCallback, method: str, path: str, admin: bool
) -> None:
    request = make_request(path, method=method, headers=[("X-Admin", "yes")] if admin else [])
    assert verdict_on(predicate, method, path) in (None, verdict_of(predicate, request))
