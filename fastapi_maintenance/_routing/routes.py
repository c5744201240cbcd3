"""The routes of an app, also in the routers that FastAPI keeps nested: an index by path, and a list of them all."""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, NamedTuple

import fastapi.routing
from fastapi.routing import APIRouter
from starlette.routing import BaseRoute, Host, Mount, Router, compile_path

from fastapi_maintenance._routing.origin import is_overridden
from fastapi_maintenance.decorators import mark_of

# FastAPI keeps included routers nested since 0.137, each as one route of this private class, which says what it will
# answer with. The public way to see through it, `iter_route_contexts`, is there since 0.137.2 only, and lists routes
# without asking the routers in between or a route with a `matches` of its own; so it is used where none of them
# overrides anything. tests/routing/test_places.py fails when the private name goes.
IncludedRouter: Any = getattr(fastapi.routing, "_IncludedRouter", ())
route_contexts: Any = getattr(fastapi.routing, "iter_route_contexts", iter)

ANY_PATH = "/{path:path}"
_POSITION = attrgetter("position")


@dataclass(slots=True, eq=False)
class Candidate:
    """A route that may match."""

    position: int  # in the order in which the router asks its routes
    effective: Any  # the route with the prefixes of the routers that it is included in
    original: BaseRoute
    decides: bool  # whether it decides by itself what answers
    is_plain: bool  # whether it matches as the framework's own routes do, and changes nothing
    mark: bool | None  # on the route itself
    layers: Any = None  # the `Layers` of the app that is mounted here, once they have been needed


class RouteIndex:
    """The routes of a router, as they are now."""

    def __init__(self, router: Router) -> None:
        self.router = router
        self._routers: list[Router] = [router, *(inner for route in router.routes for inner in routers_in(route))]
        # FastAPI does not see it either if an included router is given another list.
        self._lists = [each.routes for each in self._routers]
        self._seen = [list(routes) for routes in self._lists]
        self._by_start: dict[str, list[Candidate]] = {}  # by the path, up to the segment of its first parameter
        self._originals: list[BaseRoute] = []
        for position, (effective, original) in enumerate(_flattened(self._seen[0])):
            self._originals.append(original)
            start, parameter, _ = path_to_index(effective, original).partition("{")
            group = self._by_start.setdefault(start.rpartition("/")[0] if parameter else start, [])
            is_plain = not is_overridden(original, "matches")
            group.append(
                Candidate(position, effective, original, handles_itself(original), is_plain, mark_of(original))
            )
        self._longest = max(map(len, self._by_start), default=0)
        self._shapes = self._shapes_now()

    def is_current(self) -> bool:
        """Return whether no route has been added or removed since; an equal one in the place of another is not seen."""
        if IncludedRouter == () and route_contexts is not iter:  # which routers are included cannot be seen
            return False
        return self.router.routes is self._lists[0] and self._lists == self._seen

    def is_exact(self) -> bool:
        """Return whether all routes are the same and match in the same way; drop the index if not.

        This looks at each of them, which takes as long as a request to the last of them.
        """
        if self._shapes != self._shapes_now():
            self._seen.clear()
        return bool(self._seen)

    def _shapes_now(self) -> list[object]:
        listed = [id(route) for router in self._routers for route in router.routes]
        return [*listed, *map(_shape_of, self._originals)]

    def all_candidates(self) -> list[Candidate]:
        """Return all routes, in the order in which they are asked."""
        return sorted((each for group in self._by_start.values() for each in group), key=_POSITION)

    def candidates(self, path: str) -> list[Candidate]:
        """Return the routes that can match a path, relative to the app, in the order in which they are asked."""
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
    """A route, or something of which no more is known than the path that all of it lies under."""

    path: str  # with parameters in braces, as it was given
    methods: frozenset[str] = frozenset()
    endpoint: object = None
    mount: Any = None  # the mount or host, if another app is mounted here


def list_routes(routes: Iterable[Any], prefix: str = "", within: tuple[object, ...] = ()) -> Iterator[ListedRoute]:
    """List routes, and for each app that is mounted both itself and the routes that are known to lie in it.

    What is mounted in itself, with the routes that it is `within`, is listed as an app whose routes are not known.
    """
    # Before FastAPI 0.137 routes are flat as they are; in 0.137.0 and 0.137.1 an included router is unknown.
    for route in route_contexts(routes):
        original = getattr(route, "original_route", route)
        own_path = getattr(route, "path", None)
        path = prefix + (own_path or "")
        if isinstance(original, (Mount, Host)):
            yield ListedRoute(path, mount=route)
            is_known = route.routes and not any(route.routes is each for each in (routes, *within))
            inner_routes = list_routes(route.routes, path, (routes, *within)) if is_known else ()
            for inner in inner_routes or [ListedRoute(path + ANY_PATH)]:
                # The path alone does not lead to what answers under one host only, so its endpoint is not listed.
                yield ListedRoute(inner.path, mount=inner.mount) if isinstance(original, Host) else inner
        elif own_path is None:
            yield ListedRoute(prefix + ANY_PATH)
        else:
            yield ListedRoute(path, frozenset(getattr(route, "methods", None) or ()), getattr(route, "endpoint", None))


def _flattened(routes: list[BaseRoute]) -> Iterator[tuple[Any, BaseRoute]]:
    """Yield each route as it is effective and as it was made, those of included routers one by one where possible."""
    for route in routes:
        contexts = []
        with suppress(Exception):  # a route that fails here will fail in the app as well
            if not any(is_overridden(router, "matches", "handle") for router in routers_in(route)):
                contexts = [
                    each for each in route_contexts([route]) if getattr(each, "original_route", each) is not route
                ]
            if any(is_overridden(each.original_route, "matches", "handle") for each in contexts):
                contexts = []
        yield from [(_effective_route(each), each.original_route) for each in contexts] or [(route, route)]


def _effective_route(context: Any) -> Any:  # noqa: ANN401 -- a route, or of a class that is private to FastAPI
    """Return what a context of FastAPI asks for each attribute, which takes half a microsecond each time."""
    return getattr(context, "_effective_route", context)  # tests/routing/test_places.py fails when it goes


def routers_in(route: Any) -> Iterator[APIRouter]:  # noqa: ANN401 -- of the private class
    """Yield the router that a route includes, if it does, and those that are included in it."""
    if isinstance(route, IncludedRouter):
        yield route.original_router
        for inner in route.original_router.routes:
            yield from routers_in(inner)


def _shape_of(route: BaseRoute) -> object:
    """Return a value that differs once a route has been replaced, or matches or handles requests in another way."""
    with suppress(Exception):  # a route that fails here will fail in the app as well
        return route.matches, route.handle, getattr(route, "path_regex", None)
    return None


def handles_itself(route: BaseRoute) -> bool:
    """Return whether a route has a way of its own to handle requests or to know its methods."""
    return is_overridden(route, "handle") or is_overridden(type(route), "methods")


def path_to_index(effective: Any, original: BaseRoute) -> str:  # noqa: ANN401 -- a route, or its context
    """Return the path by which a route matches, that of all paths if it matches in another way or cannot be read."""
    with suppress(Exception):  # a class of route may have anything there
        path: str = effective.path + (ANY_PATH if isinstance(original, Mount) else "")
        if not is_overridden(original, "matches") and compile_path(path)[0] == effective.path_regex:
            return path
    return ANY_PATH
