"""Find the endpoint that will answer a request, by calling `matches` of the app's own routes in the app's order.

Of several marks on the way to it, the nearest counts (`Answer.apply_mark`).

`layers.py` has the layers in front of the routes, `routes.py` the routes of a router, and `left_to_app.py` the requests
that no endpoint answers.
"""

from collections.abc import Callable
from typing import Any

from fastapi.routing import APIRoute
from starlette.routing import BaseRoute, Host, Match, Mount, Route, Router, WebSocketRoute
from starlette.types import ASGIApp, Scope

from fastapi_maintenance._helpers.framework import Starlette, is_overridden
from fastapi_maintenance._helpers.scope import HIDDEN_APP, TEMPLATE, route_path
from fastapi_maintenance._routing.documentation import shows_documentation
from fastapi_maintenance._routing.layers import (
    NOTHING,
    Layers,
    has_middleware,
    layers_of,
    mounted_layers,
    route_layers,
    stack_of,
)
from fastapi_maintenance._routing.left_to_app import mark_at, redirects_slash, refuses, serves_unmatched, users_handler
from fastapi_maintenance._routing.routes import Candidate, IncludedRouter, RouteIndex, handles_itself
from fastapi_maintenance.decorators import has_forced_on

Matched = tuple[Router, Any, BaseRoute]
"""A router, and the route that it picks: with the prefixes of the included routers on the way, and the original."""


class Answer:
    """What will answer a request, as far as that is certain."""

    mark: bool | None = None
    """True if maintenance is forced on, False if it is forced off."""
    answered: bool = True
    """False if the app will answer 404, 405 or a redirect of a trailing slash."""
    documentation: bool = False
    """Whether the app's own documentation answers."""
    path: str = ""
    """The path of the route, with parameters in braces, if there is a route."""
    routed: Scope | None = None
    """The endpoint's scope; None if the endpoint is not certain."""
    as_read: Scope
    """The scope as the application reads it."""
    last_scope: Scope | None = None
    """The scope after the last route, certain or not."""

    def __init__(self) -> None:
        self.layers: list[Layers] = []  # of each app on the way, outermost first
        self.of_route: list[Layers] = []  # those of the last route, if it has any
        self.matched: list[Matched] = []  # each route on the way, certain or not

    def apply_mark(self, nearer: bool | None, *, decides: bool) -> None:  # noqa: FBT001 -- a mark
        """Apply a nearer mark; forced off does not apply if something other than the routes decides what answers."""
        if nearer or (nearer is False and not decides):
            self.mark = nearer

    def cors(self, *, is_preflight: bool) -> Any:  # noqa: ANN401 -- the middleware, or what it will be built from
        """Return the outermost CORS middleware that the answer would pass, or None.

        For a preflight, return None also if a layer before it may refuse the preflight.
        """
        for each in self.layers + self.of_route:
            if each.cors is not None:
                return None if is_preflight and not each.answers_preflights else each.cors
            if is_preflight and each.unknown:
                return None
        return None


_MOST_MOUNTS = 100
# Keys that any route may set in a scope; a mount sets the `root_path` too. A route that changes any other key changes
# the request.
_PUT_BY_ROUTES = {"endpoint", "path_params", "app_root_path", "route", "router"}
_ASGI = {"type", "method", "path", "raw_path", "root_path", "query_string", "headers", "client", "server", "scheme"}


class RouteFinder:
    """Find the endpoint that will answer a request to an app.

    Args:
        app: The app.
        around: The middleware that wraps it.
        exact: Check on every request whether routes match as before, and not only if a mark, the documentation or a
            404 would decide, or if any endpoint is forced on. Without this, a route that is forced off may stay blocked
            if it gets another path, or replaces an equal route, after the first request.
    """

    def __init__(self, app: ASGIApp, around: ASGIApp | None = None, *, exact: bool = False) -> None:
        self.app = app
        self._around = around
        self._exact = exact
        self._found: tuple[Layers, object, bool] | None = None  # with the application and place they were found for

    def find(self, scope: Scope) -> Answer:
        """Return what will answer a request. If that is not certain, assume an endpoint without a mark."""
        as_read: Scope | None = None
        try:
            layers = self.layers(scope)
            as_read = None if layers.router is None or layers.is_guess else layers.read(scope)
            answer = _follow(layers, scope)
            decides = answer.mark is not None or not answer.answered or answer.documentation
            if decides or self._exact or has_forced_on():
                are_exact = [index.is_exact() for each in answer.layers if (index := each.index()) is not None]
                answer = answer if all(are_exact) else _follow(layers, scope)
        except Exception:  # noqa: BLE001 -- a route that fails will fail in the app, where its error belongs
            answer = Answer()
        answer.as_read = as_read or {**scope, HIDDEN_APP: True}
        return answer

    @property
    def owner(self) -> Starlette | None:
        """The application whose routes were searched last."""
        return None if self._found is None else self._found[0].owner

    def layers(self, scope: Scope) -> Layers:
        """Return the layers from the app to its router, for a request that has reached the middleware."""
        owner, is_routed = scope.get("app"), "router" in scope
        if self._found is not None:
            layers, found_for, was_routed = self._found
            if found_for is owner and was_routed is is_routed and layers.is_current():
                return layers
        *_, last = layers_of(self.app)
        if isinstance(owner, Starlette) and (last is owner.router or self._is_in(stack_of(owner))):
            layers = Layers(self.app, owner=owner)
        else:  # below a mount or a route, follow only known middleware
            layers = Layers(self.app, base=NOTHING if is_routed else None)
        self._found = layers, owner, is_routed
        return layers

    def _is_in(self, stack: ASGIApp | None) -> bool:
        return stack is not None and any(layer is self._around for layer in layers_of(stack))


def _follow(layers: Layers, scope: Scope) -> Answer:
    """Follow a request through the app, up to its endpoint."""
    scope = {**scope}  # a copy, since routes may write to it while they match, as FastAPI's routers do
    if isinstance(scope.get("fastapi"), dict):
        scope["fastapi"] = dict(scope["fastapi"])
    method = scope.get("method", "GET")
    answer, is_certain, decides, handling = Answer(), True, False, None
    # The middleware is inside this endpoint, unless a middleware outside sends the same scope once more.
    if "endpoint" in scope and scope.get("router") is not layers.router:
        answer.mark = mark_at(scope["endpoint"], method)
    while True:
        # The layers, from the outside in.
        answer.apply_mark(layers.mark, decides=decides)
        decides = decides or layers.decides or layers.is_guess
        is_certain = is_certain and not decides and not layers.unknown
        handling = handling if layers.handlers is None else layers.handlers  # the innermost one handles 404 and 405
        index = layers.index()
        is_wrong = layers.is_guess and any(layers.router is each.router for each in answer.layers)  # it leads back
        answer.layers.append(layers)
        if index is None or is_wrong or len(answer.layers) > _MOST_MOUNTS:
            return answer
        answer.last_scope = scope = layers.read(scope)

        # The routes, in their order.
        found = _first_match(index, scope)
        if found is None:
            is_refused = is_certain and not serves_unmatched(index.router, scope, handling)
            answer.answered = not (is_refused or (is_certain and redirects_slash(index, scope)))
            return answer
        candidate, child, is_changed = found
        effective, route = candidate.effective, candidate.original
        if isinstance(route, IncludedRouter):  # its routes could not be listed
            effective, route, child, is_changed = _match_in_router(route, scope, is_changed=is_changed)
        template = getattr(effective, "path", None) or ""
        answer.path += template
        answer.matched.append((index.router, effective, route))
        answer.apply_mark(candidate.mark, decides=decides)
        decides = decides or candidate.decides or is_changed
        is_certain = is_certain and not decides
        scope.update(child)
        scope[TEMPLATE] = template
        if not isinstance(route, (Mount, Host)):
            break
        layers = _kept_layers(candidate, effective, mounted_layers)

    # The endpoint.
    is_routed = isinstance(route, (Route, WebSocketRoute))
    decides = decides or not is_routed
    endpoint = effective.endpoint if is_routed else child.get("endpoint")
    methods = getattr(effective, "methods", None)
    app: Any = getattr(effective, "app", None)
    answer.of_route = [_kept_layers(candidate, effective, route_layers)] if is_routed and has_middleware(app) else []
    if not decides and ((methods and method not in methods) or refuses(endpoint, method, app)):
        answer.answered = not is_certain or users_handler(handling, 405) is not None
        return answer
    answer.documentation = not decides and shows_documentation(route, layers.owner, scope)
    answer.apply_mark(mark_at(endpoint, method), decides=decides)
    answer.routed = scope if is_certain else None
    return answer


def _kept_layers(candidate: Candidate, effective: Any, create: Callable[[Any], Layers]) -> Layers:  # noqa: ANN401 -- a route, or its context
    """Return the layers at a route, which are kept until they change."""
    layers: Layers | None = candidate.layers
    if layers is None or layers.app is not effective.app or not layers.is_current():
        layers = candidate.layers = create(effective)
    return layers


def _match_in_router(router: Any, scope: Scope, *, is_changed: bool) -> tuple[Any, BaseRoute, Scope, bool]:  # noqa: ANN401 -- a private class of FastAPI
    """Return the route that an included router picks (effective, original), its scope, and whether the request changes.

    A router or route that overrides how it handles requests counts as a change.
    """
    effective = route = router
    while isinstance(route, IncludedRouter):
        is_changed = is_changed or is_overridden(route.original_router, "handle")
        before = dict(scope)
        _, child, route, context = route._match(scope)  # noqa: SLF001 -- see `IncludedRouter`
        is_changed = is_changed or _is_changed(before, {**scope, **child}, route) or handles_itself(route)
        effective = context if isinstance(route, APIRoute) else route  # FastAPI copies other routes with their prefix
    return effective, route, child, is_changed


def _first_match(index: RouteIndex, scope: Scope) -> tuple[Candidate, Scope, bool] | None:
    """Return the route that a router picks, the scope that it adds, and whether it changes the request."""
    partial: tuple[Candidate, Scope, bool] | None = None
    for candidate in index.candidates(route_path(scope)):
        before = None if candidate.is_plain else dict(scope)
        match, child = candidate.effective.matches(scope)
        is_changed = before is not None and _is_changed(before, {**scope, **child}, candidate.original)
        if match is Match.FULL or (before is not None and _is_changed(before, scope, candidate.original)):
            return candidate, child, is_changed  # a route that changed the scope itself affects all later routes
        if match is Match.PARTIAL and partial is None:
            partial = candidate, child, is_changed
    return partial


def _is_changed(before: Scope, after: Scope, route: BaseRoute) -> bool:
    """Return whether a route changes the request that the decision is about."""
    put = _PUT_BY_ROUTES | ({"root_path"} if isinstance(route, Mount) else set())
    return any(before.get(key) != after.get(key) for key in (_ASGI | before.keys()) - put)
