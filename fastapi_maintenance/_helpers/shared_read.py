"""One read that all callers of a moment share, and none while the last one is fresh."""

import itertools
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar, cast

import anyio

from fastapi_maintenance._helpers.waiting import current_loop

_T = TypeVar("_T")
_moments = itertools.count(1)


def moment() -> int:
    """Return a number that is greater than all before, in whatever thread: the order of what is asked and written."""
    return next(_moments)


class _Reading:
    """A read in progress. Only the event loop in which it began can wait for it."""

    def __init__(self) -> None:
        self.has_outcome = False
        self.loop = current_loop()
        self.ended = anyio.Event()


class SharedRead(Generic[_T]):
    """Read a store at most once at a time, and at most once in `ttl` seconds.

    What was asked for earlier never replaces what was asked for later, in whatever order the answers come. While the
    store is away, one caller at a time tries again, and the others are told at once that it is.
    """

    def __init__(self, read: Callable[[], Awaitable[_T]], *, ttl: float) -> None:
        self._read = read
        self._ttl = ttl
        self.newest: _T | None = None  # what it said last
        self._lock = threading.RLock()
        self._asked = 0
        self._error: Exception | None = None
        self._rests_until = 0.0
        self._reading: _Reading | None = None

    async def get(self) -> _T:
        """Return what the store says, or said less than `ttl` seconds ago; raises what reading it raises."""
        while time.monotonic() >= self._rests_until:
            reading = self._reading
            if reading is None or reading.loop is not current_loop():
                await self._read_now()
                break
            if self._error is not None:
                break
            await reading.ended.wait()
            if reading.has_outcome:  # else the one who made it was cancelled
                break
        error = self._error
        if error is not None:
            raise error.with_traceback(None)
        return cast("_T", self.newest)  # which has been read

    def fresh(self) -> _T | None:
        """Return what `get` would return without waiting; None where it would wait, or raise."""
        return self.newest if self._error is None and time.monotonic() < self._rests_until else None

    def put(self, value: _T, asked: int) -> bool:
        """Take a value that was asked for, or written, at that moment, unless a newer one is known; tell whether."""
        with self._lock:
            if asked < self._asked:
                return False
            self.newest, self._asked, self._error = value, asked, None
            self._rests_until = time.monotonic() + self._ttl
            return True

    def put_written(self, value: _T, began: int) -> bool:
        """Take a value whose writing began at that moment and has just ended, as `put` does."""
        with self._lock:
            taken = self.put(value, began)
            if taken:  # what was asked for while it was written may be from before, and arrive after this
                self._asked = moment()
        return taken

    def fail(self, error: Exception) -> None:
        """Take note that the store is away, unless it is known; the next read is made when `ttl` seconds are over."""
        with self._lock:
            if error is self._error and time.monotonic() < self._rests_until:
                return
            self._error, self._rests_until = error, time.monotonic() + self._ttl
            self._reading = None  # it may never end

    async def _read_now(self) -> None:
        self._reading = reading = _Reading()
        asked = moment()
        try:
            self.put(await self._read(), asked)
            reading.has_outcome = True
        except Exception as error:  # noqa: BLE001 -- kept for all who ask meanwhile
            self.fail(error)
            reading.has_outcome = True
        finally:
            if self._reading is reading:
                self._reading = None
            reading.ended.set()
