"""A worker: an app in this process while it is served, which follows its switch and knows its requests in progress.

Why no request slips through a drain: a backend counts a worker before the worker reads its first state, and whoever
drains writes a hold before asking which workers are counted. So a worker that is not asked reads the hold before it
serves. A worker that is asked reports which holds it has read, and how many of its requests in progress they block. It
notes each request before that looks at the state, and looks at the state before it goes through what it noted. So a
request that is missing from a report looked at the state after the hold was read, and was blocked.
"""

from __future__ import annotations

import math
import os
import socket
import uuid
from collections.abc import Callable

import anyio
from anyio.abc import TaskGroup
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fastapi_maintenance._helpers import clock
from fastapi_maintenance._helpers.waiting import ANSWER_TIMEOUT, current_loop, in_time
from fastapi_maintenance._switch import holds
from fastapi_maintenance._switch.drain import report_of
from fastapi_maintenance._switch.observer import Observer, watched_by
from fastapi_maintenance._switch.requests import RequestInProgress, Served, is_excused
from fastapi_maintenance.backends.cached import uncached
from fastapi_maintenance.backends.url import close_if_made_here
from fastapi_maintenance.state import MaintenanceState, is_active, next_change
from fastapi_maintenance.typing import DrainableStateBackend

__all__ = ["Lifespan", "Worker"]

_LOOK_AGAIN = 0.05  # seconds, while requests are waited for: one may end in another event loop
_POLL = 1.0  # seconds


class Worker:
    """Follow the state for as long as an app is served; report requests in progress, and close WebSockets.

    Args:
        observer: Knows the state.
        served: What is in progress.

    """

    def __init__(self, observer: Observer, served: Served) -> None:
        self.id = f"{socket.gethostname()[:64]}.{os.getpid()}.{uuid.uuid4().hex[:12]}"
        self.observer = observer
        self._served = served
        self._loop = current_loop()
        self._changed = anyio.Event()
        self._decided_by: object = None
        self._verdicts: dict[RequestInProgress, bool] = {}
        self._reported: object = None

    async def run(self, ready: Callable[[], None]) -> None:
        """Do so until this is cancelled; call `ready` when the state is known, or the store is away."""

        def notice() -> None:
            ready()
            self._changed.set()

        async with anyio.create_task_group() as group:
            group.start_soon(self.observer.follow, self.id, notice)
            while True:
                self._changed = changed = anyio.Event()
                pause = await self._look(group)
                with anyio.move_on_after(pause):
                    await changed.wait()

    async def _look(self, group: TaskGroup) -> float:
        """Report and close what is to be; return the seconds after which to look again though nothing is told."""
        observer, served = self.observer, self._served
        poll = math.inf if observer.is_followed else _POLL
        if not (observer.watches or served.websockets):
            return poll
        state = observer.peek() or await observer.read()
        blocked = await self._blocked(state)
        for request in blocked:
            websocket = served.websockets.get(request)
            if websocket is not None:
                group.start_soon(websocket.close)
        waited_for = [request for request in blocked if not is_excused(request)]
        served.on_end = self._request_ended if waited_for else None
        is_reported = await self._report(state, waited_for)
        pause = _LOOK_AGAIN if waited_for else poll if is_reported else _POLL
        change = next_change(state, clock.now())
        return pause if change is None else min(pause, _POLL, max(0.0, (change - clock.now()).total_seconds()))

    async def _blocked(self, state: MaintenanceState) -> list[RequestInProgress]:
        """Return the requests in progress that maintenance would block now."""
        if not (state.active or state.holds or holds.ledgers):
            return []
        requests = tuple(self._served.requests)
        decided_by = state, is_active(state, clock.now()), bool(holds.ledgers)
        known = self._verdicts if decided_by == self._decided_by else {}
        self._decided_by = decided_by
        self._verdicts = {
            request: known[request] if request in known else await self._served.would_block(request)
            for request in requests
        }
        return [request for request in requests if self._verdicts[request] and request in self._served.requests]

    async def _report(self, state: MaintenanceState, requests: list[RequestInProgress]) -> bool:
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
