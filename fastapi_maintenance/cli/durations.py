"""Durations such as `90s` and `1h30m`, as operators type and read them."""

import re
from datetime import datetime, timedelta

_UNITS = {"d": 86_400, "h": 3600, "m": 60, "s": 1}  # seconds
_DURATION = re.compile("".join(rf"(\d+{unit})?" for unit in _UNITS), re.ASCII)


def parse_duration(text: str) -> timedelta:
    """Parse a duration such as `90s`, `30m`, `2h`, `1d` or `1h30m`; raises `ValueError` unless it is above zero."""
    match = _DURATION.fullmatch(text.strip().lower())
    parts = filter(None, match.groups()) if match else ()
    try:
        duration = timedelta(seconds=sum(int(part[:-1]) * _UNITS[part[-1]] for part in parts))
    except OverflowError:
        duration = timedelta()
    if not duration:
        msg = f"{text!r} is not a duration above zero, such as 90s, 30m, 2h, 1d or 1h30m"
        raise ValueError(msg)
    return duration


def parse_end(text: str, start: datetime) -> datetime:
    """Parse a duration that begins at `start`, and return its end; raises `ValueError`."""
    try:
        return start + parse_duration(text)
    except OverflowError:
        msg = f"{text!r} ends after the year 9999"
        raise ValueError(msg) from None


def format_duration(duration: timedelta) -> str:
    """Format a duration as `parse_duration` reads it, in whole seconds, at least one."""
    left = max(1, round(duration.total_seconds()))
    shown = ""
    for unit, size in _UNITS.items():
        count, left = divmod(left, size)
        shown += f"{count}{unit}" if count else ""
    return shown


def format_age(duration: timedelta) -> str:
    """Format about how long something has lasted, such as `2 h`."""
    return re.sub(r"(\d+)(.).*", r"\1 \2", format_duration(duration)).replace("m", "min")
