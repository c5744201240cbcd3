"""The context manager behind `maintenance_mode_on()` and `maintenance_mode_off()`."""

from __future__ import annotations

import inspect
import logging
import uuid
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace
from datetime import timedelta
from functools import wraps
from types import TracebackType
from typing import Any, TypeVar, cast

import anyio
from anyio.abc import TaskGroup
from typing_extensions import ParamSpec

from fastapi_maintenance._helpers import clock
from fastapi_maintenance._helpers.checks import check_seconds, reject
from fastapi_maintenance._switch import current_backend, holds
from fastapi_maintenance._switch.lease import compare_clocks, keep_renewing
from fastapi_maintenance.backends.url import as_backend, backend_from_url, close_if_made_here
from fastapi_maintenance.state import Hold
from fastapi_maintenance.typing import DetailedStateBackend, StateBackend

__all__ = ["Block"]

_CLOSE_TIMEOUT = 10.0  # seconds
_logger = logging.getLogger("fastapi_maintenance")
_P = ParamSpec("_P")
_T = TypeVar("_T")


class Block:
    """A hold for as long as a block runs; as a decorator of an async function, for as long as a call of it runs."""

    def __init__(
        self, backend: StateBackend | str | None, *, active: bool, message: str | None, lease: float | timedelta | None
    ) -> None:
        if backend is not None:
            as_backend("backend", backend)
        self._backend = backend
        self._wanted = Hold(id="not open", active=active, message=message)
        self._lease = None if lease is None else _checked_lease(lease)
        self._open: tuple[StateBackend, Hold] | None = None
        self._renewal: TaskGroup | None = None

    def __call__(self, function: Callable[_P, Awaitable[_T]]) -> Callable[_P, Coroutine[Any, Any, _T]]:
        """Decorate an async function: each call is a block of its own."""
        if not inspect.iscoroutinefunction(function):
            reject("the decorated function", "an async function", function)

        @wraps(function)
        async def held(*args: _P.args, **kwargs: _P.kwargs) -> _T:
            wanted = self._wanted
            async with Block(self._backend, active=wanted.active, message=wanted.message, lease=self._lease):
                return await function(*args, **kwargs)

        return held

    async def __aenter__(self) -> None:
        """Open the hold; raises what the store raises, and then holds nothing."""
        if self._open is not None:
            msg = "this block is open already: make one for each `async with`"
            raise RuntimeError(msg)
        meant = self._backend
        backend = backend_from_url(meant) if isinstance(meant, str) else current_backend.resolve(meant)
        holds.check_keeps(backend, message=self._wanted.message, lease=self._lease)
        hold = replace(self._wanted, id=uuid.uuid4().hex)
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
            self._renewal.start_soon(keep_renewing, backend, hold, self._lease, began)
            self._renewal.start_soon(compare_clocks, backend, self._lease)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the hold, however the block ended; raises what the store raises unless the block itself raised."""
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
            _logger.exception("A hold could not be taken out of %r", backend)
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
    seconds = check_seconds("lease", lease.total_seconds() if isinstance(lease, timedelta) else lease)
    try:
        duration = timedelta(seconds=seconds)
        clock.now() + duration
    except OverflowError:
        msg = f"lease must end before the year 10000, got {seconds!r} seconds"
        raise ValueError(msg) from None
    return duration
