"""Early checks of arguments. Each error names the parameter, the value and the rule."""

import inspect
import math
import re
import sys
from datetime import timedelta
from typing import Any, NoReturn, TypeVar

_TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"  # noqa: S105 -- RFC 9110 5.6.2, not a password
_T = TypeVar("_T")


def reject(name: str, rule: str, value: object, *, shown: bool = True) -> NoReturn:
    """Raise a TypeError: the value has the wrong type."""
    kind = f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__
    msg = f"{name} must be {rule}, got {kind}" + (f" {value!r}" if shown and not isinstance(value, type) else "")
    raise TypeError(msg)


def reject_kind(name: str, rule: str, value: object) -> NoReturn:
    """Like `reject`, without the value, which may contain a password."""
    reject(name, rule, value, shown=False)


def reject_value(name: str, rule: str, value: object) -> NoReturn:
    """Raise a ValueError: the value has the right type and breaks a rule."""
    msg = f"{name} must {rule}, got {value!r}"
    raise ValueError(msg)


def check_bool(name: str, value: object) -> bool:
    """Return the value if it is True or False; other truthy or falsy values are refused."""
    return value if isinstance(value, bool) else reject(name, "True or False", value)


def check_str(name: str, value: object) -> str:
    """Return the value if it is a `str`."""
    return value if isinstance(value, str) else reject(name, "a str", value)


def check_text(name: str, value: object) -> str:
    """Return the value if it is a `str` that can be sent; text of the environment may have bytes that are not UTF-8."""
    text = check_str(name, value)
    try:
        text.encode()
    except UnicodeEncodeError:
        reject_value(name, "be text that UTF-8 can carry", text)
    return text


def check_callable(name: str, value: _T) -> _T:
    """Return the value if it is callable."""
    return value if callable(value) else reject(name, "callable", value)


def check_app(name: str, value: _T) -> _T:
    """Return the value if it can be called like an ASGI app: with scope, receive and send."""
    if callable(value) and _takes(value, None, None, None):
        return value
    reject_kind(name, "an ASGI app (settings are keywords, such as backend=...)", value)


def check_takes_request(name: str, value: _T) -> _T:
    """Return the value if it can be called with a request and nothing else."""
    if _takes(check_callable(name, value), None):
        return value
    called = getattr(value, "__name__", "it")
    msg = f"{name} must take a request and nothing else, got {value!r}: write {called}() if that returns the callback"
    raise TypeError(msg)


def _takes(function: Any, *arguments: object) -> bool:  # noqa: ANN401 -- anything that can be called
    try:
        signature = inspect.signature(function, follow_wrapped=False)
    except Exception:  # noqa: BLE001 -- it has none, or annotations that exist for type checkers only
        return True
    try:
        signature.bind(*arguments)
    except TypeError:
        return False
    return True


def check_name(name: str, value: object, *, at_most: int | None = None) -> str:
    """Return the value if it is a non-empty `str` of at most that many characters."""
    text = check_str(name, value)
    if text and (at_most is None or len(text) <= at_most):
        return text
    reject_value(name, "not be empty" if at_most is None else f"be 1 to {at_most} characters long", value)


def check_token(name: str, value: object) -> str:
    """Return the value if it is a token (RFC 9110 5.6.2), as names of headers, methods and cookies must be."""
    text = check_str(name, value)
    if re.fullmatch(_TOKEN, text):
        return text
    reject_value(name, "be a token (letters, digits and !#$%&'*+-.^_`|~, no spaces)", text)


def check_count(name: str, value: object) -> int:
    """Return the value if it is an `int` of at least zero."""
    if not isinstance(value, int) or isinstance(value, bool):
        reject(name, "an int", value)
    return value if value >= 0 else reject_value(name, "be at least 0", value)


def check_seconds(name: str, value: object) -> float:
    """Return a duration in seconds if it is above zero: a finite number of seconds, or a timedelta."""
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        reject(name, "a number of seconds or a timedelta", value)
    if 0 < seconds <= sys.float_info.max:
        return seconds
    reject_value(name, "be a finite number of seconds above 0", value)


def check_retry_after(name: str, value: object) -> tuple[int, int]:
    """Return a (min, max) pair of whole seconds, given such a pair or one duration for both."""
    given = value if isinstance(value, tuple) else (value, value)
    ends: list[Any] = [math.ceil(end.total_seconds()) if isinstance(end, timedelta) else end for end in given]
    if len(ends) != len(("min", "max")) or any(isinstance(end, bool) or not isinstance(end, int) for end in ends):
        reject(name, "a whole number of seconds or a timedelta, or a (min, max) pair of them", value)
    if not 0 <= ends[0] <= ends[1]:
        reject_value(name, "not be below 0, nor have a max below its min", value)
    return ends[0], ends[1]
