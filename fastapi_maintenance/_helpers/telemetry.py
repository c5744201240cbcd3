"""What OpenTelemetry is told, where its API is installed: blocked requests, and whether maintenance is on."""

import functools
from typing import Any

from fastapi_maintenance._helpers.version import __version__


@functools.cache
def _instruments() -> tuple[Any, Any, Any] | None:
    """Return the API's module of traces, the counter and the gauge, made when first needed; None without the API."""
    try:
        from opentelemetry import metrics, trace  # noqa: PLC0415 -- it may be missing
    except ImportError:
        return None
    meter = metrics.get_meter("fastapi_maintenance", __version__)
    description = "Requests that maintenance blocked."
    blocked = meter.create_counter("fastapi_maintenance.blocked_requests", unit="{request}", description=description)
    active = meter.create_gauge("fastapi_maintenance.active", description="Whether maintenance is on (1) or off (0).")
    return trace, blocked, active


def request_was_blocked(route: str | None) -> None:
    """Count a blocked request, and tell its span so; the route is its path with parameters in braces, if known."""
    if instruments := _instruments():
        trace, blocked, _ = instruments
        found = {} if route is None else {"http.route": route}
        blocked.add(1, found)
        trace.get_current_span().set_attributes({"fastapi_maintenance.blocked": True, **found})


def set_active(switch: str, active: bool) -> None:  # noqa: FBT001 -- the value is what the function is about
    """Tell whether maintenance is on, by a switch."""
    if instruments := _instruments():
        instruments[2].set(int(active), {"fastapi_maintenance.switch": switch})
