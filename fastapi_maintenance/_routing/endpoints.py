"""The endpoint that will answer a request: how it is marked, whether it documents the app, which methods it has."""

from typing import NamedTuple

from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Scope

from fastapi_maintenance._helpers.scope import route_path
from fastapi_maintenance._routing.layers import Layers, is_overridden
from fastapi_maintenance.decorators import mark_of

# A class of endpoint that overrides none of these answers with its methods, and with 405 where it has none.
_DISPATCH = ("__new__", "__init__", "__await__", "__getattr__", "__getattribute__", "dispatch", "method_not_allowed")


class Answer(NamedTuple):
    """What is known of the endpoint that will answer."""

    mark: bool | None = None  # True if it is forced on, False if it is forced off
    answered: bool = True  # False if the app says 404 or 405, redirects a slash, or answers a CORS preflight by itself
    documentation: bool = False  # whether it is the app's own documentation
    certain: bool = True  # whether no layer or handler of the user's can make it another answer
    path: str | None = None  # of the route, with parameters in braces, if it has one

    def uncertain(self) -> "Answer":
        """Return what is left of it behind something that may change the request, or answer by itself."""
        return self._replace(answered=True, certain=False)


UNKNOWN = Answer(certain=False)  # something answers that has no routes, or looking for the route failed
UNANSWERED = Answer(answered=False)


def answer_of(
    route: BaseRoute, endpoint: object, owner: Starlette | None, scope: Scope, app: ASGIApp | None = None
) -> Answer:
    """Return what is known of an endpoint of a route of an application; the route hands its requests to `app`."""
    mark, certain = mark_of(endpoint), True
    if isinstance(endpoint, type) and issubclass(endpoint, HTTPEndpoint):
        method = scope["method"].lower()
        handler = getattr(endpoint, "get" if method == "head" and not hasattr(endpoint, "head") else method, None)
        own_dispatch = is_overridden(endpoint, *_DISPATCH) or is_overridden(type(endpoint), "__call__")
        certain = not own_dispatch and app is not None and Layers(app).unknown == [endpoint]
        if handler is None and certain:
            return UNANSWERED
        method_mark = mark_of(handler)
        if method_mark or (method_mark is False and not own_dispatch):
            mark = method_mark
    return Answer(mark=mark, documentation=_is_documentation(route, owner, scope), certain=certain)


def _is_documentation(route: BaseRoute, owner: Starlette | None, scope: Scope) -> bool:
    if not isinstance(owner, FastAPI) or owner.openapi_url is None:
        return False
    if getattr(getattr(route, "endpoint", None), "__module__", None) != FastAPI.__module__:
        return False  # a route of the user's with such a path
    urls = (owner.openapi_url, owner.docs_url, owner.redoc_url, owner.swagger_ui_oauth2_redirect_url)
    return scope.get("method") in ("GET", "HEAD") and getattr(route, "path", None) in urls and route_path(scope) in urls
