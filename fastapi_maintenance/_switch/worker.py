"""A worker: an app in this process while it is served, which follows its switch and knows its requests in progress.

Why no request slips through a drain: a backend counts a worker before the worker reads its first state, and whoever
drains writes a hold before asking which workers are counted. So a worker that is not asked reads the hold before it
serves. A worker that is asked reports which holds it has read, and how many of its requests in progress they block. It
notes each request before that looks at the state, and looks at the state before it goes through what it noted. So a
request that is missing from a report looked at the state after the hold was read, and was blocked.
"""

from __future__ import annotations

import logging
import math
import os
import socket
import uuid
from collections.abc import Callable
from datetime import datetime

import anyio
from anyio.abc import TaskGroup
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fastapi_maintenance._helpers import clock
from fastapi_maintenance._helpers.telemetry import set_active
from fastapi_maintenance._helpers.waiting import ANSWER_TIMEOUT, current_loop, in_time
from fastapi_maintenance._switch import holds
from fastapi_maintenance._switch.drain import report_of
from fastapi_maintenance._switch.observer import Observer, watched_by
from fastapi_maintenance._switch.requests import Blocked, RequestInProgress, Served, is_excused
from fastapi_maintenance._switch.writes import key_of
from fastapi_maintenance.backends.base import name_of
from fastapi_maintenance.backends.cached import uncached
from fastapi_maintenance.backends.url import close_if_made_here
from fastapi_maintenance.state import MaintenanceState, next_change, status_of
from fastapi_maintenance.typing import DrainableStateBackend

_LOOK_AGAIN = 0.05  # seconds, while requests are waited for: one may end in another event loop
_POLL = 1.0  # seconds
_workers: dict[object, list[Worker]] = {}
"""Those of this process, by their switch."""
_noted: dict[object, tuple[bool, datetime]] = {}
"""Whether maintenance is on, and when that was logged, the last time in this process, by the switch."""
_logger = logging.getLogger("fastapi_maintenance")


class Worker:
    """Follow the state for as long as an app is served; report requests in progress, close WebSockets, log changes.

    Args:
        observer: Knows the state.
        served: What is in progress.
    """

    def __init__(self, observer: Observer, served: Served) -> None:
        self.id = f"{socket.gethostname()[:64]}.{os.getpid()}.{uuid.uuid4().hex[:12]}"
        self.observer = observer
        self._name = name_of(observer.backend)
        self._served = served
        self._loop = current_loop()
        self._changed = anyio.Event()
        self._decided_by: object = None
        self._verdicts: dict[RequestInProgress, Blocked | None] = {}
        self._active: bool | None = None
        self._reported: object = None

    async def run(self, ready: Callable[[], None]) -> None:
        """Do so until this is cancelled; call `ready` when the state is known, or the store is away."""

        def notice() -> None:
            ready()
            self._changed.set()

        key = key_of(self.observer.backend)
        _workers.setdefault(key, []).append(self)
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(self.observer.follow, self.id, notice)
                while True:
                    self._changed = changed = anyio.Event()
                    pause = await self._look(group)
                    with anyio.move_on_after(pause):
                        await changed.wait()
        finally:
            _workers[key].remove(self)
            if not _workers[key]:
                del _workers[key]
                _noted.pop(key, None)

    async def _look(self, group: TaskGroup) -> float:
        """Do what the state asks for; return the seconds after which to look again though nothing is told."""
        observer, served = self.observer, self._served
        if observer.can_be_followed and not observer.watches:
            return math.inf  # nothing has been told yet
        state = observer.peek() or await observer.read()
        counted = holds.with_local(observer.backend, state)
        self._note(counted)
        blocked = await self._blocked(counted)
        for request in blocked:
            websocket = served.websockets.get(request)
            if websocket is not None:
                group.start_soon(websocket.close)
        waited_for = [(request, why) for request, why in blocked.items() if not is_excused(request)]
        served.on_end = self._request_ended if waited_for else None
        is_reported = await self._report(state, waited_for)
        poll = math.inf if observer.is_followed and is_reported else _POLL
        change = next_change(state, clock.now())
        return min(
            _LOOK_AGAIN if waited_for else poll,
            math.inf if change is None else min(_POLL, clock.seconds_until(change)),
        )

    def _note(self, state: MaintenanceState) -> None:
        """Log that maintenance has begun or ended, once in this process, and tell it to OpenTelemetry."""
        now, key = clock.now(), key_of(self.observer.backend)
        status = status_of(state, now)
        active = status.active
        if self.observer.is_away or active is self._active:
            return
        self._active = active
        was_active, logged_at = _noted.get(key, (None, now))
        if was_active is active:
            return
        _noted[key] = active, now
        set_active(self._name, active)
        if was_active is None and not active:
            return
        is_release = not active and status.since is not None and status.since < logged_at  # nobody has set it off
        by, since = (None, None) if is_release else (status.by, status.since)
        times = {name: time and time.isoformat() for name, time in (("since", since), ("ends_at", status.ends_at))}
        details = {"active": active, "message": status.message, "by": by, **times}
        shown = [f"set by {by!r}"] * (by is not None) + [repr(status.message)] * (status.message is not None)
        _logger.info(
            "Maintenance is %s by %s%s",
            "on" if active else "off",
            self._name,
            "".join(f", {one}" for one in shown),
            extra={f"maintenance_{name}": value for name, value in details.items() if value is not None},
        )

    async def _blocked(self, state: MaintenanceState) -> dict[RequestInProgress, Blocked]:
        """Return the requests in progress that maintenance would block now, and why."""
        if not (state.switch.on or state.windows or state.holds):
            self._verdicts = {}  # else requests that have ended would be kept until maintenance begins again
            return {}
        requests = tuple(self._served.requests)
        decided_by = state, status_of(state, clock.now()).active, holds.local_holds(self.observer.backend)
        known = self._verdicts if decided_by == self._decided_by else {}
        self._decided_by = decided_by
        self._verdicts = {
            request: known[request] if request in known else await self._served.blocked_now(request)
            for request in requests
        }
        return {request: why for request, why in self._verdicts.items() if why and request in self._served.requests}

    async def _report(self, state: MaintenanceState, requests: list[tuple[RequestInProgress, Blocked]]) -> bool:
        """Report what has changed since the last report; tell whether that is done."""
        backend = watched_by(self.observer.backend)
        report = report_of(state, requests)
        wanted = self.observer.watches, report  # a new watch has been counted anew
        if not isinstance(backend, DrainableStateBackend) or wanted == self._reported:
            return True
        try:
            with in_time(ANSWER_TIMEOUT):
                await backend.report(self.id, report)
        except Exception:  # noqa: BLE001 -- the observer logs that the store is away
            return False
        self._reported = wanted
        return True

    def _request_ended(self) -> None:
        if current_loop() is self._loop:
            self._changed.set()


class Lifespan:
    """Have a worker from the app's start to its shutdown.

    Args:
        choose: Makes the worker, when the app has started; None: there shall be none.
        patience: Seconds that the start waits for the first state; the app starts without it too.
    """

    def __init__(self, choose: Callable[[], Worker | None], *, patience: float) -> None:
        self._choose = choose
        self._patience = patience
        self._loop = current_loop()
        self._worker: Worker | None = None
        self._scope = anyio.CancelScope()
        self._current = anyio.CancelScope()
        self._ready = anyio.Event()
        self._ended = anyio.Event()

    async def run(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the lifespan of the app; what it raises comes out as it is, and in no group."""
        raised: BaseException | None = None
        async with anyio.create_task_group() as group:

            async def receive_and_end() -> Message:
                message = await receive()
                if message["type"] == "lifespan.shutdown":  # before the app closes the client that it is followed with
                    await self._end()
                return message

            async def begin_and_send(message: Message) -> None:
                if message["type"] == "lifespan.startup.complete":  # after the app has opened or configured it
                    await self._begin(group)
                await send(message)

            try:
                await app(scope, receive_and_end, begin_and_send)
            except anyio.get_cancelled_exc_class():
                raise
            except BaseException as error:  # noqa: BLE001 -- raised again below
                raised = error
            finally:
                await self._end()
        if raised is not None:
            raise raised

    def choose_again(self) -> None:
        """Have another worker from now on, as far as the same event loop asks for it."""
        if self._worker is not None and self._loop is current_loop():
            self._current.cancel()

    async def _begin(self, group: TaskGroup) -> None:
        self._worker = self._choose()
        if self._worker is None:
            return
        group.start_soon(self._work, self._worker)
        with anyio.move_on_after(self._patience):
            await self._ready.wait()
        if not self._ready.is_set():
            self._worker.observer.gave_up()

    async def _end(self) -> None:
        self._scope.cancel()
        if self._worker is not None:
            with anyio.CancelScope(shield=True):  # what is waited for takes a few seconds at most
                await self._ended.wait()
                await close_if_made_here(uncached(self._worker.observer.backend))

    async def _work(self, worker: Worker) -> None:
        try:
            with self._scope:
                while True:
                    with anyio.CancelScope() as self._current:
                        await worker.run(self._ready.set)
                    await close_if_made_here(uncached(worker.observer.backend))
                    self._worker = worker = self._choose() or worker
        finally:
            self._ended.set()
