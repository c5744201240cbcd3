"""What a layer may rewrite or answer by itself is not left to the app, unless the layer is known."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from fastapi import APIRouter, FastAPI, Request
from fastapi.middleware.cors import CORSMiddleware
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.middleware.httpsredirect import HTTPSRedirectMiddleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from fastapi_maintenance import (
    MaintenanceModeMiddleware,
    MemoryBackend,
    maintenance_middleware,
)
from fastapi_maintenance._routing import layers
from fastapi_maintenance.testing import maintenance_forced
from tests.routing.apps import (
    MARKS,
    WAYS_AROUND,
    Resource,
    Rewriting,
    as_wrapped,
    as_wrapped_app,
    itself,
    mounted,
    plain,
    posting_routes,
    rewriting,
    unmarked,
)
from tests.support import client

pytestmark = MARKS


async def rewrite(request: Request, call_next: Callable[[Request], Any]) -> Any:  # noqa: ANN401 -- any response
    """Do the same as a function."""
    responses: list[Any] = []

    async def inner(scope: Scope, receive: Receive, send: Send) -> None:
        responses.append(await call_next(Request(scope, receive, send)))

    async def unsent(_: Any) -> None: ...  # noqa: ANN401 -- any message

    if request.url.path == "/metrics":
        return PlainTextResponse("served")
    await Rewriting(inner)(request.scope, request.receive, unsent)
    return responses[0]


class ByName(BaseHTTPMiddleware):
    """Do the same as a class of Starlette's kind."""

    async def dispatch(self, request: Request, call_next: Callable[[Request], Any]) -> Any:  # noqa: ANN401 -- as above
        return await rewrite(request, call_next)


class CarefulCORS(CORSMiddleware):
    """A class of known middleware with a call of its own."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await Rewriting(self.app)(scope, receive, send)


class DressedCORS(CarefulCORS):
    """The same, dressed up as the known one."""


functools.update_wrapper(DressedCORS, CORSMiddleware, updated=())


class RewritingCall:
    """What does the same in its own call."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        call: ASGIApp = super().__call__  # type: ignore[misc]  # of the class that this one is mixed into
        await Rewriting(call)(scope, receive, send)


class RewritingApp(RewritingCall, FastAPI): ...


class RewritingRouter(RewritingCall, Router): ...


class RewritingRoute(RewritingCall, Route): ...


class RewritingStack(FastAPI):
    """An app that builds its layers in its own way."""

    def build_middleware_stack(self) -> ASGIApp:
        return Rewriting(super().build_middleware_stack())


class RewritingInApp(APIRouter):
    """A router that does the same where it is an app."""

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        await Rewriting(super().app)(scope, receive, send)


class RewritingMount(Mount):
    """A mount that does the same."""

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        await Rewriting(super().handle)(scope, receive, send)


def app_with(*layers: Any, kind: type[FastAPI] = FastAPI) -> FastAPI:  # noqa: ANN401 -- of any kind
    return kind(routes=posting_routes(), middleware=[Middleware(layer) for layer in layers])


def app_with_a_function() -> FastAPI:
    app = app_with()
    app.middleware("http")(rewrite)
    return app


def built(app: FastAPI) -> FastAPI:
    app.middleware_stack = app.build_middleware_stack()
    return app


def with_a_stack_of_its_own() -> FastAPI:
    app = app_with()
    app.middleware_stack = Rewriting(app.build_middleware_stack())
    return app


def with_a_build_of_its_own() -> FastAPI:
    app = app_with()
    build = app.build_middleware_stack
    app.build_middleware_stack = lambda: Rewriting(build())  # type: ignore[method-assign]  # as instrumentations do
    return app


def with_another_app_in_its_stack() -> FastAPI:
    app = app_with()
    app.middleware_stack = app_with(Rewriting)
    return app


def router_with_a_stack_of_its_own() -> Router:
    router = Router(posting_routes())
    router.middleware_stack = Rewriting(router.middleware_stack)
    return router


def router_with_another_stack() -> Router:
    router = Router(posting_routes())
    router.middleware_stack = Router(posting_routes(), middleware=[Middleware(Rewriting)])
    return router


UNKNOWN: dict[str, Callable[[], ASGIApp]] = {
    "a class of middleware": lambda: app_with(Rewriting),
    "a class of middleware, built": lambda: built(app_with(Rewriting)),
    "among known ones": lambda: app_with(GZipMiddleware, Rewriting, CORSMiddleware),
    "among known ones, built": lambda: built(app_with(GZipMiddleware, Rewriting, CORSMiddleware)),
    "middleware that hides the app": lambda: built(app_with(rewriting)),
    "a function as middleware": app_with_a_function,
    "a class with a dispatch": lambda: app_with(ByName),
    "a class of known middleware with a call of its own": lambda: app_with(CarefulCORS),
    "a class that has the name of a known one": lambda: app_with(DressedCORS),
    "a layer around an app": lambda: Rewriting(app_with()),
    "a call of the app's own": lambda: app_with(kind=RewritingApp),
    "a stack of the app's own": with_a_stack_of_its_own,
    "a class of app that builds its own stack": lambda: app_with(kind=RewritingStack),
    "an app that is given a build of its own": with_a_build_of_its_own,
    "an app with another one in its stack": with_another_app_in_its_stack,
    "a call of the router's own": lambda: RewritingRouter(posting_routes()),
    "an app method of the router's own": lambda: RewritingInApp(routes=posting_routes()),
    "middleware of a router": lambda: Router(posting_routes(), middleware=[Middleware(Rewriting)]),
    "a stack that a router was given": router_with_a_stack_of_its_own,
    "another router in the place of a router's stack": router_with_another_stack,
    "a handle of a mount's own": lambda: RewritingMount("", routes=posting_routes()),
    "a call of a route's own": lambda: RewritingRoute("/items", plain, methods=["POST"]),
    "middleware of a mount": lambda: Mount("", routes=posting_routes(), middleware=[Middleware(Rewriting)]),
    "middleware of a mount that hides": lambda: Mount("", routes=posting_routes(), middleware=[Middleware(rewriting)]),
}


DECIDING = {
    "a call of the app's own",
    "an app with another one in its stack",
    "a call of the router's own",
    "an app method of the router's own",
    "another router in the place of a router's stack",
    "a handle of a mount's own",
}
"""Of these, those that decide by more than the path which route answers, so that no mark off is certain."""


@pytest.mark.parametrize("where", [itself, mounted])
@pytest.mark.parametrize("kind", UNKNOWN)
async def test_what_may_rewrite_a_request_or_answer_it_leaves_nothing_to_the_app(
    kind: str, where: Callable[[ASGIApp], ASGIApp]
) -> None:
    app = where(UNKNOWN[kind]())
    async with client(app) as http:
        assert 200 == (await http.post("/items")).status_code
    for _ in range(2):  # before the stack of layers is built and after it
        async with client(as_wrapped_app(where(UNKNOWN[kind]()))) as http:
            for method, path, headers in WAYS_AROUND:
                assert 503 == (await http.request(method, path, headers=headers)).status_code
            if "route's" not in kind:
                is_open = kind not in DECIDING and not (where is mounted and kind == "a layer around an app")
                statuses = [(await http.get(path)).status_code for path in ("/health", "/retired")]
                assert statuses == [200 if is_open else 503, 503]
            assert 503 == (await http.get("/nothing")).status_code


async def test_a_layer_that_is_added_between_two_requests_is_seen() -> None:
    app = app_with()
    mount = Mount("/in", app_with(GZipMiddleware))
    app.router.routes.append(mount)
    closed = as_wrapped(app, MemoryBackend(state=True))
    statuses = []

    async def look() -> None:
        statuses.append([(await http.get(path)).status_code for path in ("/nothing", "/in/nothing")])

    async with client(closed) as http:
        await look()
        mount.app = Rewriting(mount.app)
        await look()
        assert app.middleware_stack is not None
        app.middleware_stack = Rewriting(app.middleware_stack)
        await look()
    assert [[404, 404], [404, 503], [503, 503]] == statuses


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
@pytest.mark.parametrize("in_a_mount", [True, False])
async def test_known_middleware_is_seen_through(is_built: bool, in_a_mount: bool) -> None:
    app = FastAPI(routes=posting_routes(), middleware=KNOWN)
    app = built(app) if is_built else app
    async with client(as_wrapped_app(mounted(app) if in_a_mount else app)) as http:
        http.base_url = httpx.URL("https://testserver")
        statuses = [(await http.get(path)).status_code for path in ("/nothing", "/items", "/items/", "/health")]
    assert [404, 405, 307, 200] == statuses


def test_the_names_of_known_middleware_are_those_of_classes_that_are_there() -> None:
    """Those of packages and versions that are not installed apart."""
    ours = {name for name in layers._KNOWN if name.startswith("fastapi_maintenance.")}
    assert ours == {
        f"{kind.__module__}.{kind.__qualname__}"
        for kind in (MaintenanceModeMiddleware, maintenance_middleware, maintenance_middleware())
    }
    given = {f"{middleware.cls.__module__}.{middleware.cls.__qualname__}" for middleware in KNOWN}
    newer = {
        "fastapi._body_limit._BodyLimitExceptionMiddleware",
        "starlette.middleware.body_limit.RequestBodyLimitMiddleware",
        "starlette.middleware.opentelemetry.OpenTelemetryMiddleware",
        "opentelemetry.instrumentation.asgi.OpenTelemetryMiddleware",
        f"{layers._OTEL_FASTAPI}.<locals>.build_middleware_stack.<locals>.ExceptionHandlerMiddleware",
    }
    assert newer == layers._KNOWN - given - ours


@pytest.mark.skipif("max_body_size" not in inspect.signature(FastAPI).parameters, reason="it has no limit of bodies")
async def test_limits_of_bodies_are_seen_through() -> None:
    limit: Any = {"max_body_size": 1000}
    router = APIRouter(**limit)
    router.add_api_route("/items", unmarked, methods=["POST"])
    app = FastAPI(**limit)
    app.include_router(router)
    app.router.routes += [
        Mount("/a", router),
        Mount("/b", routes=posting_routes(), **limit),
        Route("/c", Resource, **limit),
    ]
    paths = ["/nothing", "/items", "/a/items", "/a/nothing", "/b/items", "/b/nothing"]
    async with client(as_wrapped(app, MemoryBackend(state=True))) as http:
        assert [404, 405, 405, 404, 405, 404] == [(await http.get(path)).status_code for path in paths]
        assert 405 == (await http.put("/c")).status_code


async def test_a_test_that_forces_an_app_sees_through_to_its_layers() -> None:
    backend = MemoryBackend()
    for added, expected in (((), 404), ((GZipMiddleware,), 404), ((Rewriting,), 503)):
        app = app_with(*added)
        async with client(as_wrapped(app, backend)) as http:
            with maintenance_forced(app):
                assert [expected] * 2 == [(await http.get("/nothing")).status_code for _ in range(2)]
