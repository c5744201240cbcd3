"""Durations and times, as operators type and read them."""

import re
from bisect import bisect
from datetime import UTC, datetime, time, timedelta, tzinfo

_UNITS = {"d": 86_400, "h": 3600, "m": 60, "s": 1}  # seconds
_DURATION = re.compile("".join(rf"(\d+{unit})?" for unit in _UNITS), re.ASCII)
_CLOCK = re.compile(r"\d{1,2}:\d{2}(:\d{2})?", re.ASCII)


def duration_of(text: str) -> timedelta:
    """Read a duration such as `90s`, `30m`, `2h`, `1d` or `1h30m`, above zero; raises `ValueError`."""
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


def end_of(text: str, start: datetime) -> datetime:
    """Read a duration, and return when it ends if it begins at `start`; raises `ValueError`."""
    try:
        return start + duration_of(text)
    except OverflowError:
        msg = f"{text!r} ends after the year 9999"
        raise ValueError(msg) from None


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


def time_of(text: str, after: datetime, zone: tzinfo | None = None) -> tuple[datetime, tzinfo | None]:
    """Read `22:00`, the first such time after a moment; or a date, or a date and time, of ISO 8601.

    Args:
        text: What to read.
        after: The moment, an aware datetime.
        zone: The zone of a time that names none; None: that of this machine.

    Returns:
        The time in UTC, and its zone. Of a time that comes twice on its date, the first is returned; for one that the
        clocks skip, the moment at which they do.

    Raises:
        ValueError: The text is not a time.
    """
    words = text.strip().upper()
    try:
        if _CLOCK.fullmatch(words):
            hour, minute, second = map(int, f"{words}:0".split(":")[:3])
            today = after.astimezone(zone).date()
            days = [datetime.combine(today + timedelta(passed), time(hour, minute, second)) for passed in range(3)]
            moments = [_instant(day.replace(fold=fold), zone) for day in days for fold in (0, 1)]
            return min(moment for moment in moments if moment > after), zone
        moment = datetime.fromisoformat(words)
        if moment.utcoffset() is None:
            return _instant(moment, zone), zone
        return moment.astimezone(UTC), moment.tzinfo
    except (ValueError, OverflowError):
        msg = f"{text!r} is not a time such as 22:00, 2030-12-31 22:00 or 2030-12-31T22:00+01:00"
        raise ValueError(msg) from None


def _instant(naive: datetime, zone: tzinfo | None) -> datetime:
    """Return the moment at which clocks show this; if they skip it, the moment at which they do (PEP 495)."""

    def shown_at(moment: datetime) -> datetime:
        return moment.astimezone(zone).replace(tzinfo=None)

    moment = naive.replace(tzinfo=zone).astimezone(UTC)
    if shown_at(moment) == naive:
        return moment
    # Python 3.11 may take the two for each other.
    first, last = sorted(naive.replace(tzinfo=zone, microsecond=0, fold=fold).astimezone(UTC) for fold in (0, 1))
    seconds = range(int((last - first).total_seconds()))
    return first + timedelta(seconds=bisect(seconds, naive, key=lambda passed: shown_at(first + timedelta(0, passed))))


def shown_time(moment: datetime, zone: tzinfo | None = None) -> str:
    """Show a time in a zone, that of this machine by default, and in UTC if that differs."""
    utc = moment.astimezone(UTC)
    try:
        local = moment.astimezone(zone)
    except OverflowError:  # after the year 9999 there
        local = utc
    if not local.utcoffset():
        return f"{utc:%Y-%m-%d %H:%M:%S} UTC"
    date = "" if local.date() == utc.date() else f"{utc:%Y-%m-%d} "
    return f"{local:%Y-%m-%d %H:%M:%S %Z} ({date}{utc:%H:%M:%S} UTC)"
