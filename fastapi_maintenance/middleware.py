"""The middleware: the ASGI shell, and the order of the decision.

`maintenance_middleware(...)` creates it; `MaintenanceModeMiddleware` is the same as a class. `_routing/finder.py` finds
the route, `predicates/exemption.py` evaluates the predicate, and `responses/sending.py` sends the response.

Drains and open WebSockets have a request in progress decided on again (`_ask_again`): `_switch/requests.py` runs that
in a copy of the request's context, `predicates/request_body.py` refuses the body, and `predicates/dependencies.py`
returns the first verdict of a dependency.
"""

from collections.abc import Callable, Iterator
from contextvars import copy_context
from functools import partial
from time import time
from typing import Literal, Never, TypeGuard, Unpack, overload

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

from fastapi_maintenance._helpers.checks import check_app
from fastapi_maintenance._helpers.framework import Starlette
from fastapi_maintenance._helpers.logs import get_logger
from fastapi_maintenance._helpers.waiting import in_time
from fastapi_maintenance._routing.finder import Answer, RouteFinder
from fastapi_maintenance._routing.hints import hints_on, with_hints
from fastapi_maintenance._routing.layers import all_layers_of, layers_of
from fastapi_maintenance._routing.traces import show_blocked
from fastapi_maintenance._switch import current_backend
from fastapi_maintenance._switch.app_switch import ON, AppSwitch
from fastapi_maintenance._switch.requests import Blocked, RequestInProgress, enter, leave
from fastapi_maintenance._switch.settings import Settings, checked
from fastapi_maintenance.backends.last_known import key_of
from fastapi_maintenance.decorators import has_forced_on
from fastapi_maintenance.predicates import never
from fastapi_maintenance.predicates.combinators import is_async
from fastapi_maintenance.predicates.exemption import exempts
from fastapi_maintenance.predicates.request_body import PredicateRequest
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
    """Return whether to block an HTTP request or a WebSocket handshake; None: the predicate decides.

    The first rule that applies wins.

    Args:
        mark: The mark of the endpoint that will answer: True forces maintenance on, False off; None: no mark.
        active: Whether maintenance is on.
        answered: Whether a route will answer with something other than 404 or 405.
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
        app: The app to wrap. It is kept as the attribute `app`, which other middleware may follow.
        **settings: The settings of `maintenance_middleware`.

    Raises:
        TypeError: As `maintenance_middleware` does.
        ValueError: As `maintenance_middleware` does.
    """

    def __init__(self, app: ASGIApp, *positional: Never, **settings: Unpack[MiddlewareSettings]) -> None:
        self._wrap(app, _checked("MaintenanceModeMiddleware", positional, settings))

    def _wrap(self, app: ASGIApp, settings: Settings) -> None:
        self.app = app
        self.settings = settings
        self._finder = RouteFinder(app, around=self, exact=is_async(settings.exempt))
        self._switch = AppSwitch(self, settings, self._ask_again)
        self._served = self._switch.served

    @property
    def backend(self) -> StateBackend:
        """The backend that stores the switch."""
        return self._switch.backend

    def forget(self) -> None:
        """Keep drains from counting this instance, which was created only to read its settings."""
        self._switch.forget()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, a WebSocket handshake or a lifespan (ASGI)."""
        served, switch, kind, request = self._served, self._switch, scope["type"], RequestInProgress()
        request.scope, request.began, request.switch, request.token = {**scope}, time(), switch, enter(request)
        request.context, request.has_passed, request.dependency_verdicts, asked = copy_context(), None, {}, None
        try:
            if kind == "lifespan":
                await switch.run_lifespan(self.app, scope, receive, with_hints(scope, send, self._hints(scope)))
                return
            if kind in ("http", "websocket"):
                served.requests.add(request)
                status = switch.status(scope) or await switch.read_status()
                if status.active or has_forced_on():
                    switch.hint_at_missing_lifespan(scope)
                    blocks, answer = self._decide(scope, status)
                    exempt = self.settings.exempt
                    if blocks is None and exempt is not never:
                        owner, as_read = self._finder.owner, answer.as_read
                        asked = PredicateRequest(as_read, receive, app=owner, routed=answer.routed)
                        request.dependency_verdicts = asked.verdicts
                        blocks = not await exempts(exempt, asked)
                        receive = asked.rest(receive)
                    if blocks is not False:  # None: no predicate exempts it
                        served.requests.remove(request)
                        await self._respond(scope, receive, send, status, answer)
                        return
                request.has_passed = status.active
            if kind == "websocket" and self.settings.close_websockets:
                await switch.run_websocket(self.app, request, scope, receive, send)
                return
            await self.app(scope, receive, send)
        finally:
            if asked is not None:
                asked.end()
            served.requests.discard(request)
            leave(request)
            on_end = served.on_end  # another event loop may remove it
            if on_end is not None:
                on_end()

    def _decide(self, scope: Scope, status: MaintenanceStatus) -> tuple[bool | None, Answer]:
        """Return whether to block a request (None: the predicate decides), and what would answer it."""
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
        if answer.mark:
            status = ON
        cors = answer.cors(is_preflight=preflight)
        if cors is None or not preflight:
            scope = show_blocked(scope, answer)
        if cors is None:
            await send_blocked(scope, receive, send, status, settings.response, settings.retry_after)
            return
        respond = partial(send_blocked, status=status, response=settings.response, retry_after=settings.retry_after)
        await through_cors(cors, respond)(scope, receive, send)

    async def _ask_again(self, request: RequestInProgress, scope: Scope) -> Blocked | None:
        """Return why a request in progress would be blocked if it began now, or None if it would pass.

        A predicate that takes longer than `read_timeout` does not exempt it.
        """
        status = self._switch.status(scope) or await self._switch.read_status()
        blocks, answer = self._decide(scope, status)
        exempt, seconds = self.settings.exempt, self._switch.read_seconds
        if blocks is None:
            try:
                with in_time(seconds):
                    owner, verdicts = self._finder.owner, request.dependency_verdicts
                    asked = PredicateRequest(answer.as_read, None, app=owner, verdicts=verdicts)
                    blocks = not await exempts(exempt, asked)
            except TimeoutError:
                text = "The predicate %r took longer than %g seconds for a request in progress, which is not exempt"
                _logger.error(text, exempt, seconds)  # noqa: TRY400 -- the timeout is ours, so a traceback would not help
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
    """Return a middleware for `app.add_middleware(maintenance_middleware(...))`, or to call with any ASGI app.

    >>> from fastapi import FastAPI
    >>> from fastapi_maintenance import path_prefix
    >>> app = FastAPI()
    >>> app.add_middleware(maintenance_middleware(backend="memory:", exempt=path_prefix("/health")))

    FastAPI's own idiom works too: `app.add_middleware(maintenance_middleware, backend="memory:")`. The settings are
    then checked when the app builds its middleware.

    Args:
        app: An ASGI app to wrap and return. None: return a function that wraps an app.
        *positional: Must be empty: settings are keywords.
        **settings: The settings:

            - `backend`: The backend that stores the switch, or its URL for `backend_from_url`; None: the one given to
              `configure_backend`, else the environment variable `FASTAPI_MAINTENANCE_MODE`.
            - `enabled`, also `enable_maintenance`: True or False overrides the backend; None: the backend decides.
            - `exempt`, also `exempt_callback` and `exempt_handler`: A predicate, sync or async, that decides which
              requests pass. If it raises, the request does not pass.
            - `response`, also `response_callback` and `response_handler`: A function, sync or async, from the request
              to the response; None: `as_json()`.
            - `exempt_docs`: Whether the app's own documentation URLs stay open, by default True.
            - `unmatched`: `"pass"`, the default, leaves requests to the app that it would answer with 404 or 405, or
              redirect to a path with or without a trailing slash; `"block"` blocks them too.
            - `retry_after`: Whole seconds, or a timedelta, for the `Retry-After` header (RFC 9110 10.2.3) if the end
              of maintenance is not known, by default an hour; or a (min, max) pair: each response gets a random value
              in this range. If the end is known, up to max - min seconds are added, so that clients do not all return
              at once.
            - `fail_closed`: Whether maintenance counts as on while the backend cannot be read and no state is known,
              by default False.
            - `read_timeout`: Seconds, or a timedelta, that one read of the backend may delay a request, by default 1.
              It also limits the predicate when it is evaluated again for a request in progress (a drain or an open
              WebSocket); if it takes longer, the request is not exempt.
            - `close_websockets`: Whether WebSockets that are open when maintenance begins, and that it blocks, are
              closed with 1012 (service restart), by default True; the app receives `websocket.disconnect` with 1001
              (going away). A WebSocket whose handler is inside a block such as `maintenance_mode_on()` stays open
              until the block ends.

    Raises:
        TypeError: A setting is unknown, given under two names, or of the wrong type; or `app` is not an ASGI app.
        ValueError: `unmatched` is not one of its two values, `retry_after` is negative or its pair is reversed,
            `read_timeout` is not above zero, or `backend` is not the URL of a known backend.
    """
    common = _checked("maintenance_middleware", positional, settings)

    def maintenance(app: ASGIApp, *positional: Never, **more: Never) -> ASGIApp:  # Starlette before 0.39 names it `app`
        if positional or more:
            msg = "pass the settings to maintenance_middleware(...), not to what it returns"
            raise TypeError(msg)
        layer = MaintenanceModeMiddleware.__new__(MaintenanceModeMiddleware)
        layer._wrap(app, common)  # noqa: SLF001 -- several apps may share the settings, and so the backend
        return layer

    return maintenance if app is None else maintenance(check_app("app", app))


def _checked(name: str, positional: tuple[object, ...], keywords: MiddlewareSettings) -> Settings:
    if positional:
        msg = f"{name}() takes its settings as keywords, such as backend=..., got a {type(positional[0]).__name__}"
        raise TypeError(msg)
    settings = checked(keywords, name)
    current_backend.remember(settings)
    return settings


def maintained_layers(app: ASGIApp) -> Iterator[MaintenanceModeMiddleware]:
    """Yield the maintenance middlewares of an app, outermost first.

    If the app has not built its middleware stack yet, create them for this call, and no other middleware.
    """
    *_, inner = layers_of(app)
    for layer in all_layers_of(app):
        if _is_maintenance_to_build(layer):
            with current_backend.unchanged():
                created = layer.cls(inner, *layer.args, **layer.kwargs)
            for each in filter(is_maintenance, layers_of(created)):  # a function of the user may add other middleware
                each.forget()
                yield each
        elif is_maintenance(layer):
            yield layer


def backend_of(app: Starlette) -> StateBackend | None:
    """Return the backend of the outermost maintenance middleware of an app, or None."""
    return next((layer.backend for layer in maintained_layers(app)), None)


def is_maintenance(layer: object) -> TypeGuard[MaintenanceModeMiddleware]:
    """Return whether this is a maintenance middleware."""
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
