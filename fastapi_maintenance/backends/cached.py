"""A backend that asks another one only now and then."""

from datetime import timedelta
from typing import overload

from fastapi_maintenance._helpers import clock
from fastapi_maintenance._helpers.checks import check_seconds
from fastapi_maintenance.backends.base import name_of, set_to
from fastapi_maintenance.backends.known import Cache, known_of, set_value, uncached, update_state
from fastapi_maintenance.backends.url import as_backend
from fastapi_maintenance.state import MaintenanceState, status_of
from fastapi_maintenance.typing import DetailedStateBackend, StateBackend, StateChange

__all__ = ["CachedBackend", "CachedDetailedBackend", "cached"]


class CachedBackend(Cache):
    """A backend with a bare switch behind a cache; made by `cached`."""

    def __init__(self, backend: StateBackend, ttl: float) -> None:
        super().__init__(backend, ttl)
        self._known = known_of(backend)

    def __repr__(self) -> str:
        return f"cached({name_of(self.backend)}, ttl={self.ttl:g})"

    async def get_value(self) -> bool:
        """Return whether maintenance is on; raises what the backend raises if no value is known."""
        return status_of(await self._state(), clock.now()).active

    async def set_value(self, value: bool) -> None:  # noqa: FBT001 -- the spec's own signature
        """Set the switch of the backend; raises what that raises."""
        await set_value(self.backend, value)

    async def _state(self) -> MaintenanceState:
        try:
            return await self._known.get(self.backend, self.ttl)
        except Exception:
            if self._known.state is None:
                raise
            return self._known.state


class CachedDetailedBackend(CachedBackend):
    """A backend that keeps whole states behind a cache; made by `cached`."""

    def __init__(self, backend: DetailedStateBackend, ttl: float) -> None:
        super().__init__(backend, ttl)
        self._detailed = backend

    async def set_value(self, value: bool) -> None:  # noqa: FBT001 -- the spec's own signature
        """Set the operator's switch, without details; open holds stay. Raises what the backend raises."""
        await self.update_state(set_to(value))

    async def get_state(self) -> MaintenanceState:
        """Return the state, no older than `ttl` unless the backend is unavailable; raises if no state is known."""
        return await self._state()

    async def update_state(self, change: StateChange) -> MaintenanceState:
        """Apply a change to what the backend keeps, not to what is cached; raises what the backend raises."""
        return await update_state(self._detailed, change)


@overload
def cached(backend: DetailedStateBackend, ttl: float | timedelta = 1.0) -> DetailedStateBackend: ...
@overload
def cached(backend: StateBackend | str, ttl: float | timedelta = 1.0) -> StateBackend: ...
def cached(backend: StateBackend | str, ttl: float | timedelta = 1.0) -> StateBackend:
    """Return a backend that asks `backend` at most once in a `ttl`, and once at a time.

    >>> from fastapi_maintenance import LocalFileBackend
    >>> backend = cached(LocalFileBackend("maintenance.txt"), ttl=5.0)

    All callers that wait share one read. While the backend is unavailable, its last value counts, and it is asked again
    every `ttl` seconds. What is written goes to the backend, and counts here at once. It disables watching: use it
    where one connection for each worker is too many. (A backend that supports draining is watched all the same by the
    workers that a drain waits for.)

    Args:
        backend: Where the state is kept, or its URL for `backend_from_url`.
        ttl: Seconds, or a timedelta, for which a value counts.

    Raises:
        TypeError: `backend` is not a backend, or `ttl` is not a duration.
        ValueError: `ttl` is not above zero.
    """
    inner = uncached(as_backend("backend", backend))
    seconds = check_seconds("ttl", ttl)
    if isinstance(inner, DetailedStateBackend):
        return CachedDetailedBackend(inner, seconds)
    return CachedBackend(inner, seconds)
