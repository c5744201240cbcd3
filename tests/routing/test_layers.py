"""`_routing/layers.py`, `_helpers/framework.py`: behind an unknown layer nothing is left to the app."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable
from types import FunctionType, ModuleType
from typing import Any

import httpx
import pytest
from fastapi import APIRouter, FastAPI, Request
from fastapi.exception_handlers import http_exception_handler
from fastapi.middleware.cors import CORSMiddleware
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.middleware.httpsredirect import HTTPSRedirectMiddleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.routing import Mount, Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from fastapi_maintenance import MaintenanceModeMiddleware, MemoryBackend, maintenance_middleware, path_prefix
from fastapi_maintenance._helpers.framework import is_framework, name_of, unwrapped
from fastapi_maintenance.testing import maintenance_forced
from tests.routing.apps import (
    MARKS,
    Case,
    Resource,
    Rewriting,
    around,
    assert_decided,
    built,
    hiding,
    itself,
    marked,
    mounted,
    off,
    plain,
    posting_routes,
    rewriting,
    served,
    statuses,
    unmarked,
)
from tests.support import client

pytestmark = MARKS


async def rewrite(request: Request, call_next: Callable[[Request], Any]) -> Any:  # noqa: ANN401 -- any response
    """Do as `Rewriting` does, as a function."""
    responses: list[Any] = []

    async def inner(scope: Scope, receive: Receive, send: Send) -> None:
        responses.append(await call_next(Request(scope, receive, send)))

    async def send_nothing(_: Any) -> None: ...  # noqa: ANN401 -- any message

    await Rewriting(inner)(request.scope, request.receive, send_nothing)
    return responses[0]


class WithDispatch(BaseHTTPMiddleware):
    async def dispatch(self, request: Request, call_next: Callable[[Request], Any]) -> Any:  # noqa: ANN401 -- as above
        return await rewrite(request, call_next)


class OwnCORS(CORSMiddleware):
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await Rewriting(self.app)(scope, receive, send)


class DressedCORS(OwnCORS):
    """The same under the name of the known one."""


functools.update_wrapper(DressedCORS, CORSMiddleware, updated=())


class RewritingCall:
    """A class to mix into others, that rewrites in its call."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        call: ASGIApp = super().__call__  # type: ignore[misc]  # of the class that this one is mixed into
        await Rewriting(call)(scope, receive, send)


class RewritingApp(RewritingCall, FastAPI): ...


class RewritingRouter(RewritingCall, Router): ...


class RewritingRoute(RewritingCall, Route): ...


class RewritingStack(FastAPI):
    def build_middleware_stack(self) -> ASGIApp:
        return Rewriting(super().build_middleware_stack())


class RewritingInApp(APIRouter):
    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        await Rewriting(super().app)(scope, receive, send)


class RewritingMount(Mount):
    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        await Rewriting(super().handle)(scope, receive, send)


def app_with(*layers: Any, kind: type[FastAPI] = FastAPI) -> FastAPI:  # noqa: ANN401 -- of any kind
    return kind(routes=posting_routes(), middleware=[Middleware(layer) for layer in layers])


def app_with_a_function() -> FastAPI:
    app = app_with()
    app.middleware("http")(rewrite)
    return app


def app_with_its_own_build() -> FastAPI:
    app = app_with()
    build = app.build_middleware_stack
    app.build_middleware_stack = lambda: Rewriting(build())  # type: ignore[method-assign]  # as instrumentations do
    return app


def app_with_stack(make: Callable[[ASGIApp], ASGIApp]) -> FastAPI:
    app = app_with()
    app.middleware_stack = make(app.build_middleware_stack())
    return app


def router_with_stack(make: Callable[[ASGIApp], ASGIApp]) -> Router:
    router = Router(posting_routes())
    stack: Any = make(router.middleware_stack)
    router.middleware_stack = stack
    return router


def mount_behind(layer: Any) -> Mount:  # noqa: ANN401 -- of any kind
    return Mount("", routes=posting_routes(), middleware=[Middleware(layer)])


UNKNOWN: dict[str, Callable[[], ASGIApp]] = {
    "class": lambda: app_with(Rewriting),
    "class, built": lambda: built(app_with(Rewriting)),
    "class among known ones": lambda: app_with(GZipMiddleware, Rewriting, CORSMiddleware),
    "class among known ones, built": lambda: built(app_with(GZipMiddleware, Rewriting, CORSMiddleware)),
    "layer that hides the app": lambda: built(app_with(rewriting)),
    "function": app_with_a_function,
    "class with a dispatch": lambda: app_with(WithDispatch),
    "subclass of a known one": lambda: app_with(OwnCORS),
    "class with the name of a known one": lambda: app_with(DressedCORS),
    "stack given to an app": lambda: app_with_stack(Rewriting),
    "build of a class of app": lambda: app_with(kind=RewritingStack),
    "build given to an app": app_with_its_own_build,
    "middleware of a router": lambda: Router(posting_routes(), middleware=[Middleware(Rewriting)]),
    "stack given to a router": lambda: router_with_stack(Rewriting),
    "middleware of a mount": lambda: mount_behind(Rewriting),
    "middleware of a mount that hides": lambda: mount_behind(rewriting),
}
DECIDING: dict[str, Callable[[], ASGIApp]] = {
    "call of the app": lambda: app_with(kind=RewritingApp),
    "other app as the stack of an app": lambda: app_with_stack(lambda _: app_with(Rewriting)),
    "call of the router": lambda: RewritingRouter(posting_routes()),
    "app method of the router": lambda: RewritingInApp(routes=posting_routes()),
    "other router as the stack of a router": lambda: router_with_stack(
        lambda _: Router(posting_routes(), middleware=[Middleware(Rewriting)])
    ),
    "handle of a mount": lambda: RewritingMount("", routes=posting_routes()),
}
"""These may choose another route by more than the path, so that no mark off is certain."""
OTHERS: dict[str, Callable[[], ASGIApp]] = {
    "layer around an app": lambda: Rewriting(app_with()),
    "call of a route": lambda: RewritingRoute("/items", plain, methods=["POST"]),
}


@pytest.mark.parametrize("where", [itself, mounted])
@pytest.mark.parametrize("name", [*UNKNOWN, *DECIDING, *OTHERS])
async def test_layer_that_may_rewrite_or_answer_a_request_leaves_nothing_to_the_app(
    name: str, where: Callable[[ASGIApp], ASGIApp]
) -> None:
    make = {**UNKNOWN, **DECIDING, **OTHERS}[name]
    case = Case(
        lambda: where(make()),
        blocked=["POST /items", "POST /api/items", "GET /items as POST", "PREFLIGHT /items as POST"],
        doubtful=["PATCH /nothing", "/nothing"],
    )
    if name != "call of a route":
        decides = name in DECIDING or (name == "layer around an app" and where is mounted)
        blocked = [*case.blocked, "/health"] if decides else case.blocked
        case = case._replace(blocked=blocked, passed=[] if decides else ["/health"], shut=["/retired"])
    await assert_decided(case)


async def test_layer_added_or_changed_between_two_requests_is_seen() -> None:
    app = app_with()
    mount = Mount("/in", app_with(GZipMiddleware))
    app.router.routes.append(mount)
    closed = around(app)
    found = [await statuses(closed, "/nothing", "/in/nothing")]
    mount.app = Rewriting(mount.app)
    found.append(await statuses(closed, "/nothing", "/in/nothing"))
    assert app.middleware_stack is not None
    app.middleware_stack = Rewriting(app.middleware_stack)
    found.append(await statuses(closed, "/nothing", "/in/nothing"))
    assert found == [[404, 404], [404, 503], [503, 503]]


async def test_layer_that_turns_to_another_app_is_followed() -> None:
    layer = GZipMiddleware(GZipMiddleware(Router([Route("/", plain)])))
    second = FastAPI()
    second.add_api_route("/", marked)
    closed = around(layer)
    before = await statuses(closed, "/")
    layer.app = GZipMiddleware(second)
    assert (before, await statuses(closed, "/")) == ([503], [200])


KNOWN: list[Any] = [
    Middleware(GZipMiddleware),
    Middleware(CORSMiddleware, allow_origins=["*"]),
    Middleware(HTTPSRedirectMiddleware),
    Middleware(TrustedHostMiddleware, allowed_hosts=["testserver"]),
    Middleware(SessionMiddleware, secret_key="secret"),  # noqa: S106 -- of a test
    Middleware(MaintenanceModeMiddleware, backend="memory:"),
    Middleware(maintenance_middleware(backend="memory:")),
    Middleware(maintenance_middleware, backend="memory:"),
]


@pytest.mark.parametrize("is_built", [True, False])
@pytest.mark.parametrize("where", [itself, mounted])
async def test_layer_that_is_known_is_seen_through(is_built: bool, where: Callable[[ASGIApp], ASGIApp]) -> None:
    app = FastAPI(routes=posting_routes(), middleware=KNOWN)
    async with client(around(where(built(app) if is_built else app))) as http:
        http.base_url = httpx.URL("https://testserver")
        found = [(await http.get(path)).status_code for path in ("/nothing", "/items", "/items/", "/health")]
    assert found == [404, 405, 307, 200]


@pytest.mark.skipif("max_body_size" not in inspect.signature(FastAPI).parameters, reason="it has no limit of bodies")
async def test_layer_that_limits_bodies_is_seen_through() -> None:
    limit: Any = {"max_body_size": 1000}

    def app() -> FastAPI:
        router, limited = APIRouter(**limit), FastAPI(**limit)
        router.add_api_route("/items", unmarked, methods=["POST"])
        limited.include_router(router)
        limited.router.routes += [
            Mount("/a", router),
            Mount("/b", routes=posting_routes(), **limit),
            Route("/c", Resource, **limit),
        ]
        return limited

    left = ["/nothing", "/items", "/a/items", "/a/nothing", "/b/items", "/b/nothing", "PUT /c"]
    await assert_decided(Case(app, left=left))


@pytest.mark.parametrize(("added", "expected"), [([], 404), ([GZipMiddleware], 404), ([Rewriting], 503)])
async def test_layer_of_a_forced_app_is_looked_at_as_of_any_app(added: list[Any], expected: int) -> None:
    app = app_with(*added)
    with maintenance_forced(app):
        assert await statuses(around(app, state=False), *["/nothing"] * 2) == [expected] * 2


# One middleware inside another


OPAQUE = ["/off", "/on", "/items", "/docs", "/openapi.json", "/nothing"]


@pytest.mark.parametrize("is_shared", [False, True])
async def test_layer_around_a_parent_has_no_say_on_a_mounted_app_that_hides_its_routes(is_shared: bool) -> None:
    """Not even if the parent has the very same middleware."""
    app, switch = FastAPI(routes=[Route("/off", off), Route("/items", plain)]), MemoryBackend(state=True)
    both = maintenance_middleware(backend=switch, exempt=path_prefix("/in"))
    app.mount("/in", (both if is_shared else maintenance_middleware(backend=switch))(served))
    closed = both(app)
    assert await statuses(closed, *(f"/in{path}" for path in OPAQUE), "/off", "/items") == [503] * 6 + [200, 503]


async def test_layer_of_an_app_that_hides_it_leaves_its_routes_known() -> None:
    app = FastAPI(routes=posting_routes(), middleware=[Middleware(hiding)])
    app.add_middleware(maintenance_middleware(backend=MemoryBackend(state=True)))
    assert await statuses(app, "/health", "/retired", "POST /items", "/docs") == [200, 503, 503, 200]


# Where a class or function comes from


class FunctionWrapper:
    """A proxy like those of wrapt, which New Relic's agent has a copy of."""

    def __init__(self, wrapped: Any, wrapper: Callable[..., Any]) -> None:  # noqa: ANN401 -- anything can be wrapped
        self.__wrapped__ = wrapped
        self._self_wrapper = wrapper


def wrapper(*_: object) -> None:
    """Call what is wrapped, and measure how long it takes."""


@pytest.mark.parametrize(
    ("is_of_agent", "wrapped_by", "expected"),
    [(True, "newrelic.hooks.framework_starlette", True), (True, "app", False), (False, "newrelic.hooks", False)],
)
def test_origin_of_a_proxy_is_seen_through_only_if_the_agent_made_it(
    is_of_agent: bool, wrapped_by: str, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if is_of_agent:
        monkeypatch.setattr(FunctionWrapper, "__module__", name := "newrelic.common.object_wrapper")
        monkeypatch.setitem(sys.modules, name, module := ModuleType(name))
        module.FunctionWrapper = FunctionWrapper  # type: ignore[attr-defined]  # which is created here
    by = FunctionType(wrapper.__code__, {"__name__": wrapped_by})
    proxy = FunctionWrapper(FunctionWrapper(http_exception_handler, by), by)
    assert (unwrapped(proxy) is http_exception_handler, is_framework(proxy)) == (expected, expected)


@pytest.mark.parametrize(
    ("thing", "expected"),
    [
        (http_exception_handler, "fastapi.exception_handlers.http_exception_handler"),
        (CORSMiddleware, "starlette.middleware.cors.CORSMiddleware"),
        (functools.wraps(http_exception_handler)(wrapper), f"{__name__}.wrapper"),
        (type("CORSMiddleware", (), {"__module__": "starlette.middleware.cors"}), ""),
        (functools.partial(wrapper), ""),
    ],
)
def test_origin_name_is_that_of_the_place_where_the_thing_itself_is_found(thing: object, expected: str) -> None:
    assert name_of(thing) == expected
