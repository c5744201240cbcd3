"""Which endpoint will answer, seen from a middleware: through the layers that it wraps, down to the routes."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from starlette.applications import Starlette
from starlette.routing import Router
from starlette.types import ASGIApp, Scope

from fastapi_maintenance._helpers.scope import HIDDEN_APP, is_preflight
from fastapi_maintenance._routing.index import RouteIndex
from fastapi_maintenance._routing.layers import Way, way_to
from fastapi_maintenance._routing.routes import OPAQUE, UNANSWERED, Answer, behind_unknown, entered, find_answer

__all__ = ["RouteFinder"]


class RouteFinder:
    """Find what will answer a request behind a middleware.

    Args:
        app: What the middleware wraps.
        made_by: What an application that the middleware is added to knows it by.

    """

    def __init__(self, app: ASGIApp, made_by: object) -> None:
        self._app = app
        self._made_by = made_by
        self._index: RouteIndex | None = None
        self._way: Way | None = None

    def find(self, scope: Scope) -> tuple[Scope, Answer]:
        """Return the scope as the application reads it, and what will answer; where that cannot be found, OPAQUE."""
        answer, as_read = OPAQUE, None
        with suppress(Exception):  # a route that fails will fail in the app, where its error belongs
            router, owner, unknown = self.router_in(scope)
            if router is not None:
                as_read = entered(owner, scope)
                answer = self._ask(router, owner, as_read)
                if unknown:
                    answer = behind_unknown(answer)
        return {**scope, HIDDEN_APP: True} if as_read is None else as_read, answer

    def _ask(self, router: Router, owner: Starlette | None, scope: Scope) -> Answer:
        index = self._index
        if index is None or index.router is not router:
            index = self._index = RouteIndex(router)
        answer = find_answer(index, owner, scope)
        # Where a layer answers preflights itself, none comes to a route, not even to one that takes OPTIONS.
        stops_here = answer.certain and is_preflight(scope) and self._way is not None and self._way.answers_preflights
        return UNANSWERED if stops_here else answer

    def router_in(self, scope: Scope) -> tuple[Router | None, Starlette | None, list[Any]]:
        """Return the router, the application that it belongs to, and what is unknown on the way there."""
        way = self._way = way_to(self._app, self._way)
        app = scope.get("app")
        # The app in the scope is meant if its router is what was found, or, where middleware in between hides the
        # router, if this very middleware was added to it.
        if way.owner is None and isinstance(app, Starlette):
            added = way.router is None and any(each.cls is self._made_by for each in app.user_middleware)
            if added or app.router is way.router:
                return app.router, app, way.unknown
        return way.router, way.owner, way.unknown
