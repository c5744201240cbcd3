"""For tests: does a backend do what backends promise? And an app forced open or closed, and a clock to move.

`check_backend` needs the package hypothesis; the rest needs nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime, timedelta, timezone
from typing import Literal

from starlette.applications import Starlette
from starlette.types import ASGIApp

from fastapi_maintenance._conformance.instances import MakeBackend
from fastapi_maintenance._helpers import clock
from fastapi_maintenance._helpers.checks import check_bool, check_seconds, reject
from fastapi_maintenance._routing.layers import layers_of
from fastapi_maintenance._switch.forced import forced
from fastapi_maintenance.errors import PromiseBrokenError
from fastapi_maintenance.middleware import is_maintenance
from fastapi_maintenance.state import MaintenanceState

__all__ = ["MakeBackend", "MovedClock", "PromiseBrokenError", "check_backend", "maintenance_forced", "moved_clock"]


def check_backend(
    make_backend: MakeBackend,
    *,
    max_examples: int = 100,
    patience: float = 5.0,
    event_loop: Literal["asyncio", "trio"] = "asyncio",
) -> None:
    """Check that a backend does what backends promise; it is one line in a test.

    >>> from fastapi_maintenance import MemoryBackend
    >>> def test_my_backend() -> None:
    ...     store = MemoryBackend()
    ...     check_backend(lambda: store)

    What is read is what was written, by another instance too; concurrent updates are not lost; a watcher is told the
    last state, and ends when it is cancelled; a write that is cancelled leaves the state before it or the one after it,
    where the latter may still come a moment later, as from a thread; holds behave. It checks what the backend has
    methods for: with `get_value` and `set_value` alone that is the switch.

    `make_backend` is called twice, and both calls must give backends on one and the same switch, as two processes have
    them: on one key of a store, on one path; or the same object twice, where the switch lives in that. No one else may
    use this switch meanwhile: give it a key, a file or a database of its own. It is set to off over and over, and left
    in whatever state it is in the end.

    It is called, and all that it makes is used and closed, on one event loop in a thread of its own. Connections may
    thus be opened by `make_backend`.

    Args:
        make_backend: A function, sync or async, that returns a backend, or an async context manager that gives one and
            closes what belongs to it. A class will do.
        max_examples: How many series of up to twenty steps are tried. They are the same ones each time. With fewer than
            the default, what breaks only where a write is cancelled at one certain moment may not be found.
        patience: Seconds that one call may take, and that a watcher may take to be told of a change.
        event_loop: What to run on.

    Raises:
        PromiseBrokenError: A promise is broken. This `AssertionError` says which one, and after which steps, as few as
            were found within some seconds.
        ImportError: The package hypothesis is missing.
        TypeError: An argument is of the wrong type.
        ValueError: `max_examples` is below 1, `patience` is not above zero, or `event_loop` is none of its words.
        Exception: Whatever `make_backend` raises.

    """
    __tracebackhide__ = True  # pytest shows the line that called this
    if not callable(make_backend):
        reject("make_backend", "a function that returns a backend, such as `lambda: backend`", make_backend)
    if isinstance(max_examples, bool) or not isinstance(max_examples, int):
        reject("max_examples", "a whole number", max_examples)
    if max_examples < 1:
        msg = f"max_examples must be at least 1, got {max_examples}"
        raise ValueError(msg)
    check_seconds("patience", patience)
    if event_loop not in ("asyncio", "trio"):
        msg = f"event_loop must be 'asyncio' or 'trio', got {event_loop!r}"
        raise ValueError(msg)
    try:
        from fastapi_maintenance._conformance.check import find_broken  # noqa: PLC0415 -- needs hypothesis
    except ImportError as error:
        msg = "check_backend needs hypothesis: pip install hypothesis"
        raise ImportError(msg, name=error.name) from error
    broken = find_broken(make_backend, max_examples=max_examples, patience=patience, event_loop=event_loop)
    if broken is not None:
        raise broken


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
    state = MaintenanceState(active=check_bool("active", active), message=message)
    if message is not None and not active:
        msg = f"message goes with active=True, got {message!r} with active=False"
        raise ValueError(msg)
    return forced(app, state if active else None)


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
        _put_ahead(moment - datetime.now(timezone.utc))


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
        datetime.now(timezone.utc) + by
    except OverflowError:
        msg = f"the time must stay between the years 1 and 9999, got {by} from now"
        raise ValueError(msg) from None
    clock.put_ahead(by)
