"""Durations and times as operators type them, and as they are shown to them."""

from __future__ import annotations

import re
from datetime import datetime, time, timedelta, timezone, tzinfo

__all__ = ["duration_of", "shown_age", "shown_duration", "shown_time", "time_of"]

_DURATION = re.compile(r"(?:(?P<days>\d+)d)?(?:(?P<hours>\d+)h)?(?:(?P<minutes>\d+)m)?(?:(?P<seconds>\d+)s)?", re.ASCII)
_CLOCK = re.compile(r"\d{1,2}:\d{2}(?::\d{2})?", re.ASCII)


def duration_of(text: str) -> timedelta:
    """Read a duration such as `90s`, `30m`, `2h`, `1d` or `1h30m`, above zero; raises `ValueError`."""
    match = _DURATION.fullmatch(text.strip().lower())
    numbers = match.groupdict(default="0") if match is not None else {}
    try:
        duration = timedelta(**{unit: int(number) for unit, number in numbers.items()})
    except OverflowError:
        duration = timedelta()
    if not duration:
        msg = f"{text!r} is no duration such as 90s, 30m, 2h, 1d or 1h30m"
        raise ValueError(msg)
    return duration


def shown_duration(duration: timedelta) -> str:
    """Show a duration as `duration_of` reads it, in whole seconds, at least one.

    >>> shown_duration(timedelta(minutes=90))
    '1h30m'
    """
    return "".join(f"{count}{unit[0]}" for count, unit in _counts(duration))


def shown_age(duration: timedelta) -> str:
    """Show about how long something has lasted.

    >>> shown_age(timedelta(minutes=90))
    '1 h'
    """
    count, unit = _counts(duration)[0]
    return f"{count} {unit}"


def _counts(duration: timedelta) -> list[tuple[int, str]]:
    left = max(1, round(duration.total_seconds()))
    counts = []
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1)):
        count, left = divmod(left, size)
        if count:
            counts.append((count, unit))
    return counts


def time_of(text: str, now: datetime, zone: tzinfo | None = None) -> datetime:
    """Read a time: `22:00`, the next one from `now` on; a date, or a date and time, of ISO 8601.

    A time without a zone is in `zone`, that of this machine by default. Raises `ValueError`.
    """
    words = text.strip()
    try:
        if _CLOCK.fullmatch(words):
            clock = time.fromisoformat(words.zfill(len(words) + (words[1] == ":")))
            today = now.astimezone(zone).replace(tzinfo=None)
            moment = datetime.combine(today.date(), clock)
            moment = moment if moment > today else moment + timedelta(days=1)
        else:
            moment = datetime.fromisoformat(re.sub(r"[zZ]$", "+00:00", words))
        if moment.utcoffset() is None:
            moment = moment.astimezone(zone) if zone is None else moment.replace(tzinfo=zone)
        return moment.astimezone(timezone.utc)
    except (ValueError, OverflowError):
        msg = f"{text!r} is no time such as 22:00, 2030-12-31 22:00 or 2030-12-31T22:00+01:00"
        raise ValueError(msg) from None


def shown_time(moment: datetime, zone: tzinfo | None = None) -> str:
    """Show a time in a zone, that of this machine by default, and in UTC."""
    local = moment.astimezone(zone)
    utc = moment.astimezone(timezone.utc)
    same_day = local.date() == utc.date()
    return f"{local:%Y-%m-%d %H:%M:%S %Z} ({utc:{'%H:%M:%S' if same_day else '%Y-%m-%d %H:%M:%S'}} UTC)"
