"""The middleware: the ASGI shell, and the order of the decision.

`maintenance_middleware(...)` makes it, and `MaintenanceModeMiddleware` is a class for those who prefer one.
"""

from collections.abc import Callable, Iterator
from contextvars import copy_context
from functools import partial
from time import time
from typing import Literal, Never, TypeGuard, Unpack, overload

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

from fastapi_maintenance._helpers.applications import Starlette
from fastapi_maintenance._helpers.checks import check_app
from fastapi_maintenance._helpers.logs import get_logger
from fastapi_maintenance._helpers.waiting import in_time
from fastapi_maintenance._routing.finder import Answer, RouteFinder
from fastapi_maintenance._routing.hints import hints_on, with_hints
from fastapi_maintenance._routing.layers import all_layers_of
from fastapi_maintenance._routing.traces import show_blocked
from fastapi_maintenance._switch import current_backend
from fastapi_maintenance._switch.app_switch import ON, AppSwitch
from fastapi_maintenance._switch.requests import Blocked, RequestInProgress, enter, leave
from fastapi_maintenance._switch.settings import Settings, checked
from fastapi_maintenance.backends.known import key_of
from fastapi_maintenance.decorators import has_forced_on
from fastapi_maintenance.predicates import never
from fastapi_maintenance.predicates.combinators import is_async
from fastapi_maintenance.predicates.request import PredicateRequest
from fastapi_maintenance.predicates.verdicts import exempts
from fastapi_maintenance.responses.cors import is_preflight, through_cors
from fastapi_maintenance.responses.sending import send_blocked
from fastapi_maintenance.state import MaintenanceStatus
from fastapi_maintenance.typing import MiddlewareSettings, StateBackend

__all__ = ["MaintenanceModeMiddleware", "backend_of", "is_maintenance", "maintained_layers", "maintenance_middleware"]

_logger = get_logger()


def decide(  # noqa: PLR0913 -- one keyword for each fact
    *,
    mark: bool | None,
    active: bool,
    answered: bool,
    documentation: bool,
    unmatched: Literal["pass", "block"],
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


class MaintenanceModeMiddleware:
    """The middleware as a class: `app.add_middleware(MaintenanceModeMiddleware, backend=...)`.

    >>> from fastapi import FastAPI
    >>> app = FastAPI()
    >>> app.add_middleware(MaintenanceModeMiddleware, backend="memory:")

    Args:
        app: The app to wrap. The attribute of this name lets other middleware see through this one.
        **settings: Those of `maintenance_middleware`.

    Raises:
        TypeError: As `maintenance_middleware` does.
        ValueError: As `maintenance_middleware` does.
    """

    def __init__(self, app: ASGIApp, *positional: Never, **settings: Unpack[MiddlewareSettings]) -> None:
        _check_keywords("MaintenanceModeMiddleware", positional)
        self._wrap(app, _remembered(checked(settings, "MaintenanceModeMiddleware")))

    def _wrap(self, app: ASGIApp, settings: Settings) -> None:
        self.app = app
        self.settings = settings
        self._finder = RouteFinder(app, around=self, exact=is_async(settings.exempt))
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
        """Answer a request, a WebSocket handshake or a lifespan (ASGI)."""
        served, switch, kind, request = self._served, self._switch, scope["type"], RequestInProgress()
        request.scope, request.began, request.switch, request.token = {**scope}, time(), switch, enter(request)
        request.context, request.has_passed, request.verdicts, question = copy_context(), False, {}, None
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
                    blocks, answer = self._decide(scope, status)
                    exempt = self.settings.exempt
                    if blocks is None and exempt is not never:
                        owner, as_read = self._finder.owner, answer.as_read
                        question = PredicateRequest(as_read, receive, app=owner, routed=answer.routed)
                        request.verdicts = question.verdicts
                        blocks = not await exempts(exempt, question)
                        receive = question.rest(receive)
                    if blocks is not False:
                        served.requests.remove(request)
                        await self._respond(scope, receive, send, status, answer)
                        return
                    request.has_passed = status.active
            if kind == "websocket" and self.settings.close_websockets:
                await switch.run_websocket(self.app, request, scope, receive, send)
                return
            await self.app(scope, receive, send)
        finally:
            if question is not None:
                question.end()
            served.requests.discard(request)
            leave(request)
            if served.on_end is not None:
                served.on_end()

    def _decide(self, scope: Scope, status: MaintenanceStatus) -> tuple[bool | None, Answer]:
        """Return whether to block a request by this status, and what would answer it; None: the predicate decides."""
        answer = self._finder.find(scope)
        blocks = decide(
            mark=answer.mark,
            active=status.active,
            answered=answer.answered,
            documentation=answer.documentation,
            unmatched=self.settings.unmatched,
            exempt_docs=self.settings.exempt_docs,
        )
        return blocks, answer

    async def _respond(
        self, scope: Scope, receive: Receive, send: Send, status: MaintenanceStatus, answer: Answer
    ) -> None:
        """Respond to a blocked request, or let the CORS middleware of the app answer its preflight."""
        settings, preflight = self.settings, is_preflight(scope)
        status, cors = ON if answer.mark else status, answer.cors(is_preflight=preflight)
        if cors is None or not preflight:
            scope = show_blocked(scope, answer)
        if cors is None:
            await send_blocked(scope, receive, send, status, settings.response, settings.retry_after)
            return
        respond = partial(send_blocked, status=status, response=settings.response, retry_after=settings.retry_after)
        await through_cors(cors, respond)(scope, receive, send)

    async def _ask_again(self, request: RequestInProgress, scope: Scope) -> Blocked | None:
        """Return why a request in progress would be blocked if it began now; None if it would pass.

        A predicate that takes too long does not exempt it.
        """
        status = self._switch.status(scope) or await self._switch.read_status()
        blocks, answer = self._decide(scope, status)
        exempt, seconds = self.settings.exempt, self._switch.read_seconds
        if blocks is None:
            try:
                with in_time(seconds):
                    owner, verdicts = self._finder.owner, request.verdicts
                    question = PredicateRequest(answer.as_read, None, app=owner, verdicts=verdicts)
                    blocks = not await exempts(exempt, question)
            except TimeoutError:
                text = "The predicate %r, asked again, took longer than %g seconds; the request is not exempt"
                _logger.error(text, exempt, seconds)  # noqa: TRY400 -- nothing of the predicate raised it
                blocks = True
        return Blocked(ON if answer.mark else status, answer.path) if blocks else None

    def _hints(self, scope: Scope) -> Iterator[tuple[str, str]]:
        switches = [key_of(layer.backend) for layer in maintained_layers(self.app)]
        yield from hints_on(
            self._finder,
            scope,
            twice=bool(switches) and key_of(self.backend) in switches,
            exempt=self.settings.exempt,
            passes=self.settings.unmatched == "pass",
        )


@overload
def maintenance_middleware(app: ASGIApp, /, **settings: Unpack[MiddlewareSettings]) -> ASGIApp: ...
@overload
def maintenance_middleware(**settings: Unpack[MiddlewareSettings]) -> Callable[[ASGIApp], ASGIApp]: ...
def maintenance_middleware(
    app: ASGIApp | None = None, *positional: Never, **settings: Unpack[MiddlewareSettings]
) -> ASGIApp | Callable[[ASGIApp], ASGIApp]:
    """Return a middleware, for `app.add_middleware(maintenance_middleware(...))` or to be called with any ASGI app.

    >>> from fastapi import FastAPI
    >>> from fastapi_maintenance import path_prefix
    >>> app = FastAPI()
    >>> app.add_middleware(maintenance_middleware(backend="memory:", exempt=path_prefix("/health")))

    FastAPI's own idiom works too: `app.add_middleware(maintenance_middleware, backend="memory:")`. The settings are
    checked when the app builds its middleware then, and not at once.

    Args:
        app: An ASGI app to wrap at once: it is returned with maintenance around it. None: a function that wraps.
        *positional: Nothing: a setting that is not given by its name is refused.
        **settings: All are keywords.

            - `backend`: Where the switch is kept, or its URL for `backend_from_url`; None: the one given to
              `configure_backend`, else the environment variable `FASTAPI_MAINTENANCE_MODE`.
            - `enabled`, also `enable_maintenance`: True or False overrules the backend; None: the backend decides.
            - `exempt`, also `exempt_callback` and `exempt_handler`: A predicate, sync or async, that says which
              requests pass. One that raises exempts nothing.
            - `response`, also `response_callback` and `response_handler`: A function, sync or async, from the request
              to the response; None: `as_json()`.
            - `exempt_docs`: Whether the app's own documentation URLs stay open, by default True.
            - `unmatched`: `"pass"`, the default, leaves to the app what it would answer with 404 or 405, and its
              redirects of trailing slashes; `"block"` blocks them too.
            - `retry_after`: Whole seconds, or a timedelta, for the `Retry-After` header (RFC 9110 10.2.3) if the end
              of maintenance is not known, by default an hour; or a (min, max) pair: each response gets a random value
              in it, and if the end is known up to max - min seconds more, so that clients do not all come back at once.
            - `fail_closed`: Whether there is maintenance while the backend cannot be read and no state is known, by
              default False.
            - `read_timeout`: Seconds, or a timedelta, that one read of the backend may hold a request, by default 1.
              It also limits how long the predicate may take when it is asked again about a request in progress, for a
              drain or an open WebSocket; the request is not exempt if it takes longer.
            - `close_websockets`: Whether WebSockets that are open when maintenance begins, and that it blocks, are
              closed with 1012 (service restart), by default True; the app receives `websocket.disconnect` with 1001
              (going away). A WebSocket whose handler has a block such as `maintenance_mode_on()` open is not closed
              until that block ends.

    Raises:
        TypeError: A setting is unknown, is given under two names, or is of the wrong type; or `app` is no ASGI app.
        ValueError: `unmatched` is neither of its words, `retry_after` is below zero or the wrong way round,
            `read_timeout` is not above zero, or `backend` is a URL that names none.
    """
    _check_keywords("maintenance_middleware", positional)
    known = _remembered(checked(settings, "maintenance_middleware"))

    def maintenance(app: ASGIApp, *positional: Never, **more: Never) -> ASGIApp:  # Starlette before 0.39 names it `app`
        if positional or more:
            msg = "the settings belong into the parentheses of maintenance_middleware(...), and not after it"
            raise TypeError(msg)
        layer = MaintenanceModeMiddleware.__new__(MaintenanceModeMiddleware)
        layer._wrap(app, known)  # noqa: SLF001 -- several apps may share the settings, and so the backend
        return layer

    return maintenance if app is None else maintenance(check_app("app", app))


def _check_keywords(taker: str, positional: tuple[object, ...]) -> None:
    if positional:
        msg = f"{taker}() takes its settings as keywords, such as backend=..., got a {type(positional[0]).__name__}"
        raise TypeError(msg)


def _remembered(settings: Settings) -> Settings:
    current_backend.remember(settings)
    return settings


def maintained_layers(app: ASGIApp) -> Iterator[MaintenanceModeMiddleware]:
    """Yield the maintenance middlewares around an app, the outermost first.

    Before the app has built its layers, each of these is made for this call; nobody else's middleware is.
    """
    for layer in all_layers_of(app):
        is_to_build = _is_maintenance_to_build(layer)
        with current_backend.unchanged():
            made = layer.cls(app, *layer.args, **layer.kwargs) if is_to_build else layer
        if is_maintenance(made):
            if is_to_build:
                made.forget()
            yield made


def backend_of(app: Starlette) -> StateBackend | None:
    """Return the backend of the outermost maintenance middleware that was added to an app, None if there is none."""
    return next((layer.backend for layer in maintained_layers(app)), None)


def is_maintenance(layer: object) -> TypeGuard[MaintenanceModeMiddleware]:
    """Tell whether this is an app with maintenance around it."""
    return isinstance(layer, MaintenanceModeMiddleware)


def _is_maintenance_to_build(layer: object) -> TypeGuard[Middleware]:
    if not isinstance(layer, Middleware):
        return False
    kind: object = layer.cls
    while isinstance(kind, partial):
        kind = kind.func
    return (
        issubclass(kind, MaintenanceModeMiddleware)
        if isinstance(kind, type)
        else getattr(kind, "__module__", "") == __name__
    )
