"""The command `fastapi-maintenance`: for operators, and for deployment scripts."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Annotated, Any, NoReturn

import anyio

from fastapi_maintenance._helpers import clock
from fastapi_maintenance._helpers.version import __version__
from fastapi_maintenance.backends.url import opened
from fastapi_maintenance.cli.find_app import FindError, check_shared, find_backend
from fastapi_maintenance.cli.times import duration_of, time_of
from fastapi_maintenance.control import (
    get_maintenance_state,
    maintenance_mode_on,
    remove_hold,
    set_maintenance_mode,
)
from fastapi_maintenance.errors import MaintenanceError
from fastapi_maintenance.state import MaintenanceState, is_active
from fastapi_maintenance.typing import DetailedStateBackend, StateBackend, WatchableStateBackend

try:
    import typer

    from fastapi_maintenance.cli.help import Command, Group
    from fastapi_maintenance.cli.running import OneLine, check_is_on, run_command
    from fastapi_maintenance.cli.show import facts, plain, show, tell
except ImportError as _error:
    msg = "the command fastapi-maintenance needs typer: pip install 'fastapi-maintenance[cli]'"
    raise ImportError(msg, name=_error.name) from _error

__all__ = ["main"]

_ON_STATUS = 3
_LEAST_PREFIX = 6  # characters of an id
_POLL = 1.0  # seconds

app: typer.Typer = typer.Typer(
    cls=Group,
    name="fastapi-maintenance",
    help="Take a FastAPI service into maintenance and out again.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)

_logger = logging.getLogger("fastapi_maintenance")
_logger.addHandler(logging.NullHandler())  # what fails is said by the command itself

Backend = Annotated[
    str | None,
    typer.Option(
        "--backend",
        envvar="FASTAPI_MAINTENANCE_BACKEND",
        metavar="URL",
        help="Where the switch is kept, such as redis://host or file:maintenance.txt.",
    ),
]
App = Annotated[
    str | None,
    typer.Option(
        "--app",
        metavar="MODULE:ATTRIBUTE",
        help="The app whose switch is meant; by default the entrypoint in pyproject.toml.",
    ),
]
Message = Annotated[str | None, typer.Option("--message", "-m", help="What to tell those who are locked out.")]


def _show_version(wanted: bool) -> None:  # noqa: FBT001 -- Typer gives it so
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _options(
    _version: Annotated[  # noqa: FBT002 -- an option
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None: ...


def main() -> None:
    """Run the command."""
    app()


@app.command(cls=Command)
def on(  # noqa: PLR0913, PLR0917 -- its options
    backend: Backend = None,
    app_path: App = None,
    message: Message = None,
    lasting: Annotated[str | None, typer.Option("--for", metavar="DURATION", help="90s, 30m, 2h, 1d.")] = None,
    until: Annotated[str | None, typer.Option(metavar="TIME", help="22:00, or a date and time; in your zone.")] = None,
    start: Annotated[str | None, typer.Option("--from", metavar="TIME", help="From when on; by default now.")] = None,
) -> None:
    """Turn maintenance on."""
    now = clock.now()
    if lasting is not None and until is not None:
        _fail("--for and --until say the same in two ways; give one of them")
    starts_at = None if start is None else _read("--from", partial(time_of, now=now), start)
    ends_at = None if until is None else _read("--until", partial(time_of, now=now), until)
    if lasting is not None:
        try:
            ends_at = (starts_at or now) + _read("--for", duration_of, lasting)
        except OverflowError:
            _fail(f"--for: {lasting!r} ends after the year 9999")

    async def switch_on(meant: StateBackend) -> None:
        await set_maintenance_mode(True, meant, message=message, starts_at=starts_at, ends_at=ends_at)  # noqa: FBT003 -- its own signature
        show(await get_maintenance_state(meant))

    _run(switch_on, backend, app_path)


@app.command(cls=Command)
def off(backend: Backend = None, app_path: App = None) -> None:
    """Turn maintenance off."""

    async def switch_off(meant: StateBackend) -> None:
        await set_maintenance_mode(False, meant)  # noqa: FBT003 -- its own signature
        show(await get_maintenance_state(meant))

    _run(switch_off, backend, app_path)


@app.command(cls=Command)
def status(
    backend: Backend = None,
    app_path: App = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,  # noqa: FBT002 -- an option
    exit_code: Annotated[bool, typer.Option("--exit-code", help="End with 3 if maintenance is on.")] = False,  # noqa: FBT002
) -> None:
    """Tell whether maintenance is on, and why."""
    is_on = False

    async def look(meant: StateBackend) -> None:
        nonlocal is_on
        state = await get_maintenance_state(meant)
        is_on = is_active(state, clock.now())
        if as_json:
            print(json.dumps(facts(state)))  # noqa: T201 -- the output of the command
        else:
            show(state)

    _run(look, backend, app_path)
    if exit_code and is_on:
        raise typer.Exit(_ON_STATUS)


@app.command(cls=Command)
def watch(backend: Backend = None, app_path: App = None) -> None:
    """Print each change as it happens, until you press Ctrl-C."""

    async def follow(meant: StateBackend) -> None:
        shown = None
        async for state in _states(meant):
            now = facts(state)
            if now != shown:
                shown = now
                show(state, stamp=True)

    _run(follow, backend, app_path)


@app.command(cls=Command, context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
def run(
    command: Annotated[list[str], typer.Argument(metavar="COMMAND", help="What to run, after --.")],
    backend: Backend = None,
    app_path: App = None,
    message: Message = None,
    lease: Annotated[
        str, typer.Option(metavar="DURATION", help="How long maintenance stays on if this machine dies.")
    ] = "30s",
) -> None:
    """Turn maintenance on while a command runs, and off again whatever happens."""
    duration = _read("--lease", duration_of, lease)
    result: int | None = None

    async def hold(meant: StateBackend) -> None:
        nonlocal result
        detailed = isinstance(meant, DetailedStateBackend)
        try:
            async with maintenance_mode_on(meant, message=message, lease=duration if detailed else None):
                await check_is_on(meant)
                _logger.addHandler(OneLine())
                result = await run_command(command)
        except Exception as error:
            if result is None:
                raise
            then = f"counts up to {lease} longer" if detailed else "leaves the switch on"
            _tell_error(f"the hold could not be released and {then}: {type(error).__name__}: {error}")

    _run(hold, backend, app_path)
    raise typer.Exit(result or 0)


@app.command(cls=Command)
def release(
    hold_id: Annotated[
        str,
        typer.Argument(
            metavar="ID",
            help="As status shows it, or its first 6 or more characters. A running job puts its hold back.",
        ),
    ],
    backend: Backend = None,
    app_path: App = None,
) -> None:
    """Take out the hold of a job that died."""

    async def take_out(meant: StateBackend) -> None:
        show(await remove_hold(hold_id, meant, prefix=len(hold_id) >= _LEAST_PREFIX))

    _run(take_out, backend, app_path)


def _states(backend: StateBackend) -> AsyncIterator[MaintenanceState]:
    return backend.watch() if isinstance(backend, WatchableStateBackend) else _looks(backend)


async def _looks(backend: StateBackend) -> AsyncIterator[MaintenanceState]:
    while True:
        yield await get_maintenance_state(backend)
        await anyio.sleep(_POLL)


def _read(option: str, reader: Callable[[str], Any], text: str) -> Any:  # noqa: ANN401 -- what the reader returns
    try:
        return reader(text)
    except ValueError as error:
        _fail(f"{option}: {error}")


def _run(act: Callable[[StateBackend], Awaitable[None]], backend: str | None, app_path: str | None) -> None:
    """Do it with the backend that is meant; each thing that can go wrong is one line, and no traceback."""

    async def do() -> None:
        async with opened(backend if backend is not None else find_backend(app_path)) as meant:
            await act(check_shared(meant, f"the switch {backend}"))

    try:
        anyio.run(do)
    except (FindError, ValueError, ImportError) as error:
        _fail(str(error))
    except (KeyboardInterrupt, asyncio.CancelledError):  # the latter on Python 3.10
        typer.echo(nl=sys.stderr.isatty(), err=True)  # a terminal has written ^C, and stands behind it
        raise typer.Exit(130) from None
    except MaintenanceError as error:
        _fail(str(error), status=1)
    except Exception as error:  # noqa: BLE001 -- whatever a store raises
        _fail(f"the store cannot be reached: {type(error).__name__}: {error}", status=1)


def _fail(text: str, *, status: int = 2) -> NoReturn:
    _tell_error(text)
    raise typer.Exit(status)


def _tell_error(text: str) -> None:
    tell(f"[bold red]error:[/] {plain(text)}", stderr=True)
