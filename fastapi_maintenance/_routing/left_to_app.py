"""Which endpoints answer a method, and what is left to the app: 404, 405, and redirects of trailing slashes.

A class-based endpoint answers the methods that it has functions for; each function may have a mark of its own.
"""

from collections.abc import Iterable
from functools import partial
from inspect import getattr_static
from typing import Any

from starlette.endpoints import HTTPEndpoint, WebSocketEndpoint
from starlette.exceptions import HTTPException
from starlette.routing import Match, Router
from starlette.types import Scope

from fastapi_maintenance._helpers.framework import Starlette, is_framework, is_overridden, unwrapped
from fastapi_maintenance._helpers.scope import route_path
from fastapi_maintenance._routing.layers import Layers
from fastapi_maintenance._routing.routes import RouteIndex
from fastapi_maintenance.decorators import mark_of

# A class that overrides none of these answers with its methods, and otherwise with 405.
_DISPATCH = ("__new__", "__init__", "__await__", "__getattr__", "__getattribute__", "dispatch", "method_not_allowed")
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")
# Newer versions of Starlette check a list of methods first, which lacks `PURGE` even if the class has a function
# `purge`. The list has no public name; tests/routing/test_dispatch.py fails if it is removed.
_HAS_METHOD_LIST = "_allowed_methods" in HTTPEndpoint.dispatch.__code__.co_names


def users_handler(handling: Any, status: int) -> Any:  # noqa: ANN401 -- an application, or a layer that has handlers
    """Return the user's handler of 404 or 405, which may answer anything; None if there is none or it is forced off."""
    if handling is None:
        return None
    if isinstance(handling, Starlette):
        handlers = handling.exception_handlers
    else:  # these have no public name; tests/routing/test_ways_in.py fails if they are removed
        handlers = {**handling._exception_handlers, **handling._status_handlers}  # noqa: SLF001
    handler = handlers.get(status, handlers.get(HTTPException))
    return None if handler is None or is_framework(handler) or mark_of(handler) is False else handler


def may_serve_unmatched(router: Router) -> bool:
    """Return whether a router may answer some request with something other than 404 if none of its routes matches."""
    frontends: Iterable[object] = getattr(router, "_iter_low_priority_routes", tuple)()  # as below
    return any(True for _ in frontends) or router.default != router.not_found or is_overridden(router, "not_found")


def serves_unmatched(router: Router, scope: Scope, handling: Any) -> bool:  # noqa: ANN401 -- as above
    """Return whether a router or the user's handlers may answer a request if none of the router's routes matches."""
    if users_handler(handling, 404) is not None:
        return True
    # The files of `app.frontend()` have no public API; tests/routing/test_left_to_app.py fails if this is removed.
    match = getattr(router, "_match_low_priority", lambda _: (Match.NONE, {}))(scope)[0]
    if match is Match.PARTIAL:  # 404 or 405
        return users_handler(handling, 405) is not None
    return match is Match.FULL or router.default != router.not_found or is_overridden(router, "not_found")


def redirects_slash(index: RouteIndex, scope: Scope) -> bool:
    """Return whether a router redirects to the path with or without its trailing slash."""
    path = route_path(scope)
    if scope["type"] != "http" or not index.router.redirect_slashes or path == "/":
        return False
    other = {**scope, "path": scope["path"].rstrip("/") if path.endswith("/") else scope["path"] + "/"}
    candidates = index.candidates(route_path(other))
    return any(candidate.effective.matches(other)[0] is not Match.NONE for candidate in candidates)


def mark_at(endpoint: Any, method: str) -> bool | None:  # noqa: ANN401 -- anything can be an endpoint
    """Return the mark of an endpoint for a method: in a class, that of the method's function, if it has one."""
    mark, kind = mark_of(endpoint), _class_of(endpoint)
    if kind is None or _has_no_method(kind, method):
        return mark
    nearer = mark_of(getattr(kind, _name_of_function(kind, method), None))
    return mark if nearer is None or (not nearer and _dispatches_itself(kind, method)) else nearer


def methods_of(endpoint: Any, app: Any) -> list[str] | None:  # noqa: ANN401 -- as above
    """Return the methods that a class-based endpoint, called by `app`, may answer; None for other endpoints."""
    return None if _class_of(endpoint) is None else [each for each in _METHODS if not refuses(endpoint, each, app)]


def refuses(endpoint: Any, method: str, app: Any) -> bool:  # noqa: ANN401 -- as above
    """Return whether an endpoint, called by `app`, is certain to answer a method with 405."""
    kind = _class_of(endpoint)
    if kind is None or not _has_no_method(kind, method):
        return False
    layers = Layers(app)
    is_called = [unwrapped(each) for each in layers.unknown] == [unwrapped(endpoint)]
    return is_called and users_handler(layers.handlers, 405) is None


def _class_of(endpoint: Any) -> Any:  # noqa: ANN401 -- as above
    """Return the class of a class-based endpoint, also of a `partial` of one; None for other endpoints."""
    while isinstance(endpoint, partial):
        endpoint = endpoint.func
    if not isinstance(endpoint, type):  # the usual case
        return None
    kind = unwrapped(endpoint)
    return kind if issubclass(kind, (HTTPEndpoint, WebSocketEndpoint)) else None


def _dispatches_itself(kind: Any, method: str) -> bool:  # noqa: ANN401 -- as above
    computed = [getattr_static(kind, name, None) for name in (method.lower(), "get", "head")]
    computes = any(isinstance(each, property) or hasattr(type(each), "__set_name__") for each in computed)
    return computes or is_overridden(kind, *_DISPATCH) or is_overridden(type(kind), "__call__")


def _has_no_method(kind: Any, method: str) -> bool:  # noqa: ANN401 -- as above
    """Return whether Starlette is certain to find no function for a method in a class."""
    if _dispatches_itself(kind, method):
        return False
    if getattr(kind, _name_of_function(kind, method), None) is None:
        return True
    if not _HAS_METHOD_LIST or method == "HEAD" or issubclass(kind, WebSocketEndpoint):
        return False
    return method not in kind({"type": "http"}, None, None)._allowed_methods  # noqa: SLF001


def _name_of_function(kind: Any, method: str) -> str:  # noqa: ANN401 -- as above
    if issubclass(kind, WebSocketEndpoint):
        return "on_connect"
    return "get" if method == "HEAD" and not hasattr(kind, "head") else method.lower()
