"""Which endpoint will answer this request? The app's routes are asked with their own `matches`, in the app's order."""

from typing import Any

from starlette.routing import BaseRoute, Host, Match, Mount, Route, WebSocketRoute
from starlette.types import ASGIApp, Scope

from fastapi_maintenance._helpers.applications import Starlette
from fastapi_maintenance._helpers.scope import HIDDEN_APP, route_path
from fastapi_maintenance._routing.documentation import is_documentation
from fastapi_maintenance._routing.endpoints import Answer, answer_of
from fastapi_maintenance._routing.layers import Layers, layers_of, stack_of
from fastapi_maintenance._routing.left_to_app import is_preflight, redirects_slash, serves_unmatched
from fastapi_maintenance._routing.origin import is_overridden
from fastapi_maintenance._routing.routes import Candidate, IncludedRouter, RouteIndex, handles_itself, matches_by_path
from fastapi_maintenance.decorators import has_forced_on, mark_of

_MOST_MOUNTS = 100
UNKNOWN = Answer()  # something answers that has no routes, or looking for the route failed
# What routing itself puts in a scope. A route that changes anything else makes another request of it.
_PUT_BY_ROUTES = {"endpoint", "path_params", "app_root_path", "route", "router"}
_ASGI = {"type", "method", "path", "raw_path", "root_path", "query_string", "headers", "client", "server", "scheme"}


class RouteFinder:
    """Find the endpoint that will answer a request to an app, which a middleware is around."""

    def __init__(self, app: ASGIApp, around: ASGIApp | None = None) -> None:
        self.app = app
        self._around = around
        self._found: tuple[Layers, object, bool] | None = None  # with the application and place that they are true for

    def find(self, scope: Scope) -> tuple[Scope, Answer]:
        """Return the scope as the application reads it, and what will answer.

        What is not certain counts as answered by an endpoint without a mark.
        """
        as_read: Scope | None = None
        try:
            layers = self.layers(scope)
            as_read = None if layers.router is None or layers.is_guess else layers.read(scope)
            answer, indexes = _look(layers, scope)
            # A changed route is looked for only where the answer can let the request pass.
            exact = [index.is_exact() for index in indexes] if answer[:3] != UNKNOWN[:3] or has_forced_on() else []
            answer = answer if all(exact) else _look(layers, scope)[0]
        except Exception:  # noqa: BLE001 -- a route that fails will fail in the app, where its error belongs
            answer = UNKNOWN
        return as_read or {**scope, HIDDEN_APP: True}, answer

    def layers(self, scope: Scope) -> Layers:
        """Return the layers from the app to its router, for a request that has come as far as the middleware."""
        owner, is_routed = scope.get("app"), "router" in scope
        if self._found is not None:
            layers, found_for, was_routed = self._found
            if found_for is owner and was_routed is is_routed and layers.is_current():
                return layers
        *_, last = layers_of(self.app)
        if isinstance(owner, Starlette) and (last is owner.router or self._is_in(stack_of(owner))):
            layers = Layers(self.app, owner=owner)
        else:  # below a mount or a route, only middleware that is known is followed
            layers = Layers(self.app, base=self if is_routed else None)
        self._found = layers, owner, is_routed
        return layers

    def _is_in(self, stack: ASGIApp | None) -> bool:
        return stack is not None and any(layer is self._around for layer in layers_of(stack))


def _look(layers: Layers, scope: Scope) -> tuple[Answer, list[RouteIndex]]:
    """Do what the app does with a request, up to its endpoint; return also the indexes of the routes."""
    scope = dict(scope)  # in which routes may put something while they are asked, as FastAPI's routers do
    if isinstance(scope.get("fastapi"), dict):
        scope["fastapi"] = dict(scope["fastapi"])
    mark = mark_of(scope.get("endpoint"))  # of the mount or route that the middleware is in
    path, is_certain, decides, handles_refusals = "", True, False, False
    indexes: list[RouteIndex] = []
    while True:
        # The layers, from the outside in.
        mark = _nearest(mark, layers.mark, decides=decides)
        if is_certain and layers.answers_preflights and is_preflight(scope):
            return Answer(mark, answered=False), indexes
        decides = decides or layers.decides or layers.is_guess
        is_certain = is_certain and not decides and not layers.unknown
        if layers.handles_refusals is not None:  # the innermost handler answers
            handles_refusals = layers.handles_refusals
        index = layers.index()
        if index is None or len(indexes) == _MOST_MOUNTS:
            return Answer(mark, path=path or None), indexes
        indexes.append(index)
        scope = layers.read(scope)

        # The routes, in their order.
        found = _first_match(index, scope)
        if found is None:
            is_left = is_certain and redirects_slash(index, scope)
            is_left = is_left or (is_certain and not handles_refusals and not serves_unmatched(index.router, scope))
            return Answer(mark, answered=not is_left, path=path or None), indexes
        candidate, child = found
        effective, route, own_path = candidate.effective, candidate.original, None
        while isinstance(route, IncludedRouter):  # which could not be listed route by route
            decides = decides or is_overridden(route.original_router, "handle")
            _, child, route, context = route._match(scope)  # noqa: SLF001 -- see where it is imported
            effective, own_path, decides = route, getattr(context, "path", None), decides or handles_itself(route)
        path += own_path or getattr(effective, "path", None) or ""
        decides = decides or candidate.decides or _changes(route, scope, child)
        is_certain = is_certain and not decides
        scope.update(child)
        if not isinstance(route, (Mount, Host)):
            break
        layers = _layers_in(candidate, effective)

    # The endpoint.
    is_routed = isinstance(route, (Route, WebSocketRoute))
    decides = decides or not is_routed
    methods, method = getattr(effective, "methods", None), scope.get("method", "GET")
    if not decides and methods and method not in methods:
        answer = Answer(answered=False)
    else:
        endpoint = effective.endpoint if is_routed else child.get("endpoint")
        answer = answer_of(endpoint, method, getattr(effective, "app", None))
    return Answer(
        _nearest(mark, answer.mark, decides=decides),
        answer.answered or handles_refusals or decides or not is_certain,
        not decides and is_documentation(route, layers.owner, scope),
        path or None,
    ), indexes


def _first_match(index: RouteIndex, scope: Scope) -> tuple[Candidate, Scope] | None:
    """Return the route to which a router hands a request, and what it puts in the scope."""
    partial: tuple[Candidate, Scope] | None = None
    for candidate in index.candidates(route_path(scope)):
        match, child = candidate.effective.matches(scope)
        if match is Match.FULL:
            return candidate, child
        if match is Match.PARTIAL and partial is None:
            partial = candidate, child
    return partial


def _nearest(mark: bool | None, nearer: bool | None, *, decides: bool) -> bool | None:  # noqa: FBT001 -- marks
    """Return the mark that counts; forced off is not certain where something else than the routes decides."""
    return mark if nearer is None or (decides and not nearer) else nearer


def _changes(route: BaseRoute, scope: Scope, child: Scope) -> bool:
    """Return whether a route makes another request of it than the one that the decision has looked at."""
    if matches_by_path(route):
        return False
    put = _PUT_BY_ROUTES | ({"root_path"} if isinstance(route, Mount) else set())
    changed = {key for key, value in child.items() if key not in put and scope.get(key) != value}
    return not changed.isdisjoint(_ASGI | scope.keys())


def _layers_in(candidate: Candidate, mount: Any) -> Layers:  # noqa: ANN401 -- a mount, or its context
    """Return the layers of the app that is mounted."""
    layers: Layers | None = candidate.layers
    if layers is None or layers.app is not mount.app or not layers.is_current():
        # What a mount wraps in its middleware has no public name; tests/routing/test_layers.py fails when it goes.
        layers = candidate.layers = Layers(mount.app, base=getattr(mount, "_base_app", mount))
    return layers
