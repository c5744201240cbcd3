"""What operators type and read: durations and times, and a state as it is shown to people and to programs."""

import re
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.text import Text

from fastapi_maintenance._helpers import clock
from fastapi_maintenance.errors import WorkerStatus
from fastapi_maintenance.state import (
    MaintenanceState,
    current_author,
    current_message,
    is_active,
    open_holds,
)

_UNITS = {"d": 86_400, "h": 3600, "m": 60, "s": 1}  # seconds
_DURATION = re.compile("".join(rf"(\d+{unit})?" for unit in _UNITS), re.ASCII)
_CLOCK = re.compile(r"\d{1,2}:\d{2}(:\d{2})?", re.ASCII)
_SHORT = 8  # characters of an id


def tell(*parts: str, stderr: bool = False) -> None:
    """Print parts, in Rich's markup: in a terminal that is too narrow for all, each on lines of its own."""
    console = Console(stderr=stderr, highlight=False, emoji=False)
    line = "  ".join(parts)
    in_terminal = console.file.isatty()
    fits = not in_terminal or Text.from_markup(line, emoji=False).cell_len <= console.width
    console.print(line if fits else "\n".join(parts), soft_wrap=not in_terminal)


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
    parts = [f"{now.astimezone():%H:%M:%S}  {word}" if stamp else word]
    author = current_author(state, now)
    if author.active is is_on:  # else a window has not begun or is over, and nobody has set the switch off
        began = max((moment for moment in (author.since, getattr(author, "starts_at", None)) if moment), default=now)
        age = f" for {shown_age(now - began)}" if now - began >= timedelta(seconds=1) else ""
        parts[0] += age + _by_and_why(author.by, current_message(state, now) if is_on else None)
    if ids := [hold.id for hold in open_holds(state, now)]:
        short = [hold_id[:_SHORT] for hold_id in ids]
        shown = ", ".join(map(plain, short if len({*short}) == len(ids) else ids))  # as short as they differ
        parts.append(f"held by {_counted(len(ids), 'running job')} ({shown})")
    elif state.active and state.starts_at is not None and state.starts_at > now:
        when = f"on from {shown_time(state.starts_at)}, in {shown_duration(state.starts_at - now)}"
        parts.append(when + _by_and_why(state.by, state.message))
    if not ids and state.active and state.ends_at is not None and state.ends_at > now:
        begins = now if state.starts_at is None else max(now, state.starts_at)
        parts.append(f"until {shown_time(state.ends_at)}, for {shown_duration(state.ends_at - begins)}")
    if is_on and workers:
        parts.append(in_progress([one for one in workers if one.requests != 0]))
    tell(*parts)


def _by_and_why(by: str | None, message: str | None) -> str:
    return (f" by {plain(by)}" if by else "") + (f": {plain(message)}" if message else "")


def facts(state: MaintenanceState, workers: Sequence[WorkerStatus] | None) -> dict[str, Any]:
    """Return for programs what is true now, with the message and the author that count; times are aware datetimes."""
    now = clock.now()
    author = current_author(state, now)
    counting = replace(
        state,
        message=current_message(state, now),
        holds=open_holds(state, now),
        by=author.by,
        since=author.since,
    )
    told = None if workers is None else [asdict(one) for one in workers]
    for one in told or ():
        del one["holds"]
    return {"active_now": is_active(state, now), **asdict(counting), "workers": told}


def duration_of(text: str) -> timedelta:
    """Read a duration such as `90s`, `30m`, `2h`, `1d` or `1h30m`, above zero; raises `ValueError`."""
    match = _DURATION.fullmatch(text.strip().lower())
    parts = filter(None, match.groups()) if match else ()
    try:
        duration = timedelta(seconds=sum(int(part[:-1]) * _UNITS[part[-1]] for part in parts))
    except OverflowError:
        duration = timedelta()
    if not duration:
        msg = f"{text!r} is no duration above zero, such as 90s, 30m, 2h, 1d or 1h30m"
        raise ValueError(msg)
    return duration


def shown_duration(duration: timedelta) -> str:
    """Show a duration as `duration_of` reads it, in whole seconds, at least one."""
    left = max(1, round(duration.total_seconds()))
    shown = ""
    for unit, size in _UNITS.items():
        count, left = divmod(left, size)
        shown += f"{count}{unit}" if count else ""
    return shown


def shown_age(duration: timedelta) -> str:
    """Show about how long something has lasted, such as `2 h`."""
    return re.sub(r"(\d+)(.).*", r"\1 \2", shown_duration(duration)).replace("m", "min")


def time_of(text: str, now: datetime, zone: tzinfo | None = None) -> datetime:
    """Read a time: `22:00`, the next one from `now` on; a date, or a date and time, of ISO 8601.

    A time without a zone is in `zone`, that of this machine by default. Raises `ValueError`.
    """
    words = text.strip()
    today = now.astimezone(zone).replace(tzinfo=None)
    is_of_day = _CLOCK.fullmatch(words)
    if is_of_day:
        words = f"{today:%Y-%m-%d}T{'0' * (words[1] == ':')}{words}"
    try:
        moment = datetime.fromisoformat(words.upper())
        if is_of_day and moment <= today:
            moment += timedelta(days=1)
        if moment.utcoffset() is None:
            moment = moment.astimezone(zone) if zone is None else moment.replace(tzinfo=zone)
        return moment.astimezone(UTC)
    except (ValueError, OverflowError):
        msg = f"{text!r} is no time such as 22:00, 2030-12-31 22:00 or 2030-12-31T22:00+01:00"
        raise ValueError(msg) from None


def shown_time(moment: datetime, zone: tzinfo | None = None) -> str:
    """Show a time in a zone, that of this machine by default, and in UTC."""
    local, utc = moment.astimezone(zone), moment.astimezone(UTC)
    date = "" if local.date() == utc.date() else f"{utc:%Y-%m-%d} "
    return f"{local:%Y-%m-%d %H:%M:%S %Z} ({date}{utc:%H:%M:%S} UTC)"
