"""An app that a test forces on or off, and a clock that it moves."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime, timedelta

from starlette.types import ASGIApp

from fastapi_maintenance._helpers import clock
from fastapi_maintenance._helpers.applications import Starlette
from fastapi_maintenance._helpers.checks import check_bool, reject
from fastapi_maintenance._routing.forced import forced
from fastapi_maintenance._routing.layers import layers_of
from fastapi_maintenance.middleware import is_maintenance
from fastapi_maintenance.state import MaintenanceStatus, Switch

__all__ = ["MovedClock", "maintenance_forced", "moved_clock"]


def maintenance_forced(
    app: ASGIApp,
    active: bool = True,  # noqa: FBT001, FBT002 -- on or off is all that there is to say
    *,
    message: str | None = None,
) -> AbstractContextManager[None]:
    """Force an app into maintenance, or out of it, for a block, whatever its switch says.

    >>> from fastapi import FastAPI
    >>> app = FastAPI()
    >>> with maintenance_forced(app):
    ...     pass

    It goes over everything that says whether there is maintenance: open holds, `enabled` and the backend, which no
    request asks meanwhile. Marks on endpoints, documentation and predicates count as ever. It holds for every
    maintenance middleware that a request of the app comes through, those of apps mounted below it included, and for no
    other app. In blocks within blocks the app that is nearest to the middleware counts, and of one app the innermost
    block. Where requests come through the app, and none of them through such a middleware, there is a warning at the
    end of the block. It holds in all threads. An app that starts within the block is not followed by its middleware
    later on either; the state is then read when it is needed.

    Args:
        app: The app, or what a maintenance middleware has made of one.
        active: Whether there is maintenance.
        message: What to tell those who are locked out.

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
    """The time that counts for the library, as `moved_clock` gives it."""

    def now(self) -> datetime:
        """Return the time that counts, aware and in UTC."""
        return clock.now()

    def move(self, *, days: float = 0, hours: float = 0, minutes: float = 0, seconds: float = 0) -> None:
        """Move the time by so much, back where that is below zero.

        Raises:
            ValueError: It would be beyond the years 1 to 9999.
        """
        _put_ahead(clock.ahead_by() + timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds))

    def move_to(self, moment: datetime) -> None:
        """Move the time to an aware datetime.

        Raises:
            TypeError: It is no datetime.
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
    """Give a clock that can be moved for a block: windows, leases, `Retry-After` and bypass cookies go by it.

    >>> with moved_clock() as clock:
    ...     clock.move(minutes=30)

    It begins at the time that it is, and goes on by itself. It counts for the library alone and in the whole of this
    process, in all threads; timers of event loops, pauses between two tries among them, and `datetime.now()` are left
    alone. At the end of the block the time is what it was outside.
    """
    before = clock.ahead_by()
    try:
        yield MovedClock()
    finally:
        clock.put_ahead(before)


def _put_ahead(by: timedelta) -> None:
    try:
        datetime.now(UTC) + by
    except OverflowError:
        msg = f"the time must stay between the years 1 and 9999, got {by} from now"
        raise ValueError(msg) from None
    clock.put_ahead(by)
