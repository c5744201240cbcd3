"""Convert booleans and states from and to text, as stored in a file, a variable or a key.

A state without details is `1` or `0`, which people, scripts and version 0.0.5 read and write. Any other is one JSON
object (RFC 8259) with the fields of the dataclasses; times are RFC 3339 in UTC.
"""

import json
from dataclasses import fields
from datetime import datetime
from typing import Any, TypeVar

from fastapi_maintenance._helpers.checks import check_str, reject
from fastapi_maintenance.errors import InvalidStateError
from fastapi_maintenance.state import TIMES, Hold, MaintenanceState, Switch, Window

__all__ = ["SIZE_LIMIT", "bool_to_str", "state_to_text", "str_to_bool", "text_to_state"]

SIZE_LIMIT = 65_535  # bytes: the smallest limit of a store, `TEXT` in MySQL

_SHOWN = 200  # characters of a text or a reason that an error shows
_ON, _OFF = "1 on t true y yes", "0 off f false n no"
_WORDS = {"": False} | dict.fromkeys(_ON.split(), True) | dict.fromkeys(_OFF.split(), False)
_REQUIRED = {"id", "on", "starts_at"}
_Part = TypeVar("_Part", Switch, Window, Hold)


def str_to_bool(value: str) -> bool:
    """Parse a boolean from a word, in any case and with surrounding spaces; an empty text is off.

    >>> str_to_bool(" Yes "), str_to_bool("off"), str_to_bool("")
    (True, False, False)

    Raises:
        InvalidStateError: The word is unknown; this is a `ValueError`, and shows its beginning.
        TypeError: The value is not a `str`.
    """
    try:
        return _WORDS[check_str("value", value).strip().lower()]
    except KeyError:
        msg = f"value must be one of {_ON} (on) or {_OFF} (off), got {value[:_SHOWN]!r}"
        raise InvalidStateError(msg) from None


def bool_to_str(value: bool) -> str:  # noqa: FBT001 -- the value is what the function is about
    """Write a boolean as `1` or `0`.

    >>> bool_to_str(True)
    '1'
    """
    return "1" if value else "0"


def state_to_text(state: MaintenanceState) -> str:
    """Write a state as text, from which `text_to_state` reads an equal state.

    >>> state_to_text(MaintenanceState(switch=Switch(on=True)))
    '1'
    >>> state_to_text(MaintenanceState(switch=Switch(on=True, message="Back at ten")))
    '{"switch": {"on": true, "message": "Back at ten"}}'

    The only field left out is `since` of a switch without other details.

    Raises:
        ValueError: The text is longer than 65,535 bytes, the limit of all built-in backends.
    """
    text = text_of_any_size(state)
    if len(text) > SIZE_LIMIT:  # ASCII, so its length is in bytes
        hint = "shorten messages, cancel windows, release holds"
        msg = f"a state must take at most {SIZE_LIMIT} bytes as text, got {len(text)}: {hint}"
        raise ValueError(msg)
    return text


def text_of_any_size(state: MaintenanceState) -> str:
    """Write a state as `state_to_text` does, without its limit."""
    switch, windows, holds = _plain(state.switch), [*map(_plain, state.windows)], [*map(_plain, state.holds)]
    if not windows and not holds and switch.keys() <= {"on", "since"}:
        return bool_to_str(state.switch.on)
    parts = {"switch": switch, "windows": windows, "holds": holds}
    return json.dumps({name: part for name, part in parts.items() if part})


def text_to_state(text: str) -> MaintenanceState:
    """Parse a state from a word, as `str_to_bool` does, or from a JSON object. Unknown fields are ignored.

    >>> text_to_state('{"switch": {"on": true, "colour": "green"}}').switch.on
    True

    Raises:
        InvalidStateError: The text is neither, or a field is not valid; this is a `ValueError`, and shows its
            beginning. An object needs at least one of the fields `switch`, `windows` and `holds`.
        TypeError: The value is not a `str`.
    """
    text = check_str("text", text).removeprefix("\ufeff")  # byte order mark, from editors on Windows
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
        reason = f"the field {error} is missing" if isinstance(error, KeyError) else str(error)[:_SHOWN]
        msg = f"text must be a JSON object that describes a state, got {text[:_SHOWN]!r}: {reason}"
        raise InvalidStateError(msg) from error


def _plain(part: Switch | Window | Hold) -> dict[str, Any]:
    """Return the fields of a part that are not None, with times as text."""
    values = ((field.name, getattr(part, field.name)) for field in fields(part))
    return {name: value.isoformat() if name in TIMES else value for name, value in values if value is not None}


def _array_of(found: dict[str, Any], name: str) -> list[Any]:
    value = found.get(name)
    return [] if value is None else value if isinstance(value, list) else reject(name, "a JSON array", value)


def _part(kind: type[_Part], found: dict[str, Any]) -> _Part:
    """Return a part of a state from a JSON object."""
    if not isinstance(found, dict):
        reject(f"a {kind.__name__.lower()}", "a JSON object", found)
    values: dict[str, Any] = {field.name: _value_of(found, field.name) for field in fields(kind)}
    return kind(**values)


def _value_of(found: dict[str, Any], name: str) -> Any:  # noqa: ANN401 -- checked by the part
    """Return a field of a part; raise a `KeyError` if a required one is missing."""
    value = found[name] if name in _REQUIRED else found.get(name)
    if value is None or name not in TIMES:
        return value
    return datetime.fromisoformat(check_str("a time", value).upper())  # RFC 3339 allows lower-case t and z
