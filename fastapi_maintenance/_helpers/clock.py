"""The clock of windows, leases and `Retry-After`. Nothing else asks for the time, so a test can move it."""

from datetime import UTC, datetime, timedelta

from fastapi_maintenance._helpers.process import remembered

offset = remembered([timedelta()])
"""How far this clock is ahead of the machine's, as its only item."""


def now() -> datetime:
    """Return the current time, aware and in UTC."""
    return datetime.now(UTC) + offset[0]
