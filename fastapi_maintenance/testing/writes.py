"""What the steps of a check write: each kind of argument is a list of options, the simplest first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import Any

from fastapi_maintenance._helpers import clock
from fastapi_maintenance.state import Hold, MaintenanceState, add_hold
from fastapi_maintenance.testing.model import shown
from fastapi_maintenance.typing import StateChange

__all__ = ["UPDATES", "Write", "adding", "switching", "updating"]

_MESSAGES = ("Back at ten", " Zurück 🚧\num „zehn“ \\ ✓ ", "", "Back at ten." * 25)
_PAST, _NEXT = datetime(2000, 1, 1, tzinfo=timezone.utc), datetime(2001, 1, 1, tzinfo=timezone.utc)
_FAR = datetime(9000, 1, 1, 0, 0, 0, 1, tzinfo=timezone.utc)
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


def updating(text: str, change: StateChange) -> Write:
    """Return a call of `update_state`."""
    return Write("update_state", change, text, change)


def adding(hold: Hold) -> Write:
    """Return the write that adds a hold."""
    return updating(f"add {shown(hold)}", lambda state: add_hold(state, hold, clock.now()))


def switching(value: bool) -> Write:  # noqa: FBT001 -- as the Protocol has it
    """Return a call of `set_value`."""
    return Write("set_value", value, str(value), lambda state: replace(state, active=value))


def _setting(wanted: MaintenanceState) -> Write:
    text = shown(wanted).removeprefix("MaintenanceState(").removesuffix(")")
    return updating(text, lambda state: replace(wanted, holds=state.holds))


def _releasing(place: int, text: str) -> Write:
    return updating(f"release the {text} hold", lambda state: replace(state, holds=_without(state.holds, place)))


def _without(holds: tuple[Hold, ...], place: int) -> tuple[Hold, ...]:
    return tuple(hold for hold in holds if hold is not holds[place])


UPDATES = (
    *(_setting(MaintenanceState(active=active)) for active in (True, False)),
    *(_setting(MaintenanceState(active=True, message=message)) for message in _MESSAGES),
    *map(adding, _HOLDS),
    _releasing(0, "oldest"),
    _releasing(-1, "newest"),
    *(
        _setting(MaintenanceState(active=active, message=message, starts_at=starts_at, ends_at=ends_at))
        for active, message in ((True, None), (False, _MESSAGES[1]))
        for starts_at, ends_at in _WINDOWS
    ),
)
