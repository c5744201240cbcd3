"""What is the state now? A backend that fails, hangs or talks nonsense never fails a request.

An observer asks its backend on each request, peeks at it, or follows it, whatever costs least; `observe` chooses.
"""

import logging
import random
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from functools import partial
from typing import NoReturn

import anyio

from fastapi_maintenance._helpers import clock
from fastapi_maintenance._helpers.shared_read import SharedRead, moment
from fastapi_maintenance._helpers.waiting import ANSWER_TIMEOUT, current_loop, end_of, in_time
from fastapi_maintenance._switch import writes
from fastapi_maintenance.backends.base import check_state, name_of, read_state
from fastapi_maintenance.backends.cached import CachedBackend, uncached
from fastapi_maintenance.state import MaintenanceState, Switch, status_of
from fastapi_maintenance.typing import (
    DrainableStateBackend,
    PeekableStateBackend,
    StateBackend,
    WatchableStateBackend,
)

_UNFOLLOWED_TTL = 1.0  # seconds
_READ_AGAIN_AFTER = 1.0  # seconds
_STABLE_AFTER = 1.0  # seconds after which a watch that fails is no failure in a row
_PAUSES = (0.05, 0.1, 0.2, 0.4, 0.8)  # seconds before a lost store is asked again; the last one over and over
_logger = logging.getLogger("fastapi_maintenance")


def _not_followed() -> bool:
    return True


class Observer:
    """Ask a backend each time, and stand in for it while it is away with the last state that it told.

    Args:
        backend: What to observe.
        fail_closed: Whether maintenance is on where no state was ever told.
        read_timeout: How long one read may take, in seconds.
    """

    def __init__(self, backend: StateBackend, *, fail_closed: bool, read_timeout: float) -> None:
        self.backend = backend
        self.watches = 0
        """How often it began to watch."""
        self._read_timeout = read_timeout
        self._known = MaintenanceState(switch=Switch(on=fail_closed))
        self._away = False
        self._has_ended = _not_followed

    @property
    def is_followed(self) -> bool:
        """Whether each change is told by a watch."""
        return not self._has_ended()

    def peek(self) -> MaintenanceState | None:
        """Return the state, or None where it takes waiting to know it."""
        return None

    async def read(self) -> MaintenanceState:
        """Return the state after asking the backend, within the time that one read may take."""
        try:
            with in_time(self._read_timeout):
                state = await self._ask()
        except Exception as error:  # noqa: BLE001 -- whatever a store raises, requests go on
            return self._stand_in(error)
        return self._told(state)

    @property
    def can_be_followed(self) -> bool:
        """Whether the backend can be watched."""
        return isinstance(watched_by(self.backend), WatchableStateBackend)

    @property
    def is_away(self) -> bool:
        """Whether the backend could not be read when it was asked last."""
        return self._away

    async def follow(self, worker: str | None, notice: Callable[[], None]) -> None:
        """Learn of each change until this is cancelled, where the backend can be watched and is not followed yet.

        Args:
            worker: Who is counted, by a backend that can do that; None: nobody.
            notice: Called after each state that was told, and when there was none.
        """
        watched = watched_by(self.backend)
        if self.is_followed or not isinstance(watched, WatchableStateBackend):
            notice()
            return
        self._has_ended = has_ended = end_of(current_loop())
        failures = 0
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(self._read_again)
                while True:
                    began = anyio.current_time()
                    try:
                        await self._watch(_watch(watched, worker), notice)
                    except Exception as error:  # noqa: BLE001 -- whatever a store raises, requests go on
                        self._stand_in(error)
                    notice()
                    failures = 0 if anyio.current_time() - began > _STABLE_AFTER else failures + 1
                    pause = _PAUSES[min(failures, len(_PAUSES) - 1)]
                    await anyio.sleep(pause * random.uniform(0.5, 1))  # noqa: S311 -- no secret
        finally:
            if self._has_ended is has_ended:  # else this is from a loop that was closed, and it is followed in another
                self._has_ended = _not_followed

    def gave_up(self) -> None:
        """Take note that the backend has not told its state in time."""
        self._stand_in(TimeoutError(f"no answer within {self._read_timeout:g} seconds"))

    async def _watch(self, states: AsyncIterator[MaintenanceState], notice: Callable[[], None]) -> NoReturn:
        asked = moment()
        is_first = True
        try:
            async for state in states:
                self.watches += is_first
                is_first = False
                asked = await self._take(check_state(state), asked)
                notice()
        finally:
            aclose = getattr(states, "aclose", None)  # generators have it
            if aclose is not None:
                with anyio.move_on_after(ANSWER_TIMEOUT, shield=True):
                    await aclose()
        msg = "watch() has ended"
        raise EOFError(msg)

    async def _take(self, state: MaintenanceState, asked: int) -> int:  # noqa: ARG002 -- it may have changed since
        """Take a state that a watch told, which was asked for at that moment; return when the next is asked for."""
        self.peek()
        return asked

    async def _read_again(self) -> None:
        """Read once more some time after each write of this process, where a watch might not tell what it undoes."""

    async def _ask(self) -> MaintenanceState:
        return await read_state(self.backend)

    def _told(self, state: MaintenanceState) -> MaintenanceState:
        self._known = state
        if self._away:
            self._away = False
            _logger.warning("The maintenance state can be read again from %s", name_of(self.backend))
        return state

    def _stand_in(self, error: Exception) -> MaintenanceState:
        if not self._away:
            self._away = True
            _logger.warning(
                "The maintenance state cannot be read from %s; until it can, maintenance stays %s: %s: %s",
                name_of(self.backend),
                "on" if status_of(self._last(), clock.now()).active else "off",
                type(error).__name__,
                error,
            )
        return self._last()

    def _last(self) -> MaintenanceState:
        return self._known


class _PeekingObserver(Observer):
    """Peek at a backend that knows its state without waiting."""

    def __init__(self, backend: PeekableStateBackend, *, fail_closed: bool, read_timeout: float) -> None:
        super().__init__(backend, fail_closed=fail_closed, read_timeout=read_timeout)
        self._peekable = backend

    def peek(self) -> MaintenanceState:
        """Return the state."""
        try:
            state = self._peekable.peek()
            if state is self._known and not self._away:  # as it is nearly always
                return state
            check_state(state)
        except Exception as error:  # noqa: BLE001 -- whatever a store raises, requests go on
            return self._stand_in(error)
        return self._told(state)


class _SharingObserver(Observer):
    """Let all requests that wait share one read of a backend, which counts for a while."""

    def __init__(
        self, backend: StateBackend, shared: SharedRead[MaintenanceState], *, fail_closed: bool, read_timeout: float
    ) -> None:
        super().__init__(backend, fail_closed=fail_closed, read_timeout=read_timeout)
        self._shared = shared
        writes.listen(self)

    def peek(self) -> MaintenanceState | None:
        """Return the state if it was read a moment ago."""
        return None if self._away else self._shared.fresh()

    async def written(self, state: MaintenanceState, began: int, writer: StateBackend, *, alone: bool) -> None:
        """Take note of what this process wrote, so that its next request knows it."""
        if alone and self._shared.put_written(state, began):
            return
        asked = moment()  # something was read or written meanwhile, perhaps before this write and perhaps after it
        try:
            with in_time(self._read_timeout):
                state = await read_state(uncached(writer))
        except Exception:  # noqa: BLE001 -- the write has succeeded
            asked = moment()
        self._shared.put(state, asked)

    async def _ask(self) -> MaintenanceState:
        return await self._shared.get()

    def _stand_in(self, error: Exception) -> MaintenanceState:
        if isinstance(error, TimeoutError):  # as far as it was this request that gave up, nobody else knows it
            self._shared.fail(error)
        return super()._stand_in(error)

    def _last(self) -> MaintenanceState:
        return self._known if self._shared.newest is None else self._shared.newest


class _FollowingObserver(_SharingObserver):
    """Know each state that a backend tells as long as `follow` runs; else read it with a short time to live."""

    _written_at = 0

    def peek(self) -> MaintenanceState | None:
        """Return the state if it is followed, and known or known to be away, or was read a moment ago."""
        if self._has_ended():
            return super().peek()
        return None if self._shared.newest is None and not self._away else self._last()

    async def written(self, state: MaintenanceState, began: int, writer: StateBackend, *, alone: bool) -> None:
        """Take note of what this process wrote, so that its next request knows it."""
        self._written_at = moment()
        await super().written(state, began, writer, alone=alone)

    async def _take(self, state: MaintenanceState, asked: int) -> int:
        written_meanwhile, asked = self._written_at > asked, moment()
        if written_meanwhile:  # what is told may be from before that
            with in_time(self._read_timeout):
                state = await read_state(watched_by(self.backend))
        if self._shared.put(state, asked):
            self._told(state)
        return moment()

    async def _read_again(self) -> NoReturn:
        read_at = self._written_at
        while True:
            await anyio.sleep(_READ_AGAIN_AFTER)
            if self._written_at <= read_at:
                continue
            asked = moment()
            with suppress(Exception), in_time(self._read_timeout):
                self._shared.put(await read_state(watched_by(self.backend)), asked)
                read_at = asked


def observe(backend: StateBackend, *, fail_closed: bool, read_timeout: float) -> Observer:
    """Return the observer that knows the backend's state at the least cost."""
    if isinstance(backend, PeekableStateBackend):
        return _PeekingObserver(backend, fail_closed=fail_closed, read_timeout=read_timeout)
    is_watched = isinstance(watched_by(backend), WatchableStateBackend)
    if isinstance(backend, CachedBackend):
        shared = backend.shared
    elif is_watched:
        shared = SharedRead(partial(read_state, backend), ttl=_UNFOLLOWED_TTL)
    else:
        return Observer(backend, fail_closed=fail_closed, read_timeout=read_timeout)
    kind = _FollowingObserver if is_watched else _SharingObserver
    return kind(backend, shared, fail_closed=fail_closed, read_timeout=read_timeout)


def watched_by(backend: StateBackend) -> StateBackend:
    """Return what is watched of a backend: what is behind a cache only where a drain has to know who follows it."""
    behind = uncached(backend)
    return behind if isinstance(behind, DrainableStateBackend) else backend


def _watch(backend: WatchableStateBackend, worker: str | None) -> AsyncIterator[MaintenanceState]:
    return backend.watch(worker) if isinstance(backend, DrainableStateBackend) else backend.watch()
