"""Which endpoint will answer this request? The app's routes are asked with their own `matches`, in the app's order."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from fastapi.routing import APIRoute
from starlette.routing import BaseRoute, Host, Match, Mount, Route, Router, WebSocketRoute
from starlette.types import ASGIApp, Scope

from fastapi_maintenance._helpers.applications import Starlette
from fastapi_maintenance._helpers.scope import HIDDEN_APP, TEMPLATE, route_path
from fastapi_maintenance._routing.documentation import shows_documentation
from fastapi_maintenance._routing.endpoints import mark_at, refuses
from fastapi_maintenance._routing.layers import NOTHING, Layers, layers_of, mounted_layers, stack_of
from fastapi_maintenance._routing.left_to_app import redirects_slash, serves_unmatched, users_handler
from fastapi_maintenance._routing.origin import is_overridden
from fastapi_maintenance._routing.routes import Candidate, IncludedRouter, RouteIndex, handles_itself
from fastapi_maintenance.decorators import has_forced_on

Matched = tuple[Router, Any, BaseRoute]
"""A router, and the route to which it hands a request: with the prefixes of the routers between them, and as it is."""


class Answer(NamedTuple):
    """What is known of what will answer a request."""

    layers: Sequence[Layers] = ()  # of the apps that the request goes through, from the outside in
    mark: bool | None = None  # True if it is forced on, False if it is forced off
    answered: bool = True  # False if the app says 404 or 405, or redirects a slash
    documentation: bool = False  # whether it is the app's own documentation
    path: str | None = None  # of the route, with parameters in braces, if it has one
    routed: Scope | None = None  # the scope as the endpoint will find it, if it is certain which one that is
    matched: Sequence[Matched] = ()  # the routes from the outside in, certain or not
    left: Scope | None = None  # the scope as these leave it, certain or not

    @property
    def says_more(self) -> bool:
        """Whether it is more than that something answers, about which the predicate decides."""
        return self.mark is not None or not self.answered or self.documentation

    def cors(self, *, is_preflight: bool) -> Any:  # noqa: ANN401 -- the middleware, or what it will be built from
        """Return the outermost CORS middleware that the answer would come through; None if there is none.

        A preflight comes to it only if no layer before it may refuse that.
        """
        for each in self.layers:
            if each.cors is not None:
                return None if is_preflight and not each.answers_preflights else each.cors
            if is_preflight and each.unknown:
                return None
        return None


_MOST_MOUNTS = 100
UNKNOWN = Answer()  # something answers that has no routes, or looking for the route failed
# What routing itself puts in a scope. A route that changes anything else makes another request of it.
_PUT_BY_ROUTES = {"endpoint", "path_params", "app_root_path", "route", "router"}
_ASGI = {"type", "method", "path", "raw_path", "root_path", "query_string", "headers", "client", "server", "scheme"}


class RouteFinder:
    """Find the endpoint that will answer a request to an app.

    Args:
        app: The app.
        around: The middleware around it.
        exact: Whether routes that have been changed are looked for in each case, and not only where the answer, or a
            mark, can make a difference.
    """

    def __init__(self, app: ASGIApp, around: ASGIApp | None = None, *, exact: bool = False) -> None:
        self.app = app
        self._around = around
        self._exact = exact
        self._found: tuple[Layers, object, bool] | None = None  # with the application and place that they are true for

    def find(self, scope: Scope) -> tuple[Scope, Answer]:
        """Return the scope as the application reads it, and what will answer.

        What is not certain counts as answered by an endpoint without a mark.
        """
        as_read: Scope | None = None
        try:
            layers = self.layers(scope)
            as_read = None if layers.router is None or layers.is_guess else layers.read(scope)
            answer = _look(layers, scope)
            if answer.says_more or self._exact or has_forced_on():
                are_exact = [index.is_exact() for each in answer.layers if (index := each.index()) is not None]
                answer = answer if all(are_exact) else _look(layers, scope)
        except Exception:  # noqa: BLE001 -- a route that fails will fail in the app, where its error belongs
            answer = UNKNOWN
        return as_read or {**scope, HIDDEN_APP: True}, answer

    @property
    def owner(self) -> Starlette | None:
        """The application whose routes were asked last."""
        return None if self._found is None else self._found[0].owner

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
            layers = Layers(self.app, base=NOTHING if is_routed else None)
        self._found = layers, owner, is_routed
        return layers

    def _is_in(self, stack: ASGIApp | None) -> bool:
        return stack is not None and any(layer is self._around for layer in layers_of(stack))


def _look(layers: Layers, scope: Scope) -> Answer:
    """Do what the app does with a request, up to its endpoint."""
    scope = dict(scope)  # in which routes may put something while they are asked, as FastAPI's routers do
    if isinstance(scope.get("fastapi"), dict):
        scope["fastapi"] = dict(scope["fastapi"])
    method = scope.get("method", "GET")
    mark = mark_at(scope["endpoint"], method) if "endpoint" in scope else None  # of what the middleware is in
    path, is_certain, decides, handling = "", True, False, None
    seen: list[Layers] = []
    matched: list[Matched] = []
    while True:
        # The layers, from the outside in.
        mark = _nearest(mark, layers.mark, decides=decides)
        decides = decides or layers.decides or layers.is_guess
        is_certain = is_certain and not decides and not layers.unknown
        handling = handling if layers.handlers is None else layers.handlers  # the innermost one handles 404 and 405
        index = layers.index()
        # A guess that leads back to where the request comes from is wrong.
        is_wrong = index is not None and layers.is_guess and any(index.router is each.router for each in seen)
        seen.append(layers)
        if index is None or is_wrong or len(seen) > _MOST_MOUNTS:
            return Answer(seen, mark, path=path or None, matched=matched, left=scope)
        scope = layers.read(scope)

        # The routes, in their order.
        found = _first_match(index, scope)
        if found is None:
            is_refused = users_handler(handling, 404) is None and not serves_unmatched(index.router, scope)
            is_left = is_certain and (is_refused or redirects_slash(index, scope))
            return Answer(seen, mark, answered=not is_left, path=path or None, matched=matched, left=scope)
        candidate, child, is_changed = found
        effective, route = candidate.effective, candidate.original
        while isinstance(route, IncludedRouter):  # which could not be listed route by route
            decides = decides or is_overridden(route.original_router, "handle")
            before = dict(scope)
            _, child, route, context = route._match(scope)  # noqa: SLF001 -- see where it is imported
            is_changed = is_changed or _is_changed(before, {**scope, **child}, route)
            decides = decides or handles_itself(route)
            effective = context if isinstance(route, APIRoute) else route  # which FastAPI keeps a copy of
        path += getattr(effective, "path", None) or ""
        matched.append((index.router, effective, route))
        mark = _nearest(mark, candidate.mark, decides=decides)
        decides = decides or candidate.decides or is_changed
        is_certain = is_certain and not decides
        scope.update(child, **{TEMPLATE: getattr(effective, "path", "")})
        if not isinstance(route, (Mount, Host)):
            break
        if candidate.layers is None or candidate.layers.app is not effective.app or not candidate.layers.is_current():
            candidate.layers = mounted_layers(effective)
        layers = candidate.layers

    # The endpoint.
    is_routed = isinstance(route, (Route, WebSocketRoute))
    decides = decides or not is_routed
    endpoint, app = effective.endpoint if is_routed else child.get("endpoint"), getattr(effective, "app", None)
    method, methods = scope.get("method", "GET"), getattr(effective, "methods", None)
    if not decides and ((methods and method not in methods) or refuses(endpoint, method, app)):
        is_left = is_certain and users_handler(handling, 405) is None
        return Answer(seen, mark, answered=not is_left, path=path or None, matched=matched, left=scope)
    mark = _nearest(mark, mark_at(endpoint, method), decides=decides)
    return Answer(
        seen,
        mark,
        documentation=not decides and shows_documentation(route, layers.owner, scope),
        path=path or None,
        routed=scope if is_certain else None,
        matched=matched,
        left=scope,
    )


def _first_match(index: RouteIndex, scope: Scope) -> tuple[Candidate, Scope, bool] | None:
    """Return the route to which a router hands a request, what it puts in the scope, and whether it changes more."""
    partial: tuple[Candidate, Scope, bool] | None = None
    for candidate in index.candidates(route_path(scope)):
        before = None if candidate.is_plain else dict(scope)
        match, child = candidate.effective.matches(scope)
        is_changed = before is not None and _is_changed(before, {**scope, **child}, candidate.original)
        if match is Match.FULL or (before is not None and _is_changed(before, scope, candidate.original)):
            return candidate, child, is_changed  # for the routes after it as well, if it changed the scope itself
        if match is Match.PARTIAL and partial is None:
            partial = candidate, child, is_changed
    return partial


def _is_changed(before: Scope, after: Scope, route: BaseRoute) -> bool:
    """Return whether a route makes another request of it than the one that the decision has looked at."""
    put = _PUT_BY_ROUTES | ({"root_path"} if isinstance(route, Mount) else set())
    return any(before.get(key) != after.get(key) for key in (_ASGI | before.keys()) - put)


def _nearest(mark: bool | None, nearer: bool | None, *, decides: bool) -> bool | None:  # noqa: FBT001 -- marks
    """Return the mark that counts; forced off is not certain where something else than the routes decides."""
    return mark if nearer is None or (decides and not nearer) else nearer
