"""What the backends on a shared store have in common: a change is tried again, and the state is watched."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager

import anyio

from fastapi_maintenance._helpers.checks import check_name, check_seconds
from fastapi_maintenance._helpers.waiting import ANSWER_TIMEOUT, WRITE_TIMEOUT, in_time
from fastapi_maintenance.backends.base import DetailedBackend
from fastapi_maintenance.state import MaintenanceState
from fastapi_maintenance.typing import StateChange

__all__ = ["DEFAULT_KEY", "Read", "StoreBackend", "Wait"]

DEFAULT_KEY = "fastapi_maintenance_mode"

_MAX_PAUSE = 0.02  # seconds between two tries of a change, where another process was faster

Read = Callable[[], Awaitable[MaintenanceState]]
"""Returns the state as it is now."""

Wait = Callable[[float], Awaitable[object]]
"""Returns when there was a notification, or the seconds are over."""


class StoreBackend(DetailedBackend, ABC):
    """The base of the built-in backends that keep the state under a key of a store that several processes share."""

    close_client: Callable[[], Awaitable[object]] | None = None
    """Closes the client, where it was made from a URL; None where the user made it."""

    def __init__(self, key: str, poll_interval: float, *, longest_key: int | None = None) -> None:
        self.key: str = check_name("key", key, at_most=longest_key)
        self.poll_interval: float = check_seconds("poll_interval", poll_interval)

    @abstractmethod
    async def get_state(self) -> MaintenanceState:
        """Return what the store says.

        Raises:
            InvalidStateError: The content is no state.
            Exception: The store cannot be read: an error of its client.

        """

    async def update_state(self, change: StateChange) -> MaintenanceState:
        """Apply a change, so that no other change by any process is lost, and return the result.

        Raises:
            InvalidStateError: The content is no state, and the change does not set the switch. One that does replaces
                it, as if it had been off, and a warning is logged.
            TimeoutError: The store has not answered for ten seconds, or others were faster for as long.
            Exception: The store cannot be written: an error of its client.

        """
        with in_time(WRITE_TIMEOUT):
            while True:
                after = await self._try(change)
                if after is not None:
                    return after
                await anyio.sleep(random.uniform(0, _MAX_PAUSE))  # noqa: S311 -- no secret

    async def watch(self) -> AsyncIterator[MaintenanceState]:
        """Yield the state at once, after each change, and after each `poll_interval`; raises as `get_state` does.

        Raises:
            TimeoutError: The store has not answered for two seconds.

        """
        async with self._listening() as (read, wait):
            while True:
                with in_time(ANSWER_TIMEOUT):
                    state = await read()
                yield state
                with in_time(self.poll_interval + ANSWER_TIMEOUT):
                    await wait(self.poll_interval)

    @abstractmethod
    async def _try(self, change: StateChange) -> MaintenanceState | None:
        """Apply a change and return the result; None where the content has changed since it was read."""

    @abstractmethod
    def _listening(self) -> AbstractAsyncContextManager[tuple[Read, Wait]]:
        """Give a function that reads the state, and one that waits for a change."""
