"""The context manager behind `maintenance_mode_on()` and `maintenance_mode_off()`, and the lease of its hold."""

import inspect
import logging
import uuid
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import ExitStack
from copy import copy
from dataclasses import replace
from datetime import datetime, timedelta
from functools import wraps
from types import TracebackType
from typing import Any, ParamSpec, Protocol, TypeVar, cast, runtime_checkable

import anyio
from anyio.abc import TaskGroup

from fastapi_maintenance._helpers import clock
from fastapi_maintenance._helpers.checks import check_seconds, reject
from fastapi_maintenance._helpers.waiting import ANSWER_TIMEOUT, in_time
from fastapi_maintenance._switch import current_backend, holds
from fastapi_maintenance._switch.drain import Progress, get_workers, wait_until_drained
from fastapi_maintenance._switch.requests import excused
from fastapi_maintenance._switch.writes import key_of
from fastapi_maintenance.backends.base import name_of
from fastapi_maintenance.backends.cached import uncached
from fastapi_maintenance.backends.memory import MemoryBackend
from fastapi_maintenance.backends.url import as_backend, backend_from_url, close_if_made_here
from fastapi_maintenance.errors import NotSupportedError
from fastapi_maintenance.state import Hold
from fastapi_maintenance.typing import DetailedStateBackend, StateBackend

_CLOSE_TIMEOUT = 10.0  # seconds
_RENEWALS_PER_LEASE = 3
_warned_of_clocks: set[object] = set()
_logger = logging.getLogger("fastapi_maintenance")
_P = ParamSpec("_P")
_T = TypeVar("_T")


class Block:
    """A hold for as long as a block runs; as a decorator of an async function, for as long as a call of it runs."""

    def __init__(  # noqa: PLR0913 -- each is a setting
        self,
        backend: StateBackend | str | None,
        *,
        on: bool,
        message: str | None = None,
        ends_at: datetime | None = None,
        lease: float | timedelta | None = None,
        drain: float | timedelta | None = None,
        by: str | None = None,
        progress: Progress | None = None,
    ) -> None:
        if backend is not None:
            as_backend("backend", backend)
        self._backend = backend
        self._wanted = Hold(id="not open", on=on, message=message, ends_at=ends_at, by=by)
        self._lease = None if lease is None else _checked_lease(lease)
        self._drain = None if drain is None else check_seconds("drain", drain)
        self._progress = progress
        self._within = ExitStack()
        self._open: tuple[StateBackend, Hold] | None = None
        self._renewal: TaskGroup | None = None

    @property
    def expected_end(self) -> datetime | None:
        """When its owner expects it to end, in UTC."""
        return self._wanted.ends_at

    def __call__(self, function: Callable[_P, Awaitable[_T]]) -> Callable[_P, Coroutine[Any, Any, _T]]:
        """Decorate an async function: each call is a block of its own."""
        if not inspect.iscoroutinefunction(function):
            reject("the decorated function", "an async function", function)

        @wraps(function)
        async def held(*args: _P.args, **kwargs: _P.kwargs) -> _T:
            block = copy(self)
            block._within = ExitStack()  # noqa: SLF001 -- its own
            async with block:
                return await function(*args, **kwargs)

        return held

    async def __aenter__(self) -> None:
        """Open the hold; raises what the store raises, and then holds nothing."""
        if self._open is not None:
            msg = "this block is open already: make one for each `async with`"
            raise RuntimeError(msg)
        meant = self._backend
        backend = backend_from_url(meant) if isinstance(meant, str) else current_backend.resolve(meant)
        try:
            await self._check(backend)
        except BaseException:
            if isinstance(meant, str):
                await close_if_made_here(backend)
            raise
        hold = replace(self._wanted, id=uuid.uuid4().hex, since=clock.now())
        self._open = backend, hold
        began = anyio.current_time()
        try:
            await holds.acquire(backend, hold, self._lease)
            late = self._lease is not None and anyio.current_time() - began >= self._lease.total_seconds()
            if late and isinstance(backend, DetailedStateBackend):  # what was written has expired
                await holds.renew(backend, hold, cast("timedelta", self._lease))
        except BaseException:
            await self._close(quietly=True)  # a write that was cut off half-way may have been made
            raise
        if self._lease is not None and isinstance(backend, DetailedStateBackend):
            self._renewal = anyio.create_task_group()
            await self._renewal.__aenter__()
            self._renewal.start_soon(_keep_renewing, backend, hold, self._lease, began)
            self._renewal.start_soon(_compare_clocks, backend, self._lease)
        if self._drain is not None:
            self._within.enter_context(excused())
            try:
                await wait_until_drained(backend, hold.id, self._drain, self._progress)
            except BaseException as error:
                await self.__aexit__(type(error), error, None)
                raise

    async def _check(self, backend: StateBackend) -> None:
        """Refuse what the backend cannot do, before anything is changed."""
        wanted = self._wanted
        holds.check_keeps(backend, message=wanted.message, ends_at=wanted.ends_at, lease=self._lease, by=wanted.by)
        if self._drain is None:
            return
        if isinstance(self._backend, str) and isinstance(backend, MemoryBackend):
            msg = "drain needs the backend itself and not the URL memory:, which is another switch each time"
            raise NotSupportedError(msg)
        await get_workers(backend)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the hold, however the block ended; raises what the store raises unless the block itself raised."""
        self._within.close()
        try:
            await self._stop_renewing(quietly=error is not None)
        finally:
            await self._close(quietly=error is not None)

    async def _close(self, *, quietly: bool) -> None:
        backend, hold = cast("tuple[StateBackend, Hold]", self._open)
        self._open = None
        try:
            await _release(backend, hold)
        except Exception:
            if not quietly:
                raise
            _logger.exception("A hold could not be taken out of %s", name_of(backend))
        finally:
            if isinstance(self._backend, str):
                await close_if_made_here(backend)

    async def _stop_renewing(self, *, quietly: bool) -> None:
        renewal, self._renewal = self._renewal, None
        if renewal is None:
            return
        renewal.cancel_scope.cancel()
        try:
            await renewal.__aexit__(None, None, None)  # not the block's error, which would come back in a group
        except BaseException:  # a cancellation from outside; where the block raised, its own error goes on
            if not quietly:
                raise


async def _release(backend: StateBackend, hold: Hold) -> None:
    """Release the hold whatever cancels this meanwhile: a cancelled block has to lift its maintenance too."""
    cancellation: BaseException | None = None
    while True:
        try:
            with anyio.CancelScope(shield=True), anyio.fail_after(_CLOSE_TIMEOUT):
                await holds.release(backend, hold)
            break
        except anyio.get_cancelled_exc_class() as error:  # asyncio's own, as of `asyncio.timeout`, knows no shield
            cancellation = error
    if cancellation is not None:
        raise cancellation


def _checked_lease(lease: float | timedelta) -> timedelta:
    seconds = check_seconds("lease", lease)
    try:
        duration = timedelta(seconds=seconds)
        clock.now() + duration
    except OverflowError:
        msg = f"lease must end before the year 10000, got {seconds!r} seconds"
        raise ValueError(msg) from None
    return duration


@runtime_checkable
class _ClockedBackend(Protocol):
    """A backend whose store has a clock."""

    async def now(self) -> datetime:
        """Return the store's time, aware."""


async def _keep_renewing(backend: DetailedStateBackend, hold: Hold, lease: timedelta, began: float) -> None:
    """Renew a hold for ever, each time early enough for what the last times took, so that its lease never runs out.

    A renewal may take as long as there is lease left, and always a third of the lease or twice what the last ones took.
    """
    seconds = lease.total_seconds()
    period = seconds / _RENEWALS_PER_LEASE
    took, failed = 0.0, False
    while True:
        took = max(anyio.current_time() - began, took / 2)
        pause = began + min(period, seconds - 2 * took) - anyio.current_time()
        expires = began + seconds
        while True:
            await anyio.sleep(max(pause, 0))
            began = anyio.current_time()
            try:
                with in_time(max(expires - began, 2 * took, period)):
                    await holds.renew(backend, hold, lease)
                break
            except Exception:
                if not failed:
                    _logger.exception(
                        "A hold could not be renewed in %s; it is tried again until it can", name_of(backend)
                    )
                failed, pause = True, min(period / 4, 1.0)
        if failed:
            _logger.warning("A hold has been renewed again in %s", name_of(backend))
        failed = False


async def _compare_clocks(backend: StateBackend, lease: timedelta) -> None:
    """Warn once if the clock of this host differs from that of the store by more than a third of a lease."""
    clocked = uncached(backend)
    if not isinstance(clocked, _ClockedBackend):
        return
    before = clock.now()
    try:
        with in_time(ANSWER_TIMEOUT):
            there = await clocked.now()
    except Exception:  # noqa: BLE001 -- the block goes on
        return
    halfway = (clock.now() - before) / 2
    ahead = before + halfway - there
    if abs(ahead) - halfway <= lease / _RENEWALS_PER_LEASE or key_of(backend) in _warned_of_clocks:
        return
    _warned_of_clocks.add(key_of(backend))
    _logger.warning(
        "The clock of this host is %.1f seconds %s that of %s, more than a lease of %g seconds bears: other hosts may "
        "take its holds for expired, or keep them too long. Leases and time windows go by the clock of each host: "
        "synchronize them",
        abs(ahead.total_seconds()),
        "ahead of" if ahead > timedelta() else "behind",
        name_of(clocked),
        lease.total_seconds(),
    )
