"""Which routes of a router can match a path at all? An index by what the path has to begin with.

It only narrows the search: whether a route matches is still asked of the route itself. What is kept is checked against
the router's lists of routes each time, so that routes that are added late are seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import fastapi.routing
from fastapi.routing import APIRoute, APIRouter, APIWebSocketRoute
from starlette.routing import BaseRoute, Match, Mount, Route, Router, WebSocketRoute, compile_path
from starlette.types import Scope

from fastapi_maintenance._routing.layers import Way, is_own

__all__ = ["Candidate", "IncludedRouter", "RouteIndex", "contexts_of"]

# FastAPI keeps included routers nested since 0.137, each as one route of this private class, which says what it will
# answer with. The public way to see through it, `iter_route_contexts`, is there since 0.137.2 only, and lists routes
# without asking those in between, nor a class of route with a `matches` of its own; so it is used where neither has
# anything to say of its own. tests/routing/test_routes.py fails when the private name goes.
IncludedRouter: Any = getattr(fastapi.routing, "_IncludedRouter", ())
contexts_of: Any = getattr(fastapi.routing, "iter_route_contexts", None)

_NONE: list[Candidate] = []
_AS_THEIR_PATH_SAYS = {kind.matches for kind in (APIRoute, Route, APIWebSocketRoute, WebSocketRoute, Mount)}


class Candidate:
    """A route that may match."""

    __slots__ = ("below", "is_plain", "known", "matches", "original", "place", "shown", "way")

    def __init__(self, place: int, shown: Any, original: BaseRoute) -> None:  # noqa: ANN401 -- a route, or its context
        self.place = place
        self.shown = shown
        """The route as it stands in the app, with the prefixes of the routers that it is included in."""
        self.original = original
        self.matches: Callable[[Scope], tuple[Match, Scope]]
        try:
            self.matches = shown.matches
        except Exception:  # noqa: BLE001 -- it fails in the app too, but only for requests that come to it
            self.matches = lambda scope: shown.matches(scope)  # noqa: PLW0108 -- looked up when it is asked
        self.is_plain = _matches_by_path(original)
        """Whether it only reads what it is asked with."""
        self.below: RouteIndex | None = None
        """The index of what is mounted here."""
        self.way: Way | None = None
        """The way to it."""
        self.known: tuple[int, Any] | None = None
        """What will answer, as of so many marks."""


class RouteIndex:
    """The routes of a router, by the part of their path before its first parameter."""

    def __init__(self, router: Router) -> None:
        self.router = router
        self._table = _Table(router)

    def candidates(self, path: str) -> list[Candidate]:
        """Return the routes that can match a path, relative to the app, in the order in which they are asked."""
        table = self._table
        if [router.routes for router in table.routers] != table.seen:
            table = self._table = _Table(self.router)
        found = table.always + table.exact.get(path, _NONE)
        if path.endswith("\n"):  # `$` in the pattern of a route matches before it too
            found += table.exact.get(path[:-1], _NONE)
        end = path.find("/", 1)
        while 0 < end <= table.longest:
            found += table.under.get(path[:end], _NONE)
            end = path.find("/", end + 1)
        if len(found) > 1:
            found.sort(key=_place)
        return found


class _Table:
    """What a router's routes were when it was made."""

    def __init__(self, router: Router) -> None:
        self.routers: list[Router] = [router]
        self.always: list[Candidate] = []
        self.exact: dict[str, list[Candidate]] = {}
        self.under: dict[str, list[Candidate]] = {}
        routes = list(router.routes)
        for route in routes:
            self.routers += _routers_in(route)
        self.seen = [routes, *(list(inner.routes) for inner in self.routers[1:])]
        for place, (shown, original) in enumerate(_shown(routes)):
            self._keep(Candidate(place, shown, original))
        self.longest = max(map(len, self.under), default=0)

    def _keep(self, candidate: Candidate) -> None:
        path = _path_of(candidate)
        literal, parameter, _ = (path or "{").partition("{")
        if not parameter:
            self.exact.setdefault(literal, []).append(candidate)
        elif literal.rfind("/") > 0:
            self.under.setdefault(literal[: literal.rindex("/")], []).append(candidate)
        else:
            self.always.append(candidate)


def _shown(routes: list[BaseRoute]) -> Iterator[tuple[Any, BaseRoute]]:
    for route in routes:
        inner = list(_routers_in(route))
        try:
            contexts = list(contexts_of([route])) if inner and all(map(_is_plain, inner)) else None
        except Exception:  # noqa: BLE001 -- there is no public way, or a route in it fails, as it will in the app
            contexts = None
        yield from [(route, route)] if contexts is None else [(each, each.original_route) for each in contexts]


def _place(candidate: Candidate) -> int:
    return candidate.place


def _routers_in(route: Any) -> Iterator[APIRouter]:  # noqa: ANN401 -- of the private class
    """Yield the router that a route includes, if it does, and those that are included in it."""
    if isinstance(route, IncludedRouter):
        yield route.original_router
        for inner in route.original_router.routes:
            yield from _routers_in(inner)


def _is_plain(router: APIRouter) -> bool:
    """Tell whether what an included router matches is what its routes match, by their paths."""
    routes = [route for route in router.routes if not isinstance(route, IncludedRouter)]
    own = is_own(router, "matches", "handle") or any(is_own(route, "handle") for route in routes)
    return not own and all(map(_matches_by_path, routes))


def _matches_by_path(route: BaseRoute) -> bool:
    return type(route).matches in _AS_THEIR_PATH_SAYS and "matches" not in vars(route)


def _path_of(candidate: Candidate) -> str | None:
    """Return the path by which a candidate matches; None if it has its own way, or no path that can be made out."""
    if not candidate.is_plain:
        return None
    try:
        path: str = candidate.shown.path
        if isinstance(candidate.original, Mount):
            path += "/{path:path}"
        return path if compile_path(path)[0] == candidate.shown.path_regex else None
    except Exception:  # noqa: BLE001 -- a class of route may have anything there
        return None
