"""Each change of a switch, told to background workers: however many wait in a process, one of them watches for all."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator
from typing import NoReturn

import anyio

from fastapi_maintenance._helpers import clock
from fastapi_maintenance._helpers.waiting import current_loop
from fastapi_maintenance._switch import holds
from fastapi_maintenance._switch.observer import Observer, observe
from fastapi_maintenance._switch.writes import key_of
from fastapi_maintenance.state import MaintenanceState, next_change, what_counts
from fastapi_maintenance.typing import StateBackend

__all__ = ["changes"]

_POLL = 1.0  # seconds
_READ_TIMEOUT = 5.0  # seconds
_watches: dict[tuple[object, object], _Watch] = {}
"""What is waited for in each event loop, by its switch."""


class _Watch:
    """What all who wait in one event loop for changes of one switch know of it.

    Nobody is there to run a task for them, so one of those who wait follows the backend, and wakes the others; where
    that one leaves, another goes on.
    """

    def __init__(self, backend: StateBackend) -> None:
        self.users = 0
        self._backend = backend
        self._observer: Observer = observe(backend, fail_closed=False, read_timeout=_READ_TIMEOUT)
        self._state = MaintenanceState()
        self._news = anyio.Event()
        self._has_leader = False

    def state(self) -> MaintenanceState:
        """Return the last known state, with the holds of this process."""
        return holds.with_local(self._backend, self._observer.peek() or self._state)

    async def read(self) -> None:
        """Learn the state."""
        self._state = await self._observer.read()

    async def wait(self, known: object) -> None:
        """Return when what counts is something else than is known."""
        while known == self._what_counts():
            change = next_change(self.state(), clock.now())
            with anyio.move_on_after(math.inf if change is None else clock.seconds_until(change)):
                if self._has_leader:
                    await self._news.wait()
                else:
                    await self._lead(known)

    async def _lead(self, known: object) -> None:
        self._has_leader = True
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(self._observer.follow, None, self._tell)
                group.start_soon(self._poll)
                while known == self._what_counts():
                    await self._news.wait()
                group.cancel_scope.cancel()
        finally:
            self._has_leader = False
            self._tell()  # another one leads now

    async def _poll(self) -> NoReturn:
        while True:
            await anyio.sleep(_POLL)
            if not self._observer.is_followed:
                await self.read()
                self._tell()

    def _tell(self) -> None:
        self._state = self._observer.peek() or self._state
        news, self._news = self._news, anyio.Event()
        news.set()

    def _what_counts(self) -> object:
        return what_counts(self.state(), clock.now())


async def changes(backend: StateBackend) -> AsyncGenerator[MaintenanceState, None]:
    """Yield the state at once, then whenever something else counts; never raise what the store raises."""
    key = current_loop(), key_of(backend)
    watch = _watches.setdefault(key, _Watch(backend))
    watch.users += 1
    try:
        await watch.read()
        known: object = None
        while True:
            await watch.wait(known)
            state = watch.state()
            known = what_counts(state, clock.now())
            yield state
    finally:
        watch.users -= 1
        if not watch.users:
            del _watches[key]
