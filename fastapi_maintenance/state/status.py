"""Evaluate a state at a moment. `status_of` is the only rule that decides whether maintenance is on."""

import math
from dataclasses import dataclass
from datetime import UTC, datetime

from fastapi_maintenance.state.values import Hold, MaintenanceState, Switch, Window

_NEVER = datetime.max.replace(tzinfo=UTC)


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
