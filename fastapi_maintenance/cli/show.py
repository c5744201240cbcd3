"""A state as the command shows it: for people, in a terminal of any width or in a log, and for programs."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.text import Text

from fastapi_maintenance._helpers import clock
from fastapi_maintenance.cli.times import shown_duration, shown_time
from fastapi_maintenance.state import MaintenanceState, current_message, is_active, open_holds

__all__ = ["facts", "plain", "show", "tell"]

_SHORT = 8  # characters of an id


def tell(*parts: str, stderr: bool = False) -> None:
    """Print something: on one line where it fits or goes to no terminal, else each part on lines of its own.

    Args:
        *parts: What to print, in Rich's markup.
        stderr: Whether to print it as an error.

    """
    console = Console(stderr=stderr, highlight=False, emoji=False)
    line = "  ".join(parts)
    on_terminal = console.file.isatty()
    whole = not on_terminal or Text.from_markup(line, emoji=False).cell_len <= console.width
    console.print(line if whole else "\n".join(parts), soft_wrap=not on_terminal)


def plain(text: str) -> str:
    r"""Return a text of one line without markup: it can change neither the layout nor the terminal.

    >>> plain("Back\nat [ten]\x1b[2J")
    'Back at \\[ten] [2J'
    """
    return escape(" ".join("".join(c if c.isprintable() else " " for c in text).split()))


def show(state: MaintenanceState, *, stamp: bool = False) -> None:
    """Show what is so now, for people; a stamp is the time of day before it."""
    now = clock.now()
    is_on = is_active(state, now)
    word = "[bold red]on[/]" if is_on else "[bold green]off[/]"
    parts = [f"{now.astimezone():%H:%M:%S}  {word}" if stamp else word]
    text = current_message(state, now)
    if is_on and text:
        parts.append(f'"{plain(text)}"')
    if ids := [hold.id for hold in open_holds(state, now)]:
        parts.append(
            f"held by {len(ids)} running job{'s' if len(ids) > 1 else ''} ({', '.join(map(plain, _short(ids)))})"
        )
    elif state.active and state.starts_at is not None and state.starts_at > now:
        parts.append(f"on from {shown_time(state.starts_at)}, in {shown_duration(state.starts_at - now)}")
    if state.active and state.ends_at is not None and state.ends_at > now:
        parts.append(f"until {shown_time(state.ends_at)}, for {shown_duration(state.ends_at - now)}")
    tell(*parts)


def facts(state: MaintenanceState) -> dict[str, Any]:
    """Return what is so now, for programs."""
    now = clock.now()
    return {
        "active_now": is_active(state, now),
        "message": current_message(state, now),
        "active": state.active,
        "starts_at": _iso(state.starts_at),
        "ends_at": _iso(state.ends_at),
        "holds": [
            {"id": hold.id, "active": hold.active, "message": hold.message, "expires_at": _iso(hold.expires_at)}
            for hold in open_holds(state, now)
        ],
    }


def _short(ids: list[str]) -> list[str]:
    """Return the beginnings of ids, where they tell them apart."""
    short = [hold_id[:_SHORT] for hold_id in ids]
    return short if len({*short}) == len(ids) else ids


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()
