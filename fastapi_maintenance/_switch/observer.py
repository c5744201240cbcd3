"""What is the state now? A backend that fails, hangs or talks nonsense never fails a request."""

from __future__ import annotations

import logging
from collections.abc import Callable

from fastapi_maintenance._helpers import clock
from fastapi_maintenance._helpers.shared_read import SharedRead, moment
from fastapi_maintenance._helpers.waiting import in_time
from fastapi_maintenance._switch import writes
from fastapi_maintenance.backends.base import check_state, read_state
from fastapi_maintenance.backends.cached import uncached
from fastapi_maintenance.state import MaintenanceState, is_active
from fastapi_maintenance.typing import PeekableStateBackend, StateBackend

__all__ = ["Observer", "PeekingObserver", "SharingObserver"]

_logger = logging.getLogger("fastapi_maintenance")


class Observer:
    """Ask a backend each time, and stand in for it while it is away with the last state that it told.

    Args:
        backend: What to observe.
        fail_closed: Whether maintenance is on where no state was ever told.
        read_timeout: How long one read may take, in seconds.

    """

    def __init__(self, backend: StateBackend, *, fail_closed: bool, read_timeout: float) -> None:
        self.backend = backend
        self._read_timeout = read_timeout
        self._known = MaintenanceState(active=fail_closed)
        self._away = False

    def peek(self) -> MaintenanceState | None:
        """Return the state, or None where it takes waiting to know it."""
        return None

    async def read(self) -> MaintenanceState:
        """Return the state after asking the backend, within the time that one read may take."""
        try:
            with in_time(self._read_timeout):
                state = await self._ask()
        except Exception as error:  # noqa: BLE001 -- whatever a store raises, requests go on
            return self._stand_in(error)
        return self._told(state)

    async def follow(self, ready: Callable[[], None]) -> None:
        """Learn of each change until this is cancelled, where that can be done; call `ready` as soon as it is known."""
        ready()

    def gave_up(self) -> None:
        """Take note that the backend has not told its state in time."""
        self._stand_in(TimeoutError(f"no answer within {self._read_timeout:g} seconds"))

    async def _ask(self) -> MaintenanceState:
        return await read_state(self.backend)

    def _told(self, state: MaintenanceState) -> MaintenanceState:
        self._known = state
        if self._away:
            self._away = False
            _logger.warning("The maintenance state can be read again from %r", self.backend)
        return state

    def _stand_in(self, error: Exception) -> MaintenanceState:
        if not self._away:
            self._away = True
            _logger.warning(
                "The maintenance state cannot be read from %r; until it can, maintenance stays %s: %s: %s",
                self.backend,
                "on" if is_active(self._last(), clock.now()) else "off",
                type(error).__name__,
                error,
            )
        return self._last()

    def _last(self) -> MaintenanceState:
        return self._known


class PeekingObserver(Observer):
    """Peek at a backend that knows its state without waiting."""

    def __init__(self, backend: PeekableStateBackend, *, fail_closed: bool, read_timeout: float) -> None:
        super().__init__(backend, fail_closed=fail_closed, read_timeout=read_timeout)
        self._peekable = backend

    def peek(self) -> MaintenanceState:
        """Return the state."""
        try:
            state = self._peekable.peek()
            if state is self._known and not self._away:  # as it is nearly always
                return state
            check_state(state)
        except Exception as error:  # noqa: BLE001 -- whatever a store raises, requests go on
            return self._stand_in(error)
        return self._told(state)


class SharingObserver(Observer):
    """Let all requests that wait share one read of a backend, which counts for a while."""

    def __init__(
        self, backend: StateBackend, shared: SharedRead[MaintenanceState], *, fail_closed: bool, read_timeout: float
    ) -> None:
        super().__init__(backend, fail_closed=fail_closed, read_timeout=read_timeout)
        self._shared = shared
        writes.listen(self)

    def peek(self) -> MaintenanceState | None:
        """Return the state if it was read a moment ago."""
        return None if self._away else self._shared.fresh()

    async def written(self, state: MaintenanceState, began: int, writer: StateBackend, *, alone: bool) -> None:
        """Take note of what this process wrote, so that its next request knows it."""
        if alone and self._shared.put_written(state, began):
            return
        asked = moment()  # something was read or written meanwhile, perhaps before this write and perhaps after it
        try:
            with in_time(self._read_timeout):
                state = await read_state(uncached(writer))
        except Exception:  # noqa: BLE001 -- the write has succeeded
            asked = moment()
        self._shared.put(state, asked)

    async def _ask(self) -> MaintenanceState:
        return await self._shared.get()

    def _stand_in(self, error: Exception) -> MaintenanceState:
        if isinstance(error, TimeoutError):  # as far as it was this request that gave up, nobody else knows it
            self._shared.fail(error)
        return super()._stand_in(error)

    def _last(self) -> MaintenanceState:
        return self._known if self._shared.newest is None else self._shared.newest
