"""The switch of one app: its status for requests, and the workers that report for the app.

The status comes from a test that forces it, else from `enabled`, unless this process has a hold open, else from the
state of the backend; `fail_closed` decides while no state is known.
"""

from datetime import datetime
from functools import partial
from weakref import WeakValueDictionary

import anyio
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fastapi_maintenance._helpers import background, clock
from fastapi_maintenance._helpers.logs import HINT, get_logger
from fastapi_maintenance._helpers.process import alive
from fastapi_maintenance._helpers.waiting import ANSWER_TIMEOUT, current_loop
from fastapi_maintenance._routing.forced_by_tests import forcing_of, open_forcings
from fastapi_maintenance._routing.layers import layers_of
from fastapi_maintenance._switch import current_backend, holds
from fastapi_maintenance._switch.reports import find_registry
from fastapi_maintenance._switch.requests import AskAgain, RequestInProgress, Served
from fastapi_maintenance._switch.settings import Settings
from fastapi_maintenance._switch.source import Source
from fastapi_maintenance._switch.websockets import ClosableWebSocket
from fastapi_maintenance._switch.worker import Worker
from fastapi_maintenance.backends.last_known import key_of, uncached
from fastapi_maintenance.backends.url import close_if_made_here
from fastapi_maintenance.state import MaintenanceState, MaintenanceStatus, Switch, next_change, status_of
from fastapi_maintenance.typing import StateBackend

_NO_LIFESPAN = (
    "no lifespan runs for this app, so a drain does not wait for its requests: let the server run it, and add the "
    "middleware to the outermost app and not to one that is mounted in it"
)
_QUIET_POLL = 0.05  # seconds
_hints = get_logger("fastapi_maintenance.hints.lifespan")
ON, OFF = MaintenanceStatus(active=True), MaintenanceStatus(active=False)
"""Statuses that do not come from a backend."""


class AppSwitch:
    """The switch of the app behind one middleware, which is `layer`."""

    def __init__(self, layer: ASGIApp, settings: Settings, ask_again: AskAgain) -> None:
        self.served = Served(ask_again)
        self._layer = layer
        self.given = settings.backend
        self._source = Source(current_backend.default_backend() if settings.backend is None else settings.backend)
        self._unknown = MaintenanceState(switch=Switch(on=settings.fail_closed))
        self.read_seconds = settings.read_timeout
        self._by_setting = None if settings.enabled is None else MaintenanceState(switch=Switch(on=settings.enabled))
        self._workers: list[Worker] = []
        self._needs_no_hint = False
        self._has_ended = False
        self._last: tuple[MaintenanceState, MaintenanceStatus, datetime, datetime | None] | None = None
        _switches[id(self)] = self

    def forget(self) -> None:
        """Exclude this switch from drains: its middleware was made only to inspect it."""
        _switches.pop(id(self), None)

    @property
    def needs_worker(self) -> bool:
        """Whether the app has not ended and no worker reports for it, such as when no lifespan runs."""
        return not self._has_ended and not any(each.is_counted and not each.has_ended() for each in self._workers)

    @property
    def backend(self) -> StateBackend:
        """The backend in use: the given one, else the default."""
        return self._current_source().backend

    def status(self, scope: Scope) -> MaintenanceStatus | None:
        """Return the status for a request; None if the backend has to be read first (`read_status`)."""
        if open_forcings:
            forcing = forcing_of(self._layer, scope)
            if forcing is not None:
                return forcing.status
        source = self._source if self.given is not None else self._current_source()
        if self._by_setting is not None and not (holds.ledgers and holds.local_holds(source.backend)):
            return ON if self._by_setting.switch.on else OFF
        state = source.peek()
        if state is None:
            return None
        if not (state.switch.on or state.windows or state.holds or holds.ledgers):  # the usual case
            return OFF
        return self._status_of(holds.with_local(source.backend, state))

    async def read_status(self) -> MaintenanceStatus:
        """Read the backend and return the status; errors of the backend are logged, not raised."""
        return self._status_of(await self.known_state())

    async def known_state(self) -> MaintenanceState:
        """Return the state that counts for this app, the last known one while the backend is unavailable."""
        source = self._current_source()
        state = None if holds.local_holds(source.backend) else self._by_setting
        state = state or source.peek() or await source.read(self.read_seconds)
        return holds.with_local(source.backend, self._unknown if state is None else state)

    async def run_lifespan(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the lifespan of the app, with a worker from its start to its shutdown.

        Nothing is awaited after the app has sent its last message, as a server may cancel that.
        """
        worker: Worker | None = None

        async def receive_and_leave() -> Message:
            message = await receive()
            if message["type"] == "lifespan.shutdown":  # before the app closes the client of the backend
                await leave()
            return message

        async def start_worker_and_send(message: Message) -> None:
            nonlocal worker
            # By now the app has opened and configured its backend. If a test forces the app, no backend is followed.
            if message["type"] == "lifespan.startup.complete" and forcing_of(self._layer, scope) is None:
                worker = self._start_worker(counted=self._by_setting is None)
                with anyio.move_on_after(self.read_seconds):
                    await worker.ready.wait()
            await send(message)

        async def leave() -> None:
            closing = self._end(worker)
            if closing is not None and not self.served.requests:
                with anyio.move_on_after(2 * ANSWER_TIMEOUT):
                    await closing.ended()

        self._needs_no_hint, self._has_ended = True, False
        self.served.app = _app_of(app, scope)
        try:
            await app(scope, receive_and_leave, start_worker_and_send)
        except Exception:
            await leave()
            raise
        finally:
            self._has_ended = True
            self._end(worker)

    async def run_websocket(
        self, app: ASGIApp, request: RequestInProgress, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Run an app for a WebSocket, which is closed when maintenance begins and blocks it."""
        websockets, self.served.app = self.served.websockets, _app_of(app, scope)
        websockets[request] = websocket = ClosableWebSocket(scope, receive, send)
        here = [each for each in self._workers if each.loop is websocket.loop]
        worker = here[0] if here else self._start_worker(counted=False, is_for_websockets=True)
        worker.wake()
        try:
            await websocket.run(app)
        finally:
            websockets.pop(request, None)
            is_last = all(each.loop is not worker.loop for _, each in alive(websockets))
            if is_last and worker.is_for_websockets and worker in self._workers:
                self._workers.remove(worker)
                worker.end()

    def hint_at_missing_lifespan(self, scope: Scope) -> None:
        """Log once that drains do not wait for this app, if its lifespan has not run; `TestClient` need not run it."""
        if self._needs_no_hint or (scope.get("client") or ("",))[0] == "testclient":
            return
        self._needs_no_hint = True
        if find_registry(self.backend) is not None:
            _hints.warning(HINT, _NO_LIFESPAN, _hints.name)

    def _status_of(self, state: MaintenanceState) -> MaintenanceStatus:
        """Return the status of a state; the last result is reused until time may change it."""
        now = clock.now()
        if self._last is not None:
            last, status, begins, ends = self._last
            if state is last and begins <= now and (ends is None or now < ends):
                return status
        status = status_of(state, now)
        self._last = state, status, now, next_change(state, now)
        return status

    def _current_source(self) -> Source:
        """Return the source; if another backend has been configured, workers move to it from their own event loops."""
        if self.given is None:
            backend = current_backend.default_backend()
            if self._source.backend is not backend:
                self._source = Source(backend)
            for worker in self._workers:  # on the path of each request: no list is made
                if worker.backend is not backend and worker.loop is current_loop():
                    before = worker.backend
                    background.start(partial(_close, before, worker.move(backend)))
        return self._source

    def _start_worker(self, *, counted: bool, is_for_websockets: bool = False) -> Worker:
        worker = Worker(self.backend, self.served, counted=counted)
        worker.is_for_websockets = is_for_websockets
        for each in [each for each in self._workers if each.has_ended()]:
            self._workers.remove(each)
        self._workers.append(worker)  # in place: another event loop may do the same
        return worker

    def _end(self, worker: Worker | None) -> background.Task | None:
        """End a worker, once; return the task that closes its client."""
        if worker is None or worker not in self._workers:
            return None
        self._workers.remove(worker)
        if worker.loop is current_loop():
            return background.start(partial(_end, worker))
        worker.end()  # the garbage collector closes the lifespan, outside of its event loop
        return None


def _app_of(app: ASGIApp, scope: Scope) -> object:
    """Return the app around which the middleware is, or in whose stack."""
    return scope.get("app") or [*layers_of(app)][-1]


_switches: WeakValueDictionary[int, AppSwitch] = WeakValueDictionary()
"""The switches of the middlewares of this process, by their ids."""


def start_brief_workers(backend: StateBackend) -> list[Worker]:
    """Start a worker for each middleware of this process on this switch that has none, as without a lifespan."""
    here = [each for _, each in alive(_switches) if key_of(each.backend) == key_of(backend) and each.needs_worker]
    return [Worker(backend, each.served, is_brief=True) for each in here]


async def _end(worker: Worker) -> None:
    """End a worker once no request is in progress: some servers shut an app down before its background tasks end."""
    while worker.served.requests:  # noqa: ASYNC110 -- one may end in another event loop
        await anyio.sleep(_QUIET_POLL)
    await _close(worker.backend, worker.end())


async def _close(backend: StateBackend, tasks: list[background.Task]) -> None:
    """Wait for the end of these tasks; then close the client of the backend if it was made from a URL."""
    await background.all_ended(tasks)
    await close_if_made_here(uncached(backend))
