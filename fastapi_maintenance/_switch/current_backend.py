"""Which backend is meant where none is given: that of the running app, of the middleware made last, or the default."""

from __future__ import annotations

from contextvars import ContextVar

from fastapi_maintenance.backends.base import check_backend
from fastapi_maintenance.backends.env import EnvVarBackend
from fastapi_maintenance.typing import StateBackend

__all__ = ["Place", "configure", "default_backend", "enter", "leave", "made", "resolve"]

Place = tuple[StateBackend | None]
"""The backend of an app, None where the app leaves it to the default."""

_ENVIRONMENT = EnvVarBackend()
_running: ContextVar[Place | None] = ContextVar("fastapi_maintenance_running", default=None)
_configured: list[StateBackend] = []
_made_last: list[StateBackend | None] = [None]


def configure(backend: StateBackend) -> None:
    """Make this backend the default."""
    _configured[:] = [backend]


def made(backend: StateBackend | None) -> None:
    """Note the backend of a middleware that was just made."""
    _made_last[:] = [backend]


enter = _running.set
"""Note that a request or the lifespan of an app begins; returns a token for `leave`."""

leave = _running.reset
"""Note that it ends."""


def default_backend() -> StateBackend:
    """Return the configured backend, else the environment variable `FASTAPI_MAINTENANCE_MODE`."""
    return _configured[0] if _configured else _ENVIRONMENT


def resolve(backend: StateBackend | None) -> StateBackend:
    """Return the backend that is meant; raises `TypeError` for what is none."""
    if backend is not None:
        return check_backend("backend", backend)
    place = _running.get()
    meant = _made_last[0] if place is None else place[0]
    return default_backend() if meant is None else meant
