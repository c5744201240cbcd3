"""A state and its status, as they are shown to people and to programs."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.text import Text

from fastapi_maintenance._helpers import clock
from fastapi_maintenance.cli.times import shown_age, shown_duration, shown_time
from fastapi_maintenance.errors import WorkerStatus
from fastapi_maintenance.state import (
    Hold,
    MaintenanceState,
    MaintenanceStatus,
    Window,
    open_holds,
    parts_in_force,
    status_of,
)

_SHORT = 8  # characters of an id


def tell(*parts: str, stderr: bool = False, indent: str = "") -> None:
    """Print parts, in Rich's markup: in a terminal that is too narrow for all, each on lines of its own.

    `indent`: what stands before these lines, the first apart.
    """
    console = Console(stderr=stderr, highlight=False, emoji=False)
    line = "  ".join(parts)
    in_terminal = console.file.isatty()
    fits = not in_terminal or Text.from_markup(line, emoji=False).cell_len <= console.width
    console.print(line if fits else f"\n{indent}".join(parts), soft_wrap=not in_terminal)


def tell_error(text: str) -> None:
    """Print what went wrong."""
    tell(f"[bold red]error:[/] {plain(text)}", stderr=True)


def plain(text: str) -> str:
    r"""Return a text as one line without markup or control characters.

    >>> plain("Back\nat [ten]\x1b[2J")
    'Back at \\[ten] [2J'
    """
    return escape(" ".join("".join(c if c.isprintable() else " " for c in text).split()))


def in_progress(workers: Sequence[WorkerStatus]) -> str:
    """Say how many requests of these workers are in progress, for how long, and how many workers have yet to report."""
    busy = [one for one in workers if one.requests]
    parts = []
    if busy:
        requests = sum(one.requests or 0 for one in busy)
        oldest = max(one.oldest_for or 0 for one in busy)
        where = f"{counted(requests, 'request')} in progress on {counted(len(busy), 'worker')}"
        parts.append(f"{where}, the oldest for {oldest:.0f} s")
    if silent := len(workers) - len(busy):
        parts.append(f"{counted(silent, 'worker')} yet to report")
    return ", ".join(parts) or "no requests in progress"


def word_of(*, is_on: bool) -> str:
    """Return whether maintenance is on, in colour."""
    return "[bold red]on[/]" if is_on else "[bold green]off[/]"


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """Return a number with its noun."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def show(state: MaintenanceState, workers: Sequence[WorkerStatus] | None = None) -> None:
    """Print for people what is true now, and below it the planned windows."""
    now = clock.now()
    status = status_of(state, now)
    parts = _parts_of(status, now)
    if holds := open_holds(state, now):
        parts.append(f"held by {counted(len(holds), 'running job')} ({_short_ids(holds)})")
    windows = [part for part in parts_in_force(state, now) if isinstance(part, Window)]
    if windows:
        parts.append(f"in {counted(len(windows), 'window')} ({_short_ids(windows)})")
    if status.active and workers:
        parts.append(in_progress([one for one in workers if one.requests != 0]))
    tell(*parts)
    for window in state.windows:
        if window.starts_at > now:
            show_window(window)


def say_who_holds(state: MaintenanceState) -> None:
    """Print on standard error if jobs hold maintenance on, or off, against the switch."""
    now = clock.now()
    decided_by = status_of(state, now).decided_by
    if isinstance(decided_by, Hold) and decided_by.on is not state.switch.on:
        jobs = sum(hold.on is decided_by.on for hold in open_holds(state, now))
        verb = "holds" if jobs == 1 else "hold"
        words = {True: "on", False: "off"}
        what = f"the switch is {words[state.switch.on]}"
        tell(f"{what}; {counted(jobs, 'job')} still {verb} maintenance {words[decided_by.on]}", stderr=True)


def show_window(window: Window) -> None:
    """Print a planned window."""
    tell(*_parts_of_window(window, clock.now()))


def show_change(status: MaintenanceStatus) -> None:
    """Print a status after the time of day."""
    now = clock.now()
    first, *parts = _parts_of(status, now)
    if isinstance(status.decided_by, (Hold, Window)):
        kind = "held by the job" if isinstance(status.decided_by, Hold) else "in the window"
        parts.append(f"{kind} {_short_ids([status.decided_by])}")
    if status.next_window is not None:
        parts += _parts_of_window(status.next_window, now)
    tell(f"{now.astimezone():%H:%M:%S}  {first}", *parts)


def _parts_of(status: MaintenanceStatus, now: datetime) -> list[str]:
    lasting = timedelta() if status.since is None else now - status.since
    age = f" for {shown_age(lasting)}" if lasting >= timedelta(seconds=1) else ""
    parts = [word_of(is_on=status.active) + age + _by_and_why(status.by, status.message)]
    if status.ends_at is not None and status.ends_at > now:
        parts.append(f"until {shown_time(status.ends_at)}, for {shown_duration(status.ends_at - now)}")
    elif status.ends_at is not None:
        parts.append(f"expected until {shown_time(status.ends_at)}, {shown_age(now - status.ends_at)} ago")
    return parts


def _parts_of_window(window: Window, now: datetime) -> list[str]:
    starts_at, ends_at = window.starts_at, window.ends_at
    parts = [
        f"[bold]planned[/] {_short_ids([window])}{_by_and_why(window.by, window.message)}",
        f"from {shown_time(starts_at)}, in {shown_duration(starts_at - now)}",
    ]
    if ends_at is not None:
        parts.append(f"until {shown_time(ends_at)}, for {shown_duration(ends_at - starts_at)}")
    return parts


def _short_ids(parts: Sequence[Hold | Window]) -> str:
    """Return the ids, as short as they differ."""
    ids = [part.id for part in parts]
    short = [one[:_SHORT] for one in ids]
    return ", ".join(map(plain, short if len({*short}) == len(ids) else ids))


def _by_and_why(by: str | None, message: str | None) -> str:
    return (f" by {plain(by)}" if by else "") + (f": {plain(message)}" if message else "")


def facts(name: str, state: MaintenanceState, workers: Sequence[WorkerStatus] | None) -> dict[str, Any]:
    """Return for programs what is true now; times are aware datetimes."""
    now = clock.now()
    status = status_of(state, now)
    kind = None if status.decided_by is None else type(status.decided_by).__name__.lower()
    reports = None if workers is None else [asdict(one) for one in workers]
    for one in reports or ():
        del one["holds"]
    return {
        "name": name,
        "status": {**asdict(status), "decided_by": kind},
        "switch": asdict(state.switch),
        "windows": [asdict(one) for one in state.windows if one.ends_at is None or one.ends_at > now],
        "holds": [asdict(hold) for hold in open_holds(state, now)],
        "workers": reports,
    }
