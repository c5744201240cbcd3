"""Every change of a state, as a pure function; each also drops windows that have ended and holds long expired."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from fastapi_maintenance.state.status import is_in_force
from fastapi_maintenance.state.values import Hold, MaintenanceState, Switch, Window

__all__ = [
    "add_hold",
    "add_window",
    "cancel_window",
    "edited_switch",
    "release_hold",
    "renew_hold",
    "set_switch",
]

_KEPT_AFTER_EXPIRY = timedelta(hours=1)


def set_switch(state: MaintenanceState, switch: Switch, now: datetime) -> MaintenanceState:
    """Return the state with a new switch. Switching off also ends the windows in force; later ones and holds stay."""
    windows = state.windows if switch.on else tuple(one for one in state.windows if not is_in_force(one, now))
    return _pruned(replace(state, switch=switch, windows=windows), now)


def edited_switch(switch: Switch, changes: Mapping[str, Any], now: datetime) -> Switch:
    """Return a switch with these fields changed, on and in force, and with what was in force before kept."""
    is_on = switch.on and (switch.ends_at is None or now < switch.ends_at)
    return replace(switch if is_on else Switch(on=True), **changes)


def add_window(state: MaintenanceState, window: Window, now: datetime) -> MaintenanceState:
    """Return the state with another window; windows are kept in the order in which they start."""
    windows = (*(one for one in state.windows if one.id != window.id), window)
    return _pruned(replace(state, windows=tuple(sorted(windows, key=lambda one: one.starts_at))), now)


def cancel_window(state: MaintenanceState, window_id: str, now: datetime) -> MaintenanceState:
    """Return the state without the window of that id; if it is in force, that ends. Unchanged if there is none."""
    return _pruned(replace(state, windows=tuple(one for one in state.windows if one.id != window_id)), now)


def add_hold(state: MaintenanceState, hold: Hold, now: datetime) -> MaintenanceState:
    """Return the state with `hold` as its newest one."""
    return _pruned(replace(state, holds=(*(one for one in state.holds if one.id != hold.id), hold)), now)


def renew_hold(state: MaintenanceState, hold: Hold, now: datetime) -> MaintenanceState:
    """Return the state with `hold` in the place of the one with its id, or as the oldest if that was dropped."""
    holds = tuple(hold if one.id == hold.id else one for one in state.holds)
    return _pruned(replace(state, holds=holds if hold in holds else (hold, *holds)), now)


def release_hold(state: MaintenanceState, hold_id: str, now: datetime) -> MaintenanceState:
    """Return the state without the hold of that id; unchanged if there is none."""
    return _pruned(replace(state, holds=tuple(one for one in state.holds if one.id != hold_id)), now)


def _pruned(state: MaintenanceState, now: datetime) -> MaintenanceState:
    """Drop ended windows, and holds that expired an hour ago or more.

    Until then an expired hold keeps its place, although it does not count: the clock of this host may be ahead.
    """
    windows = tuple(one for one in state.windows if one.ends_at is None or now < one.ends_at)
    holds = tuple(one for one in state.holds if one.expires_at is None or now - one.expires_at < _KEPT_AFTER_EXPIRY)
    return replace(state, windows=windows, holds=holds)
