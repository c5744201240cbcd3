"""The requests in progress behind a middleware, and how an open WebSocket is closed from outside."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar, Token
from typing import Any, NamedTuple, Protocol

import anyio
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fastapi_maintenance._helpers.waiting import ANSWER_TIMEOUT
from fastapi_maintenance.state import MaintenanceState, MaintenanceStatus
from fastapi_maintenance.typing import StateBackend

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


class RequestInProgress(dict[str, Any]):
    """A request, a WebSocket or a lifespan from its beginning to its end, as one middleware sees it.

    It is a copy of the ASGI scope, as an app changes that, and the request may have to be decided on again. Who makes
    it sets the attributes: each request makes one, and a method for that would cost more than all of them.
    """

    __slots__ = ("began", "switch", "token")
    __hash__ = object.__hash__  # type: ignore[assignment]  # each is another one
    __eq__ = object.__eq__

    began: float
    """When, as `time.time` has it."""
    switch: Switch
    """That of the middleware."""
    token: Token[RequestInProgress | None]
    """What `enter` returned for it."""

    def outer(self) -> RequestInProgress | None:
        """Return the same request as the next middleware around this one sees it, None where there is none."""
        outer = self.token.old_value
        return outer if isinstance(outer, RequestInProgress) else None


class Blocked(NamedTuple):
    """Why a request is blocked."""

    status: MaintenanceStatus
    route: str | None
    """The path of its route, with parameters in braces, if it has one."""


enter = _running.set
"""Note that a request begins to run here; returns a token for `leave`."""

leave = _running.reset
"""Note that it ends; in the context in which it began."""


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

    async def run_websocket(
        self, request: RequestInProgress, app: ASGIApp, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Run an app for a WebSocket that can be closed meanwhile."""
        self.websockets[request] = websocket = ClosableWebSocket(receive, send)
        try:
            await app(scope, websocket.receive, websocket.send)
        finally:
            del self.websockets[request]


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
