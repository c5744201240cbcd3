"""Which endpoint will answer this request? The app's routes are asked with their own `matches`, in the app's order."""

from typing import Any

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


class Answer:
    """What is known of what will answer a request."""

    mark: bool | None = None
    """True if it is forced on, False if it is forced off."""
    answered: bool = True
    """False if the app returns 404 or 405, or redirects a slash."""
    documentation: bool = False
    """Whether it is the app's own documentation."""
    path: str = ""
    """The path of the route, with parameters in braces, if it has one."""
    routed: Scope | None = None
    """The scope as the endpoint will find it, if it is certain which endpoint that is."""
    as_read: Scope
    """The scope as the application reads it."""
    left: Scope | None = None
    """The scope as the routes leave it, certain or not."""

    def __init__(self) -> None:
        self.layers: list[Layers] = []  # of the apps that the request goes through, from the outside in
        self.matched: list[Matched] = []  # the routes, likewise, certain or not

    @property
    def says_more(self) -> bool:
        """Whether it is more than that something answers, about which the predicate decides."""
        return self.mark is not None or not self.answered or self.documentation

    def has_passed(self, layers: Layers) -> bool:
        """Return whether a guess leads back to where the request comes from, so that it is wrong."""
        return any(layers.router is each.router for each in self.layers)

    def put_mark(self, nearer: bool | None, *, decides: bool) -> None:  # noqa: FBT001 -- a mark
        """Let a nearer mark count; forced off is not certain where something else than the routes decides."""
        if nearer or (nearer is False and not decides):
            self.mark = nearer

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

    def find(self, scope: Scope) -> Answer:
        """Return what will answer a request.

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
            answer = Answer()
        answer.as_read = as_read or {**scope, HIDDEN_APP: True}
        return answer

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
    scope = {**scope}  # in which routes may put something while they are asked, as FastAPI's routers do
    if isinstance(scope.get("fastapi"), dict):
        scope["fastapi"] = dict(scope["fastapi"])
    method = scope.get("method", "GET")
    answer, is_certain, decides, handling = Answer(), True, False, None
    if "endpoint" in scope and scope.get("router") is not layers.router:  # else middleware outside tries once more
        answer.mark = mark_at(scope["endpoint"], method)
    while True:
        # The layers, from the outside in.
        answer.put_mark(layers.mark, decides=decides)
        decides = decides or layers.decides or layers.is_guess
        is_certain = is_certain and not decides and not layers.unknown
        handling = handling if layers.handlers is None else layers.handlers  # the innermost one handles 404 and 405
        index = layers.index()
        is_wrong = layers.is_guess and answer.has_passed(layers)
        answer.layers.append(layers)
        if index is None or is_wrong or len(answer.layers) > _MOST_MOUNTS:
            return answer
        answer.left = scope = layers.read(scope)

        # The routes, in their order.
        found = _first_match(index, scope)
        if found is None:
            is_refused = users_handler(handling, 404) is None and not serves_unmatched(index.router, scope)
            answer.answered = not (is_certain and (is_refused or redirects_slash(index, scope)))
            return answer
        candidate, child, is_changed = found
        effective, route = candidate.effective, candidate.original
        if isinstance(route, IncludedRouter):  # which could not be listed route by route
            effective, route, child, is_changed = _match_in_router(route, scope, is_changed=is_changed)
        template = getattr(effective, "path", None) or ""
        answer.path += template
        answer.matched.append((index.router, effective, route))
        answer.put_mark(candidate.mark, decides=decides)
        decides = decides or candidate.decides or is_changed
        is_certain = is_certain and not decides
        scope.update(child)
        scope[TEMPLATE] = template
        if not isinstance(route, (Mount, Host)):
            break
        if candidate.layers is None or candidate.layers.app is not effective.app or not candidate.layers.is_current():
            candidate.layers = mounted_layers(effective)
        layers = candidate.layers

    # The endpoint.
    is_routed = isinstance(route, (Route, WebSocketRoute))
    decides = decides or not is_routed
    endpoint = effective.endpoint if is_routed else child.get("endpoint")
    methods, app = getattr(effective, "methods", None), getattr(effective, "app", None)
    if not decides and ((methods and method not in methods) or refuses(endpoint, method, app)):
        answer.answered = not is_certain or users_handler(handling, 405) is not None
        return answer
    answer.documentation = not decides and shows_documentation(route, layers.owner, scope)
    answer.put_mark(mark_at(endpoint, method), decides=decides)
    answer.routed = scope if is_certain else None
    return answer


def _match_in_router(router: Any, scope: Scope, *, is_changed: bool) -> tuple[Any, BaseRoute, Scope, bool]:  # noqa: ANN401 -- of the private class
    """Return the route in an included router to which a request goes, also as it is effective, and what that changes.

    A router or route with a way of its own to handle requests counts as a change.
    """
    effective = route = router
    while isinstance(route, IncludedRouter):
        is_changed = is_changed or is_overridden(route.original_router, "handle")
        before = dict(scope)
        _, child, route, context = route._match(scope)  # noqa: SLF001 -- see where it is imported
        is_changed = is_changed or _is_changed(before, {**scope, **child}, route) or handles_itself(route)
        effective = context if isinstance(route, APIRoute) else route  # which FastAPI keeps a copy of
    return effective, route, child, is_changed


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
