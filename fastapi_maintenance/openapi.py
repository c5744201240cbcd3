"""The 503 of maintenance in the app's own OpenAPI document."""

import json
import re
from typing import Any

from starlette.types import ASGIApp

from fastapi_maintenance._helpers.checks import check_callable, reject
from fastapi_maintenance._helpers.framework import FastAPI
from fastapi_maintenance._helpers.logs import get_logger
from fastapi_maintenance._routing.finder import RouteFinder
from fastapi_maintenance._routing.layers import Layers, layers_of, mounted_layers
from fastapi_maintenance._routing.places import Place, places_in
from fastapi_maintenance._routing.routes import list_routes
from fastapi_maintenance._switch.settings import Settings
from fastapi_maintenance.middleware import MaintenanceModeMiddleware, maintained_layers
from fastapi_maintenance.predicates.in_advance import outlook_on, verdict_on
from fastapi_maintenance.responses.callbacks import answers_of

__all__ = ["document_maintenance"]

_logger = get_logger()
_METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace")  # OpenAPI 3.1, 4.8.9
_CLOSED, _ELSEWHERE, _STREAM = 503, 303, 200
_TEXT, _URI = {"type": "string"}, {"type": "string", "format": "uri-reference"}
_SECONDS = {"type": "integer", "minimum": 0}
_RETRY_AFTER = {"description": "Seconds after which to try again (RFC 9110 10.2.3)", "schema": _SECONDS}
_LOCATION = {"description": "The page about the maintenance", "schema": _URI}
_MODE = {"description": "Planned maintenance, not an outage", "schema": {"type": "string", "enum": ["on"]}}
_EACH = {"Retry-After": _RETRY_AFTER, "X-Maintenance-Mode": _MODE}
_HEADERS = {_CLOSED: _EACH, _ELSEWHERE: {"Location": _LOCATION, **_EACH}, _STREAM: _EACH}
_PROBLEM = {"type": _URI, "title": _TEXT, "status": {"type": "integer"}, "detail": _TEXT}  # RFC 9457 3.1
_END = {"type": "string", "format": "date-time", "description": "When maintenance is expected to end, if known"}
_SCHEMAS: dict[str, dict[str, Any]] = {
    "application/json": {"type": "object", "properties": {"detail": _TEXT}, "required": ["detail"]},
    "application/problem+json": {"type": "object", "properties": {**_PROBLEM, "ends_at": _END}},
}


def document_maintenance(app: FastAPI, *, within: ASGIApp | None = None) -> None:
    """Add the `503` of maintenance, with its `Retry-After`, to each operation of the app that maintenance can block.

    >>> from fastapi_maintenance import maintenance_middleware
    >>> app = FastAPI()
    >>> app.add_middleware(maintenance_middleware())
    >>> document_maintenance(app)

    An operation does not change if it is forced off, if the middleware's predicate exempts every request to it, or if
    it documents its own `503`. If a `dependency(...)` or the body decides whether a request passes, the description
    says so; the names of headers and cookies are never published. The predicate sees a path with parameters as it is
    written, `/items/{item_id}`. You can call this before adding middlewares and routes: the document is created later.

    Args:
        app: The app whose document it is.
        within: If the maintenance middleware is not added to `app` itself: the app that has the middleware and mounts
            `app`, or the app that the middleware returned.

    Raises:
        TypeError: `app` is not a FastAPI app, or `within` is not an ASGI app.
    """
    if not isinstance(app, FastAPI):
        reject("app", "a FastAPI app", app)
    outer = app if within is None else check_callable("within", within)
    inner = app.openapi
    last: tuple[dict[str, Any], dict[str, Any]] = {}, {}

    def documented() -> dict[str, Any]:
        nonlocal last
        document = inner()
        before, extended = last
        if before is not document:  # FastAPI keeps the document that it created
            extended = _documented(document, app, outer)
            last = document, extended  # at once: another thread may read it
        return extended

    app.openapi = documented  # type: ignore[method-assign]  # the way that FastAPI documents


def _documented(document: dict[str, Any], app: FastAPI, outer: ASGIApp) -> dict[str, Any]:
    middlewares = [(layer.settings, _marks_inside(layer, outer)) for layer in maintained_layers(outer)]
    if not middlewares:
        _logger.warning("document_maintenance found no maintenance middleware around %r", outer)
    mounts = [each for each in list_routes(Layers(outer).routes()) if each.mount is not None]
    prefix = _as_documented(next((each.path for each in mounts if mounted_layers(each.mount).router is app.router), ""))

    def with_responses(path: str, method: str, operation: Any) -> Any:  # noqa: ANN401 -- a path item has other keys too
        at, closing, conditions = (method.upper(), prefix + path), list[Settings](), list[str]()
        for settings, marks in middlewares if method in _METHODS else ():
            possible = marks.get(at, {None})
            if True in possible or (None in possible and verdict_on(settings.exempt, *at) is not True):
                closing.append(settings)
                conditions += outlook_on(settings.exempt, *at).on if None in possible else ()
        if not closing:
            return operation
        responses = _responses_of(closing, conditions)
        own = operation.get("responses", {})
        stream = responses.pop(str(_STREAM), None)
        if stream and method == "get":  # the operation itself may respond with 200 too
            success = own.get(str(_STREAM), {})
            content = {**success.get("content", {}), **stream["content"], **success.get("content", {})}
            own = {**own, str(_STREAM): {**stream, **success, "content": content}}
        return {**operation, "responses": {**responses, **own}}

    paths = {
        path: {method: with_responses(path, method, operation) for method, operation in operations.items()}
        for path, operations in document.get("paths", {}).items()
    }
    return {**document, "paths": paths}


def _marks_inside(layer: MaintenanceModeMiddleware, outer: ASGIApp) -> dict[tuple[str, str], frozenset[bool | None]]:
    """Return the marks that may apply to each method and path inside a middleware, as the finder applies them."""
    *_, owner = layers_of(outer)
    marks: dict[tuple[str, str], frozenset[bool | None]] = {}
    for place in places_in(RouteFinder(layer.app, around=layer).layers({"type": "http", "app": owner}), Place()):
        for method in [place.method] if place.method else map(str.upper, _METHODS):
            marks.setdefault((method, _as_documented(place.path)), place.marks)  # the first route with a path counts
    return marks


def _as_documented(path: str) -> str:
    return re.sub(r":\w+\}", "}", path)


def _responses_of(closing: list[Settings], conditions: list[str]) -> dict[str, dict[str, Any]]:
    """Return the OpenAPI Responses Object (4.8.16) of these middlewares."""
    public = [re.sub(r"(?<=^the dependency )(.+)", r"`\1`", each) for each in conditions if each.startswith("the ")]
    depends = f"; whether a request passes depends on {' and on '.join(dict.fromkeys(public))}" if public else ""
    responses: dict[str, dict[str, Any]] = {}
    for status, media_type in (answer for each in closing for answer in answers_of(each.response) or [(_CLOSED, "")]):
        described = {"description": f"Closed for maintenance{depends}", "headers": _HEADERS[status]}
        response = responses.setdefault(str(status), described)
        if status != _ELSEWHERE and media_type:
            response.setdefault("content", {})[media_type] = {"schema": _SCHEMAS.get(media_type, _TEXT)}
    copy: dict[str, dict[str, Any]] = json.loads(json.dumps(responses))  # shares nothing with other documents
    return copy
