"""The state of maintenance and every change of it, as values and pure functions."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from fastapi_maintenance._helpers.checks import check_bool, check_str, reject

__all__ = [
    "TEXT_LIMIT",
    "Hold",
    "MaintenanceState",
    "add_hold",
    "current_author",
    "current_message",
    "is_active",
    "newest_hold",
    "next_change",
    "open_holds",
    "release_hold",
    "renew_hold",
    "seconds_left",
    "switch",
    "what_counts",
]

TEXT_LIMIT = 4096  # characters of a message or an id: what is the longest in JSON is still less than `codec.SIZE_LIMIT`

_KEPT_AFTER_EXPIRY = timedelta(hours=1)


def _in_utc(name: str, value: object) -> datetime | None:
    if value is None:
        return None
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


def _check_text(name: str, value: str | None) -> None:
    if value is None:
        return
    if len(check_str(name, value)) > TEXT_LIMIT:
        msg = f"{name} must be at most {TEXT_LIMIT} characters long, got {len(value)}"
        raise ValueError(msg)
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        msg = f"{name} must be text that UTF-8 can carry, got {value!r}"
        raise ValueError(msg) from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """One open `maintenance_mode_on()` or `maintenance_mode_off()` block.

    Args:
        id: Tells this hold from every other one.
        active: Whether the block holds maintenance on or off.
        message: What to tell those who are locked out by this block.
        expires_at: An aware datetime from which the hold no longer counts, kept in UTC; None: it counts until
            it is released.
        by: Who opened the block, in their own words.
        since: When it was opened, an aware datetime, kept in UTC.

    Raises:
        TypeError: A field is of the wrong type.
        ValueError: A datetime is naive, `id` is empty, or a text is not Unicode text or longer than 4,096 characters.
    """

    id: str
    active: bool
    message: str | None = None
    expires_at: datetime | None = None
    by: str | None = None
    since: datetime | None = None

    def __post_init__(self) -> None:
        _check_text("id", check_str("id", self.id))
        if not self.id:
            msg = f"id must be a str that is not empty, got {self.id!r}"
            raise ValueError(msg)
        check_bool("active", self.active)
        _check_text("message", self.message)
        _check_text("by", self.by)
        for name in ("expires_at", "since"):
            object.__setattr__(self, name, _in_utc(name, getattr(self, name)))


@dataclass(frozen=True, slots=True, kw_only=True)
class MaintenanceState:
    """Whether maintenance is on, from when, until when, and by which jobs.

    Args:
        active: The operator's switch.
        message: What to tell those who are locked out.
        starts_at: An aware datetime from which the switch counts, kept in UTC; None: it counts already.
        ends_at: An aware datetime from which the switch counts no longer, kept in UTC; None: no end is known.
        holds: The open context managers, the newest last. The newest decides, whatever the switch says.
        by: Who set the switch, in their own words; for operators, and never shown to visitors.
        since: When they did, an aware datetime, kept in UTC.

    Raises:
        TypeError: A field is of the wrong type.
        ValueError: A datetime is naive, `ends_at` is not after `starts_at`, or a text is not Unicode text or longer
            than 4,096 characters.
    """

    active: bool = False
    message: str | None = None
    starts_at: datetime | None = None
    ends_at: datetime | None = None
    holds: tuple[Hold, ...] = ()
    by: str | None = None
    since: datetime | None = None

    def __post_init__(self) -> None:
        check_bool("active", self.active)
        _check_text("message", self.message)
        _check_text("by", self.by)
        starts_at, ends_at = _in_utc("starts_at", self.starts_at), _in_utc("ends_at", self.ends_at)
        if starts_at is not None and ends_at is not None and ends_at <= starts_at:
            msg = f"ends_at must be after starts_at, got {ends_at.isoformat()} and {starts_at.isoformat()}"
            raise ValueError(msg)
        given: object = self.holds
        holds = tuple(given) if isinstance(given, Iterable) else (None,)
        if not all(isinstance(hold, Hold) for hold in holds):
            reject("holds", "a tuple of Hold", given)
        since = _in_utc("since", self.since)
        for name, value in {"starts_at": starts_at, "ends_at": ends_at, "holds": holds, "since": since}.items():
            object.__setattr__(self, name, value)


def open_holds(state: MaintenanceState, now: datetime) -> tuple[Hold, ...]:
    """Return the holds that have not expired at `now`, an aware datetime, the newest last."""
    return tuple(hold for hold in state.holds if hold.expires_at is None or now < hold.expires_at)


def newest_hold(state: MaintenanceState, now: datetime) -> Hold | None:
    """Return the hold that decides: the newest one that has not expired at `now`, an aware datetime."""
    return next(reversed(open_holds(state, now)), None) if state.holds else None


def is_active(state: MaintenanceState, now: datetime) -> bool:
    """Tell whether there is maintenance at `now`, an aware datetime.

    >>> from datetime import UTC, datetime, timedelta
    >>> now = datetime(2030, 1, 1, tzinfo=UTC)
    >>> is_active(MaintenanceState(active=True, ends_at=now), now)
    False

    The newest hold that has not expired decides. Without one the switch does, from `starts_at` (included) until
    `ends_at` (excluded).
    """
    hold = newest_hold(state, now)
    return _switch_counts(state, now) if hold is None else hold.active


def current_message(state: MaintenanceState, now: datetime) -> str | None:
    """Return what to tell people at `now`: the message of the deciding hold if it has one, else the operator's.

    The operator's counts for as long as the switch does, and not where a hold decides before its window begins.
    """
    hold = newest_hold(state, now)
    if hold is not None and (hold.message is not None or not _switch_counts(state, now)):
        return hold.message
    return state.message


def current_author(state: MaintenanceState, now: datetime) -> MaintenanceState | Hold:
    """Return what decides at `now`, with its `by` and `since`: the newest hold that has not expired, else the state."""
    return newest_hold(state, now) or state


def what_counts(state: MaintenanceState, now: datetime) -> tuple[bool, MaintenanceState]:
    """Return whether there is maintenance at `now`, and the state without expired holds, and without expiries.

    Two states of which this is the same differ in nothing that anybody has to be told of.
    """
    holds = tuple(replace(hold, expires_at=None) for hold in open_holds(state, now))
    return is_active(state, now), replace(state, holds=holds)


def seconds_left(state: MaintenanceState, now: datetime) -> int | None:
    """Return the whole seconds, at least 1, until the maintenance at `now` ends; None where that is not known."""
    if newest_hold(state, now) is not None or not _switch_counts(state, now) or state.ends_at is None:
        return None
    return max(1, math.ceil((state.ends_at - now).total_seconds()))


def switch(
    state: MaintenanceState,
    *,
    active: bool,
    message: str | None = None,
    starts_at: datetime | None = None,
    ends_at: datetime | None = None,
) -> MaintenanceState:
    """Return the state after the operator set the switch anew; open holds stay as they are."""
    return MaintenanceState(active=active, message=message, starts_at=starts_at, ends_at=ends_at, holds=state.holds)


def add_hold(state: MaintenanceState, hold: Hold, now: datetime) -> MaintenanceState:
    """Return the state with `hold` as its newest one, and without those that expired an hour before `now`, or longer.

    Until then an expired hold keeps its place, although it does not count: the clock of this host may be ahead.
    """
    others = (other for other in state.holds if other.expires_at is None or now - other.expires_at < _KEPT_AFTER_EXPIRY)
    return replace(state, holds=(*(other for other in others if other.id != hold.id), hold))


def release_hold(state: MaintenanceState, hold_id: str) -> MaintenanceState:
    """Return the state without the hold of that id; without change where there is none."""
    return replace(state, holds=tuple(hold for hold in state.holds if hold.id != hold_id))


def renew_hold(state: MaintenanceState, hold: Hold) -> MaintenanceState:
    """Return the state with `hold` in the place of the one with its id, or as the oldest where that was dropped."""
    if any(other.id == hold.id for other in state.holds):
        return replace(state, holds=tuple(hold if other.id == hold.id else other for other in state.holds))
    return replace(state, holds=(hold, *state.holds))


def next_change(state: MaintenanceState, now: datetime) -> datetime | None:
    """Return the first moment after `now` at which a window begins or ends or a hold expires; None where none does."""
    moments = (state.starts_at, state.ends_at, *(hold.expires_at for hold in state.holds))
    return min((moment for moment in moments if moment is not None and moment > now), default=None)


def _switch_counts(state: MaintenanceState, now: datetime) -> bool:
    started = state.starts_at is None or state.starts_at <= now
    ended = state.ends_at is not None and state.ends_at <= now
    return state.active and started and not ended
