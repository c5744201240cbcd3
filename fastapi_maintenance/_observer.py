"""What is the state now? A backend that fails, hangs or talks nonsense never fails a request."""

from __future__ import annotations

import logging
from datetime import datetime, timezone

import anyio

from fastapi_maintenance._holds import read_value
from fastapi_maintenance.errors import InvalidStateError
from fastapi_maintenance.state import MaintenanceState, is_active
from fastapi_maintenance.typing import DetailedStateBackend, PeekableStateBackend, StateBackend

__all__ = ["Observer"]

_logger = logging.getLogger("fastapi_maintenance")


class Observer:
    """Read a backend, and stand in for it while it is away with the last state that it told.

    Args:
        backend: What to read. It is peeked where it can be, else asked each time.
        fail_closed: Whether maintenance is on where no state was ever told.
        read_timeout: How long one read may take, in seconds.

    """

    def __init__(self, backend: StateBackend, *, fail_closed: bool, read_timeout: float) -> None:
        self.backend = backend
        self._peekable = backend if isinstance(backend, PeekableStateBackend) else None
        self._detailed = backend if isinstance(backend, DetailedStateBackend) else None
        self._read_timeout = read_timeout
        self._last = MaintenanceState(active=fail_closed)
        self._away = False

    def peek(self) -> MaintenanceState | None:
        """Return the state, or None where it takes waiting to know it."""
        if self._peekable is None:
            return None
        try:
            state = _checked(self._peekable.peek())
        except Exception as error:  # noqa: BLE001 -- whatever a store raises, requests go on
            return self._stand_in(error)
        return self._told(state)

    async def read(self) -> MaintenanceState:
        """Return the state after asking the backend, within the time that one read may take."""
        try:
            with anyio.fail_after(self._read_timeout):
                state = await self._ask()
        except Exception as error:  # noqa: BLE001 -- whatever a store raises, requests go on
            return self._stand_in(error)
        return self._told(state)

    async def _ask(self) -> MaintenanceState:
        if self._detailed is not None:
            return _checked(await self._detailed.get_state())
        return MaintenanceState(active=await read_value(self.backend))

    def _told(self, state: MaintenanceState) -> MaintenanceState:
        self._last = state
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
                "on" if is_active(self._last, datetime.now(timezone.utc)) else "off",
                type(error).__name__,
                str(error) or f"no answer within {self._read_timeout:g} seconds",
            )
        return self._last


def _checked(state: object) -> MaintenanceState:
    if isinstance(state, MaintenanceState):
        return state
    msg = f"a backend must return a MaintenanceState, got {type(state).__name__} {state!r}"
    raise InvalidStateError(msg)
