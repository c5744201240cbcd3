"""Background work: started in one way, in nobody's task group. When it fails it is tried again, and fails nobody."""

import asyncio
import random
import sys
from collections.abc import Awaitable, Callable, Iterable
from contextvars import Context

import anyio

from fastapi_maintenance._helpers.logs import get_logger
from fastapi_maintenance._helpers.process import remembered
from fastapi_maintenance._helpers.waiting import ANSWER_TIMEOUT, call_soon, current_loop, guarded, is_cancelled

__all__ = ["Task", "all_ended", "start"]

_STABLE_AFTER = 1.0  # seconds without a failure, after which the next one is the first in a row again
_PAUSES = (0.05, 0.1, 0.2, 0.4, 0.8)  # seconds before the next try; the last one over and over
_tasks: set[asyncio.Task[None]] = remembered(set())
"""Those that run: asyncio itself keeps no task alive that nobody waits for."""
_Work = Callable[[], Awaitable[None]]
_OnError = Callable[[BaseException], Awaitable[None]]
_logger = get_logger()


class Task:
    """Background work in the event loop in which it was started; it ends with that loop at the latest."""

    def __init__(self, work: _Work, on_error: _OnError | None) -> None:
        self._work = work
        self._on_error = self._log_once if on_error is None else on_error
        self._loop = current_loop()
        self._scope = anyio.CancelScope()
        self._ended = anyio.Event()
        self.failures = 0
        """How often it has failed in a row."""

    def stop(self) -> None:
        """End it soon. Any thread may call this; if the event loop is closed, nothing is left to end."""
        call_soon(self._loop, self._scope.cancel)

    @property
    def has_ended(self) -> bool:
        """Whether it has ended."""
        return self._ended.is_set()

    @property
    def runs_here(self) -> bool:
        """Whether it runs in this event loop, and has not ended."""
        return self._loop is current_loop() and not self.has_ended

    async def ended(self) -> None:
        """Wait for its end; not at all in another event loop."""
        if self.runs_here:
            await self._ended.wait()

    async def run(self) -> None:
        """Run the work until it returns or is stopped; after a failure again, each time after a longer pause."""
        try:
            with self._scope:
                while not await self._succeeds():
                    pause = _PAUSES[min(self.failures, len(_PAUSES)) - 1]
                    await anyio.sleep(pause * random.uniform(0.5, 1))  # noqa: S311 -- no secret
        finally:
            self._ended.set()

    async def _succeeds(self) -> bool:
        """Run the work once; False if it has failed."""
        began = anyio.current_time()
        error: BaseException
        try:
            await guarded(self._work())
        except (anyio.get_cancelled_exc_class(), GeneratorExit, KeyboardInterrupt):
            raise
        except BaseExceptionGroup as group:  # of a task group of the user's, perhaps with the cancellation of this task
            error = group.split(anyio.get_cancelled_exc_class())[1] or group
        except BaseException as raised:  # noqa: BLE001 -- nobody waits for what is raised here
            error = raised
        else:
            return True
        if is_cancelled():  # which the work has turned into something else
            return True
        self.failures = 1 if anyio.current_time() - began > _STABLE_AFTER else self.failures + 1
        await self._handle(error)
        return False

    async def _handle(self, error: BaseException) -> None:
        try:
            await guarded(self._on_error(error))
        except (anyio.get_cancelled_exc_class(), GeneratorExit, KeyboardInterrupt):
            raise
        except BaseException as another:  # noqa: BLE001 -- as above
            await self._log_once(another)

    async def _log_once(self, error: BaseException) -> None:
        if self.failures == 1:
            _logger.error("Background work failed; it is tried again until it succeeds", exc_info=error)


async def all_ended(tasks: Iterable[Task]) -> None:
    """Wait for the end of these tasks, even if this is cancelled, for two seconds at most."""
    here = [task for task in tasks if task.runs_here]
    if not here:  # perhaps no event loop runs: the collector ends a generator
        return
    with anyio.move_on_after(ANSWER_TIMEOUT, shield=True):
        for task in here:
            await task.ended()


def start(work: _Work, *, on_error: _OnError | None = None, context: Context | None = None) -> Task:
    """Start work in the running event loop, outside of every task group.

    Args:
        work: An async function. When it returns, the task has ended.
        on_error: An async function that handles a failure; None: the first of several in a row is logged.
        context: The context to run in; None: an empty one, in which no request is running.
    """
    task = Task(work, on_error)
    context = Context() if context is None else context
    if "trio" in type(current_loop()).__module__:
        sys.modules["trio"].lowlevel.spawn_system_task(task.run, context=context)
    else:  # not `create_task` of the loop, with which a task may begin to run at once
        asyncio_task = asyncio.Task(task.run(), context=context)
        _tasks.add(asyncio_task)
        asyncio_task.add_done_callback(_tasks.discard)
    return task
