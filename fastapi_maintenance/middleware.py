"""The ASGI shell around an app: `maintenance_middleware(...)`, and a class for those who prefer one.

No rule lives here. What the state is comes from the observer, which route is meant from the app's own routes, and what
to do from the decision.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from typing import TypeGuard

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Router
from starlette.types import ASGIApp, Receive, Scope, Send

from fastapi_maintenance import _clock, _current, _holds
from fastapi_maintenance._answer import send_blocked
from fastapi_maintenance._decision import Unmatched, Verdict, decide
from fastapi_maintenance._follower import observe
from fastapi_maintenance._forcing import forcing_of
from fastapi_maintenance._layers import layers_of
from fastapi_maintenance._lifespan import Following
from fastapi_maintenance._observer import Observer
from fastapi_maintenance._routes import OPAQUE, Answer, entered, find_answer, router_of
from fastapi_maintenance._scope import as_http, is_preflight
from fastapi_maintenance._settings import Settings
from fastapi_maintenance.backends.url import as_backend
from fastapi_maintenance.decorators import has_forced_on
from fastapi_maintenance.predicates import never
from fastapi_maintenance.responses import as_json
from fastapi_maintenance.state import MaintenanceState, is_active
from fastapi_maintenance.typing import ExemptCallback, ResponseCallback, StateBackend

__all__ = ["MaintenanceModeMiddleware", "backend_of", "is_maintenance", "maintenance_middleware"]

_logger = logging.getLogger("fastapi_maintenance")
_FORCED = MaintenanceState(active=True)
"""The state behind a block that no backend has asked for."""


def maintenance_middleware(  # noqa: PLR0913 -- each is a setting with a default
    *,
    backend: StateBackend | str | None = None,
    enabled: bool | None = None,
    exempt: ExemptCallback | None = None,
    response: ResponseCallback | None = None,
    exempt_docs: bool = True,
    unmatched: Unmatched = "pass",
    retry_after: int | tuple[int, int] = 3600,
    fail_closed: bool = False,
    read_timeout: float = 1.0,
) -> Callable[[ASGIApp], ASGIApp]:
    """Return a middleware, for `app.add_middleware(maintenance_middleware(...))` or to be called with any ASGI app.

    Args:
        backend: Where the switch is kept, or its URL for `backend_from_url`; None: the one given to
            `configure_backend`, else the environment variable `FASTAPI_MAINTENANCE_MODE`.
        enabled: True or False overrules the backend; None: the backend decides.
        exempt: A predicate, sync or async, that says which requests pass. One that raises exempts nothing.
        response: A function, sync or async, from the request to the response; None: `as_json()`.
        exempt_docs: Whether the app's own documentation URLs stay open.
        unmatched: `"pass"` leaves to the app what it would answer with 404 or 405, its redirects of trailing slashes,
            and CORS preflights; `"block"` blocks them too.
        retry_after: Seconds for the `Retry-After` header (RFC 9110 10.2.3) where the end of maintenance is not known;
            or a pair, the least and the most: each response gets its own between them, and where the end is known up to
            their difference more, so that clients do not all come back at once.
        fail_closed: Whether there is maintenance while the backend cannot be read and no state is known.
        read_timeout: Seconds that one read of the backend may hold a request.

    Raises:
        TypeError: An argument is of the wrong type.
        ValueError: `unmatched` is neither of its words, `retry_after` is below zero or the wrong way round,
            `read_timeout` is not above zero, or `backend` is a URL that names none.

    """
    settings = Settings(
        backend=None if backend is None else as_backend("backend", backend),
        enabled=enabled,
        exempt=never if exempt is None else exempt,
        response=as_json() if response is None else response,
        exempt_docs=exempt_docs,
        unmatched=unmatched,
        retry_after=retry_after,
        fail_closed=fail_closed,
        read_timeout=read_timeout,
    )
    _current.made(settings.backend)

    def maintenance(app: ASGIApp) -> ASGIApp:  # Starlette before 0.39 gives it by its name
        return _MaintainedApp(app, settings, made_by=maintenance)

    return maintenance


class _MaintainedApp:
    """An app with maintenance around it. The attribute `app` lets other middleware see through it."""

    def __init__(self, app: ASGIApp, settings: Settings, made_by: object) -> None:
        self.app = app
        self._settings = settings
        self._made_by = made_by
        self._place: _current.Place = (settings.backend,)
        self._observer = self._observe(_current.default_backend() if settings.backend is None else settings.backend)
        self._following: Following | None = None

    @property
    def backend(self) -> StateBackend:
        """The backend that it asks."""
        return self._current_observer().backend

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        token = _current.enter(self._place)
        try:
            if scope["type"] == "lifespan":
                await self._live(scope, receive, send)
                return
            state = await self._state_behind_block(scope) if scope["type"] in ("http", "websocket") else None
            if state is None:
                await self.app(scope, receive, send)
            else:
                settings = self._settings
                await send_blocked(
                    scope, receive, send, state=state, response=settings.response, retry_after=settings.retry_after
                )
        finally:
            _current.leave(token)

    async def _live(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the lifespan of the app, and follow the backend meanwhile."""
        self._following = Following(lambda: self._observer_in(scope), patience=self._settings.read_timeout)
        try:
            await self._following.run(self.app, scope, receive, send)
        finally:
            self._following = None

    def _observer_in(self, lifespan: Scope) -> Observer:
        """Return whom to follow: nobody where the app starts while it is forced."""
        observer, settings = self._current_observer(), self._settings
        if forcing_of(self, lifespan) is None:
            return observer
        return Observer(observer.backend, fail_closed=settings.fail_closed, read_timeout=settings.read_timeout)

    def _current_observer(self) -> Observer:
        if self._settings.backend is None and self._observer.backend is not _current.default_backend():
            self._observer = self._observe(_current.default_backend())  # configured since
            if self._following is not None:
                self._following.turn_to(self._observer)
        return self._observer

    async def _state_behind_block(self, scope: Scope) -> MaintenanceState | None:
        """Return the state for which the request is blocked, None where it passes."""
        settings = self._settings
        state = await self._active_state(scope)
        if state is None and not has_forced_on():
            return None
        router, owner = router_of(self.app)
        scope = entered(owner, scope)
        answer = self._find_answer(router, owner, scope)
        verdict = decide(
            mark=answer.mark,
            active=state is not None,
            answered=answer.answered and not is_preflight(scope),
            documentation=answer.documentation,
            unmatched=settings.unmatched,
            exempt_docs=settings.exempt_docs,
        )
        if verdict is Verdict.PASS or (verdict is Verdict.ASK and await self._is_exempt(scope)):
            return None
        return _FORCED if answer.mark else state

    async def _active_state(self, scope: Scope) -> MaintenanceState | None:
        """Return the state if there is maintenance now: by the newest hold, else `enabled`, else the backend.

        A test that forces the app overrules all of them.
        """
        forcing = forcing_of(self, scope)
        if forcing is not None:
            return forcing.state
        observer = self._current_observer()
        hold = _holds.newest(observer.backend)
        if hold is None and self._settings.enabled is not None:
            return _FORCED if self._settings.enabled else None
        if hold is not None and not hold.active:
            return None
        state = observer.peek() or await observer.read()
        if hold is not None:
            return _holds.with_local(observer.backend, state)
        return state if is_active(state, _clock.now()) else None

    def _find_answer(self, router: Router | None, owner: Starlette | None, scope: Scope) -> Answer:
        app = scope.get("app")
        if owner is None and isinstance(app, Starlette):
            # The app in the scope is meant if its router is what was found, or, where middleware in between hides the
            # router, if this very middleware was added to it.
            added = router is None and any(middleware.cls is self._made_by for middleware in app.user_middleware)
            if added or app.router is router:
                router, owner = app.router, app
        return OPAQUE if router is None else find_answer(router, owner, scope)

    async def _is_exempt(self, scope: Scope) -> bool:
        exempt = self._settings.exempt
        try:
            verdict = exempt(Request(as_http(scope)))
            return bool(await verdict if inspect.isawaitable(verdict) else verdict)
        except Exception:
            _logger.exception("The predicate %r failed; the request is not exempt", exempt)
            return False

    def _observe(self, backend: StateBackend) -> Observer:
        settings = self._settings
        return observe(backend, fail_closed=settings.fail_closed, read_timeout=settings.read_timeout)


class MaintenanceModeMiddleware(_MaintainedApp):
    """The middleware as a class: `app.add_middleware(MaintenanceModeMiddleware, backend=...)`.

    Args:
        app: The app to wrap.
        backend: As for `maintenance_middleware`.
        enable_maintenance: Its `enabled`.
        exempt_callback: Its `exempt`.
        exempt_handler: The name of `exempt_callback` in releases 0.0.1 to 0.0.5.
        response_callback: Its `response`.
        response_handler: The name of `response_callback` in releases 0.0.1 to 0.0.5.
        exempt_docs: As for `maintenance_middleware`; and so the others.
        unmatched: See there.
        retry_after: See there.
        fail_closed: See there.
        read_timeout: See there.

    Raises:
        TypeError: Both names of one thing are given; and as `maintenance_middleware` does.
        ValueError: As `maintenance_middleware` does.

    """

    def __init__(  # noqa: PLR0913 -- each is a setting with a default
        self,
        app: ASGIApp,
        *,
        backend: StateBackend | str | None = None,
        enable_maintenance: bool | None = None,
        exempt_callback: ExemptCallback | None = None,
        exempt_handler: ExemptCallback | None = None,
        response_callback: ResponseCallback | None = None,
        response_handler: ResponseCallback | None = None,
        exempt_docs: bool = True,
        unmatched: Unmatched = "pass",
        retry_after: int | tuple[int, int] = 3600,
        fail_closed: bool = False,
        read_timeout: float = 1.0,
    ) -> None:
        _check_one_name("exempt", exempt_callback, exempt_handler)
        _check_one_name("response", response_callback, response_handler)
        exempt = exempt_handler if exempt_callback is None else exempt_callback
        response = response_handler if response_callback is None else response_callback
        settings = Settings(
            backend=None if backend is None else as_backend("backend", backend),
            enabled=enable_maintenance,
            exempt=never if exempt is None else exempt,
            response=as_json() if response is None else response,
            exempt_docs=exempt_docs,
            unmatched=unmatched,
            retry_after=retry_after,
            fail_closed=fail_closed,
            read_timeout=read_timeout,
        )
        _current.made(settings.backend)
        super().__init__(app, settings, made_by=type(self))


def backend_of(app: Starlette) -> StateBackend | None:
    """Return the backend of the outermost maintenance middleware that was added to an app, None if there is none."""
    return next((layer.backend for layer in layers_of(app.build_middleware_stack()) if is_maintenance(layer)), None)


def is_maintenance(layer: object) -> TypeGuard[_MaintainedApp]:
    """Tell whether this is an app with maintenance around it."""
    return isinstance(layer, _MaintainedApp)


def _check_one_name(name: str, callback: object, handler: object) -> None:
    if callback is not None and handler is not None:
        msg = f"{name}_callback and {name}_handler are two names of one thing, got both"
        raise TypeError(msg)
