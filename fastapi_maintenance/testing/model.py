"""What backends promise, and the state that a backend has to be in after what was done to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from enum import Enum
from typing import Any

from fastapi_maintenance._helpers import clock
from fastapi_maintenance.errors import PromiseBrokenError
from fastapi_maintenance.state import Hold, MaintenanceState, is_active

__all__ = ["OFF", "Broken", "Model", "Promise", "Violation", "raised", "shown"]

OFF = MaintenanceState()
Seen = MaintenanceState | bool
"""What a backend says when it is read."""


class Promise(Enum):
    """What holds for every backend that has the methods that it is about."""

    KIND = "a backend has the async methods get_value() and set_value(value)"
    TOGETHER = "get_state() and update_state(change) come together"
    ASYNC = "every method but peek() and watch() is async"
    TYPES = "get_value() returns True or False, and a state is a MaintenanceState"
    WORKS = "a call succeeds, and comes back, while the store is there"
    READS = "what is read is what was written, by another instance too"
    RESULT = "update_state(change) returns the state that it has written"
    RAISES = "a change that raises leaves the state as it was, and what it raised comes out"
    CONCURRENT = "concurrent updates are not lost"
    CANCELLED = "a write that is cancelled leaves the state before it or the one after it"
    HOLDS = "holds are kept until they are released, and the newest one decides"
    REFUSES = "a backend that refuses to be written refuses each time"
    WATCH_BEGINS = "watch() tells the state at once, and goes on until it is closed"
    WATCH = "watch() tells the last state"
    WATCH_ENDS = "watch() ends when it is cancelled"
    COUNTED = "watch(worker) counts the worker from before its first state is read until it ends, for all instances"
    REPORTS = "get_reports() has the last report of each worker that is counted, and no other"


class Violation(Exception):  # noqa: N818 -- it is not yet the error that is told
    """A promise that broke in the step that is being made, and what was seen instead."""

    def __init__(self, promise: Promise, seen: str) -> None:
        super().__init__(promise.value, seen)
        self.promise = promise
        self.seen = seen

    def after(self, steps: Sequence[str]) -> PromiseBrokenError:
        """Return the error that tells of it, after these steps."""
        *before, last = steps
        error = PromiseBrokenError(self.promise.value, (*before, last + self.seen))
        error.__cause__ = self.__cause__
        return error


@dataclass(frozen=True)
class Broken:
    """A promise that broke, and the steps to it, as text and to be made again."""

    violation: Violation
    made: tuple[str, ...]
    steps: tuple[Any, ...]


def shown(value: object) -> str:
    """Show a value, a state without what it leaves at the default."""
    if isinstance(value, (MaintenanceState, Hold)):
        given = [(field.name, getattr(value, field.name), field.default) for field in fields(value)]
        told = ", ".join(f"{name}={shown(it)}" for name, it, default in given if name == "active" or it != default)
        return f"{type(value).__name__}({told})"
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, tuple):
        return f"({', '.join(map(shown, value))})"
    return repr(value)


def raised(error: BaseException) -> str:
    """Show what was raised in the place of a result."""
    return f" raises {type(error).__name__}: {error}"


class Model:
    """The state that a backend has to be in.

    Args:
        is_detailed: Whether the backend keeps whole states, or nothing but a switch.

    """

    def __init__(self, *, is_detailed: bool) -> None:
        self.state = OFF
        self._is_detailed = is_detailed

    def agrees(self, seen: Seen) -> bool:
        """Tell whether this is the state."""
        return self._as_read(self.state, seen) == self._as_read(seen, seen)

    def see(self, seen: Seen, *others: MaintenanceState, promise: Promise | None = None, verb: str = "->") -> None:
        """Compare what was read with the state, and with others that are as right; what it is becomes the state.

        Raises:
            Violation: It is none of them.

        """
        possible = self.state, *others
        for self.state in possible:
            if self.agrees(seen):
                return
        self.state = possible[0]
        if promise is None:
            kept = seen if self._is_detailed and isinstance(seen, MaintenanceState) else OFF
            promise = Promise.READS if kept.holds == self.state.holds else Promise.HOLDS
        raise Violation(promise, f" {verb} {shown(seen)}, expected {self.expected(seen, *others)}")

    def expected(self, like: Seen, *others: MaintenanceState) -> str:
        """Show what should have been read in the place of this."""
        return " or ".join(dict.fromkeys(shown(self._as_read(state, like)) for state in (self.state, *others)))

    def _as_read(self, state: Seen, like: Seen) -> Seen:
        value = state if isinstance(state, bool) else is_active(state, clock.now())
        return value if isinstance(like, bool) else state if self._is_detailed else MaintenanceState(active=value)
