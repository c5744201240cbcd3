"""Which endpoint will answer this request? The app's own routes are asked, in the app's own order.

Every route that can match the path is asked with its own `matches`, on a copy of the scope.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute, APIWebSocketRoute
from starlette.applications import Starlette
from starlette.routing import BaseRoute, Host, Match, Mount, Route, Router, WebSocketRoute
from starlette.types import ASGIApp, Scope

from fastapi_maintenance._helpers.scope import HIDDEN_APP, route_path
from fastapi_maintenance._routing.endpoints import UNANSWERED, UNKNOWN, Answer, answer_of
from fastapi_maintenance._routing.index import Candidate, IncludedRouter, RouteIndex, route_contexts
from fastapi_maintenance._routing.layers import Layers, is_overridden
from fastapi_maintenance._routing.left_to_app import handles_refusals, is_preflight, is_refused
from fastapi_maintenance.decorators import marks_put

__all__ = ["RouteFinder"]

_DEPENDS_ON_MARK = (APIRoute, APIWebSocketRoute)
"""Routes that give all requests that they match the same answer, while nobody marks the endpoint."""


class RouteFinder:
    """Find the endpoint that will answer the requests that an ASGI app is handed.

    Args:
        app: The app.
        added_as: For what a middleware wraps: what an application has in its list of middleware if it was added there.

    """

    def __init__(self, app: ASGIApp, added_as: object = None) -> None:
        self.app = app
        self._added_as = added_as
        self._layers: Layers | None = None
        self._index: RouteIndex | None = None

    @property
    def layers(self) -> Layers:
        """The layers between the app and its routes, as they are now."""
        if self._layers is None or not self._layers.is_current():
            self._layers = Layers(self.app)
        return self._layers

    def find(self, scope: Scope) -> tuple[Scope, Answer]:
        """Return the scope as the application reads it, and what will answer; where that cannot be found, UNKNOWN."""
        answer = UNKNOWN
        as_read: Scope = {**scope, HIDDEN_APP: True}
        with suppress(Exception):  # a route that fails will fail in the app, where its error belongs
            router, owner = self.router_of(self.layers, scope)
            if router is not None:
                as_read = _with_root_path(owner, scope)
                answer = self._ask(router, owner, as_read)
        return as_read, answer

    def find_mounted(self, routes: list[BaseRoute], scope: Scope) -> Answer:
        """Return what will answer where the app is mounted, with these routes; raise what a route raises."""
        layers = self.layers
        if layers.router is not None:
            return self._ask(layers.router, layers.owner, _with_root_path(layers.owner, scope))
        # Middleware that hides the app it wraps is looked past: the mount itself still lists the routes below it.
        return self._ask(Router(routes), None, scope) if routes else UNKNOWN

    def router_of(self, layers: Layers, scope: Scope) -> tuple[Router | None, Starlette | None]:
        """Return the router behind these layers, and the application that it belongs to.

        That is the application in the scope if the router is its own, or if, where middleware in between hides the
        router, this very middleware was added to it.
        """
        app = scope.get("app")
        if layers.owner is None and isinstance(app, Starlette):
            is_added = layers.router is None and any(each.cls is self._added_as for each in app.user_middleware)
            if is_added or app.router is layers.router:
                return app.router, app
        return layers.router, layers.owner

    def _ask(self, router: Router, owner: Starlette | None, scope: Scope) -> Answer:
        if self._index is None or self._index.router is not router or not self._index.is_current():
            self._index = RouteIndex(router)
        answer = _ask_routes(self._index, owner, _copy_of(scope))
        if not answer.answered and handles_refusals(owner):
            answer = answer.uncertain()
        # Where a layer answers preflights itself, none comes to a route, not even to one that takes OPTIONS.
        if answer.certain and self.layers.answers_preflights and is_preflight(scope):
            answer = UNANSWERED
        return answer.uncertain() if self.layers.unknown else answer


def _with_root_path(owner: Starlette | None, scope: Scope) -> Scope:
    """Return the scope as the application reads it: FastAPI puts its own `root_path` in the place of the server's."""
    return {**scope, "root_path": owner.root_path} if isinstance(owner, FastAPI) and owner.root_path else scope


def _copy_of(scope: Scope) -> Scope:
    """Copy what a route may note in a scope while it is asked, as FastAPI's routers do."""
    copy = dict(scope)
    if isinstance(copy.get("fastapi"), dict):
        copy["fastapi"] = dict(copy["fastapi"])
    return copy


def _ask_routes(index: RouteIndex, owner: Starlette | None, scope: Scope) -> Answer:
    """Do what `Router.app` does, up to the point where a route is handed the request."""
    partial: tuple[Candidate, Scope] | None = None
    for candidate in index.candidates(route_path(scope)):
        match, child = candidate.effective.matches(scope)
        if match is Match.FULL:
            if candidate.answer is not None and candidate.answer[0] == marks_put():
                known: Answer = candidate.answer[1]
                return known
            answer = _ask_route(candidate, owner, scope, child)
            if isinstance(candidate.original, _DEPENDS_ON_MARK):
                candidate.answer = marks_put(), answer
            return answer
        if match is Match.PARTIAL and partial is None:
            partial = candidate, child
    if partial is not None:
        return _ask_route(partial[0], owner, scope, partial[1])
    return UNANSWERED if is_refused(index, scope) else UNKNOWN


def _ask_route(candidate: Candidate, owner: Starlette | None, scope: Scope, child: Scope) -> Answer:
    route, effective, child, overridden = _selected(candidate, scope, child)
    if isinstance(route, (Mount, Host)):
        if candidate.finder is None or candidate.finder.app is not effective.app:
            candidate.finder = RouteFinder(effective.app)
        answer: Answer = candidate.finder.find_mounted(effective.routes, {**scope, **child})
    elif isinstance(route, (Route, WebSocketRoute)):
        methods = getattr(effective, "methods", None)
        if methods and not overridden and scope["method"] not in methods:
            return UNANSWERED
        answer = answer_of(route, effective.endpoint, owner, scope, getattr(effective, "app", None))
    else:
        answer = answer_of(route, child.get("endpoint"), owner, scope)
    return answer.uncertain() if overridden else answer


def _selected(candidate: Candidate, scope: Scope, child: Scope) -> tuple[BaseRoute, Any, Scope, bool]:
    """Return the route that is handed the request, also with its prefixes, and whether a `handle` is overridden."""
    route, effective, overridden = candidate.original, candidate.effective, False
    while isinstance(route, IncludedRouter):
        overridden = overridden or is_overridden(route.original_router, "handle")
        _, child, route, _ = route._match(scope)  # noqa: SLF001 -- see where it is imported
        effective = route
    is_seen = route_contexts is None or isinstance(route, (Mount, Host, Route, WebSocketRoute))
    for context in () if is_seen else route_contexts([route]):
        match, context_child = context.matches(scope)
        if context.original_route is not route and match is Match.FULL:
            route, effective, child = context.original_route, context, context_child
            break
    return route, effective, child, overridden or is_overridden(route, "handle")
