"""How a middleware learns the state of a backend: by a peek, from what is known of the switch, or by a read."""

from asyncio import CancelledError

from fastapi_maintenance.backends.base import check_state
from fastapi_maintenance.backends.known import Cache, Known, known_of, moment, uncached
from fastapi_maintenance.state import MaintenanceState
from fastapi_maintenance.typing import PeekableStateBackend, StateBackend, WatchableStateBackend

_UNFOLLOWED_TTL = 1.0  # seconds for which a read counts, of a backend that could be watched


class Source:
    """How the state of a backend is learned: here from what is known, which a follower or a read keeps current."""

    ttl = _UNFOLLOWED_TTL

    def __init__(self, backend: StateBackend) -> None:
        self.backend = backend
        self.known: Known = known_of(backend)
        if isinstance(backend, Cache):
            self.ttl = backend.ttl
        elif not isinstance(backend, WatchableStateBackend):
            self.ttl = 0.0

    def peek(self) -> MaintenanceState | None:
        """Return the state; None: it has to be read."""
        return self.known.peek(self.ttl) if self.ttl else None

    async def read(self, timeout: float) -> MaintenanceState | None:  # noqa: ASYNC109 -- as of `Known.read`
        """Read the state; return the last known one if that fails, None if none is known."""
        if self.ttl and self.known.is_followed and not self.known.is_available:
            return self.known.state
        return await self.known.read(uncached(self.backend), self.ttl, timeout)


class _PeekedSource(Source):
    """Here the backend knows its state without waiting."""

    def __init__(self, backend: PeekableStateBackend) -> None:
        super().__init__(backend)
        self._peekable = backend

    def peek(self) -> MaintenanceState | None:
        """Return the state, the last known one if that fails; None: none is known."""
        known = self.known
        try:
            state = self._peekable.peek()
            if state is not known.state or not known.is_available:
                known.put(check_state(state), moment())
        except (Exception, CancelledError) as error:  # noqa: BLE001 -- whatever a store raises, requests go on
            known.fail(RuntimeError("it raised CancelledError") if isinstance(error, CancelledError) else error)
            return known.state
        return state

    async def read(self, timeout: float) -> MaintenanceState | None:  # noqa: ARG002, ASYNC109 -- as above
        """Return the last known state."""
        return self.known.state


def source_of(backend: StateBackend) -> Source:
    return _PeekedSource(backend) if isinstance(backend, PeekableStateBackend) else Source(backend)
