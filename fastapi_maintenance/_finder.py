"""Which endpoint will answer, seen from a middleware: through the layers that it wraps, down to the routes."""

from __future__ import annotations

import itertools
from typing import Any

from starlette.applications import Starlette
from starlette.routing import Router
from starlette.types import ASGIApp, Scope

from fastapi_maintenance._index import RouteIndex
from fastapi_maintenance._layers import layers_of
from fastapi_maintenance._routes import OPAQUE, Answer, entered, find_answer, router_at

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
        self._path: list[tuple[Any, object]] = []
        self._end: object = None

    def find(self, scope: Scope) -> tuple[Scope, Answer]:
        """Return the scope as the application reads it, and what will answer."""
        router, owner = self.router_in(scope)
        scope = entered(owner, scope)
        if router is None:
            return scope, OPAQUE
        index = self._index
        if index is None or index.router is not router:
            index = self._index = RouteIndex(router)
        return scope, find_answer(index, owner, scope)

    def router_in(self, scope: Scope) -> tuple[Router | None, Starlette | None]:
        """Return the router, and the application that it belongs to."""
        end, app = self._last_layer(), scope.get("app")
        # The app in the scope is meant if its router is what was found, or, where middleware in between hides the
        # router, if this very middleware was added to it.
        if isinstance(app, Starlette) and app.router is end:
            return app.router, app
        router, owner = router_at(end)
        if router is None and isinstance(app, Starlette):
            added = any(middleware.cls is self._made_by for middleware in app.user_middleware)
            return (app.router, app) if added else (None, None)
        return router, owner

    def _last_layer(self) -> object:
        """Return what the layers lead to; they are walked anew only where one of them wraps another app by now."""
        for layer, inner in self._path:
            if layer.app is not inner:
                break
        else:
            if self._end is not None:
                return self._end
        layers = list(layers_of(self._app))
        self._path = list(itertools.pairwise(layers))
        self._end = layers[-1]
        return self._end
