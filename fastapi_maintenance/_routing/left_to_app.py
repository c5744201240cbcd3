"""What no endpoint answers, and is left to the app: 404 and 405, redirects of trailing slashes."""

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.routing import Match, Router
from starlette.types import Scope

from fastapi_maintenance._helpers.scope import route_path
from fastapi_maintenance._routing.layers import is_overridden, is_users
from fastapi_maintenance._routing.routes import RouteIndex


def handles_refusals(app: Starlette | None) -> bool:
    """Tell whether an application has a handler of the user's for 404 or 405, which can answer anything."""
    handlers = {} if app is None else app.exception_handlers
    return any(is_users(handlers[key]) for key in (404, 405, HTTPException) if key in handlers)


def is_refused(index: RouteIndex, scope: Scope) -> bool:
    """Tell whether a router says 404 to a request that none of its routes matches, or redirects its trailing slash."""
    return not _serves_unmatched(index.router, scope) or _redirects_slash(index, scope)


def _serves_unmatched(router: Router, scope: Scope) -> bool:
    # The files of `app.frontend()` have no public way to them; tests/routing/test_left_to_app.py fails when this goes.
    match = getattr(router, "_match_low_priority", lambda _: (Match.NONE, {}))(scope)[0]
    return match is Match.FULL or (
        match is Match.NONE and (router.default != router.not_found or is_overridden(router, "not_found"))
    )


def _redirects_slash(index: RouteIndex, scope: Scope) -> bool:
    path = route_path(scope)
    if scope["type"] != "http" or not index.router.redirect_slashes or path == "/":
        return False
    other = {**scope, "path": scope["path"].rstrip("/") if path.endswith("/") else scope["path"] + "/"}
    candidates = index.candidates(route_path(other))
    return any(candidate.effective.matches(other)[0] is not Match.NONE for candidate in candidates)
