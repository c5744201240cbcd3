"""Text from and to booleans and states: what stands in a file, an environment variable or a key of a store.

A state is `1` or `0` while that says it all, so that a person can write it by hand, else one JSON object (RFC 8259)
whose times are RFC 3339 in UTC.
"""

import json
from dataclasses import fields
from datetime import datetime
from typing import Any

from fastapi_maintenance._helpers.checks import check_str
from fastapi_maintenance.errors import InvalidStateError
from fastapi_maintenance.state import Hold, MaintenanceState

__all__ = ["SIZE_LIMIT", "bool_to_str", "state_to_text", "str_to_bool", "text_to_state"]

SIZE_LIMIT = 65_535  # bytes: the least that a store keeps, a `TEXT` of MySQL

_ON, _OFF = "1 on t true y yes", "0 off f false n no"
_WORDS = {"": False} | dict.fromkeys(_ON.split(), True) | dict.fromkeys(_OFF.split(), False)
_REQUIRED = {"id", "active"}
_TIMES = {"starts_at", "ends_at", "expires_at", "since"}


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

    >>> state_to_text(MaintenanceState(active=True))
    '1'
    >>> state_to_text(MaintenanceState(active=True, message="Back at ten"))
    '{"active": true, "message": "Back at ten"}'

    Raises:
        ValueError: The text is longer than 65,535 bytes, which no built-in backend takes.
    """
    found = _plain(state)
    if found.keys() == {"active"}:
        return bool_to_str(state.active)
    text = json.dumps(found, default=_plain)  # ASCII: a byte a character
    if len(text) > SIZE_LIMIT:
        msg = f"a state must take at most {SIZE_LIMIT} bytes as text, got {len(text)}: shorten messages, release holds"
        raise ValueError(msg)
    return text


def text_to_state(text: str) -> MaintenanceState:
    """Read a state from a word as `str_to_bool` does, or from a JSON object; fields that it does not know are left out.

    >>> text_to_state('{"active": true, "colour": "green"}').active
    True

    Raises:
        InvalidStateError: The text is neither, or its fields make no state; it is a `ValueError` and shows the text.
        TypeError: The value is not a `str`.
    """
    text = check_str("text", text).removeprefix("\ufeff")  # the byte order mark of editors on Windows
    if not text.lstrip().startswith("{"):
        return MaintenanceState(active=str_to_bool(text))
    try:
        found = json.loads(text)
        holds = tuple(Hold(**_known(Hold, hold)) for hold in found.get("holds") or ())
        return MaintenanceState(**{**_known(MaintenanceState, found), "holds": holds})
    except (KeyError, OverflowError, RecursionError, TypeError, ValueError) as error:
        reason = f"the field {error} is missing" if isinstance(error, KeyError) else str(error)
        msg = f"text must be a JSON object that describes a state, got {text[:200]!r}: {reason}"
        raise InvalidStateError(msg) from error


def _plain(value: MaintenanceState | Hold | datetime) -> Any:  # noqa: ANN401 -- for JSON
    """Return a time as text, and of a state or a hold the fields that are not empty, by name."""
    if isinstance(value, datetime):
        return value.isoformat()
    values = {field.name: getattr(value, field.name) for field in fields(value)}
    return {name: value for name, value in values.items() if value is not None and value != ()}


def _known(kind: type[MaintenanceState | Hold], found: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments that a JSON object has for a state or a hold; raise a `KeyError` where it lacks one."""
    names = [field.name for field in fields(kind)]
    known = {name: found[name] if name in _REQUIRED else found.get(name) for name in names}
    return {name: _time_of(value) if name in _TIMES else value for name, value in known.items()}


def _time_of(value: object) -> datetime | None:
    if value is None:
        return None
    return datetime.fromisoformat(check_str("a time", value).upper())  # RFC 3339 allows a small t and z
