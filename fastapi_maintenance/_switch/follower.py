"""Following a switch: in each event loop with subscribers, one follower keeps the last known state current.

It watches the backend; if that is not supported, or the watch fails, it reads the backend every second.
"""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import NoReturn, cast

import anyio

from fastapi_maintenance._helpers import background, clock
from fastapi_maintenance._helpers.logs import get_logger
from fastapi_maintenance._helpers.process import remembered
from fastapi_maintenance._helpers.waiting import ANSWER_TIMEOUT, call_soon, current_loop, end_of, guarded, in_time
from fastapi_maintenance.backends.base import check_state, name_of, read_state
from fastapi_maintenance.backends.last_known import Cache, key_of, known_of, moment, uncached
from fastapi_maintenance.state import next_change
from fastapi_maintenance.typing import DrainableStateBackend, StateBackend, WatchableStateBackend

_POLL = 1.0  # seconds
_LOGGED_AT = 2  # failures of a watch in a row: a single one may be a restart of the store
_logger = get_logger()


@dataclass(eq=False)
class Subscription:
    """A subscriber to a switch in one event loop.

    Args:
        backend: The backend to follow the switch with, unless an earlier subscriber's is in use.
        notify: Called in this event loop after each change, when time changes the status, and every second.
        push: Whether to watch the backend for this subscriber; else reading it every second is enough.
    """

    backend: StateBackend
    notify: Callable[[], None]
    push: bool = True


class Follower:
    """The follower of one switch in one event loop."""

    def __init__(self, backend: StateBackend) -> None:
        self.known = known_of(backend)
        self.subscriptions: list[Subscription] = []
        self._loop = current_loop()
        self.has_ended = end_of(self._loop)
        self._unsubscribe = self.known.subscribe(self._notify)
        self._watched: Subscription | None = None
        self._watch_task: background.Task | None = None
        self._is_pushed = False
        self._changed = anyio.Event()
        self._has_changed = False
        self._changed_at = -math.inf
        self._tick_task = background.start(self._tick)

    def add(self, subscription: Subscription) -> None:
        """Add a subscriber."""
        self.subscriptions.append(subscription)
        self._choose_watch()

    def remove(self, subscription: Subscription) -> list[background.Task]:
        """Remove a subscriber, soon if another thread calls this; return the tasks that end with it."""
        ending: list[background.Task] = []
        if not call_soon(self._loop, lambda: ending.extend(self._remove(subscription))):
            self.end()  # with its event loop
        return ending

    def _remove(self, subscription: Subscription) -> list[background.Task]:
        self.subscriptions.remove(subscription)
        if not self.subscriptions:
            return self.end()
        if self._watch_task is None or self._watched is not subscription:
            return []
        ending, self._watched, self._watch_task, self._is_pushed = self._watch_task, None, None, False
        ending.stop()
        self._changed.set()  # `_tick` watches for another one: this may be a callback, in which asyncio has no task
        return [ending]

    def end(self) -> list[background.Task]:
        """Stop following; return the tasks that end."""
        for key in [key for key, each in list(followers.items()) if each is self]:
            followers.pop(key, None)
        self._unsubscribe()
        self.known.unfollow()
        ending = [task for task in (self._tick_task, self._watch_task) if task is not None]
        for task in ending:
            task.stop()
        return ending

    async def refresh(self) -> None:
        """Read the store now, so that the known state is no older than this call, unless the read fails."""
        if self.subscriptions:
            await self._read(self.subscriptions[0].backend, ttl=0)

    def _choose_watch(self) -> None:
        """Watch the backend of the first subscriber whose backend can be watched, unless one is watched."""
        if self._watched is not None:
            return
        first = next((one for one in self.subscriptions if one.push and _watchable(one.backend) is not None), None)
        if first is not None:
            on_error = partial(self._on_watch_error, first)
            self._watched = first
            self._watch_task = background.start(partial(self._watch, first), on_error=on_error)

    async def _watch(self, subscription: Subscription) -> NoReturn:
        """Make each state that a watch yields the known one; raise what it raises, `EOFError` when it ends."""
        states = aiter(cast("WatchableStateBackend", _watchable(subscription.backend)).watch())
        asked = moment()
        try:
            while True:
                try:
                    state = check_state(await guarded(anext(states)))
                except StopAsyncIteration:
                    msg = "watch() has ended"
                    raise EOFError(msg) from None
                if self.known.last_write > asked or not self.known.put(state, asked):
                    asked = moment()  # the yielded state may be older or newer than the one that became known since
                    with in_time(ANSWER_TIMEOUT):
                        state = await guarded(read_state(uncached(subscription.backend)))
                    self.known.put(state, asked)
                self._is_pushed = True
                self.known.follow()
                asked = moment()
        finally:
            if self._watched is subscription:
                self._is_pushed = False
            if isinstance(states, AsyncGenerator):
                with anyio.move_on_after(ANSWER_TIMEOUT, shield=True):
                    await states.aclose()

    async def _on_watch_error(self, subscription: Subscription, error: BaseException) -> None:
        """Read the store instead; log that it cannot be watched, unless it is unavailable."""
        failures = 0 if self._watch_task is None else self._watch_task.failures
        if await self._read(subscription.backend, ttl=0) and failures == _LOGGED_AT:
            text = "Changes of %s are not pushed, so it is read every second: %s: %s"
            _logger.warning(text, name_of(uncached(subscription.backend)), type(error).__name__, error)

    async def _tick(self) -> NoReturn:
        """Each second, read the store if changes are not pushed. Notify the subscribers then, and after each change.

        The beginning or end of a window, and the expiry of a lease, are changes too.
        """
        read_at = now = anyio.current_time()
        is_first = True
        while True:
            self._choose_watch()
            if self._has_changed:
                self._changed_at, self._has_changed = now, False
            if now >= read_at:
                await self._read_if_needed(is_first=is_first)
                read_at, is_first = now + _POLL, False
            self._notify_subscribers()
            self._changed = changed = anyio.Event()
            state = self.known.state
            change = None if state is None else next_change(state, clock.now())
            pause = read_at - anyio.current_time()
            pause = pause if change is None else min(pause, (change - clock.now()).total_seconds())
            with anyio.move_on_after(max(pause, 0)):
                await changed.wait()
            now = anyio.current_time()

    async def _read_if_needed(self, *, is_first: bool) -> None:
        if self._is_pushed:
            self.known.follow()
        if not self.subscriptions:
            return
        backend = self.subscriptions[0].backend
        if self._watched is None or not (self._is_pushed or is_first):
            await self._read(backend, ttl=backend.ttl if isinstance(backend, Cache) else 0)
        elif anyio.current_time() - self._changed_at <= 2 * _POLL:
            # If another process undoes a write of this one at once, a watch that yields differences may see neither.
            await self._read(backend, ttl=0)

    async def _read(self, backend: StateBackend, ttl: float) -> bool:
        """Read the store; return whether it is available."""
        await self.known.read(uncached(backend), ttl, ANSWER_TIMEOUT)
        self.known.follow()
        return self.known.is_available

    def _notify(self) -> None:
        self._has_changed = True
        self._changed.set()
        self._notify_subscribers()

    def _notify_subscribers(self) -> None:
        for subscription in self.subscriptions.copy():
            subscription.notify()


followers: dict[tuple[object, object], Follower] = remembered({})
"""The running ones, by event loop and switch."""


def subscribe(subscription: Subscription) -> Follower:
    """Follow a switch for a subscriber in this event loop, until `Follower.remove`."""
    for each in [each for each in list(followers.values()) if each.has_ended()]:
        each.end()
    key = current_loop(), key_of(subscription.backend)
    follower = followers.get(key)
    if follower is None:
        follower = followers[key] = Follower(subscription.backend)
    follower.add(subscription)
    return follower


@asynccontextmanager
async def following(backend: StateBackend, notify: Callable[[], None]) -> AsyncGenerator[Follower]:
    """Follow a switch in this event loop while a block runs; after that, the follower uses the backend no more."""
    subscription = Subscription(backend, notify)
    follower = subscribe(subscription)
    try:
        yield follower
    finally:
        await background.all_ended(follower.remove(subscription))


def _watchable(backend: StateBackend) -> WatchableStateBackend | None:
    """Return the backend to watch: the one behind a cache if it supports drains; None if it cannot be watched."""
    behind = uncached(backend)
    watched = behind if isinstance(behind, DrainableStateBackend) else backend
    return watched if isinstance(watched, WatchableStateBackend) else None
