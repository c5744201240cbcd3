"""The command `fastapi-maintenance`: for operators, and for deployment scripts."""

import io
import json
import logging
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from datetime import datetime
from functools import partial
from typing import Annotated, Any, TypeVar, cast

from fastapi_maintenance._helpers import clock
from fastapi_maintenance._helpers.version import __version__
from fastapi_maintenance._switch.holds import remove_hold
from fastapi_maintenance._switch.reports import get_workers
from fastapi_maintenance.control import get_maintenance_state, maintenance_changes, plan_maintenance, remove_window
from fastapi_maintenance.errors import NotSupportedError, WorkerStatus
from fastapi_maintenance.middleware import maintained_layers
from fastapi_maintenance.state import MaintenanceState, Window, status_of
from fastapi_maintenance.typing import StateBackend

try:
    import typer

    from fastapi_maintenance.cli import options as opt
    from fastapi_maintenance.cli.change import edit as change
    from fastapi_maintenance.cli.change import turn_off, turn_on
    from fastapi_maintenance.cli.help import Command, Group
    from fastapi_maintenance.cli.hold import problem_with, run_held
    from fastapi_maintenance.cli.routes import NO_MIDDLEWARE, routes_in_maintenance, show_routes
    from fastapi_maintenance.cli.show import facts, plain, show, show_change, show_window, tell, tell_error
    from fastapi_maintenance.cli.switch import (
        Which,
        act,
        fail,
        find_app,
        find_backend,
        store_problem,
        switch_name,
        tell_switch,
    )
    from fastapi_maintenance.cli.times import duration_of, end_of, time_of
    from fastapi_maintenance.cli.workers import show_workers
except ImportError as _error:
    msg = "the command fastapi-maintenance needs typer: pip install 'fastapi-maintenance[cli]'"
    raise ImportError(msg, name=_error.name) from _error

_ON_STATUS = 3
_F = TypeVar("_F", bound=Callable[..., Any])

app: typer.Typer = typer.Typer(
    cls=Group,
    name="fastapi-maintenance",
    help="Turn maintenance of a FastAPI service on and off.",
    epilog=(
        "export FASTAPI_MAINTENANCE_BACKEND=redis://localhost\n"
        'fastapi-maintenance on --message "Back at ten" --for 30m\n'
        "fastapi-maintenance status\n"
        "fastapi-maintenance off"
    ),
    context_settings={"help_option_names": ["-h", "--help"]},
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
_logger = logging.getLogger("fastapi_maintenance")
_logger.addHandler(logging.NullHandler())  # `act` prints the records


def _command(*examples: str, **settings: Any) -> Callable[[_F], _F]:  # noqa: ANN401 -- those of Typer
    """Return the decorator of a command whose help has these examples."""
    return app.command(cls=Command, epilog="\n".join(f"fastapi-maintenance {line}" for line in examples), **settings)


def _print_version(wanted: bool) -> None:  # noqa: FBT001 -- Typer calls it so
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


Version = Annotated[bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version.")]


@app.callback()
def _options(
    backend: opt.Backend = None, app_path: opt.App = None, switch: opt.Switch = None, *, _version: Version = False
) -> None: ...


def main() -> None:
    """Run the command; SIGTERM and SIGHUP end it as Ctrl-C does, so that a hold is given back."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError):  # of a stream of another kind
            cast("io.TextIOWrapper", stream).reconfigure(errors="backslashreplace")  # what cannot be encoded is escaped
    for name in ("SIGTERM", "SIGHUP"):  # Windows has no SIGHUP
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:  # as nohup has it
            signal.signal(number, lambda number, _: sys.exit(128 + number))
    app()


@_command('on --message "Back at ten" --for 30m', "on --until 22:00 --by alice", "on --drain 30s --workers 4")
def on(  # noqa: PLR0913, PLR0917 -- its options
    backend: opt.Backend = None,
    app_path: opt.App = None,
    switch: opt.Switch = None,
    message: opt.Message = None,
    lasting: opt.For = None,
    until: opt.Until = None,
    drain: opt.Drain = None,
    workers: opt.Workers = None,
    by: opt.By = None,
    start: opt.NotFrom = None,
    *,
    no_end: opt.NoEnd = False,
    no_message: opt.NoMessage = False,
) -> None:
    """Turn maintenance on. If it is on, keep what is not mentioned."""
    if start is not None:
        fail("--from belongs to `plan`; `on` begins now")
    changes, option = opt.read_changes(message, lasting, until, by, no_end=no_end, no_message=no_message)
    patience = opt.read("--drain", drain, duration_of)
    act(partial(turn_on, changes, patience, workers), Which(backend, app_path, switch), end_option=option)


@_command("off", "off --backend redis://localhost")
def off(backend: opt.Backend = None, app_path: opt.App = None, switch: opt.Switch = None, by: opt.By = None) -> None:
    """Turn maintenance off. What is planned for later stays."""
    act(partial(turn_off, by), Which(backend, app_path, switch))


@_command('edit --message "Back at eleven"', "edit --until 23:00", "edit --no-end")
def edit(  # noqa: PLR0913, PLR0917 -- its options
    backend: opt.Backend = None,
    app_path: opt.App = None,
    switch: opt.Switch = None,
    message: opt.Message = None,
    lasting: opt.For = None,
    until: opt.Until = None,
    by: opt.By = None,
    *,
    no_end: opt.NoEnd = False,
    no_message: opt.NoMessage = False,
) -> None:
    """Change the message or the end while maintenance is on."""
    changes, option = opt.read_changes(message, lasting, until, by, no_end=no_end, no_message=no_message)
    if not changes:
        fail("nothing to change: give --message, --no-message, --for, --until, --no-end or --by")
    act(partial(change, changes), Which(backend, app_path, switch), end_option=option)


@_command('plan --from 22:00 --until 04:00 --message "New database"', 'plan --from "2030-12-31 22:00" --for 2h')
def plan(  # noqa: PLR0913, PLR0917 -- its options
    start: opt.From,
    backend: opt.Backend = None,
    app_path: opt.App = None,
    switch: opt.Switch = None,
    message: opt.Message = None,
    lasting: opt.For = None,
    until: opt.Until = None,
    by: opt.By = None,
) -> None:
    """Plan maintenance for later. Nothing changes until then."""
    now = clock.now()
    starts_at, zone = opt.read("--from", start, lambda text: time_of(text, now)) or (now, None)
    option, ends_at = opt.read_end(lasting, until, starts_at, zone)

    async def add(backend: StateBackend, _name: str) -> Window:
        return await plan_maintenance(starts_at, ends_at, backend, message=message, by=by)

    show_window(act(add, Which(backend, app_path, switch), end_option=option or "--until"))


@_command("cancel 3f2a9c1b")
def cancel(window_id: opt.Id, backend: opt.Backend = None, app_path: opt.App = None, switch: opt.Switch = None) -> None:
    """Cancel planned maintenance; if it has begun, end it."""
    show(
        act(
            lambda backend, _: remove_window(window_id, backend, shortest=opt.SHORTEST_PREFIX),
            Which(backend, app_path, switch),
        )
    )


@_command("status", "status --json", "status --exit-code --app main:app")
def status(  # noqa: PLR0913 -- its options
    backend: opt.Backend = None,
    app_path: opt.App = None,
    switch: opt.Switch = None,
    var_name: opt.VarName = None,
    file_path: opt.FilePath = None,
    *,
    as_json: opt.AsJson = False,
    exit_code: Annotated[bool, typer.Option("--exit-code", help="End with 3 if maintenance is on.")] = False,
) -> None:
    """Show whether maintenance is on, and why, and what is planned."""
    names: list[str] = []
    which = Which(opt.url_of(backend, var_name, file_path), app_path, switch)

    async def look(backend: StateBackend, _name: str) -> tuple[MaintenanceState, Sequence[WorkerStatus] | None]:
        state, workers = await get_maintenance_state(backend), None
        try:
            with suppress(NotSupportedError):
                workers = await get_workers(backend)
        except Exception as error:  # noqa: BLE001 -- whatever a store raises: the state is known all the same
            tell_error(store_problem(error))
        return state, workers

    state, workers = act(look, which, names.append if as_json else tell_switch)
    if as_json:
        typer.echo(json.dumps(facts(names[0], state, workers), default=datetime.isoformat))
    else:
        show(state, workers)
    if exit_code and status_of(state, clock.now()).active:
        raise typer.Exit(_ON_STATUS)


@_command("workers", "workers --app main:app")
def workers(backend: opt.Backend = None, app_path: opt.App = None, switch: opt.Switch = None) -> None:
    """Show the processes that serve behind the switch, and whether they have its state."""

    async def look(backend: StateBackend, name: str) -> None:
        show_workers(await get_workers(backend), name)

    act(look, Which(backend, app_path, switch))


@_command("routes --app main:app", "routes --app main:app --json")
def routes(app_path: opt.App = None, switch: opt.Switch = None, *, as_json: opt.AsJson = False) -> None:
    """Show what each route of an app gets while maintenance is on, and why."""
    path, served = find_app(app_path)
    chosen = None if switch is None else find_backend(path, switch)
    try:
        rows = routes_in_maintenance(served, chosen)
        backends = [layer.backend for layer in maintained_layers(served)] if chosen is None else [chosen]
    except Exception as error:  # noqa: BLE001 -- whatever the layers of the app raise when they are built
        fail(f"the app {path} cannot be built: {type(error).__name__}: {error}")
    if all(row.why == NO_MIDDLEWARE for row in rows):
        fail(f"{path} is not an app with a maintenance middleware")
    names = list(dict.fromkeys(map(switch_name, backends)))
    if as_json:
        typer.echo(json.dumps({"app": path, "switches": names, "routes": [asdict(row) for row in rows]}))
        return
    for name in names:
        tell_switch(f"{name} of {path}")
    show_routes(rows)


@_command("watch", "watch --backend file:maintenance.txt")
def watch(backend: opt.Backend = None, app_path: opt.App = None, switch: opt.Switch = None) -> None:
    """Print each change as it happens, until you press Ctrl-C."""

    async def follow(backend: StateBackend, _name: str) -> None:
        await get_maintenance_state(backend)  # where it cannot be read, there is nothing to watch
        async for status in maintenance_changes(backend):
            show_change(status)

    act(follow, Which(backend, app_path, switch))


@_command(
    "run --expect 5m -- alembic upgrade head",
    "run --drain 30s --workers 4 -- alembic upgrade head",
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
def run(  # noqa: PLR0913, PLR0917 -- its options
    command: Annotated[list[str], typer.Argument(metavar="COMMAND", help="What to run, after --.")],
    backend: opt.Backend = None,
    app_path: opt.App = None,
    switch: opt.Switch = None,
    message: opt.Message = None,
    expect: opt.Expect = None,
    lease: opt.Lease = None,
    drain: opt.RunDrain = None,
    workers: opt.Workers = None,
    by: opt.By = None,
) -> None:
    """Turn maintenance on while a command runs, and off again whatever happens."""
    if command[0].startswith("-"):
        fail(f"there is no option {command[0]}; the command to run stands after --")
    if (problem := problem_with(command[0])) is not None:
        tell(f"{plain(command[0])}: {problem[1]}; maintenance was not turned on", stderr=True)
        raise typer.Exit(problem[0])
    hold = {
        "message": message,
        "ends_at": opt.read("--expect", expect, lambda text: end_of(text, clock.now())),
        "lease": opt.read("--lease", lease, duration_of),
        "drain": opt.read("--drain", drain, duration_of),
        "workers": workers,
        "by": by,
    }
    raise typer.Exit(act(partial(run_held, command, hold), Which(backend, app_path, switch), end_option="--expect"))


@_command("release 5c7d1e2f")
def release(hold_id: opt.Id, backend: opt.Backend = None, app_path: opt.App = None, switch: opt.Switch = None) -> None:
    """Remove the hold of a job that died. A running job puts its hold back."""
    show(
        act(
            lambda backend, _: remove_hold(hold_id, backend, shortest=opt.SHORTEST_PREFIX),
            Which(backend, app_path, switch),
        )
    )
