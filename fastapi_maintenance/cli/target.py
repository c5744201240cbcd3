"""The target of a command: find the switch that the options choose, at a URL or in an app, and act on it."""

import importlib
import os
import re
import sys
import tomllib
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.parse import parse_qs

import anyio

from fastapi_maintenance.backends.base import name_of
from fastapi_maintenance.backends.file import LocalFileBackend
from fastapi_maintenance.backends.last_known import key_of, uncached
from fastapi_maintenance.backends.memory import MemoryBackend
from fastapi_maintenance.backends.url import backend_from_url, opened
from fastapi_maintenance.cli.errors import errors_in_one_line, fail
from fastapi_maintenance.cli.show import plain, print_err
from fastapi_maintenance.middleware import maintained_layers
from fastapi_maintenance.typing import StateBackend

_VARIABLE = "FASTAPI_MAINTENANCE_BACKEND"
_T = TypeVar("_T")


def print_switch(name: str) -> None:
    """Print which switch the command acts on; on standard error, so that the output is the state alone."""
    print_err(f"[dim]switch: {plain(name)}[/]")


class Which(NamedTuple):
    """The options that choose a switch."""

    url: str | None
    app_path: str | None
    name: str | None


def act(
    action: Callable[[StateBackend, str], Awaitable[_T]],
    which: Which,
    print_name: Callable[[str], None] = print_switch,
) -> _T:
    """Print the name of the switch, call the action with its backend and that name, and return the result.

    The first of these that is given counts: the URL, the app at `module:attribute`, the URL in the environment
    variable, the `entrypoint` of `[tool.fastapi]` in the `pyproject.toml` of this folder.
    """

    async def find_and_act() -> _T:
        source, name = _find(which)
        async with opened(source) as backend:
            if isinstance(uncached(backend), MemoryBackend):
                fail(f"the switch {name} is in the memory of its own process: use a store, such as a file or Redis")
            print_name(name)
            return await action(backend, name)

    with errors_in_one_line():
        return anyio.run(find_and_act)


def _find(which: Which) -> tuple[StateBackend | str, str]:
    """Return the backend or its URL, and the name of the switch."""
    url = which.url if which.url is not None or which.app_path is not None else os.environ.get(_VARIABLE) or None
    if url is not None:
        if which.name is not None:
            fail("--switch chooses among the switches of an app; a URL is one switch")
        return url, without_password(url)
    path = which.app_path or _entrypoint(
        f"no backend given: give --backend URL or --app module:attribute, set {_VARIABLE}"
    )
    backend = find_backend(path, which.name)
    return backend, f"{switch_name(backend)} of {path}"


def find_app(path: str | None) -> tuple[str, Any]:
    """Return the path of an app, by default the `entrypoint`, and the app, which may be any object."""
    path = path or _entrypoint("no app given: give --app module:attribute")
    module_name, _, attribute = path.partition(":")
    if not module_name or not attribute:
        fail(f"--app must have the form module:attribute, got {path!r}")
    sys.path.insert(0, str(Path.cwd()))
    try:
        app = getattr(importlib.import_module(module_name), attribute)
    except Exception as error:  # noqa: BLE001 -- whatever the app's module raises
        fail(f"the app {path} cannot be imported: {type(error).__name__}: {error}")
    return path, app


def find_backend(path: str, name: str | None) -> StateBackend:
    """Return the backend of the app at `module:attribute`; if it has several, the one whose name contains `name`."""
    _, app = find_app(path)
    try:
        layers = list(maintained_layers(app)) if callable(app) else []
    except Exception as error:  # noqa: BLE001 -- whatever the app's middleware raises
        fail(f"the middleware of {path} cannot be created: {type(error).__name__}: {error}")
    switches = {key_of(layer.backend): layer.backend for layer in layers}
    if not switches:
        fail(f"{path} is not an app with a maintenance middleware")
    found = [each for each in switches.values() if name in {None, switch_name(each)}]
    found = found or [each for each in switches.values() if str(name) in switch_name(each)]
    if len(found) != 1:
        names = ", ".join(map(switch_name, switches.values()))
        if name is None:
            fail(f"{path} has {len(switches)} switches, {names}: choose one with --switch")
        fail(f"--switch must be a part of the name of one switch of {path}, which has {names}; got {name!r}")
    return found[0]


def switch_name(backend: StateBackend) -> str:
    """Return the name of a switch. The name of a file has its absolute path."""
    behind = uncached(backend)
    if isinstance(behind, LocalFileBackend):
        return f"file:{os.path.abspath(behind.file_path)}"  # noqa: PTH100 -- a link stays a link
    return name_of(behind)


def _entrypoint(otherwise: str) -> str:
    """Return the `entrypoint` in the `pyproject.toml` of this folder; without one, end with an error."""
    try:
        project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))
        return str(project["tool"]["fastapi"]["entrypoint"])
    except (FileNotFoundError, KeyError, TypeError, ValueError):  # ValueError: not TOML, or not UTF-8
        fail(f"{otherwise}, or have an entrypoint under [tool.fastapi] in pyproject.toml")


def without_password(url: str) -> str:
    """Return the URL without user, password and query, except `key`. The URL of a file has its absolute path."""
    if url.startswith("file:"):
        with suppress(ValueError):  # refused, with the reason, when it is used
            return switch_name(backend_from_url(url))
    if url.startswith(("env:", "file:")):
        return url
    place, _, query = re.sub(r"//.*@", "//", url).partition("?")
    keys = parse_qs(query).get("key")
    return f"{place}?key={keys[-1]}" if keys else place
