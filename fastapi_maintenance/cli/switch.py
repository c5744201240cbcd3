"""Act on the switch that is meant: the one at a URL, or the one that an app's middleware uses."""

import importlib
import logging
import os
import re
import sys
import tomllib
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, TypeVar
from urllib.parse import parse_qs

import anyio
import typer

from fastapi_maintenance.backends.base import name_of
from fastapi_maintenance.backends.file import LocalFileBackend
from fastapi_maintenance.backends.known import key_of, uncached
from fastapi_maintenance.backends.memory import MemoryBackend
from fastapi_maintenance.backends.url import backend_from_url, opened
from fastapi_maintenance.cli.show import plain, tell, tell_error
from fastapi_maintenance.errors import InvalidStateError, MaintenanceError
from fastapi_maintenance.middleware import maintained_layers
from fastapi_maintenance.typing import StateBackend

_VARIABLE = "FASTAPI_MAINTENANCE_BACKEND"
_NO_APP = "no app given: give --app module:attribute"
_NO_BACKEND = f"no backend given: give --backend URL or --app module:attribute, set {_VARIABLE}"
_NAMES = {
    "starts_at": "--from",
    "hold_id": "release",
    "plan_maintenance()": "plan",
    "cancel_maintenance()": "cancel",
    "drain must": "--drain must",
    "workers needs drain": "--workers needs --drain",
}
_logger = logging.getLogger("fastapi_maintenance")
_T = TypeVar("_T")


def tell_switch(name: str) -> None:
    """Print which switch the command acts on; on standard error, so that the output is the state alone."""
    tell(f"[dim]switch: {plain(name)}[/]", stderr=True)


class Which(NamedTuple):
    """Which switch is meant, as the options say."""

    url: str | None
    app_path: str | None
    name: str | None = None


def act(
    action: Callable[[StateBackend, str], Awaitable[_T]],
    which: Which,
    tell_name: Callable[[str], None] = tell_switch,
    *,
    end_option: str = "--until",
) -> _T:
    """Print the name of the switch, act on its backend by that name, and return the result.

    The first that is given counts: the URL, the app at `module:attribute`, the URL in the environment variable, the
    `entrypoint` of `[tool.fastapi]` in the `pyproject.toml` of this folder. An error ends the command with one line,
    which names options, such as `end_option`, instead of parameters.
    """
    names = {**_NAMES, "ends_at": end_option}

    async def find_and_act() -> _T:
        source, name = _find(which)
        async with opened(source) as backend:
            if isinstance(uncached(backend), MemoryBackend):
                fail(f"the switch {name} is in the memory of its own process: give it a store, such as a file or Redis")
            tell_name(name)
            return await action(backend, name)

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
        fail(_renamed(str(error), names), status=1)
    except Exception as error:  # noqa: BLE001 -- whatever a store raises
        fail(store_problem(error), status=1)
    finally:
        _logger.removeHandler(records)


def _renamed(text: str, names: dict[str, str]) -> str:
    """Return an error that begins with the name of a parameter or function, with names of the command instead."""
    pattern = "|".join(map(re.escape, names))
    return re.sub(pattern, lambda found: names[found[0]], text) if re.match(pattern, text) else text


def _find(which: Which) -> tuple[StateBackend | str, str]:
    """Return what is meant, and its name."""
    url = which.url if which.url is not None or which.app_path is not None else os.environ.get(_VARIABLE) or None
    if url is not None:
        if which.name is not None:
            fail("--switch chooses among those of an app; a URL names one by itself")
        return url, without_password(url)
    path = which.app_path or _entrypoint(_NO_BACKEND)
    backend = find_backend(path, which.name)
    return backend, f"{switch_name(backend)} of {path}"


def fail(text: str, *, status: int = 2) -> NoReturn:
    """Print an error and end the command with an exit status, by default that of wrong usage."""
    tell_error(text)
    raise typer.Exit(status)


def store_problem(error: Exception) -> str:
    """Return what to say where a store has raised."""
    return f"the store cannot be reached: {type(error).__name__}: {error}"


def find_app(path: str | None) -> tuple[str, Any]:
    """Return where an app is, by default at the `entrypoint`, and the app; what it is is not checked."""
    path = path or _entrypoint(_NO_APP)
    module_name, _, attribute = path.partition(":")
    if not module_name or not attribute:
        fail(f"--app must be of the form module:attribute, got {path!r}")
    sys.path.insert(0, str(Path.cwd()))
    try:
        app = getattr(importlib.import_module(module_name), attribute)
    except Exception as error:  # noqa: BLE001 -- whatever the app's module raises
        fail(f"the app {path} cannot be imported: {type(error).__name__}: {error}")
    return path, app


def find_backend(path: str, name: str | None) -> StateBackend:
    """Return the backend of the app at `module:attribute`; if it has several, the one whose name has this in it."""
    _, app = find_app(path)
    layers = maintained_layers(app) if callable(app) else ()
    switches = {key_of(layer.backend): layer.backend for layer in layers}
    if not switches:
        fail(f"{path} is not an app with a maintenance middleware")
    found = [each for each in switches.values() if name in {None, switch_name(each)}]
    found = found or [each for each in switches.values() if str(name) in switch_name(each)]
    if len(found) == 1:
        return found[0]
    names = ", ".join(map(switch_name, switches.values()))
    if name is None:
        fail(f"{path} has {len(switches)} switches, {names}: choose one with --switch")
    fail(f"--switch must be a part of the name of one switch of {path}, which has {names}; got {name!r}")


def switch_name(backend: StateBackend) -> str:
    """Return the name of a switch, a file with its absolute path."""
    behind = uncached(backend)
    if isinstance(behind, LocalFileBackend):
        return f"file:{os.path.abspath(behind.file_path)}"  # noqa: PTH100 -- a link stays a link
    return name_of(behind)


def _entrypoint(otherwise: str) -> str:
    """Return the `entrypoint` in the `pyproject.toml` of this folder; if there is none, end with this."""
    try:
        project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))
        return str(project["tool"]["fastapi"]["entrypoint"])
    except (FileNotFoundError, KeyError, TypeError, ValueError):  # ValueError: no TOML, or no UTF-8
        fail(f"{otherwise}, or have an entrypoint under [tool.fastapi] in pyproject.toml")


def without_password(url: str) -> str:
    """Return the URL without its user, and of its query only the key; a file has its absolute path."""
    if url.startswith("file:"):
        with suppress(ValueError):  # it is refused, with the reason, when it is used
            return switch_name(backend_from_url(url))
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
