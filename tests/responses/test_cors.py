"""Blocked responses for scripts of other origins, `responses/cors.py`; `tests/browser` reads them in a browser."""

from typing import Any, cast

import httpx
import pytest
from fastapi import FastAPI
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from fastapi_maintenance import ResponseCallback, as_html, as_redirect, maintenance_middleware
from tests.routing.apps import Rewriting, rewriting
from tests.support import client, handshake, websocket_scope

pytestmark = pytest.mark.anyio

SHOP = {"Origin": "https://shop.example"}
PREFLIGHT = {**SHOP, "Access-Control-Request-Method": "PUT", "Access-Control-Request-Headers": "x-token"}
CORS: dict[str, Any] = {"allow_origins": [SHOP["Origin"]], "allow_methods": ["PUT"], "allow_headers": ["X-Token"]}
INSIDE = ["inside", "wrapped", "mounted", "on the route"]
each_place = pytest.mark.parametrize("place", [*INSIDE, "outside", "both"])


def shop() -> FastAPI:
    app = FastAPI()
    app.api_route("/items", methods=["GET", "PUT"])(lambda: None)
    app.add_api_websocket_route("/ws", lambda _: None)
    return app


def app_with(*layers: Any, app: FastAPI | None = None, **cors: Any) -> FastAPI:  # noqa: ANN401 -- layers and settings
    """Return the shop with a CORS middleware and these layers around it."""
    app = shop() if app is None else app
    app.add_middleware(CORSMiddleware, **{**CORS, **cors})
    for layer in layers:
        app.add_middleware(layer)
    return app


def app_in(place: str, cors: dict[str, Any] | None = None, **settings: Any) -> ASGIApp:  # noqa: ANN401 -- of the middleware
    """Return the shop in maintenance with a CORS middleware in this place."""
    settings = {"backend": "memory:", "enabled": True, **settings}
    if place == "wrapped":
        return maintenance_middleware(app_with(**(cors or {})), **settings)
    if place == "mounted":
        outer = FastAPI()
        outer.mount("", app_with(**(cors or {})))
    elif place == "on the route":
        outer, middleware = shop(), [Middleware(CORSMiddleware, **{**CORS, **(cors or {})})]
        outer.router.routes.insert(0, Route("/items", closed, methods=["GET", "OPTIONS"], middleware=middleware))
    else:
        outer = shop() if place == "outside" else app_with(**(cors or {}))
    outer.add_middleware(maintenance_middleware(**settings))
    return app_with(app=outer) if place in {"outside", "both"} else outer


async def get_and_options(app: ASGIApp, path: str = "/items") -> tuple[httpx.Response, httpx.Response]:
    """Send a simple request and a preflight from an allowed origin."""
    async with client(app) as http:
        return await http.get(path, headers=SHOP), await http.options(path, headers=PREFLIGHT)


def exposed(response: httpx.Response) -> list[str]:
    return [name.strip() for name in response.headers["access-control-expose-headers"].split(",")]


@each_place
@pytest.mark.parametrize("unmatched", ["pass", "block"])
async def test_blocked_response_is_readable_by_scripts_of_an_allowed_origin(place: str, unmatched: str) -> None:
    app = app_in(place, unmatched=unmatched)
    async with client(app) as http:
        for _ in range(2):
            simple, preflight = await get_and_options(app)
        other = await http.get("/items", headers={"Origin": "https://other.example"})
        same = await http.get("/items")
    responses = [simple, preflight, other, same]
    assert [response.status_code for response in responses] == [503, 200, 503, 503]
    allowed = [response.headers.get("access-control-allow-origin") for response in responses]
    assert allowed == [SHOP["Origin"], SHOP["Origin"], None, None]
    assert (simple.json(), simple.headers["x-maintenance-mode"]) == (same.json(), "on")
    assert set(simple.headers["vary"].split(", ")) == {"Origin"}
    assert set(exposed(simple)) == {"Retry-After", "X-Maintenance-Mode"}
    assert "x-maintenance-mode" not in preflight.headers


def closed(_: Request) -> Response:
    headers = {"X-Maintenance-Mode": "planned", "Access-Control-Expose-Headers": "*"}
    return PlainTextResponse("closed", 503, headers=headers)


@pytest.mark.parametrize("place", INSIDE)
@pytest.mark.parametrize(
    ("response", "exposed_by_app", "mode", "name"),
    [
        *((response, ["X-Total"], "on", "X-Total") for response in (None, as_html(), as_redirect("/closed"))),
        (closed, [], "planned", "*"),  # `*` is not a wildcard for requests with credentials
    ],
)
async def test_headers_of_the_app_and_the_callback_are_kept(
    place: str, response: ResponseCallback | None, exposed_by_app: list[str], mode: str, name: str
) -> None:
    cors = {"expose_headers": exposed_by_app, "allow_credentials": True}
    blocked, _ = await get_and_options(app_in(place, cors, response=response))
    assert exposed(blocked) == [name, "Retry-After", "X-Maintenance-Mode"]
    assert (blocked.headers["access-control-allow-credentials"], blocked.headers["x-maintenance-mode"]) == (
        "true",
        mode,
    )


@pytest.mark.parametrize("layer", [rewriting, Rewriting])
async def test_preflight_behind_a_layer_that_may_refuse_it_is_blocked(layer: object) -> None:
    simple, preflight = await get_and_options(app_with(layer, maintenance_middleware(enabled=True)))
    assert (simple.status_code, simple.headers["access-control-allow-origin"]) == (503, SHOP["Origin"])
    assert (preflight.status_code, preflight.headers["x-maintenance-mode"]) == (503, "on")


class Leading(CORSMiddleware):
    """A CORS middleware that calls the app in its own way."""

    def __init__(self, app: ASGIApp, **settings: Any) -> None:  # noqa: ANN401 -- those of the CORS middleware
        super().__init__(app, **settings)
        self.inner = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.inner(scope, receive, send)


class Choosing:
    """An app that calls one of two others, depending on the path."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await (self.app if scope["path"] == "/items" else PlainTextResponse("internal"))(scope, receive, send)


async def test_class_that_may_not_lead_to_the_app_sends_no_blocked_response() -> None:
    app, outer = shop(), FastAPI()
    app.add_middleware(cast("Any", Leading), **CORS)
    outer.mount("/in", Choosing(app_with()))
    for each, path in ((app, "/items"), (outer, "/in/internal")):
        each.add_middleware(maintenance_middleware(enabled=True))
        assert [response.status_code for response in await get_and_options(each, path)] == [503, 503]


@each_place
async def test_handshake_is_blocked_as_without_cors(place: str) -> None:
    start, *_ = await handshake(app_in(place), websocket_scope(denial=True, headers=SHOP))
    assert (start["type"], start["status"]) == ("websocket.http.response.start", 503)
    assert (b"x-maintenance-mode", b"on") in start["headers"]
