"""The requests in progress behind a middleware."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import Context, ContextVar, Token
from typing import NamedTuple, Protocol
from weakref import WeakValueDictionary

from starlette.types import Scope

from fastapi_maintenance._helpers.process import remembered
from fastapi_maintenance._switch.websockets import ClosableWebSocket
from fastapi_maintenance.state import MaintenanceState, MaintenanceStatus
from fastapi_maintenance.typing import StateBackend

_running: ContextVar[RequestInProgress | None] = ContextVar("fastapi_maintenance_running", default=None)
_in_block: list[tuple[RequestInProgress, bool]] = remembered([])
"""The requests that have a block open, and whether it drains."""


class Switch(Protocol):
    """The switch of a middleware."""

    given: StateBackend | None
    """Its backend; None: the default."""

    async def known_state(self) -> MaintenanceState:
        """Return the state, the last known one while the store is unavailable."""


class RequestInProgress:
    """A request, a WebSocket or a lifespan from its beginning to its end, as one middleware sees it.

    The middleware sets the attributes, since a method for that would cost more than all of them.
    """

    __slots__ = ("began", "context", "has_passed", "scope", "switch", "token", "verdicts")

    scope: Scope
    """A copy of the ASGI scope, since the app changes that; empty when the request has ended."""
    verdicts: dict[object, bool | None]
    """What each `dependency` returned for it."""
    began: float
    """When, as `time.time` has it."""
    context: Context | None
    """The context in which it began, to ask its predicate again in; None when it has ended."""
    has_passed: bool
    """Whether it has passed while maintenance was on."""
    switch: Switch
    """That of the middleware."""
    token: Token[RequestInProgress | None]
    """What `enter` returned for it."""

    def outer(self) -> RequestInProgress | None:
        """Return the same request as the next middleware around this one sees it, None if there is none."""
        outer = self.token.old_value
        return outer if isinstance(outer, RequestInProgress) else None


class Blocked(NamedTuple):
    """Why a request is blocked."""

    status: MaintenanceStatus
    route: str
    """The path of its route, with parameters in braces; empty if it has none."""


enter = _running.set
"""Make a request the running one; returns a token for `leave`."""


def leave(request: RequestInProgress) -> None:
    """End what `enter` began, also where the collector, or another task, closes the coroutine of the request."""
    request.context, request.scope = None, {}  # the timers of a server keep the request until its connection closes
    try:  # each request comes here, and `suppress` takes several times as long
        _running.reset(request.token)
    except ValueError:  # it is another context, in which it never ran
        return


def running_request() -> RequestInProgress | None:
    """Return the running request, None outside of requests."""
    return _running.get()


@contextmanager
def in_block(*, drains: bool) -> Iterator[None]:
    """Close no WebSocket whose handler opens a block, for as long as that runs; a drain of its own excludes it too."""
    request, entries = _running.get(), []
    while request is not None:
        entries.append((request, drains))
        request = request.outer()
    _in_block.extend(entries)
    try:
        yield
    finally:
        for entry in entries:
            _in_block.remove(entry)


def is_in_block(request: RequestInProgress) -> bool:
    """Return whether this request has a block open."""
    return any(each is request for each, _ in _in_block)


def is_draining(request: RequestInProgress) -> bool:
    """Return whether this request has a block open that drains; no drain waits for it."""
    return (request, True) in _in_block


AskAgain = Callable[[RequestInProgress, Scope], Awaitable[Blocked | None]]


class Served:
    """What is in progress behind one middleware.

    Args:
        ask_again: Returns why a request, with its scope, would be blocked if it began now; None: it would pass.
    """

    def __init__(self, ask_again: AskAgain) -> None:
        self.ask_again = ask_again
        self.app: object = None
        """The app around which the middleware is, once that is known."""
        self.requests: set[RequestInProgress] = set()
        self.websockets: WeakValueDictionary[RequestInProgress, ClosableWebSocket] = WeakValueDictionary()
        """Those that are open. Each is kept by its own request, so that one whose event loop was closed can end."""
        self.on_end: Callable[[], None] | None = None
        """What to call when a request ends, while a drain waits for that."""
