"""What OpenTelemetry gets, where its API is installed: blocked requests, and whether maintenance is on.

Nothing that the API, its SDK or an exporter raises gets out of here, and what one version lacks costs only that.
"""

import functools
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from fastapi_maintenance._helpers.version import __version__


@functools.lru_cache(maxsize=64)
def instruments_of(provider: Any) -> tuple[Any, Any, Any]:  # noqa: ANN401 -- the API may be missing, and with it its types
    """Return the API's module of traces, the counter and the gauge, created when first needed; None for what fails.

    Args:
        provider: The meter provider; None: the global one.
    """
    trace, meter = _made(_trace), _made(lambda: _meter(provider))
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


def _trace() -> Any:  # noqa: ANN401 -- as above
    from opentelemetry import trace  # noqa: PLC0415 -- as above

    return trace


def _meter(provider: Any) -> Any:  # noqa: ANN401 -- as above
    from opentelemetry import metrics  # noqa: PLC0415 -- as above

    return (metrics if provider is None else provider).get_meter("fastapi_maintenance", __version__)


def _made(make: Callable[[], Any]) -> Any:  # noqa: ANN401 -- as above
    with suppress(Exception):
        return make()
    return None


def _provider_of(app: object) -> Any:  # noqa: ANN401 -- as above
    """Return the meter provider of `FastAPI(telemetry={"meter_provider": ...})`; None: it has none of its own.

    It has no public name; tests/middleware/test_telemetry.py fails when this goes.
    """
    return getattr(app, "_telemetry", {}).get("meter_provider")


def request_was_blocked(route: str, app: object) -> None:
    """Count a blocked request of an app, and mark the current span.

    Args:
        route: The path of the route, with parameters in braces; empty if it is not known.
        app: The app around which the middleware is; its own meter provider counts.
    """
    # Each blocked request comes here, and `suppress` takes several times as long.
    try:
        trace, blocked, _ = instruments_of(_provider_of(app))
    except Exception:  # noqa: BLE001 -- whatever an app keeps there
        trace, blocked, _ = instruments_of(None)
    try:
        if trace is not None:
            trace.get_current_span().set_attribute("fastapi_maintenance.blocked", True)  # noqa: FBT003 -- its value
    except Exception:  # noqa: BLE001, S110 -- of whatever version
        pass
    try:
        if blocked is not None:
            blocked.add(1, {"http.route": route} if route else {})
    except Exception:  # noqa: BLE001, S110 -- as above
        pass


def set_active(switch: str, active: bool, app: object) -> None:  # noqa: FBT001 -- the value is what the function is about
    """Record for an app whether maintenance is on, by a switch."""
    with suppress(Exception):
        _, _, gauge = instruments_of(_provider_of(app))
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
