"""Each change of the status, for background workers: however many wait in a process, one of them watches for all."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import NoReturn

import anyio

from fastapi_maintenance._helpers import clock
from fastapi_maintenance._helpers.waiting import current_loop
from fastapi_maintenance._switch import holds
from fastapi_maintenance._switch.observer import observe
from fastapi_maintenance._switch.writes import key_of
from fastapi_maintenance.state import Hold, MaintenanceState, MaintenanceStatus, next_change, status_of
from fastapi_maintenance.typing import StateBackend

_POLL = 1.0  # seconds
_READ_TIMEOUT = 5.0  # seconds
_groups: dict[tuple[object, object], _Group] = {}
"""Those who wait, by their event loop and their switch."""


class _Group:
    """All who wait in one event loop for changes of one switch, and what they know of it.

    Nobody is there to run a task for them, so one of those who wait follows its backend, and wakes the others; where
    that one leaves, another goes on.
    """

    def __init__(self) -> None:
        self.members = 0
        self.has_leader = False
        self.news = anyio.Event()
        self.state = MaintenanceState()

    def tell(self, state: MaintenanceState | None) -> None:
        """Wake all with the state, if it is known."""
        self.state = state or self.state
        news, self.news = self.news, anyio.Event()
        news.set()


class _Member:
    """One who waits.

    Args:
        group: With whom.
        backend: What to follow while nobody else does.
    """

    def __init__(self, group: _Group, backend: StateBackend) -> None:
        self._group = group
        self._backend = backend
        self._observer = observe(backend, fail_closed=False, read_timeout=_READ_TIMEOUT)

    def state(self) -> MaintenanceState:
        """Return the last known state, with the holds of this process."""
        return holds.with_local(self._backend, self._group.state)

    async def read(self) -> None:
        """Learn the state."""
        known = self._group.state
        state = await self._observer.read()
        if known is self._group.state and not self._observer.is_away:  # else the group knows it better
            self._group.state = state

    async def wait(self, known: object) -> None:
        """Return when the status differs from the one that is known."""
        while known == self._compared():
            if self._group.has_leader:
                await self._news()
            else:
                await self._lead(known)

    async def _news(self) -> None:
        change = next_change(self.state(), clock.now())
        with anyio.move_on_after(math.inf if change is None else min(_POLL, clock.seconds_until(change))):
            await self._group.news.wait()

    async def _lead(self, known: object) -> None:
        self._group.has_leader = True
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._observer.follow, None, self._tell)
                tasks.start_soon(self._poll)
                while known == self._compared():
                    await self._news()
                tasks.cancel_scope.cancel()
        finally:
            self._group.has_leader = False
            self._group.tell(None)  # another one leads now

    async def _poll(self) -> NoReturn:
        while True:
            await anyio.sleep(_POLL)
            if not self._observer.is_followed:
                await self.read()
                self._tell()

    def _tell(self) -> None:
        self._group.tell(None if self._observer.is_away else self._observer.peek())

    def status(self) -> MaintenanceStatus:
        """Return the status by the last known state."""
        return status_of(self.state(), clock.now())

    def _compared(self) -> MaintenanceStatus:
        return without_lease(self.status())


def without_lease(status: MaintenanceStatus) -> MaintenanceStatus:
    """Return the status for a comparison: the renewal of a lease is not a change."""
    hold = status.decided_by
    return replace(status, decided_by=replace(hold, expires_at=None)) if isinstance(hold, Hold) else status


async def changes(backend: StateBackend) -> AsyncGenerator[MaintenanceStatus]:
    """Yield the status at once, then each time that it changes; never raise what the store raises."""
    key = current_loop(), key_of(backend)
    group = _groups.setdefault(key, _Group())
    group.members += 1
    try:
        member = _Member(group, backend)
        await member.read()
        known: object = None
        while True:
            await member.wait(known)
            status = member.status()
            known = without_lease(status)
            yield status
    finally:
        group.members -= 1
        if not group.members:
            del _groups[key]
