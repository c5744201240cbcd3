"""Find the switch to act on: by its URL, or by the app whose middleware uses it."""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from starlette.applications import Starlette

from fastapi_maintenance.backends.cached import uncached
from fastapi_maintenance.backends.memory import MemoryBackend
from fastapi_maintenance.backends.url import opened
from fastapi_maintenance.errors import MaintenanceError
from fastapi_maintenance.middleware import backend_of
from fastapi_maintenance.typing import StateBackend

_toml: Any = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")

__all__ = ["FindError", "find_backend", "open_switch", "without_password"]

_VARIABLE = "FASTAPI_MAINTENANCE_BACKEND"


class FindError(MaintenanceError):
    """No switch was found; the message says where it was looked for and what to do."""


@asynccontextmanager
async def open_switch(url: str | None, app_path: str | None) -> AsyncIterator[tuple[StateBackend, str]]:
    """Give the backend to act on, and the name under which to show its switch, without a password.

    The first that is given counts: the URL, the one in the environment variable, the app at `module:attribute`, the
    `entrypoint` of `[tool.fastapi]` in the `pyproject.toml` of this folder.

    Raises:
        FindError: No switch is named, the app has none, or the switch is in the memory of another process.
        ValueError: The URL names no backend.

    """
    source: StateBackend | str | None = url if url is not None else os.environ.get(_VARIABLE) or None
    if isinstance(source, str):
        name = without_password(source)
    else:
        path = _entrypoint() if app_path is None else app_path
        source = find_backend(path)
        name = f"{source!r} of {path}"
    async with opened(source) as backend:
        if isinstance(uncached(backend), MemoryBackend):
            msg = f"the switch {name} is in the memory of its own process: give it a store, such as a file or Redis"
            raise FindError(msg)
        yield backend, name


def find_backend(path: str) -> StateBackend:
    """Return the backend of the maintenance middleware of the app at `module:attribute`; raises `FindError`."""
    module_name, _, attribute = path.partition(":")
    if not module_name or not attribute:
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
    return backend


def _entrypoint() -> str:
    try:
        project = _toml.loads(Path("pyproject.toml").read_text(encoding="utf-8"))
        return str(project["tool"]["fastapi"]["entrypoint"])
    except (FileNotFoundError, KeyError, TypeError, ValueError):  # ValueError: no TOML, or no UTF-8
        msg = (
            f"no switch is named: give --backend URL or --app module:attribute, set {_VARIABLE}, or have "
            "an entrypoint under [tool.fastapi] in pyproject.toml"
        )
        raise FindError(msg) from None


def without_password(url: str) -> str:
    """Return the URL without its user, and of its query only the key, which tells switches of one store apart."""
    if url.startswith(("env:", "file:")):
        return url
    place, _, query = re.sub(r"//.*@", "//", url).partition("?")
    keys = parse_qs(query).get("key")
    return f"{place}?key={keys[-1]}" if keys else place
