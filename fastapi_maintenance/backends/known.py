"""What this process knows of each switch: states that were read, pushed and written, in the order of asking for them.

All that use one switch share what is known of it: middlewares, `cached()`, followers and those who write. Each state
has the moment at which it was asked for, or at which its writing began. A later moment wins, in whatever order the
answers arrive. So a process sees its own writes at once: a read that began before a write never replaces it.
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

_FOLLOWED_FOR = 3.0  # seconds after the last sign of life of a follower
_moments = itertools.count(1)
_logger = get_logger()


def moment() -> int:
    """Return a number that is greater than all before, in whatever thread."""
    return next(_moments)


class Cache:
    """The base of caches: an answer of the backend counts for `ttl` seconds."""

    def __init__(self, backend: StateBackend, ttl: float) -> None:
        self.backend = backend
        self.ttl = ttl


class Known:
    """What this process knows of the switch of that name. Threads with event loops of their own may share it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.forget()

    def forget(self) -> None:
        """Forget everything, as in a forked child: its parent's followers, reads and subscribers are not its own."""
        self.state: MaintenanceState | None = None
        """The last known state; None: none is known yet."""
        self.last_write: int = 0
        """The moment at which the last write by this process began or ended."""
        self.logged: tuple[bool, datetime] | None = None
        """Whether maintenance was on when that was logged last, and when that was."""
        self._asked = 0
        self._error: Exception | None = None
        self._answered_at = -float("inf")
        self._followed_until = -float("inf")
        self._reading: tuple[object, anyio.Event] | None = None  # the event loop in which it began, and its end
        self._subscribers: dict[object, tuple[object, Callable[[], None]]] = {}
        self._lock = threading.RLock()  # the collector may end a subscription while it is held

    def peek(self, ttl: float) -> MaintenanceState | None:
        """Return the state if it is followed, or was read less than `ttl` seconds ago; None: it has to be read."""
        now = time.monotonic()
        if now < self._followed_until or (now < self._answered_at + ttl and self._error is None):
            return self.state
        return None

    @property
    def is_available(self) -> bool:
        """Whether the store answered when it was asked last."""
        return self._error is None

    @property
    def is_followed(self) -> bool:
        """Whether each change becomes known without reading."""
        return time.monotonic() < self._followed_until

    def follow(self) -> None:
        """Record that a follower runs, which counts for three seconds."""
        self._followed_until = time.monotonic() + _FOLLOWED_FOR

    def unfollow(self) -> None:
        """Record that a follower has ended; another one that runs will call `follow` within a second."""
        self._followed_until = -float("inf")

    async def read(self, backend: StateBackend, ttl: float, timeout: float) -> MaintenanceState | None:  # noqa: ASYNC109 -- one word
        """Return the state of the backend, the last known one if that fails or takes too long, None if none is known.

        Args:
            backend: What to ask.
            ttl: Seconds for which an answer counts; callers share one read at a time. 0: each caller asks by itself.
            timeout: Seconds to wait at most.
        """
        try:
            with in_time(timeout):
                if ttl:
                    return await self.get(backend, ttl)
                asked = moment()
                state = await guarded(read_state(backend))
        except Exception as error:  # noqa: BLE001 -- whatever a store raises, requests go on
            if error is not self._error:  # else it is known, and others get it until the next try
                self.fail(error)
            return self.state
        self.put(state, asked)
        return state  # this caller's own answer, although another caller may have received a newer one

    async def get(self, backend: StateBackend, ttl: float) -> MaintenanceState:
        """Return the state, no older than `ttl` seconds; raises what reading it raises.

        While the store is unavailable, one caller at a time tries again; the others get its last error at once.
        """
        while time.monotonic() >= self._answered_at + ttl:
            loop, ended = self._reading or (None, None)
            if ended is None or loop is not current_loop():  # only the event loop in which it began can wait for it
                await self._read_now(backend)
                break
            if self._error is not None:
                break
            before = self._answered_at
            await ended.wait()
            if self._answered_at != before:  # else its caller was cancelled
                break
        error = self._error
        if error is not None:
            raise error.with_traceback(None)
        return cast("MaintenanceState", self.state)  # which has been read

    def put(self, state: MaintenanceState, asked: int) -> bool:
        """Accept a state that was asked for, or written, at that moment, unless a later one is known."""
        with self._lock:
            if asked < self._asked:
                return False
            was_available = self.is_available
            is_new = state != self.state or not was_available
            self.state, self._asked, self._error = state, asked, None
            self._answered_at = time.monotonic()
        if not was_available:
            _logger.warning("The maintenance state can be read again from %s", self.name)
        if is_new:
            self.notify()
        return True

    def fail(self, error: Exception) -> None:
        """Record that the store is unavailable; the first of several times in a row is logged."""
        with self._lock:
            was_available, state = self.is_available, self.state
            self._answered_at, self._error = time.monotonic(), error
            self._reading = None  # it may never end
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
        """Call `notify` in this event loop after each change, until the function that this returns is called."""
        subscription = object()
        self._subscribers[subscription] = current_loop(), notify
        return lambda: self._subscribers.pop(subscription, None) and None

    def notify(self) -> None:
        """Call all subscribers."""
        for loop, notify in list(self._subscribers.values()):
            call_soon(loop, notify)

    async def write(self, backend: StateBackend, write: Callable[[], Awaitable[MaintenanceState]]) -> MaintenanceState:
        """Return the result of a write, which is known when this returns; raises what it raises.

        If another write or read was in progress, it is unknown which is the newest, so the backend is asked.
        """
        began = self.last_write = moment()
        try:
            written = check_state(await guarded(write()))
        finally:  # if it has failed, it may have been made all the same
            is_alone = self.last_write == began
            self.last_write = moment()
        with self._lock:
            if is_alone and self.put(written, began):
                self._asked = moment()  # what was asked for while it was written may be older, and arrive later
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
        except Exception as error:  # noqa: BLE001 -- kept for all who ask until the next try
            self.fail(error)
        finally:
            if self._reading is reading:
                self._reading = None
            reading[1].set()


_known: weakref.WeakValueDictionary[object, Known] = remembered(weakref.WeakValueDictionary())


def forget_parent() -> None:
    """Forget, in a child that was forked, what its parent knows of each switch."""
    for known in list(_known.values()):
        known.forget()


with suppress(AttributeError):  # Windows knows no forks
    os.register_at_fork(after_in_child=forget_parent)


def uncached(backend: StateBackend) -> StateBackend:
    """Return the backend behind the cache, if there is one."""
    return backend.backend if isinstance(backend, Cache) else backend


def key_of(backend: StateBackend) -> object:
    """Return what distinguishes switches: the identity that a backend gives, else the backend if it can be hashed.

    A cache has the key of the backend behind it.
    """
    backend = uncached(backend)
    identity: object = getattr(backend, "switch_identity", None)
    if identity is not None:
        return identity
    try:
        hash(backend)
    except TypeError:
        return id(backend)
    return backend


def known_of(backend: StateBackend) -> Known:
    """Return what this process knows of the switch of a backend; it lasts as long as somebody keeps it."""
    key = key_of(backend)
    known = _known.get(key)
    if known is None:
        known = _known.setdefault(key, Known(name_of(uncached(backend))))
    return known


async def update_state(backend: DetailedStateBackend, change: StateChange) -> MaintenanceState:
    """Apply a change. When this returns, the store has it and this process knows it."""
    behind = cast("DetailedStateBackend", uncached(backend))
    return await known_of(behind).write(behind, lambda: behind.update_state(change))


async def set_value(backend: StateBackend, value: bool) -> None:  # noqa: FBT001 -- as the Protocol has it
    """Set a bare switch. When this returns, the store has it and this process knows it."""
    behind = uncached(backend)

    async def write() -> MaintenanceState:
        await behind.set_value(value)
        return MaintenanceState(switch=Switch(on=value))

    await known_of(behind).write(behind, write)
