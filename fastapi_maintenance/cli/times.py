"""Times such as `22:00` and `2030-12-31 22:00`, as operators type and read them."""

import re
from bisect import bisect
from datetime import UTC, datetime, time, timedelta, tzinfo

_CLOCK = re.compile(r"\d{1,2}:\d{2}(:\d{2})?", re.ASCII)


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
