"""Requests in progress as the command tells of them: in the status, and while it waits for them."""

from __future__ import annotations

import math
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from datetime import timedelta

from rich.console import Console

from fastapi_maintenance._switch.block import Block
from fastapi_maintenance._switch.drain import Progress, get_workers
from fastapi_maintenance.cli.show import in_progress, store_problem, tell, tell_error
from fastapi_maintenance.errors import NotSupportedError
from fastapi_maintenance.state import WorkerStatus
from fastapi_maintenance.typing import StateBackend

__all__ = ["held_on", "shown_progress", "workers_of"]

_FIRST_LINE = 0.5  # seconds; most drains have ended by then, and workers have reported
_PAUSE = 5.0  # seconds, between two lines of a log


async def workers_of(backend: StateBackend) -> Sequence[WorkerStatus] | None:
    """Return the workers behind a switch, None where they are not known; print what the store raises."""
    try:
        return await get_workers(backend)
    except NotSupportedError:
        pass
    except Exception as error:  # noqa: BLE001 -- whatever a store raises: the state is known all the same
        tell_error(store_problem(error))
    return None


@asynccontextmanager
async def held_on(
    backend: StateBackend,
    *,
    by: str | None,
    message: str | None = None,
    lease: timedelta | None,
    drain: timedelta | None,
) -> AsyncIterator[None]:
    """Hold maintenance on for as long as a block runs, and show how the drain before it goes."""
    async with AsyncExitStack() as stack:
        with shown_progress() as progress:
            block = Block(backend, active=True, message=message, lease=lease, drain=drain, by=by, progress=progress)
            await stack.enter_async_context(block)
        yield


@contextmanager
def shown_progress() -> Iterator[Progress]:
    """Give a function that shows progress: as one line that changes in a terminal, as a line now and then in a log."""
    console = Console(stderr=True, highlight=False, emoji=False)
    status = console.status("")
    said: tuple[int, int] | None = None
    say_from = time.monotonic() + _FIRST_LINE

    def show(workers: Sequence[WorkerStatus], seconds: float) -> None:
        nonlocal said, say_from
        text = f"waiting for {in_progress(workers)}; {math.ceil(seconds)} s left"
        numbers = sum(one.requests or 0 for one in workers), len(workers)
        if console.is_interactive and console.file.isatty():
            status.update(text)
            status.start()
        elif numbers != said and time.monotonic() >= say_from:
            said, say_from = numbers, time.monotonic() + _PAUSE
            tell(text, stderr=True)

    try:
        yield show
    finally:
        status.stop()
