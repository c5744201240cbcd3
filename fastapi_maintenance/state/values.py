"""What a backend keeps: the operator's switch, planned windows and open holds, as frozen dataclasses."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from fastapi_maintenance._helpers.checks import check_bool, check_str, reject

__all__ = ["TEXT_LIMIT", "Hold", "MaintenanceState", "Switch", "Window"]

TEXT_LIMIT = 4096  # characters of a message or an id: what is the longest in JSON is still less than `codec.SIZE_LIMIT`


def _tuple_of(name: str, given: object, kind: type[Any]) -> tuple[Any, ...]:
    values = tuple(given) if isinstance(given, Iterable) else (None,)
    if not all(isinstance(value, kind) for value in values):
        reject(name, f"a tuple of {kind.__name__}", given)
    return values


def _check_id(value: object) -> None:
    if not _checked_text("id", check_str("id", value)):
        msg = f"id must be a str that is not empty, got {value!r}"
        raise ValueError(msg)


def _check_details(value: Any, *times: str) -> None:  # noqa: ANN401 -- a Switch, a Window or a Hold
    """Check `message` and `by`, and put the times in UTC."""
    _checked_text("message", value.message)
    _checked_text("by", value.by)
    for name in times:
        object.__setattr__(value, name, _in_utc(name, getattr(value, name)))


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


def _checked_text(name: str, value: str | None) -> str | None:
    if value is None:
        return None
    if len(check_str(name, value)) > TEXT_LIMIT:
        msg = f"{name} must be at most {TEXT_LIMIT} characters long, got {len(value)}"
        raise ValueError(msg)
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        msg = f"{name} must be text that UTF-8 can carry, got {value!r}"
        raise ValueError(msg) from None
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Switch:
    """The operator's switch.

    Args:
        on: Whether the operator has turned maintenance on.
        message: What to tell visitors.
        ends_at: An aware datetime at which the switch stops being in force, kept in UTC; None: no end is known.
        by: Who set it, in their own words; for operators, never shown to visitors.
        since: When they set it, an aware datetime, kept in UTC.

    Raises:
        TypeError: A field is of the wrong type.
        ValueError: A datetime is naive, or a text is not Unicode text or longer than 4,096 characters.
    """

    on: bool = False
    message: str | None = None
    ends_at: datetime | None = None
    by: str | None = None
    since: datetime | None = None

    def __post_init__(self) -> None:
        check_bool("on", self.on)
        _check_details(self, "ends_at", "since")


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Planned maintenance.

    Args:
        id: Identifies this window.
        starts_at: An aware datetime from which maintenance is on, kept in UTC.
        ends_at: An aware datetime from which it is off again, kept in UTC; None: no end is known.
        message: What to tell visitors.
        by: Who planned it, in their own words; for operators, never shown to visitors.
        since: When they planned it, an aware datetime, kept in UTC.

    Raises:
        TypeError: A field is of the wrong type.
        ValueError: A datetime is naive, `ends_at` is not after `starts_at`, `id` is empty, or a text is not Unicode
            text or longer than 4,096 characters.
    """

    id: str
    starts_at: datetime
    ends_at: datetime | None = None
    message: str | None = None
    by: str | None = None
    since: datetime | None = None

    def __post_init__(self) -> None:
        _check_id(self.id)
        _check_details(self, "starts_at", "ends_at", "since")
        given: object = self.starts_at
        if given is None:
            reject("starts_at", "a datetime", given)
        if self.ends_at is not None and self.ends_at <= self.starts_at:
            msg = f"ends_at must be after starts_at, got {self.ends_at.isoformat()} and {self.starts_at.isoformat()}"
            raise ValueError(msg)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """One open `maintenance_mode_on()` or `maintenance_mode_off()` block.

    Args:
        id: Identifies this hold.
        on: Whether the block holds maintenance on or off.
        message: What to tell visitors.
        ends_at: When its owner expects the block to end, an aware datetime, kept in UTC; it ends nothing by itself.
        expires_at: The end of its lease, an aware datetime from which the hold no longer counts, kept in UTC; None: it
            counts until it is released.
        by: Who opened the block, in their own words; for operators, never shown to visitors.
        since: When it was opened, an aware datetime, kept in UTC.

    Raises:
        TypeError: A field is of the wrong type.
        ValueError: A datetime is naive, `id` is empty, or a text is not Unicode text or longer than 4,096 characters.
    """

    id: str
    on: bool
    message: str | None = None
    ends_at: datetime | None = None
    expires_at: datetime | None = None
    by: str | None = None
    since: datetime | None = None

    def __post_init__(self) -> None:
        _check_id(self.id)
        check_bool("on", self.on)
        _check_details(self, "ends_at", "expires_at", "since")


@dataclass(frozen=True, slots=True, kw_only=True)
class MaintenanceState:
    """All that a backend keeps. What it means at a moment is `status_of(state, now)`.

    Args:
        switch: The operator's switch.
        windows: Planned windows, kept in the order in which they start.
        holds: The open context managers, the newest last. The newest decides, whatever the switch and windows say.

    Raises:
        TypeError: A field is of the wrong type.
    """

    switch: Switch = Switch()
    windows: tuple[Window, ...] = ()
    holds: tuple[Hold, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.switch, Switch):
            reject("switch", "a Switch", self.switch)
        windows: tuple[Window, ...] = _tuple_of("windows", self.windows, Window)
        object.__setattr__(self, "windows", tuple(sorted(windows, key=lambda window: (window.starts_at, window.id))))
        object.__setattr__(self, "holds", _tuple_of("holds", self.holds, Hold))
