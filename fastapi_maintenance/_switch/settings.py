"""The settings of a middleware: their names, defaults and checks."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, Literal

from fastapi_maintenance._helpers.checks import (
    check_bool,
    check_retry_after,
    check_seconds,
    check_takes_request,
    reject_value,
)
from fastapi_maintenance.backends.url import as_backend
from fastapi_maintenance.predicates import never
from fastapi_maintenance.responses import as_json
from fastapi_maintenance.typing import ExemptCallback, MiddlewareSettings, ResponseCallback, StateBackend


@dataclass(frozen=True, kw_only=True, eq=False)
class Settings:
    """The checked settings of one middleware; `maintenance_middleware` documents them."""

    backend: StateBackend | None = None
    enabled: bool | None = None
    exempt: ExemptCallback = never
    response: ResponseCallback = field(default_factory=as_json)
    exempt_docs: bool = True
    unmatched: Literal["pass", "block"] = "pass"
    retry_after: tuple[int, int] = 3600, 3600
    """The min and the max, in seconds."""
    fail_closed: bool = False
    read_timeout: float = 1.0
    close_websockets: bool = True


def checked(given: MiddlewareSettings, function: str) -> Settings:
    """Check settings given under any of their names; errors use the given name, and `function`, the function called.

    Raises:
        TypeError: A name is unknown, two names of one setting are given, or a value is of the wrong type.
        ValueError: A value breaks a rule.
    """
    names: dict[str, str] = {}
    values: dict[str, Any] = {}
    for name, value in given.items():
        setting = _ALIASES.get(name, name)
        if setting not in _CHECKS:
            nearest = get_close_matches(name, [*_CHECKS, *_ALIASES], 1)
            hint = f"did you mean {nearest[0]!r}?" if nearest else f"it takes {', '.join(_CHECKS)}"
            msg = f"{function}() got an unexpected keyword argument {name!r}: {hint}"
            raise TypeError(msg)
        if value is None and setting in _NONE_IS_DEFAULT:
            continue
        if setting in names:
            msg = f"{names[setting]} and {name} are two names of one setting, got both"
            raise TypeError(msg)
        names[setting], values[setting] = name, _CHECKS[setting](name, value)
    return Settings(**values)


def _check_unmatched(name: str, value: object) -> object:
    return value if value in ("pass", "block") else reject_value(name, "be 'pass' or 'block'", value)


_CHECKS: Mapping[str, Callable[[str, Any], Any]] = {
    "backend": as_backend,
    "enabled": check_bool,
    "exempt": check_takes_request,
    "response": check_takes_request,
    "exempt_docs": check_bool,
    "unmatched": _check_unmatched,
    "retry_after": check_retry_after,
    "fail_closed": check_bool,
    "read_timeout": check_seconds,
    "close_websockets": check_bool,
}
_ALIASES = {  # the names in the spec, and in releases 0.0.1 to 0.0.5
    "enable_maintenance": "enabled",
    "exempt_callback": "exempt",
    "exempt_handler": "exempt",
    "response_callback": "response",
    "response_handler": "response",
}
_NONE_IS_DEFAULT = {"backend", "enabled", "exempt", "response"}
