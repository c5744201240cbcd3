"""The state of a backend for requests: by a peek, from what this process knows of the switch, or by a read.

`backends/last_known.py` has what this process knows.
"""

from asyncio import CancelledError

from fastapi_maintenance.backends.base import check_state
from fastapi_maintenance.backends.last_known import Cache, known_of, moment, uncached
from fastapi_maintenance.state import MaintenanceState
from fastapi_maintenance.typing import PeekableStateBackend, StateBackend, WatchableStateBackend

_UNFOLLOWED_TTL = 1.0  # seconds for which a read is reused without a follower, if the backend can be watched


class Source:
    """The state of a backend: peeked if it supports that, else what a follower or a read has made known."""

    def __init__(self, backend: StateBackend) -> None:
        self.backend = backend
        self._known = known_of(backend)
        self._peekable = backend if isinstance(backend, PeekableStateBackend) else None
        if isinstance(backend, Cache):
            self._ttl = backend.ttl
        else:
            self._ttl = _UNFOLLOWED_TTL if isinstance(backend, WatchableStateBackend) else 0.0

    def peek(self) -> MaintenanceState | None:
        """Return the state, the last known one if a peek fails; None if it has to be read, or none is known."""
        known = self._known
        if self._peekable is None:
            return known.peek(self._ttl) if self._ttl else None
        asked = moment()
        try:
            state = self._peekable.peek()
            if state is not known.state or not known.is_available:
                known.put(check_state(state), asked)
        except (Exception, CancelledError) as error:  # noqa: BLE001 -- a store must not fail a request
            known.fail(RuntimeError("it raised CancelledError") if isinstance(error, CancelledError) else error, asked)
            return known.state
        return state

    async def read(self, timeout: float) -> MaintenanceState | None:  # noqa: ASYNC109 -- as in `Known.read`
        """Read the state; return the last known one if that fails, None if none is known."""
        known = self._known
        if self._peekable is not None or (self._ttl and known.is_followed and not known.is_available):
            return known.state
        return await known.read(uncached(self.backend), self._ttl, timeout)
