"""What an app is made of: middleware around middleware around what has the routes."""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator
from typing import Any, cast

from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import BaseRoute, Router
from starlette.types import ASGIApp

__all__ = ["THEIRS", "Way", "all_layers_of", "is_own", "layers_of", "way_to"]

_MOST_LAYERS = 100
THEIRS = {"starlette", "fastapi", "builtins"}
"""The packages whose ways are known."""

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
        if isinstance(layer, (Starlette, Router, BaseRoute)):  # a route can be an app by itself
            return
        layer = getattr(layer, "app", None)  # what every class of middleware calls the app that it wraps
        if layer is None:
            return


def all_layers_of(app: ASGIApp, *, build: bool = False) -> Iterator[Any]:
    """Yield the same, and where that ends in an application, the layers that were added to it, if need be built."""
    layer: Any = None
    for layer in layers_of(app):
        yield layer
    if isinstance(layer, Starlette):
        stack = _stack_of(layer) or (layer.build_middleware_stack() if build else None)
        yield from layers_of(stack) if stack is not None else ()


def is_own(thing: object, *names: str) -> bool:
    """Tell whether a class or an object does one of these in its own way, and not as Starlette and FastAPI do."""
    kind = thing if isinstance(thing, type) else type(thing)
    for name in names:
        definer = next((each for each in kind.__mro__ if name in vars(each)), object)
        if definer.__module__.partition(".")[0] not in THEIRS or (kind is not thing and name in vars(thing)):
            return True
    return False


class Way:
    """The way of a request from an app to its routes.

    Args:
        app: What the request is handed to.

    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.router: Router | None = None
        self.owner: Starlette | None = None
        """The application that the router belongs to."""
        self.unknown: list[Any] = []
        """What may change the path or the method on the way, or answer by itself."""
        self.answers_preflights = False
        """Whether a layer on the way answers CORS preflights, so that none of them comes to a route."""
        self._steps: list[tuple[Any, str, object]] = []
        self._to_build: list[Any] | None = None
        """The layers that were added to the application, while they have not been built."""
        end = self._follow(app)
        if isinstance(end, Starlette):
            self.owner = end
            end = self._enter(end)
        if isinstance(end, Router):
            self.router = end
            self._check(end, ok=not is_own(end, "__call__", "app"))
            self._steps.append((end, "middleware_stack", end.middleware_stack))
            last = self._follow(end.middleware_stack)
            self._check(last, ok=last == end.app)
        else:
            if isinstance(end, BaseRoute):
                self.router = Router([end])
            self._check(end, ok=self.router is not None and not is_own(end, "__call__"))

    def holds(self) -> bool:
        """Tell whether it is still the same."""
        for thing, name, value in self._steps:
            if getattr(thing, name) is not value:
                return False
        return self._to_build is None or cast("Starlette", self.owner).user_middleware == self._to_build

    def _follow(self, app: ASGIApp) -> Any:  # noqa: ANN401 -- anything can be a layer
        layer, *inner = layers_of(app)
        for each in inner:
            self._look_at(layer, type(layer))
            self._steps.append((layer, "app", each))
            layer = each
        return layer

    def _enter(self, owner: Starlette) -> Router:
        self._check(owner, ok=not is_own(owner, "__call__"))
        self._steps += [(owner, "router", owner.router), (owner, "middleware_stack", owner.middleware_stack)]
        stack = _stack_of(owner)
        if stack is None:
            self._to_build = list(owner.user_middleware)
            self._check(owner, ok=not is_own(owner, "build_middleware_stack"))
            for middleware in self._to_build:
                self._look_at(middleware, middleware.cls)
        else:
            last = self._follow(stack)
            self._check(last, ok=last is owner.router)
        return owner.router

    def _look_at(self, layer: object, kind: object) -> None:
        self._check(layer, ok=_is_known(kind))
        self.answers_preflights = self.answers_preflights or kind is CORSMiddleware

    def _check(self, layer: object, *, ok: bool) -> None:
        if not ok:
            self.unknown.append(layer)


def way_to(app: ASGIApp, found: Way | None) -> Way:
    """Return the way through an app: the one that was found before, if it is still the same."""
    return found if found is not None and found.app is app and found.holds() else Way(app)


def _stack_of(app: Starlette) -> ASGIApp | None:
    """Return the layers that were added to an app, None while they have not been built."""
    stack: ASGIApp | None = getattr(app.middleware_stack, "stack_behind", app.middleware_stack)  # of a forced app
    return stack


def _is_known(kind: Any) -> bool:  # noqa: ANN401 -- a class, or what makes a layer
    name = f"{getattr(kind, '__module__', '')}.{getattr(kind, '__qualname__', '')}"
    # What is dressed up as a class, as `functools.wraps` does, has its name as well.
    known = name in _KNOWN and getattr(sys.modules[kind.__module__], kind.__name__, kind) is kind
    return known or kind in _always_there()


@functools.cache
def _always_there() -> list[object]:
    """Return the classes of the layers that every application has."""
    return [type(layer) for app in (Starlette(), FastAPI()) for layer in layers_of(app.build_middleware_stack())]
