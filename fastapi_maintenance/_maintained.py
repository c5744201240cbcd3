"""An app with maintenance around it: the ASGI shell.

What the state is comes from the observer, and which route is meant from the app's own routes. `decide` has the order of
the decision, as one pure function.
"""

from __future__ import annotations

import inspect
import logging
from enum import Enum
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fastapi_maintenance._helpers import clock
from fastapi_maintenance._helpers.scope import as_http
from fastapi_maintenance._routing.finder import RouteFinder
from fastapi_maintenance._routing.layers import Way, all_layers_of
from fastapi_maintenance._settings import Settings, Unmatched
from fastapi_maintenance._switch import current_backend, forced, holds
from fastapi_maintenance._switch.follower import observe
from fastapi_maintenance._switch.lifespan import Following
from fastapi_maintenance._switch.observer import Observer
from fastapi_maintenance._switch.writes import key_of
from fastapi_maintenance.decorators import has_forced_on
from fastapi_maintenance.predicates import never
from fastapi_maintenance.predicates.verdicts import verdict_of
from fastapi_maintenance.responses.sending import send_blocked
from fastapi_maintenance.state import MaintenanceState, is_active
from fastapi_maintenance.typing import StateBackend

if TYPE_CHECKING:
    from fastapi_maintenance._routing.hints import Arrangement

__all__ = ["MaintainedApp", "Verdict", "decide"]

_logger = logging.getLogger("fastapi_maintenance")
_FORCED = MaintenanceState(active=True)
"""The state behind a block that no backend has asked for."""
_HINTS_TOLD = "fastapi_maintenance.hints"


class Verdict(Enum):
    """What to do with a request."""

    PASS = "pass"  # noqa: S105 -- not a password
    BLOCK = "block"
    ASK = "ask"
    """The predicate alone decides now: pass if it says so, else block."""


def decide(  # noqa: PLR0913 -- one keyword for each fact
    *,
    mark: bool | None,
    active: bool,
    answered: bool,
    documentation: bool,
    unmatched: Unmatched,
    exempt_docs: bool,
) -> Verdict:
    """Decide on an HTTP request or a WebSocket handshake; the first rule that applies counts.

    Args:
        mark: What the endpoint that will answer is forced to: True on, False off, None nothing.
        active: Whether there is maintenance.
        answered: Whether a route will answer, and not with 404 or 405.
        documentation: Whether that route is the app's own documentation.
        unmatched: What to do with a request that no route answers.
        exempt_docs: Whether the documentation stays open.

    """
    if mark is True:
        return Verdict.BLOCK
    if mark is False:
        return Verdict.PASS
    if not active:
        return Verdict.PASS
    if not answered and unmatched == "pass":
        return Verdict.PASS
    if documentation and exempt_docs:
        return Verdict.PASS
    return Verdict.ASK


class MaintainedApp:
    """An app with maintenance around it. The attribute `app` lets other middleware see through it."""

    def __init__(self, app: ASGIApp, settings: Settings, made_by: object) -> None:
        self.app = app
        self.settings = settings
        self._place: current_backend.Place = (settings.backend,)
        self._observer = self._observe(
            current_backend.default_backend() if settings.backend is None else settings.backend
        )
        self._following: Following | None = None
        self._finder = RouteFinder(app, made_by)

    @property
    def backend(self) -> StateBackend:
        """The backend that it asks."""
        return self._current_observer().backend

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        token = current_backend.enter(self._place)
        try:
            if scope["type"] == "lifespan":
                await self._live(scope, receive, send)
                return
            settings = self.settings
            seen: MaintenanceState | None = None
            if not (holds.ledgers or forced.open_forcings or settings.enabled is not None):
                seen = (self._observer if settings.backend is not None else self._current_observer()).peek()
            # One look tells that there is no maintenance, as there nearly never is, or that it takes a closer look.
            if seen is None or seen.active or seen.holds or has_forced_on():
                blocked_by = await self._reason(scope, seen)
                if blocked_by is not None:
                    await send_blocked(scope, receive, send, blocked_by, settings.response, settings.retry_after)
                    return
            await self.app(scope, receive, send)
        finally:
            current_backend.leave(token)

    async def _reason(self, scope: Scope, seen: MaintenanceState | None) -> MaintenanceState | None:
        """Return the state for which a request is blocked, None where it passes.

        Where a look has seen none, or one that depends on the time or on holds, it is made out now.
        """
        if scope["type"] not in ("http", "websocket"):
            return None
        state = seen
        if seen is None or seen.holds or seen.starts_at is not None or seen.ends_at is not None:
            state = await self._active_state(scope)
        elif not seen.active:
            state = None
        if state is None and not has_forced_on():
            return None
        settings = self.settings
        scope, answer = self._finder.find(scope)
        verdict = decide(
            mark=answer.mark,
            active=state is not None,
            answered=answer.answered,
            documentation=answer.documentation,
            unmatched=settings.unmatched,
            exempt_docs=settings.exempt_docs,
        )
        if verdict is Verdict.PASS:
            return None
        if verdict is Verdict.ASK and settings.exempt is not never and await self._is_exempt(scope):
            return None
        return _FORCED if answer.mark else state

    async def _live(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the lifespan of the app, and follow the backend meanwhile."""
        told: set[str] = scope.setdefault(_HINTS_TOLD, set())  # by this and other middlewares of the app

        async def send_after_hints(message: Message) -> None:
            if message["type"] == "lifespan.startup.complete":  # all routes that the app starts with are there
                from fastapi_maintenance._routing.hints import give  # noqa: PLC0415 -- needed here alone

                give(lambda: self._arrangement(scope), told)
            await send(message)

        self._following = Following(lambda: self._observer_in(scope), patience=self.settings.read_timeout)
        try:
            await self._following.run(self.app, scope, receive, send_after_hints)
        finally:
            self._following = None

    def _arrangement(self, lifespan: Scope) -> Arrangement:
        from fastapi_maintenance._routing.hints import Arrangement  # noqa: PLC0415 -- as above
        from fastapi_maintenance._routing.listing import listed  # noqa: PLC0415 -- as above

        layers = list(all_layers_of(self.app))
        app = lifespan.get("app")
        router, _, unknown = self._finder.router_in(lifespan)
        router = app.router if isinstance(app, Starlette) else router
        switches = [key_of(layer.backend) for layer in layers if isinstance(layer, MaintainedApp)]
        routes = [] if router is None else list(listed(router.routes))
        unknown = [] if router is None else list(unknown)
        for way in (Way(route.app) for route in routes):
            unknown += way.unknown if way.router is not None else ()
        return Arrangement(
            layers=layers,
            twice=bool(switches) and key_of(self.backend) in switches,
            exempt=self.settings.exempt,
            unknown=unknown if self.settings.unmatched == "pass" else (),
            routes=routes,
            ask=lambda method, path: self._finder.find(
                as_http({"type": "http", "method": method, "path": path, "app": app})
            )[1],
        )

    def _observer_in(self, lifespan: Scope) -> Observer:
        """Return whom to follow: nobody where the app starts while it is forced."""
        observer, settings = self._current_observer(), self.settings
        if forced.forcing_of(self, lifespan) is None:
            return observer
        return Observer(observer.backend, fail_closed=settings.fail_closed, read_timeout=settings.read_timeout)

    def _current_observer(self) -> Observer:
        if self.settings.backend is None and self._observer.backend is not current_backend.default_backend():
            self._observer = self._observe(current_backend.default_backend())  # configured since
            if self._following is not None:
                self._following.turn_to(self._observer)
        return self._observer

    async def _is_exempt(self, scope: Scope) -> bool:
        exempt = self.settings.exempt
        try:
            said: Any = exempt(Request(as_http(scope)))  # anybody's, so it may be anything
            return verdict_of(await said if inspect.isawaitable(said) else said) is True
        except Exception:
            _logger.exception("The predicate %r failed; the request is not exempt", exempt)
            return False

    async def _active_state(self, scope: Scope) -> MaintenanceState | None:
        """Return the state if there is maintenance now: by the newest hold, else `enabled`, else the backend.

        A test that forces the app overrules all of them.
        """
        forcing = forced.forcing_of(self, scope)
        if forcing is not None:
            return forcing.state
        observer = self._current_observer()
        hold = holds.newest(observer.backend)
        if hold is None and self.settings.enabled is not None:
            return _FORCED if self.settings.enabled else None
        if hold is not None and not hold.active:
            return None
        state = observer.peek() or await observer.read()
        if hold is not None:
            return holds.with_local(observer.backend, state)
        return state if is_active(state, clock.now()) else None

    def _observe(self, backend: StateBackend) -> Observer:
        settings = self.settings
        return observe(backend, fail_closed=settings.fail_closed, read_timeout=settings.read_timeout)
