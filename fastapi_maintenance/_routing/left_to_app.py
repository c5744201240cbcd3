"""Requests that no endpoint answers, and that are left to the app: 404, 405, and redirects of trailing slashes.

`endpoints.py` has the 405 of class-based endpoints.
"""

from collections.abc import Iterable
from typing import Any

from starlette.exceptions import HTTPException
from starlette.routing import Match, Router
from starlette.types import Scope

from fastapi_maintenance._helpers.applications import Starlette
from fastapi_maintenance._helpers.scope import route_path
from fastapi_maintenance._routing.origin import is_framework, is_overridden
from fastapi_maintenance._routing.routes import RouteIndex
from fastapi_maintenance.decorators import mark_of


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


def serves_unmatched(router: Router, scope: Scope) -> bool:
    """Return whether a router may answer a request with something other than 404 if none of its routes matches."""
    # The files of `app.frontend()` have no public API; tests/routing/test_left_to_app.py fails if this is removed.
    match = getattr(router, "_match_low_priority", lambda _: (Match.NONE, {}))(scope)[0]
    return match is Match.FULL or (
        match is Match.NONE and (router.default != router.not_found or is_overridden(router, "not_found"))
    )


def redirects_slash(index: RouteIndex, scope: Scope) -> bool:
    """Return whether a router redirects to the path with or without its trailing slash."""
    path = route_path(scope)
    if scope["type"] != "http" or not index.router.redirect_slashes or path == "/":
        return False
    other = {**scope, "path": scope["path"].rstrip("/") if path.endswith("/") else scope["path"] + "/"}
    candidates = index.candidates(route_path(other))
    return any(candidate.effective.matches(other)[0] is not Match.NONE for candidate in candidates)
