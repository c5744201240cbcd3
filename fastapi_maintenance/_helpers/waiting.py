"""Waiting for stores, threads and code of users, within time limits."""

import asyncio
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import anyio

_T = TypeVar("_T")
_POLL = 0.001  # seconds
ANSWER_TIMEOUT = 2.0  # seconds that a store may take to answer in the background before it counts as unavailable
WRITE_TIMEOUT = 10.0  # seconds that a write may take


@contextmanager
def in_time(seconds: float, text: str = "no answer within {:g} seconds") -> Iterator[None]:
    """Cancel the block if it takes longer, and raise a `TimeoutError` with this text."""
    with anyio.move_on_after(seconds) as scope:
        yield
    if scope.cancelled_caught:
        raise TimeoutError(text.format(seconds))


def current_loop() -> object:
    """Return an object that is unique to the running event loop; None if none is running."""
    for module, function in (("asyncio", "get_running_loop"), ("trio.lowlevel", "current_trio_token")):
        with suppress(KeyError, AttributeError, RuntimeError):  # not imported, or not yet, or not running here
            loop: object = getattr(sys.modules[module], function)()
            return loop
    return None


def end_of(loop: object) -> Callable[[], bool]:
    """Return a function that returns whether a loop was closed; asyncio's may be closed with tasks still in it."""
    return getattr(loop, "is_closed", lambda: False)


def call_soon(loop: Any, function: Callable[[], object]) -> bool:  # noqa: ANN401 -- of asyncio or trio
    """Call a function in an event loop, at once in this one, soon in another thread's; return False in a closed one."""
    if loop is current_loop():
        function()
        return True
    try:
        (loop.call_soon_threadsafe if hasattr(loop, "call_soon_threadsafe") else loop.run_sync_soon)(function)
    except RuntimeError:
        return False
    return True


def cancellations() -> int:
    """Return how often the current asyncio task has been cancelled, 1 outside of tasks; 0 on trio."""
    try:
        task = asyncio.current_task()
    except RuntimeError:
        return 0
    return 1 if task is None else task.cancelling()


def is_cancelled() -> bool:
    """Return whether the current asyncio task is being cancelled; False on trio."""
    return cancellations() > 0


async def guarded(awaitable: Awaitable[_T]) -> _T:
    """Await something of the user's; a `CancelledError` without a cancellation of this task becomes a `RuntimeError`.

    Code on asyncio may let the `CancelledError` of one of its own tasks escape, which would silently end this task.
    """
    try:
        return await awaitable
    except asyncio.CancelledError as error:
        if is_cancelled():
            raise
        msg = "it raised CancelledError, although its task was not cancelled"
        raise RuntimeError(msg) from error


async def in_thread(is_busy: threading.Lock, function: Callable[[], _T]) -> _T:
    """Run a function in a new thread, one at a time for each lock; a cancelled caller does not wait for its end.

    Raises:
        RuntimeError: No thread can be started.
        Exception: Whatever the function raises.
    """
    # Not a pool: a thread that hangs in a file system would be missing there, and would keep the process from ending.
    while not is_busy.acquire(blocking=False):  # noqa: ASYNC110 -- an event would belong to one event loop
        await anyio.sleep(_POLL)
    loop, is_done, outcome = current_loop(), anyio.Event(), Future[_T]()

    def run() -> None:
        try:
            outcome.set_result(function())
        except BaseException as error:  # noqa: BLE001 -- raised by `outcome.result`
            outcome.set_exception(error)
        is_busy.release()
        call_soon(loop, is_done.set)

    try:
        threading.Thread(target=run, name="fastapi_maintenance", daemon=True).start()
    except Exception:
        is_busy.release()  # or nobody could try again
        raise
    await is_done.wait()
    return outcome.result()
