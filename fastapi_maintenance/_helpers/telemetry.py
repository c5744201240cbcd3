"""Logging, and OpenTelemetry if its API is installed: blocked requests, and whether maintenance is on.

Errors of a log filter, a handler, the API, its SDK or an exporter are suppressed. If a version lacks an instrument, the
others still work.
"""

import functools
import logging
import sys
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager, suppress
from typing import Any

from fastapi_maintenance._helpers.process import __version__

HINT = "%s (to silence it: logging.getLogger(%r).setLevel('ERROR'))"
"""The message of a hint; its arguments are the text and the name of its logger."""


class _SafeLogger(logging.LoggerAdapter[logging.Logger]):
    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:  # noqa: ANN401 -- as in logging
        """Log a record with the caller's file and line; all other methods call this one."""
        with suppress(Exception):
            super().log(level, msg, *args, **{"stacklevel": 2, **kwargs})

    def process(self, msg: object, kwargs: MutableMapping[str, Any]) -> tuple[object, MutableMapping[str, Any]]:
        """Keep the `extra` of each record; by default, that of the adapter replaces it."""
        return msg, kwargs


def get_logger(name: str = "fastapi_maintenance") -> logging.LoggerAdapter[logging.Logger]:
    """Return a logger whose methods never raise.

    Python catches what the `emit` of its own handlers raises, but not what a filter raises.
    """
    return _SafeLogger(logging.getLogger(name))


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


def _provider_of(app: object) -> Any:  # noqa: ANN401 -- as above
    """Return the meter provider of `FastAPI(telemetry={"meter_provider": ...})`, or None.

    It has no public name; tests/middleware/test_telemetry.py fails if it is removed.
    """
    return getattr(app, "_telemetry", {}).get("meter_provider")


def request_was_blocked(route: str, app: object) -> None:
    """Count a blocked request of an app, and mark the current span.

    Args:
        route: The path of the route, with parameters in braces; empty if it is not known.
        app: The app that the middleware wraps; its own meter provider is used, if any.
    """
    try:
        trace, blocked, _ = instruments_of(_provider_of(app))
    except Exception:  # noqa: BLE001 -- the provider may be any object
        trace, blocked, _ = instruments_of(None)
    with suppress(Exception):
        trace.get_current_span().set_attribute("fastapi_maintenance.blocked", True)  # noqa: FBT003 -- its value
    with suppress(Exception):
        blocked.add(1, {"http.route": route} if route else {})


def set_active(switch: str, active: bool, app: object) -> None:  # noqa: FBT001 -- the value to record
    """Record for an app whether maintenance is on according to a switch."""
    with suppress(Exception):
        _, _, gauge = instruments_of(_provider_of(app))
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
