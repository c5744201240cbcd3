"""A backend in the memory of this process."""

from collections import defaultdict
from collections.abc import AsyncIterator, Mapping
from typing import ClassVar

import anyio

from fastapi_maintenance._helpers.checks import reject
from fastapi_maintenance._helpers.process import ThreadLock, identity
from fastapi_maintenance.backends.base import DetailedBackend
from fastapi_maintenance.codec import state_to_text
from fastapi_maintenance.state import MaintenanceState, Switch
from fastapi_maintenance.typing import StateChange

_POLL = 0.05  # seconds; an event would work in one event loop only


class MemoryBackend(DetailedBackend):
    """Keep the state in memory: for tests, and for a service with a single process.

    >>> import asyncio
    >>> asyncio.run(MemoryBackend(state=True).get_value())
    True

    Args:
        state: The initial state, or just whether maintenance is on.

    Raises:
        TypeError: `state` is neither.
    """

    def __init__(self, state: MaintenanceState | bool = False) -> None:  # noqa: FBT001, FBT002 -- a state in short
        if not isinstance(state, (MaintenanceState, bool)):
            reject("state", "a MaintenanceState, True or False", state)
        self._state = MaintenanceState(switch=Switch(on=state)) if isinstance(state, bool) else state
        self._lock = ThreadLock()
        self.workers: MemoryWorkers = MemoryWorkers()
        """The workers behind this switch."""

    def __repr__(self) -> str:
        """Leave out the state, which changes: this names the switch in logs and telemetry."""
        return f"{type(self).__name__}()"

    def peek(self) -> MaintenanceState:
        """Return the state."""
        return self._state

    async def get_state(self) -> MaintenanceState:
        """Return the state."""
        return self._state

    async def update_state(self, change: StateChange) -> MaintenanceState:
        """Apply a change; several threads take turns.

        Raises:
            ValueError: The new state is too long for other stores; see `state_to_text`.
        """
        with self._lock.current:
            after = change(self._state)
            state_to_text(after)
            self._state = after
            return after

    async def watch(self) -> AsyncIterator[MaintenanceState]:
        """Yield the state now, and within 50 milliseconds after each change."""
        yielded = None
        while True:
            if yielded is not self._state:
                yielded = self._state
                yield yielded
            await anyio.sleep(_POLL)


class MemoryWorkers:
    """The records of the workers in this process."""

    is_durable: ClassVar[bool] = True

    def __init__(self) -> None:
        self._reports: defaultdict[str, dict[str, str]] = defaultdict(dict)  # by process: a forked child has none yet

    async def sign(self, worker: str, report: str, /) -> None:
        """Record the report of a worker."""
        self._reports[identity()][worker] = report

    async def leave(self, worker: str, /) -> None:
        """Remove the record of a worker."""
        self._reports[identity()].pop(worker, None)

    async def reports(self) -> Mapping[str, str]:
        """Return the last report of each worker."""
        return self._reports[identity()].copy()
