"""A state as the command shows it: for people, in a terminal of any width or in a log, and for programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import timedelta
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.text import Text

from fastapi_maintenance._helpers import clock
from fastapi_maintenance.cli.times import shown_age, shown_duration, shown_time
from fastapi_maintenance.state import (
    MaintenanceState,
    WorkerStatus,
    current_author,
    current_message,
    is_active,
    open_holds,
)

__all__ = [
    "facts",
    "in_progress",
    "plain",
    "show",
    "store_problem",
    "tell",
    "tell_error",
    "tell_switch",
]

_SHORT = 8  # characters of an id
_WORKER_FACTS = ("host", "process_id", "requests", "oldest_since", "oldest_route")


def tell(*parts: str, stderr: bool = False) -> None:
    """Print parts, in Rich's markup: in a terminal that is too narrow for all, each on lines of its own."""
    console = Console(stderr=stderr, highlight=False, emoji=False)
    line = "  ".join(parts)
    in_terminal = console.file.isatty()
    fits = not in_terminal or Text.from_markup(line, emoji=False).cell_len <= console.width
    console.print(line if fits else "\n".join(parts), soft_wrap=not in_terminal)


def tell_switch(name: str) -> None:
    """Print which switch the command acts on; on standard error, so that the output is the state alone."""
    tell(f"[dim]switch: {plain(name)}[/]", stderr=True)


def tell_error(text: str) -> None:
    """Print what went wrong."""
    tell(f"[bold red]error:[/] {plain(text)}", stderr=True)


def store_problem(error: Exception) -> str:
    """Return what to say where a store has raised."""
    return f"the store cannot be reached: {type(error).__name__}: {error}"


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
        where = f"{_counted(requests, 'request')} in progress on {_counted(len(busy), 'worker')}"
        parts.append(f"{where}, the oldest for {oldest:.0f} s")
    if silent := len(workers) - len(busy):
        parts.append(f"{_counted(silent, 'worker')} yet to report")
    return ", ".join(parts) or "no requests in progress"


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def show(state: MaintenanceState, workers: Sequence[WorkerStatus] | None = None, *, stamp: bool = False) -> None:
    """Print for people what is true now; with a stamp, after the time of day."""
    now = clock.now()
    is_on = is_active(state, now)
    word = "[bold red]on[/]" if is_on else "[bold green]off[/]"
    author = current_author(state, now)
    if author.active is is_on:  # else a window has not begun or is over, and nobody has set the switch off
        began = max((moment for moment in (author.since, getattr(author, "starts_at", None)) if moment), default=now)
        if now - began >= timedelta(seconds=1):
            word += f" for {shown_age(now - began)}"
        word += _by_and_why(author.by, current_message(state, now) if is_on else None)
    parts = [f"{now.astimezone():%H:%M:%S}  {word}" if stamp else word]
    if ids := [hold.id for hold in open_holds(state, now)]:
        short = [hold_id[:_SHORT] for hold_id in ids]
        shown = ", ".join(map(plain, short if len({*short}) == len(ids) else ids))  # as short as they differ
        parts.append(f"held by {_counted(len(ids), 'running job')} ({shown})")
    elif state.active and state.starts_at is not None and state.starts_at > now:
        parts.append(f"on from {shown_time(state.starts_at)}, in {shown_duration(state.starts_at - now)}")
        parts[-1] += _by_and_why(state.by, state.message)
    if state.active and state.ends_at is not None and state.ends_at > now:
        parts.append(f"until {shown_time(state.ends_at)}, for {shown_duration(state.ends_at - now)}")
    if is_on and workers:
        parts.append(in_progress([one for one in workers if one.requests != 0]))
    tell(*parts)


def _by_and_why(by: str | None, message: str | None) -> str:
    return (f" by {plain(by)}" if by else "") + (f": {plain(message)}" if message else "")


def facts(state: MaintenanceState, workers: Sequence[WorkerStatus] | None = None) -> dict[str, Any]:
    """Return for programs what is true now; times are aware datetimes."""
    now = clock.now()
    return {
        "active_now": is_active(state, now),
        **asdict(state),
        "message": current_message(state, now),
        "holds": [asdict(hold) for hold in open_holds(state, now)],
        "workers": workers and [{name: getattr(one, name) for name in _WORKER_FACTS} for one in workers],
    }
