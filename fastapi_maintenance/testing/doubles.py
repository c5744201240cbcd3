"""Test doubles: an app that a test forces into maintenance or out of it, and a clock that a test moves."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime, timedelta

from starlette.types import ASGIApp

from fastapi_maintenance._helpers import clock
from fastapi_maintenance._helpers.checks import check_bool, reject, reject_value
from fastapi_maintenance._helpers.framework import Starlette
from fastapi_maintenance._routing.forced_by_tests import forced
from fastapi_maintenance._routing.layers import layers_of
from fastapi_maintenance.middleware import is_maintenance
from fastapi_maintenance.state import MaintenanceStatus, Switch


def maintenance_forced(
    app: ASGIApp,
    active: bool = True,  # noqa: FBT001, FBT002 -- on or off
    *,
    message: str | None = None,
) -> AbstractContextManager[None]:
    """Force an app into maintenance, or out of it, while a block runs, whatever its switch says.

    >>> from fastapi import FastAPI
    >>> app = FastAPI()
    >>> with maintenance_forced(app):
    ...     pass

    This overrules open holds, `enabled` and the backend, which no request reads in the block, except for the public
    notice, which shows the state of the backend. Marks on endpoints, documentation and predicates count as usual. It
    applies to every maintenance middleware that a request of this app passes through, including those of apps mounted
    in it, to no other app, and in all threads. If blocks are nested, the app nearest to the middleware counts, and of
    one app the innermost block. An app that starts within the block is not followed, even after the block; its state is
    then read when a request needs it. Middleware cannot be added to the app in the block.

    If requests reached the app in the block, but no maintenance middleware of it, a warning says so at the end.

    Args:
        app: The app, which a maintenance middleware may already wrap.
        active: Whether maintenance is on.
        message: The message for visitors.

    Raises:
        TypeError: An argument is of the wrong type.
        ValueError: There is a message, and `active` is False.
    """
    if not any(isinstance(layer, Starlette) or is_maintenance(layer) for layer in layers_of(app)):
        reject("app", "an app, made by FastAPI, Starlette or a maintenance middleware", app)
    switch = Switch(on=check_bool("active", active), message=message)
    if message is not None and not active:
        msg = f"message goes with active=True, got {message!r} with active=False"
        raise ValueError(msg)
    return forced(app, MaintenanceStatus(active=active, message=message, decided_by=switch if active else None))


class MovedClock:
    """The clock of the library, as `moved_clock` yields it."""

    def now(self) -> datetime:
        """Return its time, aware and in UTC."""
        return clock.now()

    def move(self, *, days: float = 0, hours: float = 0, minutes: float = 0, seconds: float = 0) -> None:
        """Move the clock forward by this much, or back if it is negative.

        Raises:
            ValueError: The time would not be between the years 1 and 9999.
        """
        by = {"days": days, "hours": hours, "minutes": minutes, "seconds": seconds}
        try:
            ahead = clock.offset[0] + timedelta(**by)
        except OverflowError:  # more than a timedelta can be
            reject_value("the time", "stay between the years 1 and 9999", by)
        _put_ahead(ahead)

    def move_to(self, moment: datetime) -> None:
        """Move the clock to an aware datetime.

        Raises:
            TypeError: It is not a datetime.
            ValueError: It is naive.
        """
        if not isinstance(moment, datetime):
            reject("moment", "a datetime", moment)
        if moment.utcoffset() is None:
            msg = f"moment must be an aware datetime (with a time zone), got the naive {moment.isoformat()}"
            raise ValueError(msg)
        _put_ahead(moment - datetime.now(UTC))


@contextmanager
def moved_clock() -> Iterator[MovedClock]:
    """Yield a clock that can be moved while a block runs: windows, leases, `Retry-After` and bypass cookies use it.

    >>> with moved_clock() as clock:
    ...     clock.move(minutes=30)

    It starts at the current time and keeps running. It affects this library alone, in all threads of this process;
    timers of event loops (pauses between retries are such timers) and `datetime.now()` are not affected. At the end of
    the block, the time is the same as outside.
    """
    before = clock.offset[0]
    try:
        yield MovedClock()
    finally:
        clock.offset[0] = before


def _put_ahead(by: timedelta) -> None:
    try:
        datetime.now(UTC) + by
    except OverflowError:
        msg = f"the time must stay between the years 1 and 9999, got {by} from now"
        raise ValueError(msg) from None
    clock.offset[0] = by
