"""The requests in progress behind a middleware, and how an open WebSocket is closed from outside."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar, Token
from typing import NamedTuple, Protocol

import anyio
from starlette.types import Message, Receive, Scope, Send

from fastapi_maintenance._helpers.waiting import ANSWER_TIMEOUT
from fastapi_maintenance.state import MaintenanceState
from fastapi_maintenance.typing import StateBackend

__all__ = ["Blocked", "ClosableWebSocket", "RequestInProgress", "Served", "excused", "is_excused", "running_request"]

_SERVICE_RESTART = 1012  # IANA's registry of WebSocket close codes
_DISCONNECT: Message = {"type": "websocket.disconnect", "code": _SERVICE_RESTART, "reason": "maintenance"}
_running: ContextVar[RequestInProgress | None] = ContextVar("fastapi_maintenance_running", default=None)
_excused: list[RequestInProgress] = []


class Switch(Protocol):
    """The switch of a middleware."""

    given: StateBackend | None
    """Its backend, None where that is left to the default."""

    async def known_state(self) -> MaintenanceState:
        """Return the state, the last known one while the store is away."""


class RequestInProgress:
    """A request, a WebSocket or a lifespan from its beginning to its end, as one middleware sees it.

    Args:
        switch: The switch of the middleware.
        scope: Its ASGI scope. It is copied, as an app changes it, and the request may have to be decided on again.

    """

    __slots__ = ("_token", "began", "scope", "switch")

    def __init__(self, switch: Switch, scope: Scope) -> None:
        self.switch = switch
        self.scope: Scope = dict(scope)
        self.began: float = time.time()
        self._token: Token[RequestInProgress | None] = _running.set(self)

    def leave(self) -> None:
        """Note that it ends; in the context in which it began."""
        _running.reset(self._token)

    def outer(self) -> RequestInProgress | None:
        """Return the same request as the next middleware around this one sees it, None where there is none."""
        outer = self._token.old_value
        return outer if isinstance(outer, RequestInProgress) else None


class Blocked(NamedTuple):
    """Why a request is blocked."""

    state: MaintenanceState
    route: str | None
    """The path of its route, with parameters in braces, if it has one."""


def running_request() -> RequestInProgress | None:
    """Return the request that runs here, None outside of requests."""
    return _running.get()


@contextmanager
def excused() -> Iterator[None]:
    """Let no drain wait for the request that runs here, if one does: it is inside of a block that drains."""
    request, requests = _running.get(), []
    while request is not None:
        requests.append(request)
        request = request.outer()
    _excused.extend(requests)
    try:
        yield
    finally:
        for request in requests:
            _excused.remove(request)


def is_excused(request: RequestInProgress) -> bool:
    """Tell whether no drain waits for this request."""
    return request in _excused


class Served:
    """What is in progress behind one middleware.

    Args:
        blocked_now: Tells why a request would be blocked if it began now; None: it would pass.

    """

    def __init__(self, blocked_now: Callable[[RequestInProgress], Awaitable[Blocked | None]]) -> None:
        self.blocked_now = blocked_now
        self.requests: set[RequestInProgress] = set()
        self.websockets: dict[RequestInProgress, ClosableWebSocket] = {}
        self.on_end: Callable[[], None] | None = None
        """What to call when a request ends, while somebody waits for that."""

    def end(self, request: RequestInProgress) -> None:
        """Note that a request has ended, or is answered by the middleware itself."""
        self.requests.discard(request)
        if self.websockets:
            self.websockets.pop(request, None)
        if self.on_end is not None:
            self.on_end()


class ClosableWebSocket:
    """The two channels of a WebSocket, through which it can be closed from outside.

    It is closed with 1012 (service restart). The app is told `websocket.disconnect` with that code; what it sends from
    then on raises `OSError`, as the ASGI specification has it for a client that is gone.
    """

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._is_accepted = False
        self._is_closing = False
        self._is_closed = False
        self._is_over = False
        self._waiting = anyio.CancelScope()

    async def receive(self) -> Message:
        """Receive a message, or learn that the WebSocket has been closed from outside."""
        if not self._is_over:
            with anyio.CancelScope() as self._waiting:
                return await self._receive()
        return dict(_DISCONNECT)

    async def send(self, message: Message) -> None:
        """Send a message, unless the WebSocket has been closed from outside."""
        kind = message["type"]
        if self._is_over:
            if kind == "websocket.close":
                return
            msg = "the WebSocket is closed, since maintenance has begun"
            raise OSError(msg)
        self._is_accepted |= kind == "websocket.accept"
        self._is_closed |= kind in {"websocket.close", "websocket.http.response.start"}
        await self._send(message)
        if self._is_closing:  # it was when it was not accepted yet
            await self._close_accepted()

    async def close(self) -> None:
        """Close it; one that has not been accepted yet as soon as it is."""
        self._is_closing = True
        await self._close_accepted()

    async def _close_accepted(self) -> None:
        if self._is_closed or self._is_over or not self._is_accepted:
            return
        self._is_over = True
        with suppress(Exception), anyio.move_on_after(ANSWER_TIMEOUT):  # the client may be gone, or slow
            await self._send({"type": "websocket.close", "code": _SERVICE_RESTART, "reason": "maintenance"})
        self._waiting.cancel()
