"""The command `fastapi-maintenance`: for operators, and for deployment scripts."""

import json
import logging
import re
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from functools import partial
from typing import Annotated, Any, TypeVar

from fastapi_maintenance._helpers import clock
from fastapi_maintenance._helpers.version import __version__
from fastapi_maintenance._switch.drain import get_workers
from fastapi_maintenance._switch.holds import remove_hold
from fastapi_maintenance.control import checked_switch, get_maintenance_state, maintenance_changes
from fastapi_maintenance.errors import NotSupportedError, WorkerStatus
from fastapi_maintenance.state import MaintenanceState, is_active
from fastapi_maintenance.typing import StateBackend

try:
    import typer

    from fastapi_maintenance.cli.help import Command, Group
    from fastapi_maintenance.cli.hold import OneLine, run_held, set_and_drain
    from fastapi_maintenance.cli.show import duration_of, facts, show, tell_error, time_of
    from fastapi_maintenance.cli.switch import act, fail, store_problem, tell_switch
except ImportError as _error:
    msg = "the command fastapi-maintenance needs typer: pip install 'fastapi-maintenance[cli]'"
    raise ImportError(msg, name=_error.name) from _error

_ON_STATUS = 3
_SHORTEST_PREFIX = 6  # characters of an id
_T = TypeVar("_T")

app: typer.Typer = typer.Typer(
    cls=Group,
    name="fastapi-maintenance",
    help="Turn maintenance of a FastAPI service on and off.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
_command = partial(app.command, cls=Command)
_logger = logging.getLogger("fastapi_maintenance")
_logger.addHandler(logging.NullHandler())  # the command itself prints what fails


def _given_once(ctx: typer.Context, param: typer.CallbackParam, value: str | None) -> str | None:
    """Return the value of an option that may stand before or after the subcommand."""
    before = ctx.parent.params.get(str(param.name)) if ctx.parent is not None else None
    if value is not None and before not in {None, value}:
        fail(f"{param.opts[0]} has different values before and after the subcommand; give it once")
    return before if value is None else value


def _print_version(wanted: bool) -> None:  # noqa: FBT001 -- Typer calls it so
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


def _read(option: str, reader: Callable[[str], _T], text: str | None) -> _T | None:
    try:
        return None if text is None else reader(text)
    except ValueError as error:
        fail(f"{option}: {error}")


_once = partial(typer.Option, callback=_given_once)
_duration = partial(typer.Option, metavar="DURATION")
_time = partial(typer.Option, metavar="TIME")
_BACKEND_HELP = (
    "Where the switch is kept, such as redis://host or file:maintenance.txt; by default FASTAPI_MAINTENANCE_BACKEND."
)
_APP_HELP = "The app whose switch is meant; by default the entrypoint in pyproject.toml."
_DRAIN_HELP = (
    "How long to wait until no request that maintenance blocks is in progress. If some are left then, the exit status "
    "is 75: on leaves maintenance on, run does not start the command."
)
_LEASE_HELP = "How long maintenance stays on if this machine dies; by default 30s."
_ID_HELP = "As status shows it, or its first 6 characters. A running job puts its hold back."
Backend = Annotated[str | None, _once(metavar="URL", help=_BACKEND_HELP)]
App = Annotated[str | None, _once("--app", metavar="MODULE:ATTRIBUTE", help=_APP_HELP)]
By = Annotated[str | None, typer.Option(metavar="TEXT", help="Who does it, for operators; by default user@host.")]
Message = Annotated[str | None, typer.Option("--message", "-m", help="What to tell visitors.")]
Drain = Annotated[str | None, _duration(help=_DRAIN_HELP)]
Version = Annotated[bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version.")]


@app.callback()
def _options(backend: Backend = None, app_path: App = None, *, _version: Version = False) -> None: ...


def main() -> None:
    """Run the command; SIGTERM and SIGHUP end it as Ctrl-C does, so that a hold is given back."""
    for name in ("SIGTERM", "SIGHUP"):  # Windows has no SIGHUP
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:  # as nohup has it
            signal.signal(number, lambda number, _: sys.exit(128 + number))
    app()


@_command()
def on(  # noqa: PLR0913, PLR0917 -- its options
    backend: Backend = None,
    app_path: App = None,
    message: Message = None,
    lasting: Annotated[str | None, _duration("--for", help="90s, 30m, 2h, 1d.")] = None,
    until: Annotated[str | None, _time(help="22:00, or a date and time; in your zone.")] = None,
    start: Annotated[str | None, _time("--from", help="When it begins; by default now.")] = None,
    drain: Drain = None,
    by: By = None,
) -> None:
    """Turn maintenance on."""
    now = clock.now()
    if lasting is not None and until is not None:
        fail("--for and --until say the same in two ways; give one of them")
    starts_at = _read("--from", partial(time_of, now=now), start)
    ends_at = _read("--until", partial(time_of, now=now), until)
    if duration := _read("--for", duration_of, lasting):
        try:
            ends_at = (starts_at or now) + duration
        except OverflowError:
            fail(f"--for: {lasting!r} ends after the year 9999")
    patience = _read("--drain", duration_of, drain)
    if patience and starts_at and starts_at > now:
        fail("--drain waits for requests that are blocked now; it does not go with --from in the future")
    setting: dict[str, Any] = {"message": message, "starts_at": starts_at, "ends_at": ends_at}
    try:
        checked_switch(True, by=by, **setting)  # noqa: FBT003 -- as the parameter is called here
    except ValueError as error:
        options = {"starts_at": "--from", "ends_at": "--until" if lasting is None else "--for"}
        fail(re.sub(r"\b(starts|ends)_at\b", lambda found: options[found[0]], str(error)))
    act(partial(set_and_drain, {"value": True, **setting}, by, patience), backend, app_path)


@_command()
def off(backend: Backend = None, app_path: App = None, by: By = None) -> None:
    """Turn maintenance off."""
    act(partial(set_and_drain, {"value": False}, by, None), backend, app_path)


@_command()
def status(
    backend: Backend = None,
    app_path: App = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    exit_code: Annotated[bool, typer.Option("--exit-code", help="End with 3 if maintenance is on.")] = False,
) -> None:
    """Tell whether maintenance is on, and why."""
    names: list[str] = []

    async def look(switch: StateBackend) -> tuple[MaintenanceState, Sequence[WorkerStatus] | None]:
        state, workers = await get_maintenance_state(switch), None
        try:
            with suppress(NotSupportedError):
                workers = await get_workers(switch)
        except Exception as error:  # noqa: BLE001 -- whatever a store raises: the state is known all the same
            tell_error(store_problem(error))
        return state, workers

    state, workers = act(look, backend, app_path, names.append if as_json else tell_switch)
    if as_json:
        typer.echo(json.dumps({**facts(state, workers), "switch": names[0]}, default=datetime.isoformat))
    else:
        show(state, workers)
    if exit_code and is_active(state, clock.now()):
        raise typer.Exit(_ON_STATUS)


@_command()
def watch(backend: Backend = None, app_path: App = None) -> None:
    """Print each change as it happens, until you press Ctrl-C."""

    async def follow(switch: StateBackend) -> None:
        await get_maintenance_state(switch)  # where it cannot be read, there is nothing to watch
        _logger.addHandler(OneLine())
        async for state in maintenance_changes(switch):
            show(state, stamp=True)

    act(follow, backend, app_path)


@_command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
def run(  # noqa: PLR0913, PLR0917 -- its options
    command: Annotated[list[str], typer.Argument(metavar="COMMAND", help="What to run, after --.")],
    backend: Backend = None,
    app_path: App = None,
    message: Message = None,
    lease: Annotated[str | None, _duration(help=_LEASE_HELP)] = None,
    drain: Drain = None,
    by: By = None,
) -> None:
    """Turn maintenance on while a command runs, and off again whatever happens."""
    hold = {
        "message": message,
        "lease": _read("--lease", duration_of, lease),
        "drain": _read("--drain", duration_of, drain),
    }
    raise typer.Exit(act(partial(run_held, command, by, hold), backend, app_path))


@_command()
def release(
    hold_id: Annotated[str, typer.Argument(metavar="ID", help=_ID_HELP)], backend: Backend = None, app_path: App = None
) -> None:
    """Remove the hold of a job that died."""
    prefix = len(hold_id) >= _SHORTEST_PREFIX
    show(act(lambda switch: remove_hold(hold_id, switch, prefix=prefix), backend, app_path))
