"""What OpenTelemetry is told, where its API is installed: blocked requests, and whether maintenance is on."""

import functools
from typing import Any, NamedTuple

from fastapi_maintenance._helpers.version import __version__


class _Instruments(NamedTuple):
    trace: Any
    """The module of the API."""
    blocked: Any
    active: Any


@functools.cache
def _instruments() -> _Instruments | None:
    """Return what to tell; None where the API is not installed. Made when it is first needed, not on import."""
    try:
        from opentelemetry import metrics, trace  # noqa: PLC0415 -- it may be missing
    except ImportError:
        return None
    meter = metrics.get_meter("fastapi_maintenance", __version__)
    return _Instruments(
        trace,
        meter.create_counter(
            "fastapi_maintenance.blocked_requests", unit="{request}", description="Requests that maintenance blocked."
        ),
        meter.create_gauge("fastapi_maintenance.active", description="Whether maintenance is on (1) or off (0)."),
    )


def request_was_blocked(route: str | None) -> None:
    """Count a blocked request, and tell its span so; the route is its path with parameters in braces, if known."""
    instruments = _instruments()
    if instruments is None:
        return
    found = {} if route is None else {"http.route": route}
    instruments.blocked.add(1, found)
    instruments.trace.get_current_span().set_attributes({"fastapi_maintenance.blocked": True, **found})


def set_active(switch: str, active: bool) -> None:  # noqa: FBT001 -- the value is what the function is about
    """Tell whether maintenance is on, by a switch."""
    instruments = _instruments()
    if instruments is not None:
        instruments.active.set(int(active), {"fastapi_maintenance.switch": switch})
