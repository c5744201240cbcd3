"""Which of the requests in progress maintenance blocks: each is asked about again, in its own context."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

import anyio
from starlette.types import Scope

from fastapi_maintenance._helpers import background
from fastapi_maintenance._helpers.logs import get_logger
from fastapi_maintenance._switch.requests import Blocked, RequestInProgress, Served, is_draining, is_in_block
from fastapi_maintenance.state import MaintenanceStatus

_ASKED_AT_ONCE = 100  # predicates
_logger = get_logger()


class Verdicts:
    """The verdicts on the requests in progress, and the end of WebSockets that maintenance blocks.

    Args:
        loop: The event loop whose WebSockets are closed.
        only_websockets: Whether other requests, and those of other event loops, are left out.
        wake: Called when a verdict is known.
    """

    def __init__(self, loop: object, wake: Callable[[], None], *, only_websockets: bool) -> None:
        self._loop = loop
        self._wake = wake
        self._only_websockets = only_websockets
        self._decided: object = None
        self._verdicts: dict[RequestInProgress, Blocked | None] = {}
        self._asking: dict[RequestInProgress, background.Task] = {}
        self._limiter = anyio.CapacityLimiter(_ASKED_AT_ONCE)

    @property
    def is_complete(self) -> bool:
        """Whether all verdicts are known."""
        return not self._asking

    @property
    def waited_for(self) -> list[tuple[RequestInProgress, Blocked]]:
        """The requests for which a drain waits, and why they are blocked."""
        return [(one, why) for one, why in self._verdicts.items() if why is not None and not is_draining(one)]

    def update(self, served: Iterable[Served], status: MaintenanceStatus, decided: object) -> None:
        """Ask about the requests that have no verdict by this status, and close the WebSockets that are blocked.

        Args:
            served: What is in progress.
            status: The status.
            decided: What the verdicts depend on; if it has changed, all are asked for again. A request that has passed
                during maintenance is asked about only then.
        """
        self._end_orphans(served)
        requests = dict(self._requests(served)) if status.active else {}
        is_new = decided != self._decided
        if is_new:
            self._decided = decided
            self.forget()
        self._verdicts = {request: why for request, why in self._verdicts.items() if request in requests}
        for request in self._asking.keys() - requests.keys():  # which have ended
            self._asking.pop(request).stop()
        for request, one in requests.items():
            scope, context = request.scope, request.context  # in this order, as it may end in another thread
            is_known = request in self._verdicts or request in self._asking or (not is_new and request.has_passed)
            if not is_known and context is not None:
                work = partial(self._ask, request, scope, one, decided)
                self._asking[request] = background.start(work, context=context.copy())
        for request in [one for one, why in self._verdicts.items() if why is not None]:
            self._close(requests[request], request)

    def forget(self) -> None:
        """Forget all verdicts."""
        for task in self._asking.values():
            task.stop()
        self._asking, self._verdicts = {}, {}

    def _end_orphans(self, served: Iterable[Served]) -> None:
        """End the WebSockets whose event loop was closed around them."""
        for one in served:
            for request, websocket in tuple(one.websockets.items()):
                if websocket.has_ended():
                    one.requests.discard(request)

    def _requests(self, served: Iterable[Served]) -> Iterable[tuple[RequestInProgress, Served]]:
        for one in served:
            if not self._only_websockets:
                yield from ((request, one) for request in tuple(one.requests))
                continue
            for request, websocket in tuple(one.websockets.items()):
                if websocket.loop is self._loop:
                    yield request, one

    async def _ask(self, request: RequestInProgress, scope: Scope, served: Served, decided: object) -> None:
        blocked: Blocked | None
        async with self._limiter:
            try:
                blocked = await served.ask_again(request, scope)
            except (anyio.get_cancelled_exc_class(), GeneratorExit, KeyboardInterrupt):
                raise
            except BaseException:
                _logger.exception("A request in progress could not be asked about; it counts as blocked")
                blocked = Blocked(MaintenanceStatus(active=True), "")
        if decided is self._decided:  # else the status has changed again
            self._asking.pop(request, None)
            self._verdicts[request] = blocked
            self._wake()

    def _close(self, served: Served, request: RequestInProgress) -> None:
        """Close a WebSocket of this event loop, unless its handler has a block open."""
        websocket = served.websockets.get(request)
        if websocket is None or websocket.is_closing or websocket.loop is not self._loop or is_in_block(request):
            return
        background.start(websocket.close)
