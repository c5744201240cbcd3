"""A service with every kind of route, under each kind of tracing, and what that collects."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from importlib import import_module
from importlib.util import find_spec
from typing import Any, cast

import pytest
from fastapi import APIRouter, FastAPI, Request, Response, WebSocket
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from opentelemetry.sdk._logs import LoggerProvider, LogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, MetricsData
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind
from starlette.applications import Starlette
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from fastapi_maintenance import (
    ExemptCallback,
    MemoryBackend,
    StateBackend,
    maintenance_middleware,
    never,
    set_maintenance_mode,
)
from fastapi_maintenance.backends.last_known import known_of
from tests.support import client, eventually
from tests.switch.lifespans import living

HAS_TELEMETRY = find_spec("fastapi.telemetry") is not None
HAS_MIDDLEWARE = find_spec("starlette.middleware.opentelemetry") is not None
WITHOUT_TELEMETRY: dict[str, Any] = {"telemetry": {"tracing": False, "metrics": False}} if HAS_TELEMETRY else {}
"""The arguments of a FastAPI app without telemetry of its own."""
traced_kinds = pytest.mark.parametrize(
    "kind",
    [
        pytest.param("fastapi", marks=pytest.mark.skipif(not HAS_TELEMETRY, reason="an older FastAPI")),
        pytest.param("middleware", marks=pytest.mark.skipif(not HAS_MIDDLEWARE, reason="an older Starlette")),
        "instrumentation",
    ],
)

REQUESTS = [
    ("/items/7", ""),
    ("/root/items/7", "/root"),
    ("/typed/7", ""),
    ("/v1/a/b/7", ""),
    ("/v1/plain/7", ""),
    ("/plain/7", ""),
    ("/tenants/3/items/7", ""),
    ("/root/tenants/3/items/7", "/root"),
    ("/starlette/7", ""),
    ("/starlette/deep/7", ""),
    ("/asgi/7", ""),
    ("http://host.example/hosted/7", ""),
]
"""The URL of each kind of route, with the root path of the server."""
HANDSHAKES = ["/rooms/7", "/v1/a/rooms/7", "/tenants/3/rooms/7"]


async def answer() -> Response:
    return Response(status_code=503)


async def answer_request(request: Request) -> Response:  # noqa: ARG001 -- as Starlette calls it
    return Response(status_code=503)


async def refuse(websocket: WebSocket) -> None:
    await websocket.close()


async def answer_asgi(scope: Scope, receive: Receive, send: Send) -> None:
    await Response(status_code=503)(scope, receive, send)


class Unknown:
    """Middleware of which the library knows nothing."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)


def service(backend: StateBackend, exempt: ExemptCallback = never, **arguments: Any) -> FastAPI:  # noqa: ANN401 -- FastAPI's
    """Return an app whose routes answer 503, in maintenance if the switch is on."""
    app, inner, outer, tenant = FastAPI(**arguments), APIRouter(prefix="/b"), APIRouter(prefix="/a"), FastAPI()
    inner.add_api_route("/{item}", answer)
    outer.add_api_websocket_route("/rooms/{room}", refuse)
    outer.add_route("/plain/{item}", answer_request)
    outer.include_router(inner)
    tenant.add_api_route("/items/{item:int}", answer)
    tenant.add_api_route("/hosted/{item}", answer)
    tenant.add_api_websocket_route("/rooms/{room}", refuse)
    app.add_api_route("/items/{item}", answer)
    app.add_api_route("/typed/{item:int}", answer)
    app.add_api_websocket_route("/rooms/{room}", refuse)
    app.include_router(outer, prefix="/v1")
    app.add_route("/plain/{item}", answer_request)
    deep = Mount("/deep", routes=[Route("/{item}", answer_request)])
    app.mount("/starlette", Starlette(routes=[deep, Route("/{item}", answer_request)]))
    app.mount("/tenants/{tenant}", tenant)
    app.mount("/asgi", answer_asgi)
    app.host("host.example", tenant)
    app.add_middleware(Unknown)
    app.add_middleware(maintenance_middleware(backend=backend, exempt=exempt, read_timeout=60))
    return app


class _LogRecords:
    """A processor of log records, whose method has two names in the versions of the SDK."""

    def __init__(self, records: list[Any]) -> None:
        self.emit = self.on_emit = records.append

    def shutdown(self) -> None:
        pass

    def force_flush(self, timeout_millis: int = 0) -> bool:  # noqa: ARG002 -- as the SDK calls it
        return True


class Collected:
    """What the SDK has exported."""

    def __init__(self) -> None:
        self.spans = InMemorySpanExporter()
        self.tracer_provider = TracerProvider()
        self.tracer_provider.add_span_processor(SimpleSpanProcessor(self.spans))
        self.log_records: list[Any] = []
        self.logger_provider = LoggerProvider(shutdown_on_exit=False)
        self.logger_provider.add_log_record_processor(cast("LogRecordProcessor", _LogRecords(self.log_records)))
        self.clear()

    def clear(self) -> None:
        """Forget all, so that another app can be looked at."""
        self.spans.clear()
        self.reader = InMemoryMetricReader()
        self.meter_provider = MeterProvider([self.reader], shutdown_on_exit=False)

    @property
    def providers(self) -> dict[str, Any]:
        """The arguments of what is traced."""
        return {"tracer_provider": self.tracer_provider, "meter_provider": self.meter_provider}

    def server_spans(self) -> list[ReadableSpan]:
        return [span for span in self.spans.get_finished_spans() if span.kind is SpanKind.SERVER]

    def server_span(self) -> ReadableSpan:
        (span,) = self.server_spans()
        return span

    def points(self, *names: str) -> list[tuple[dict[str, Any], Any]]:
        """Return the points of a metric, each with its attributes and its value."""
        data: MetricsData | None = self.reader.get_metrics_data()
        return [
            (dict(point.attributes or {}), getattr(point, "value", None))
            for resource in (data.resource_metrics if data else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name in names
            for point in metric.data.data_points
        ]

    def duration_attributes(self) -> list[dict[str, Any]]:
        """Return the attributes of the durations of requests, under the name of today or the one before."""
        return [found for found, _ in self.points("http.server.request.duration", "http.server.duration")]


@contextmanager
def set_up(kind: str, collected: Collected, backend: StateBackend, exempt: ExemptCallback = never) -> Iterator[FastAPI]:
    """Yield the service, traced by FastAPI, Starlette's middleware, OpenTelemetry's instrumentation or nothing."""
    if kind == "fastapi":
        providers = {**collected.providers, "logger_provider": collected.logger_provider}
        yield service(backend, exempt, telemetry=providers)
        return
    app = service(backend, exempt, **WITHOUT_TELEMETRY)
    if kind == "none":
        yield app
        return
    if kind == "middleware":
        module: Any = import_module("starlette.middleware.opentelemetry")
        app.add_middleware(module.OpenTelemetryMiddleware, **collected.providers)
        yield app
        return
    FastAPIInstrumentor.instrument_app(app, **collected.providers)
    yield app
    FastAPIInstrumentor.uninstrument_app(app)


async def log_everything() -> None:
    """Log a transition with all of its fields, and an error with a traceback and an object."""

    def fail(_: object) -> bool:
        raise RuntimeError

    backend = MemoryBackend()
    app = service(backend, fail)
    async with living(app), client(app) as http:
        soon = datetime.now(UTC) + timedelta(hours=1)
        await set_maintenance_mode(True, backend, message="Back at ten", ends_at=soon, by="alice")
        assert (await http.get("/items/7")).status_code == 503
        await eventually(lambda: (known_of(backend).logged or (False,))[0])
