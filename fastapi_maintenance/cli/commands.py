"""The command `fastapi-maintenance`: its subcommands with their examples, and its help."""

import inspect
import io
import logging
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from inspect import Parameter
from typing import Annotated, Any, cast

from fastapi_maintenance._helpers.process import __version__

try:
    import typer

    from fastapi_maintenance.cli import options as opt
    from fastapi_maintenance.cli.change import cancel, edit, off, on, plan, release
    from fastapi_maintenance.cli.routes import routes
    from fastapi_maintenance.cli.run import run
    from fastapi_maintenance.cli.status import status, watch, workers
    from fastapi_maintenance.cli.target import Which
except ImportError as _error:
    msg = "the command fastapi-maintenance needs typer: pip install 'fastapi-maintenance[cli]'"
    raise ImportError(msg, name=_error.name) from _error


def _epilog(*examples: str) -> str:
    return "\n".join(["\b", "Examples:", *(f"  {line}" for line in examples)])  # \b: keep the lines as they are


app: typer.Typer = typer.Typer(
    name="fastapi-maintenance",
    help="Turn maintenance of a FastAPI service on and off.",
    epilog=_epilog(
        "export FASTAPI_MAINTENANCE_BACKEND=redis://localhost",
        'fastapi-maintenance on --message "Back at ten" --for 30m',
        "fastapi-maintenance status",
        "fastapi-maintenance off",
    ),
    context_settings={"help_option_names": ["-h", "--help"]},
    no_args_is_help=True,
    rich_markup_mode=None,  # help is plain text, which fits a terminal of any width
    pretty_exceptions_enable=False,
)
logging.getLogger("fastapi_maintenance").addHandler(logging.NullHandler())  # `act` prints the records


def _print_version(wanted: bool) -> None:  # noqa: FBT001 -- Typer calls it so
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


_Version = Annotated[bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version.")]


@app.callback()
def _options(
    backend: opt.Backend = None, app_path: opt.App = None, switch: opt.Switch = None, *, _version: _Version = False
) -> None: ...


def _choosing(function: Callable[..., None]) -> Callable[..., None]:
    """Return a command with the options that choose a switch in place of its parameter `which`."""
    signature = inspect.signature(function)
    own = [parameter for name, parameter in signature.parameters.items() if name != "which"]
    options = {"backend": opt.Backend, "app_path": opt.App, "switch": opt.Switch}
    added = [Parameter(name, Parameter.KEYWORD_ONLY, default=None, annotation=kind) for name, kind in options.items()]

    @wraps(function)
    def command(*, backend: str | None, app_path: str | None, switch: str | None, **others: object) -> None:
        function(Which(backend, app_path, switch), **others)

    command.__signature__ = signature.replace(parameters=[*own, *added])  # type: ignore[attr-defined]  # Typer reads it
    return command


def _add(function: Callable[..., None], *examples: str, **settings: Any) -> None:  # noqa: ANN401 -- those of Typer
    """Add a subcommand with these examples in its help."""
    epilog = _epilog(*(f"fastapi-maintenance {line}" for line in examples))
    app.command(short_help=function.__doc__, epilog=epilog, **settings)(
        _choosing(function) if "which" in function.__annotations__ else function
    )


_add(on, 'on --message "Back at ten" --for 30m', "on --until 22:00 --by alice", "on --drain 30s --workers 4")
_add(off, "off", "off --backend redis://localhost")
_add(edit, 'edit --message "Back at eleven"', "edit --until 23:00", "edit --no-end")
_add(plan, 'plan --from 22:00 --until 04:00 --message "New database"', 'plan --from "2030-12-31 22:00" --for 2h')
_add(cancel, "cancel 3f2a9c1b")
_add(status, "status", "status --json", "status --exit-code --app main:app")
_add(workers, "workers", "workers --app main:app")
_add(routes, "routes --app main:app", "routes --app main:app --json")
_add(watch, "watch", "watch --backend file:maintenance.txt")
_add(
    run,
    "run --expect 5m -- alembic upgrade head",
    "run --drain 30s --workers 4 -- alembic upgrade head",
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
_add(release, "release 5c7d1e2f")


def main() -> None:
    """Run the command; SIGTERM and SIGHUP end it as Ctrl-C does, so that a hold is released."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError):  # of a stream of another kind
            cast("io.TextIOWrapper", stream).reconfigure(errors="backslashreplace")  # escape what cannot be encoded
    for name in ("SIGTERM", "SIGHUP"):  # Windows has no SIGHUP
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:  # nohup ignores SIGHUP
            signal.signal(number, lambda number, _: sys.exit(128 + number))
    app()
