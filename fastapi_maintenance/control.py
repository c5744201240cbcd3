"""The switch as application code sees it: read it, set it, hold it for a block, and say which backend is meant.

Without `backend=` each of these acts on the app whose request or lifespan is running; outside any app on the backend
of the middleware made last; else on the one given to `configure_backend`; else on the environment variable
`FASTAPI_MAINTENANCE_MODE`.
"""

import math
import os
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Literal, overload

from fastapi_maintenance._helpers import clock
from fastapi_maintenance._helpers.checks import check_bool, check_seconds
from fastapi_maintenance._helpers.waiting import in_time
from fastapi_maintenance._switch import current_backend, holds
from fastapi_maintenance._switch.block import Block
from fastapi_maintenance._switch.changes import changes
from fastapi_maintenance._switch.writes import update_state
from fastapi_maintenance.backends.base import replacing
from fastapi_maintenance.backends.env import EnvVarBackend
from fastapi_maintenance.backends.file import LocalFileBackend
from fastapi_maintenance.backends.url import as_backend, opened
from fastapi_maintenance.state import MaintenanceState, is_active
from fastapi_maintenance.typing import DetailedStateBackend, StateBackend

__all__ = [
    "configure_backend",
    "get_maintenance_mode",
    "get_maintenance_state",
    "maintenance_changes",
    "maintenance_mode_off",
    "maintenance_mode_on",
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
    """Tell whether there is maintenance now: by the newest hold of this process, else by the backend's state.

    >>> import asyncio
    >>> from fastapi_maintenance import MemoryBackend
    >>> asyncio.run(get_maintenance_mode(MemoryBackend(state=True)))
    True

    Raises:
        TypeError: `backend` is no backend.
        Exception: Whatever the store raises.
    """
    async with _meant(backend) as meant:
        hold = holds.newest(meant)
        if hold is not None:
            return hold.active
        return is_active(await get_maintenance_state(meant), clock.now())


async def get_maintenance_state(backend: StateBackend | str | None = None) -> MaintenanceState:
    """Return the whole state: switch, message, window and open holds.

    >>> import asyncio
    >>> from fastapi_maintenance import MemoryBackend
    >>> asyncio.run(get_maintenance_state(MemoryBackend())).message is None
    True

    Of a backend with nothing but a switch it holds that, and the holds of this process.

    Raises:
        TypeError: `backend` is no backend.
        Exception: Whatever the store raises.
    """
    async with _meant(backend) as meant:
        if not isinstance(meant, DetailedStateBackend):
            return await holds.bare_state(meant)
        return holds.with_local(meant, await meant.get_state())


async def set_maintenance_mode(  # noqa: PLR0913 -- each is something to say of it
    value: bool,  # noqa: FBT001 -- the spec's own signature
    backend: StateBackend | str | None = None,
    *,
    message: str | None = None,
    starts_at: datetime | None = None,
    ends_at: datetime | None = None,
    by: str | None = None,
) -> None:
    """Set the operator's switch, and return when the store has it. Open holds go on.

    >>> import asyncio
    >>> from fastapi_maintenance import MemoryBackend
    >>> switch = MemoryBackend()
    >>> asyncio.run(set_maintenance_mode(True, switch, message="Back at ten"))
    >>> asyncio.run(get_maintenance_state(switch)).message
    'Back at ten'

    Args:
        value: True: maintenance; False: none. What was set before, message and window included, is replaced.
        backend: The backend to write to, or its URL; None: the one that is meant here.
        message: What to tell those who are locked out.
        starts_at: An aware datetime from which the switch counts; None: it counts at once.
        ends_at: An aware datetime in the future from which it counts no longer; None: until it is set again.
        by: Who sets it, in your own words, for operators. When it is set on is kept too, in UTC.

    Raises:
        TypeError: An argument is of the wrong type.
        ValueError: A datetime is naive, `ends_at` has passed or is not after `starts_at`, there is a message or a
            window for a switch that is set off, a text is longer than 4,096 characters, or the state with all its
            holds would take more than 65,535 bytes as text.
        NotSupportedError: The backend has nothing but a switch, and was given a message, a window or `by`.
        ReadOnlyBackendError: The backend cannot be written.
        Exception: Whatever else the store raises.
    """
    wanted = checked_switch(value, message=message, starts_at=starts_at, ends_at=ends_at, by=by)
    async with _meant(backend) as meant:
        holds.check_keeps(meant, message=message, starts_at=starts_at, ends_at=ends_at, by=by)
        if isinstance(meant, DetailedStateBackend):
            await update_state(meant, replacing(lambda state: replace(wanted, holds=state.holds)))
        else:
            await holds.set_operator_value(meant, value)


def checked_switch(  # noqa: PLR0913 -- as above
    value: bool,  # noqa: FBT001 -- as above
    *,
    message: str | None,
    starts_at: datetime | None,
    ends_at: datetime | None,
    by: str | None = None,
    name: str = "value",
) -> MaintenanceState:
    """Return the operator's switch with what it is to be set to; raises as `set_maintenance_mode` does."""
    check_bool(name, value)
    now = clock.now()
    wanted = MaintenanceState(
        active=value, message=message, starts_at=starts_at, ends_at=ends_at, by=by, since=now if value or by else None
    )
    if not value and (message, starts_at, ends_at) != (None, None, None):
        msg = f"message, starts_at and ends_at go with {name}=True, got one of them with {name}=False"
        raise ValueError(msg)
    if wanted.ends_at is not None and wanted.ends_at <= now:
        msg = f"ends_at must be in the future, got {wanted.ends_at.isoformat()}"
        raise ValueError(msg)
    return wanted


def maintenance_mode_on(
    backend: StateBackend | str | None = None,
    *,
    message: str | None = None,
    lease: float | timedelta | None = None,
    drain: float | timedelta | None = None,
    by: str | None = None,
) -> Block:
    """Hold maintenance on for as long as a block runs.

    >>> async def migrate() -> None:
    ...     async with maintenance_mode_on(message="Back in ten minutes"):
    ...         ...

    The newest open hold decides; in a process that has holds of its own, the newest of those. When the last one is
    gone, the operator's switch counts again, as it is by then. So blocks may overlap, in one process and across hosts.
    It also decorates async functions.

    Args:
        backend: The backend, or its URL; None: the one that is meant where the block begins.
        message: What to tell those who are locked out.
        lease: Seconds, or a timedelta, after which the hold no longer counts in other processes unless it is renewed.
            It is renewed three times as often while the block runs, so only the hold of a process that died runs
            out. None: it counts until it is released. Where it cannot be renewed, the block goes on and it is tried
            again and again; other processes stop counting the hold when its time is over. A record is logged when
            that begins, and when it ends.
        drain: Seconds, or a timedelta, to wait on entering until no request that this switch blocks is in progress
            in any worker. Exempt requests, and the request that opens the block, are not waited for. None: the block
            begins at once, while requests from before may still run.
        by: Who opens the block, in your own words, for operators. When it begins is kept too, in UTC.

    Raises:
        TypeError: An argument is of the wrong type.
        ValueError: `lease` or `drain` is not above zero, or a text is longer than 4,096 characters.
        NotSupportedError: On entering, where the backend has nothing but a switch and is given more than that; or
            cannot tell who serves behind it and is given `drain`. Nothing has been changed then.
        DrainTimeoutError: On entering, where requests are in progress when the time of `drain` is over. The hold has
            been given back then, and the block does not run.
        Exception: On entering and leaving, whatever the store raises. Where the block itself raised, that goes on,
            and what the store raised is logged.
    """
    return Block(backend, active=True, message=message, lease=lease, drain=drain, by=by)


def maintenance_mode_off(
    backend: StateBackend | str | None = None,
    *,
    lease: float | timedelta | None = None,
    by: str | None = None,
) -> Block:
    """Hold maintenance off for as long as a block runs; everything else is as for `maintenance_mode_on`.

    >>> async def answer_again() -> None:
    ...     async with maintenance_mode_off():
    ...         ...
    """
    return Block(backend, active=False, lease=lease, by=by)


async def wait_until_open(backend: StateBackend | str | None = None, *, timeout: float | None = None) -> None:  # noqa: ASYNC109 -- the name is part of the API
    """Wait while maintenance is on; return at once where it is off. For consumers and jobs, before they take work.

    >>> import asyncio
    >>> from fastapi_maintenance import MemoryBackend
    >>> asyncio.run(wait_until_open(MemoryBackend()))

    A store that cannot be read leaves the last known state, off where none is known. However many wait in a process,
    one connection watches for all of them.

    Args:
        backend: The switch, or its URL; None: the one that is meant here.
        timeout: Seconds to wait at most; None: as long as it takes.

    Raises:
        TypeError: An argument is of the wrong type.
        ValueError: `timeout` is not above zero.
        TimeoutError: Maintenance is still on when the time is over.
    """
    seconds = math.inf if timeout is None else check_seconds("timeout", timeout)
    with in_time(seconds, "maintenance is still on after {:g} seconds"):
        async with aclosing(maintenance_changes(backend)) as states:
            async for state in states:
                if not is_active(state, clock.now()):
                    return


async def maintenance_changes(backend: StateBackend | str | None = None) -> AsyncGenerator[MaintenanceState, None]:
    """Yield the state at once, then each time that something else counts.

    The beginning and the end of windows and the expiry of leases are told to the moment; the renewal of a lease is no
    change. Changes are pushed by a backend that can be watched; any other is read once a second. A store that cannot be
    read leaves the last known state, and is logged when that begins and when it ends.

    >>> async def end_streams() -> None:
    ...     async for state in maintenance_changes():
    ...         ...

    Args:
        backend: The switch, or its URL; None: the one that is meant here.

    Raises:
        TypeError: `backend` is no backend.
    """
    async with _meant(backend) as meant, aclosing(changes(meant)) as states:
        async for state in states:
            yield state


def _meant(backend: StateBackend | str | None) -> AbstractAsyncContextManager[StateBackend]:
    return opened(backend if isinstance(backend, str) else current_backend.resolve(backend))
