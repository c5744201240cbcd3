"""The command `fastapi-maintenance`: for operators, and for deployment scripts."""

from __future__ import annotations

import json
import logging
import signal
import sys
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Annotated, Any, TypeVar, cast

from fastapi_maintenance._helpers import clock
from fastapi_maintenance._helpers.version import __version__
from fastapi_maintenance._switch.drain import get_workers
from fastapi_maintenance.cli.times import duration_of, time_of
from fastapi_maintenance.control import get_maintenance_state, maintenance_changes, remove_hold, set_maintenance_mode
from fastapi_maintenance.state import MaintenanceState, WorkerStatus, is_active
from fastapi_maintenance.typing import StateBackend

try:
    import typer

    from fastapi_maintenance.cli.drain import held_on, workers_of
    from fastapi_maintenance.cli.help import Command, Group
    from fastapi_maintenance.cli.running import OneLine, author_of, run_held
    from fastapi_maintenance.cli.show import facts, show, tell_switch
    from fastapi_maintenance.cli.switch import act, fail
except ImportError as _error:
    msg = "the command fastapi-maintenance needs typer: pip install 'fastapi-maintenance[cli]'"
    raise ImportError(msg, name=_error.name) from _error

__all__ = ["main"]

_ON_STATUS = 3
_SHORTEST_PREFIX = 6  # characters of an id
_LEASE = timedelta(seconds=30)  # of the hold in which on drains
_T = TypeVar("_T")

app: typer.Typer = typer.Typer(
    cls=Group,
    name="fastapi-maintenance",
    help="Turn maintenance of a FastAPI service on and off.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)

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


Backend = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        callback=_given_once,
        help="Where the switch is kept, such as redis://host or file:maintenance.txt; by default "
        "FASTAPI_MAINTENANCE_BACKEND.",
    ),
]
App = Annotated[
    str | None,
    typer.Option(
        "--app",
        metavar="MODULE:ATTRIBUTE",
        callback=_given_once,
        help="The app whose switch is meant; by default the entrypoint in pyproject.toml.",
    ),
]
By = Annotated[str | None, typer.Option(metavar="TEXT", help="Who does it, for operators; by default user@host.")]
Message = Annotated[str | None, typer.Option("--message", "-m", help="What to tell visitors.")]
Lease = Annotated[str, typer.Option(metavar="DURATION", help="How long maintenance stays on if this machine dies.")]
Drain = Annotated[
    str | None,
    typer.Option(
        metavar="DURATION",
        help="How long to wait until no request that maintenance blocks is in progress. If some are left then, the "
        "exit status is 75: on leaves maintenance on, run does not start the command.",
    ),
]
HoldId = Annotated[
    str,
    typer.Argument(
        metavar="ID", help="As status shows it, or its first 6 characters. A running job puts its hold back."
    ),
]
Version = Annotated[bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version.")]


@app.callback()
def _options(backend: Backend = None, app_path: App = None, *, _version: Version = False) -> None: ...


def main() -> None:
    """Run the command; SIGTERM ends it as Ctrl-C does, so that a hold is given back."""
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    app()


@app.command(cls=Command)
def on(  # noqa: PLR0913, PLR0917 -- its options
    backend: Backend = None,
    app_path: App = None,
    message: Message = None,
    lasting: Annotated[str | None, typer.Option("--for", metavar="DURATION", help="90s, 30m, 2h, 1d.")] = None,
    until: Annotated[str | None, typer.Option(metavar="TIME", help="22:00, or a date and time; in your zone.")] = None,
    start: Annotated[str | None, typer.Option("--from", metavar="TIME", help="When it begins; by default now.")] = None,
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
    _set(backend, app_path, patience, value=True, by=by, message=message, starts_at=starts_at, ends_at=ends_at)


@app.command(cls=Command)
def off(backend: Backend = None, app_path: App = None, by: By = None) -> None:
    """Turn maintenance off."""
    _set(backend, app_path, value=False, by=by)


@app.command(cls=Command)
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
        return await get_maintenance_state(switch), await workers_of(switch)

    state, workers = act(look, backend, app_path, names.append if as_json else tell_switch)
    if as_json:
        typer.echo(json.dumps({**facts(state, workers), "switch": names[0]}, default=datetime.isoformat))
    else:
        show(state, workers)
    if exit_code and is_active(state, clock.now()):
        raise typer.Exit(_ON_STATUS)


@app.command(cls=Command)
def watch(backend: Backend = None, app_path: App = None) -> None:
    """Print each change as it happens, until you press Ctrl-C."""

    async def follow(switch: StateBackend) -> None:
        await get_maintenance_state(switch)  # where it cannot be read, there is nothing to watch
        _logger.addHandler(OneLine())
        async for state in maintenance_changes(switch):
            show(state, stamp=True)

    act(follow, backend, app_path)


@app.command(cls=Command, context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
def run(  # noqa: PLR0913, PLR0917 -- its options
    command: Annotated[list[str], typer.Argument(metavar="COMMAND", help="What to run, after --.")],
    backend: Backend = None,
    app_path: App = None,
    message: Message = None,
    lease: Lease = "30s",
    drain: Drain = None,
    by: By = None,
) -> None:
    """Turn maintenance on while a command runs, and off again whatever happens."""
    lasting, patience = _read("--lease", duration_of, lease), _read("--drain", duration_of, drain)
    action = partial(
        run_held, command=command, by=by, message=message, lease=cast("timedelta", lasting), drain=patience
    )
    raise typer.Exit(act(action, backend, app_path))


@app.command(cls=Command)
def release(hold_id: HoldId, backend: Backend = None, app_path: App = None) -> None:
    """Remove the hold of a job that died."""
    prefix = len(hold_id) >= _SHORTEST_PREFIX
    show(act(lambda switch: remove_hold(hold_id, switch, prefix=prefix), backend, app_path))


def _set(
    backend: str | None,
    app_path: str | None,
    drain: timedelta | None = None,
    *,
    by: str | None,
    **setting: Any,  # noqa: ANN401 -- of set_maintenance_mode
) -> None:
    async def change(switch: StateBackend) -> None:
        if drain is not None:
            await get_workers(switch)  # where that cannot be done, nothing has been changed yet
        author = author_of(by, switch)
        await set_maintenance_mode(backend=switch, by=author, **setting)
        show(await get_maintenance_state(switch))
        if drain is not None:
            async with held_on(switch, by=author, lease=_LEASE, drain=drain):
                pass

    act(change, backend, app_path)


def _read(option: str, reader: Callable[[str], _T], text: str | None) -> _T | None:
    try:
        return None if text is None else reader(text)
    except ValueError as error:
        fail(f"{option}: {error}")
