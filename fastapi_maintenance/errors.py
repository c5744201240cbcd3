"""What can go wrong, as exceptions: every one that the package raises by itself is a `MaintenanceError`."""

from __future__ import annotations

from fastapi_maintenance.state import WorkerStatus

__all__ = [
    "DrainTimeoutError",
    "InvalidStateError",
    "MaintenanceError",
    "NoSuchHoldError",
    "NotSupportedError",
    "PromiseBrokenError",
    "ReadOnlyBackendError",
]


class MaintenanceError(Exception):
    """The base of the errors that this package raises by itself."""


class InvalidStateError(MaintenanceError, ValueError):
    """A text, or a value that a backend returned, is not a maintenance state."""


class DrainTimeoutError(MaintenanceError, TimeoutError):
    """Requests were still in progress when the time of a drain ran out, or a worker had not told that it has none.

    Args:
        seconds: How long was waited.
        workers: The workers that were still waited for, as far as the store told of them.

    """

    def __init__(self, seconds: float, workers: tuple[WorkerStatus, ...]) -> None:
        super().__init__(seconds, workers)
        self.seconds = seconds
        self.workers = workers

    def __str__(self) -> str:
        left = "; ".join(map(str, self.workers)) or "the store has not told which workers there are"
        return f"requests are not drained after {self.seconds:g} s: {left}"


class NoSuchHoldError(MaintenanceError):
    """There is no hold of that id, or no single one whose id begins so."""


class NotSupportedError(MaintenanceError):
    """The backend lacks a method that the call needs; the message names the method."""


class ReadOnlyBackendError(MaintenanceError):
    """The backend can be read but not written; the message says what to do instead."""


class PromiseBrokenError(MaintenanceError, AssertionError):
    """A backend does not do what backends promise; raised by `fastapi_maintenance.testing.check_backend` alone.

    Args:
        promise: The promise, in plain words.
        steps: What was done, in this order; in the last step the promise broke.
        remarks: What else is to be known of it.

    """

    def __init__(self, promise: str, steps: tuple[str, ...], remarks: tuple[str, ...] = ()) -> None:
        super().__init__(promise, steps, remarks)
        self.promise = promise
        self.steps = steps
        self.remarks = remarks

    def __str__(self) -> str:
        numbered = [f"  {number}. {step}" for number, step in enumerate(self.steps, start=1)]
        return "\n".join([f"promise broken: {self.promise}", *numbered, *self.remarks])

    def but(self, remark: str) -> PromiseBrokenError:
        """Return the same with another remark."""
        error = PromiseBrokenError(self.promise, self.steps, (*self.remarks, remark))
        error.__cause__ = self.__cause__
        return error
