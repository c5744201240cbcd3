"""Sending what a blocked request is answered with, also where the request is a WebSocket handshake."""

from __future__ import annotations

import inspect
import logging
import random
from collections.abc import Iterable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from fastapi_maintenance import _clock
from fastapi_maintenance._checks import reject
from fastapi_maintenance._scope import as_http
from fastapi_maintenance.responses import STATE_KEY, as_json
from fastapi_maintenance.state import MaintenanceState, seconds_left
from fastapi_maintenance.typing import ResponseCallback

__all__ = ["send_blocked"]

_DENIAL = "websocket.http.response"
_TRY_AGAIN_LATER = 1013  # IANA's registry of WebSocket close codes
_logger = logging.getLogger("fastapi_maintenance")
_default_response = as_json()
_Header = tuple[bytes, bytes]
_NO_STORE = (b"cache-control", b"no-store")


async def send_blocked(  # noqa: PLR0913, PLR0917 -- the three of ASGI, and what to say
    scope: Scope,
    receive: Receive,
    send: Send,
    state: MaintenanceState,
    response: ResponseCallback,
    retry_after: int | tuple[int, int],
) -> None:
    """Answer with the callback's response, or where that fails before it began, with the default one."""
    if scope["type"] == "websocket":
        if _DENIAL not in (scope.get("extensions") or {}):
            await send({"type": "websocket.close", "code": _TRY_AGAIN_LATER, "reason": "maintenance"})
            return
        receive, send = _receive_of_get(receive), _send_as_denial(send)
    others = ((b"retry-after", b"%d" % _seconds(state, retry_after)), _NO_STORE)
    sending: _Sending | None = None
    try:
        made, asked = await _made(response, scope, receive, state)
        if type(made).__call__ is not Response.__call__:
            sending = _Sending(send, others)
            await made(asked, receive, sending)
            return
        headers = _completed(made.raw_headers, others)
    except Exception:
        if sending is not None and sending.begun:
            raise
        _logger.exception("The response callback %r failed; the default response is sent instead", response)
        made, _ = await _made(_default_response, scope, receive, state)
        headers = _completed(made.raw_headers, others)
    # What follows is what such a response does itself, in fewer steps.
    await send({"type": "http.response.start", "status": made.status_code, "headers": headers})
    await send({"type": "http.response.body", "body": made.body})
    if made.background is not None:
        await made.background()


class _Sending:
    """Send messages, with the headers that every blocked response has unless it brings its own."""

    def __init__(self, send: Send, others: Iterable[_Header]) -> None:
        self.begun = False
        self._send = send
        self._others = others

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.begun = True
            message = {**message, "headers": _completed(message.get("headers", ()), self._others)}
        await self._send(message)


def _completed(own: Iterable[_Header], others: Iterable[_Header]) -> list[_Header]:
    """Return the headers that a response has, and of the others those that it has not."""
    headers = list(own)
    names = {name.lower() for name, _ in headers}
    headers += [header for header in others if header[0] not in names]
    return headers


def _seconds(state: MaintenanceState, retry_after: int | tuple[int, int]) -> int:
    """Return what `Retry-After` says."""
    known = None if state.ends_at is None else seconds_left(state, _clock.now())
    if isinstance(retry_after, int):
        return retry_after if known is None else known
    least, most = retry_after
    return (least if known is None else known) + random.randint(0, most - least)  # noqa: S311 -- no secret


async def _made(
    callback: ResponseCallback, scope: Scope, receive: Receive, state: MaintenanceState
) -> tuple[Response, Scope]:
    """Return the response, and the scope of the request that it was made for."""
    of_state = getattr(callback, "of_state", None)
    if of_state is not None:  # one of ours, which asks nothing of the request
        return of_state(state), scope
    asked = {**as_http(scope), STATE_KEY: state}
    made: Any = callback(Request(asked, receive))
    response = await made if inspect.isawaitable(made) else made
    if not isinstance(response, Response):
        reject("what the response callback returns", "a Response", response)
    return response, asked


def _send_as_denial(send: Send) -> Send:
    async def send_denial(message: Message) -> None:
        await send({**message, "type": f"websocket.{message['type']}"})

    return send_denial


def _receive_of_get(receive: Receive) -> Receive:
    """Give a handshake the messages of a GET: no body, and in the end the disconnect."""
    begun = False

    async def receive_http() -> Message:
        nonlocal begun
        if not begun:
            begun = True
            return {"type": "http.request", "body": b"", "more_body": False}
        while (await receive())["type"] != "websocket.disconnect":
            pass
        return {"type": "http.disconnect"}

    return receive_http
