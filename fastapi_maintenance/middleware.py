"""The middleware: the ASGI shell, and the order of the decision.

`maintenance_middleware(...)` makes it, and `MaintenanceModeMiddleware` is a class for those who prefer one.
"""

from collections.abc import Callable, Iterator
from contextvars import copy_context
from datetime import timedelta
from functools import partial
from time import time
from typing import TypeGuard, Unpack

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

from fastapi_maintenance._helpers.applications import Starlette
from fastapi_maintenance._helpers.logs import get_logger
from fastapi_maintenance._helpers.telemetry import request_was_blocked
from fastapi_maintenance._helpers.waiting import in_time
from fastapi_maintenance._routing.finder import RouteFinder
from fastapi_maintenance._routing.hints import hints_on, with_hints
from fastapi_maintenance._routing.layers import all_layers_of
from fastapi_maintenance._switch import current_backend
from fastapi_maintenance._switch.app_switch import ON, AppSwitch, CommonSettings, RetryAfter, Settings, Unmatched
from fastapi_maintenance._switch.requests import Blocked, RequestInProgress, enter, leave
from fastapi_maintenance.backends.known import key_of
from fastapi_maintenance.backends.url import as_backend
from fastapi_maintenance.decorators import has_forced_on
from fastapi_maintenance.predicates import never
from fastapi_maintenance.predicates.verdicts import exempts
from fastapi_maintenance.responses import as_json
from fastapi_maintenance.responses.sending import send_blocked
from fastapi_maintenance.state import MaintenanceStatus
from fastapi_maintenance.typing import ExemptCallback, ResponseCallback, StateBackend

__all__ = ["MaintenanceModeMiddleware", "backend_of", "is_maintenance", "maintained_layers", "maintenance_middleware"]

_logger = get_logger()


def decide(  # noqa: PLR0913 -- one keyword for each fact
    *,
    mark: bool | None,
    active: bool,
    answered: bool,
    documentation: bool,
    unmatched: Unmatched,
    exempt_docs: bool,
) -> bool | None:
    """Return whether to block an HTTP request or a WebSocket handshake; None where the predicate alone decides.

    The first rule that applies counts.

    Args:
        mark: What the endpoint that will answer is forced to: True on, False off, None nothing.
        active: Whether maintenance is on.
        answered: Whether a route will answer, and not with 404 or 405.
        documentation: Whether that route is the app's own documentation.
        unmatched: What to do with a request that no route answers.
        exempt_docs: Whether the documentation stays open.
    """
    if mark is not None:
        return mark
    if not active:
        return False
    if not answered and unmatched == "pass":
        return False
    if documentation and exempt_docs:
        return False
    return None


class MaintainedApp:
    """An app with maintenance around it. The attribute `app` lets other middleware see through it."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app = app
        self.settings = settings
        self._finder = RouteFinder(app, around=self)
        self._switch = AppSwitch(self, settings, self._ask_again)
        self._served = self._switch.served

    @property
    def backend(self) -> StateBackend:
        """The backend that it asks."""
        return self._switch.backend

    def forget(self) -> None:
        """Take no part in drains: this was made to be looked at."""
        self._switch.forget()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        served, switch, kind, request = self._served, self._switch, scope["type"], RequestInProgress(scope)
        request.began, request.switch, request.token = time(), switch, enter(request)
        request.context, request.has_passed = copy_context(), False
        served.requests.add(request)
        try:
            if kind == "lifespan":
                served.requests.remove(request)
                await switch.run_lifespan(self.app, scope, receive, with_hints(scope, send, self._hints(scope)))
                return
            if kind in ("http", "websocket"):
                status = switch.status(scope) or await switch.read_status()
                if status.active or has_forced_on():
                    switch.hint_at_missing_lifespan(scope)
                    blocks, blocked, as_read = self._decide(scope, status)
                    if blocks is None:
                        exempt = self.settings.exempt
                        blocks = exempt is never or not await exempts(exempt, as_read)
                    if blocks:
                        served.requests.remove(request)
                        request_was_blocked(blocked.route)
                        settings = self.settings
                        await send_blocked(
                            scope, receive, send, blocked.status, settings.response, settings.retry_seconds
                        )
                        return
                    request.has_passed = status.active
            if kind == "websocket" and self.settings.close_websockets:
                await switch.run_websocket(self.app, request, scope, receive, send)
                return
            await self.app(scope, receive, send)
        finally:
            served.requests.discard(request)
            leave(request)
            if served.on_end is not None:
                served.on_end()

    def _decide(self, scope: Scope, status: MaintenanceStatus) -> tuple[bool | None, Blocked, Scope]:
        """Return whether to block a request by this status, why, and the scope as the application reads it.

        None: the predicate decides.
        """
        as_read, answer = self._finder.find(scope)
        blocks = decide(
            mark=answer.mark,
            active=status.active,
            answered=answer.answered,
            documentation=answer.documentation,
            unmatched=self.settings.unmatched,
            exempt_docs=self.settings.exempt_docs,
        )
        return blocks, Blocked(ON if answer.mark else status, answer.path), as_read

    async def _ask_again(self, request: RequestInProgress) -> Blocked | None:
        """Return why a request in progress would be blocked if it began now; None if it would pass.

        A predicate that takes too long does not exempt it.
        """
        status = self._switch.status(request) or await self._switch.read_status()
        blocks, blocked, as_read = self._decide(request, status)
        exempt, seconds = self.settings.exempt, self._switch.read_seconds
        if blocks is None:
            try:
                with in_time(seconds):
                    blocks = not await exempts(exempt, as_read)
            except TimeoutError:
                text = "The predicate %r, asked again, took longer than %g seconds; the request is not exempt"
                _logger.error(text, exempt, seconds)  # noqa: TRY400 -- nothing of the predicate raised it
                blocks = True
        return blocked if blocks else None

    def _hints(self, scope: Scope) -> Iterator[tuple[str, str]]:
        switches = [key_of(layer.backend) for layer in maintained_layers(self.app)]
        yield from hints_on(
            self._finder,
            scope,
            twice=bool(switches) and key_of(self.backend) in switches,
            exempt=self.settings.exempt,
            passes=self.settings.unmatched == "pass",
        )


def maintenance_middleware(  # noqa: PLR0913 -- each is a setting with a default
    *,
    backend: StateBackend | str | None = None,
    enabled: bool | None = None,
    exempt: ExemptCallback | None = None,
    response: ResponseCallback | None = None,
    exempt_docs: bool = True,
    unmatched: Unmatched = "pass",
    retry_after: RetryAfter = 3600,
    fail_closed: bool = False,
    read_timeout: float | timedelta = 1.0,
    close_websockets: bool = True,
) -> Callable[[ASGIApp], ASGIApp]:
    """Return a middleware, for `app.add_middleware(maintenance_middleware(...))` or to be called with any ASGI app.

    >>> from fastapi import FastAPI
    >>> from fastapi_maintenance import path_prefix
    >>> app = FastAPI()
    >>> app.add_middleware(maintenance_middleware(backend="memory:", exempt=path_prefix("/health")))

    Args:
        backend: Where the switch is kept, or its URL for `backend_from_url`; None: the one given to
            `configure_backend`, else the environment variable `FASTAPI_MAINTENANCE_MODE`.
        enabled: True or False overrules the backend; None: the backend decides.
        exempt: A predicate, sync or async, that says which requests pass. One that raises exempts nothing.
        response: A function, sync or async, from the request to the response; None: `as_json()`.
        exempt_docs: Whether the app's own documentation URLs stay open.
        unmatched: `"pass"` leaves to the app what it would answer with 404 or 405, its redirects of trailing slashes,
            and CORS preflights that a `CORSMiddleware` inside answers; `"block"` blocks them too.
        retry_after: Whole seconds, or a timedelta, for the `Retry-After` header (RFC 9110 10.2.3) if the end of
            maintenance is not known; or a (min, max) pair: each response gets a random value in it, and if the end is
            known up to max - min seconds more, so that clients do not all come back at once.
        fail_closed: Whether there is maintenance while the backend cannot be read and no state is known.
        read_timeout: Seconds, or a timedelta, that one read of the backend may hold a request. It also limits how long
            the predicate may take when it is asked again about a request in progress, for a drain or an open WebSocket;
            the request is not exempt if it takes longer.
        close_websockets: Whether WebSockets that are open when maintenance begins, and that it blocks, are closed with
            1012 (service restart); the app receives `websocket.disconnect` with 1001 (going away). A WebSocket whose
            handler has a block such as `maintenance_mode_on()` open is not closed until that block ends.

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
        close_websockets=close_websockets,
    )

    current_backend.remember(settings)

    def maintenance(app: ASGIApp) -> ASGIApp:  # Starlette before 0.39 gives it by its name
        return MaintainedApp(app, settings)

    return maintenance


class MaintenanceModeMiddleware(MaintainedApp):
    """The middleware as a class: `app.add_middleware(MaintenanceModeMiddleware, backend=...)`.

    >>> from fastapi import FastAPI
    >>> app = FastAPI()
    >>> app.add_middleware(MaintenanceModeMiddleware, backend="memory:")

    Args:
        app: The app to wrap.
        backend: As for `maintenance_middleware`.
        enable_maintenance: Its `enabled`.
        exempt_callback: Its `exempt`.
        exempt_handler: The name of `exempt_callback` in releases 0.0.1 to 0.0.5.
        response_callback: Its `response`.
        response_handler: The name of `response_callback` in releases 0.0.1 to 0.0.5.
        **common: `exempt_docs`, `unmatched`, `retry_after`, `fail_closed`, `read_timeout` and `close_websockets`, as
            for `maintenance_middleware`.

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
        **common: Unpack[CommonSettings],
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
            **common,
        )
        current_backend.remember(settings)
        super().__init__(app, settings)


def maintained_layers(app: ASGIApp) -> Iterator[MaintainedApp]:
    """Yield the maintenance middlewares around an app, the outermost first.

    Before the app has built its layers, each of these is made for this call; nobody else's middleware is.
    """
    for layer in all_layers_of(app):
        is_to_build = _is_maintenance_to_build(layer)
        made = layer.cls(app, *layer.args, **layer.kwargs) if is_to_build else layer
        if is_maintenance(made):
            if is_to_build:
                made.forget()
            yield made


def backend_of(app: Starlette) -> StateBackend | None:
    """Return the backend of the outermost maintenance middleware that was added to an app, None if there is none."""
    return next((layer.backend for layer in maintained_layers(app)), None)


def is_maintenance(layer: object) -> TypeGuard[MaintainedApp]:
    """Tell whether this is an app with maintenance around it."""
    return isinstance(layer, MaintainedApp)


def _is_maintenance_to_build(layer: object) -> TypeGuard[Middleware]:
    if not isinstance(layer, Middleware):
        return False
    kind: object = layer.cls
    while isinstance(kind, partial):
        kind = kind.func
    return issubclass(kind, MaintainedApp) if isinstance(kind, type) else getattr(kind, "__module__", "") == __name__


def _check_one_name(name: str, callback: object, handler: object) -> None:
    if callback is not None and handler is not None:
        msg = f"{name}_callback and {name}_handler are two names of one thing, got both"
        raise TypeError(msg)
