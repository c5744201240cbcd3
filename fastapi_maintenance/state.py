"""The maintenance state, its status at a moment, and its changes: frozen dataclasses and pure functions.

A state is the operator's switch, planned windows and open holds. `status_of` is the only rule that decides whether
maintenance is on.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from fastapi_maintenance._helpers.checks import check_bool, check_text, reject, reject_value

TEXT_LIMIT = 4096  # characters of a message or an id; even escaped as JSON it is shorter than `codec.SIZE_LIMIT`
TIMES = {"starts_at", "ends_at", "expires_at", "since"}
_NEVER = datetime.max.replace(tzinfo=UTC)
_KEPT_AFTER_EXPIRY = timedelta(hours=1)


def _check(part: Any) -> None:  # noqa: ANN401 -- a Switch, a Window or a Hold
    """Check each field by its name, and convert times to UTC."""
    for field in fields(part):
        name, value = field.name, getattr(part, field.name)
        if name == "on":
            check_bool(name, value)
        elif name in TIMES:
            object.__setattr__(part, name, _in_utc(name, value))
        elif name == "id" or value is not None:
            _check_short_text(name, value)


def _check_short_text(name: str, value: object) -> None:
    text = check_text(name, value)
    if name == "id" and not text:
        reject_value(name, "not be empty", text)
    if len(text) > TEXT_LIMIT:
        msg = f"{name} must be at most {TEXT_LIMIT} characters long, got {len(text)}"
        raise ValueError(msg)


def _in_utc(name: str, value: object) -> datetime | None:
    if value is None:
        return None if name != "starts_at" else reject(name, "a datetime", value)
    if not isinstance(value, datetime):
        reject(name, "a datetime or None", value)
    if value.utcoffset() is None:
        msg = f"{name} must be an aware datetime (with a time zone), got the naive {value.isoformat()}"
        raise ValueError(msg)
    try:
        return value.astimezone(UTC)
    except OverflowError:
        msg = f"{name} must lie between the years 1 and 9999 in UTC, got {value.isoformat()}"
        raise ValueError(msg) from None


def _tuple_of(name: str, given: object, kind: type[Any]) -> tuple[Any, ...]:
    values = tuple(given) if isinstance(given, Iterable) else (None,)
    if not all(isinstance(value, kind) for value in values):
        reject(name, f"a tuple of {kind.__name__}", given)
    return values


@dataclass(frozen=True, slots=True, kw_only=True)
class Switch:
    """The operator's switch.

    Args:
        on: Whether the operator has turned maintenance on.
        message: The message for visitors.
        ends_at: An aware datetime at which the switch turns off by itself, kept in UTC; None: no end is known.
        by: Who set it, in their own words; for operators, never shown to visitors.
        since: When they set it, an aware datetime, kept in UTC.

    Raises:
        TypeError: A field is of the wrong type.
        ValueError: A datetime is naive, or a text is not valid Unicode or is longer than 4,096 characters.
    """

    on: bool = False
    message: str | None = None
    ends_at: datetime | None = None
    by: str | None = None
    since: datetime | None = None

    def __post_init__(self) -> None:
        _check(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Planned maintenance.

    Args:
        id: Identifies this window.
        starts_at: An aware datetime from which maintenance is on, kept in UTC.
        ends_at: An aware datetime from which it is off again, kept in UTC; None: no end is known.
        message: The message for visitors.
        by: Who planned it, in their own words; for operators, never shown to visitors.
        since: When they planned it, an aware datetime, kept in UTC.

    Raises:
        TypeError: A field is of the wrong type.
        ValueError: A datetime is naive, `ends_at` is not after `starts_at`, `id` is empty, or a text is not valid
            Unicode or is longer than 4,096 characters.
    """

    id: str
    starts_at: datetime
    ends_at: datetime | None = None
    message: str | None = None
    by: str | None = None
    since: datetime | None = None

    def __post_init__(self) -> None:
        _check(self)
        if self.ends_at is not None and self.ends_at <= self.starts_at:
            msg = f"ends_at must be after starts_at, got {self.ends_at.isoformat()} and {self.starts_at.isoformat()}"
            raise ValueError(msg)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """One open `maintenance_mode_on()` or `maintenance_mode_off()` block.

    Args:
        id: Identifies this hold.
        on: Whether the block holds maintenance on or off.
        message: The message for visitors.
        ends_at: When its owner expects the block to end, an aware datetime, kept in UTC; it ends nothing by itself.
        expires_at: The end of its lease, an aware datetime from which the hold no longer counts, kept in UTC; None: it
            counts until it is released.
        by: Who opened the block, in their own words; for operators, never shown to visitors.
        since: When it was opened, an aware datetime, kept in UTC.

    Raises:
        TypeError: A field is of the wrong type.
        ValueError: A datetime is naive, `id` is empty, or a text is not valid Unicode or is longer than 4,096
            characters.
    """

    id: str
    on: bool
    message: str | None = None
    ends_at: datetime | None = None
    expires_at: datetime | None = None
    by: str | None = None
    since: datetime | None = None

    def __post_init__(self) -> None:
        _check(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class MaintenanceState:
    """Everything that a backend keeps; `status_of(state, now)` evaluates it at a moment.

    Args:
        switch: The operator's switch.
        windows: Planned windows, kept in the order in which they start.
        holds: The open blocks, the newest last. The newest decides, regardless of the switch and the windows.

    Raises:
        TypeError: A field is of the wrong type.
    """

    switch: Switch = Switch()
    windows: tuple[Window, ...] = ()
    holds: tuple[Hold, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.switch, Switch):
            reject("switch", "a Switch", self.switch)
        windows = sorted(_tuple_of("windows", self.windows, Window), key=lambda window: (window.starts_at, window.id))
        object.__setattr__(self, "windows", tuple(windows))
        object.__setattr__(self, "holds", _tuple_of("holds", self.holds, Hold))


@dataclass(frozen=True, slots=True, kw_only=True)
class MaintenanceStatus:
    """Whether maintenance is on at one moment, and why; times are aware and in UTC.

    Args:
        active: Whether maintenance is on.
        message: The message for visitors; None while maintenance is off.
        ends_at: When maintenance is expected to end. None: it is off, or no end is known. It is in the past if a job
            takes longer than its owner expected.
        by: Who turned it on or off, for operators.
        since: Since when it has been on or off, if the state records it.
        decided_by: The hold, switch or window that decides; None: nothing turns maintenance on.
        next_window: The next planned window.
    """

    active: bool
    message: str | None = None
    ends_at: datetime | None = None
    by: str | None = None
    since: datetime | None = None
    decided_by: Switch | Window | Hold | None = None
    next_window: Window | None = None


def status_of(state: MaintenanceState, now: datetime) -> MaintenanceStatus:
    """Return the status of a state at `now`, an aware datetime.

    >>> from datetime import UTC, datetime, timedelta
    >>> now = datetime(2030, 1, 1, tzinfo=UTC)
    >>> state = MaintenanceState(switch=Switch(on=True, ends_at=now + timedelta(hours=1)))
    >>> status_of(state, now).active, status_of(state, now + timedelta(hours=1)).active
    (True, False)

    The newest hold that has not expired decides. Without one, maintenance is on while the switch is in force, or a
    window is.
    """
    holds, in_force = open_holds(state, now), parts_in_force(state, now)
    deciding = [*holds[-1:], *in_force]
    next_window = next((window for window in state.windows if window.starts_at > now), None)
    if not deciding:
        by, since = _turned_off(state, now)
        return MaintenanceStatus(active=False, by=by, since=since, next_window=next_window)
    decided_by = deciding[0]
    active = not isinstance(decided_by, Hold) or decided_by.on
    return MaintenanceStatus(
        active=active,
        message=next((part.message for part in deciding if part.message is not None), None) if active else None,
        ends_at=_end(state, holds, now) if active else None,
        by=decided_by.by,
        since=decided_by.starts_at if isinstance(decided_by, Window) else decided_by.since,
        decided_by=decided_by,
        next_window=next_window,
    )


def open_holds(state: MaintenanceState, now: datetime) -> tuple[Hold, ...]:
    """Return the holds that have not expired at `now`, an aware datetime, the newest last."""
    return tuple(hold for hold in state.holds if hold.expires_at is None or now < hold.expires_at)


def parts_in_force(state: MaintenanceState, now: datetime) -> list[Switch | Window]:
    """Return what turns maintenance on apart from holds: the switch, then windows, those that end last first."""
    windows = [one for one in state.windows if one.starts_at <= now and (one.ends_at is None or now < one.ends_at)]
    windows.sort(key=_by_end, reverse=True)
    switch = state.switch
    is_on = switch.on and (switch.ends_at is None or now < switch.ends_at)
    return [*([switch] if is_on else ()), *windows]


def next_change(state: MaintenanceState, now: datetime) -> datetime | None:
    """Return the next time after `now` at which the status may change without a write; None: never."""
    moments = [state.switch.ends_at, *(hold.expires_at for hold in state.holds)]
    for window in state.windows:
        moments += window.starts_at, window.ends_at
    return min((moment for moment in moments if moment is not None and moment > now), default=None)


def seconds_left(status: MaintenanceStatus, now: datetime) -> int | None:
    """Return the seconds until maintenance ends, rounded up; 0 if its expected end has passed, None if unknown."""
    return None if status.ends_at is None else max(0, math.ceil((status.ends_at - now).total_seconds()))


def _end(state: MaintenanceState, holds: tuple[Hold, ...], now: datetime) -> datetime | None:
    """Return when maintenance, which is on, is expected to end; None if no end is known."""
    end: datetime | None = None
    for hold in reversed(holds):
        if not hold.on:  # decides once the newer holds are released
            return end
        if hold.ends_at is None:
            return None
        end = hold.ends_at if end is None else max(end, hold.ends_at)
    moment = now if end is None else max(now, end)
    while parts := parts_in_force(state, moment):
        last = max(parts, key=_by_end)
        if last.ends_at is None:
            return None
        end = moment = last.ends_at
    return end


def _by_end(part: Switch | Window) -> tuple[bool, datetime]:
    return part.ends_at is None, part.ends_at or _NEVER


def _turned_off(state: MaintenanceState, now: datetime) -> tuple[str | None, datetime | None]:
    """Return who turned maintenance off, and when: an operator, or the end of the switch or a window."""
    switch = state.switch
    ended = [window.ends_at for window in state.windows if window.ends_at is not None and window.ends_at <= now]
    if switch.on and switch.ends_at is not None:
        ended.append(switch.ends_at)
    last = max(ended, default=None)
    if switch.on or (last is not None and (switch.since is None or last > switch.since)):
        return None, last
    return switch.by, switch.since


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
        return set_switch(state, stamped(Switch(**changes), now), now)
    if is_on:
        changed = replace(state.switch, **changes)
        return set_switch(state, stamped(changed, changed.since), now)
    kept = Switch(message=parts[0].message, ends_at=parts[0].ends_at) if parts else Switch()
    return set_switch(state, stamped(replace(kept, **changes), now), now)


def stamped(switch: Switch, since: datetime | None) -> Switch:
    """Return the switch with `since` if it has other details; a bare switch is stored as `1` or `0`, without it."""
    return replace(switch, since=since if (switch.message, switch.ends_at, switch.by) != (None, None, None) else None)


def add_window(state: MaintenanceState, window: Window, now: datetime) -> MaintenanceState:
    """Return the state with a window, which replaces one of its id.

    Raises:
        ValueError: It does not start in the future, and is not in the state.
    """
    if window not in state.windows:  # else the reply to a write was lost, and this is the next attempt
        check_future("starts_at", window.starts_at, now)
    others = [other for other in _without_old(state, now) if other.id != window.id]
    return replace(state, windows=(*others, window))


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
