"""Everything that `finder.py` may find in an app: its routes, and apps that hide theirs."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from starlette.routing import Host, Mount, Route, Router, WebSocketRoute

from fastapi_maintenance._helpers.framework import is_overridden, shown_name
from fastapi_maintenance._routing.documentation import shows_documentation
from fastapi_maintenance._routing.layers import Layers, mounted_layers
from fastapi_maintenance._routing.left_to_app import mark_at, may_serve_unmatched, methods_of, users_handler
from fastapi_maintenance._routing.routes import (
    ANY_PATH,
    Candidate,
    IncludedRouter,
    handles_itself,
    path_to_index,
    route_contexts,
)
from fastapi_maintenance.decorators import mark_of

WEBSOCKET = "WEBSOCKET"  # used as a method
_BOTH = frozenset({True, False})


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A route for one method, or something that may answer by itself or hide its routes."""

    path: str = ""  # with parameters in braces
    area: str | None = None  # the path template that its requests match, if that is not `path`
    host: str | None = None
    method: str | None = None  # None: any method, and WebSocket handshakes
    what: object = None  # the route, or what may answer by itself
    marks: frozenset[bool | None] = frozenset({None})  # the marks that may apply to its requests
    documentation: frozenset[bool] = frozenset({False})  # whether they may be for the app's own documentation
    decides: bool | None = False  # whether something on the way decides by itself what answers; None: not known
    hidden_by: str | None = None  # the name of what decides, or of what may answer by itself
    mounts: tuple[tuple[str, Any], ...] = ()  # the path of each mount on the way, and its app


def places_in(layers: Layers, at: Place, *outer: Router) -> Iterator[Place]:
    """Yield what a request that reaches these layers may find; `outer`: the routers on the way, outermost first."""
    at = _marked(at, layers.mark)
    opaque = layers.unknown[-1:] or [layers.app]
    here = _behind(at, layers.decides or layers.is_guess, opaque[0])
    index, inside = layers.index(), list[Place]()
    is_loop = index is not None and any(index.router is each for each in outer)
    if index is not None and not is_loop:
        if outer and "root_path" in layers.read({}):  # its routes do not match the path below its mount
            here = _inexact(here)
        for candidate in index.all_candidates():
            inside += _places_at(candidate, here, layers, *outer, index.router)
        yield from inside
        handlers = [users_handler(layers.handlers, status) for status in (404, 405)]
        unmatched = [index.router] * may_serve_unmatched(index.router) + [each for each in handlers if each is not None]
        if unmatched:
            yield _opaque(here, unmatched, [])
    elif is_loop and not layers.is_guess:  # the app is mounted inside itself
        here = replace(here, marks=frozenset({True, False, None}), documentation=_BOTH)
    if layers.unknown or is_loop:
        yield _opaque(here, opaque, inside)


def _places_at(candidate: Candidate, at: Place, layers: Layers, *outer: Router) -> Iterator[Place]:
    """Yield what a request may find if a router picks this route."""
    effective, route = candidate.effective, candidate.original
    if isinstance(route, IncludedRouter):  # its routes could not be listed
        yield from _places_included(route, at, layers, *outer)
        return
    is_routed = isinstance(route, (Route, WebSocketRoute, Mount, Host))
    at = _marked(at, candidate.mark)
    here = at if candidate.is_plain else _behind(at, None, route)
    here = _behind(here, candidate.decides or not is_routed, route)
    if isinstance(route, Host):
        here = replace(here, host=effective.host)
    elif path_to_index(effective, route) == ANY_PATH:
        here = _inexact(here)
    here = replace(here, path=at.path + (getattr(effective, "path", None) or ""))
    if isinstance(route, (Mount, Host)):
        inner = mounted_layers(effective)
        inside = list(places_in(inner, replace(here, mounts=(*at.mounts, (here.path, effective.app))), *outer))
        yield from inside
        if candidate.decides:
            yield _opaque(here, [route], inside)
        return
    if not is_routed:  # its endpoint, if any, is known only after it has matched
        yield replace(here, what=route, marks=here.marks | {True})
        return
    endpoint, methods = effective.endpoint, getattr(effective, "methods", None)
    methods = methods or methods_of(endpoint, getattr(effective, "app", None)) or [None]
    methods = [WEBSOCKET] if isinstance(route, WebSocketRoute) else [None] if candidate.decides else sorted(methods)
    for method in methods:
        as_http = "GET" if method in {None, WEBSOCKET} else method
        place = _marked(replace(here, method=method, what=route), mark_at(endpoint, as_http))
        scope = {"method": method, "path": effective.path, "root_path": ""}
        if here.decides is not True and shows_documentation(route, layers.owner, scope):
            place = replace(place, documentation=_BOTH if here.decides is None else frozenset({True}))
        yield place


def _places_included(route: Any, at: Place, layers: Layers, *outer: Router) -> Iterator[Place]:  # noqa: ANN401 -- a private class of FastAPI
    """Yield what a request may find in an included router whose routes could not be listed."""
    decides = is_overridden(route.original_router, "handle")
    here = _behind(at, decides or None, route.original_router)
    inside = list[Place]()
    with suppress(Exception):  # a route that fails here will fail in the app as well
        for context in route_contexts([route]):
            original = context.original_route
            is_plain, mark = False, mark_of(original)
            candidate = Candidate(0, context, original, handles_itself(original), is_plain, mark)
            inside += _places_at(candidate, here, layers, *outer)
    yield from inside
    if decides or not inside:
        yield _opaque(here, [route.original_router], inside)


def _opaque(at: Place, what: list[Any], inside: list[Place]) -> Place:
    """Return the place of something that may answer by itself, or pass requests to the places inside or hidden ones."""
    marks = at.marks.union(*(place.marks for place in inside))
    documentation = at.documentation.union(*(place.documentation for place in inside))
    by = at.hidden_by or ", ".join(dict.fromkeys(map(shown_name, what)))
    path = at.path.rstrip("/") + ANY_PATH
    return replace(at, path=path, what=what[0], marks=marks, documentation=documentation, hidden_by=by)


def _marked(at: Place, mark: bool | None) -> Place:  # noqa: FBT001 -- a mark
    """Return the place with this mark applied, by the rule of `Answer.apply_mark`."""
    if mark is None or (mark is False and at.decides is True):
        return at
    return replace(at, marks=frozenset({mark}) | (at.marks if mark is False and at.decides is None else frozenset()))


def _behind(at: Place, decides: bool | None, what: object) -> Place:  # noqa: FBT001 -- the values of the field
    """Return the place behind something that decides (None: may decide) what answers."""
    if decides is False or at.decides is True:
        return at
    return replace(at, decides=decides, hidden_by=at.hidden_by or shown_name(what))


def _inexact(at: Place) -> Place:
    """Return the place with paths that the routes do not describe exactly."""
    return replace(at, area=at.area or at.path + ANY_PATH)
