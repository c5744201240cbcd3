"""The request as predicates see it: they may read its body, and the app still receives the whole of it."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, NoReturn

import anyio
from starlette.requests import Request
from starlette.types import Message, Receive, Scope

from fastapi_maintenance._helpers.scope import as_http

MOST_OF_BODY = 1024 * 1024  # bytes that predicates may read
_MOST_MESSAGES = 10_000  # in which these may come
_NO_BODY = {"type": "http.request", "body": b"", "more_body": False}


async def _receive_no_body() -> Message:
    return _NO_BODY


class PredicateRequest(Request):
    """A request whose body each part of a predicate can read from its beginning.

    What is received for that is kept for the app: up to `MOST_OF_BODY`, and the message that exceeds it.

    Args:
        scope: The scope of the request, or of a WebSocket handshake, which has no body.
        receive: The server's; None: the app has the request, and may have begun to read the body.
        app: The app whose routes answer, if `scope` has none; None: it is not known.
        routed: The scope as the endpoint will find it; None: it is not known which endpoint will answer.
        verdicts: What each `dependency` returned when this request began; None: it begins now.
    """

    missed = False
    """Whether something was asked for that cannot be had; see `has_missed`."""
    _lock: anyio.Lock | None = None
    _size = 0
    _is_too_large = _is_over = False

    def __init__(
        self,
        scope: Scope,
        receive: Receive | None,
        *,
        app: object = None,
        routed: Scope | None = None,
        verdicts: dict[object, bool | None] | None = None,
    ) -> None:
        super().__init__(as_http(scope))
        self._app = app
        self.routed = routed
        self.is_asked_again = verdicts is not None
        self.verdicts: dict[object, bool | None] = {} if verdicts is None else verdicts
        self._from_server = _receive_no_body if scope["type"] == "websocket" else receive
        self._received: list[Message] = []
        self._position = 0

    @property
    def app(self) -> Any:  # noqa: ANN401 -- as Starlette has it
        """The app, also where the middleware is around it."""
        return self.scope.get("app", self._app)

    @property
    def receive(self) -> Receive:
        """The function that receives the next message."""
        return self._receive_on

    async def is_disconnected(self) -> bool:
        """Return whether the client is gone."""
        return await Request(self.scope, self._receive_on).is_disconnected()

    def reader(self) -> Receive:
        """Return a function that receives the body from its beginning."""
        position = 0

        async def receive() -> Message:
            nonlocal position
            message = await self._message(position)
            position += 1
            return message

        return receive

    async def stream(self) -> AsyncGenerator[bytes, None]:
        """Yield the body in chunks, from its beginning."""
        async with aclosing(Request(self.scope, self.reader()).stream()) as chunks:
            async for chunk in chunks:
                yield chunk

    def rest(self, receive: Receive) -> Receive:
        """Return what the app receives with: what has been received already, then the rest.

        From now on, no predicate can read.
        """
        self._is_over = True
        if self._lock is None or receive is not self._from_server:  # nothing was read, or only what a handshake lacks
            return receive
        lock, received = self._lock, self._received

        async def receive_rest() -> Message:
            if lock.locked():  # by a read that a predicate has left behind
                async with lock:
                    pass
            return received.pop(0) if received else await receive()

        return receive_rest

    async def _receive_on(self) -> Message:
        message = await self._message(self._position)
        self._position += 1
        return message

    async def _message(self, position: int) -> Message:
        """Return a message of the body, received if it has not been yet."""
        if self._lock is None:
            self._lock = anyio.Lock()
        async with self._lock:
            if self._is_over or position == len(self._received) - self._is_too_large:
                await self._receive_next()
            message = self._received[position]
        self.missed |= message["type"] == "http.disconnect"
        return message

    async def _receive_next(self) -> None:
        if self._is_over or self._from_server is None:
            self._miss("the body cannot be read now, since the app has the request")
        elif not self._is_too_large:
            try:
                message = await self._from_server()
            except Exception:
                self.missed = True
                raise
            self._received.append(message)
            self._size += len(message.get("body", b""))
            self._is_too_large = self._size > MOST_OF_BODY or len(self._received) > _MOST_MESSAGES
        if self._is_too_large:
            self._miss(f"the body is larger than the {MOST_OF_BODY} bytes that predicates may read")

    def _miss(self, why: str) -> NoReturn:
        self.missed = True
        raise RuntimeError(why)


def has_missed(request: Request) -> bool:
    """Return whether what was just asked of a request could not be had, so that the verdict is unknown; forget it."""
    missed: bool = getattr(request, "missed", False)
    if missed:
        request.missed = False  # type: ignore[attr-defined]  # a `PredicateRequest` has it
    return missed
