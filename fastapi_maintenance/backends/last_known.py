"""What this process knows of each switch: the newest state that was read, pushed or written.

Middlewares, caches, followers and writers of one switch share it. Each state has the moment at which its read or write
began, and the latest moment wins, in whatever order the answers arrive. So a process sees its own writes immediately: a
read that began before a write never replaces it.
"""

import itertools
import os
import threading
import time
import weakref
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import datetime
from typing import cast

import anyio

from fastapi_maintenance._helpers import clock
from fastapi_maintenance._helpers.logs import get_logger
from fastapi_maintenance._helpers.process import remembered
from fastapi_maintenance._helpers.waiting import ANSWER_TIMEOUT, call_soon, current_loop, guarded, in_time
from fastapi_maintenance.backends.base import check_state, name_of, read_state
from fastapi_maintenance.state import MaintenanceState, Switch, status_of
from fastapi_maintenance.typing import DetailedStateBackend, StateBackend, StateChange

_FOLLOWED_FOR = 3.0  # seconds after the last call of `follow`
_moments = itertools.count(1)
_logger = get_logger()


def moment() -> int:
    """Return a number greater than all before, in any thread."""
    return next(_moments)


class Cache:
    """The base of caches: an answer of the backend counts for `ttl` seconds."""

    def __init__(self, backend: StateBackend, ttl: float) -> None:
        self.backend = backend
        self.ttl = ttl
        self.known: Known = known_of(backend)


class Known:
    """What this process knows of the switch of that name. Threads, each with its own event loop, may share it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.forget()

    def forget(self) -> None:
        """Forget everything, as in a forked child: the followers, reads and subscribers are its parent's."""
        self.state: MaintenanceState | None = None
        """The last known state."""
        self.last_write: int = 0
        """The moment at which the last write by this process began or ended."""
        self.logged: tuple[bool, datetime] | None = None
        """Whether maintenance was on when that was last logged, and when."""
        self.error: Exception | None = None
        """What the last read raised; None: it succeeded."""
        self._asked = 0
        self._answered_at = -float("inf")
        self._followed_until = -float("inf")
        self._reading: tuple[object, anyio.Event] | None = None  # the event loop of the read in progress, and its end
        self._subscribers: dict[object, tuple[object, Callable[[], None]]] = {}
        self._lock = threading.RLock()  # reentrant: `write` calls `put` while it holds the lock

    def peek(self, ttl: float) -> MaintenanceState | None:
        """Return the state if it is followed, or became known less than `ttl` seconds ago; None: it has to be read."""
        now = time.monotonic()
        if now < self._followed_until or (now < self._answered_at + ttl and self.error is None):
            return self.state
        return None

    @property
    def is_available(self) -> bool:
        """Whether the last read succeeded."""
        return self.error is None

    @property
    def is_followed(self) -> bool:
        """Whether each change becomes known without reading."""
        return time.monotonic() < self._followed_until

    def follow(self) -> None:
        """Record that a follower is running; this counts for three seconds."""
        self._followed_until = time.monotonic() + _FOLLOWED_FOR

    def unfollow(self) -> None:
        """Record that a follower has ended; any other one calls `follow` again within a second."""
        self._followed_until = -float("inf")

    async def read(self, backend: StateBackend, ttl: float, timeout: float) -> MaintenanceState | None:  # noqa: ASYNC109 -- one word
        """Return the state of the backend; if reading fails or takes too long, the last known state, if any.

        Args:
            backend: The backend to read.
            ttl: Seconds for which an answer counts; concurrent callers share one read. 0: each caller reads for itself.
            timeout: Seconds to wait at most.
        """
        asked = moment()
        try:
            with in_time(timeout):
                if ttl:
                    return await self.get(backend, ttl)
                state = await guarded(read_state(backend))
        except Exception as error:  # noqa: BLE001 -- whatever a store raises, requests go on
            if error is not self.error:  # else another caller has recorded it
                self.fail(error, asked)
            return self.state
        self.put(state, asked)
        return state  # the answer to this caller, although another one may have received a newer state

    async def get(self, backend: StateBackend, ttl: float) -> MaintenanceState:
        """Return the state, no older than `ttl` seconds; raise what reading it raises.

        While the store is unavailable, one caller at a time reads again; the others get the last error immediately.
        """
        while time.monotonic() >= self._answered_at + ttl:
            loop, ended = self._reading or (None, None)
            if ended is None or loop is not current_loop():  # a read can only be awaited in its own event loop
                await self._read_now(backend)
                break
            if self.error is not None:
                break
            before = self._answered_at
            await ended.wait()
            if self._answered_at != before:  # else the read was cancelled
                break
        if self.error is not None:
            raise self.error.with_traceback(None)
        return cast("MaintenanceState", self.state)

    def put(self, state: MaintenanceState, asked: int) -> bool:
        """Accept a state whose read or write began at that moment; return False if a later one is known."""
        with self._lock:
            if asked < self._asked:
                return False
            was_available = self.is_available
            is_new = state != self.state or not was_available
            self.state, self._asked, self.error = state, asked, None
            self._answered_at = time.monotonic()
        if not was_available:
            _logger.warning("The maintenance state can be read again from %s", self.name)
        if is_new:
            self.notify()
        return True

    def fail(self, error: Exception, asked: int) -> None:
        """Record that a read that began at that moment failed, unless a later state is known; log an outage once."""
        with self._lock:
            self._reading = None  # a read that hangs must not keep others from trying
            if asked < self._asked:
                return
            was_available, state = self.is_available, self.state
            self._answered_at, self.error = time.monotonic(), error
        if not was_available:
            return
        if state is None:
            until_then = "no state is known yet, so the setting fail_closed decides"
        else:
            until_then = f"maintenance stays {'on' if status_of(state, clock.now()).active else 'off'}"
        text = "The maintenance state cannot be read from %s; until it can, %s: %s: %s"
        _logger.warning(text, self.name, until_then, type(error).__name__, error)
        self.notify()

    def subscribe(self, notify: Callable[[], None]) -> Callable[[], None]:
        """Call `notify` in this event loop after each change; return a function that ends this."""
        subscription = object()
        self._subscribers[subscription] = current_loop(), notify
        return lambda: self._subscribers.pop(subscription, None) and None

    def notify(self) -> None:
        """Notify all subscribers."""
        for loop, notify in list(self._subscribers.values()):
            call_soon(loop, notify)

    async def write(self, backend: StateBackend, write: Callable[[], Awaitable[MaintenanceState]]) -> MaintenanceState:
        """Write, record the result as the known state, and return it; raise what `write` raises.

        If writes overlapped, their order is unknown, so the backend is read again.
        """
        began = self.last_write = moment()
        try:
            written = check_state(await guarded(write()))
        finally:  # a write that raised may have reached the store
            is_alone = self.last_write == began
            self.last_write = moment()
        with self._lock:
            if is_alone and self.put(written, began):
                self._asked = moment()  # a read that began during the write may have seen the older state
                return written
        newest, asked = written, moment()
        try:
            with in_time(ANSWER_TIMEOUT):
                newest = await guarded(read_state(backend))
        except Exception:  # noqa: BLE001 -- the write has succeeded
            asked = moment()
        self.put(newest, asked)
        return written

    async def _read_now(self, backend: StateBackend) -> None:
        reading = self._reading = current_loop(), anyio.Event()
        asked = moment()
        try:
            self.put(await guarded(read_state(backend)), asked)
        except Exception as error:  # noqa: BLE001 -- raised to all callers until the next try
            self.fail(error, asked)
        finally:
            if self._reading is reading:
                self._reading = None
            reading[1].set()


_known: weakref.WeakValueDictionary[object, Known] = remembered(weakref.WeakValueDictionary())


def forget_parent() -> None:
    """In a forked child, forget what its parent knows of each switch."""
    for known in list(_known.values()):
        known.forget()


with suppress(AttributeError):  # Windows has no fork
    os.register_at_fork(after_in_child=forget_parent)


def uncached(backend: StateBackend) -> StateBackend:
    """Return the backend behind the cache, if there is one."""
    return backend.backend if isinstance(backend, Cache) else backend


def key_of(backend: StateBackend) -> object:
    """Return what identifies a switch: the `switch_identity` of its backend, else the backend; if unhashable, its id.

    A cache has the key of the backend behind it.
    """
    backend = uncached(backend)
    identity: object = getattr(backend, "switch_identity", None)
    key = backend if identity is None else identity
    try:
        hash(key)
    except TypeError:
        return id(backend)
    return key


def known_of(backend: StateBackend) -> Known:
    """Return what this process knows of the switch of a backend; it lives as long as something refers to it."""
    key = key_of(backend)
    return _known.get(key) or _known.setdefault(key, Known(name_of(uncached(backend))))


async def update_state(backend: DetailedStateBackend, change: StateChange) -> MaintenanceState:
    """Apply a change; when this returns, it is stored, and known in this process."""
    behind = cast("DetailedStateBackend", uncached(backend))
    return await known_of(behind).write(behind, lambda: behind.update_state(change))


async def set_value(backend: StateBackend, value: bool) -> None:  # noqa: FBT001 -- the signature of the Protocol
    """Set a bare switch; when this returns, the value is stored, and known in this process."""
    behind = uncached(backend)

    async def write() -> MaintenanceState:
        await behind.set_value(value)
        return MaintenanceState(switch=Switch(on=value))

    await known_of(behind).write(behind, write)
