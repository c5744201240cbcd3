"""The backend of calls that are given none: the running app's, else the newest middleware's, else the default."""

from collections.abc import Generator
from contextlib import contextmanager
from weakref import WeakValueDictionary

from fastapi_maintenance._helpers.process import alive, remembered
from fastapi_maintenance._switch.requests import running_request
from fastapi_maintenance._switch.settings import Settings
from fastapi_maintenance.backends.base import check_backend
from fastapi_maintenance.backends.env import EnvVarBackend
from fastapi_maintenance.backends.last_known import key_of
from fastapi_maintenance.typing import StateBackend

_default: list[StateBackend] = remembered([])
_newest: list[StateBackend | None] = remembered([None])
_middlewares: WeakValueDictionary[int, Settings] = remembered(WeakValueDictionary())


def configure(backend: StateBackend) -> None:
    """Make this backend the default."""
    _default[:] = [backend]


def default_backend() -> StateBackend:
    """Return the configured backend, else the environment variable `FASTAPI_MAINTENANCE_MODE`."""
    if not _default:
        _default.append(EnvVarBackend())
    return _default[0]


def remember(settings: Settings) -> None:
    """Remember the settings of a new middleware: its backend is the newest one's."""
    _newest[:] = [settings.backend]
    _middlewares[id(settings)] = settings


@contextmanager
def unchanged() -> Generator[None]:
    """Restore the newest middleware's backend after a block, in which a middleware is made only to inspect it."""
    newest = _newest.copy()
    try:
        yield
    finally:
        _newest[:] = newest


def is_used_here(backend: StateBackend) -> bool:
    """Return whether a middleware of this process is on the switch of this backend."""
    used = [default_backend() if each.backend is None else each.backend for _, each in alive(_middlewares)]
    return key_of(backend) in map(key_of, used)


def resolve(backend: StateBackend | None) -> StateBackend:
    """Return the backend; if it is None, the running app's, else the newest middleware's, else the default.

    Raises:
        TypeError: It is not a backend.
    """
    if backend is not None:
        return check_backend("backend", backend)
    running = running_request()
    current = _newest[0] if running is None else running.switch.given
    return default_backend() if current is None else current
