"""Hints at start-up: where the arrangement of an app will surprise its owner, each with the way to mend it.

A hint is one record of the logger `fastapi_maintenance.hints.<topic>`, which can be silenced by itself or with all
others.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.cors import CORSMiddleware
from starlette.types import Scope

from fastapi_maintenance._helpers.scope import as_http
from fastapi_maintenance._routing.finder import RouteFinder
from fastapi_maintenance._routing.layers import Way
from fastapi_maintenance._routing.listing import Listed, leads_to, listed
from fastapi_maintenance._routing.routes import Answer
from fastapi_maintenance.predicates.verdicts import paths_in

__all__ = ["Arrangement", "arrangement", "give"]

_LOGGER = "fastapi_maintenance.hints"
_ROUTER = "fastapi_maintenance.router."  # the modules that the endpoints of the admin API come from
_CORS_INSIDE = (
    "CORSMiddleware is inside the maintenance middleware, so scripts of other origins cannot read the 503: add it "
    "after the maintenance middleware"
)
_TWICE = (
    "two maintenance middlewares of this app are on one switch, so a request has to be exempt from both: keep one of "
    "them, and compose what they exempt with any_of"
)
_LAYER = (
    "inside the maintenance middleware, {} may change the path or method of a request or answer it, so none is left to "
    "the app as a 404 or 405: put it outside, where a middleware is that is added after the maintenance middleware"
)
_SHUT = (
    "{} of maintenance_router cannot be reached during maintenance, because another route answers that path or a layer "
    "hides the route: include the router before routes that match everything, and let what wraps the app keep it as "
    "its attribute `app`"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrangement:
    """How an app is put together around and below its maintenance middleware."""

    layers: Sequence[object]
    """What stands between the middleware and the routes."""
    twice: bool
    """Whether another maintenance middleware on the same switch is among them."""
    unknown: Sequence[object]
    """What may change a request on its way to these routes, or answer it by itself, where that matters."""
    exempt: object
    """The predicate."""
    routes: Sequence[Listed]
    ask: Callable[[str, str], Answer]
    """What the middleware takes for the answer to a method and path."""


def arrangement(  # noqa: PLR0913 -- one argument for each fact
    finder: RouteFinder, lifespan: Scope, *, layers: Sequence[object], twice: bool, exempt: object, passes: bool
) -> Arrangement:
    """Return how an app is put together that starts with this scope.

    Args:
        finder: What finds its routes.
        lifespan: The scope.
        layers: What stands between the middleware and the routes.
        twice: Whether another maintenance middleware on the same switch is among them.
        exempt: The predicate.
        passes: Whether what no route answers is left to the app.

    """
    app = lifespan.get("app")
    router, _, unknown = finder.router_in(lifespan)
    router = app.router if isinstance(app, Starlette) else router
    routes = [] if router is None else list(listed(router.routes))
    unknown = [] if router is None else list(unknown)
    for way in (Way(route.app) for route in routes):
        unknown += way.unknown if way.router is not None else ()
    return Arrangement(
        layers=layers,
        twice=twice,
        exempt=exempt,
        unknown=unknown if passes else (),
        routes=routes,
        ask=lambda method, path: finder.find(as_http({"type": "http", "method": method, "path": path, "app": app}))[1],
    )


def hints_on(arrangement: Arrangement) -> Iterator[tuple[str, str]]:
    """Yield the topic and the text of each hint."""
    if any(isinstance(layer, CORSMiddleware) for layer in arrangement.layers):
        yield "cors", _CORS_INSIDE
    if arrangement.twice:
        yield "twice", _TWICE
    if arrangement.unknown:
        yield "layer", _LAYER.format(", ".join(dict.fromkeys(map(_name_of, arrangement.unknown))))
    for path, below in dict.fromkeys(paths_in(arrangement.exempt)):
        if not _is_there(path, arrangement, below=below):
            lies = "lies under the path prefix" if below else "has the path"
            yield "path", f"no route {lies} {path!r} that the predicate names: correct it, or leave it out"
    shut = dict.fromkeys(_switches_shut(arrangement))
    if shut:
        yield "router", _SHUT.format(", ".join(shut))


def give(look_at: Callable[[], Arrangement], told: set[str]) -> None:
    """Log each hint as a warning, unless it has been told; whatever fails in looking for them, the app starts."""
    try:
        for topic, text in hints_on(look_at()):
            if text not in told:
                logger = f"{_LOGGER}.{topic}"
                logging.getLogger(logger).warning("%s (silenced by the logger %s)", text, logger)
                told.add(text)
    except Exception:
        logging.getLogger(_LOGGER).debug("The app could not be looked at for hints", exc_info=True)


def _name_of(layer: Any) -> str:  # noqa: ANN401 -- anything can be a layer
    if isinstance(layer, Middleware):  # one that has not been made yet
        layer = layer.kwargs.get("dispatch", layer.cls)
    elif type(layer) is BaseHTTPMiddleware:
        layer = layer.dispatch_func
    return str(getattr(layer, "__name__", type(layer).__name__))


def _is_there(path: str, arrangement: Arrangement, *, below: bool) -> bool:
    known = any(leads_to(route.path, path, below=below) for route in arrangement.routes)
    return known or arrangement.ask("GET", path).answered


def _switches_shut(arrangement: Arrangement) -> Iterator[str]:
    for route in arrangement.routes:
        of_router = str(getattr(route.endpoint, "__module__", None)).startswith(_ROUTER)
        for method in sorted(route.methods) if of_router and "{" not in route.path else ():
            if arrangement.ask(method, route.path).mark is not False:
                yield f"{method} {route.path}"
