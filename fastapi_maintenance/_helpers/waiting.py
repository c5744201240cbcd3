"""Waiting for a store, within bounds."""

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
ANSWER_TIMEOUT = 2.0  # seconds to wait for an answer in the background before the store counts as unavailable
WRITE_TIMEOUT = 10.0  # seconds that a write may take


@contextmanager
def in_time(seconds: float, text: str = "no answer within {:g} seconds") -> Iterator[None]:
    """Cancel the block, and raise a `TimeoutError` with the text, when it takes longer."""
    with anyio.move_on_after(seconds) as scope:
        yield
    if scope.cancelled_caught:
        raise TimeoutError(text.format(seconds))


def current_loop() -> object:
    """Return the event loop that runs here, which is no other one that runs before or after it; None: none runs."""
    for module, function in (("asyncio", "get_running_loop"), ("trio.lowlevel", "current_trio_token")):
        with suppress(KeyError, RuntimeError):  # it has not been imported, or no loop of it runs here
            loop: object = getattr(sys.modules[module], function)()
            return loop
    return None


def end_of(loop: object) -> Callable[[], bool]:
    """Return a function that tells whether an event loop was closed, as asyncio's can be with tasks still in it."""
    return getattr(loop, "is_closed", lambda: False)


def call_soon(loop: Any, function: Callable[[], object]) -> None:  # noqa: ANN401 -- of asyncio or trio
    """Call a function in an event loop: at once in this one, soon in that of another thread, never in a closed one."""
    if loop is current_loop():
        function()
        return
    with suppress(RuntimeError):  # it has ended
        if hasattr(loop, "call_soon_threadsafe"):
            loop.call_soon_threadsafe(function)
        else:
            loop.run_sync_soon(function)


def is_cancelled() -> bool:
    """Return whether the current task of asyncio is being cancelled; False on trio."""
    try:
        task = asyncio.current_task()
    except RuntimeError:
        return False
    return task is None or task.cancelling() > 0


async def guarded(awaitable: Awaitable[_T]) -> _T:
    """Await something of the user's. A cancellation that nobody asked for becomes a `RuntimeError`.

    Code on asyncio may let out the `CancelledError` of a task of its own, which would end this task in silence.
    """
    try:
        return await awaitable
    except asyncio.CancelledError as error:
        if is_cancelled():
            raise
        msg = "it raised CancelledError, although its task was not cancelled"
        raise RuntimeError(msg) from error


async def in_thread(is_busy: threading.Lock, function: Callable[[], _T]) -> _T:
    """Run a function in a thread of its own, one at a time; a caller that is cancelled does not wait for it.

    Raises:
        RuntimeError: No thread can be started now.
        Exception: Whatever the function raises.
    """
    # A thread of a pool that a file system holds would be missing there, and would keep the process from ending.
    while not is_busy.acquire(blocking=False):  # noqa: ASYNC110 -- an event would belong to one event loop
        await anyio.sleep(_POLL)
    outcome: Future[_T] = Future()

    def run() -> None:
        try:
            result = function()
        except BaseException as error:  # noqa: BLE001 -- raised where it is waited for
            is_busy.release()
            outcome.set_exception(error)
        else:
            is_busy.release()
            outcome.set_result(result)
        call_soon(loop, is_done.set)

    loop, is_done = current_loop(), anyio.Event()
    try:
        threading.Thread(target=run, name="fastapi_maintenance", daemon=True).start()
    except Exception:
        is_busy.release()  # or nobody would be able to try again
        raise
    await is_done.wait()
    return outcome.result()
