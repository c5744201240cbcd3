"""The context manager behind `maintenance_mode_on()` and `maintenance_mode_off()`."""

import inspect
import uuid
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import ExitStack, nullcontext, suppress
from copy import copy
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial, wraps
from types import TracebackType
from typing import Any, ParamSpec, TypeVar, cast

import anyio

from fastapi_maintenance._helpers import background, clock
from fastapi_maintenance._helpers.checks import check_count, check_seconds, reject
from fastapi_maintenance._helpers.logs import get_logger
from fastapi_maintenance._helpers.waiting import cancellations
from fastapi_maintenance._switch import current_backend, holds
from fastapi_maintenance._switch.app_switch import start_brief_workers
from fastapi_maintenance._switch.drain import Drain, Progress
from fastapi_maintenance._switch.renewal import Renewal
from fastapi_maintenance._switch.requests import in_block
from fastapi_maintenance.backends.base import name_of
from fastapi_maintenance.backends.memory import MemoryBackend
from fastapi_maintenance.backends.url import as_backend, backend_from_url, close_if_made_here
from fastapi_maintenance.errors import NotSupportedError, ReadOnlyBackendError
from fastapi_maintenance.state import Hold, check_future
from fastapi_maintenance.typing import DetailedStateBackend, StateBackend

_CLOSE_TIMEOUT = 10.0  # seconds
_logger = get_logger()
_P = ParamSpec("_P")
_T = TypeVar("_T")


class MaintenanceBlock:
    """A hold while a block runs; as a decorator of an async function, while a call of it runs."""

    def __init__(  # noqa: PLR0913 -- each is a setting
        self,
        backend: StateBackend | str | None,
        *,
        on: bool,
        message: str | None = None,
        ends_at: datetime | None = None,
        lease: float | timedelta | None = None,
        drain: float | timedelta | None = None,
        workers: int | None = None,
        by: str | None = None,
        progress: Progress | None = None,
    ) -> None:
        checked = None if backend is None else as_backend("backend", backend)
        if isinstance(backend, str) and isinstance(checked, MemoryBackend):
            msg = "backend must not be the URL memory:, which is another switch each time; make a MemoryBackend"
            raise ValueError(msg)  # noqa: TRY004 -- the type is right
        self._backend = backend
        # Made to check the URL; the first use takes it.
        self._unused = [checked] if checked is not None and isinstance(backend, str) else []
        self._wanted = Hold(id="not open", on=on, message=message, ends_at=ends_at, by=by)
        check_future("ends_at", self._wanted.ends_at, clock.now())
        self._lease = None if lease is None else _checked_lease(lease)
        self._seconds = None if drain is None else check_seconds("drain", drain)
        if workers is not None and drain is None:
            msg = "workers needs drain: it says how many processes have to confirm"
            raise ValueError(msg)
        self._workers = 1 if workers is None else check_count("workers", workers)
        self._progress = progress
        if checked is not None:
            with suppress(NotSupportedError):  # raised when the block is entered
                self._drain_of(checked)
        self._within = ExitStack()
        self._is_entered = False
        self._open: tuple[StateBackend, Hold] | None = None
        self._renewal: Renewal | None = None
        self.is_released: bool = False
        """Whether its hold was released; False if that has failed."""
        self.lapsed_for: timedelta = timedelta()
        """How long its lease had run out, in total, when it was closed."""
        self.confirmed_by: int = 0
        """How many processes confirmed its drain."""

    def __call__(self, function: Callable[_P, Awaitable[_T]]) -> Callable[_P, Coroutine[Any, Any, _T]]:
        """Decorate an async function: each call is a block of its own."""
        if not inspect.iscoroutinefunction(function):
            reject("the decorated function", "an async function", function)

        @wraps(function)
        async def held(*args: _P.args, **kwargs: _P.kwargs) -> _T:
            block = copy(self)
            block._within, block._is_entered = ExitStack(), False  # noqa: SLF001 -- its own
            async with block:
                return await function(*args, **kwargs)

        return held

    async def __aenter__(self) -> None:
        """Open the hold. If the store raises, this tries to remove the hold, and raises the same."""
        if self._is_entered:
            msg = "this block is already open: make one for each `async with`"
            raise RuntimeError(msg)
        self._open, self._renewal = None, None
        self.is_released, self.confirmed_by, self.lapsed_for = False, 0, timedelta()
        if not isinstance(self._backend, str):
            backend = current_backend.resolve(self._backend)
        else:
            backend = self._unused.pop() if self._unused else backend_from_url(self._backend)
        wanted, self._is_entered = self._wanted, True
        try:
            details = {"message": wanted.message, "ends_at": wanted.ends_at, "lease": self._lease, "by": wanted.by}
            holds.check_keeps(backend, **details)
            drain = self._drain_of(backend)
            async with nullcontext() if drain is None else drain.begun(partial(start_brief_workers, backend)):
                hold = replace(wanted, id=uuid.uuid4().hex, since=clock.now())
                self._open = backend, hold
                self._within.enter_context(in_block(drains=drain is not None))  # before maintenance can be seen
                await self._acquire(backend, hold)
                if drain is not None:
                    await drain.wait(hold)
                    self.confirmed_by = drain.processes
        except BaseException as error:  # a write that was cancelled may have been made
            await (self._close_client(backend) if self._open is None else self.__aexit__(type(error), error, None))
            self._is_entered = False
            raise

    def _drain_of(self, backend: StateBackend) -> Drain | None:
        """Return the drain that was asked for, None if none was; raise if the backend does not support it."""
        if self._seconds is None:
            return None
        return Drain(backend, self._seconds, self._workers, self._progress)

    async def _acquire(self, backend: StateBackend, hold: Hold) -> None:
        stored = await holds.acquire(backend, hold, self._lease)
        if stored is not None and isinstance(backend, DetailedStateBackend):
            self._renewal = Renewal(backend, stored, self._lease)
            if stored.expires_at is not None and stored.expires_at <= clock.now():
                await self._renewal.put()
        elif stored is None and not current_backend.is_used_here(backend):
            msg = (
                f"{name_of(backend)} can only be read, and no middleware of this process is on it, so the block would "
                "close nothing: name the backend of the service, as in maintenance_mode_on(backend)"
            )
            raise ReadOnlyBackendError(msg)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Release the hold. If the store raises, raise the same, or log it if the block has raised."""
        backend, hold = cast("tuple[StateBackend, Hold]", self._open)
        renewal, self._open, self._renewal, self._is_entered = self._renewal, None, None, False
        if renewal is not None:
            renewal.stop()
            self.lapsed_for += renewal.lapsed_for
        try:
            cancellation = await _release(backend, hold, renewal)
        except Exception:
            if error is None:
                raise
            _logger.exception("A hold could not be removed from %s", name_of(backend))
        else:
            self.is_released = True
            if cancellation is not None:
                raise cancellation
        finally:
            try:
                await self._close_client(backend)
            finally:  # only now may a WebSocket be closed whose handler has opened this block
                self._within.close()

    async def _close_client(self, backend: StateBackend) -> None:
        if isinstance(self._backend, str):
            await close_if_made_here(backend)


async def _release(backend: StateBackend, hold: Hold, renewal: Renewal | None) -> BaseException | None:
    """Release the hold even if this is cancelled, since a cancelled block ends too; return the cancellation."""
    cancellation: BaseException | None = None
    before = -1
    while True:
        try:
            with anyio.CancelScope(shield=True), anyio.fail_after(_CLOSE_TIMEOUT):
                await holds.release(backend, hold)
                if renewal is not None:
                    await background.all_ended([renewal.task])  # a write in progress
        except anyio.get_cancelled_exc_class() as error:  # asyncio's own, as of `asyncio.timeout`, ignores shields
            if cancellations() == before:
                msg = "the store raised CancelledError, although its caller was not cancelled again"
                raise RuntimeError(msg) from error
            cancellation, before = error, cancellations()
        else:
            return cancellation


def _checked_lease(lease: float | timedelta) -> timedelta:
    seconds = check_seconds("lease", lease)
    try:
        duration = timedelta(seconds=seconds)
        clock.now() + duration
    except OverflowError:
        msg = f"lease must end before the year 10000, got {seconds!r} seconds"
        raise ValueError(msg) from None
    return duration
