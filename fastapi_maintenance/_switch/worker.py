"""A worker: this process behind a switch in one event loop, while it serves an app. It knows the requests in progress.

Why no request slips through a drain: a backend counts a worker before the worker reads its first state, and a drain
writes a hold before it asks which workers are counted. So a worker that is not asked reads the hold before it serves.
A worker that is asked reports which holds it has read, and how many of its requests in progress they block. It records
each request before that looks at the state, and looks at the state before it goes through its records. So a request
that is missing from a report looked at the state after the hold was read, and was blocked.
"""

from __future__ import annotations

import math
import os
import socket
import uuid
from functools import partial
from typing import NoReturn, Protocol

import anyio

from fastapi_maintenance._helpers import background, clock
from fastapi_maintenance._helpers.logs import get_logger
from fastapi_maintenance._helpers.process import remembered
from fastapi_maintenance._helpers.telemetry import set_active
from fastapi_maintenance._helpers.waiting import ANSWER_TIMEOUT, call_soon, current_loop, end_of, guarded, in_time
from fastapi_maintenance._switch import holds
from fastapi_maintenance._switch.changes import without_lease
from fastapi_maintenance._switch.drain import report_of
from fastapi_maintenance._switch.follower import Follower, Subscription, subscribe, unsubscribe
from fastapi_maintenance._switch.requests import Blocked, RequestInProgress, Served, is_draining, is_in_block
from fastapi_maintenance.backends.base import name_of
from fastapi_maintenance.backends.known import Known, key_of, uncached
from fastapi_maintenance.state import MaintenanceState, MaintenanceStatus, status_of
from fastapi_maintenance.typing import DrainableStateBackend, StateBackend

_LOOK_AGAIN = 0.05  # seconds, while requests are waited for: one may end in another event loop
_ASKED_AT_ONCE = 100  # predicates
_REPORT_AGAIN = 1.0  # seconds, where the store has refused a report
_logger = get_logger()


class Member(Protocol):
    """What one app serves."""

    backend: StateBackend
    served: Served
    worker: Worker


class Worker:
    """Log each change, close WebSockets that maintenance blocks, and report requests in progress.

    Args:
        backend: The switch.
        counted: Whether a drain waits for this worker, and all requests are its own; else it is about the WebSockets of
            this event loop alone.
    """

    def __init__(self, backend: StateBackend, *, counted: bool) -> None:
        self.loop = current_loop()
        self.has_ended = end_of(self.loop)
        self.members: list[Member] = []
        self._backend = backend
        self._counted = counted
        self._changed = anyio.Event()
        self._decided: object = None
        self._verdicts: dict[RequestInProgress, Blocked | None] = {}
        self._asking: dict[RequestInProgress, background.Task] = {}
        self._reported: object = None
        self._limiter = anyio.CapacityLimiter(_ASKED_AT_ONCE)
        self._id = ""
        self._subscription, self._follower = self._subscribe()
        self.known = self._follower.known
        self._task = background.start(self._run)

    def _subscribe(self) -> tuple[Subscription, Follower]:
        """Follow the switch as another worker than before, which is counted before it reads a state."""
        self._id = f"{socket.gethostname()[:64]}.{os.getpid()}.{uuid.uuid4().hex[:12]}"
        worker = self._id if self._counted else None
        subscription = Subscription(self._backend, self.wake, push=self._counted, worker=worker)
        return subscription, subscribe(subscription)

    def use(self, backend: StateBackend) -> list[background.Task]:
        """Follow the switch through the backend of an app that is still served; return the tasks that end."""
        self.wake()
        if backend is self._backend or self.has_ended():
            return []
        before = self._follower, self._subscription
        self._backend = backend
        self._subscription, self._follower = self._subscribe()
        return unsubscribe(*before)

    async def ready(self, patience: float) -> None:
        """Wait until a state is known that was read after this worker was counted, for so many seconds at most."""
        try:
            with in_time(patience):
                await self._follower.ready.wait()
        except TimeoutError as error:
            self.known.fail(error)

    def wake(self) -> None:
        """Look at the state and the requests again; any thread may call this."""
        call_soon(self.loop, lambda: self._changed.set())  # noqa: PLW0108 -- the event of that moment

    def end(self) -> list[background.Task]:
        """End its work; return the tasks that end with it."""
        self._task.stop()
        self._forget_verdicts()
        return [self._task, *unsubscribe(self._follower, self._subscription)]

    @property
    def _served(self) -> dict[Served, None]:
        return dict.fromkeys(member.served for member in self.members)

    async def _run(self) -> NoReturn:
        while True:
            self._changed = changed = anyio.Event()
            pause = await self._look()
            with anyio.move_on_after(pause):
                await changed.wait()

    async def _look(self) -> float:
        """Apply the state; return the seconds until the next check if nothing changes before."""
        known = self.known
        stored = known.state
        if stored is None or not self._follower.ready.is_set() or not self.members:
            return math.inf  # what is known may be from before this worker was counted, or this has ended
        state = holds.with_local(self._backend, stored)
        status = status_of(state, clock.now())
        if known.is_available:
            _log_change(known, status, name_of(self._backend))
        self._ask(status)
        blocked = [(request, why) for request, why in self._verdicts.items() if why is not None]
        for request, _ in blocked:
            self._close(request)
        if not self._counted:
            return math.inf
        waited_for = [(request, why) for request, why in blocked if not is_draining(request)]
        for served in self._served:
            served.on_end = self.wake if waited_for else None
        if not self._asking and not await self._report(stored, waited_for):
            return _REPORT_AGAIN
        return _LOOK_AGAIN if waited_for else math.inf

    def _ask(self, status: MaintenanceStatus) -> None:
        """Where the status has changed, ask again about each request in progress whether maintenance blocks it.

        A request that begins later has looked at this status itself.
        """
        decided = without_lease(status), holds.local_holds(self._backend)
        requests = self._requests() if status.active else {}
        is_new = decided != self._decided
        if is_new:
            self._decided = decided
            self._forget_verdicts()
        self._verdicts = {request: why for request, why in self._verdicts.items() if request in requests}
        for request in self._asking.keys() - requests.keys():  # which have ended
            self._asking.pop(request).stop()
        if not is_new and self._counted:
            return
        for request, served in requests.items():
            context = request.context
            if request not in self._verdicts and request not in self._asking and context is not None:
                work = partial(self._ask_about, request, served, self._decided)
                self._asking[request] = background.start(work, context=context.copy())

    def _requests(self) -> dict[RequestInProgress, Served]:
        for served in self._served:
            for request, websocket in tuple(served.websockets.items()):
                if websocket.has_ended():  # its event loop was closed around it
                    served.requests.discard(request)
        if self._counted:
            return {request: served for served in self._served for request in tuple(served.requests)}
        websockets = ((served, *item) for served in self._served for item in tuple(served.websockets.items()))
        return {request: served for served, request, websocket in websockets if websocket.loop is self.loop}

    async def _ask_about(self, request: RequestInProgress, served: Served, decided: object) -> None:
        blocked: Blocked | None
        async with self._limiter:
            try:
                blocked = await served.ask_again(request)
            except (anyio.get_cancelled_exc_class(), GeneratorExit, KeyboardInterrupt):
                raise
            except BaseException:
                _logger.exception("A request in progress could not be asked about; it counts as blocked")
                blocked = Blocked(MaintenanceStatus(active=True), None)
        if decided is self._decided:  # else the status has changed again
            self._asking.pop(request, None)
            self._verdicts[request] = blocked
            self.wake()

    def _close(self, request: RequestInProgress) -> None:
        """Close a WebSocket of this event loop, unless its handler has a block open."""
        for served in self._served:
            websocket = served.websockets.get(request)
            if websocket is None or websocket.is_closing or websocket.loop is not self.loop or is_in_block(request):
                continue
            background.start(websocket.close)

    def _forget_verdicts(self) -> None:
        for task in self._asking.values():
            task.stop()
        self._asking, self._verdicts = {}, {}

    async def _report(self, state: MaintenanceState, requests: list[tuple[RequestInProgress, Blocked]]) -> bool:
        """Report what has changed since the last report; return whether that is done."""
        backend = uncached(self._backend)
        report = report_of(state, requests)
        wanted = self._follower.watches, report  # with each watch the worker is counted anew
        if not isinstance(backend, DrainableStateBackend) or wanted == self._reported:
            return True
        try:
            with in_time(ANSWER_TIMEOUT):
                await guarded(backend.report(self._id, report))
        except Exception:  # noqa: BLE001 -- the follower logs that the store is unavailable
            return False
        self._reported = wanted
        return True


_workers: dict[tuple[object, object, bool], Worker] = remembered({})
"""Those that run, by event loop, switch, and whether they are counted."""


def join(member: Member, *, counted: bool) -> Worker:
    """Add what an app serves to the worker of its switch in this event loop, until `leave`."""
    for key, worker in list(_workers.items()):
        if worker.has_ended() and _workers.pop(key, None) is not None:
            worker.end()
    key = current_loop(), key_of(member.backend), counted
    found = _workers.get(key)
    if found is None:
        found = _workers[key] = Worker(member.backend, counted=counted)
    found.members.append(member)
    found.wake()
    return found


def leave(member: Member) -> list[background.Task]:
    """Undo `join`, in whatever thread; return the tasks that end with it, which use the backend until then."""
    worker = member.worker
    worker.members.remove(member)
    if worker.members:
        return worker.use(worker.members[0].backend)
    for key, each in list(_workers.items()):
        if each is worker:
            _workers.pop(key, None)
    if all(each.known is not worker.known for each in list(_workers.values())):
        worker.known.logged = None  # an app that starts later logs it again
    return worker.end()


def _log_change(known: Known, status: MaintenanceStatus, switch: str) -> None:
    """Log that maintenance has begun or ended, once in this process, and record it for OpenTelemetry."""
    now, logged = clock.now(), known.logged
    was_active, logged_at = (None, now) if logged is None else logged
    if was_active is status.active:
        return
    known.logged = status.active, now
    set_active(switch, status.active)
    if was_active is None and not status.active:
        return
    is_release = not status.active and status.since is not None and status.since <= logged_at  # nobody has set it off
    by, since = (None, None) if is_release else (status.by, status.since)
    times = {name: time and time.isoformat() for name, time in (("since", since), ("ends_at", status.ends_at))}
    details = {"active": status.active, "message": status.message, "by": by, **times}
    shown = [f"set by {by!r}"] * (by is not None) + [repr(status.message)] * (status.message is not None)
    _logger.info(
        "Maintenance is %s by %s%s",
        "on" if status.active else "off",
        switch,
        "".join(f", {one}" for one in shown),
        extra={f"maintenance_{name}": value for name, value in details.items() if value is not None},
    )
