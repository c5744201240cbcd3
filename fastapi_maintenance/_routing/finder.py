"""Which endpoint will answer this request? The app's routes are asked with their own `matches`, in the app's order."""

from collections.abc import Sequence

from fastapi import FastAPI
from fastapi.routing import APIRoute, APIWebSocketRoute
from starlette.applications import Starlette
from starlette.routing import BaseRoute, Host, Match, Mount, Route, Router, WebSocketRoute
from starlette.types import ASGIApp, Scope

from fastapi_maintenance._helpers.scope import HIDDEN_APP, is_preflight, route_path
from fastapi_maintenance._routing.endpoints import UNANSWERED, UNKNOWN, Answer, answer_of
from fastapi_maintenance._routing.layers import Layers, is_overridden
from fastapi_maintenance._routing.left_to_app import handles_refusals, is_refused
from fastapi_maintenance._routing.routes import Candidate, IncludedRouter, RouteIndex
from fastapi_maintenance.decorators import marks_put

# Routes that give all requests that they match the same answer, while nobody marks the endpoint.
_DEPENDS_ON_MARK = (APIRoute, APIWebSocketRoute)


class RouteFinder:
    """Find the endpoint that will answer a request to an app, which a middleware listed as `added_as` may wrap."""

    def __init__(self, app: ASGIApp, added_as: object = None) -> None:
        self.app = app
        self._added_as = added_as
        self._layers: Layers | None = None
        self._index: RouteIndex | None = None

    def find(self, scope: Scope, mounted: Sequence[BaseRoute] = ()) -> tuple[Scope, Answer]:
        """Return the scope as the application reads it, and what will answer: UNKNOWN where that cannot be found."""
        answer = UNKNOWN
        as_read: Scope | None = None
        try:
            router, owner, layers = self.router_of(scope)
            router = Router(mounted) if router is None and mounted else router  # which a layer hides, and a mount lists
            if router is not None:
                # FastAPI puts its own `root_path` in the place of the server's.
                own_root = isinstance(owner, FastAPI) and owner.root_path
                as_read = {**scope, "root_path": own_root} if own_root else scope
                answer = self._ask(router, owner, layers, as_read)
        except Exception:  # noqa: BLE001 -- a route that fails will fail in the app, where its error belongs
            answer = UNKNOWN
        return as_read or {**scope, HIDDEN_APP: True}, answer

    def router_of(self, scope: Scope) -> tuple[Router | None, Starlette | None, Layers]:
        """Return the router behind the app, the application that it belongs to, and the layers in between."""
        layers = self._layers
        if layers is None or not layers.is_current():
            layers = self._layers = Layers(self.app)
        app = scope.get("app")  # counts if the router is its own, or, where a layer hides that, if it lists us
        if self._added_as is not None and layers.owner is None and isinstance(app, Starlette):
            is_added = layers.router is None and any(each.cls is self._added_as for each in app.user_middleware)
            if is_added or app.router is layers.router:
                return app.router, app, layers
        return layers.router, layers.owner, layers

    def _ask(self, router: Router, owner: Starlette | None, layers: Layers, scope: Scope) -> Answer:
        if self._index is None or self._index.router is not router or not self._index.is_current():
            self._index = RouteIndex(router)
        copy = dict(scope)  # in which routes may note something while they are asked, as FastAPI's routers do
        if isinstance(scope.get("fastapi"), dict):
            copy["fastapi"] = dict(scope["fastapi"])
        answer = _ask_routes(self._index, owner, copy)
        if not answer.answered and handles_refusals(owner):
            answer = answer.uncertain()
        # Where a layer answers preflights itself, none comes to a route, not even to one that takes OPTIONS.
        if answer.certain and layers.answers_preflights and is_preflight(scope):
            answer = UNANSWERED
        return answer.uncertain() if layers.unknown else answer


def _ask_routes(index: RouteIndex, owner: Starlette | None, scope: Scope) -> Answer:
    """Do what `Router.app` does, up to the point where a route is handed the request."""
    partial: tuple[Candidate, Scope] | None = None
    for candidate in index.candidates(route_path(scope)):
        match, child = candidate.effective.matches(scope)
        if match is Match.FULL:
            if candidate.answer is not None and candidate.answer[0] == marks_put():
                return candidate.answer[1]
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
    route, effective, overridden = candidate.original, candidate.effective, False
    path = getattr(effective, "path", None)
    while isinstance(route, IncludedRouter):  # which could not be listed route by route
        overridden = overridden or is_overridden(route.original_router, "handle")
        _, child, route, context = route._match(scope)  # noqa: SLF001 -- see where it is imported
        effective, path = route, getattr(context, "path", None)
    overridden = overridden or is_overridden(route, "handle")
    if isinstance(route, (Mount, Host)):
        if candidate.finder is None or candidate.finder.app is not effective.app:
            candidate.finder = RouteFinder(effective.app)
        answer: Answer = candidate.finder.find({**scope, **child}, effective.routes)[1]
        path = (path or "") + (answer.path or "")
    elif isinstance(route, (Route, WebSocketRoute)):
        methods = getattr(effective, "methods", None)
        if methods and not overridden and scope["method"] not in methods:
            return UNANSWERED
        answer = answer_of(route, effective.endpoint, owner, scope, getattr(effective, "app", None))
    else:
        answer = answer_of(route, child.get("endpoint"), owner, scope)
    answer = answer._replace(path=path)
    return answer.uncertain() if overridden else answer
