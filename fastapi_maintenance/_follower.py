"""Follow a backend that can be watched, so that a request reads a local value."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from typing import NoReturn

import anyio

from fastapi_maintenance._observer import Observer, PeekingObserver, SharingObserver
from fastapi_maintenance._shared_read import SharedRead, moment
from fastapi_maintenance._waiting import ANSWER_TIMEOUT, in_time
from fastapi_maintenance.backends.base import check_state, read_state
from fastapi_maintenance.backends.cached import CachedBackend
from fastapi_maintenance.state import MaintenanceState
from fastapi_maintenance.typing import PeekableStateBackend, StateBackend, WatchableStateBackend

__all__ = ["Follower", "observe"]

_UNFOLLOWED_TTL = 1.0  # seconds
_PAUSES = (0.05, 0.1, 0.2, 0.4, 0.8)  # seconds before a lost store is asked again; the last one over and over


class Follower(SharingObserver):
    """Know each state that a backend tells as long as `follow` runs; else read it with a short time to live."""

    def __init__(self, backend: WatchableStateBackend, *, fail_closed: bool, read_timeout: float) -> None:
        shared = SharedRead(partial(read_state, backend), ttl=_UNFOLLOWED_TTL)
        super().__init__(backend, shared, fail_closed=fail_closed, read_timeout=read_timeout)
        self._watchable = backend
        self._is_followed = False
        self._failures = 0
        self._written_at = 0

    def peek(self) -> MaintenanceState | None:
        """Return the state if it is followed."""
        return self._last() if self._is_followed else None

    async def written(self, state: MaintenanceState, began: int) -> None:
        """Take note of what this process wrote, so that its next request knows it."""
        self._written_at = moment()
        await super().written(state, began)

    async def follow(self, ready: Callable[[], None]) -> None:
        """Learn of each change until this is cancelled; call `ready` when the state is known, or the store away."""
        if self._is_followed:
            ready()
            return
        self._is_followed = True
        self._failures = 0
        try:
            while True:
                try:
                    await self._watch(ready)
                except Exception as error:  # noqa: BLE001 -- whatever a store raises, requests go on
                    self._stand_in(error)
                ready()
                pause = _PAUSES[min(self._failures, len(_PAUSES) - 1)]
                self._failures += 1
                await anyio.sleep(pause * random.uniform(0.5, 1))  # noqa: S311 -- no secret
        finally:
            self._is_followed = False

    async def _watch(self, ready: Callable[[], None]) -> NoReturn:
        states = self._watchable.watch()
        asked = moment()
        try:
            async for told in states:
                state = told
                written_meanwhile, asked = self._written_at > asked, moment()
                if written_meanwhile:  # what is told may be from before that
                    with in_time(self._read_timeout):
                        state = await read_state(self.backend)
                if self._shared.put(check_state(state), asked):
                    self._told(state)
                self._failures = 0
                ready()
                asked = moment()
        finally:
            aclose = getattr(states, "aclose", None)  # generators have it
            if aclose is not None:
                with anyio.CancelScope(shield=True), anyio.move_on_after(ANSWER_TIMEOUT):
                    await aclose()
        msg = "watch() has ended"
        raise EOFError(msg)


def observe(backend: StateBackend, *, fail_closed: bool, read_timeout: float) -> Observer:
    """Return the observer that knows the backend's state at the least cost."""
    if isinstance(backend, PeekableStateBackend):
        return PeekingObserver(backend, fail_closed=fail_closed, read_timeout=read_timeout)
    if isinstance(backend, CachedBackend):
        return SharingObserver(backend, backend.shared, fail_closed=fail_closed, read_timeout=read_timeout)
    if isinstance(backend, WatchableStateBackend):
        return Follower(backend, fail_closed=fail_closed, read_timeout=read_timeout)
    return Observer(backend, fail_closed=fail_closed, read_timeout=read_timeout)
