"""Sending what a blocked request is answered with, also where the request is a WebSocket handshake."""

from __future__ import annotations

import inspect
import logging
import random
from collections.abc import Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from fastapi_maintenance._helpers import clock
from fastapi_maintenance._helpers.checks import reject
from fastapi_maintenance._helpers.scope import as_http
from fastapi_maintenance.responses import STATE_KEY, as_json
from fastapi_maintenance.responses.rendered import Rendered, completed
from fastapi_maintenance.state import MaintenanceState, seconds_left
from fastapi_maintenance.typing import ResponseCallback

__all__ = ["send_blocked"]

_DENIAL = "websocket.http.response"
_TRY_AGAIN_LATER = 1013  # IANA's registry of WebSocket close codes
_logger = logging.getLogger("fastapi_maintenance")
_default_response = as_json()


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
    seconds = _seconds(state, retry_after)
    sending: _Sending | None = None
    try:
        rendered = _of_state(response, state)
        if rendered is None:
            asked = {**as_http(scope), STATE_KEY: state}
            made = await _made(response, Request(asked, receive))
            if type(made).__call__ is not Response.__call__:
                sending = _Sending(send, seconds)
                await made(asked, receive, sending)
                return
            rendered = Rendered(made)
        headers = rendered.headers(seconds)
    except Exception:
        if sending is not None and sending.begun:
            raise
        _logger.exception("The response callback %r failed; the default response is sent instead", response)
        rendered = vars(_default_response)["of_state"](state)
        headers = rendered.headers(seconds)
    # What follows is what such a response does itself, in fewer steps.
    made = rendered.response
    await send({"type": "http.response.start", "status": made.status_code, "headers": headers})
    await send({"type": "http.response.body", "body": made.body})
    if made.background is not None:
        await made.background()


class _Sending:
    """Send messages, with the headers that every blocked response has unless it brings its own."""

    def __init__(self, send: Send, seconds: int) -> None:
        self.begun = False
        self._send = send
        self._seconds = seconds

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.begun = True
            message = {**message, "headers": completed(message.get("headers", ()), self._seconds)}
        await self._send(message)


def _seconds(state: MaintenanceState, retry_after: int | tuple[int, int]) -> int:
    """Return what `Retry-After` says."""
    known = None if state.ends_at is None else seconds_left(state, clock.now())
    if isinstance(retry_after, int):
        return retry_after if known is None else known
    least, most = retry_after
    return (least if known is None else known) + random.randint(0, most - least)  # noqa: S311 -- no secret


def _of_state(callback: ResponseCallback, state: MaintenanceState) -> Rendered | None:
    """Return the response of a callback of ours that asks nothing of the request; None of any other."""
    of_state: Callable[[MaintenanceState], Rendered] | None = getattr(callback, "of_state", None)
    return None if of_state is None else of_state(state)


async def _made(callback: ResponseCallback, request: Request) -> Response:
    made: Any = callback(request)
    response = await made if inspect.isawaitable(made) else made
    if not isinstance(response, Response):
        reject("what the response callback returns", "a Response", response)
    return response


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
