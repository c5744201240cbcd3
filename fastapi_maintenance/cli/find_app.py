"""Find the switch that an app uses: the app by its name, and the backend by the middleware that is around it."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

from starlette.applications import Starlette

from fastapi_maintenance.backends.cached import uncached
from fastapi_maintenance.backends.memory import MemoryBackend
from fastapi_maintenance.errors import MaintenanceError
from fastapi_maintenance.middleware import backend_of
from fastapi_maintenance.typing import StateBackend

_toml: Any = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")

__all__ = ["FindError", "check_shared", "find_backend"]


class FindError(MaintenanceError):
    """There is no switch where one was looked for; the message says where, and what to do."""


def find_backend(app_path: str | None) -> StateBackend:
    """Return the backend of the app's middleware.

    Args:
        app_path: `module:attribute`; None: the `entrypoint` of `[tool.fastapi]` in the `pyproject.toml` of this folder.

    Raises:
        FindError: There is no such app, or it has no maintenance middleware, or a switch that only it can reach.

    """
    path = _entrypoint() if app_path is None else app_path
    module_name, colon, attribute = path.partition(":")
    if not module_name or not attribute or not colon:
        msg = f"--app must be of the form module:attribute, got {path!r}"
        raise FindError(msg)
    sys.path.insert(0, str(Path.cwd()))
    try:
        app = getattr(importlib.import_module(module_name), attribute)
    except Exception as error:
        msg = f"the app {path} cannot be imported: {type(error).__name__}: {error}"
        raise FindError(msg) from error
    backend = backend_of(app) if isinstance(app, Starlette) else None
    if backend is None:
        msg = f"{path} is no app with a maintenance middleware"
        raise FindError(msg)
    return check_shared(backend, f"the switch of {path}")


def check_shared(backend: StateBackend, name: str) -> StateBackend:
    """Return the backend unless its switch is in the memory of its own process; raises `FindError`."""
    if isinstance(uncached(backend), MemoryBackend):
        msg = f"{name} is in the memory of its own process: give it a store, such as a file or Redis"
        raise FindError(msg)
    return backend


def _entrypoint() -> str:
    try:
        project = _toml.loads(Path("pyproject.toml").read_text(encoding="utf-8"))
    except (FileNotFoundError, _toml.TOMLDecodeError, UnicodeDecodeError):
        project = {}
    entrypoint = project.get("tool", {}).get("fastapi", {}).get("entrypoint")
    if isinstance(entrypoint, str):
        return entrypoint
    msg = (
        "no switch is named: give --backend URL or --app module:attribute, set FASTAPI_MAINTENANCE_BACKEND, or have "
        "an entrypoint under [tool.fastapi] in pyproject.toml"
    )
    raise FindError(msg)
