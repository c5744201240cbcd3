"""The maintenance state, its changes, and its status at a moment: values and pure functions."""

from fastapi_maintenance.state.changes import (
    add_hold,
    add_window,
    cancel_window,
    check_future,
    edit_switch,
    release_hold,
    renew_hold,
    set_switch,
    stamped,
)
from fastapi_maintenance.state.status import (
    MaintenanceStatus,
    next_change,
    open_holds,
    parts_in_force,
    seconds_left,
    status_of,
)
from fastapi_maintenance.state.values import TEXT_LIMIT, Hold, MaintenanceState, Switch, Window

__all__ = [
    "TEXT_LIMIT",
    "Hold",
    "MaintenanceState",
    "MaintenanceStatus",
    "Switch",
    "Window",
    "add_hold",
    "add_window",
    "cancel_window",
    "check_future",
    "edit_switch",
    "next_change",
    "open_holds",
    "parts_in_force",
    "release_hold",
    "renew_hold",
    "seconds_left",
    "set_switch",
    "stamped",
    "status_of",
]
