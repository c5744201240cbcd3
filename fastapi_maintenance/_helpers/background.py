"""Background work, outside of every task group: a failure is logged, and the work is tried again. It harms nobody."""

import asyncio
import random
import sys
from collections.abc import Awaitable, Callable, Iterable
from contextvars import Context
from functools import partial

import anyio

from fastapi_maintenance._helpers.logs import get_logger
from fastapi_maintenance._helpers.process import remembered
from fastapi_maintenance._helpers.waiting import ANSWER_TIMEOUT, call_soon, current_loop, guarded, is_cancelled

_STABLE_AFTER = 1.0  # seconds that work has to run before its next failure counts as the first in a row again
_PAUSES = (0.05, 0.1, 0.2, 0.4, 0.8)  # seconds before the next try; the last one is repeated
_tasks: set[asyncio.Task[None]] = remembered(set())
"""The running ones: asyncio keeps only weak references to tasks."""
_Work = Callable[[], Awaitable[None]]
_OnError = Callable[[BaseException], Awaitable[None]]
_logger = get_logger()


class Task:
    """Background work in the event loop that started it. It ends with that loop if the loop cancels its tasks."""

    def __init__(self, work: _Work, on_error: _OnError | None) -> None:
        self._work = work
        self._on_error = on_error
        self._loop = current_loop()
        self._scope = anyio.CancelScope()
        self._ended = anyio.Event()
        self.failures = 0
        """How often it has failed in a row."""

    def stop(self) -> None:
        """End it soon. Any thread may call this."""
        call_soon(self._loop, self._scope.cancel)

    @property
    def has_ended(self) -> bool:
        """Whether it has ended."""
        return self._ended.is_set()

    @property
    def runs_here(self) -> bool:
        """Whether it runs in this event loop and has not ended."""
        return self._loop is current_loop() and not self.has_ended

    async def ended(self) -> None:
        """Wait for its end; return at once in another event loop."""
        if self.runs_here:
            await self._ended.wait()

    async def run(self) -> None:
        """Run the work until it returns or is stopped; after each failure in a row, pause for longer."""
        try:
            with self._scope:
                while True:
                    began = anyio.current_time()
                    error = await _error_of(self._work)
                    # The work may turn its cancellation, by `stop` or as a task of asyncio, into another error.
                    if error is None or self._scope.cancel_called or is_cancelled():
                        return
                    self.failures = 1 if anyio.current_time() - began > _STABLE_AFTER else self.failures + 1
                    if self._on_error is not None:
                        error = await _error_of(partial(self._on_error, error))
                    if error is not None and self.failures == 1:
                        _logger.error("Background work failed; retrying until it succeeds", exc_info=error)
                    pause = _PAUSES[min(self.failures, len(_PAUSES)) - 1]
                    await anyio.sleep(pause * random.uniform(0.5, 1))  # noqa: S311 -- not a secret
        finally:
            self._ended.set()


async def _error_of(work: _Work) -> BaseException | None:
    """Run work once; return what it raises, other than the cancellation of this task."""
    cancelled = anyio.get_cancelled_exc_class()
    try:
        await guarded(work())
    except (cancelled, GeneratorExit, KeyboardInterrupt):
        raise
    except BaseExceptionGroup as group:  # of a user's task group; it may contain the cancellation of this task
        return group.split(cancelled)[1] or group
    except BaseException as error:  # noqa: BLE001 -- nobody waits for it
        return error
    return None


async def all_ended(tasks: Iterable[Task]) -> None:
    """Wait for the end of these tasks, for two seconds at most, even if the caller is cancelled."""
    here = [task for task in tasks if task.runs_here]
    if not here:  # there may be no event loop, if the garbage collector closes a generator
        return
    with anyio.move_on_after(ANSWER_TIMEOUT, shield=True):
        for task in here:
            await task.ended()


def start(work: _Work, *, on_error: _OnError | None = None, context: Context | None = None) -> Task:
    """Start work in the running event loop, outside of every task group.

    Args:
        work: An async function. When it returns, the task has ended.
        on_error: An async function that handles each failure; None: log the first of several in a row.
        context: The context to run in; None: an empty one, without a running request.
    """
    task = Task(work, on_error)
    context = Context() if context is None else context
    if "trio" in type(current_loop()).__module__:
        sys.modules["trio"].lowlevel.spawn_system_task(task.run, context=context)
    else:  # not the loop's `create_task`, which may run the task at once (an eager task factory)
        asyncio_task = asyncio.Task(task.run(), context=context)
        _tasks.add(asyncio_task)
        asyncio_task.add_done_callback(_tasks.discard)
    return task
