"""Which endpoint will answer, seen from a middleware: through the layers that it wraps, down to the routes."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.routing import Router
from starlette.types import ASGIApp, Scope

from fastapi_maintenance._index import RouteIndex
from fastapi_maintenance._layers import Way, way_to
from fastapi_maintenance._routes import OPAQUE, Answer, behind_unknown, entered, find_answer

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
        """Return the scope as the application reads it, and what will answer; a failure on the way there is opaque."""
        try:
            router, owner = self.router_in(scope)
            scope = entered(owner, scope)
            if router is None:
                return scope, OPAQUE
            index = self._index
            if index is None or index.router is not router:
                index = self._index = RouteIndex(router)
            answer = find_answer(index, owner, scope)
            return scope, behind_unknown(answer) if self.way.unknown else answer
        except Exception:  # noqa: BLE001 -- a route that fails will fail in the app, where its error belongs
            return scope, OPAQUE

    @property
    def way(self) -> Way:
        """The way to the routes; it is walked anew only where one of its layers wraps another app by now."""
        self._way = way_to(self._app, self._way)
        return self._way

    def router_in(self, scope: Scope) -> tuple[Router | None, Starlette | None]:
        """Return the router, and the application that it belongs to."""
        way, app = self.way, scope.get("app")
        # The app in the scope is meant if its router is what was found, or, where middleware in between hides the
        # router, if this very middleware was added to it.
        if way.owner is None and isinstance(app, Starlette):
            added = any(middleware.cls is self._made_by for middleware in app.user_middleware)
            if app.router is way.router or (way.router is None and added):
                return app.router, app
        return way.router, way.owner
