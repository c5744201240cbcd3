"""The 503 of maintenance in an API's own documentation."""

import json
import re
from typing import Any

from starlette.types import ASGIApp

from fastapi_maintenance._helpers.applications import FastAPI
from fastapi_maintenance._helpers.checks import check_callable, reject
from fastapi_maintenance._helpers.logs import get_logger
from fastapi_maintenance._routing.layers import Layers, mounted_layers
from fastapi_maintenance._routing.routes import list_routes
from fastapi_maintenance._switch.settings import Settings
from fastapi_maintenance.decorators import mark_of
from fastapi_maintenance.middleware import maintained_layers
from fastapi_maintenance.predicates.verdicts import outlook_on, verdict_on
from fastapi_maintenance.responses.callbacks import answers_of

__all__ = ["document_maintenance"]

_logger = get_logger()
_METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace")  # OpenAPI 3.1, 4.8.9
_CLOSED, _ELSEWHERE, _STREAM = 503, 303, 200
_TEXT, _URI = {"type": "string"}, {"type": "string", "format": "uri-reference"}
_SECONDS = {"type": "integer", "minimum": 0}
_RETRY_AFTER = {"description": "Seconds after which to try again (RFC 9110 10.2.3)", "schema": _SECONDS}
_LOCATION = {"description": "The page about the maintenance", "schema": _URI}
_MODE = {"description": "Planned maintenance, and not an outage", "schema": {"type": "string", "enum": ["on"]}}
_EACH = {"Retry-After": _RETRY_AFTER, "X-Maintenance-Mode": _MODE}
_HEADERS = {_CLOSED: _EACH, _ELSEWHERE: {"Location": _LOCATION, **_EACH}, _STREAM: _EACH}
_PROBLEM = {"type": _URI, "title": _TEXT, "status": {"type": "integer"}, "detail": _TEXT}  # RFC 9457 3.1
_END = {"type": "string", "format": "date-time", "description": "When maintenance is expected to end, if known"}
_SCHEMAS: dict[str, dict[str, Any]] = {
    "application/json": {"type": "object", "properties": {"detail": _TEXT}, "required": ["detail"]},
    "application/problem+json": {"type": "object", "properties": {**_PROBLEM, "ends_at": _END}},
}


def document_maintenance(app: FastAPI, *, within: ASGIApp | None = None) -> None:
    """Show the `503` of maintenance, with its `Retry-After`, at each operation of the app that it can close.

    >>> from fastapi_maintenance import maintenance_middleware
    >>> app = FastAPI()
    >>> app.add_middleware(maintenance_middleware())
    >>> document_maintenance(app)

    An operation that is forced off, or that the middleware's predicate exempts whatever the request carries, is left
    as it is, and so is one that documents a `503` of its own. Where a `dependency(...)` or the body decides whether a
    request passes, the description says so; names of headers and cookies that decide are not published. A path with
    parameters is asked for as it is written, `/items/{item_id}`. The middlewares and routes are looked at when the
    document is made, so this can be called before they are added.

    Args:
        app: The app that the document is of.
        within: Where the maintenance middleware is not added to the app itself: the app that it is added to and in
            which this one is mounted, or the app that the middleware has wrapped.

    Raises:
        TypeError: `app` is no FastAPI app, or `within` no ASGI app.
    """
    if not isinstance(app, FastAPI):
        reject("app", "a FastAPI app", app)
    outer = app if within is None else check_callable("within", within)
    inner = app.openapi
    made: list[tuple[dict[str, Any], dict[str, Any]]] = [({}, {})]

    def documented() -> dict[str, Any]:
        document = inner()
        if made[0][0] is not document:  # FastAPI makes it once
            made[0] = document, _documented(document, app, outer)
        return made[0][1]

    app.openapi = documented  # type: ignore[method-assign]  # FastAPI's own way to extend it


def _documented(document: dict[str, Any], app: FastAPI, outer: ASGIApp) -> dict[str, Any]:
    middlewares = [layer.settings for layer in maintained_layers(outer)]
    if not middlewares:
        _logger.warning("document_maintenance(...) has found no maintenance middleware around %r", outer)
    mounts = [each for each in list_routes(Layers(outer).routes()) if each.mount is not None]
    prefix = next((each.path for each in mounts if mounted_layers(each.mount).router is app.router), "")
    marks: dict[tuple[str, str], bool | None] = {}
    mark_of_app = mark_of(app)
    for route in list_routes(app.routes):
        mark = mark_of(route.endpoint)
        for method in route.methods:  # the first route counts, by its path as the document writes it
            path = re.sub(r":\w+\}", "}", route.path)
            marks.setdefault((path, method), mark_of_app if mark is None else mark)

    def with_responses(path: str, method: str, operation: Any) -> Any:  # noqa: ANN401 -- a path has other keys too
        mark = marks.get((path, method.upper()))
        closing = [
            each for each in middlewares if mark or verdict_on(each.exempt, method.upper(), prefix + path) is not True
        ]
        if method not in _METHODS or not closing or mark is False:
            return operation
        outlooks = [] if mark else [outlook_on(each.exempt, method.upper(), prefix + path) for each in closing]
        responses = _responses_of(closing, [each for outlook in outlooks for each in outlook.on])
        own = operation.get("responses", {})
        stream = responses.pop(str(_STREAM), None)
        if stream and method == "get":  # with a status that the operation itself has too
            answer = own.get(str(_STREAM), {})
            content = {**answer.get("content", {}), **stream["content"], **answer.get("content", {})}
            own = {**own, str(_STREAM): {**stream, **answer, "content": content}}
        return {**operation, "responses": {**responses, **own}}

    paths = {
        path: {method: with_responses(path, method, operation) for method, operation in operations.items()}
        for path, operations in document.get("paths", {}).items()
    }
    return {**document, "paths": paths}


def _responses_of(closing: list[Settings], conditions: list[str]) -> dict[str, dict[str, Any]]:
    """Return what OpenAPI calls the responses, by their status."""
    public = [re.sub(r"(?<=^the dependency )(.+)", r"`\1`", each) for each in conditions if each.startswith("the ")]
    depends = f"; whether a request passes depends on {' and on '.join(dict.fromkeys(public))}" if public else ""
    responses: dict[str, dict[str, Any]] = {}
    for status, media_type in (answer for each in closing for answer in answers_of(each.response) or [(_CLOSED, "")]):
        described = {"description": f"Closed for maintenance{depends}", "headers": _HEADERS[status]}
        response = responses.setdefault(str(status), described)
        if status != _ELSEWHERE and media_type:
            response.setdefault("content", {})[media_type] = {"schema": _SCHEMAS.get(media_type, _TEXT)}
    plain: dict[str, dict[str, Any]] = json.loads(json.dumps(responses))  # of which nothing is shared
    return plain
