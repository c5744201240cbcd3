"""Act on the switch that is meant: the one at a URL, or the one that an app's middleware uses."""

from __future__ import annotations

import asyncio
import importlib
import os
import re
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NoReturn, TypeVar
from urllib.parse import parse_qs

import anyio
import typer
from starlette.applications import Starlette

from fastapi_maintenance.backends.cached import uncached
from fastapi_maintenance.backends.memory import MemoryBackend
from fastapi_maintenance.backends.url import opened
from fastapi_maintenance.cli.show import store_problem, tell_error, tell_switch
from fastapi_maintenance.errors import DrainTimeoutError, MaintenanceError
from fastapi_maintenance.middleware import backend_of
from fastapi_maintenance.typing import StateBackend

_toml: Any = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")

__all__ = ["act", "fail", "find_backend", "without_password"]

_VARIABLE = "FASTAPI_MAINTENANCE_BACKEND"
_TIMED_OUT = 75  # the exit status; EX_TEMPFAIL of sysexits.h: the same may succeed later
_T = TypeVar("_T")


def act(
    action: Callable[[StateBackend], Awaitable[_T]],
    url: str | None,
    app_path: str | None,
    tell_name: Callable[[str], None] = tell_switch,
) -> _T:
    """Print the name of the switch, act on its backend and return the result; an error ends the command with one line.

    The first that is given counts: the URL, the one in the environment variable, the app at `module:attribute`, the
    `entrypoint` of `[tool.fastapi]` in the `pyproject.toml` of this folder.
    """

    async def find_and_act() -> _T:
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
                raise ValueError(msg)  # noqa: TRY004 -- the option is of the right type
            tell_name(name)
            return await action(backend)

    try:
        return anyio.run(find_and_act)
    except (ValueError, ImportError) as error:
        fail(str(error))
    except (KeyboardInterrupt, asyncio.CancelledError):  # the latter on Python 3.10
        typer.echo(nl=sys.stderr.isatty(), err=True)  # end the line on which a terminal has shown ^C
        raise typer.Exit(130) from None
    except MaintenanceError as error:
        fail(str(error), status=_TIMED_OUT if isinstance(error, DrainTimeoutError) else 1)
    except Exception as error:  # noqa: BLE001 -- whatever a store raises
        fail(store_problem(error), status=1)


def fail(text: str, *, status: int = 2) -> NoReturn:
    """Print an error and end the command with an exit status, by default that of wrong usage."""
    tell_error(text)
    raise typer.Exit(status)


def find_backend(path: str) -> StateBackend:
    """Return the backend of the maintenance middleware of the app at `module:attribute`."""
    module_name, _, attribute = path.partition(":")
    if not module_name or not attribute:
        msg = f"--app must be of the form module:attribute, got {path!r}"
        raise ValueError(msg)
    sys.path.insert(0, str(Path.cwd()))
    try:
        app = getattr(importlib.import_module(module_name), attribute)
    except Exception as error:
        msg = f"the app {path} cannot be imported: {type(error).__name__}: {error}"
        raise ValueError(msg) from error
    backend = backend_of(app) if isinstance(app, Starlette) else None
    if backend is None:
        msg = f"{path} is no app with a maintenance middleware"
        raise ValueError(msg)
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
        raise ValueError(msg) from None


def without_password(url: str) -> str:
    """Return the URL without its user, and of its query only the key, which tells switches of one store apart."""
    if url.startswith(("env:", "file:")):
        return url
    place, _, query = re.sub(r"//.*@", "//", url).partition("?")
    keys = parse_qs(query).get("key")
    return f"{place}?key={keys[-1]}" if keys else place
