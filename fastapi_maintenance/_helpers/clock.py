"""What time is it? Asked here alone for windows, leases and `Retry-After`, so that a test can move it."""

from datetime import UTC, datetime, timedelta

from fastapi_maintenance._helpers.process import remembered

_ahead = remembered([timedelta()])


def now() -> datetime:
    """Return the time that counts, aware and in UTC."""
    return datetime.now(UTC) + _ahead[0]


def ahead_by() -> timedelta:
    """Return how far the time that counts is ahead of that of the machine."""
    return _ahead[0]


def put_ahead(by: timedelta) -> None:
    """Put the time that counts ahead of that of the machine, or behind it, in this process."""
    _ahead[:] = [by]


def seconds_until(moment: datetime) -> float:
    """Return the seconds from now until a moment, 0 where it has passed."""
    return max(0.0, (moment - now()).total_seconds())
