"""Which endpoint will answer this request? The app's own routes are asked, in the app's own order.

Every route that can match the path is asked with its own `matches`, on a copy of the scope.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from fastapi import FastAPI
from fastapi.routing import APIRoute, APIWebSocketRoute
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.routing import BaseRoute, Host, Match, Mount, Route, Router, WebSocketRoute
from starlette.types import ASGIApp, Scope

from fastapi_maintenance._index import Candidate, IncludedRouter, RouteIndex, contexts_of
from fastapi_maintenance._layers import layers_of
from fastapi_maintenance._scope import route_path
from fastapi_maintenance.decorators import mark_of, marks_put

__all__ = ["OPAQUE", "UNANSWERED", "Answer", "entered", "find_answer", "router_at", "router_of"]

_ANSWER_ALIKE = (APIRoute, APIWebSocketRoute)
"""Routes whose answer depends on nothing but their endpoint and its mark."""


class Answer(NamedTuple):
    """What is known of the endpoint that will answer: its mark, whether there is one, and whether it documents."""

    mark: bool | None = None
    answered: bool = True
    documentation: bool = False


OPAQUE = Answer()
"""Something answers that has no routes to look at."""

UNANSWERED = Answer(answered=False)
"""No route answers: the app says 404 or 405, or redirects to the path with or without its last slash."""


def router_of(app: ASGIApp) -> tuple[Router | None, Starlette | None]:
    """Return the router that an app leads to through its middleware, and the application that it belongs to."""
    *_, end = layers_of(app)
    return router_at(end)


def router_at(end: object) -> tuple[Router | None, Starlette | None]:
    """Return the same of the layer that an app leads to."""
    if isinstance(end, Starlette):
        return end.router, end
    if isinstance(end, BaseRoute):
        return Router([end]), None  # a route can be an app by itself
    return end if isinstance(end, Router) else None, None


def entered(owner: Starlette | None, scope: Scope) -> Scope:
    """Return the scope as the application reads it: FastAPI puts its own `root_path` in the place of the server's."""
    return {**scope, "root_path": owner.root_path} if isinstance(owner, FastAPI) and owner.root_path else scope


def find_answer(index: RouteIndex, owner: Starlette | None, scope: Scope) -> Answer:
    """Return what will answer the request of this scope, which is left as it is."""
    try:
        return _ask(index, owner, scope)
    except Exception:  # noqa: BLE001 -- a route that fails will fail in the app, where its error belongs
        return OPAQUE


def _ask(index: RouteIndex, owner: Starlette | None, scope: Scope) -> Answer:
    """Do what `Router.app` does up to the point where a route is handed the request."""
    partial: tuple[Candidate, Scope] | None = None
    probe = scope
    for candidate in index.candidates(route_path(scope)):
        if probe is scope and not candidate.is_plain:
            probe = _copy_of(scope)  # it may note in it what it tries, as FastAPI's routers do
        match, child = candidate.matches(probe)
        if match is Match.FULL:
            known = candidate.known
            if known is not None and known[0] == marks_put():
                known_answer: Answer = known[1]
                return known_answer
            answer = _look_into(candidate, owner, probe, child)
            if isinstance(candidate.original, _ANSWER_ALIKE):
                candidate.known = marks_put(), answer
            return answer
        if match is Match.PARTIAL and partial is None:
            partial = candidate, child
    if partial is not None:
        return _look_into(partial[0], owner, probe, partial[1])
    probe = _copy_of(scope)
    return OPAQUE if _serves_the_rest(index.router, probe) and not _redirects(index, probe) else UNANSWERED


def _copy_of(scope: Scope) -> Scope:
    probe = dict(scope)
    if isinstance(probe.get("fastapi"), dict):
        probe["fastapi"] = dict(probe["fastapi"])
    return probe


def _look_into(candidate: Candidate, owner: Starlette | None, scope: Scope, child: Scope) -> Answer:
    route, shown = candidate.original, candidate.shown
    while isinstance(route, IncludedRouter):
        _, child, route, _ = route._match(scope)  # noqa: SLF001 -- see where it is imported
        shown = route
    if isinstance(route, (Mount, Host)):
        return _ask_mounted(candidate, shown.app, shown.routes, {**scope, **child})
    if isinstance(route, Route) and shown.methods and scope["method"] not in shown.methods:
        return UNANSWERED
    if isinstance(route, (Route, WebSocketRoute)):
        return _answer_of(route, shown.endpoint, owner, scope)
    for listed in contexts_of([route]) if contexts_of is not None else ():
        inner, (match, listed_child) = listed.original_route, listed.matches(scope)
        if inner is not route and match is Match.FULL:
            if isinstance(inner, (Mount, Host)):
                return _ask_mounted(candidate, listed.app, listed.routes, {**scope, **listed_child})
            return _answer_of(inner, listed.endpoint, owner, scope)
    return _answer_of(route, child.get("endpoint"), owner, scope)


def _ask_mounted(candidate: Candidate, app: ASGIApp, routes: list[BaseRoute], scope: Scope) -> Answer:
    router, owner = router_of(app)
    if router is None:
        # Middleware that hides the app it wraps is looked past: the mount itself still lists the routes below it.
        return _ask(RouteIndex(Router(routes)), None, scope) if routes else OPAQUE
    if candidate.below is None or candidate.below.router is not router:
        candidate.below = RouteIndex(router)
    return _ask(candidate.below, owner, entered(owner, scope))


def _serves_the_rest(router: Router, scope: Scope) -> bool:
    """Tell whether the router has something for a request that none of its routes matches."""
    # There is no public way to ask for the files of `app.frontend()`. tests/test_routes.py fails when this one goes.
    match_frontend = getattr(router, "_match_low_priority", None)
    match = Match.NONE if match_frontend is None else match_frontend(scope)[0]
    return match is Match.FULL or (match is Match.NONE and router.default != router.not_found)


def _redirects(index: RouteIndex, scope: Scope) -> bool:
    path = route_path(scope)
    if scope["type"] != "http" or not index.router.redirect_slashes or path == "/":
        return False
    other = {**scope, "path": scope["path"].rstrip("/") if path.endswith("/") else scope["path"] + "/"}
    return any(candidate.matches(other)[0] is not Match.NONE for candidate in index.candidates(route_path(other)))


def _answer_of(route: BaseRoute, endpoint: Any, owner: Starlette | None, scope: Scope) -> Answer:  # noqa: ANN401 -- anything can be an endpoint
    mark = mark_of(endpoint)
    if isinstance(endpoint, type) and issubclass(endpoint, HTTPEndpoint):
        # The class dispatches by method itself, and answers 405 where it has no function for one.
        method = scope["method"].lower()
        handler = getattr(endpoint, "get" if method == "head" and not hasattr(endpoint, "head") else method, None)
        if handler is None:
            return UNANSWERED
        own_mark = mark_of(handler)
        mark = mark if own_mark is None else own_mark
    return Answer(mark=mark, documentation=_is_documentation(route, owner, scope))


def _is_documentation(route: BaseRoute, owner: Starlette | None, scope: Scope) -> bool:
    if not isinstance(owner, FastAPI) or owner.openapi_url is None or isinstance(route, APIRoute):
        return False
    urls = (owner.openapi_url, owner.docs_url, owner.redoc_url, owner.swagger_ui_oauth2_redirect_url)
    is_read = scope.get("method") in ("GET", "HEAD")
    return is_read and getattr(route, "path", None) in urls and route_path(scope) in urls
