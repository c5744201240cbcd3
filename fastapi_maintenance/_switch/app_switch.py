"""The status for the requests of one app: by a test that forces it, `enabled`, or the state of its switch."""

import logging
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal, TypedDict

from starlette.types import ASGIApp, Receive, Scope, Send

from fastapi_maintenance._helpers import clock
from fastapi_maintenance._helpers.checks import check_bool, check_callable, check_retry_after, check_seconds
from fastapi_maintenance._routing import forced
from fastapi_maintenance._switch import current_backend, holds
from fastapi_maintenance._switch.observer import Observer, observe, watched_by
from fastapi_maintenance._switch.requests import Served
from fastapi_maintenance._switch.worker import Lifespan, Worker
from fastapi_maintenance.state import MaintenanceState, MaintenanceStatus, Switch, next_change, status_of
from fastapi_maintenance.typing import DrainableStateBackend, ExemptCallback, ResponseCallback, StateBackend

_NO_LIFESPAN = (
    "no lifespan runs for this app, so a drain does not wait for its requests, and open WebSockets are not closed: let "
    "the server run it, and add the middleware to the outermost app and not to one that is mounted in it"
)
_hints = logging.getLogger("fastapi_maintenance.hints.lifespan")
Unmatched = Literal["pass", "block"]
RetryAfter = int | timedelta | tuple[int, int] | tuple[timedelta, timedelta]
ON, _OFF = MaintenanceStatus(active=True), MaintenanceStatus(active=False)
"""The status where no backend was asked."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of one middleware, checked at once; see `maintenance_middleware` for their meaning."""

    backend: StateBackend | None
    enabled: bool | None
    exempt: ExemptCallback
    response: ResponseCallback
    exempt_docs: bool = True
    unmatched: Unmatched = "pass"
    retry_after: RetryAfter = 3600
    fail_closed: bool = False
    read_timeout: float | timedelta = 1.0
    close_websockets: bool = True
    retry_seconds: tuple[int, int] = field(init=False)
    read_seconds: float = field(init=False)

    def __post_init__(self) -> None:
        if self.enabled is not None:
            check_bool("enabled", self.enabled)
        check_callable("exempt", self.exempt)
        check_callable("response", self.response)
        check_bool("exempt_docs", self.exempt_docs)
        if self.unmatched not in ("pass", "block"):
            msg = f"unmatched must be 'pass' or 'block', got {self.unmatched!r}"
            raise ValueError(msg)
        check_bool("fail_closed", self.fail_closed)
        check_bool("close_websockets", self.close_websockets)
        object.__setattr__(self, "retry_seconds", check_retry_after("retry_after", self.retry_after))
        object.__setattr__(self, "read_seconds", check_seconds("read_timeout", self.read_timeout))
        current_backend.made(self.backend)


class CommonSettings(TypedDict, total=False):
    """The settings that have one name in the factory and in the class."""

    exempt_docs: bool
    unmatched: Unmatched
    retry_after: RetryAfter
    fail_closed: bool
    read_timeout: float | timedelta
    close_websockets: bool


class AppSwitch:
    """The switch of one app, as its middleware was told.

    Args:
        layer: The middleware.
        settings: What it was told.
    """

    def __init__(self, layer: ASGIApp, settings: Settings) -> None:
        self._layer = layer
        self._settings = settings
        self.given = settings.backend
        self._is_overruled = settings.enabled is not None
        self._observer = self._observe()
        self._lifespan: Lifespan | None = None
        self._had_lifespan = False
        self._known: tuple[MaintenanceState, MaintenanceStatus, datetime, datetime | None] | None = None

    @property
    def backend(self) -> StateBackend:
        """The backend that is asked."""
        return self._current_observer().backend

    def peek(self) -> MaintenanceState | None:
        """Return the state that the backend is known to be in; None where that takes a closer look."""
        if holds.ledgers or forced.open_forcings or self._is_overruled:
            return None
        return (self._observer if self.given is not None else self._current_observer()).peek()

    async def known_state(self) -> MaintenanceState:
        """Return the state of the backend, the last known one while it is away, or what overrules it."""
        observer = self._current_observer()
        if self._is_overruled and not holds.local_holds(observer.backend):
            return MaintenanceState(switch=Switch(on=bool(self._settings.enabled)))
        return holds.with_local(observer.backend, observer.peek() or await observer.read())

    async def status(self, scope: Scope) -> MaintenanceStatus:
        """Return the status for a request: the one that a test forces, else by `enabled`, else by the state.

        `enabled` does not count while this process holds the switch.
        """
        forcing = forced.forcing_of(self._layer, scope)
        if forcing is not None:
            return forcing.status
        observer = self._current_observer()
        if self._is_overruled and not holds.local_holds(observer.backend):
            return ON if self._settings.enabled else _OFF
        return self._status_of(holds.with_local(observer.backend, observer.peek() or await observer.read()))

    def _status_of(self, state: MaintenanceState) -> MaintenanceStatus:
        """Return the status of a state; the last one is remembered until time may change it."""
        now = clock.now()
        if self._known is not None:
            known, status, begins, ends = self._known
            if state is known and begins <= now and (ends is None or now < ends):
                return status
        status = status_of(state, now)
        self._known = state, status, now, next_change(state, now)
        return status

    def hint_at_missing_lifespan(self) -> None:
        """Log once that no drain waits for this app, where nobody has run its lifespan."""
        if self._had_lifespan:
            return
        self._had_lifespan = True
        if isinstance(watched_by(self.backend), DrainableStateBackend):
            _hints.warning("%s (silenced by the logger %s)", _NO_LIFESPAN, _hints.name)

    async def run_lifespan(self, app: ASGIApp, served: Served, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the lifespan of the app, and have a worker meanwhile."""

        def choose() -> Worker | None:
            observer = self._current_observer()
            # an app that starts while a test forces it follows nothing
            return Worker(observer, served) if forced.forcing_of(self._layer, scope) is None else None

        self._had_lifespan = True
        self._lifespan = Lifespan(choose, patience=self._settings.read_seconds)
        try:
            await self._lifespan.run(app, scope, receive, send)
        finally:
            self._lifespan = None

    def _current_observer(self) -> Observer:
        if self.given is None and self._observer.backend is not current_backend.default_backend():
            self._observer = self._observe()  # another default backend has been configured
            if self._lifespan is not None:
                self._lifespan.choose_again()
        return self._observer

    def _observe(self) -> Observer:
        settings = self._settings
        backend = current_backend.default_backend() if settings.backend is None else settings.backend
        return observe(backend, fail_closed=settings.fail_closed, read_timeout=settings.read_seconds)
