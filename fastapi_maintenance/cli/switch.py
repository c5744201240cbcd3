"""Act on the switch that is meant: the one at a URL, or the one that an app's middleware uses."""

import importlib
import logging
import os
import re
import sys
import tomllib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NoReturn, TypeVar
from urllib.parse import parse_qs

import anyio
import typer
from starlette.applications import Starlette

from fastapi_maintenance.backends.known import uncached
from fastapi_maintenance.backends.memory import MemoryBackend
from fastapi_maintenance.backends.url import opened
from fastapi_maintenance.cli.show import plain, tell, tell_error
from fastapi_maintenance.errors import DrainTimeoutError, InvalidStateError, MaintenanceError
from fastapi_maintenance.middleware import backend_of
from fastapi_maintenance.typing import StateBackend

_VARIABLE = "FASTAPI_MAINTENANCE_BACKEND"
_TIMED_OUT = 75  # the exit status; EX_TEMPFAIL of sysexits.h: the same may succeed later
_NAMES = {
    "starts_at": "--from",
    "hold_id": "release",
    "plan_maintenance()": "plan",
    "cancel_maintenance()": "cancel",
}
_logger = logging.getLogger("fastapi_maintenance")
_T = TypeVar("_T")


def tell_switch(name: str) -> None:
    """Print which switch the command acts on; on standard error, so that the output is the state alone."""
    tell(f"[dim]switch: {plain(name)}[/]", stderr=True)


def act(
    action: Callable[[StateBackend], Awaitable[_T]],
    url: str | None,
    app_path: str | None,
    tell_name: Callable[[str], None] = tell_switch,
    *,
    end_option: str = "--until",
) -> _T:
    """Print the name of the switch, act on its backend and return the result; an error ends the command with one line.

    The first that is given counts: the URL, the app at `module:attribute`, the URL in the environment variable, the
    `entrypoint` of `[tool.fastapi]` in the `pyproject.toml` of this folder. Errors name options, such as `end_option`,
    instead of parameters.
    """
    names = {**_NAMES, "ends_at": end_option}

    async def find_and_act() -> _T:
        source, name = _find(url, app_path)
        async with opened(source) as backend:
            if isinstance(uncached(backend), MemoryBackend):
                fail(f"the switch {name} is in the memory of its own process: give it a store, such as a file or Redis")
            tell_name(name)
            return await action(backend)

    records = _OneLine()
    _logger.addHandler(records)
    try:
        return anyio.run(find_and_act)
    except typer.Exit:
        raise
    except KeyboardInterrupt:
        typer.echo(nl=sys.stderr.isatty(), err=True)  # end the line on which a terminal has shown ^C
        raise typer.Exit(130) from None
    except InvalidStateError as error:
        fail(f"the stored value is not a valid state (`on` and `off` overwrite it): {error}", status=1)
    except (ValueError, ImportError) as error:
        fail(_renamed(str(error), names))
    except MaintenanceError as error:
        fail(_renamed(str(error), names), status=_TIMED_OUT if isinstance(error, DrainTimeoutError) else 1)
    except Exception as error:  # noqa: BLE001 -- whatever a store raises
        fail(store_problem(error), status=1)
    finally:
        _logger.removeHandler(records)


def _renamed(text: str, names: dict[str, str]) -> str:
    """Return an error that begins with the name of a parameter or function, with names of the command instead."""
    pattern = "|".join(map(re.escape, names))
    return re.sub(pattern, lambda found: names[found[0]], text) if re.match(pattern, text) else text


def _find(url: str | None, app_path: str | None) -> tuple[StateBackend | str, str]:
    """Return what is meant, and its name."""
    named = url if url is not None or app_path is not None else os.environ.get(_VARIABLE) or None
    if named is not None:
        return named, without_password(named)
    path = _entrypoint() if app_path is None else app_path
    backend = find_backend(path)
    return backend, f"{backend!r} of {path}"


def fail(text: str, *, status: int = 2) -> NoReturn:
    """Print an error and end the command with an exit status, by default that of wrong usage."""
    tell_error(text)
    raise typer.Exit(status)


def store_problem(error: Exception) -> str:
    """Return what to say where a store has raised."""
    return f"the store cannot be reached: {type(error).__name__}: {error}"


def find_backend(path: str) -> StateBackend:
    """Return the backend of the maintenance middleware of the app at `module:attribute`."""
    module_name, _, attribute = path.partition(":")
    if not module_name or not attribute:
        fail(f"--app must be of the form module:attribute, got {path!r}")
    sys.path.insert(0, str(Path.cwd()))
    try:
        app = getattr(importlib.import_module(module_name), attribute)
    except Exception as error:  # noqa: BLE001 -- whatever the app's module raises
        fail(f"the app {path} cannot be imported: {type(error).__name__}: {error}")
    return (backend_of(app) if isinstance(app, Starlette) else None) or fail(
        f"{path} is no app with a maintenance middleware"
    )


def _entrypoint() -> str:
    try:
        project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))
        return str(project["tool"]["fastapi"]["entrypoint"])
    except (FileNotFoundError, KeyError, TypeError, ValueError):  # ValueError: no TOML, or no UTF-8
        fail(
            f"no backend given: give --backend URL or --app module:attribute, set {_VARIABLE}, or have "
            "an entrypoint under [tool.fastapi] in pyproject.toml"
        )


def without_password(url: str) -> str:
    """Return the URL without its user, and of its query only the key, which tells switches of one store apart."""
    if url.startswith(("env:", "file:")):
        return url
    place, _, query = re.sub(r"//.*@", "//", url).partition("?")
    keys = parse_qs(query).get("key")
    return f"{place}?key={keys[-1]}" if keys else place


class _OneLine(logging.Handler):
    """Print log records on standard error, one line each, without tracebacks."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print the record's message."""
        print(f"fastapi-maintenance: {record.getMessage()}", file=sys.stderr)  # noqa: T201 -- not of Rich: the command that runs owns the terminal
