"""The request as predicates see it: they may read the body, and the app still receives all of it.

If the request is decided on again while it runs, its body is unknown.
"""

import ast
import inspect
from collections.abc import AsyncGenerator
from contextlib import aclosing
from contextvars import copy_context
from textwrap import dedent
from typing import Any, NoReturn

import anyio
from starlette.requests import Request
from starlette.types import Message, Receive, Scope

from fastapi_maintenance._helpers import background
from fastapi_maintenance._helpers.scope import as_http
from fastapi_maintenance._helpers.waiting import guarded

MOST_OF_BODY = 1024 * 1024  # bytes that predicates may read
_MOST_MESSAGES = 10_000  # that these bytes may take
_BODY = {"body", "form", "json", "receive", "stream"}  # the attributes of a request that read its body
_NO_BODY = {"type": "http.request", "body": b"", "more_body": False}


async def _receive_no_body() -> Message:
    return _NO_BODY


class PredicateRequest(Request):
    """A request whose body each part of a predicate can read from its beginning.

    Received messages are kept for the app: up to `MOST_OF_BODY`, and the message that exceeds it.

    Args:
        scope: The scope of the request, or of a WebSocket handshake, which has no body.
        receive: The server's `receive`; None: the app is already handling the request, and may be reading the body.
        app: The app whose routes answer, if `scope` has none; None: not known.
        routed: The endpoint's scope; None: the endpoint is not known.
        verdicts: The result of each `dependency` when this request began; None: it begins now.
    """

    missed: bool = False
    """Whether this part of a predicate needed something that is unavailable."""
    position: int = 0
    """The number of the message that this part receives next if it calls `receive` itself."""
    _size = 0
    _is_too_large = _is_over = False
    _receiving: background.Task | None = None
    _error: BaseException | None = None
    _arrived: anyio.Event

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
        self.routed: Scope | None = routed
        self.is_in_progress: bool = verdicts is not None
        self.verdicts: dict[object, bool | None] = {} if verdicts is None else verdicts
        self._from_server = _receive_no_body if scope["type"] == "websocket" else receive
        self._received: list[Message] = []
        self._forms: list[Request] = []

    @property
    def app(self) -> Any:  # noqa: ANN401 -- Starlette's signature
        """The app, also if the middleware wraps it from outside."""
        return self.scope.get("app", self._app)

    @property
    def has_body(self) -> bool:
        """Whether any of the body has been received."""
        return self._size > 0

    @property
    def receive(self) -> Receive:
        """The function that receives the next message."""
        return self._receive_on

    # Each reads from the beginning and caches nothing, since another part may have changed or closed its copy.

    async def stream(self) -> AsyncGenerator[bytes, None]:
        """Yield the body in chunks."""
        async with aclosing(self._again().stream()) as chunks:
            async for chunk in chunks:
                yield chunk

    async def body(self) -> bytes:
        """Return the body."""
        return await self._again().body()

    async def json(self) -> Any:  # noqa: ANN401 -- Starlette's signature
        """Return the body parsed as JSON."""
        return await self._again().json()

    def form(self, **limits: Any) -> Any:  # noqa: ANN401 -- Starlette's signature
        """Return the body parsed as a form."""
        self._forms.append(self._again())
        return self._forms[-1].form(**limits)

    async def is_disconnected(self) -> bool:
        """Return whether the client has disconnected."""
        return await Request(self.scope, self._receive_on).is_disconnected()

    async def close(self) -> None:
        """Close the files of forms."""
        for request in self._forms:
            await request.close()

    def _again(self) -> Request:
        return Request(self.scope, self.reader())

    def reader(self) -> Receive:
        """Return a function that receives the body from its beginning."""
        position = 0

        async def receive() -> Message:
            nonlocal position
            message = await self._message(position)
            position += 1
            return message

        return receive

    def rest(self, receive: Receive) -> Receive:
        """Return the app's `receive`, which first repeats the messages received so far.

        After this, predicates cannot read the body.
        """
        self._is_over = True
        if receive is not self._from_server or not (self._received or self._receiving):
            return receive

        async def receive_rest() -> Message:
            while not self._received and self._receiving is not None:  # for a predicate that was cancelled
                await self._arrived.wait()
            return self._received.pop(0) if self._received else await receive()

        return receive_rest

    def end(self) -> None:
        """Cancel a pending receive."""
        if self._receiving is not None:
            self._receiving.stop()

    async def _receive_on(self) -> Message:
        message = await self._message(self.position)
        self.position += 1
        return message

    async def _message(self, position: int) -> Message:
        """Return a message of the body; receive it if necessary."""
        while self._is_over or position == len(self._received) - self._is_too_large:
            if self._is_over or self._from_server is None:
                self._miss(RuntimeError("the body cannot be read now, since the app has the request"))
            if self._is_too_large:
                self._miss(RuntimeError(f"the body is larger than the {MOST_OF_BODY} bytes that predicates may read"))
            if self._error is not None:
                self._miss(self._error)
            if self._receiving is None:  # in its own task, so that nothing is lost if the predicate is cancelled
                self._arrived = anyio.Event()
                self._receiving = background.start(self._receive_next, context=copy_context())
            await self._arrived.wait()
        message = self._received[position]
        self.missed |= message["type"] == "http.disconnect"
        return message

    async def _receive_next(self) -> None:
        try:
            message = await guarded(self._from_server())  # type: ignore[misc]  # it is not None
        except (anyio.get_cancelled_exc_class(), GeneratorExit):
            raise
        except BaseException as error:  # noqa: BLE001 -- raised in `_message`
            self._error = error
        else:
            self._received.append(message)
            self._size += len(message.get("body", b""))
            self._is_too_large = self._size > MOST_OF_BODY or len(self._received) > _MOST_MESSAGES
        finally:
            self._receiving = None
            self._arrived.set()

    def _miss(self, error: BaseException) -> NoReturn:
        self.missed = True
        raise error


def reads_body(function: Any, parameter: str | None = None) -> bool:  # noqa: ANN401 -- anything that can be called
    """Return whether a function's source reads the body of the request in a parameter (None: the first one)."""
    try:
        function = function if inspect.isroutine(function) else function.__call__
        parameter = parameter or next(iter(inspect.signature(function).parameters))
        tree = ast.parse(dedent(inspect.getsource(inspect.unwrap(function))))
    except Exception:  # noqa: BLE001 -- there is no source, or it is more than a function
        return False
    attributes = [each for each in ast.walk(tree) if isinstance(each, ast.Attribute) and each.attr in _BODY]
    return any(isinstance(each.value, ast.Name) and each.value.id == parameter for each in attributes)
