"""What an app's routes are, all of them, with the paths that they have where they are included and mounted."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import fastapi.routing
from starlette.routing import Host, Mount

__all__ = ["Listed", "leads_to", "listed"]

# Since FastAPI 0.137.2; before 0.137 routes are listed flat as it is, and in between an included router counts as one
# route of which nothing is known.
_contexts: Any = getattr(fastapi.routing, "iter_route_contexts", iter)
_PARAMETER = r"\{[^{}]*\}"
_REST = "/{rest:path}"


class Listed(NamedTuple):
    """A route, or something of which no more is known than the path that all of it lies under."""

    path: str
    """With parameters in braces, as it was given."""
    methods: frozenset[str] = frozenset()
    endpoint: object = None
    app: Any = None
    """What is mounted here."""


def listed(routes: Iterable[Any], below: str = "") -> Iterator[Listed]:
    """List routes, and in the place of what is mounted both itself and what is known to lie in it."""
    for route in _contexts(routes):
        kind = getattr(route, "original_route", route)
        path = below + (getattr(route, "path", None) or "")
        if isinstance(kind, (Mount, Host)):
            yield Listed(path, app=route.app)
            for one in listed(route.routes, path) if route.routes else [Listed(path + _REST)]:
                # What answers under one host only is listed without its endpoint: its path alone does not lead to it.
                yield Listed(one.path, app=one.app) if isinstance(kind, Host) else one
        elif getattr(route, "path", None) is None:
            yield Listed(below + _REST)
        else:
            yield Listed(path, frozenset(getattr(route, "methods", None) or ()), getattr(route, "endpoint", None))


def leads_to(template: str, path: str, *, below: bool) -> bool:
    """Tell whether a route of this path can be asked for by that path, or, if wanted, by one below it."""
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
