"""The options of the commands, and how their values are read."""

from collections.abc import Callable
from datetime import datetime, tzinfo
from functools import partial
from typing import Annotated, Any, TypeVar
from urllib.parse import quote

import typer

from fastapi_maintenance._helpers import clock
from fastapi_maintenance.cli.durations import parse_end, parse_time
from fastapi_maintenance.cli.errors import fail

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
_DRAIN_HELP = (
    "How long to wait until no request that maintenance blocks is in progress, at least 2s. If some are left then, "
)
_TIME_HELP = "22:00, the next such time, or 2030-12-31 22:00 in your time zone, or 2030-12-31T22:00+01:00 in another."
SHORTEST_PREFIX = 6  # characters of an id
_ID_HELP = f"The id that status shows, or its first {SHORTEST_PREFIX} characters."
Backend = Annotated[str | None, _once(metavar="URL", help=_BACKEND_HELP)]
App = Annotated[
    str | None,
    _once(
        "--app",
        metavar="MODULE:ATTRIBUTE",
        help="The app whose switch to use; by default the entrypoint in pyproject.toml.",
    ),
]
Switch = Annotated[
    str | None, _once("--switch", metavar="NAME", help="Which switch to use if the app has several: part of its name.")
]
By = Annotated[str | None, typer.Option(metavar="TEXT", help="Who makes the change, for operators.")]
Message = Annotated[str | None, typer.Option("--message", "-m", metavar="TEXT", help="The message for visitors.")]
For = Annotated[str | None, _duration("--for", help="How long it lasts, such as 90s, 30m, 2h, 1d or 1h30m.")]
Until = Annotated[str | None, _time(help=f"When it ends: {_TIME_HELP}")]
From = Annotated[str, _time("--from", help=f"When it begins: {_TIME_HELP}")]
NoEnd = Annotated[bool, typer.Option("--no-end", help="Remove the end.")]
NoMessage = Annotated[bool, typer.Option("--no-message", help="Remove the message.")]
Drain = Annotated[str | None, _duration(help=f"{_DRAIN_HELP}maintenance stays on, and the exit status is 75.")]
RunDrain = Annotated[
    str | None,
    _duration("--drain", help=f"{_DRAIN_HELP}maintenance ends, the command is not run, and the exit status is 75."),
]
Workers = Annotated[
    int | None,
    typer.Option(metavar="N", min=0, help="With --drain: how many processes must confirm, at least; by default 1."),
]
Lease = Annotated[str | None, _duration(help="How long maintenance stays on if this machine dies; by default 30s.")]
Expect = Annotated[
    str | None, _duration(help="How long you expect it to take, such as 5m: clients are asked to come back then.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Id = Annotated[str, typer.Argument(metavar="ID", help=_ID_HELP)]
VarName = Annotated[str | None, typer.Option("--var-name", hidden=True)]  # of version 0.0.5
FilePath = Annotated[str | None, typer.Option("--file-path", hidden=True)]  # of version 0.0.5
NotFrom = Annotated[str | None, typer.Option("--from", hidden=True)]  # refused, with the reason
NotBackend = Annotated[str | None, _once("--backend", hidden=True)]  # refused, with the reason


def url_of(backend: str | None, var_name: str | None, file_path: str | None) -> str | None:
    """Return the URL of a backend that may be given as in version 0.0.5: `--backend env --var-name X`."""
    for scheme, option, value in (("env", "--var-name", var_name), ("file", "--file-path", file_path)):
        if value is not None:
            if backend not in {None, scheme}:
                fail(f"{option} goes with --backend {scheme} only; a URL contains it: {scheme}:{value}")
            return f"{scheme}:{quote(value)}"
    return backend


def read(option: str, text: str | None, parse: Callable[[str], _T]) -> _T | None:
    """Parse the value of an option; an invalid one ends the command."""
    try:
        return None if text is None else parse(text)
    except ValueError as error:
        fail(f"{option}: {error}")


def read_end(
    lasting: str | None, until: str | None, start: datetime, zone: tzinfo | None = None, *, no_end: bool = False
) -> dict[str, Any]:
    """Return `ends_at` if an option sets it; a time of day is the first one after `start`."""
    options = {"--for": lasting, "--until": until, "--no-end": no_end or None}
    given = [option for option, value in options.items() if value is not None]
    if len(given) > 1:
        fail(f"give only one of {' and '.join(given)}")
    ends_at = read("--for", lasting, lambda text: parse_end(text, start))
    ends_at = ends_at or read("--until", until, lambda text: parse_time(text, start, zone)[0])
    return {"ends_at": ends_at} if given else {}


def read_changes(  # noqa: PLR0913 -- the options of `on` and `edit`
    message: str | None, lasting: str | None, until: str | None, by: str | None, *, no_end: bool, no_message: bool
) -> dict[str, Any]:
    """Return the fields of the switch that options set."""
    if message is not None and no_message:
        fail("give only one of --message and --no-message")
    changes = read_end(lasting, until, clock.now(), no_end=no_end)
    if message is not None or no_message:
        changes["message"] = message
    if by is not None:
        changes["by"] = by
    return changes
