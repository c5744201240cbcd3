"""Exceptions. `MaintenanceError` is the base of all that this package defines."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from fastapi_maintenance._helpers import clock


class MaintenanceError(Exception):
    """The base of the exceptions that this package defines."""


class InvalidStateError(MaintenanceError, ValueError):
    """A text, or a value returned by a backend, is not a valid maintenance state."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerStatus:
    """The last report of a worker: a process behind the switch, in one event loop, while it serves an app.

    Args:
        host: The name of its host.
        process_id: The id of its process on that host.
        is_current: Whether it uses the state that is stored now, apart from leases; None: not reported.
        is_on: Whether maintenance is on for it, by its own clock; None: not reported.
        requests: The number of its requests in progress that maintenance would block, WebSockets and background tasks
            of responses included; None: not reported.
        oldest_since: When the oldest of them began, aware and in UTC, by the clock of that host.
        oldest_route: The method and path of the oldest.
        clock_ahead: How many seconds its clock is ahead of the store's; None: it has not compared them, or the store
            has no clock.
        holds: What it confirms for drains: each hold that it counts, by its id and the time since when it is held.
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
                return f"{who} considers maintenance off, by its clock or a block of its own{clock_hint}"
            return f"{who} has not confirmed that maintenance is on{clock_hint}"
        many = "1 request" if self.requests == 1 else f"{self.requests} requests"
        which = "" if self.requests == 1 else "the oldest "
        return f"{who} has {many} in progress, {which}{self.oldest_route} for {self.oldest_for:.0f} s"

    @property
    def oldest_for(self) -> float | None:
        """Seconds that the oldest request has been in progress, by the clock of this host; None: no request is."""
        return None if self.oldest_since is None else max(0.0, (clock.now() - self.oldest_since).total_seconds())


class DrainTimeoutError(MaintenanceError, TimeoutError):
    """A drain timed out: requests were still in progress, or it was not certain that there were none.

    The text is composed when the error is created, and does not change later.

    Args:
        seconds: How long the drain waited.
        workers: The workers that had not confirmed, as far as the store reported them.
        reason: Another reason; empty if there is none.
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
    """A drain found no process that serves an app behind its switch, so nothing shows that the service is closed."""


class NoSuchHoldError(MaintenanceError):
    """No hold has this id, or not exactly one has an id that begins with it."""


class NoSuchWindowError(MaintenanceError):
    """No planned window has this id, or not exactly one has an id that begins with it."""


class MissingTableError(MaintenanceError):
    """The table of a switch is missing and is left to migrations; the message says which one to run, and how."""


class NotSupportedError(MaintenanceError):
    """The backend lacks what the call needs, such as a method; the message names it."""


class ReadOnlyBackendError(MaintenanceError):
    """The backend can be read but not written; the message says what to do instead."""


class PromiseBrokenError(MaintenanceError, AssertionError):
    """A backend breaks a promise that all backends make; only `fastapi_maintenance.testing.check_backend` raises it.

    Args:
        promise: The promise, in plain words.
        scenario: The name of the scenario.
        calls: The calls that the scenario made, in order; the promise broke in the last one.
        seen: What was observed.
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
