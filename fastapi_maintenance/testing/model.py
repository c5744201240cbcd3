"""What backends promise, what is written to them, and the state that they have to be in after that."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from enum import Enum
from typing import Any

from fastapi_maintenance._helpers import clock
from fastapi_maintenance.errors import PromiseBrokenError
from fastapi_maintenance.state import Hold, MaintenanceState, add_hold, is_active
from fastapi_maintenance.typing import StateChange

__all__ = ["KEEP", "OFF", "UPDATES", "Model", "Promise", "Violation", "Write", "adding", "raised", "shown", "switching"]

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
    """A promise that broke, what was seen instead, and the steps to it: as text, and to be made again."""

    def __init__(self, promise: Promise, seen: str) -> None:
        super().__init__(promise.value, seen)
        self.promise = promise
        self.seen = seen
        self.made: tuple[str, ...] = ()
        self.steps: tuple[tuple[str, Mapping[str, Any]], ...] = ()

    def error(self) -> PromiseBrokenError:
        """Return the error that tells of it."""
        *before, last = self.made
        error = PromiseBrokenError(self.promise.value, (*before, last + self.seen))
        error.__cause__ = self.__cause__
        return error


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
        self.state: MaintenanceState = OFF
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


_MESSAGES = ("Back at ten", " Zurück 🚧\num „zehn“ \\ ✓ ", "", "Back at ten." * 25)
_PAST, _NEXT = datetime(2000, 1, 1, tzinfo=UTC), datetime(2001, 1, 1, tzinfo=UTC)
_FAR = datetime(9000, 1, 1, 0, 0, 0, 1, tzinfo=UTC)
_WINDOWS = ((None, _FAR), (_FAR, None), (_PAST, _FAR), (_PAST, _NEXT))  # none is close to now
_HOLDS = (
    Hold(id="1", active=True),
    Hold(id="2", active=False),
    Hold(id="3", active=True, message=_MESSAGES[1], expires_at=_FAR),
    Hold(id="4", active=True, expires_at=_PAST),
)


@dataclass(frozen=True)
class Write:
    """A call that writes: the method, its argument, the same as text, and what it makes of a state."""

    method: str
    argument: Any
    text: str
    change: Callable[[MaintenanceState], MaintenanceState]

    def __str__(self) -> str:
        return f"{self.method}({self.text})"


def _updating(text: str, change: StateChange) -> Write:
    """Return a call of `update_state`."""
    return Write("update_state", change, text, change)


def adding(hold: Hold) -> Write:
    """Return the write that adds a hold."""
    return _updating(f"add {shown(hold)}", lambda state: add_hold(state, hold, clock.now()))


def switching(value: bool) -> Write:  # noqa: FBT001 -- as the Protocol has it
    """Return a call of `set_value`."""
    return Write("set_value", value, str(value), lambda state: replace(state, active=value))


KEEP = _updating("no change", lambda state: state)


def _setting(wanted: MaintenanceState) -> Write:
    text = shown(wanted).removeprefix("MaintenanceState(").removesuffix(")")
    return _updating(text, lambda state: replace(wanted, holds=state.holds))


UPDATES = (
    *(_setting(MaintenanceState(active=active)) for active in (True, False)),
    *(_setting(MaintenanceState(active=True, message=message)) for message in _MESSAGES),
    *map(adding, _HOLDS),
    _updating("release the oldest hold", lambda state: replace(state, holds=state.holds[1:])),
    _updating("release the newest hold", lambda state: replace(state, holds=state.holds[:-1])),
    *(
        _setting(MaintenanceState(active=active, message=message, starts_at=starts_at, ends_at=ends_at))
        for active, message in ((True, None), (False, _MESSAGES[1]))
        for starts_at, ends_at in _WINDOWS
    ),
)
