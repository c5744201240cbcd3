"""The routes of an app, nested routers included: an index by path, and a list of all routes."""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, NamedTuple

import fastapi.routing
from fastapi.routing import APIRouter
from starlette.routing import BaseRoute, Host, Mount, Router, compile_path

from fastapi_maintenance._helpers.framework import is_overridden
from fastapi_maintenance.decorators import mark_of

# Since 0.137, FastAPI keeps included routers nested, each as one route of this private class. The public function
# `iter_route_contexts` lists their routes since 0.137.2 only, and ignores what routers on the way and routes override;
# so it is used only if they override nothing. tests/routing/test_places.py fails if the private name is removed.
IncludedRouter: Any = getattr(fastapi.routing, "_IncludedRouter", ())
route_contexts: Any = getattr(fastapi.routing, "iter_route_contexts", iter)

ANY_PATH = "/{path:path}"
_POSITION = attrgetter("position")


@dataclass(slots=True, eq=False)
class Candidate:
    """A route that may match."""

    position: int  # in the order in which the router tries its routes
    effective: Any  # the route with the prefixes of the routers that it is included in
    original: BaseRoute
    decides: bool  # whether it decides by itself what answers
    is_plain: bool  # whether it matches as the framework's own routes do, and does not change the request
    mark: bool | None  # of the route itself
    layers: Any = None  # the `Layers` of the mounted app, or of the route itself, created on first use


class RouteIndex:
    """The routes of a router, indexed by the start of their path."""

    def __init__(self, router: Router) -> None:
        self.router = router
        self._routers: list[Router] = [router]
        # If an included router is given another list of routes, FastAPI does not notice either.
        self._lists, self._seen = list[list[BaseRoute]](), list[list[BaseRoute]]()
        for each in self._routers:  # which grows; each list is read once, since another thread may add to it
            self._lists.append(each.routes)
            self._seen.append(list(self._lists[-1]))
            self._routers += [route.original_router for route in self._seen[-1] if isinstance(route, IncludedRouter)]
        self._by_start: dict[str, list[Candidate]] = {}  # by the path, up to the segment of its first parameter
        self._originals: list[BaseRoute] = []
        for position, (effective, original) in enumerate(_flattened(self._seen[0])):
            self._originals.append(original)
            start, parameter, _ = path_to_index(effective, original).partition("{")
            group = self._by_start.setdefault(start.rpartition("/")[0] if parameter else start, [])
            is_plain, mark = not is_overridden(original, "matches"), mark_of(original)
            group.append(Candidate(position, effective, original, handles_itself(original), is_plain, mark))
        self._longest = max(map(len, self._by_start), default=0)
        self._shapes = self._shapes_now()

    def is_current(self) -> bool:
        """Return whether no route was added or removed; a route that was replaced by an equal one is not noticed."""
        if IncludedRouter == () and route_contexts is not iter:  # included routers cannot be detected
            return False
        return self.router.routes is self._lists[0] and self._lists == self._seen

    def is_exact(self) -> bool:
        """Return whether all routes are the same and match in the same way; if not, drop the index.

        This checks every route, which takes as long as matching the last one.
        """
        if self._shapes != self._shapes_now():
            self._seen.clear()
        return bool(self._seen)

    def _shapes_now(self) -> list[object]:
        listed = [id(route) for router in self._routers for route in router.routes]
        return [*listed, *map(_shape_of, self._originals)]

    def all_candidates(self) -> list[Candidate]:
        """Return all routes, in the order in which they are tried."""
        return sorted((each for group in self._by_start.values() for each in group), key=_POSITION)

    def candidates(self, path: str) -> list[Candidate]:
        """Return the routes that can match a path (relative to the app), in the order in which they are tried."""
        by_start = self._by_start
        found = [*by_start.get("", ()), *(by_start.get(path, ()) if path else ())]
        if path.endswith("\n"):  # `$` in the pattern of a route matches before a newline too
            found += by_start.get(path[:-1], ())
        end = path.find("/", 1)
        while 0 < end <= self._longest:
            found += by_start.get(path[:end], ())
            end = path.find("/", end + 1)
        return sorted(found, key=_POSITION) if len(found) > 1 else found


class ListedRoute(NamedTuple):
    """A route, or an app of which only the path prefix is known."""

    path: str  # with parameters in braces
    methods: frozenset[str] = frozenset()
    endpoint: object = None
    mount: Any = None  # the mount or host, if this is a mounted app


def list_routes(routes: Iterable[Any], prefix: str = "", within: tuple[object, ...] = ()) -> Iterator[ListedRoute]:
    """List routes. For each mounted app, list the app and its known routes.

    An app that is mounted inside itself (`within` its own routes) is listed without its routes.
    """
    # Before FastAPI 0.137, all routes are flat; in 0.137.0 and 0.137.1 an included router is unknown.
    for route in route_contexts(routes):
        original = getattr(route, "original_route", route)
        own_path = getattr(route, "path", None)
        path = prefix + (own_path or "")
        if isinstance(original, (Mount, Host)):
            yield ListedRoute(path, mount=route)
            inner_routes = list[ListedRoute]()
            with suppress(Exception):  # an app of another framework may have anything there
                if not any(route.routes is each for each in (routes, *within)):
                    inner_routes = list(list_routes(route.routes, path, (routes, *within)))
            for inner in inner_routes or [ListedRoute(path + ANY_PATH)]:
                # Under a host, the path alone does not determine the endpoint, so the endpoint is not listed.
                yield ListedRoute(inner.path, mount=inner.mount) if isinstance(original, Host) else inner
        elif own_path is None:
            yield ListedRoute(prefix + ANY_PATH)
        else:
            yield ListedRoute(path, frozenset(getattr(route, "methods", None) or ()), getattr(route, "endpoint", None))


def _flattened(routes: list[BaseRoute]) -> Iterator[tuple[Any, BaseRoute]]:
    """Yield each route (effective, original), with those of included routers listed one by one if possible."""
    for route in routes:
        contexts = []
        with suppress(Exception):  # a route that fails here will fail in the app as well
            if not any(is_overridden(router, "matches", "handle") for router in routers_in(route)):
                contexts = [
                    each for each in route_contexts([route]) if getattr(each, "original_route", each) is not route
                ]
            if any(is_overridden(each.original_route, "matches", "handle") for each in contexts):
                contexts = []
        yield from [(each, each.original_route) for each in contexts] or [(route, route)]


def routers_in(route: Any) -> Iterator[APIRouter]:  # noqa: ANN401 -- a private class of FastAPI
    """Yield the router that a route includes, if any, and the routers that this one includes."""
    if isinstance(route, IncludedRouter):
        yield route.original_router
        for inner in route.original_router.routes:
            yield from routers_in(inner)


def _shape_of(route: BaseRoute) -> object:
    """Return a value that changes if the route is replaced, or if its matching or handling changes."""
    with suppress(Exception):  # a route that fails here will fail in the app as well
        return route.matches, route.handle, getattr(route, "path_regex", None)
    return None


def handles_itself(route: BaseRoute) -> bool:
    """Return whether a route overrides how it handles requests or lists its methods."""
    return is_overridden(route, "handle") or is_overridden(type(route), "methods")


def path_to_index(effective: Any, original: BaseRoute) -> str:  # noqa: ANN401 -- a route, or its context
    """Return the path by which a route matches; ANY_PATH if it may match other paths, or has none."""
    with suppress(Exception):  # a class of route may have anything there
        path: str = effective.path + (ANY_PATH if isinstance(original, Mount) else "")
        if not is_overridden(original, "matches") and compile_path(path)[0] == effective.path_regex:
            return path
    return ANY_PATH
