"""Text from and to booleans and states: what a file, an environment variable or a key of a store contains.

A state is `1` or `0` while that says it all, so that a person or a script can read and write it, and so can version
0.0.5. Otherwise it is one JSON object (RFC 8259) with the fields of the dataclasses; times are RFC 3339 in UTC.
"""

import json
from dataclasses import fields
from datetime import datetime
from typing import Any, TypeVar

from fastapi_maintenance._helpers.checks import check_str, reject
from fastapi_maintenance.errors import InvalidStateError
from fastapi_maintenance.state import Hold, MaintenanceState, Switch, Window

__all__ = ["SIZE_LIMIT", "bool_to_str", "state_to_text", "str_to_bool", "text_to_state"]

SIZE_LIMIT = 65_535  # bytes: the least that a store keeps, a `TEXT` of MySQL

_ON, _OFF = "1 on t true y yes", "0 off f false n no"
_WORDS = {"": False} | dict.fromkeys(_ON.split(), True) | dict.fromkeys(_OFF.split(), False)
_REQUIRED = {"id", "on", "starts_at"}
_TIMES = {"starts_at", "ends_at", "expires_at", "since"}
_Part = TypeVar("_Part", Switch, Window, Hold)


def str_to_bool(value: str) -> bool:
    """Read a boolean from a word, in any case and with spaces around it; nothing at all is off.

    >>> str_to_bool(" Yes "), str_to_bool("off"), str_to_bool("")
    (True, False, False)

    Raises:
        InvalidStateError: The word is none of those; it is a `ValueError` and shows the value.
        TypeError: The value is not a `str`.
    """
    try:
        return _WORDS[check_str("value", value).strip().lower()]
    except KeyError:
        msg = f"value must be one of {_ON} (on) or {_OFF} (off), got {value!r}"
        raise InvalidStateError(msg) from None


def bool_to_str(value: bool) -> str:  # noqa: FBT001 -- the value is what the function is about
    """Write a boolean as `1` or `0`.

    >>> bool_to_str(True)
    '1'
    """
    return "1" if value else "0"


def state_to_text(state: MaintenanceState) -> str:
    """Write a state as text, which `text_to_state` reads back as an equal state.

    >>> state_to_text(MaintenanceState(switch=Switch(on=True)))
    '1'
    >>> state_to_text(MaintenanceState(switch=Switch(on=True, message="Back at ten")))
    '{"switch": {"on": true, "message": "Back at ten"}}'

    Only a `since` of the switch that comes with nothing else is left out.

    Raises:
        ValueError: The text is longer than 65,535 bytes, which no built-in backend takes.
    """
    switch, windows, holds = _plain(state.switch), [*map(_plain, state.windows)], [*map(_plain, state.holds)]
    if not windows and not holds and switch.keys() <= {"on", "since"}:
        return bool_to_str(state.switch.on)
    parts = {"switch": switch, "windows": windows, "holds": holds}
    text = json.dumps({name: part for name, part in parts.items() if part})  # ASCII: a byte a character
    if len(text) > SIZE_LIMIT:
        hint = "shorten messages, cancel windows, release holds"
        msg = f"a state must take at most {SIZE_LIMIT} bytes as text, got {len(text)}: {hint}"
        raise ValueError(msg)
    return text


def text_to_state(text: str) -> MaintenanceState:
    """Read a state from a word as `str_to_bool` does, or from a JSON object. Unknown fields are ignored.

    >>> text_to_state('{"switch": {"on": true, "colour": "green"}}').switch.on
    True

    Raises:
        InvalidStateError: The text is neither, or its fields make no valid state; it is a `ValueError` and shows the
            text. An object needs at least one of the fields `switch`, `windows` and `holds`.
        TypeError: The value is not a `str`.
    """
    text = check_str("text", text).removeprefix("\ufeff")  # the byte order mark of editors on Windows
    if not text.lstrip().startswith("{"):
        return MaintenanceState(switch=Switch(on=str_to_bool(text)))
    try:
        found = json.loads(text)
        if not found.keys() & {"switch", "windows", "holds"}:
            raise KeyError("switch")  # noqa: EM101, TRY301 -- becomes the reason below
        return MaintenanceState(
            switch=Switch() if found.get("switch") is None else _part(Switch, found["switch"]),
            windows=tuple(_part(Window, window) for window in _array_of(found, "windows")),
            holds=tuple(_part(Hold, hold) for hold in _array_of(found, "holds")),
        )
    except (AttributeError, KeyError, OverflowError, RecursionError, TypeError, ValueError) as error:
        reason = f"the field {error} is missing" if isinstance(error, KeyError) else str(error)
        msg = f"text must be a JSON object that describes a state, got {text[:200]!r}: {reason}"
        raise InvalidStateError(msg) from error


def _plain(part: Switch | Window | Hold) -> dict[str, Any]:
    """Return the fields of a part that are not empty, by name, with times as text."""
    values = {field.name: getattr(part, field.name) for field in fields(part)}
    return {
        name: value.isoformat() if isinstance(value, datetime) else value
        for name, value in values.items()
        if value is not None
    }


def _array_of(found: dict[str, Any], name: str) -> list[Any]:
    value = found.get(name)
    return [] if value is None else value if isinstance(value, list) else reject(name, "a JSON array", value)


def _part(kind: type[_Part], found: dict[str, Any]) -> _Part:
    """Return a part of a state from a JSON object; raise a `KeyError` if it lacks a field."""
    if not isinstance(found, dict):
        reject(f"a {kind.__name__.lower()}", "a JSON object", found)
    names = [field.name for field in fields(kind)]
    known: dict[str, Any] = {name: found[name] if name in _REQUIRED else found.get(name) for name in names}
    for name in _TIMES & known.keys():
        known[name] = _time_of(known[name])
    return kind(**known)


def _time_of(value: object) -> datetime | None:
    if value is None:
        return None
    return datetime.fromisoformat(check_str("a time", value).upper())  # RFC 3339 allows a small t and z
