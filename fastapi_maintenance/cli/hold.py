"""Hold maintenance on: while requests in progress end, and while another command runs."""

import errno
import math
import os
import shutil
import signal
import sys
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from datetime import timedelta
from functools import partial
from typing import Any

import anyio
import typer
from rich.console import Console

from fastapi_maintenance._helpers import clock
from fastapi_maintenance._switch.block import MaintenanceBlock
from fastapi_maintenance._switch.drain import Progress
from fastapi_maintenance.backends.base import name_of, read_state
from fastapi_maintenance.backends.known import uncached
from fastapi_maintenance.cli.show import counted, in_progress, plain, tell, tell_error
from fastapi_maintenance.cli.switch import fail
from fastapi_maintenance.cli.times import shown_duration
from fastapi_maintenance.cli.workers import say_who_has_it
from fastapi_maintenance.errors import DrainTimeoutError, NoWorkersError, WorkerStatus
from fastapi_maintenance.state import status_of
from fastapi_maintenance.typing import DetailedStateBackend, StateBackend

_FIRST_LINE = 0.5  # seconds; most drains have ended by then, and workers have reported
_TIMED_OUT = 75  # an exit status; EX_TEMPFAIL of sysexits.h: the same may succeed later
_LAPSED = 76  # an exit status
_NOT_EXECUTABLE, _NOT_FOUND = 126, 127  # exit statuses, those of shells (POSIX, XCU 2.8.2)
LEASE: timedelta = timedelta(seconds=30)
_PAUSE = 5.0  # seconds, between two lines of a log


@contextmanager
def shown_progress() -> Iterator[Progress]:
    """Give a function that shows progress: as one line that changes in a terminal, as a line now and then in a log."""
    console = Console(stderr=True, highlight=False, emoji=False)
    status = console.status("")
    said: tuple[int, int] | None = None
    say_from = time.monotonic() + _FIRST_LINE

    def tell_progress(workers: Sequence[WorkerStatus], seconds: float) -> None:
        nonlocal said, say_from
        what = f"waiting for {in_progress(workers)}" if workers else "checking that no worker is missing"
        text = f"{what}; {math.ceil(seconds)} s left"
        numbers = sum(one.requests or 0 for one in workers), len(workers)
        if console.is_interactive and console.file.isatty():
            status.update(text)
            status.start()
        elif numbers != said and time.monotonic() >= say_from:
            said, say_from = numbers, time.monotonic() + _PAUSE
            tell(text, stderr=True)

    try:
        yield tell_progress
    finally:
        status.stop()


@asynccontextmanager
async def drained(
    backend: StateBackend,
    name: str,
    hold: dict[str, Any],
    otherwise: str,
    begins: Callable[[], object] = lambda: None,
) -> AsyncGenerator[MaintenanceBlock]:
    """Hold maintenance on while a block runs, drained first if that is wanted; raises what the block raises.

    If it cannot be drained, the exit status of the command is 75.

    Args:
        backend: The switch.
        name: Its name.
        hold: The details of the block.
        otherwise: What to print if it is not drained, or interrupted, and its hold was given back.
        begins: Called when maintenance has begun, before it is drained.
    """
    has_begun = False

    def show(workers: Sequence[WorkerStatus], seconds: float) -> None:
        nonlocal has_begun
        if not has_begun:
            begins()
        has_begun = True
        progress(workers, seconds)

    block = MaintenanceBlock(backend, on=True, progress=show, **hold)
    began = anyio.current_time()
    async with AsyncExitStack() as stack:
        try:
            with shown_progress() as progress:
                await stack.enter_async_context(block)
        except (DrainTimeoutError, NoWorkersError) as error:
            tell_error(str(error).replace(name_of(backend), name).replace("workers=0", "--workers 0"))
            _say_otherwise(block, otherwise)
            raise typer.Exit(_TIMED_OUT) from None
        except (anyio.get_cancelled_exc_class(), SystemExit):  # Ctrl-C, and other signals
            _say_otherwise(block, f"interrupted; {otherwise}")
            raise
        if hold["drain"] is not None:
            if not has_begun:
                begins()
            who = counted(block.confirmed_by, "process", "processes")
            tell(f"drained after {anyio.current_time() - began:.1f} s, confirmed by {who}", stderr=True)
        yield block


def _say_otherwise(block: MaintenanceBlock, text: str) -> None:
    if block.is_given_back:  # else the log says that it could not be
        tell(text, stderr=True)


async def run_held(command: list[str], hold: dict[str, Any], backend: StateBackend, name: str) -> int:
    """Run a command while a hold keeps maintenance on, and return its exit status; raises what the block raises.

    If the hold lapsed while the command ran, the status is 76 unless the command itself has failed. What goes wrong
    after the command has ended is printed, and the exit status stays.
    """
    result, block = None, None
    detailed = isinstance(backend, DetailedStateBackend)
    hold = {**hold, "lease": hold["lease"] or (LEASE if detailed else None)}
    began = clock.now()
    otherwise = "the hold was given back, and the command was not started"
    begins = partial(tell, "maintenance begins", stderr=True)
    try:
        async with drained(backend, name, hold, otherwise, begins) as block:
            state = None
            with suppress(Exception):  # the hold was written, which is enough
                state = await read_state(uncached(backend))
            if state is not None and not status_of(state, clock.now()).active:
                fail(f"{backend!r} is not on: it can only be read, or a newer block keeps it off", status=1)
            if hold["drain"] is None:
                begins()
            if state is not None and not block.confirmed_by:
                await say_who_has_it(state, name, backend)
            result = await run_command(command)
        await _say_end(backend, clock.now() - began)
    except Exception as error:
        if result is None:
            raise
        then = f"counts up to {shown_duration(hold['lease'])} longer" if detailed else "leaves the switch on"
        tell_error(f"the hold could not be released and {then}: {type(error).__name__}: {error}")
    return result or (_LAPSED if block is not None and block.lapsed_for else 0)


async def _say_end(backend: StateBackend, lasted: timedelta) -> None:
    with suppress(Exception):  # the hold was released, which is enough
        is_on = status_of(await read_state(uncached(backend)), clock.now()).active
        then = "maintenance is still on" if is_on else "maintenance is off"
        tell(f"released after {shown_duration(lasted)}; {then}", stderr=True)


def problem_with(command: str) -> tuple[int, str] | None:
    """Return the exit status and the text if a command is certain not to run; None: it is there."""
    if shutil.which(command) is not None:
        return None
    folders = [""] if os.path.dirname(command) else os.get_exec_path()  # noqa: PTH120 -- `./command` has one
    if any(os.path.exists(os.path.join(folder, command)) for folder in folders):  # noqa: PTH110, PTH118 -- as above
        return _NOT_EXECUTABLE, os.strerror(errno.EACCES)
    return _NOT_FOUND, os.strerror(errno.ENOENT)


async def run_command(command: list[str]) -> int:
    """Run a command, pass signals on to it, and return its exit status as a shell does: 128 and the signal."""
    numbers = [signal.SIGTERM, signal.SIGHUP, signal.SIGINT] if os.name == "posix" else [signal.SIGINT]
    with anyio.open_signal_receiver(*numbers) as received:
        try:
            process = await anyio.open_process(command, stdin=None, stdout=None, stderr=None)
        except OSError as error:
            tell(f"{plain(command[0])}: {error.strerror}", stderr=True)
            return _NOT_FOUND if isinstance(error, FileNotFoundError) else _NOT_EXECUTABLE

        async def pass_on() -> None:
            async for number in received:
                if number != signal.SIGINT or not sys.stdin.isatty():  # a terminal sends it to the command itself
                    process.send_signal(number)

        async with anyio.create_task_group() as group:
            group.start_soon(pass_on)
            code = await process.wait()
            group.cancel_scope.cancel()
    return 128 - code if code < 0 else code
