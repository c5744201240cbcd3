"""Waiting for a store, within bounds."""

import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import anyio

_T = TypeVar("_T")
_POLL = 0.001  # seconds
ANSWER_TIMEOUT = 2.0  # seconds that a follower waits for an answer before it counts the store as away
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
        with suppress(RuntimeError):  # the event loop has ended
            call_soon(is_done.set)

    loop: Any = current_loop()
    call_soon = loop.call_soon_threadsafe if hasattr(loop, "call_soon_threadsafe") else loop.run_sync_soon
    is_done = anyio.Event()
    try:
        threading.Thread(target=run, name="fastapi_maintenance", daemon=True).start()
    except Exception:
        is_busy.release()  # or nobody would be able to try again
        raise
    await is_done.wait()
    return outcome.result()
