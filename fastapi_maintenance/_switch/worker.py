"""A worker: one app that this process serves in one event loop, behind a switch. It reports which state it applies.

It signs in: it writes a record, which contains its latest report, into the registry of the backend.

Why no request slips through a drain: a drain writes a hold, and waits until each worker confirms it. A worker confirms
a hold after it has read it. The middleware records each request before it looks at the state; the worker reads the
state before it goes through the recorded requests. So a request that is missing from a report has looked at the state
after the hold was read, and was decided on with it. Why no worker is missing: see the module `drain`.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime
from functools import partial
from itertools import count
from typing import NoReturn

import anyio

from fastapi_maintenance._helpers import background, clock
from fastapi_maintenance._helpers.logs import get_logger
from fastapi_maintenance._helpers.metrics import set_active
from fastapi_maintenance._helpers.process import identity, remembered
from fastapi_maintenance._helpers.waiting import ANSWER_TIMEOUT, call_soon, current_loop, end_of, guarded, in_time
from fastapi_maintenance._switch import holds
from fastapi_maintenance._switch.follower import Subscription, subscribe
from fastapi_maintenance._switch.reports import Applied, find_registry, report_of
from fastapi_maintenance._switch.requests import Served, Verdicts
from fastapi_maintenance._switch.status_changes import log_change, without_lease
from fastapi_maintenance.backends.base import name_of
from fastapi_maintenance.backends.last_known import uncached
from fastapi_maintenance.errors import NotSupportedError
from fastapi_maintenance.state import open_holds, status_of
from fastapi_maintenance.typing import StateBackend, WorkerRegistry

_SIGN_INTERVAL = 1.0  # seconds, also the timeout of one try: a drain waits for twice as long
_SIGN_AGAIN = 0.25  # seconds after a failure
_LOOK_AGAIN = 0.05  # seconds, while requests are waited for: one may end in another event loop
_COMPARE_INTERVAL = 60.0  # seconds between two comparisons of clocks
_numbers = count(1)
_logger = get_logger()


class Worker:
    """Log each change, close WebSockets that maintenance blocks, and report requests in progress, until it ends.

    Args:
        backend: The switch.
        served: The requests in progress of the app.
        counted: Whether drains wait for it. If not, it only closes the WebSockets of this event loop.
        is_brief: Whether it lasts only as long as a drain; if so it does not log changes.
    """

    def __init__(self, backend: StateBackend, served: Served, *, counted: bool = True, is_brief: bool = False) -> None:
        end_orphans()
        self.loop = current_loop()
        self.has_ended = end_of(self.loop)
        self.served = served
        self.is_counted = counted
        self.is_for_websockets = False
        """Whether it ends with the last WebSocket of its event loop, since no lifespan runs there."""
        self.ready = anyio.Event()
        """Set when the worker has signed in and then read the state, or has failed to."""
        self._is_brief = is_brief
        self._changed = anyio.Event()
        self._verdicts = Verdicts(served, self.wake, only_websockets=not counted)
        self._is_refused = False
        self._begin(backend)

    def _begin(self, backend: StateBackend) -> None:
        self.backend = backend
        self._id = f"{socket.gethostname()[:64]}.{os.getpid()}.{identity()}-{next(_numbers)}"
        self._registry = find_registry(backend) if self.is_counted else None
        self._report = report_of(Applied(), ())
        self._signed: str | None = None
        self._sign_at = self._compare_at = 0.0
        self._ahead: float | None = None
        # Polling is enough to close WebSockets.
        self._subscription = Subscription(backend, self.wake, push=self.is_counted)
        self._follower = subscribe(self._subscription)
        self._known = self._follower.known
        self._task = background.start(self._run)
        _workers.add(self)

    def move(self, backend: StateBackend) -> list[background.Task]:
        """Follow another switch, under a new id; return the tasks that end."""
        ending = self.end()
        self._begin(backend)
        return ending

    def wake(self) -> None:
        """Look at the state and the requests again; any thread may call this."""
        call_soon(self.loop, lambda: self._changed.set())  # noqa: PLW0108 -- the event of that moment

    def end(self) -> list[background.Task]:
        """End it, from any thread; return the tasks that end, which use the backend until then."""
        _workers.discard(self)
        self._task.stop()
        self._verdicts.forget()
        ending = [self._task, *self._follower.remove(self._subscription)]
        if self._registry is not None and current_loop() is not None:
            ending.append(background.start(partial(leave, self._registry, self._id, [self._task])))
        return ending

    async def _run(self) -> NoReturn:
        await self._sign()
        await self._follower.refresh()
        self.ready.set()
        while True:
            self._changed = changed = anyio.Event()
            pause = await self._look()
            with anyio.move_on_after(pause):
                await changed.wait()

    async def _look(self) -> float:
        """Apply the state, and report; return the seconds until the next look if nothing changes earlier."""
        applied, stored = Applied(), self._known.state
        if stored is not None:
            now = clock.now()
            status = status_of(holds.with_local(self.backend, stored), now)
            if self._known.is_available and not self._is_brief:
                log_change(self._known, status)
                set_active(self._known.name, status.active, self.served.app)
            self._verdicts.update(status, (without_lease(status), holds.local_holds(self.backend)))
            confirmed = open_holds(stored, now) if self._verdicts.is_complete else ()
            applied = Applied(stored, status.active, confirmed, self._ahead)
        if not self.is_counted:
            return _SIGN_INTERVAL
        waited_for = self._verdicts.waited_for
        self.served.on_end = self.wake if waited_for else None
        self._report = report_of(applied, waited_for)
        await self._sign()
        await self._compare_clocks()
        return _LOOK_AGAIN if waited_for else max(self._sign_at - anyio.current_time(), 0)

    async def _sign(self) -> None:
        """Write the report if it has changed, and every second, since the record may be lost."""
        registry, report, now = self._registry, self._report, anyio.current_time()
        if now < self._sign_at and (report == self._signed or self._signed is None):
            return
        self._sign_at = now + _SIGN_INTERVAL
        if registry is None:
            return
        try:
            with in_time(_SIGN_INTERVAL):
                await guarded(registry.sign(self._id, report))
        except Exception as error:  # noqa: BLE001 -- whatever a store raises, the app is served
            self._signed, self._sign_at = None, anyio.current_time() + _SIGN_AGAIN
            if self._is_refused or isinstance(error, NotSupportedError):
                return
            await self._follower.refresh()
            if self._known.is_available:  # otherwise the outage is logged
                self._is_refused = True
                text = "No drain waits for the requests of this process until it can be registered in %s: %s: %s"
                _logger.warning(text, name_of(self.backend), type(error).__name__, error)
            return
        self._signed = report
        if self._is_refused:
            _logger.warning("Drains wait again for the requests of this process, in %s", name_of(self.backend))
        self._is_refused = False

    async def _compare_clocks(self) -> None:
        """Compare the clock of this host with that of the store, if the backend has a method `now`."""
        store_now, before = getattr(uncached(self.backend), "now", None), clock.now()
        if anyio.current_time() < self._compare_at or store_now is None:
            return
        self._compare_at = anyio.current_time() + _COMPARE_INTERVAL
        with suppress(Exception), in_time(_SIGN_AGAIN):
            time_of_store: datetime = await guarded(store_now())
            ahead = before + (clock.now() - before) / 2 - time_of_store
            self._ahead = round(ahead.total_seconds(), 1) + 0.0  # not -0.0


_workers: set[Worker] = remembered(set())
"""The running workers."""


def end_orphans() -> list[background.Task]:
    """End the workers whose event loops were closed around them; return the tasks that end."""
    return [task for worker in list(_workers) if worker.has_ended() for task in worker.end()]


async def leave(registry: WorkerRegistry, worker: str, before: Iterable[background.Task] = ()) -> None:
    """Remove a record after the end of these tasks; if the store fails, the record expires."""
    await background.all_ended(before)
    with suppress(Exception), in_time(ANSWER_TIMEOUT):
        await guarded(registry.leave(worker))
