"""The requests in progress behind a middleware, and which of them maintenance blocks.

The middleware records each request. A worker (see the module `worker`) has the requests decided on again when
maintenance begins, each in a copy of its own context, and reports to drains how many are blocked.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import Context, ContextVar, Token
from functools import partial
from typing import NamedTuple, Protocol
from weakref import WeakValueDictionary

import anyio
from starlette.types import Scope

from fastapi_maintenance._helpers import background
from fastapi_maintenance._helpers.logs import get_logger
from fastapi_maintenance._helpers.process import alive, remembered
from fastapi_maintenance._helpers.waiting import current_loop
from fastapi_maintenance._switch.websockets import ClosableWebSocket
from fastapi_maintenance.state import MaintenanceState, MaintenanceStatus
from fastapi_maintenance.typing import StateBackend

_DECIDED_AT_ONCE = 100  # requests
_logger = get_logger()
_running: ContextVar[RequestInProgress | None] = ContextVar("fastapi_maintenance_running", default=None)
_in_block: list[tuple[RequestInProgress, bool]] = remembered([])
"""The requests that have a block open, and whether the block drains."""


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

    __slots__ = ("began", "context", "dependency_verdicts", "has_passed", "scope", "switch", "token")

    scope: Scope
    """A copy of the ASGI scope, since the app changes that; empty when the request has ended."""
    dependency_verdicts: dict[object, bool | None]
    """What each `dependency` returned for it."""
    began: float
    """When it began, as `time.time` returns it."""
    context: Context | None
    """The context in which it began, to ask its predicate again in; None after its end."""
    has_passed: bool | None
    """Whether maintenance was on when it passed; None: it has not passed yet."""
    switch: Switch
    """The switch of its middleware."""
    token: Token[RequestInProgress | None]
    """What `enter` returned for it, until its end."""


class Blocked(NamedTuple):
    """Why a request is blocked."""

    status: MaintenanceStatus
    route: str
    """The path of its route, with parameters in braces; empty if it has none."""


enter = _running.set
"""Make a request the running one; returns a token for `leave`."""


def leave(request: RequestInProgress) -> None:
    """Undo `enter`, also where the garbage collector or another task closes the coroutine of the request."""
    token = request.token
    # The timers of a server keep the request until its connection closes.
    request.context, request.scope = None, {}
    del request.token
    try:  # on the path of each request: `suppress` takes several times as long
        _running.reset(token)
    except ValueError:  # it is another context, in which the request never ran
        return


running_request: Callable[[], RequestInProgress | None] = _running.get
"""Return the running request, None outside of requests."""


@contextmanager
def in_block(*, drains: bool) -> Iterator[None]:
    """Mark the running request as one that has a block open: if it is a WebSocket, maintenance does not close it.

    Args:
        drains: Whether the block drains. If so, no drain waits for this request.
    """
    entries: list[tuple[RequestInProgress, bool]] = []
    request: object = _running.get()
    while isinstance(request, RequestInProgress):
        entries.append((request, drains))
        # The same request, as the next middleware around this one sees it; none if it has ended.
        token: Token[RequestInProgress | None] | None = getattr(request, "token", None)
        request = token and token.old_value
    _in_block.extend(entries)
    try:
        yield
    finally:
        for entry in entries:
            _in_block.remove(entry)


AskAgain = Callable[[RequestInProgress, Scope], Awaitable[Blocked | None]]


class Served:
    """The requests in progress behind one middleware.

    Args:
        ask_again: Returns why a request, with its scope, would be blocked if it began now; None: it would pass.
    """

    def __init__(self, ask_again: AskAgain) -> None:
        self.ask_again = ask_again
        self.app: object = None
        """The app around which the middleware is, once that is known."""
        self.requests: set[RequestInProgress] = set()
        self.websockets: WeakValueDictionary[RequestInProgress, ClosableWebSocket] = WeakValueDictionary()
        """The open ones. Only the running request keeps one alive, so one whose event loop was closed can end."""
        self.on_end: Callable[[], None] | None = None
        """Called when a request ends, while a drain waits for that."""


class Verdicts:
    """Whether maintenance blocks each of the requests in progress; it closes the WebSockets that are blocked.

    Args:
        served: The requests.
        notify: Called when a verdict is known.
        only_websockets: Whether to leave out all but the WebSockets of this event loop.
    """

    def __init__(self, served: Served, notify: Callable[[], None], *, only_websockets: bool) -> None:
        self._served = served
        self._notify = notify
        self._only_websockets = only_websockets
        self._loop = current_loop()
        self._basis: object = None
        self._verdicts: dict[RequestInProgress, Blocked | None] = {}
        self._asking: dict[RequestInProgress, background.Task] = {}
        self._limiter = anyio.CapacityLimiter(_DECIDED_AT_ONCE)

    @property
    def is_complete(self) -> bool:
        """Whether all verdicts are known."""
        return not self._asking

    @property
    def waited_for(self) -> list[tuple[RequestInProgress, Blocked]]:
        """The requests that a drain waits for, and why they are blocked."""
        blocked = [(request, why) for request, why in self._verdicts.items() if why is not None]
        return [(request, why) for request, why in blocked if (request, True) not in _in_block]

    def update(self, status: MaintenanceStatus, basis: object) -> None:
        """Start to decide on the requests without a verdict, and close the WebSockets that are blocked.

        Args:
            status: The status.
            basis: What the verdicts depend on. If it has changed, all requests are decided on again, otherwise only
                those that have passed while maintenance was off. One that has not passed yet began later, so it goes by
                this status or a newer one.
        """
        for request, websocket in alive(self._served.websockets):
            if websocket.has_ended():  # its event loop was closed around it
                self._served.requests.discard(request)
        requests = self._requests() if status.active else set()
        is_new = basis != self._basis
        if is_new:
            self.forget()
            self._basis = basis
        self._verdicts = {request: why for request, why in self._verdicts.items() if request in requests}
        for request in self._asking.keys() - requests:
            self._asking.pop(request).stop()
        for request in requests - self._verdicts.keys() - self._asking.keys():
            scope, context = request.scope, request.context  # in this order, as it may end in another thread
            if context is not None and (is_new or request.has_passed is False):
                work = partial(self._ask, request, scope, self._basis)
                self._asking[request] = background.start(work, context=context.copy())
        self._close_websockets()

    def _close_websockets(self) -> None:
        for request, opened in alive(self._served.websockets):
            if opened.loop is not self._loop:
                continue
            if self._verdicts.get(request) is None or not {(request, True), (request, False)}.isdisjoint(_in_block):
                opened.is_closing = False  # it may not have been accepted yet
            elif not opened.is_closing:
                background.start(opened.close)

    def forget(self) -> None:
        """Forget all verdicts, and what they depend on."""
        for task in self._asking.values():
            task.stop()
        self._asking, self._verdicts, self._basis = {}, {}, None

    def _requests(self) -> set[RequestInProgress]:
        if not self._only_websockets:
            return set(self._served.requests)
        return {request for request, opened in alive(self._served.websockets) if opened.loop is self._loop}

    async def _ask(self, request: RequestInProgress, scope: Scope, basis: object) -> None:
        blocked: Blocked | None
        async with self._limiter:
            try:
                blocked = await self._served.ask_again(request, scope)
            except (anyio.get_cancelled_exc_class(), GeneratorExit, KeyboardInterrupt):
                raise
            except BaseException:
                _logger.exception("A request in progress could not be decided on again; it counts as blocked")
                blocked = Blocked(MaintenanceStatus(active=True), "")
        if basis is self._basis:  # else the status has changed again
            self._asking.pop(request, None)
            self._verdicts[request] = blocked
            self._notify()
