"""The layers of an app: middleware around middleware around the router that has the routes."""

import functools
import sys
from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import BaseRoute, Router
from starlette.types import ASGIApp

_MOST_LAYERS = 100
_FRAMEWORK = {"starlette", "fastapi", "builtins"}

# By name, since some of them need packages that are not installed everywhere. They leave path and method alone, and
# what they answer themselves is a refusal (400, 413), a redirect to https or another host, or a CORS preflight.
# `AuthenticationMiddleware` is not among them, as it answers with what it is given; a subclass is another class.
_KNOWN = {
    "fastapi._body_limit._BodyLimitExceptionMiddleware",
    "fastapi_maintenance.middleware.MaintainedApp",
    "fastapi_maintenance.middleware.MaintenanceModeMiddleware",
    "fastapi_maintenance.middleware.maintenance_middleware.<locals>.maintenance",
    "starlette.middleware.body_limit.RequestBodyLimitMiddleware",
    "starlette.middleware.cors.CORSMiddleware",
    "starlette.middleware.gzip.GZipMiddleware",
    "starlette.middleware.httpsredirect.HTTPSRedirectMiddleware",
    "starlette.middleware.opentelemetry.OpenTelemetryMiddleware",
    "starlette.middleware.sessions.SessionMiddleware",
    "starlette.middleware.trustedhost.TrustedHostMiddleware",
}


def layers_of(app: ASGIApp) -> Iterator[Any]:
    """Yield the app, then what it wraps, and so on, down to the first that has routes or hides what it wraps."""
    layer: Any = app
    for _ in range(_MOST_LAYERS):
        yield layer
        # A route can be an app by itself. What a middleware wraps is its `app` in every class of them.
        layer = None if isinstance(layer, (Starlette, Router, BaseRoute)) else getattr(layer, "app", None)
        if layer is None:
            return


def all_layers_of(app: ASGIApp) -> list[Any]:
    """Return the same, and where that ends in an application, the layers that were added to it.

    Until the application has built these, they are the `Middleware` objects that it will build them from.
    """
    layers = list(layers_of(app))
    if isinstance(layers[-1], Starlette):
        stack = _stack_of(layers[-1])
        layers += layers[-1].user_middleware if stack is None else layers_of(stack)
    return layers


def is_users(thing: object) -> bool:
    """Tell whether a class or function comes from neither Starlette nor FastAPI."""
    return getattr(thing, "__module__", "").partition(".")[0] not in _FRAMEWORK


def is_overridden(thing: object, *names: str) -> bool:
    """Tell whether a class or an object has a method of one of these names that is not Starlette's or FastAPI's."""
    kind = thing if isinstance(thing, type) else type(thing)
    owners = (next((each for each in kind.__mro__ if name in vars(each)), object) for name in names)
    return any(map(is_users, owners)) or (kind is not thing and not vars(thing).keys().isdisjoint(names))


class Layers:
    """The layers that a request goes through, from an ASGI app to the router of its routes."""

    def __init__(self, app: ASGIApp) -> None:
        self.router: Router | None = None
        self.owner: Starlette | None = None  # the application that the router belongs to
        self.unknown: list[Any] = []  # the layers that may change the path or the method, or answer by themselves
        self.answers_preflights = False  # whether one of them answers CORS preflights, so that none comes to a route
        self._links: list[tuple[Any, str, object]] = []  # from each layer to the next: it, its attribute, the value
        last = self._follow(app)
        if isinstance(last, Starlette):
            self._enter(last)
            self.owner, last = last, last.router
        if isinstance(last, Router):
            self.router = last
            self._links.append((last, "middleware_stack", last.middleware_stack))
            self._check(last, known=not is_overridden(last, "__call__", "app"))
            end = self._follow(last.middleware_stack)
            self._check(end, known=end == last.app)
        else:
            self.router = Router([last]) if isinstance(last, BaseRoute) else None
            self._check(last, known=self.router is not None and not is_overridden(last, "__call__"))

    def is_current(self) -> bool:
        """Tell whether the layers are still the same; False while they have not been built."""
        for layer, name, value in self._links:  # noqa: SIM110 -- each blocked request asks, and all() takes twice as long
            if getattr(layer, name) is not value:
                return False
        return True

    def _enter(self, app: Starlette) -> None:
        self._check(app, known=not is_overridden(app, "__call__"))
        self._links += [(app, "router", app.router), (app, "middleware_stack", app.middleware_stack)]
        stack = _stack_of(app)
        if stack is None:
            self._links.append((app, "user_middleware", None))  # looked at each time, since more may be added
            self._check(app, known=not is_overridden(app, "build_middleware_stack"))
            for middleware in app.user_middleware:
                self._check_middleware(middleware, middleware.cls)
        else:
            end = self._follow(stack)
            self._check(end, known=end is app.router)

    def _follow(self, app: ASGIApp) -> Any:  # noqa: ANN401 -- anything can be a layer
        """Go through middleware, and return the first app that is none."""
        layer, *inner = layers_of(app)
        for each in inner:
            self._check_middleware(layer, type(layer))
            self._links.append((layer, "app", each))
            layer = each
        return layer

    def _check_middleware(self, layer: object, kind: object) -> None:
        self._check(layer, known=_is_known(kind))
        self.answers_preflights |= kind is CORSMiddleware

    def _check(self, layer: object, *, known: bool) -> None:
        if not known:
            self.unknown.append(layer)


def _stack_of(app: Starlette) -> ASGIApp | None:
    """Return the layers that were added to an app, None while they have not been built."""
    return getattr(app.middleware_stack, "stack_behind", app.middleware_stack)  # of a forced app


def _is_known(kind: Any) -> bool:  # noqa: ANN401 -- a class, or what makes a layer
    name = f"{getattr(kind, '__module__', '')}.{getattr(kind, '__qualname__', '')}"
    # A class can carry the name of another one, as `functools.wraps` gives it.
    known = name in _KNOWN and getattr(sys.modules[kind.__module__], kind.__name__, kind) is kind
    return known or kind in _default_layers()


@functools.cache
def _default_layers() -> list[object]:
    """Return the classes of the layers that every application has."""
    return [type(layer) for app in (Starlette(), FastAPI()) for layer in layers_of(app.build_middleware_stack())]
