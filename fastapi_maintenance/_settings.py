"""What a middleware is told, checked at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fastapi_maintenance._helpers.checks import check_bool, check_callable, check_seconds, reject
from fastapi_maintenance.typing import ExemptCallback, ResponseCallback, StateBackend

__all__ = ["Settings", "Unmatched"]

Unmatched = Literal["pass", "block"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings of one middleware; see `maintenance_middleware` for their meaning."""

    backend: StateBackend | None
    enabled: bool | None
    exempt: ExemptCallback
    response: ResponseCallback
    exempt_docs: bool
    unmatched: Unmatched
    retry_after: int | tuple[int, int]
    fail_closed: bool
    read_timeout: float

    def __post_init__(self) -> None:
        if self.enabled is not None:
            check_bool("enabled", self.enabled)
        check_callable("exempt", self.exempt)
        check_callable("response", self.response)
        check_bool("exempt_docs", self.exempt_docs)
        if self.unmatched not in ("pass", "block"):
            msg = f"unmatched must be 'pass' or 'block', got {self.unmatched!r}"
            raise ValueError(msg)
        _check_retry_after(self.retry_after)
        check_bool("fail_closed", self.fail_closed)
        check_seconds("read_timeout", self.read_timeout)


def _check_retry_after(value: object) -> None:
    ends = value if isinstance(value, tuple) else (value, value)
    pair = len(ends) == len(("least", "most"))
    if not pair or any(isinstance(end, bool) or not isinstance(end, int) for end in ends):
        reject("retry_after", "a whole number of seconds, or a pair of the least and the most", value)
    if not 0 <= ends[0] <= ends[1]:
        msg = f"retry_after must not be below 0, nor its most below its least, got {value!r}"
        raise ValueError(msg)
