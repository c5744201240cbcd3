"""Which backend is meant where none is given: that of the running app, of the middleware made last, or the default."""

from fastapi_maintenance._switch.requests import running_request
from fastapi_maintenance.backends.base import check_backend
from fastapi_maintenance.backends.env import EnvVarBackend
from fastapi_maintenance.typing import StateBackend

_ENVIRONMENT = EnvVarBackend()
_configured: list[StateBackend] = []
_made_last: list[StateBackend | None] = [None]


def configure(backend: StateBackend) -> None:
    """Make this backend the default."""
    _configured[:] = [backend]


def made(backend: StateBackend | None) -> None:
    """Note the backend of a middleware that was just made."""
    _made_last[:] = [backend]


def default_backend() -> StateBackend:
    """Return the configured backend, else the environment variable `FASTAPI_MAINTENANCE_MODE`."""
    return _configured[0] if _configured else _ENVIRONMENT


def resolve(backend: StateBackend | None) -> StateBackend:
    """Return the backend that is meant; raises `TypeError` for what is none."""
    if backend is not None:
        return check_backend("backend", backend)
    running = running_request()
    meant = _made_last[0] if running is None else running.switch.given
    return default_backend() if meant is None else meant
