"""A backend that asks another one only now and then."""

from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import overload

from fastapi_maintenance._helpers import clock
from fastapi_maintenance._helpers.checks import check_seconds
from fastapi_maintenance._helpers.shared_read import SharedRead, moment
from fastapi_maintenance.backends.base import check_state, name_of, read_state, set_to
from fastapi_maintenance.backends.url import as_backend
from fastapi_maintenance.state import MaintenanceState, Switch, status_of
from fastapi_maintenance.typing import DetailedStateBackend, StateBackend, StateChange

__all__ = ["CachedBackend", "CachedDetailedBackend", "cached", "uncached"]


class CachedBackend:
    """A backend with a bare switch behind a cache; made by `cached`."""

    def __init__(self, backend: StateBackend, ttl: float) -> None:
        self.backend = backend
        self.ttl = ttl
        self.shared: SharedRead[MaintenanceState] = SharedRead(partial(read_state, backend), ttl=ttl)
        self._last_event = 0

    def __repr__(self) -> str:
        """Show the backend and the time for which a value is kept."""
        return f"cached({name_of(self.backend)}, ttl={self.ttl:g})"

    async def get_value(self) -> bool:
        """Return whether there is maintenance now; raises what the backend raises if it never told."""
        return status_of(await self._state(), clock.now()).active

    async def set_value(self, value: bool) -> None:  # noqa: FBT001 -- the spec's own signature
        """Set the switch of the backend; raises what that raises."""
        began = self._note()
        await self.backend.set_value(value)
        await self._written(MaintenanceState(switch=Switch(on=value)), began)

    async def _state(self) -> MaintenanceState:
        try:
            return await self.shared.get()
        except Exception:
            if self.shared.newest is None:
                raise
            return self.shared.newest

    def _note(self) -> int:
        """Note that a write begins or ends."""
        self._last_event = moment()
        return self._last_event

    async def _written(self, state: MaintenanceState, began: int) -> None:
        """Take the written state as the current one; read it again where another write was in progress."""
        if self._last_event != began:
            began = self._note()
            with suppress(Exception):  # the write has succeeded
                self.shared.put(await read_state(self.backend), began)
            return
        self._note()
        self.shared.put_written(state, began)


class CachedDetailedBackend(CachedBackend):
    """A backend that keeps whole states behind a cache; made by `cached`."""

    def __init__(self, backend: DetailedStateBackend, ttl: float) -> None:
        super().__init__(backend, ttl)
        self._detailed = backend

    async def set_value(self, value: bool) -> None:  # noqa: FBT001 -- the spec's own signature
        """Set the operator's switch, without details; open holds stay. Raises what the backend raises."""
        await self.update_state(set_to(value))

    async def get_state(self) -> MaintenanceState:
        """Return the state, no older than `ttl` unless the backend is away; raises if it never told one."""
        return await self._state()

    async def update_state(self, change: StateChange) -> MaintenanceState:
        """Apply a change to what the backend keeps, not to what is cached; raises what the backend raises."""
        began = self._note()
        state = check_state(await self._detailed.update_state(change))
        await self._written(state, began)
        return state


@overload
def cached(backend: DetailedStateBackend, ttl: float | timedelta = 1.0) -> DetailedStateBackend: ...
@overload
def cached(backend: StateBackend | str, ttl: float | timedelta = 1.0) -> StateBackend: ...
def cached(backend: StateBackend | str, ttl: float | timedelta = 1.0) -> StateBackend:
    """Return a backend that asks `backend` at most once in a `ttl`, and once at a time.

    >>> from fastapi_maintenance import LocalFileBackend
    >>> backend = cached(LocalFileBackend("maintenance.txt"), ttl=5.0)

    All requests that wait share one read. While the backend is away, its last value counts, and it is asked again
    every `ttl` seconds. What is written goes to the backend, and counts here at once. A backend that could be watched
    is not: that is what this is for where a connection for each worker is too much.

    Args:
        backend: Where the state is kept, or its URL for `backend_from_url`.
        ttl: Seconds, or a timedelta, for which a value counts.

    Raises:
        TypeError: `backend` is no backend, or `ttl` no number.
        ValueError: `ttl` is not above zero.
    """
    inner = uncached(as_backend("backend", backend))
    seconds = check_seconds("ttl", ttl)
    if isinstance(inner, DetailedStateBackend):
        return CachedDetailedBackend(inner, seconds)
    return CachedBackend(inner, seconds)


def uncached(backend: StateBackend) -> StateBackend:
    """Return the backend behind the cache, where there is one."""
    return backend.backend if isinstance(backend, CachedBackend) else backend
