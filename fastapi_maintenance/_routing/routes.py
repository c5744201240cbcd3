"""Which endpoint will answer this request? The app's own routes are asked, in the app's own order.

Every route that can match the path is asked with its own `matches`, on a copy of the scope.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from fastapi import FastAPI
from fastapi.routing import APIRoute, APIWebSocketRoute
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Host, Match, Mount, Route, Router, WebSocketRoute
from starlette.types import ASGIApp, Scope

from fastapi_maintenance._helpers.scope import route_path
from fastapi_maintenance._routing.index import Candidate, IncludedRouter, RouteIndex, contexts_of
from fastapi_maintenance._routing.layers import THEIRS, Way, is_own, way_to
from fastapi_maintenance.decorators import mark_of, marks_put

__all__ = ["OPAQUE", "UNANSWERED", "Answer", "behind_unknown", "entered", "find_answer"]

_ANSWER_ALIKE = (APIRoute, APIWebSocketRoute)
"""Routes whose answer depends on nothing but their endpoint and its mark."""
# What a class of endpoint would have to leave alone, so that its methods say what it answers.
_DISPATCH = (
    *("__new__", "__init__", "__await__", "__getattr__", "__getattribute__"),
    *("dispatch", "method_not_allowed"),
)


class Answer(NamedTuple):
    """What is known of the endpoint that will answer: its mark, whether there is one, and whether it documents."""

    mark: bool | None = None
    answered: bool = True
    documentation: bool = False
    certain: bool = True
    """Whether nothing on the way can make it another one."""


_REFUSALS = (404, 405, HTTPException)
"""What the handlers of an application can be for that change what its router refuses."""

OPAQUE = Answer(certain=False)
"""Something answers that has no routes to look at, or looking for the route failed."""

UNANSWERED = Answer(answered=False)
"""No route answers: the app says 404 or 405, or redirects to the path with or without its last slash."""


def behind_unknown(answer: Answer) -> Answer:
    """Return what is left of an answer behind something that may change the request, or answer it by itself."""
    return answer._replace(answered=True, certain=False)


def entered(owner: Starlette | None, scope: Scope) -> Scope:
    """Return the scope as the application reads it: FastAPI puts its own `root_path` in the place of the server's."""
    return {**scope, "root_path": owner.root_path} if isinstance(owner, FastAPI) and owner.root_path else scope


def find_answer(index: RouteIndex, owner: Starlette | None, scope: Scope) -> Answer:
    """Return what will answer the request of this scope, which is left as it is; raises what a route raises.

    A 404 or 405 for which the application has a handler of its own can become any answer.
    """
    answer = _find_route(index, owner, scope)
    return answer if answer.answered or owner is None or not _handles_refusals(owner) else behind_unknown(answer)


def _handles_refusals(owner: Starlette) -> bool:
    return any(_is_of_user(handler) for key in _REFUSALS if (handler := owner.exception_handlers.get(key)) is not None)


def _is_of_user(handler: object) -> bool:
    return getattr(handler, "__module__", "").partition(".")[0] not in THEIRS


def _find_route(index: RouteIndex, owner: Starlette | None, scope: Scope) -> Answer:
    """Return what will answer, as the router finds it.

    It does what `Router.app` does up to the point where a route is handed the request.
    """
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
    route, shown, child, own = _selected(candidate, scope, child)
    if isinstance(route, (Mount, Host)):
        answer = _ask_mounted(candidate, shown.app, shown.routes, {**scope, **child})
    elif isinstance(route, Route) and not own and shown.methods and scope["method"] not in shown.methods:
        return UNANSWERED
    elif isinstance(route, (Route, WebSocketRoute)):
        answer = _answer_of(route, shown.endpoint, owner, scope, getattr(shown, "app", None))
    else:
        answer = _answer_of(route, child.get("endpoint"), owner, scope)
    return behind_unknown(answer) if own else answer


def _selected(candidate: Candidate, scope: Scope, child: Scope) -> tuple[BaseRoute, Any, Scope, bool]:
    """Return the route that is handed the request, as it is and as shown, and whether it is handled in an own way."""
    route, shown, own = candidate.original, candidate.shown, False
    while isinstance(route, IncludedRouter):
        own = own or is_own(route.original_router, "handle")
        _, child, route, _ = route._match(scope)  # noqa: SLF001 -- see where it is imported
        shown = route
    is_seen = contexts_of is None or isinstance(route, (Mount, Host, Route, WebSocketRoute))
    for listed in () if is_seen else contexts_of([route]):
        match, listed_child = listed.matches(scope)
        if listed.original_route is not route and match is Match.FULL:
            route, shown, child = listed.original_route, listed, listed_child
            break
    return route, shown, child, own or is_own(route, "handle")


def _ask_mounted(candidate: Candidate, app: ASGIApp, routes: list[BaseRoute], scope: Scope) -> Answer:
    way = candidate.way = way_to(app, candidate.way)
    if way.router is None:
        # Middleware that hides the app it wraps is looked past: the mount itself still lists the routes below it.
        return behind_unknown(find_answer(RouteIndex(Router(routes)), None, scope)) if routes else OPAQUE
    if candidate.below is None or candidate.below.router is not way.router:
        candidate.below = RouteIndex(way.router)
    answer = find_answer(candidate.below, way.owner, entered(way.owner, scope))
    return behind_unknown(answer) if way.unknown else answer


def _serves_the_rest(router: Router, scope: Scope) -> bool:
    """Tell whether the router has something for a request that none of its routes matches."""
    # The files of `app.frontend()` have no public way to them; tests/routing/test_routes.py fails when this goes.
    match_frontend = getattr(router, "_match_low_priority", None)
    match = Match.NONE if match_frontend is None else match_frontend(scope)[0]
    return match is Match.FULL or (
        match is Match.NONE and (router.default != router.not_found or is_own(router, "not_found"))
    )


def _redirects(index: RouteIndex, scope: Scope) -> bool:
    path = route_path(scope)
    if scope["type"] != "http" or not index.router.redirect_slashes or path == "/":
        return False
    other = {**scope, "path": scope["path"].rstrip("/") if path.endswith("/") else scope["path"] + "/"}
    return any(candidate.matches(other)[0] is not Match.NONE for candidate in index.candidates(route_path(other)))


def _answer_of(
    route: BaseRoute,
    endpoint: Any,  # noqa: ANN401 -- anything can be an endpoint
    owner: Starlette | None,
    scope: Scope,
    app: ASGIApp | None = None,
) -> Answer:
    mark, certain = mark_of(endpoint), True
    if isinstance(endpoint, type) and issubclass(endpoint, HTTPEndpoint):
        # The class dispatches by method itself, and answers 405 where it has no function for one.
        method = scope["method"].lower()
        handler = getattr(endpoint, "get" if method == "head" and not hasattr(endpoint, "head") else method, None)
        own_mark, own = mark_of(handler), is_own(endpoint, *_DISPATCH) or is_own(type(endpoint), "__call__")
        certain = not own and app is not None and Way(app).unknown == [endpoint]
        if handler is None and certain:
            return UNANSWERED
        if own_mark or (own_mark is False and not own):
            mark = own_mark
    return Answer(mark=mark, documentation=_is_documentation(route, owner, scope), certain=certain)


def _is_documentation(route: BaseRoute, owner: Starlette | None, scope: Scope) -> bool:
    if not isinstance(owner, FastAPI) or owner.openapi_url is None:
        return False
    if getattr(getattr(route, "endpoint", None), "__module__", None) != FastAPI.__module__:
        return False  # a route of the user's with such a path
    urls = (owner.openapi_url, owner.docs_url, owner.redoc_url, owner.swagger_ui_oauth2_redirect_url)
    is_read = scope.get("method") in ("GET", "HEAD")
    return is_read and getattr(route, "path", None) in urls and route_path(scope) in urls
