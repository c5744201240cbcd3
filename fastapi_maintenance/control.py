"""The switch as application code sees it: read it, set it, plan windows, hold it for a block, and choose a backend.

Without `backend=` each of these acts on the app whose request or lifespan is running; outside any app on the backend
of the middleware made last; else on the one given to `configure_backend`; else on the environment variable
`FASTAPI_MAINTENANCE_MODE`.
"""

import math
import os
import uuid
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, aclosing, suppress
from datetime import datetime, timedelta
from typing import Literal, overload

from fastapi_maintenance._helpers import clock
from fastapi_maintenance._helpers.checks import check_bool, check_seconds, check_str
from fastapi_maintenance._helpers.waiting import guarded, in_time
from fastapi_maintenance._switch import current_backend, holds, reports
from fastapi_maintenance._switch.block import MaintenanceBlock
from fastapi_maintenance._switch.changes import changes
from fastapi_maintenance.backends.base import replacing
from fastapi_maintenance.backends.env import EnvVarBackend
from fastapi_maintenance.backends.file import LocalFileBackend
from fastapi_maintenance.backends.known import update_state
from fastapi_maintenance.backends.url import as_backend, backend_from_url, close_if_made_here, opened
from fastapi_maintenance.errors import NoSuchWindowError, WorkerStatus
from fastapi_maintenance.state import (
    MaintenanceState,
    MaintenanceStatus,
    Switch,
    Window,
    add_window,
    cancel_window,
    check_future,
    set_switch,
    stamped,
    status_of,
)
from fastapi_maintenance.typing import DetailedStateBackend, StateBackend

_READ_TIMEOUT = 5.0  # seconds

__all__ = [
    "cancel_maintenance",
    "configure_backend",
    "get_maintenance_mode",
    "get_maintenance_state",
    "get_maintenance_status",
    "get_workers",
    "maintenance_changes",
    "maintenance_mode_off",
    "maintenance_mode_on",
    "plan_maintenance",
    "release_hold",
    "set_maintenance_mode",
    "wait_until_open",
]


@overload
def configure_backend(backend: StateBackend | str) -> None: ...
@overload
def configure_backend(backend: Literal["env"], *, var_name: str | None = None) -> None: ...
@overload
def configure_backend(backend: Literal["file"], *, file_path: str | os.PathLike[str]) -> None: ...
def configure_backend(backend: StateBackend | str, **settings: object) -> None:
    """Choose the backend that is used wherever none is given.

    >>> configure_backend("file:maintenance.txt")

    Args:
        backend: The backend, or its URL for `backend_from_url`, or `"env"` or `"file"` with its settings.
        **settings: `var_name` for `"env"`, `file_path` for `"file"`.

    Raises:
        TypeError: `backend` is none of them, or the settings are not those of the backend.
        ValueError: The URL names no backend.
    """
    if backend == "env":
        current_backend.configure(EnvVarBackend(**settings))  # type: ignore[arg-type]  # wrong ones are refused there
    elif backend == "file":
        current_backend.configure(LocalFileBackend(**settings))  # type: ignore[arg-type]  # as above
    elif settings:
        msg = f"settings go with 'env' or 'file'; a backend is given whole, got {', '.join(sorted(settings))} too"
        raise TypeError(msg)
    else:
        current_backend.configure(as_backend("backend", backend))


async def get_maintenance_mode(backend: StateBackend | str | None = None) -> bool:
    """Return whether maintenance is on now.

    It must be awaited: `if get_maintenance_mode():` without `await` is always true, as any coroutine is, and reads
    nothing. Python warns that the coroutine "was never awaited", and mypy reports it as `truthy-bool`.

    >>> import asyncio
    >>> from fastapi_maintenance import MemoryBackend
    >>> asyncio.run(get_maintenance_mode(MemoryBackend(state=True)))
    True

    Raises:
        TypeError: `backend` is not a backend.
        Exception: Whatever the store raises.
    """
    return (await get_maintenance_status(backend)).active


async def get_maintenance_status(backend: StateBackend | str | None = None) -> MaintenanceStatus:
    """Return whether maintenance is on now, and why, by whom, since when and until when.

    >>> import asyncio
    >>> from fastapi_maintenance import MemoryBackend
    >>> asyncio.run(get_maintenance_status(MemoryBackend(state=True))).ends_at is None
    True

    Raises:
        TypeError: `backend` is not a backend.
        Exception: Whatever the store raises.
    """
    return status_of(await get_maintenance_state(backend), clock.now())


async def get_maintenance_state(backend: StateBackend | str | None = None) -> MaintenanceState:
    """Return the whole state: the switch, planned windows and open holds.

    >>> import asyncio
    >>> from fastapi_maintenance import MemoryBackend
    >>> asyncio.run(get_maintenance_state(MemoryBackend())).windows
    ()

    The holds of this process that the store lacks are included.

    Raises:
        TypeError: `backend` is not a backend.
        Exception: Whatever the store raises.
    """
    async with _current(backend) as meant:
        if not isinstance(meant, DetailedStateBackend):
            return await holds.bare_state(meant)
        return holds.with_local(meant, await guarded(meant.get_state()))


async def set_maintenance_mode(
    value: bool,  # noqa: FBT001 -- the spec's own signature
    backend: StateBackend | str | None = None,
    *,
    message: str | None = None,
    ends_at: datetime | None = None,
    by: str | None = None,
) -> None:
    """Set the operator's switch, and return when the store has it. Open holds go on.

    Switching off also ends the windows that are in force; later ones stay.

    >>> import asyncio
    >>> from fastapi_maintenance import MemoryBackend
    >>> switch = MemoryBackend()
    >>> asyncio.run(set_maintenance_mode(True, switch, message="Back at ten"))
    >>> asyncio.run(get_maintenance_status(switch)).message
    'Back at ten'

    Args:
        value: Whether maintenance is on. The message, end and author of the switch before are replaced.
        backend: The backend to write to, or its URL; None: the current app's backend, else the default.
        message: What to tell visitors.
        ends_at: An aware datetime in the future at which the switch ends; None: it stays until it is set again.
        by: Who sets it, in your own words, for operators. With any of these three, the time is kept too.

    Raises:
        TypeError: An argument is of the wrong type.
        ValueError: `ends_at` is naive or has passed, a message or an end is given for a switch that is set off, a text
            is longer than 4,096 characters, or the whole state would take more than 65,535 bytes as text.
        NotSupportedError: The backend has nothing but a switch, and was given a message, an end or `by`.
        ReadOnlyBackendError: The backend cannot be written.
        Exception: Whatever else the store raises.
    """
    switch = checked_switch(value, message=message, ends_at=ends_at, by=by)
    async with _current(backend) as meant:
        holds.check_keeps(meant, message=message, ends_at=ends_at, by=by)
        if isinstance(meant, DetailedStateBackend):
            await update_state(meant, replacing(lambda state: set_switch(state, switch, clock.now())))
        else:
            await holds.set_operator_value(meant, value)


def checked_switch(
    value: bool,  # noqa: FBT001 -- as above
    *,
    message: str | None = None,
    ends_at: datetime | None = None,
    by: str | None = None,
    name: str = "value",
) -> Switch:
    """Return the switch with these details; raises as `set_maintenance_mode` does."""
    check_bool(name, value)
    now = clock.now()
    switch = stamped(Switch(on=value, message=message, ends_at=ends_at, by=by), now)
    if not value and (message, ends_at) != (None, None):
        msg = f"message and ends_at go with {name}=True, got one of them with {name}=False"
        raise ValueError(msg)
    check_future("ends_at", switch.ends_at, now)
    return switch


async def plan_maintenance(
    starts_at: datetime,
    ends_at: datetime | None = None,
    backend: StateBackend | str | None = None,
    *,
    message: str | None = None,
    by: str | None = None,
) -> Window:
    """Plan a window in which maintenance will be on, and return it when the store has it. Nothing changes until then.

    >>> import asyncio
    >>> from datetime import UTC, datetime
    >>> from fastapi_maintenance import MemoryBackend
    >>> switch = MemoryBackend()
    >>> night = datetime(2100, 1, 1, 22, tzinfo=UTC), datetime(2100, 1, 2, 4, tzinfo=UTC)
    >>> window = asyncio.run(plan_maintenance(*night, switch, message="New database"))
    >>> asyncio.run(get_maintenance_status(switch)).next_window == window
    True

    Args:
        starts_at: An aware datetime in the future at which maintenance begins.
        ends_at: An aware datetime after `starts_at` at which it ends; None: until it is cancelled or switched off.
        backend: The backend to write to, or its URL; None: the current app's backend, else the default.
        message: What to tell visitors.
        by: Who plans it, in your own words, for operators. The time is kept too.

    Raises:
        TypeError: An argument is of the wrong type.
        ValueError: A datetime is naive, `starts_at` has passed, `ends_at` is not after it, a text is longer than 4,096
            characters, or the whole state would take more than 65,535 bytes as text.
        NotSupportedError: The backend has nothing but a switch.
        ReadOnlyBackendError: The backend cannot be written.
        Exception: Whatever else the store raises.
    """
    window = checked_window(starts_at, ends_at, message=message, by=by)
    async with _current(backend) as meant:
        detailed = holds.check_detailed(meant, "plan_maintenance()")
        await update_state(detailed, lambda state: add_window(state, window, clock.now()))
    return window


def checked_window(
    starts_at: datetime, ends_at: datetime | None = None, *, message: str | None = None, by: str | None = None
) -> Window:
    """Return a new window with these details; raises as `plan_maintenance` does."""
    window = Window(
        id=uuid.uuid4().hex, starts_at=starts_at, ends_at=ends_at, message=message, by=by, since=clock.now()
    )
    check_future("starts_at", window.starts_at, clock.now())
    return window


async def cancel_maintenance(window_id: str, backend: StateBackend | str | None = None) -> None:
    """Cancel a planned window; one that is in force ends at once.

    >>> async def cancel_the_next_one() -> None:
    ...     status = await get_maintenance_status()
    ...     if status.next_window is not None:
    ...         await cancel_maintenance(status.next_window.id)

    Args:
        window_id: The window's id.
        backend: The backend to write to, or its URL; None: the current app's backend, else the default.

    Raises:
        TypeError: An argument is of the wrong type.
        NoSuchWindowError: There is no window of that id.
        NotSupportedError: The backend has nothing but a switch.
        ReadOnlyBackendError: The backend cannot be written.
        Exception: Whatever else the store raises.
    """
    check_str("window_id", window_id)
    async with _current(backend) as meant:
        await remove_window(window_id, meant)


async def remove_window(window_id: str, backend: StateBackend, *, shortest: int | None = None) -> MaintenanceState:
    """Take a window out of the store, and return the state without it; raises as `cancel_maintenance` does.

    With `shortest`, so many characters of an id will do if no other begins so.
    """

    def change(state: MaintenanceState) -> MaintenanceState:
        now = clock.now()
        ids = [window.id for window in state.windows if window.ends_at is None or now < window.ends_at]
        found = holds.the_one_id(window_id, ids, shortest=shortest, kind="window", error=NoSuchWindowError)
        return cancel_window(state, found, now)

    return await update_state(holds.check_detailed(backend, "cancel_maintenance()"), change)


async def release_hold(hold_id: str, backend: StateBackend | str | None = None) -> None:
    """Release the hold of a block or a command that is gone, such as a job that died.

    >>> async def release_holds_of(job: str) -> None:
    ...     for hold in (await get_maintenance_state()).holds:
    ...         if hold.by == job:
    ...             await release_hold(hold.id)

    A job that still runs and renews its hold puts it back within two seconds.

    Args:
        hold_id: The hold's id.
        backend: The backend to write to, or its URL; None: the current app's backend, else the default.

    Raises:
        TypeError: An argument is of the wrong type.
        NoSuchHoldError: There is no hold of that id.
        NotSupportedError: The backend has nothing but a switch.
        ReadOnlyBackendError: The backend cannot be written.
        Exception: Whatever else the store raises.
    """
    check_str("hold_id", hold_id)
    async with _current(backend) as meant:
        await holds.remove_hold(hold_id, meant)


async def get_workers(backend: StateBackend | str | None = None) -> tuple[WorkerStatus, ...]:
    """Return what each worker behind a switch has reported of itself: a process that serves an app, in an event loop.

    >>> import asyncio
    >>> from fastapi_maintenance import MemoryBackend
    >>> asyncio.run(get_workers(MemoryBackend()))
    ()

    A worker reports each change, and signs in again each second. One that is killed stays in it until the store knows
    that it is gone: at once on a file and PostgreSQL, within five seconds on Redis.

    Args:
        backend: The switch, or its URL; None: the current app's backend, else the default.

    Raises:
        TypeError: `backend` is not a backend.
        NotSupportedError: The backend cannot count workers.
        Exception: Whatever the store raises.
    """
    async with _current(backend) as current:
        return await reports.get_workers(current)


def maintenance_mode_on(  # noqa: PLR0913 -- each is a detail of the hold
    backend: StateBackend | str | None = None,
    *,
    message: str | None = None,
    ends_at: datetime | None = None,
    lease: float | timedelta | None = None,
    drain: float | timedelta | None = None,
    workers: int | None = None,
    by: str | None = None,
) -> MaintenanceBlock:
    """Hold maintenance on for as long as a block runs.

    >>> async def migrate() -> None:
    ...     async with maintenance_mode_on(message="Back in ten minutes"):
    ...         ...

    The newest open hold decides, of whatever process. When the last one is released, the operator's switch and the
    planned windows apply again. So blocks may overlap, in one process and across hosts. It also decorates async
    functions. A block may be left in another task than the one that entered it. If its hold vanishes from the store
    while it runs, the hold is put back within two seconds, and that is logged. If a WebSocket's handler opens a block,
    maintenance does not close that WebSocket while the block is open.

    Args:
        backend: The backend, or its URL; None: the current app's backend where the block begins, else the default.
        message: What to tell visitors.
        ends_at: When you expect the block to end, an aware datetime in the future, for `Retry-After` and visitors. It
            ends nothing; after it, clients are asked to come back every 30 seconds.
        lease: Seconds, or a timedelta, after which the hold no longer counts in other processes unless it is renewed.
            While the block runs it is renewed after each third of that time, so that the hold of a process that died
            runs out. None: it counts until it is released. If it cannot be renewed, the block goes on and it is tried
            again and again; other processes stop counting the hold when its time is over. A record is logged when
            that begins, and when it ends. A lease that had run out, also because this process was stopped or its event
            loop blocked, is logged as a warning when it is renewed or released.
        drain: Seconds, or a timedelta, to wait on entering until no request that this switch blocks is in progress
            in any worker. Exempt requests, and the request that opens the block, are not waited for. None: the block
            begins at once, while requests from before may still run. At least two seconds, except on memory: so long
            a worker whose record was lost takes to write it again.
        workers: How many processes must have confirmed at least, with `drain`; None: one. 0: none has to be there, but
            those that are there are waited for. As many as your service has leaves no worker out.
        by: Who opens the block, in your own words, for operators. When it begins is kept too, in UTC.

    Raises:
        TypeError: An argument is of the wrong type.
        ValueError: `lease` or `drain` is not above zero, or `drain` is too short, `workers` is below zero or given
            without `drain`, `ends_at` is naive or has passed, a text is longer than 4,096 characters, or `backend` is
            the URL `memory:`, which is another switch each time.
        ReadOnlyBackendError: On entering, if the backend can only be read, such as an environment variable, and no
            middleware of this process is on it: the block would hold nothing.
        NotSupportedError: On entering, where the backend has nothing but a switch and is given more than that; or
            cannot tell who serves behind it and is given `drain`. Nothing has been changed then.
        DrainTimeoutError: On entering, if requests are in progress when the time of `drain` is over, or if it is not
            certain that there are none. The hold has been given back then, and the block does not run.
        NoWorkersError: On entering, if no worker serves behind the switch. It may not be the switch of the service, or
            its server runs no lifespan. The hold has been given back then, too.
        Exception: On entering and leaving, whatever the store raises. Where the block itself raised, that goes on,
            and what the store raised is logged.
    """
    return MaintenanceBlock(
        backend, on=True, message=message, ends_at=ends_at, lease=lease, drain=drain, workers=workers, by=by
    )


def maintenance_mode_off(
    backend: StateBackend | str | None = None,
    *,
    lease: float | timedelta | None = None,
    by: str | None = None,
) -> MaintenanceBlock:
    """Hold maintenance off for as long as a block runs; everything else is as for `maintenance_mode_on`.

    >>> async def answer_again() -> None:
    ...     async with maintenance_mode_off():
    ...         ...
    """
    return MaintenanceBlock(backend, on=False, lease=lease, by=by)


async def wait_until_open(
    backend: StateBackend | str | None = None,
    *,
    timeout: float | timedelta | None = None,  # noqa: ASYNC109 -- the name is part of the API
) -> None:
    """Wait while maintenance is on; return at once if it is off. For consumers and jobs, before they take work.

    >>> import asyncio
    >>> from fastapi_maintenance import MemoryBackend
    >>> asyncio.run(wait_until_open(MemoryBackend()))

    While the store cannot be read, the last known state counts; if none is known, this waits until one is. However many
    callers wait in an event loop, one connection watches for all of them.

    Args:
        backend: The switch, or its URL; None: the current app's backend, else the default.
        timeout: Seconds, or a timedelta, to wait at most; None: as long as it takes.

    Raises:
        TypeError: An argument is of the wrong type.
        ValueError: `timeout` is not above zero.
        TimeoutError: Maintenance is still on, or its state is not known yet, when the time is over.
    """
    seconds = math.inf if timeout is None else check_seconds("timeout", timeout)
    text = "maintenance is still on, or its state is unknown, after {:g} seconds"
    async with _current(backend) as current:
        with in_time(seconds, text):
            with suppress(Exception), in_time(_READ_TIMEOUT):
                if not (await get_maintenance_status(current)).active:
                    return
            async with aclosing(changes(current)) as statuses:
                async for status in statuses:
                    if not status.active:
                        return


async def maintenance_changes(backend: StateBackend | str | None = None) -> AsyncGenerator[MaintenanceStatus]:
    """Yield the status as soon as it is known, then each time that it changes.

    The beginning and the end of windows and the expiry of leases are reported to the moment; the renewal of a lease is
    not a change. Changes are pushed by a backend that can be watched; any other is read once a second. While the store
    cannot be read the last known state is used, which is logged when it begins and when it ends; if none is known,
    nothing is yielded.

    >>> async def end_streams() -> None:
    ...     async for status in maintenance_changes():
    ...         if status.active:
    ...             ...

    Args:
        backend: The switch, or its URL; None: the current app's backend, else the default.

    Raises:
        TypeError: `backend` is not a backend.
    """
    current = backend_from_url(backend) if isinstance(backend, str) else current_backend.resolve(backend)
    try:
        async with aclosing(changes(current)) as statuses:
            async for status in statuses:
                yield status
    finally:
        if isinstance(backend, str):
            await close_if_made_here(current)


def _current(backend: StateBackend | str | None) -> AbstractAsyncContextManager[StateBackend]:
    return opened(backend if isinstance(backend, str) else current_backend.resolve(backend))
