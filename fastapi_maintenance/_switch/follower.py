"""Follow a backend that can be watched, so that a request reads a local value."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import NoReturn

import anyio

from fastapi_maintenance._helpers.shared_read import SharedRead, moment
from fastapi_maintenance._helpers.waiting import ANSWER_TIMEOUT, current_loop, end_of, in_time
from fastapi_maintenance._switch.observer import Observer, PeekingObserver, SharingObserver
from fastapi_maintenance.backends.base import check_state, read_state
from fastapi_maintenance.backends.cached import CachedBackend
from fastapi_maintenance.state import MaintenanceState
from fastapi_maintenance.typing import PeekableStateBackend, StateBackend, WatchableStateBackend

__all__ = ["Follower", "observe"]

_UNFOLLOWED_TTL = 1.0  # seconds
_LOOK_AGAIN_AFTER = 1.0  # seconds
_STABLE_AFTER = 1.0  # seconds after which a watch that fails is no failure in a row
_PAUSES = (0.05, 0.1, 0.2, 0.4, 0.8)  # seconds before a lost store is asked again; the last one over and over


def _unfollowed() -> bool:
    return True


class Follower(SharingObserver):
    """Know each state that a backend tells as long as `follow` runs; else read it with a short time to live."""

    def __init__(self, backend: WatchableStateBackend, *, fail_closed: bool, read_timeout: float) -> None:
        shared = SharedRead(partial(read_state, backend), ttl=_UNFOLLOWED_TTL)
        super().__init__(backend, shared, fail_closed=fail_closed, read_timeout=read_timeout)
        self._watchable = backend
        self._has_ended = _unfollowed
        self._written_at = 0

    def peek(self) -> MaintenanceState | None:
        """Return the state if it is followed, and known or known to be away, or was read a moment ago."""
        if self._has_ended():
            return super().peek()
        return None if self._shared.newest is None and not self._away else self._last()

    async def written(self, state: MaintenanceState, began: int, writer: StateBackend, *, alone: bool) -> None:
        """Take note of what this process wrote, so that its next request knows it."""
        self._written_at = moment()
        await super().written(state, began, writer, alone=alone)

    async def follow(self, ready: Callable[[], None]) -> None:
        """Learn of each change until this is cancelled; call `ready` when the state is known, or the store away."""
        if not self._has_ended():
            ready()
            return
        self._has_ended = has_ended = end_of(current_loop())
        failures = 0
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(self._look_again)
                while True:
                    began = anyio.current_time()
                    try:
                        await self._watch(ready)
                    except Exception as error:  # noqa: BLE001 -- whatever a store raises, requests go on
                        self._stand_in(error)
                    ready()
                    failures = 0 if anyio.current_time() - began > _STABLE_AFTER else failures + 1
                    pause = _PAUSES[min(failures, len(_PAUSES) - 1)]
                    await anyio.sleep(pause * random.uniform(0.5, 1))  # noqa: S311 -- no secret
        finally:
            if self._has_ended is has_ended:  # else this is from a loop that was closed, and it is followed in another
                self._has_ended = _unfollowed

    async def _look_again(self) -> NoReturn:
        """Read once more some time after each write of this process.

        Where another process soon undoes it, a watch may find what it told before the write, and tell nothing.
        """
        looked_at = self._written_at
        while True:
            await anyio.sleep(_LOOK_AGAIN_AFTER)
            if self._written_at <= looked_at:
                continue
            asked = moment()
            with suppress(Exception), in_time(self._read_timeout):
                self._shared.put(await read_state(self.backend), asked)
                looked_at = asked

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
                ready()
                asked = moment()
        finally:
            aclose = getattr(states, "aclose", None)  # generators have it
            if aclose is not None:
                with anyio.move_on_after(ANSWER_TIMEOUT, shield=True):
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
