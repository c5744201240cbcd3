"""OpenTelemetry, if its API is installed: the number of blocked requests, and whether maintenance is on.

Errors of the API, its SDK or an exporter are suppressed. If a version lacks an instrument, the others still work.
"""

import functools
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from fastapi_maintenance._helpers.process import __version__


@functools.lru_cache(maxsize=64)
def instruments_of(provider: Any) -> tuple[Any, Any, Any]:  # noqa: ANN401 -- the API, and so its types, may be missing
    """Return the API's module `trace`, the counter and the gauge; None for each that fails.

    Args:
        provider: The meter provider; None: the global one.
    """
    trace, meter = _or_none(_trace), _or_none(lambda: _meter(provider))
    blocked_text, active_text = "Requests that maintenance blocked.", "Whether maintenance is on (1) or off (0)."
    blocked = _or_none(
        lambda: meter.create_counter("fastapi_maintenance.blocked_requests", unit="{request}", description=blocked_text)
    )
    # The API has gauges since 1.23.
    active = _or_none(lambda: meter.create_gauge("fastapi_maintenance.active", description=active_text))
    return trace, blocked, active


def _trace() -> Any:  # noqa: ANN401 -- as above
    from opentelemetry import trace  # noqa: PLC0415 -- as above

    return trace


def _meter(provider: Any) -> Any:  # noqa: ANN401 -- as above
    from opentelemetry import metrics  # noqa: PLC0415 -- as above

    return (metrics if provider is None else provider).get_meter("fastapi_maintenance", __version__)


def _or_none(create: Callable[[], Any]) -> Any:  # noqa: ANN401 -- as above
    with suppress(Exception):
        return create()
    return None


def _instruments_for(app: object) -> tuple[Any, Any, Any]:
    """Return the instruments of the provider of `FastAPI(telemetry={"meter_provider": ...})`, else of the global one.

    The attribute is private; tests/middleware/test_telemetry.py fails if it is removed.
    """
    # Called for each blocked request: `suppress` would take several times as long.
    try:
        return instruments_of(getattr(app, "_telemetry", {}).get("meter_provider"))
    except Exception:  # noqa: BLE001 -- the attribute and the provider may be any object
        return instruments_of(None)


def request_was_blocked(route: str, app: object) -> None:
    """Count a blocked request of an app, and mark the current span.

    Args:
        route: The path of the route, with parameters in braces; empty if it is not known.
        app: The app that the middleware wraps; its own meter provider is used, if any.
    """
    trace, blocked, _ = _instruments_for(app)
    try:
        if trace is not None:
            trace.get_current_span().set_attribute("fastapi_maintenance.blocked", True)  # noqa: FBT003 -- its value
    except Exception:  # noqa: BLE001, S110 -- any error of telemetry
        pass
    try:
        if blocked is not None:
            blocked.add(1, {"http.route": route} if route else {})
    except Exception:  # noqa: BLE001, S110 -- as above
        pass


def set_active(switch: str, active: bool, app: object) -> None:  # noqa: FBT001 -- the value to record
    """Record for an app whether maintenance is on according to a switch."""
    with suppress(Exception):
        _, _, gauge = _instruments_for(app)
        gauge.set(int(active), {"fastapi_maintenance.switch": switch})


@contextmanager
def without_fastapi_request() -> Iterator[None]:
    """Hide the current request from FastAPI's own telemetry, so that the block adds nothing to its spans."""
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
