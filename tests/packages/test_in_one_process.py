"""Apps to which a package adds layers, mounts or a router of its own, with the real packages.

Off, each answers as without the middleware. On, only what must pass passes, and the hints at startup are right.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, NamedTuple

import anyio
import pytest
from fastapi import Depends, FastAPI
from starlette.testclient import TestClient, WebSocketDenialResponse
from starlette.types import ASGIApp

from fastapi_maintenance import (
    ExemptCallback,
    force_maintenance_mode_off,
    maintenance_middleware,
    path_is,
    path_prefix,
)
from fastapi_maintenance.router import maintenance_router
from tests.documents import example

Wrap = Callable[[Any], ASGIApp]
"""Adds the maintenance middleware to an app, or does not."""

HEALTH = path_prefix("/health")
POLLING = "/socket.io/?EIO=4&transport=polling"
OF_THE_APP = {
    "GET /orders": 503,
    "GET /health": 200,
    "GET /status": 200,
    "GET /docs": 200,
    "GET /openapi.json": 200,
    "GET /nothing": 404,
    "POST /orders": 405,
    "GET /orders/": 307,
}
"""What an app answers during maintenance that leaves `/health` and `/status` open."""
ALL_SHUT = {**dict.fromkeys(OF_THE_APP, 503), "GET /health": 200}


def answer() -> str:
    return "open"


def make_app(**settings: Any) -> FastAPI:  # noqa: ANN401 -- those of FastAPI
    app = FastAPI(**settings)
    add_routes(app)
    return app


def add_routes(app: FastAPI) -> None:
    app.add_api_route("/orders", answer)
    app.add_api_route("/health", answer)
    app.add_api_route("/status", force_maintenance_mode_off(lambda: "open"))


def cadwyn(wrap: Wrap) -> ASGIApp:
    """Choose the version by a header; both it and the app have the path /status, and the app's is forced off."""
    package = pytest.importorskip("cadwyn")
    router = package.VersionedAPIRouter()
    router.add_api_route("/status", answer)
    router.add_api_route("/items", answer)
    versions = package.VersionBundle(package.HeadVersion(), package.Version("2022-11-16"))
    app: Any = package.Cadwyn(versions=versions)
    app.generate_and_include_versioned_routers(router)
    add_routes(app)
    return wrap(app)


def socketio_app(**settings: Any) -> ASGIApp:  # noqa: ANN401 -- those of Socket.IO
    package = pytest.importorskip("socketio")
    app: ASGIApp = package.ASGIApp(package.AsyncServer(async_mode="asgi"), **settings)
    return app


def socketio_mounted(wrap: Wrap) -> ASGIApp:
    app = make_app()
    app.mount("/ws", socketio_app(socketio_path="/ws/socket.io"))
    return wrap(app)


def socketio_around(wrap: Wrap) -> ASGIApp:
    return socketio_app(other_asgi_app=wrap(make_app()))


def socketio_inside(wrap: Wrap) -> ASGIApp:
    return wrap(socketio_app(other_asgi_app=make_app()))


def gradio(wrap: Wrap) -> ASGIApp:
    package = pytest.importorskip("gradio")

    async def mounted() -> ASGIApp:  # outside an event loop it creates one, and leaves it open
        inner = package.Interface(str, "text", "text", analytics_enabled=False)
        return wrap(package.mount_gradio_app(make_app(), inner, path="/gradio"))

    return anyio.run(mounted)


def starlette_admin(wrap: Wrap) -> ASGIApp:
    app = make_app()
    pytest.importorskip("starlette_admin").BaseAdmin(secret_key="0" * 32).mount_to(app)
    return wrap(app)


def fastmcp_app() -> Any:  # noqa: ANN401 -- its types are not needed
    return pytest.importorskip("fastmcp").FastMCP("orders").http_app(path="/")


def fastmcp(wrap: Wrap) -> ASGIApp:
    inner = fastmcp_app()
    app = make_app(lifespan=inner.lifespan)
    app.mount("/mcp", inner)
    return wrap(app)


def instrumented(app: ASGIApp) -> ASGIApp:
    registry = pytest.importorskip("prometheus_client").CollectorRegistry()
    package = pytest.importorskip("prometheus_fastapi_instrumentator")
    package.Instrumentator(registry=registry).instrument(app).expose(app)
    return app


class Case(NamedTuple):
    """An app with a package, what it answers during maintenance, and the words of the layer hint at startup."""

    make: Callable[[Wrap], ASGIApp]
    expected: dict[str, int]
    hint: tuple[str, ...] = ()
    headers: dict[str, str] | None = None


CADWYN = ("VersionPickingMiddleware", "_RootCadwynAPIRouter")
CASES = {
    "cadwyn": Case(cadwyn, {**ALL_SHUT, "GET /items": 503}, CADWYN),
    "cadwyn-version": Case(
        cadwyn, {**ALL_SHUT, "GET /items": 503, "GET /health": 404}, CADWYN, {"x-api-version": "2022-11-16"}
    ),
    "socketio-mounted": Case(
        socketio_mounted, {**OF_THE_APP, f"GET /ws{POLLING}": 503, "GET /ws/x": 503, f"GET {POLLING}": 404}
    ),
    "socketio-around": Case(socketio_around, {**OF_THE_APP, f"GET {POLLING}": 200}),
    "socketio-inside": Case(socketio_inside, {**ALL_SHUT, f"GET {POLLING}": 503}, ("ASGIApp",)),
    "gradio": Case(
        gradio,
        {**OF_THE_APP, "GET /gradio": 307, "GET /gradio/": 503, "GET /gradio/config": 503, "GET /gradio/x": 503},
    ),
    "starlette-admin": Case(
        starlette_admin, {**OF_THE_APP, "GET /admin": 307, "GET /admin/": 503, "GET /admin/x/y/z": 503}
    ),
    "fastmcp": Case(fastmcp, {**OF_THE_APP, "GET /mcp": 307, "GET /mcp/": 503, "POST /mcp/": 503, "GET /mcp/x": 503}),
    "prometheus-around": Case(lambda wrap: instrumented(wrap(make_app())), {**OF_THE_APP, "GET /metrics": 503}),
    "prometheus-inside": Case(
        lambda wrap: wrap(instrumented(make_app())),
        OF_THE_APP | dict.fromkeys(("GET /metrics", "GET /nothing", "POST /orders", "GET /orders/"), 503),
        ("PrometheusInstrumentatorMiddleware",),
    ),
}


def with_maintenance(active: bool | None, exempt: ExemptCallback = HEALTH) -> Wrap:
    """Return a function that adds the middleware, on or off; None: one that does not."""

    def wrap(app: ASGIApp) -> ASGIApp:
        if active is None:
            return app
        middleware = maintenance_middleware(enabled=active, exempt=exempt)
        if not isinstance(app, FastAPI):
            return middleware(app)
        app.add_middleware(middleware)
        return app

    return wrap


def answers(case: Case, app: ASGIApp) -> dict[str, tuple[int, str | None]]:
    """Return the status and the media type of each answer."""
    found = {}
    with TestClient(app, follow_redirects=False, headers=case.headers) as client:
        for request in case.expected:
            response = client.request(*request.split(" "))
            found[request] = response.status_code, response.headers.get("content-type")
    return found


def statuses(case: Case, app: ASGIApp) -> dict[str, int]:
    return {request: status for request, (status, _) in answers(case, app).items()}


def hints_in(caplog: pytest.LogCaptureFixture) -> dict[str, str]:
    """Return the texts that the package logged as warnings and worse, by the last part of the logger."""
    own = [each for each in caplog.records if each.name.startswith("fastapi_maintenance")]
    return {each.name.rpartition(".")[2]: each.getMessage() for each in own if each.levelno >= logging.WARNING}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_package_answers_as_without_the_middleware_if_off_and_only_what_must_pass_if_on(
    case: Case, caplog: pytest.LogCaptureFixture
) -> None:
    assert answers(case, case.make(with_maintenance(False))) == answers(case, case.make(with_maintenance(None)))
    caplog.clear()
    assert statuses(case, case.make(with_maintenance(True))) == case.expected
    hints = hints_in(caplog)
    assert list(hints) == ["layer"] * bool(case.hint)
    assert [word for word in case.hint if word not in hints["layer"]] == []


def test_admin_api_behind_the_router_of_cadwyn_is_blocked_with_a_hint(caplog: pytest.LogCaptureFixture) -> None:
    def status(exempt: ExemptCallback) -> int:
        app = cadwyn(with_maintenance(True, exempt))
        assert isinstance(app, FastAPI)
        app.include_router(maintenance_router(dependencies=[Depends(answer)]))
        with TestClient(app) as client:
            return client.get("/maintenance").status_code

    assert status(HEALTH) == 503
    assert "GET /maintenance" in hints_in(caplog)["router"]
    assert status(path_prefix("/maintenance")) == 200


MOUNTS: dict[str, Callable[[], Any]] = {
    "/ws/socket.io/": lambda: (socketio_app(socketio_path="/ws/socket.io"), None),
    "/mcp/": lambda: (inner := fastmcp_app(), inner.lifespan),
}


@pytest.mark.parametrize("path", MOUNTS)
@pytest.mark.parametrize(
    ("is_marked", "exempt"), [(True, HEALTH), (False, path_prefix("/ws", "/mcp"))], ids=["marked", "exempt"]
)
def test_mounted_app_that_is_forced_off_or_exempt_passes_as_a_whole(
    path: str, is_marked: bool, exempt: ExemptCallback
) -> None:
    inner, lifespan = MOUNTS[path]()
    app = make_app(lifespan=lifespan)
    app.mount("/" + path.split("/")[1], force_maintenance_mode_off(inner) if is_marked else inner)
    with TestClient(with_maintenance(True, exempt)(app)) as client:
        # Both answer 400 to a request without their own headers and parameters.
        assert [client.get(each).status_code for each in (path, "/orders")] == [400, 503]


def test_path_that_is_exempt_below_a_mount_passes_with_a_hint_that_names_the_mount(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with TestClient(gradio(with_maintenance(True, path_is("/gradio/config")))) as client:
        assert "/gradio" in hints_in(caplog)["layer"]
        assert [client.get(path).status_code for path in ("/gradio/config", "/gradio/")] == [200, 503]


@pytest.mark.parametrize(
    ("make", "url", "expected"),
    [
        (socketio_mounted, "/ws/socket.io/", "503"),
        (socketio_inside, "/socket.io/", "503"),
        (socketio_around, "/socket.io/", "0{"),  # the handshake of Engine.IO
    ],
)
def test_websocket_of_socketio_is_blocked_if_the_middleware_is_around_it(
    make: Callable[[Wrap], ASGIApp], url: str, expected: str
) -> None:
    client = TestClient(make(with_maintenance(True)), headers={"Upgrade": "websocket"})
    try:
        with client.websocket_connect(f"{url}?EIO=4&transport=websocket") as socket:
            first = socket.receive_text()[:2]
    except WebSocketDenialResponse as denied:
        first = str(denied.status_code)
    assert first == expected


def test_example_of_socketio_blocks_it_with_the_rest_at_its_usual_path(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("socketio")
    names = example("Socket.IO").run()
    add_routes(names["app"])
    case = Case(lambda _: names["app"], {**OF_THE_APP, f"GET {POLLING}": 503, "GET /health": 503})
    assert statuses(case, names["app"])[f"GET {POLLING}"] == 200
    monkeypatch.setenv("FASTAPI_MAINTENANCE_MODE", "on")
    assert statuses(case, names["app"]) == case.expected
