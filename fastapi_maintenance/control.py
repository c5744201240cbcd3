"""The switch as application code sees it: read it, set it, plan windows, hold it for a block, and choose a backend.

Without `backend=`, each function uses the backend of the app whose request or lifespan is running. Outside an app it
uses that of the newest middleware, else the one given to `configure_backend`, else the environment variable
`FASTAPI_MAINTENANCE_MODE`. `_switch/current_backend.py` decides which; `_switch/block.py` has the blocks.
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
from fastapi_maintenance._switch.status_changes import changes
from fastapi_maintenance.backends.base import read_state, replacing
from fastapi_maintenance.backends.env import EnvVarBackend
from fastapi_maintenance.backends.file import LocalFileBackend
from fastapi_maintenance.backends.last_known import update_state
from fastapi_maintenance.backends.url import as_backend, opened
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
    """Choose the default backend, for code outside any app with a middleware.

    >>> configure_backend("file:maintenance.txt")

    Args:
        backend: A backend, its URL for `backend_from_url`, or `"env"` or `"file"` with its settings.
        **settings: `var_name` for `"env"`, `file_path` for `"file"`.

    Raises:
        TypeError: `backend` is not one of these, or the settings do not fit it.
        ValueError: `backend` is not a valid URL of a backend.
    """
    kind = backend if isinstance(backend, str) else None  # a backend may compare itself with anything
    if kind == "env":
        current_backend.configure(EnvVarBackend(**settings))  # type: ignore[arg-type]  # EnvVarBackend refuses wrong ones
    elif kind == "file":
        current_backend.configure(LocalFileBackend(**settings))  # type: ignore[arg-type]  # as above
    elif settings:
        msg = f"settings go with 'env' or 'file' only, got {', '.join(sorted(settings))} too"
        raise TypeError(msg)
    else:
        current_backend.configure(as_backend("backend", backend))


async def get_maintenance_mode(backend: StateBackend | str | None = None) -> bool:
    """Return whether maintenance is on now.

    Do not forget `await`: `if get_maintenance_mode():` is always true, as for any coroutine. Python warns that the
    coroutine "was never awaited", and mypy reports `truthy-bool`.

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
    """Return whether maintenance is on now, with its message, author, start and expected end.

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

    It includes holds of this process that the store lacks.

    Raises:
        TypeError: `backend` is not a backend.
        Exception: Whatever the store raises.
    """
    async with _current(backend) as current:
        if not isinstance(current, DetailedStateBackend):
            return await holds.bare_state(current)
        return holds.with_local(current, await guarded(read_state(current)))


async def set_maintenance_mode(
    value: bool,  # noqa: FBT001 -- the spec's own signature
    backend: StateBackend | str | None = None,
    *,
    message: str | None = None,
    ends_at: datetime | None = None,
    by: str | None = None,
) -> None:
    """Set the operator's switch, and return when it is stored. Open holds are kept.

    Switching off also ends the windows in force; later windows stay planned.

    >>> import asyncio
    >>> from fastapi_maintenance import MemoryBackend
    >>> switch = MemoryBackend()
    >>> asyncio.run(set_maintenance_mode(True, switch, message="Back at ten"))
    >>> asyncio.run(get_maintenance_status(switch)).message
    'Back at ten'

    Args:
        value: Whether maintenance is on. This replaces the previous message, end and author.
        backend: The backend to write to, or its URL; None: the current app's backend, else the default.
        message: The message for visitors.
        ends_at: When the switch ends, an aware datetime in the future; None: when it is set again.
        by: Who sets it, for operators. With any of these three, the time is stored too.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: `ends_at` is naive or has passed, `message` or `ends_at` is given with `value=False`, a text is
            longer than 4,096 characters, or the whole state would take more than 65,535 bytes as text.
        NotSupportedError: The backend stores only a bool, and a message, an end or an author is given.
        ReadOnlyBackendError: The backend is read-only.
        Exception: Whatever else the store raises.
    """
    switch = checked_switch(value, message=message, ends_at=ends_at, by=by)
    async with _current(backend) as current:
        holds.check_keeps(current, message=message, ends_at=ends_at, by=by)
        if isinstance(current, DetailedStateBackend):
            await update_state(current, replacing(lambda state: set_switch(state, switch, clock.now())))
        else:
            await holds.set_operator_value(current, value)


def checked_switch(
    value: bool,  # noqa: FBT001 -- as above
    *,
    message: str | None = None,
    ends_at: datetime | None = None,
    by: str | None = None,
    name: str = "value",
) -> Switch:
    """Return the switch with these details, or raise as `set_maintenance_mode` does."""
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
    """Plan a window in which maintenance will be on, and return it when it is stored.

    >>> import asyncio
    >>> from datetime import UTC, datetime
    >>> from fastapi_maintenance import MemoryBackend
    >>> switch = MemoryBackend()
    >>> night = datetime(2100, 1, 1, 22, tzinfo=UTC), datetime(2100, 1, 2, 4, tzinfo=UTC)
    >>> window = asyncio.run(plan_maintenance(*night, switch, message="New database"))
    >>> asyncio.run(get_maintenance_status(switch)).next_window == window
    True

    Args:
        starts_at: When maintenance begins, an aware datetime in the future.
        ends_at: When it ends, an aware datetime after `starts_at`; None: when it is cancelled or switched off.
        backend: The backend to write to, or its URL; None: the current app's backend, else the default.
        message: The message for visitors.
        by: Who plans it, for operators. The time is stored too.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: A datetime is naive, `starts_at` has passed, `ends_at` is not after it, a text is longer than 4,096
            characters, or the whole state would take more than 65,535 bytes as text.
        NotSupportedError: The backend stores only a bool.
        ReadOnlyBackendError: The backend is read-only.
        Exception: Whatever else the store raises.
    """
    window = checked_window(starts_at, ends_at, message=message, by=by)
    async with _current(backend) as current:
        detailed = holds.check_detailed(current, "plan_maintenance()")
        await update_state(detailed, lambda state: add_window(state, window, clock.now()))
    return window


def checked_window(
    starts_at: datetime, ends_at: datetime | None = None, *, message: str | None = None, by: str | None = None
) -> Window:
    """Return a new window with these details, or raise as `plan_maintenance` does."""
    window = Window(
        id=uuid.uuid4().hex, starts_at=starts_at, ends_at=ends_at, message=message, by=by, since=clock.now()
    )
    check_future("starts_at", window.starts_at, clock.now())
    return window


async def cancel_maintenance(window_id: str, backend: StateBackend | str | None = None) -> None:
    """Cancel a planned window, or end one in force at once.

    >>> async def cancel_next_window() -> None:
    ...     status = await get_maintenance_status()
    ...     if status.next_window is not None:
    ...         await cancel_maintenance(status.next_window.id)

    Args:
        window_id: The window's id.
        backend: The backend to write to, or its URL; None: the current app's backend, else the default.

    Raises:
        TypeError: An argument has the wrong type.
        NoSuchWindowError: No window has this id.
        NotSupportedError: The backend stores only a bool.
        ReadOnlyBackendError: The backend is read-only.
        Exception: Whatever else the store raises.
    """
    check_str("window_id", window_id)
    async with _current(backend) as current:
        await remove_window(window_id, current)


async def remove_window(window_id: str, backend: StateBackend, *, shortest: int | None = None) -> MaintenanceState:
    """Remove a window from the store and return the new state, or raise as `cancel_maintenance` does.

    With `shortest`, the first characters of an id are enough, at least that many, if no other id begins with them.
    """
    found = ""

    def change(state: MaintenanceState) -> MaintenanceState:
        nonlocal found
        now = clock.now()
        ids = [window.id for window in state.windows if window.ends_at is None or now < window.ends_at]
        # If the reply to an earlier attempt was lost, that one may have removed it.
        found = found or holds.the_one_id(window_id, ids, shortest=shortest, kind="window", error=NoSuchWindowError)
        return cancel_window(state, found, now)

    return await update_state(holds.check_detailed(backend, "cancel_maintenance()"), change)


async def release_hold(hold_id: str, backend: StateBackend | str | None = None) -> None:
    """Release the hold of a block or command that no longer runs, such as a job that died.

    >>> async def release_holds_of(job: str) -> None:
    ...     for hold in (await get_maintenance_state()).holds:
    ...         if hold.by == job:
    ...             await release_hold(hold.id)

    A running job that renews its hold puts it back within two seconds.

    Args:
        hold_id: The hold's id.
        backend: The backend to write to, or its URL; None: the current app's backend, else the default.

    Raises:
        TypeError: An argument has the wrong type.
        NoSuchHoldError: No hold has this id.
        NotSupportedError: The backend stores only a bool.
        ReadOnlyBackendError: The backend is read-only.
        Exception: Whatever else the store raises.
    """
    check_str("hold_id", hold_id)
    async with _current(backend) as current:
        await holds.remove_hold(hold_id, current)


async def get_workers(backend: StateBackend | str | None = None) -> tuple[WorkerStatus, ...]:
    """Return the last report of each worker behind a switch: a process that serves an app, in an event loop.

    >>> import asyncio
    >>> from fastapi_maintenance import MemoryBackend
    >>> asyncio.run(get_workers(MemoryBackend()))
    ()

    A worker reports each change, and checks its report every second. The report of a killed worker is kept until the
    store notices: at once on a file and PostgreSQL, within five seconds on Redis.

    Args:
        backend: The switch, or its URL; None: the current app's backend, else the default.

    Raises:
        TypeError: `backend` is not a backend.
        NotSupportedError: The backend cannot list workers.
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
    """Hold maintenance on while a block runs. It also decorates async functions.

    >>> async def migrate() -> None:
    ...     async with maintenance_mode_on(message="Back in ten minutes"):
    ...         ...

    Blocks may overlap, in one process and across hosts: the newest open hold decides. When the last one is released,
    the operator's switch and the planned windows apply again. One task may enter a block and another leave it. If the
    hold vanishes from the store while the block runs, it is put back within two seconds, which is logged. A WebSocket
    whose handler opens a block stays open while the block runs.

    Args:
        backend: The backend, or its URL; None: the current app's backend when the block begins, else the default.
        message: The message for visitors.
        ends_at: When you expect the block to end, an aware datetime in the future, for `Retry-After` and visitors. It
            ends nothing. After it has passed, clients are asked to retry every 30 seconds.
        lease: Seconds, or a timedelta, after which other processes ignore the hold unless it is renewed, so that the
            hold of a dead process expires. The block renews it each third of that time, and retries if that fails; the
            first failure and the recovery are logged. A lease that expired although the block was running, because the
            process was stopped or its event loop blocked, is logged as a warning. None: the hold counts until it is
            released.
        drain: Seconds, or a timedelta, to wait on entering until no request that this switch blocks is in progress in
            any worker. Exempt requests and the request that opens the block are not waited for. At least two seconds
            except on memory, the time in which a worker rewrites a lost record. None: the block begins at once, while
            earlier requests may still run.
        workers: With `drain`, how many processes must confirm at least; None: one. 0: none is required, but running
            ones are waited for. Pass the number of your workers to be sure that none is missed.
        by: Who opens the block, for operators. The time is stored too.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: `lease` or `drain` is not above zero, `drain` is too short, `workers` is below zero or given
            without `drain`, `ends_at` is naive or has passed, a text is longer than 4,096 characters, or `backend` is
            the URL `memory:`, which is a new switch each time.
        ReadOnlyBackendError: On entering, if the backend is read-only, such as an environment variable, and no
            middleware in this process uses it: the block would hold nothing.
        NotSupportedError: On entering, before anything is changed, if the backend stores only a bool and more is
            given, or if it cannot list workers and `drain` is given.
        DrainTimeoutError: On entering, if requests are still in progress when `drain` is over, or may be. The hold has
            been released, and the block does not run.
        NoWorkersError: On entering, if the switch has no worker: it may not be the switch of the service, or its
            server runs no lifespan. The hold has been released, and the block does not run.
        Exception: On entering and leaving, whatever the store raises. If the block itself raised, its exception is
            raised and that of the store is logged.
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
    """Hold maintenance off while a block runs; everything else is as for `maintenance_mode_on`.

    >>> async def respond_again() -> None:
    ...     async with maintenance_mode_off():
    ...         ...
    """
    return MaintenanceBlock(backend, on=False, lease=lease, by=by)


async def wait_until_open(
    backend: StateBackend | str | None = None,
    *,
    timeout: float | timedelta | None = None,  # noqa: ASYNC109 -- the name is part of the API
) -> None:
    """Wait while maintenance is on, or return at once if it is off. For consumers and jobs, before they take work.

    >>> import asyncio
    >>> from fastapi_maintenance import MemoryBackend
    >>> asyncio.run(wait_until_open(MemoryBackend()))

    While the store cannot be read, the last known state counts; if there is none, this waits until the state is known.
    All callers in an event loop share one connection.

    Args:
        backend: The switch, or its URL; None: the current app's backend, else the default.
        timeout: The most seconds to wait, or a timedelta; None: no limit.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: `timeout` is not above zero.
        TimeoutError: After `timeout`, maintenance is still on, or its state unknown.
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
    """Yield the status as soon as it is known, then after each change.

    >>> async def end_streams() -> None:
    ...     async for status in maintenance_changes():
    ...         if status.active:
    ...             ...

    The start and end of windows and the expiry of leases are yielded when they happen; the renewal of a lease is not a
    change. A backend that can be watched pushes changes; any other is read once a second. While the store cannot be
    read, the last known state counts; when this begins and ends is logged.

    Args:
        backend: The switch, or its URL; None: the current app's backend, else the default.

    Raises:
        TypeError: `backend` is not a backend.
    """
    async with _current(backend) as current, aclosing(changes(current)) as statuses:
        async for status in statuses:
            yield status


def _current(backend: StateBackend | str | None) -> AbstractAsyncContextManager[StateBackend]:
    return opened(backend if isinstance(backend, str) else current_backend.resolve(backend))
