"""The command `run`: hold maintenance on while another command runs, and drain requests in progress first."""

import errno
import math
import os
import shutil
import signal
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from datetime import timedelta
from functools import partial
from typing import Annotated, Any

import anyio
import typer
from rich.console import Console

from fastapi_maintenance._helpers import clock
from fastapi_maintenance._switch.block import MaintenanceBlock
from fastapi_maintenance._switch.drain import Progress
from fastapi_maintenance.backends.base import name_of, read_state
from fastapi_maintenance.backends.last_known import uncached
from fastapi_maintenance.cli import options as opt
from fastapi_maintenance.cli.durations import format_duration, parse_duration, parse_end
from fastapi_maintenance.cli.errors import fail
from fastapi_maintenance.cli.show import counted, in_progress, plain, print_err, print_error
from fastapi_maintenance.cli.status import print_workers_with_state
from fastapi_maintenance.cli.target import Which, act
from fastapi_maintenance.errors import DrainTimeoutError, NoWorkersError, WorkerStatus
from fastapi_maintenance.state import status_of
from fastapi_maintenance.typing import DetailedStateBackend, StateBackend

LEASE: timedelta = timedelta(seconds=30)
_FIRST_LINE = 0.5  # seconds; most drains end earlier, and workers have reported
_PAUSE = 5.0  # seconds between two lines of a log
_TIMED_OUT = 75  # an exit status; EX_TEMPFAIL of sysexits.h: the same may succeed later
_LAPSED = 76  # an exit status
_NOT_EXECUTABLE, _NOT_FOUND = 126, 127  # exit statuses, those of shells (POSIX, XCU 2.8.2)


def run(  # noqa: PLR0913, PLR0917 -- its options
    which: Which,
    command: Annotated[list[str], typer.Argument(metavar="COMMAND", help="What to run, after --.")],
    message: opt.Message = None,
    expect: opt.Expect = None,
    lease: opt.Lease = None,
    drain: opt.RunDrain = None,
    workers: opt.Workers = None,
    by: opt.By = None,
) -> None:
    """Turn maintenance on while a command runs, and off again whatever happens."""
    if command[0].startswith("-"):
        fail(f"there is no option {command[0]}; put the command to run after --")
    if (problem := _problem_with(command[0])) is not None:
        print_err(f"{plain(command[0])}: {problem[1]}; maintenance was not turned on")
        raise typer.Exit(problem[0])
    hold = {
        "message": message,
        "ends_at": opt.read("--expect", expect, lambda text: parse_end(text, clock.now())),
        "lease": opt.read("--lease", lease, parse_duration),
        "drain": opt.read("--drain", drain, parse_duration),
        "workers": workers,
        "by": by,
    }
    raise typer.Exit(act(partial(_run_held, command, hold), which))


@contextmanager
def shown_progress() -> Iterator[Progress]:
    """Yield a function that shows progress: one line that changes in a terminal, a line now and then in a log."""
    console = Console(stderr=True, highlight=False, emoji=False)
    status = console.status("")
    printed: tuple[int, int] | None = None
    print_from = time.monotonic() + _FIRST_LINE

    def show_progress(workers: Sequence[WorkerStatus], seconds: float) -> None:
        nonlocal printed, print_from
        what = f"waiting for {in_progress(workers)}" if workers else "checking that no worker is missing"
        text = f"{what}; {math.ceil(seconds)} s left"
        numbers = sum(worker.requests or 0 for worker in workers), len(workers)
        if console.is_interactive and console.file.isatty():
            status.update(text)
            status.start()
        elif numbers != printed and time.monotonic() >= print_from:
            printed, print_from = numbers, time.monotonic() + _PAUSE
            print_err(text)

    try:
        yield show_progress
    finally:
        status.stop()


@asynccontextmanager
async def drained(
    backend: StateBackend, name: str, hold: dict[str, Any], otherwise: str, begins: Callable[[], object] = lambda: None
) -> AsyncGenerator[MaintenanceBlock]:
    """Hold maintenance on while a block runs, after a drain if `hold` has one. Errors of the block are raised.

    If the drain fails, the command ends with 75.

    Args:
        backend: The switch.
        name: The name of the switch.
        hold: The details of the block.
        otherwise: What to print if the drain fails or is interrupted and the hold has been released.
        begins: Called when maintenance has begun, before the drain.
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
            print_error(str(error).replace(name_of(backend), name).replace("workers=0", "--workers 0"))
            _print_otherwise(block, otherwise)
            raise typer.Exit(_TIMED_OUT) from None
        except (anyio.get_cancelled_exc_class(), SystemExit):  # Ctrl-C, and other signals
            _print_otherwise(block, f"interrupted; {otherwise}")
            raise
        if hold["drain"] is not None:
            if not has_begun:
                begins()
            who = counted(block.confirmed_by, "process", "processes")
            print_err(f"drained after {anyio.current_time() - began:.1f} s, confirmed by {who}")
        yield block


def _print_otherwise(block: MaintenanceBlock, text: str) -> None:
    if block.is_released:  # if not, the failure was logged
        print_err(text)


async def _run_held(command: list[str], hold: dict[str, Any], backend: StateBackend, name: str) -> int:
    """Run a command while a hold keeps maintenance on, and return its exit status. Errors before it ran are raised.

    If the hold lapsed while the command ran, the status is 76 unless the command itself failed. An error after the
    command has ended is printed, and does not change the exit status.
    """
    result, block = None, None
    detailed = isinstance(backend, DetailedStateBackend)
    hold = {**hold, "lease": hold["lease"] or (LEASE if detailed else None)}
    began = clock.now()
    otherwise = "the hold was released, and the command was not started"
    begins = partial(print_err, "maintenance begins")
    try:
        async with drained(backend, name, hold, otherwise, begins) as block:
            state = None
            with suppress(Exception):  # the hold was written, which is enough
                state = await read_state(uncached(backend))
            if state is not None and not status_of(state, clock.now()).active:
                fail(f"{backend!r} is not on: it can only be read, or a newer block keeps it off", status=1)
            if hold["drain"] is None:
                begins()
                if state is not None:
                    await print_workers_with_state(state, name, backend)
            result = await run_command(command)
        lasted = format_duration(clock.now() - began)
        with suppress(Exception):  # the hold was released, which is enough
            is_on = status_of(await read_state(uncached(backend)), clock.now()).active
            print_err(f"released after {lasted}; maintenance is {'still on' if is_on else 'off'}")
    except Exception as error:
        if result is None:
            raise
        then = f"counts up to {format_duration(hold['lease'])} longer" if detailed else "leaves the switch on"
        print_error(f"the hold could not be released and {then}: {type(error).__name__}: {error}")
    return result or (_LAPSED if block is not None and block.lapsed_for else 0)


def _problem_with(command: str) -> tuple[int, str] | None:
    """Return the exit status and the reason if a command cannot run; None: it was found."""
    if shutil.which(command) is not None:
        return None
    folders = [""] if os.path.dirname(command) else os.get_exec_path()  # noqa: PTH120 -- `./command` has one
    if any(os.path.exists(os.path.join(folder, command)) for folder in folders):  # noqa: PTH110, PTH118 -- as above
        return _NOT_EXECUTABLE, os.strerror(errno.EACCES)
    return _NOT_FOUND, os.strerror(errno.ENOENT)


async def run_command(command: list[str]) -> int:
    """Run a command, forward signals to it, and return its exit status; after a signal, 128 plus its number."""
    numbers = [signal.SIGTERM, signal.SIGHUP, signal.SIGINT] if os.name == "posix" else [signal.SIGINT]
    with anyio.open_signal_receiver(*numbers) as received:
        try:
            process = await anyio.open_process(command, stdin=None, stdout=None, stderr=None)
        except OSError as error:
            print_err(f"{plain(command[0])}: {error.strerror}")
            return _NOT_FOUND if isinstance(error, FileNotFoundError) else _NOT_EXECUTABLE

        async def forward() -> None:
            async for number in received:
                if number != signal.SIGINT or not os.isatty(0):  # a terminal sends it to the command itself
                    with suppress(ProcessLookupError, PermissionError):  # it has ended, or runs as another user
                        process.send_signal(number)

        async with anyio.create_task_group() as group:
            group.start_soon(forward)
            code = await process.wait()
            group.cancel_scope.cancel()
    return 128 - code if code < 0 else code
