"""Durations such as `90s`, and times such as `22:00` and `2030-12-31 22:00`, as operators type and read them."""

import re
from bisect import bisect
from datetime import UTC, datetime, time, timedelta, tzinfo

_UNITS = {"d": 86_400, "h": 3600, "m": 60, "s": 1}  # seconds
_DURATION = re.compile("".join(rf"(\d+{unit})?" for unit in _UNITS), re.ASCII)
_CLOCK = re.compile(r"\d{1,2}:\d{2}(:\d{2})?", re.ASCII)


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


def parse_time(text: str, after: datetime, zone: tzinfo | None = None) -> tuple[datetime, tzinfo | None]:
    """Parse `22:00`, the first such time after a moment; or an ISO 8601 date, with or without a time.

    Args:
        text: The text to parse.
        after: The moment, an aware datetime.
        zone: The time zone if the text has none; None: that of this machine.

    Returns:
        The time in UTC, and its zone. When clocks go back, a time that comes twice is the first of the two; when they
        go forward, a time that is skipped is the moment of the change.

    Raises:
        ValueError: The text is not a time.
    """
    words = text.strip().upper()
    try:
        if _CLOCK.fullmatch(words):
            hour, minute, second = map(int, f"{words}:0".split(":")[:3])
            today = after.astimezone(zone).date()
            days = [datetime.combine(today + timedelta(passed), time(hour, minute, second)) for passed in range(3)]
            moments = [_to_utc(day.replace(fold=fold), zone) for day in days for fold in (0, 1)]
            return min(moment for moment in moments if moment > after), zone
        moment = datetime.fromisoformat(words)
        if moment.utcoffset() is None:
            return _to_utc(moment, zone), zone
        return moment.astimezone(UTC), moment.tzinfo
    except (ValueError, OverflowError):
        msg = f"{text!r} is not a time such as 22:00, 2030-12-31 22:00 or 2030-12-31T22:00+01:00"
        raise ValueError(msg) from None


def _to_utc(naive: datetime, zone: tzinfo | None) -> datetime:
    """Return the moment at which clocks in a zone show this time, or, if they skip it, the moment of the change."""

    def shown_at(moment: datetime) -> datetime:
        return moment.astimezone(zone).replace(tzinfo=None)

    moment = naive.replace(tzinfo=zone).astimezone(UTC)
    if shown_at(moment) == naive:
        return moment
    # The change is between the readings with each fold (PEP 495); Python 3.11 may return them in the wrong order.
    first, last = sorted(naive.replace(tzinfo=zone, microsecond=0, fold=fold).astimezone(UTC) for fold in (0, 1))
    seconds = range(int((last - first).total_seconds()))
    return first + timedelta(seconds=bisect(seconds, naive, key=lambda passed: shown_at(first + timedelta(0, passed))))


def format_time(moment: datetime, zone: tzinfo | None = None) -> str:
    """Format a time in a zone, by default that of this machine, and in UTC if that differs."""
    utc = moment.astimezone(UTC)
    try:
        local = moment.astimezone(zone)
    except OverflowError:  # after the year 9999 in that zone
        local = utc
    if not local.utcoffset():
        return f"{utc:%Y-%m-%d %H:%M:%S} UTC"
    date = "" if local.date() == utc.date() else f"{utc:%Y-%m-%d} "
    return f"{local:%Y-%m-%d %H:%M:%S %Z} ({date}{utc:%H:%M:%S} UTC)"
