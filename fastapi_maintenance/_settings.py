"""What a middleware is told, checked at once."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi_maintenance._checks import check_bool, check_callable, check_seconds, reject
from fastapi_maintenance._decision import Unmatched
from fastapi_maintenance.typing import ExemptCallback, ResponseCallback, StateBackend

__all__ = ["Settings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings of one middleware; see `maintenance_middleware` for their meaning."""

    backend: StateBackend | None
    enabled: bool | None
    exempt: ExemptCallback
    response: ResponseCallback
    exempt_docs: bool
    unmatched: Unmatched
    retry_after: int
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
        if isinstance(self.retry_after, bool) or not isinstance(self.retry_after, int):
            reject("retry_after", "a whole number of seconds", self.retry_after)
        if self.retry_after < 0:
            msg = f"retry_after must not be below 0, got {self.retry_after!r}"
            raise ValueError(msg)
        check_bool("fail_closed", self.fail_closed)
        check_seconds("read_timeout", self.read_timeout)
