"""Blocked responses for scripts of other origins: `responses/cors.py`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import httpx
import pytest
from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from fastapi_maintenance import ResponseCallback, as_html, as_redirect, maintenance_middleware
from tests.routing.apps import Rewriting, rewriting
from tests.support import client, handshake, websocket_scope

pytestmark = pytest.mark.anyio

SHOP = {"Origin": "https://shop.example"}
PREFLIGHT = {**SHOP, "Access-Control-Request-Method": "PUT", "Access-Control-Request-Headers": "x-token"}
CORS: dict[str, Any] = {
    "allow_origins": ["https://shop.example"],
    "allow_methods": ["PUT"],
    "allow_headers": ["X-Token"],
}
EXPOSED = {"Retry-After", "X-Maintenance-Mode"}


def inside(settings: dict[str, Any], **cors: Any) -> ASGIApp:  # noqa: ANN401 -- those of the CORS middleware
    app = shop()
    app.add_middleware(CORSMiddleware, **{**CORS, **cors})
    app.add_middleware(maintenance_middleware(**settings))
    return app


def inside_of_what_wraps_the_app(settings: dict[str, Any], **cors: Any) -> ASGIApp:  # noqa: ANN401 -- as above
    app = shop()
    app.add_middleware(CORSMiddleware, **{**CORS, **cors})
    return maintenance_middleware(app, **settings)


def in_a_mounted_app(settings: dict[str, Any], **cors: Any) -> ASGIApp:  # noqa: ANN401 -- as above
    app, mounted = FastAPI(), shop()
    mounted.add_middleware(CORSMiddleware, **{**CORS, **cors})
    app.mount("", mounted)
    app.add_middleware(maintenance_middleware(**settings))
    return app


def outside(settings: dict[str, Any], **cors: Any) -> ASGIApp:  # noqa: ANN401 -- as above
    app = shop()
    app.add_middleware(maintenance_middleware(**settings))
    app.add_middleware(CORSMiddleware, **{**CORS, **cors})
    return app


def on_both_sides(settings: dict[str, Any], **cors: Any) -> ASGIApp:  # noqa: ANN401 -- as above
    app = shop()
    app.add_middleware(CORSMiddleware, **CORS)
    app.add_middleware(maintenance_middleware(**settings))
    app.add_middleware(CORSMiddleware, **{**CORS, **cors})
    return app


def shop() -> FastAPI:
    app = FastAPI()
    app.api_route("/items", methods=["GET", "PUT"])(lambda: None)
    app.add_api_websocket_route("/ws", lambda _: None)
    return app


INSIDE = [inside, inside_of_what_wraps_the_app, in_a_mounted_app]
everywhere = pytest.mark.parametrize("make", [*INSIDE, outside, on_both_sides])


def exposed(response: httpx.Response) -> list[str]:
    return [name.strip() for name in response.headers["access-control-expose-headers"].split(",")]


@everywhere
@pytest.mark.parametrize("unmatched", ["pass", "block"])
async def test_blocked_response_is_readable_for_scripts_of_an_allowed_origin(
    make: Callable[..., ASGIApp], unmatched: str
) -> None:
    app = make({"backend": "memory:", "enabled": True, "unmatched": unmatched})
    async with client(app) as http:
        for _ in range(2):
            simple = await http.get("/items", headers=SHOP)
            preflight = await http.options("/items", headers=PREFLIGHT)
        other = await http.get("/items", headers={"Origin": "https://other.example"})
        same = await http.get("/items")
    assert (simple.status_code, preflight.status_code, other.status_code, same.status_code) == (503, 200, 503, 503)
    assert [each.headers.get("access-control-allow-origin") for each in (simple, preflight, other, same)] == [
        *([SHOP["Origin"]] * 2),
        *([None] * 2),
    ]
    assert (simple.json(), simple.headers["x-maintenance-mode"]) == (same.json(), "on")
    assert set(simple.headers["vary"].split(", ")) == {"Origin"}
    assert set(exposed(simple)) == EXPOSED
    assert "x-maintenance-mode" not in preflight.headers


@pytest.mark.parametrize("make", INSIDE)
@pytest.mark.parametrize("response", [None, as_html(), as_redirect("/closed")])
async def test_headers_that_the_app_exposes_are_kept(
    make: Callable[..., ASGIApp], response: ResponseCallback | None
) -> None:
    app = make({"enabled": True, "response": response}, expose_headers=["X-Total"], allow_credentials=True)
    async with client(app) as http:
        blocked = await http.get("/items", headers=SHOP)
    assert exposed(blocked) == ["X-Total", "Retry-After", "X-Maintenance-Mode"]
    assert blocked.headers["access-control-allow-credentials"] == "true"


async def test_headers_that_the_callback_sets_are_kept() -> None:
    def closed(_: Request) -> Response:
        headers = {"X-Maintenance-Mode": "planned", "Access-Control-Expose-Headers": "*"}
        return PlainTextResponse("closed", 503, headers=headers)

    async with client(inside({"enabled": True, "response": closed})) as http:
        blocked = await http.get("/items", headers=SHOP)
    assert blocked.headers["x-maintenance-mode"] == "planned"
    assert exposed(blocked) == ["*", "Retry-After", "X-Maintenance-Mode"]  # `*` is no wildcard for credentials


@pytest.mark.parametrize("is_hiding", [False, True])
async def test_response_behind_a_layer_that_may_refuse_preflights_is_readable_and_no_preflight_is_answered(
    is_hiding: bool,
) -> None:
    app = shop()
    app.add_middleware(CORSMiddleware, **CORS)
    app.add_middleware(cast("Any", rewriting if is_hiding else Rewriting))
    app.add_middleware(maintenance_middleware(enabled=True))
    async with client(app) as http:
        simple, preflight = await http.get("/items", headers=SHOP), await http.options("/items", headers=PREFLIGHT)
    assert (simple.status_code, simple.headers["access-control-allow-origin"]) == (503, SHOP["Origin"])
    assert (preflight.status_code, preflight.headers["x-maintenance-mode"]) == (503, "on")


class Leading(CORSMiddleware):
    """A CORS middleware that leads to the app in a way of its own."""

    def __init__(self, app: ASGIApp, **settings: Any) -> None:  # noqa: ANN401 -- those of the CORS middleware
        super().__init__(app, **settings)
        self.inner = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.inner(scope, receive, send)


class Choosing:
    """An app that leads to one of two others, of which one is a guess."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await (self.app if scope["path"] == "/items" else PlainTextResponse("internal"))(scope, receive, send)


async def test_class_that_may_lead_to_the_app_or_away_from_it_answers_nothing_that_is_blocked() -> None:
    app = shop()
    app.add_middleware(cast("Any", Leading), **CORS)
    app.add_middleware(maintenance_middleware(enabled=True))
    public, outer = shop(), FastAPI()
    public.add_middleware(CORSMiddleware, **CORS)
    outer.mount("/in", Choosing(public))
    outer.add_middleware(maintenance_middleware(enabled=True))
    for closed, path in ((app, "/items"), (outer, "/in/internal")):
        async with client(closed) as http:
            statuses = [(await http.get(path, headers=SHOP)).status_code]
            statuses.append((await http.options(path, headers=PREFLIGHT)).status_code)
        assert statuses == [503, 503]


@everywhere
async def test_handshake_is_blocked_as_without_cors(make: Callable[..., ASGIApp]) -> None:
    app = make({"backend": "memory:", "enabled": True})
    start, *_ = await handshake(app, websocket_scope(denial=True, headers=SHOP))
    assert (start["type"], start["status"]) == ("websocket.http.response.start", 503)
    assert (b"x-maintenance-mode", b"on") in start["headers"]
