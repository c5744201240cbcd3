"""What can go wrong, as exceptions: every one that the package raises by itself is a `MaintenanceError`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from fastapi_maintenance._helpers import clock

__all__ = [
    "DrainTimeoutError",
    "InvalidStateError",
    "MaintenanceError",
    "MissingTableError",
    "NoSuchHoldError",
    "NoSuchWindowError",
    "NoWorkersError",
    "NotSupportedError",
    "PromiseBrokenError",
    "ReadOnlyBackendError",
    "WorkerStatus",
]


class MaintenanceError(Exception):
    """The base of the errors that this package raises by itself."""


class InvalidStateError(MaintenanceError, ValueError):
    """A text, or a value that a backend returned, is not a maintenance state."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerStatus:
    """What a worker last reported of itself.

    A worker is a process behind the switch, in one event loop, while it serves an app.

    Args:
        host: The name of its host.
        process_id: The id of its process there.
        is_current: Whether it goes by the state that is stored now, leases aside; None: it has not said so.
        is_on: Whether maintenance is on for it, by its own clock; None: it has not said so.
        requests: How many requests it runs that maintenance would block if they began now, WebSockets and background
            tasks of responses included; None: it has not reported yet.
        oldest_since: When the oldest of them began, aware and in UTC, by the clock of that host.
        oldest_route: The method and path of that one.
        clock_ahead: How many seconds its clock is ahead of that of the store; None: it has not compared them, or the
            store has no clock of its own.
        holds: What it confirms for drains: the id of each hold that it counts, and since when that is held.
    """

    host: str
    process_id: int
    is_current: bool | None = None
    is_on: bool | None = None
    requests: int | None = None
    oldest_since: datetime | None = None
    oldest_route: str | None = None
    clock_ahead: float | None = None
    holds: frozenset[str] = frozenset()

    def __str__(self) -> str:
        who = f"process {self.process_id} on {self.host}"
        if self.requests is None:
            return f"{who} has not reported"
        if not self.requests:
            clock_hint = f"; its clock is {self.clock_ahead:g} s ahead" if abs(self.clock_ahead or 0) >= 1 else ""
            if self.is_current and not self.is_on:
                return f"{who} takes maintenance for off, by its clock or a block of its own{clock_hint}"
            return f"{who} has not confirmed that maintenance is on{clock_hint}"
        many = "1 request" if self.requests == 1 else f"{self.requests} requests"
        which = "" if self.requests == 1 else "the oldest "
        return f"{who} has {many} in progress, {which}{self.oldest_route} for {self.oldest_for:.0f} s"

    @property
    def oldest_for(self) -> float | None:
        """For how many seconds the oldest of them has been in progress, by the clock of this host; None: for none."""
        return None if self.oldest_since is None else max(0.0, (clock.now() - self.oldest_since).total_seconds())


class DrainTimeoutError(MaintenanceError, TimeoutError):
    """Requests were still in progress when the time of a drain ran out, or it was not certain that there were none.

    The text is that of the moment at which the error was made.

    Args:
        seconds: How long the drain waited.
        workers: The workers that were still waited for, as far as the store reported them.
        reason: What else stood in the way; an empty text if nothing did.
    """

    def __init__(self, seconds: float, workers: tuple[WorkerStatus, ...], reason: str = "") -> None:
        super().__init__(seconds, workers, reason)
        self.seconds = seconds
        self.workers = workers
        left = "; ".join([*map(str, workers), *[reason] * bool(reason)])
        self._text = f"requests are not drained after {seconds:g} s: {left}"

    def __str__(self) -> str:
        return self._text


class NoWorkersError(MaintenanceError):
    """A drain has found no process that serves an app behind its switch: nothing shows that the service is closed."""


class NoSuchHoldError(MaintenanceError):
    """There is no hold of that id, or no single one whose id begins so."""


class NoSuchWindowError(MaintenanceError):
    """There is no planned window of that id, or no single one whose id begins so."""


class MissingTableError(MaintenanceError):
    """The table of a switch is missing, and is left to migrations; the message says which one to run, and how."""


class NotSupportedError(MaintenanceError):
    """The backend lacks a method that the call needs; the message names the method."""


class ReadOnlyBackendError(MaintenanceError):
    """The backend can be read but not written, so a block may hold nothing; the message says what to do instead."""


class PromiseBrokenError(MaintenanceError, AssertionError):
    """A backend breaks a promise of backends; raised by `fastapi_maintenance.testing.check_backend` alone.

    Args:
        promise: The promise, in plain words.
        scenario: The name of the scenario that found it.
        calls: The calls that the scenario has made, in this order; in the last one the promise broke.
        seen: What was seen.
    """

    _MOST_SHOWN = 8

    def __init__(self, promise: str, scenario: str, calls: tuple[str, ...], seen: str) -> None:
        super().__init__(promise, scenario, calls, seen)
        self.promise = promise
        self.scenario = scenario
        self.calls = calls
        self.seen = seen

    def __str__(self) -> str:
        last = [f"  {call}" for call in self.calls[-self._MOST_SHOWN :]]
        earlier = [f"  ... {len(self.calls) - len(last)} calls"] * (len(self.calls) > len(last))
        return "\n".join([f"promise broken: {self.promise}", f"in {self.scenario}:", *earlier, *last, f"  {self.seen}"])
