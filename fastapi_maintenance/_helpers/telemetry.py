"""What OpenTelemetry gets, where its API is installed: blocked requests, and whether maintenance is on.

Nothing that the API, its SDK or an exporter raises gets out of here, and what one version lacks costs only that.
"""

import functools
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from fastapi_maintenance._helpers.version import __version__


@functools.cache
def _instruments() -> tuple[Any, Any, Any]:
    """Return the API's module of traces, the counter and the gauge, created when first needed; None for what fails."""
    trace, meter = _made(_trace), _made(_meter)
    blocked = _made(
        lambda: meter.create_counter(
            "fastapi_maintenance.blocked_requests", unit="{request}", description="Requests that maintenance blocked."
        )
    )
    active = _made(  # the API has gauges from 1.23 on
        lambda: meter.create_gauge(
            "fastapi_maintenance.active", description="Whether maintenance is on (1) or off (0)."
        )
    )
    return trace, blocked, active


def _trace() -> Any:  # noqa: ANN401 -- the API may be missing, and with it its types
    from opentelemetry import trace  # noqa: PLC0415 -- as above

    return trace


def _meter() -> Any:  # noqa: ANN401 -- as above
    from opentelemetry import metrics  # noqa: PLC0415 -- as above

    return metrics.get_meter("fastapi_maintenance", __version__)


def _made(make: Callable[[], Any]) -> Any:  # noqa: ANN401 -- as above
    with suppress(Exception):
        return make()
    return None


def request_was_blocked(route: str) -> None:
    """Count a blocked request and mark its span; the route is its path with parameters in braces, empty if unknown."""
    trace, blocked, _ = _instruments()
    found = {"http.route": route} if route else {}
    if blocked is not None:
        with suppress(Exception):
            blocked.add(1, found)
    if trace is not None:
        with suppress(Exception):
            trace.get_current_span().set_attributes({"fastapi_maintenance.blocked": True, **found})


def set_active(switch: str, active: bool) -> None:  # noqa: FBT001 -- the value is what the function is about
    """Record whether maintenance is on, by a switch."""
    _, _, gauge = _instruments()
    if gauge is not None:
        with suppress(Exception):
            gauge.set(int(active), {"fastapi_maintenance.switch": switch})


@contextmanager
def without_fastapi_request() -> Iterator[None]:
    """Hide the request that FastAPI's own telemetry records from it, so that the block adds nothing to its spans."""
    context: Any = sys.modules.get("opentelemetry.context")
    token = None
    with suppress(Exception):
        current = context.get_current()
        rest = {key: value for key, value in current.items() if not key.startswith("fastapi.")}
        token = context.attach(context.Context(rest)) if len(rest) < len(current) else None
    try:
        yield
    finally:
        if token is not None:
            with suppress(Exception):
                context.detach(token)
