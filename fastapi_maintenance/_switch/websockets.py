"""An open WebSocket that can be closed while its app runs."""

import inspect
from contextlib import suppress

import anyio
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocketDisconnect

from fastapi_maintenance._helpers.waiting import ANSWER_TIMEOUT, current_loop, end_of

_SERVICE_RESTART = 1012  # IANA's registry of WebSocket close codes
_GOING_AWAY = 1001  # a normal end to Starlette and others, which neither log nor trace it as an error
_ABNORMAL = 1006
_REASON = "maintenance"


class _ClosedError(OSError):
    """What the ASGI specification has for a client that is gone."""


class ClosableWebSocket:
    """The two channels of a WebSocket, with a `close` to call from outside of its app.

    The client receives 1012 (service restart). The app receives `websocket.disconnect` with 1001. What an endpoint
    of Starlette or FastAPI sends after that raises `WebSocketDisconnect` with 1001, since Starlette makes 1006 of the
    `OSError` that any other app gets, and 1006 is traced as an error.
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.loop = current_loop()
        self.has_ended = end_of(self.loop)
        self._scope = scope
        self._receive = receive
        self._send = send
        self._is_accepted = False
        self.is_closing = False  # closed from outside, or to be closed as soon as it is accepted
        self._is_closed_by_app = False
        self._is_closed = False
        self._waiting = anyio.CancelScope()

    async def run(self, app: ASGIApp) -> None:
        """Run the app. If the WebSocket has been closed from outside, a disconnect that the app raises is dropped."""
        try:
            await app(self._scope, self.receive, self.send)
        except Exception as error:
            if not self._is_closed or not _is_disconnect(error):
                raise

    async def receive(self) -> Message:
        """Receive a message, or the disconnect if the WebSocket was closed from outside."""
        if not self._is_closed:
            with anyio.CancelScope() as self._waiting:
                message = await self._receive()
                # The server may report a WebSocket that was closed here with a code of its own.
                if message["type"] != "websocket.disconnect" or not self._is_closed:
                    return message
        return {"type": "websocket.disconnect", "code": _GOING_AWAY, "reason": _REASON}

    async def send(self, message: Message) -> None:
        """Send a message, unless the WebSocket was closed from outside."""
        kind = message["type"]
        if self._is_closed:
            if kind == "websocket.close":
                return
            if _has_starlette_endpoint(self._scope):
                raise WebSocketDisconnect(_GOING_AWAY, _REASON)
            msg = "the WebSocket is closed, since maintenance has begun"
            raise _ClosedError(msg)
        self._is_accepted |= kind == "websocket.accept"
        self._is_closed_by_app |= kind in {"websocket.close", "websocket.http.response.start"}
        await self._send(message)
        if self.is_closing:
            await self.close()

    async def close(self) -> None:
        """Close it from outside; if it has not been accepted yet, as soon as it is."""
        self.is_closing = True
        if self._is_closed_by_app or self._is_closed or not self._is_accepted:
            return
        self._is_closed = True
        with suppress(Exception), anyio.move_on_after(ANSWER_TIMEOUT):  # the client may be gone, or slow
            await self._send({"type": "websocket.close", "code": _SERVICE_RESTART, "reason": _REASON})
        self._waiting.cancel()


def _is_disconnect(error: BaseException) -> bool:
    """Return whether an app raises nothing but the disconnect that it received; Starlette turns `OSError` into 1006."""
    if isinstance(error, BaseExceptionGroup):
        return all(map(_is_disconnect, error.exceptions))
    if isinstance(error, WebSocketDisconnect):
        return error.code == _ABNORMAL or (error.code, error.reason) == (_GOING_AWAY, _REASON)
    return isinstance(error, _ClosedError)


def _has_starlette_endpoint(scope: Scope) -> bool:
    """Return whether an endpoint of Starlette or FastAPI answers, and not an app that is mounted or wrapped."""
    return "app" in scope and (inspect.isroutine(scope.get("endpoint")) or inspect.isclass(scope.get("endpoint")))
