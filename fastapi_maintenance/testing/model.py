"""What backends promise, and what a backend has to say by what was done to it, as a model of a few lines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime, timezone
from enum import Enum

from fastapi_maintenance._helpers import clock
from fastapi_maintenance.errors import PromiseBrokenError
from fastapi_maintenance.state import Hold, MaintenanceState, add_hold, is_active, release_hold
from fastapi_maintenance.typing import StateChange

__all__ = [
    "HOLDS",
    "MESSAGES",
    "OFF",
    "WINDOWS",
    "Change",
    "Model",
    "Promise",
    "Violation",
    "added",
    "drawn",
    "raised",
    "released",
    "shown",
    "switched",
]

OFF = MaintenanceState()
MESSAGES = (None, "Back at ten", "Zurück\num „zehn“ \\ ✓", "", " Back 🚧 ", "Back at ten." * 25)
_PAST, _NEXT = datetime(2000, 1, 1, tzinfo=timezone.utc), datetime(2001, 1, 1, tzinfo=timezone.utc)
_FAR = datetime(9000, 1, 1, 0, 0, 0, 1, tzinfo=timezone.utc)
Window = tuple[datetime | None, datetime | None]
WINDOWS: tuple[Window, ...] = ((None, None), (None, _FAR), (_FAR, None), (_PAST, _FAR), (_PAST, _NEXT))
"""Starts and ends of windows, none of them close to now."""
HOLDS = (
    Hold(id="1", active=True),
    Hold(id="2", active=False),
    Hold(id="3", active=True, message=MESSAGES[2], expires_at=_FAR),
    Hold(id="4", active=True, expires_at=_PAST),
)


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


@dataclass(frozen=True, slots=True)
class Change:
    """A pure change of a state, how it is told, and changes that may do as well, the plainest first."""

    text: str
    apply: StateChange
    plainer: tuple[Change, ...] = ()


def switched(*, active: bool, message: str | None = None, window: Window = WINDOWS[0]) -> Change:
    """Return the change that sets the operator's switch."""
    starts_at, ends_at = window
    wanted = MaintenanceState(active=active, message=message, starts_at=starts_at, ends_at=ends_at)
    text = shown(wanted).removeprefix("MaintenanceState(").removesuffix(")")
    return Change(text, lambda state: replace(wanted, holds=state.holds))


def drawn(active: bool, message: str | None, window: Window, hold: Hold | None) -> Change:  # noqa: FBT001 -- as drawn
    """Return the change that sets the switch, or if there is a hold adds that."""
    if hold is not None:
        return replace(added(hold), plainer=(switched(active=True), added(HOLDS[0])))
    plainer = (
        switched(active=True),
        switched(active=True, message=MESSAGES[1]),
        switched(active=True, message=message),
        switched(active=True, window=(None, window[1])),
        switched(active=True, window=(window[0], None)),
        switched(active=True, window=window),
    )
    return replace(switched(active=active, message=message, window=window), plainer=plainer)


def added(hold: Hold) -> Change:
    """Return the change that adds a hold."""
    return Change(f"add {shown(hold)}", lambda state: add_hold(state, hold, clock.now()))


def released(hold: Hold) -> Change:
    """Return the change that takes a hold out."""
    return Change(f"release hold {hold.id!r}", lambda state: release_hold(state, hold.id))


class Model:
    """The states that a backend may be in: one, but after a write that was cancelled the one before it or after it.

    Args:
        state: The state to begin with.
        detailed: Whether the backend keeps whole states, or nothing but a switch.

    """

    def __init__(self, state: MaintenanceState, *, detailed: bool) -> None:
        self.possible: list[MaintenanceState] = [state]
        self._detailed = detailed
        self._cut_off = False

    def apply(self, change: StateChange) -> None:
        """Change the state."""
        self.become(*map(change, self.possible))

    def apply_perhaps(self, change: StateChange) -> None:
        """Change the state, or do not; what was told not to be may still come."""
        self.become(*self.possible, *map(change, self.possible))
        self._cut_off = True

    def become(self, *states: MaintenanceState) -> None:
        """Be in one of these states, of which those that stand later may still come."""
        last = {state: place for place, state in enumerate(states)}
        first = {state: place for place, state in reversed([*enumerate(states)])}
        self.possible = [state for place, state in enumerate(states) if place in (first[state], last[state])]
        self._cut_off = False

    def is_right(self, seen: MaintenanceState | bool) -> bool:  # noqa: FBT001 -- what was read
        """Tell whether this is one of the states."""
        return any(self._agrees(seen, state) for state in self.possible)

    def see(self, seen: MaintenanceState | bool) -> bool:  # noqa: FBT001 -- what was read
        """Take note of what was read; tell whether it is one of the states. What is before that is past."""
        for place, state in enumerate(self.possible):
            if self._agrees(seen, state):
                self.possible = self.possible[place:]
                return True
        return False

    def settle(self, seen: MaintenanceState | bool) -> bool:  # noqa: FBT001 -- what was read
        """Take note of what was read, after which nothing else can come."""
        right = self.see(seen)
        if right:
            self.become(self.possible[0])
        return right

    def broken_by(self, seen: MaintenanceState | bool) -> Promise:  # noqa: FBT001 -- what was read
        """Return the promise that is broken when this was read."""
        if self._cut_off:
            return Promise.CANCELLED
        state = self.possible[0]
        holds_differ = (
            _anonymous(seen).holds != _anonymous(state).holds
            if isinstance(seen, MaintenanceState) and self._detailed
            else bool(state.holds)
        )
        return Promise.HOLDS if holds_differ else Promise.READS

    def expected(self, seen: MaintenanceState | bool) -> str:  # noqa: FBT001 -- what was read
        """Show what should have been read in the place of this."""
        texts = [shown(self._as_read(seen, state)) for state in self.possible]
        return " or ".join(dict.fromkeys(texts))

    def _as_read(self, seen: MaintenanceState | bool, state: MaintenanceState) -> MaintenanceState | bool:  # noqa: FBT001 -- as above
        if isinstance(seen, bool):
            return _value(state)
        return state if self._detailed else MaintenanceState(active=_value(state))

    def _agrees(self, seen: MaintenanceState | bool, state: MaintenanceState) -> bool:  # noqa: FBT001 -- as above
        if self._detailed and isinstance(seen, MaintenanceState):
            return _anonymous(seen) == _anonymous(state)
        return _value(seen) == _value(state)


def _value(seen: MaintenanceState | bool) -> bool:  # noqa: FBT001 -- as above
    return seen if isinstance(seen, bool) else is_active(seen, clock.now())


def _anonymous(state: MaintenanceState) -> MaintenanceState:
    """Return the state with the ids of its holds left out: those of blocks are random."""
    return replace(state, holds=tuple(replace(hold, id="-") for hold in state.holds))
