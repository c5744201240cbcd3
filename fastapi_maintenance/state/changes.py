"""Changes of a state, as pure functions."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from fastapi_maintenance.state.status import parts_in_force
from fastapi_maintenance.state.values import Hold, MaintenanceState, Switch, Window

_KEPT_AFTER_EXPIRY = timedelta(hours=1)


def check_future(name: str, moment: datetime | None, now: datetime) -> None:
    """Raise a `ValueError` if the moment is not after `now`."""
    if moment is not None and moment <= now:
        msg = f"{name} must be in the future, got {moment.isoformat()}"
        raise ValueError(msg)


def set_switch(state: MaintenanceState, switch: Switch, now: datetime) -> MaintenanceState:
    """Return the state with a new switch. Switching off also ends the windows in force.

    Drop ended windows, and holds that expired at least an hour before `now`.
    """
    in_force = () if switch.on else parts_in_force(state, now)
    windows = tuple(one for one in state.windows if not _has_ended(one, now) and one not in in_force)
    return replace(state, switch=switch, windows=windows, holds=_without_long_expired(state.holds, now))


def edit_switch(state: MaintenanceState, changes: Mapping[str, Any], now: datetime) -> MaintenanceState:
    """Return the state with some fields of the switch changed.

    Fields that are not mentioned are kept if the switch is in force. If only windows are in force, turning the switch
    on takes over their message and end. Turning it off clears message and end.

    Args:
        state: The state.
        changes: The new values of some of `on`, `message`, `ends_at` and `by`.
        now: An aware datetime.

    Raises:
        ValueError: The switch is off and `changes` do not turn it on, or a value is not valid.
    """
    if not changes:
        return state
    parts = parts_in_force(state, now)
    is_on = bool(parts) and isinstance(parts[0], Switch)
    if not changes.get("on", is_on):
        if "on" not in changes:
            msg = "on must be true to change a switch that is off"
            raise ValueError(msg)
        return set_switch(state, stamped(Switch(**{"on": False, **changes}), now), now)
    if is_on:
        changed = replace(state.switch, **changes)
        return set_switch(state, stamped(changed, changed.since), now)
    kept = Switch(on=True, message=parts[0].message, ends_at=parts[0].ends_at) if parts else Switch(on=True)
    return set_switch(state, stamped(replace(kept, **changes), now), now)


def stamped(switch: Switch, since: datetime | None) -> Switch:
    """Return the switch with `since` if it has other details; a bare switch is stored as `1` or `0`, without it."""
    return replace(switch, since=since if (switch.message, switch.ends_at, switch.by) != (None, None, None) else None)


def add_window(state: MaintenanceState, window: Window, now: datetime) -> MaintenanceState:
    """Return the state with another window; raise a `ValueError` if it does not start in the future."""
    check_future("starts_at", window.starts_at, now)
    return replace(state, windows=(*_without_old(state, now), window))


def cancel_window(state: MaintenanceState, window_id: str, now: datetime) -> MaintenanceState:
    """Return the state without the window of that id, also if it is in force. Ended windows are dropped."""
    return replace(state, windows=tuple(one for one in _without_old(state, now) if one.id != window_id))


def add_hold(state: MaintenanceState, hold: Hold, now: datetime) -> MaintenanceState:
    """Return the state with `hold` as the newest, without holds that expired at least an hour before `now`.

    Until then an expired hold keeps its place without counting, since the clock of this host may be ahead.
    """
    others = _without_long_expired(state.holds, now)
    return replace(state, holds=(*(other for other in others if other.id != hold.id), hold))


def release_hold(state: MaintenanceState, hold_id: str) -> MaintenanceState:
    """Return the state without the hold of that id."""
    return replace(state, holds=tuple(hold for hold in state.holds if hold.id != hold_id))


def renew_hold(state: MaintenanceState, hold: Hold) -> MaintenanceState:
    """Return the state with `hold` replacing the one with its id, or inserted by its age."""
    holds = [hold if other.id == hold.id else other for other in state.holds]
    if hold not in holds:
        newer = (place for place, other in enumerate(holds) if _is_newer(other, hold))
        holds.insert(next(newer, len(holds)), hold)
    return replace(state, holds=tuple(holds))


def _without_long_expired(holds: tuple[Hold, ...], now: datetime) -> tuple[Hold, ...]:
    return tuple(one for one in holds if one.expires_at is None or now - one.expires_at < _KEPT_AFTER_EXPIRY)


def _is_newer(other: Hold, hold: Hold) -> bool:
    return hold.since is None or (other.since is not None and other.since >= hold.since)


def _has_ended(window: Window, now: datetime) -> bool:
    return window.ends_at is not None and window.ends_at <= now


def _without_old(state: MaintenanceState, now: datetime) -> list[Window]:
    """Return the windows, of the ended ones only the last: it shows since when maintenance is off."""
    ended = [window for window in state.windows if _has_ended(window, now)]
    last = max(ended, key=lambda window: (window.ends_at or now, window.id), default=None)
    return [window for window in state.windows if window == last or window not in ended]
