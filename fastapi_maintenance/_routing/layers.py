"""The layers of an app: middleware around middleware, down to the router with the routes.

A layer that is not known to leave requests alone hides the routes; `finder.py` blocks what is behind it.
"""

import functools
from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise
from types import FunctionType
from typing import Any

from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.routing import BaseRoute, Router
from starlette.types import ASGIApp, Scope

from fastapi_maintenance._helpers.framework import FastAPI, Starlette, is_overridden, name_of, unwrapped
from fastapi_maintenance._routing.routes import RouteIndex
from fastapi_maintenance.decorators import mark_of, marks_put

_MOST_LAYERS = 100
NOTHING = object()
_WITH_ROUTES = (Starlette, Router, BaseRoute)

_OTEL_FASTAPI = "opentelemetry.instrumentation.fastapi.FastAPIInstrumentor.instrument_app"

# By name, since some need packages that may be missing. None changes the path or the method, and none answers by itself
# except with a refusal (400, 413), a redirect to https or another host, or to a CORS preflight. A subclass does not
# count, nor does `AuthenticationMiddleware`, whose error response is the user's.
_KNOWN = {
    "fastapi._body_limit._BodyLimitExceptionMiddleware",
    "fastapi_maintenance.middleware.MaintenanceModeMiddleware",
    "fastapi_maintenance.middleware.maintenance_middleware",
    "fastapi_maintenance.middleware.maintenance_middleware.<locals>.maintenance",
    "opentelemetry.instrumentation.asgi.OpenTelemetryMiddleware",
    f"{_OTEL_FASTAPI}.<locals>.build_middleware_stack.<locals>.ExceptionHandlerMiddleware",
    "starlette.middleware.body_limit.RequestBodyLimitMiddleware",
    "starlette.middleware.cors.CORSMiddleware",
    "starlette.middleware.gzip.GZipMiddleware",
    "starlette.middleware.httpsredirect.HTTPSRedirectMiddleware",
    "starlette.middleware.opentelemetry.OpenTelemetryMiddleware",
    "starlette.middleware.sessions.SessionMiddleware",
    "starlette.middleware.trustedhost.TrustedHostMiddleware",
}


def layers_of(app: ASGIApp) -> Iterator[Any]:
    """Yield the app, then its attribute `app`, and so on, down to the first that has routes or no such attribute."""
    layer: Any = app
    for _ in range(_MOST_LAYERS):
        yield layer
        outer, layer = layer, None
        with suppress(Exception):  # of a property
            layer = None if isinstance(outer, _WITH_ROUTES) else getattr(outer, "app", None)  # a route has one too
        if layer is None:
            return


def all_layers_of(app: ASGIApp) -> list[Any]:
    """Like `layers_of`; if the last layer is an application, add the layers of its own stack.

    If the application has not built its stack yet, these are its `Middleware` objects.
    """
    layers = list(layers_of(app))
    if isinstance(layers[-1], Starlette):
        stack = stack_of(layers[-1])
        layers += layers[-1].user_middleware if stack is None else layers_of(stack)
    return layers


class Layers:
    """The layers that a request goes through, from an ASGI app to the router of its routes.

    Args:
        app: The outermost layer.
        owner: The application whose stack contains `app`, if any.
        base: The app that the middleware is known to wrap, or NOTHING if unknown. Beyond it, following the attribute
            `app` of an unknown layer is a guess. None: trust the attribute `app` of every layer.
    """

    def __init__(self, app: ASGIApp, *, owner: Starlette | None = None, base: Any = None) -> None:  # noqa: ANN401 -- an app
        self.app = app
        self.router: Router | None = None
        self.owner = owner  # the application that the router belongs to
        self.mark: bool | None = None  # of the app or the application
        self.unknown: list[Any] = []  # the layers that may change the path or the method, or answer by themselves
        self.decides = False  # whether one of these, and not the routes, decides what answers
        self.is_guess = False  # whether requests may not reach this router
        self.cors: Any = None  # the outermost CORS middleware, which blocked responses pass through
        self.answers_preflights = False  # whether that is outside every layer that may refuse preflights
        self.handlers: Any = None  # the innermost layer or application with exception handlers
        self._links: list[tuple[Any, type, str, object]] = []  # (layer, class, attribute, value), to detect changes
        self._marks_put = marks_put()
        self._index: RouteIndex | None = None
        if owner is None:
            last = self._follow(app, base)
            if isinstance(base, _WITH_ROUTES) and not isinstance(last, _WITH_ROUTES):  # a middleware hides it
                self.unknown.append(last)
                last = base
            marks = [mark_of(layer) for layer in (last, *reversed(list(layers_of(app))))]
            self.mark = next((mark for mark in marks if mark is not None), None)
            self._enter(last)
        else:
            self.mark = mark_of(owner)
            self._enter_stack(owner, app)

    def is_current(self) -> bool:
        """Return whether the layers are unchanged; False until the application has built its stack."""
        for layer, kind, name, value in self._links:
            if getattr(layer, name) is not value or type(layer) is not kind:
                return False
        return self._marks_put == marks_put()

    def read(self, scope: Scope) -> Scope:
        """Return a scope as the application reads it: FastAPI replaces the server's `root_path` with its own."""
        root_path = isinstance(self.owner, FastAPI) and self.owner.root_path
        return {**scope, "root_path": root_path} if root_path and scope.get("root_path") != root_path else scope

    def routes(self) -> list[BaseRoute]:
        """Return the routes of the router; empty if they are hidden."""
        return [] if self.router is None else self.router.routes

    def index(self) -> RouteIndex | None:
        """Return an index of the current routes; None if they are hidden."""
        if self.router is not None and (self._index is None or not self._index.is_current()):
            self._index = RouteIndex(self.router)
        return self._index

    def _enter(self, last: Any) -> None:  # noqa: ANN401 -- anything can be an app
        """Continue in the app at the end of a chain of middleware."""
        if isinstance(last, Starlette):
            self._enter_application(last)
        elif isinstance(last, Router):
            self._enter_router(last)
        elif isinstance(last, BaseRoute):
            self.router = Router([last])
            self._check(last, known=not is_overridden(last, "__call__"), decides=True)
        else:
            self._check(last, known=False, decides=True)

    def _enter_application(self, app: Starlette) -> None:
        self._check(app, known=not is_overridden(app, "__call__"), decides=True)
        stack = stack_of(app)
        if stack is not None:
            self._enter_stack(app, stack)
            return
        self._link(app, "user_middleware", None)  # never current, since more may be added
        self._check(app, known=not is_overridden(app, "build_middleware_stack"))
        for middleware in app.user_middleware:
            self._check_middleware(middleware, unwrapped(middleware.cls))
        self.handlers = app
        self._enter_router(app.router, app)

    def _enter_stack(self, app: Starlette, stack: ASGIApp) -> None:
        """Continue in the stack that an application has built around its router, from one of its layers."""
        self._link(app, "router", app.router)
        self._link(app, "middleware_stack", app.middleware_stack)
        end = self._follow(stack)
        # Middleware that hides its app still leads to the router, unless the app overrides how the stack is built.
        decides = isinstance(end, _WITH_ROUTES) or is_overridden(app, "build_middleware_stack")
        self._check(end, known=end is app.router, decides=decides)
        if self.cors is None and end is not app.router:  # a layer hides it; finding one that is outside is harmless
            self.cors = next((each for each in app.user_middleware if unwrapped(each.cls) is CORSMiddleware), None)
        self._enter_router(app.router, app)

    def _enter_router(self, router: Router, owner: Starlette | None = None) -> None:
        self.router, self.owner = router, owner
        self._link(router, "middleware_stack", router.middleware_stack)
        overridden = is_overridden(router, "__call__", "app") or is_overridden(type(router), "routes")
        self._check(router, known=not overridden, decides=True)
        end = self._follow(router.middleware_stack)
        self._check(end, known=end == router.app, decides=True)

    def _follow(self, app: ASGIApp, base: object = None) -> Any:  # noqa: ANN401 -- anything can be a layer
        """Follow middleware, and return the first app that is not middleware."""
        layers = list(layers_of(app))
        is_wrapping = base is None or any(layer is base for layer in layers)
        for layer, inner in pairwise(layers):
            is_wrapping = is_wrapping and (base is None or layer is not base)
            kind = type(unwrapped(layer))
            self.is_guess |= not is_wrapping and not is_known(kind)
            self._check_middleware(layer, kind)
            self._link(layer, "app", inner)
        return layers[-1]

    def _check_middleware(self, layer: Any, kind: object) -> None:  # noqa: ANN401 -- anything can be a layer
        if self.cors is None and kind is CORSMiddleware and not self.is_guess:  # a subclass may behave differently
            self.cors, self.answers_preflights = unwrapped(layer), not self.unknown
        if kind is ExceptionMiddleware and not isinstance(layer, Middleware):
            self.handlers = layer
        self._check(layer, known=is_known(kind))

    def _link(self, layer: object, name: str, value: object) -> None:
        self._links.append((layer, type(layer), name, value))

    def _check(self, layer: object, *, known: bool, decides: bool = False) -> None:
        if not known:
            self.unknown.append(layer)
            self.decides |= decides


def has_middleware(app: ASGIApp) -> bool:
    """Return whether the app of a route is wrapped in middleware of that route."""
    return not isinstance(app, FunctionType) and len([*layers_of(app)]) > 1


def route_layers(route: Any) -> Layers:  # noqa: ANN401 -- a route, or its context in an included router
    """Return the layers of the middleware of a route, which has some."""
    return Layers(route.app)


def mounted_layers(mount: Any) -> Layers:  # noqa: ANN401 -- a mount or a host, or its context in an included router
    """Return the layers of a mounted app."""
    # The app that a mount wraps in middleware has no public name; tests/routing/test_ways_in.py fails if it is removed.
    return Layers(mount.app, base=getattr(mount, "_base_app", NOTHING))


def stack_of(app: Starlette) -> ASGIApp | None:
    """Return an application's middleware stack; None if it has not been built."""
    return getattr(app.middleware_stack, "stack_behind", app.middleware_stack)  # of a forced app


def is_known(kind: Any) -> bool:  # noqa: ANN401 -- a class or function
    """Return whether a class of middleware never changes the path or method, and answers only as `_KNOWN` describes."""
    return name_of(kind) in _KNOWN or any(kind is each for each in _default_layers())


@functools.cache
def _default_layers() -> list[object]:
    """Return the classes of the layers that every application has."""
    return [type(layer) for app in (Starlette(), FastAPI()) for layer in layers_of(app.build_middleware_stack())]
