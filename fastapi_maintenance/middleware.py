"""The middleware: `maintenance_middleware(...)`, and a class for those who prefer one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeGuard

from starlette.applications import Starlette
from starlette.types import ASGIApp

from fastapi_maintenance._maintained import MaintainedApp
from fastapi_maintenance._routing.layers import all_layers_of
from fastapi_maintenance._settings import Settings, Unmatched
from fastapi_maintenance._switch import current_backend
from fastapi_maintenance.backends.url import as_backend
from fastapi_maintenance.predicates import never
from fastapi_maintenance.responses import as_json
from fastapi_maintenance.typing import ExemptCallback, ResponseCallback, StateBackend

__all__ = ["MaintenanceModeMiddleware", "backend_of", "is_maintenance", "maintained_layers", "maintenance_middleware"]


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
    current_backend.made(settings.backend)

    def maintenance(app: ASGIApp) -> ASGIApp:  # Starlette before 0.39 gives it by its name
        return MaintainedApp(app, settings, made_by=maintenance)

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
        current_backend.made(settings.backend)
        super().__init__(app, settings, made_by=type(self))


def maintained_layers(app: ASGIApp) -> Iterator[MaintainedApp]:
    """Yield the maintenance middlewares around an app, the outermost first."""
    return (layer for layer in all_layers_of(app, build=True) if is_maintenance(layer))


def backend_of(app: Starlette) -> StateBackend | None:
    """Return the backend of the outermost maintenance middleware that was added to an app, None if there is none."""
    return next((layer.backend for layer in maintained_layers(app)), None)


def is_maintenance(layer: object) -> TypeGuard[MaintainedApp]:
    """Tell whether this is an app with maintenance around it."""
    return isinstance(layer, MaintainedApp)


def _check_one_name(name: str, callback: object, handler: object) -> None:
    if callback is not None and handler is not None:
        msg = f"{name}_callback and {name}_handler are two names of one thing, got both"
        raise TypeError(msg)
