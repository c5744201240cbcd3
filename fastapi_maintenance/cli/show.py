"""Print a maintenance state, and other output, for people."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from rich.console import Console
from rich.markup import escape
from rich.text import Text

from fastapi_maintenance._helpers import clock
from fastapi_maintenance.cli.durations import format_age, format_duration, format_time
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


def print_parts(*parts: str, stderr: bool = False, indent: str = "") -> None:
    """Print parts in Rich's markup on one line.

    If a terminal is too narrow for them, each part gets a line of its own. All but the first are indented by `indent`.
    """
    console = Console(stderr=stderr, highlight=False, emoji=False)
    line = "  ".join(parts)
    in_terminal = console.file.isatty()
    fits = not in_terminal or Text.from_markup(line, emoji=False).cell_len <= console.width
    console.print(line if fits else f"\n{indent}".join(parts), soft_wrap=not in_terminal)


def print_err(text: str) -> None:
    """Print a line in Rich's markup on standard error."""
    print_parts(text, stderr=True)


def print_error(text: str) -> None:
    """Print an error message."""
    print_err(f"[bold red]error:[/] {plain(text)}")


def plain(text: str) -> str:
    r"""Return a text as one line without markup or control characters.

    >>> plain("Back\nat [ten]\x1b[2J")
    'Back at \\[ten] [2J'
    """
    return escape(" ".join("".join(c if c.isprintable() else " " for c in text).split()))


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """Return a number with its noun."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def on_or_off(*, is_on: bool) -> str:
    """Return whether maintenance is on, in colour."""
    return "[bold red]on[/]" if is_on else "[bold green]off[/]"


def in_progress(workers: Sequence[WorkerStatus]) -> str:
    """Return how many requests are in progress, for how long, and how many workers have yet to report."""
    busy = [worker for worker in workers if worker.requests]
    parts = []
    if busy:
        requests = sum(worker.requests or 0 for worker in busy)
        oldest = max(worker.oldest_for or 0 for worker in busy)
        where = f"{counted(requests, 'request')} in progress on {counted(len(busy), 'worker')}"
        parts.append(f"{where}, the oldest for {oldest:.0f} s")
    if silent := len(workers) - len(busy):
        parts.append(f"{counted(silent, 'worker')} yet to report")
    return ", ".join(parts) or "no requests in progress"


def print_state(state: MaintenanceState, workers: Sequence[WorkerStatus] | None = None) -> None:
    """Print the current status on one line, and each planned window on a line below it."""
    now = clock.now()
    status = status_of(state, now)
    parts = _parts_of_status(status, now)
    if holds := open_holds(state, now):
        parts.append(f"held by {counted(len(holds), 'running job')} ({_short_ids(holds)})")
    windows = [part for part in parts_in_force(state, now) if isinstance(part, Window)]
    if windows:
        parts.append(f"in {counted(len(windows), 'window')} ({_short_ids(windows)})")
    if status.active and workers:
        parts.append(in_progress([worker for worker in workers if worker.requests != 0]))
    print_parts(*parts)
    for window in state.windows:
        if window.starts_at > now:
            print_window(window)


def print_window(window: Window) -> None:
    """Print a planned window."""
    print_parts(*_parts_of_window(window, clock.now()))


def print_change(status: MaintenanceStatus) -> None:
    """Print the time of day and a status that has just begun."""
    now = clock.now()
    first, *parts = _parts_of_status(status, now)
    if isinstance(status.decided_by, (Hold, Window)):
        kind = "held by the job" if isinstance(status.decided_by, Hold) else "in the window"
        parts.append(f"{kind} {_short_ids([status.decided_by])}")
    if status.next_window is not None:
        parts += _parts_of_window(status.next_window, now)
    print_parts(f"{now.astimezone():%H:%M:%S}  {first}", *parts)


def _parts_of_status(status: MaintenanceStatus, now: datetime) -> list[str]:
    lasting = timedelta() if status.since is None else now - status.since
    age = f" for {format_age(lasting)}" if lasting >= timedelta(seconds=1) else ""
    parts = [on_or_off(is_on=status.active) + age + _by_and_message(status.by, status.message)]
    if status.ends_at is not None and status.ends_at > now:
        parts.append(f"until {format_time(status.ends_at)}, for {format_duration(status.ends_at - now)}")
    elif status.ends_at is not None:
        parts.append(f"expected until {format_time(status.ends_at)}, {format_age(now - status.ends_at)} ago")
    return parts


def _parts_of_window(window: Window, now: datetime) -> list[str]:
    starts_at, ends_at = window.starts_at, window.ends_at
    end = "without an end"
    if ends_at is not None:
        end = f"until {format_time(ends_at)}, for {format_duration(ends_at - starts_at)}"
    return [
        f"[bold]planned[/] {_short_ids([window])}{_by_and_message(window.by, window.message)}",
        f"from {format_time(starts_at)}, in {format_duration(starts_at - now)}",
        end,
    ]


def _short_ids(parts: Sequence[Hold | Window]) -> str:
    """Return the ids, shortened unless two of them would then be the same."""
    ids = [part.id for part in parts]
    short = [each[:_SHORT] for each in ids]
    return ", ".join(map(plain, short if len({*short}) == len(ids) else ids))


def _by_and_message(by: str | None, message: str | None) -> str:
    return (f" by {plain(by)}" if by else "") + (f": {plain(message)}" if message else "")
