"""The options of the commands, and what is read from them."""

from collections.abc import Callable
from datetime import datetime, tzinfo
from functools import partial
from typing import Annotated, Any, TypeVar
from urllib.parse import quote

import typer

from fastapi_maintenance._helpers import clock
from fastapi_maintenance.cli.switch import fail
from fastapi_maintenance.cli.times import end_of, time_of

_T = TypeVar("_T")


def _given_once(ctx: typer.Context, param: typer.CallbackParam, value: str | None) -> str | None:
    """Return the value of an option that may stand before or after the subcommand."""
    before = ctx.parent.params.get(str(param.name)) if ctx.parent is not None else None
    if value is not None and before not in {None, value}:
        fail(f"{param.opts[0]} has different values before and after the subcommand; give it once")
    return before if value is None else value


_once = partial(typer.Option, callback=_given_once)
_duration = partial(typer.Option, metavar="DURATION")
_time = partial(typer.Option, metavar="TIME")
_BACKEND_HELP = (
    "Where the switch is kept, such as redis://host or file:maintenance.txt; by default FASTAPI_MAINTENANCE_BACKEND."
)
_SWITCH_HELP = "Which switch of an app with several: a part of its name."
_WORKERS_HELP = "How many processes have to confirm at least, with --drain; by default 1."
_APP_HELP = "The app whose switch is meant; by default the entrypoint in pyproject.toml."
_DRAIN_HELP = (
    "How long to wait until no request that maintenance blocks is in progress, at least 2s. If some are left then, "
)
_LEASE_HELP = "How long maintenance stays on if this machine dies; by default 30s."
SHORTEST_PREFIX = 6  # characters of an id
_ID_HELP = f"As status shows it, or its first {SHORTEST_PREFIX} characters."
_EXPECT_HELP = "How long you expect it to take: clients are asked to come back then."
Backend = Annotated[str | None, _once(metavar="URL", help=_BACKEND_HELP)]
App = Annotated[str | None, _once("--app", metavar="MODULE:ATTRIBUTE", help=_APP_HELP)]
Switch = Annotated[str | None, _once("--switch", metavar="NAME", help=_SWITCH_HELP)]
By = Annotated[str | None, typer.Option(metavar="TEXT", help="Who does it, for operators.")]
Message = Annotated[str | None, typer.Option("--message", "-m", help="What to tell visitors.")]
For = Annotated[str | None, _duration("--for", help="How long it lasts.")]
Until = Annotated[str | None, _time(help="When it ends.")]
From = Annotated[str, _time("--from", help="When it begins.")]
VarName = Annotated[str | None, typer.Option("--var-name", hidden=True)]
FilePath = Annotated[str | None, typer.Option("--file-path", hidden=True)]
NotFrom = Annotated[str | None, typer.Option("--from", hidden=True)]
NoEnd = Annotated[bool, typer.Option("--no-end", help="It has no end.")]
NoMessage = Annotated[bool, typer.Option("--no-message", help="It has no message.")]
Drain = Annotated[str | None, _duration(help=f"{_DRAIN_HELP}maintenance stays on, and the exit status is 75.")]
RunDrain = Annotated[
    str | None,
    _duration("--drain", help=f"{_DRAIN_HELP}maintenance ends, the command is not run, and the exit status is 75."),
]
Workers = Annotated[int | None, typer.Option(metavar="N", min=0, help=_WORKERS_HELP)]
Lease = Annotated[str | None, _duration(help=_LEASE_HELP)]
Expect = Annotated[str | None, _duration(help=_EXPECT_HELP)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Id = Annotated[str, typer.Argument(metavar="ID", help=_ID_HELP)]


def url_of(backend: str | None, var_name: str | None, file_path: str | None) -> str | None:
    """Return the URL of a backend that is named as in version 0.0.5: `--backend env --var-name X`."""
    for scheme, option, value in (("env", "--var-name", var_name), ("file", "--file-path", file_path)):
        if value is not None:
            if backend not in {None, scheme}:
                fail(f"{option} belongs to --backend {scheme}; a URL has it in itself, as {scheme}:{value}")
            return f"{scheme}:{quote(value)}"
    return backend


def read(option: str, text: str | None, reader: Callable[[str], _T]) -> _T | None:
    """Read the value of an option; one that is not valid ends the command."""
    try:
        return None if text is None else reader(text)
    except ValueError as error:
        fail(f"{option}: {error}")


def read_end(
    lasting: str | None, until: str | None, start: datetime, zone: tzinfo | None = None, *, no_end: bool = False
) -> tuple[str | None, datetime | None]:
    """Return the option that says when it ends, and when that is; a time of day is the first one after `start`."""
    options = {"--for": lasting, "--until": until, "--no-end": no_end or None}
    given = [option for option, value in options.items() if value is not None]
    if len(given) > 1:
        fail(f"give only one of {' and '.join(given)}")
    ends_at = read("--for", lasting, lambda text: end_of(text, start))
    ends_at = ends_at or read("--until", until, lambda text: time_of(text, start, zone)[0])
    return next(iter(given), None), ends_at


def read_changes(  # noqa: PLR0913 -- the options of `on` and `edit`
    message: str | None,
    lasting: str | None,
    until: str | None,
    by: str | None,
    *,
    no_end: bool,
    no_message: bool,
) -> tuple[dict[str, Any], str]:
    """Return the fields of the switch that are mentioned, and the option that says when it ends."""
    if message is not None and no_message:
        fail("give only one of --message and --no-message")
    option, ends_at = read_end(lasting, until, clock.now(), no_end=no_end)
    changes: dict[str, Any] = {} if option is None else {"ends_at": ends_at}
    if message is not None or no_message:
        changes["message"] = message
    if by is not None:
        changes["by"] = by
    return changes, option or "--until"
