"""Send the response to a blocked request or WebSocket handshake, with its `Retry-After`.

`cors.py` sends it through the app's CORS middleware.
"""

import inspect
import math
import random
from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any, cast

import anyio
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from fastapi_maintenance._helpers import clock
from fastapi_maintenance._helpers.checks import reject
from fastapi_maintenance._helpers.logs import get_logger
from fastapi_maintenance._helpers.scope import as_http
from fastapi_maintenance._helpers.waiting import guarded
from fastapi_maintenance.responses.callbacks import STATUS_KEY, MessageCallback, as_json
from fastapi_maintenance.responses.cors import EXPOSED
from fastapi_maintenance.state import MaintenanceStatus, seconds_left
from fastapi_maintenance.typing import ResponseCallback

_LIMIT = "starlette.middleware.body_limit"  # missing in older versions of Starlette
body_limit: Any = import_module(_LIMIT) if find_spec(_LIMIT) else None
_Header = tuple[bytes, bytes]
_DENIAL = "websocket.http.response"
_OVERDUE = 30  # seconds
_TOO_LARGE = 413
_TRY_AGAIN_LATER = 1013  # IANA's registry of WebSocket close codes
_logger = get_logger()
_default = cast("MessageCallback", as_json())


def _of_any_size(scope: Scope, receive: Receive, send: Send) -> Send:
    """Return a `send` that keeps a body limit outside from replacing the response with a 413."""
    if body_limit is None or body_limit.MAX_BODY_SIZE_SCOPE_KEY not in scope:
        return send
    limit = scope[body_limit.MAX_BODY_SIZE_SCOPE_KEY]

    async def send_of_any_size(message: Message) -> None:
        async def respond(_scope: Scope, _receive: Receive, send: Send) -> None:
            await send(message)

        async def respond_no_more(_scope: Scope, _receive: Receive, _send: Send) -> None:
            pass

        if message["type"] != "http.response.start":
            await send(message)
            return
        await body_limit.RequestBodyLimitMiddleware(respond, max_body_size=math.inf)(scope, receive, send)
        with suppress(HTTPException):  # the limit has been exceeded already
            await body_limit.RequestBodyLimitMiddleware(respond_no_more, max_body_size=limit)(scope, receive, send)

    return send_of_any_size


def _for_response(receive: Receive) -> Receive:
    """Return a `receive` by which a response notices a disconnect; an oversized body is not a disconnect."""

    async def receive_disconnect() -> Message:
        with suppress(HTTPException):  # from a body limit
            return await receive()
        while True:
            await anyio.sleep_forever()

    return receive_disconnect


async def send_blocked(  # noqa: PLR0913, PLR0917 -- the ASGI arguments, and what to send
    scope: Scope,
    receive: Receive,
    send: Send,
    status: MaintenanceStatus,
    response: ResponseCallback,
    retry_after: tuple[int, int],
) -> None:
    """Send the callback's response; if it fails before it starts, or sends nothing, send the default response."""
    if scope["type"] == "websocket":
        if _DENIAL not in (scope.get("extensions") or {}):
            await send({"type": "websocket.close", "code": _TRY_AGAIN_LATER, "reason": "maintenance"})
            return
        receive, send = _as_get(receive, send)
    send = _of_any_size(scope, receive, send)
    seconds = _seconds(status, retry_after)
    if not isinstance(response, MessageCallback):
        begun = False

        async def send_completed(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                message = {**message, "headers": _with_defaults(message.get("headers", ()), seconds)}
            await send(message)

        try:
            request = Request({**as_http(scope), STATUS_KEY: status}, receive)
            created = await guarded(_response_to(request, response))
            await guarded(created(request.scope, _for_response(receive), send_completed))
            if begun:
                return
            _logger.error("The response callback %r sent no response; the default response is sent instead", response)
        except Exception as error:
            if begun:
                raise
            if not _is_body_error(error):
                _logger.exception("The response callback %r failed; the default response is sent instead", response)
        response = _default
    code, headers, body = _rendered(response, status.message or response.default, status.ends_at, seconds)
    await send({"type": "http.response.start", "status": code, "headers": headers.copy()})
    await send({"type": "http.response.body", "body": body})


def _is_body_error(error: Exception) -> bool:
    """Return whether a callback could not read the body: the client disconnected, or the body exceeds a limit."""
    return isinstance(error, ClientDisconnect) or (isinstance(error, HTTPException) and error.status_code == _TOO_LARGE)


async def _response_to(request: Request, callback: ResponseCallback) -> Response:
    result: Any = callback(request)
    result = await result if inspect.isawaitable(result) else result
    return (
        result if isinstance(result, Response) else reject("the result of the response callback", "a Response", result)
    )


def _seconds(status: MaintenanceStatus, retry_after: tuple[int, int]) -> int:
    """Return the seconds of `Retry-After` (RFC 9110 10.2.3): until the end, or `retry_after` if that is not known."""
    least, most = retry_after
    seconds = seconds_left(status, clock.now()) if status.ends_at is not None else None
    if seconds == 0:  # maintenance takes longer than expected
        seconds, least, most = None, min(_OVERDUE, least), min(_OVERDUE, most)
    if seconds is None:
        seconds = least
    if least == most:
        return seconds
    return seconds + random.randint(0, most - least)  # noqa: S311 -- not a secret: clients must not all return at once


def _with_defaults(own: Iterable[_Header], seconds: int) -> list[_Header]:
    """Return a response's headers, plus the default headers of blocked responses that it lacks."""
    headers = list(own)
    names = {name.lower() for name, _ in headers}
    defaults = (
        (b"retry-after", b"%d" % seconds),
        (b"cache-control", b"no-store"),
        (b"x-maintenance-mode", b"on"),
        (b"access-control-expose-headers", EXPOSED.encode()),
    )
    return headers + [(name, value) for name, value in defaults if name not in names]


@lru_cache(maxsize=64)
def _rendered(
    callback: MessageCallback, text: str, ends_at: datetime | None, seconds: int
) -> tuple[int, list[_Header], bytes]:
    """Return the status, headers and body of the response with this text and end."""
    response = callback.response_of(text, ends_at)
    return response.status_code, _with_defaults(response.raw_headers, seconds), bytes(response.body)


def _as_get(receive: Receive, send: Send) -> tuple[Receive, Send]:
    """Convert a handshake to a GET: receive an empty body, then the disconnect; send the response as a denial."""
    body: list[Message] = [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive_http() -> Message:
        if body:
            return body.pop()
        while (await receive())["type"] != "websocket.disconnect":
            pass
        return {"type": "http.disconnect"}

    async def send_denial(message: Message) -> None:
        await send({**message, "type": f"websocket.{message['type']}"})

    return receive_http, send_denial
