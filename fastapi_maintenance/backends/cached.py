"""A cache of another backend; `last_known.py` has its value while the backend is unavailable."""

from datetime import timedelta
from typing import cast, overload

from fastapi_maintenance._helpers import clock
from fastapi_maintenance._helpers.checks import check_seconds
from fastapi_maintenance._helpers.waiting import ANSWER_TIMEOUT
from fastapi_maintenance.backends.base import DetailedBackend, name_of
from fastapi_maintenance.backends.last_known import Cache, set_value, uncached, update_state
from fastapi_maintenance.backends.url import as_backend
from fastapi_maintenance.state import MaintenanceState, status_of
from fastapi_maintenance.typing import DetailedStateBackend, StateBackend, StateChange


class CachedBackend(Cache):
    """A cache of a backend with a bare switch; created by `cached`."""

    def __repr__(self) -> str:
        return f"cached({name_of(self.backend)}, ttl={self.ttl:g})"

    async def get_value(self) -> bool:
        """Return whether maintenance is on; if no value is known, raise what the backend raises, or `TimeoutError`."""
        return status_of(await self._state(), clock.now()).active

    async def set_value(self, value: bool) -> None:  # noqa: FBT001 -- the spec's own signature
        """Set the switch of the backend; raise what the backend raises."""
        await set_value(self.backend, value)

    async def _state(self) -> MaintenanceState:
        state = await self.known.read(self.backend, self.ttl, ANSWER_TIMEOUT)
        if state is None:
            raise self.known.error or TimeoutError  # another thread may have cleared it
        return state


class CachedDetailedBackend(DetailedBackend, CachedBackend):
    """A cache of a backend that stores whole states; created by `cached`."""

    async def get_state(self) -> MaintenanceState:
        """Return the state, no older than `ttl` unless the backend is unavailable; raise if no state is known."""
        return await self._state()

    async def update_state(self, change: StateChange) -> MaintenanceState:
        """Apply a change to the state that the backend stores, not to the cached one; raise what the backend raises."""
        return await update_state(cast("DetailedStateBackend", self.backend), change)


@overload
def cached(backend: DetailedStateBackend, ttl: float | timedelta = 1.0) -> DetailedStateBackend: ...
@overload
def cached(backend: StateBackend | str, ttl: float | timedelta = 1.0) -> StateBackend: ...
def cached(backend: StateBackend | str, ttl: float | timedelta = 1.0) -> StateBackend:
    """Return a backend that reads `backend` at most once per `ttl`, with one read at a time.

    >>> from fastapi_maintenance import LocalFileBackend
    >>> backend = cached(LocalFileBackend("maintenance.txt"), ttl=5.0)

    All concurrent callers share one read. While the backend is unavailable, or does not answer within two seconds, its
    last value is used, and it is read again every `ttl` seconds. Writes go to the backend, and count here immediately.
    A cache disables watching: use it where one connection for each worker is too many. (Workers still watch a backend
    that supports draining.)

    Args:
        backend: The backend, or its URL for `backend_from_url`.
        ttl: Seconds, or a timedelta, for which a value counts.

    Raises:
        TypeError: `backend` is not a backend, or `ttl` is not a duration.
        ValueError: `ttl` is not above zero.
    """
    inner = uncached(as_backend("backend", backend))
    seconds = check_seconds("ttl", ttl)
    kind = CachedDetailedBackend if isinstance(inner, DetailedStateBackend) else CachedBackend
    return kind(inner, seconds)
