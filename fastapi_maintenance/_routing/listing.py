"""The list of an app's routes, with the paths that they have where they are included and mounted."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from starlette.routing import Host, Mount

from fastapi_maintenance._routing.index import route_contexts

__all__ = ["ListedRoute", "list_routes", "template_matches"]

_PARAMETER = r"\{[^{}]*\}"
_REST = "/{rest:path}"


class ListedRoute(NamedTuple):
    """A route, or something of which no more is known than the path that all of it lies under."""

    path: str
    """With parameters in braces, as it was given."""
    methods: frozenset[str] = frozenset()
    endpoint: object = None
    app: Any = None
    """The app that is mounted here."""


def list_routes(routes: Iterable[Any], prefix: str = "") -> Iterator[ListedRoute]:
    """List routes, and for each app that is mounted both itself and the routes that are known to lie in it."""
    # Before FastAPI 0.137 routes are flat as they are; in 0.137.0 and 0.137.1 an included router is unknown.
    for route in (route_contexts or iter)(routes):
        original = getattr(route, "original_route", route)
        own_path = getattr(route, "path", None)
        path = prefix + (own_path or "")
        if isinstance(original, (Mount, Host)):
            yield ListedRoute(path, app=route.app)
            for inner in list_routes(route.routes, path) if route.routes else [ListedRoute(path + _REST)]:
                # The path alone does not lead to what answers under one host only, so its endpoint is not listed.
                yield ListedRoute(inner.path, app=inner.app) if isinstance(original, Host) else inner
        elif own_path is None:
            yield ListedRoute(prefix + _REST)
        else:
            yield ListedRoute(path, frozenset(getattr(route, "methods", None) or ()), getattr(route, "endpoint", None))


def template_matches(template: str, path: str, *, below: bool) -> bool:
    """Tell whether a route with this path template can match a path or, with `below`, one below it."""
    if below and path == "/":
        return True
    wanted = path.strip("/").split("/")
    given = template.strip("/").split("/")
    for segment, other in zip(given, wanted, strict=False):
        if segment.endswith(":path}"):
            return True
        if segment != other and not re.search(_PARAMETER, segment):
            return False
    return len(given) >= len(wanted) + path.endswith("/") if below else len(given) == len(wanted)
