"""Show a blocked request to traces and metrics as if its route had answered.

Starlette's `OpenTelemetryMiddleware`, OpenTelemetry's instrumentation and most others read what routers put in the
scope. FastAPI's own telemetry and Sentry are notified by code that runs only if a route answers.
`_helpers/metrics.py` has the library's own metrics.
"""

import sys
from typing import Any

import fastapi.routing
from fastapi.routing import APIRoute, APIRouter
from starlette.routing import Mount, Route, Router
from starlette.types import Scope

from fastapi_maintenance._helpers.logs import get_logger
from fastapi_maintenance._helpers.metrics import request_was_blocked
from fastapi_maintenance._routing.finder import Answer

_SHOWN = ("endpoint", "path_params", "root_path", "app_root_path", "route")
# In newer versions of Starlette, the router puts the route in the scope; in FastAPI, the routes do. This private
# function notifies FastAPI's telemetry. tests/middleware/test_telemetry.py fails if either changes.
_PUTS_ROUTE = "route" in getattr(getattr(Router.app, "__code__", None), "co_consts", ())
_logger = get_logger()
_route_selected: Any = getattr(fastapi.routing, "_route_selected", None)


def show_blocked(scope: Scope, answer: Answer) -> Scope:
    """Update the scope of a blocked request as its route would have; return the scope for the response.

    The latter has the outermost app, and the paths that the middleware received, not those below a mount. Errors of
    telemetry are logged.
    """
    response_scope = dict(scope) if len(answer.layers) > 1 else scope
    app, route = scope.get("app") or (answer.layers[0].owner if answer.layers else None), answer.path
    if app is not None:
        response_scope.setdefault("app", app)
    if answer.last_scope is not None and answer.matched:
        try:
            _update(scope, answer.last_scope, answer)
            if "fastapi.telemetry" in scope:
                _notify_fastapi(scope, answer)
                route = getattr(scope["fastapi.telemetry"], "route", None) or route
            if "sentry_sdk" in sys.modules and scope["type"] == "http":
                _notify_sentry(sys.modules["sentry_sdk"], scope, answer)
        except Exception as error:
            _logger.debug("Telemetry was not notified of the route of a blocked request", exc_info=error)
    request_was_blocked(route, app)
    return response_scope


def _update(scope: Scope, routed: Scope, answer: Answer) -> None:
    """Set the keys of a scope that telemetry reads."""
    route = scope.get("route")
    for name in _SHOWN:
        if name in routed:
            scope[name] = routed[name]
    if scope.get("route") is route:  # no route has set it
        for router, _, original in reversed(answer.matched):
            if isinstance(original, APIRoute) or (_PUTS_ROUTE and type(router).app is Router.app):
                scope["route"] = original
                break
    scope.setdefault("router", answer.matched[0][0])
    for layers in reversed(answer.layers):
        if layers.owner is not None:
            scope["app"] = layers.owner
            break


def _notify_fastapi(scope: Scope, answer: Answer) -> None:
    for router, effective, original in answer.matched:
        if isinstance(router, APIRouter):
            path = getattr(effective, "path_format", None)
            _route_selected(scope=scope, path=path, mount=isinstance(original, Mount))


def _notify_sentry(sentry: Any, scope: Scope, answer: Answer) -> None:  # noqa: ANN401 -- an optional package
    """Name the transaction as Sentry's integrations do if a route answers: by its path, or by its endpoint."""
    _, effective, original = answer.matched[-1]
    integration = sentry.get_client().get_integration("fastapi" if isinstance(original, APIRoute) else "starlette")
    if integration is None or not isinstance(original, Route):
        return
    current, name, source = sentry.get_current_scope(), effective.path, "route"
    segment = getattr(current, "_server_segment_span", None)  # if spans are streamed
    if segment is not None:
        segment.set_attribute("http.route", name)
    if integration.transaction_style == "endpoint":
        name, source = sentry.utils.transaction_from_function(scope["endpoint"]), "component"
    current.set_transaction_name(name, source=source)
