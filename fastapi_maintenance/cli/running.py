"""Run another command while maintenance is on."""

from __future__ import annotations

import getpass
import logging
import os
import signal
import socket
import sys
from datetime import timedelta

import anyio

from fastapi_maintenance._helpers import clock
from fastapi_maintenance.backends.base import read_state
from fastapi_maintenance.backends.cached import uncached
from fastapi_maintenance.cli.drain import held_on
from fastapi_maintenance.cli.show import plain, tell, tell_error
from fastapi_maintenance.cli.times import shown_duration
from fastapi_maintenance.errors import ReadOnlyBackendError
from fastapi_maintenance.state import is_active
from fastapi_maintenance.typing import DetailedStateBackend, StateBackend

__all__ = ["OneLine", "author_of", "run_command", "run_held"]

_logger = logging.getLogger("fastapi_maintenance")


async def run_held(
    backend: StateBackend,
    command: list[str],
    *,
    by: str | None,
    message: str | None,
    lease: timedelta,
    drain: timedelta | None,
) -> int:
    """Run a command while a hold keeps maintenance on, and return its exit status; raises what the block raises.

    Of what goes wrong after the command has ended, a line is printed, and the exit status stays.
    """
    result = None
    detailed = isinstance(backend, DetailedStateBackend)
    try:
        async with held_on(
            backend, by=author_of(by, backend), message=message, lease=lease if detailed else None, drain=drain
        ):
            await _check_is_on(backend)
            _logger.addHandler(OneLine())
            result = await run_command(command)
    except Exception as error:
        if result is None:
            raise
        then = f"counts up to {shown_duration(lease)} longer" if detailed else "leaves the switch on"
        tell_error(f"the hold could not be released and {then}: {type(error).__name__}: {error}")
    return result or 0


def author_of(given: str | None, backend: StateBackend) -> str | None:
    """Return who acts: the name that is given, else user@host where the backend keeps it."""
    if given is not None or not isinstance(backend, DetailedStateBackend):
        return given
    host = socket.gethostname()
    try:
        return f"{getpass.getuser()}@{host}"
    except (OSError, KeyError, ImportError):  # the latter two before Python 3.13
        return host


async def _check_is_on(backend: StateBackend) -> None:
    """Refuse to go on if the store says off although a hold has just turned maintenance on."""
    try:
        state = await read_state(uncached(backend))
    except Exception:  # noqa: BLE001 -- the hold was written, which is enough
        return
    if not is_active(state, clock.now()):
        msg = f"{backend!r} is not on: it can only be read, or a newer block keeps it off"
        raise ReadOnlyBackendError(msg)


async def run_command(command: list[str]) -> int:
    """Run a command, pass signals on to it, and return its exit status as a shell does: 128 and the signal."""
    numbers = [signal.SIGTERM, signal.SIGHUP, signal.SIGINT] if os.name == "posix" else [signal.SIGINT]
    with anyio.open_signal_receiver(*numbers) as received:
        try:
            process = await anyio.open_process(command, stdin=None, stdout=None, stderr=None)
        except OSError as error:
            tell(f"{plain(command[0])}: {error.strerror}", stderr=True)
            return 127

        async def pass_on() -> None:
            async for number in received:
                if number != signal.SIGINT or not sys.stdin.isatty():  # a terminal sends it to the command itself
                    process.send_signal(number)

        async with anyio.create_task_group() as group:
            group.start_soon(pass_on)
            code = await process.wait()
            group.cancel_scope.cancel()
    return 128 - code if code < 0 else code


class OneLine(logging.Handler):
    """Print log records on standard error, one line each, without tracebacks."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print the record's message."""
        print(f"fastapi-maintenance: {record.getMessage()}", file=sys.stderr)  # noqa: T201 -- not of Rich: the command that runs owns the terminal
