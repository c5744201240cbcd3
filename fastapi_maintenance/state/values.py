"""What a backend keeps: the operator's switch, planned windows and open holds, as frozen dataclasses."""

from collections.abc import Iterable
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any

from fastapi_maintenance._helpers.checks import check_bool, check_str, reject, reject_value

TEXT_LIMIT = 4096  # characters of a message or an id; even escaped as JSON it is shorter than `codec.SIZE_LIMIT`
TIMES = {"starts_at", "ends_at", "expires_at", "since"}


def _check(part: Any) -> None:  # noqa: ANN401 -- a Switch, a Window or a Hold
    """Check each field by its name, and convert times to UTC."""
    for field in fields(part):
        name, value = field.name, getattr(part, field.name)
        if name == "on":
            check_bool(name, value)
        elif name in TIMES:
            object.__setattr__(part, name, _in_utc(name, value))
        elif name == "id" or value is not None:
            _check_text(name, value)


def _check_text(name: str, value: object) -> None:
    text = check_str(name, value)
    if name == "id" and not text:
        reject_value(name, "not be empty", text)
    if len(text) > TEXT_LIMIT:
        msg = f"{name} must be at most {TEXT_LIMIT} characters long, got {len(text)}"
        raise ValueError(msg)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        reject_value(name, "be text that UTF-8 can carry", text)


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
