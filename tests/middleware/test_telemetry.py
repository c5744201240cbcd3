"""What OpenTelemetry is told, by the real SDK, and each transition as one record of the log."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from typing import Any

import anyio
import pytest
from fastapi import APIRouter, FastAPI
from opentelemetry import metrics, trace
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, NumberDataPoint
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from fastapi_maintenance import (
    ExemptCallback,
    MaintenanceState,
    MemoryBackend,
    StateBackend,
    Switch,
    dependency,
    maintenance_middleware,
    maintenance_mode_on,
    never,
    path_is,
    set_maintenance_mode,
)
from fastapi_maintenance._helpers import clock, telemetry
from tests.stores import BareSwitch, WatchableStore
from tests.support import client, eventually, on_jumping_clock
from tests.switch.lifespans import living

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend(anyio_backend: str, monkeypatch: pytest.MonkeyPatch) -> tuple[str, dict[str, Any]]:
    """Let no test wait for the seconds between two reads of a store, or for the end of a window."""
    return on_jumping_clock(anyio_backend, monkeypatch)


class Collected:
    """What the SDK has exported."""

    def __init__(self) -> None:
        self.spans = InMemorySpanExporter()
        self.reader = InMemoryMetricReader()
        self.tracer_provider = TracerProvider()
        self.tracer_provider.add_span_processor(SimpleSpanProcessor(self.spans))
        self.meter_provider = MeterProvider([self.reader], shutdown_on_exit=False)

    def server_span(self) -> ReadableSpan:
        [span] = [span for span in self.spans.get_finished_spans() if span.kind is trace.SpanKind.SERVER]
        return span

    def metric(self, name: str) -> list[tuple[dict[str, object], float]]:
        """Return the points of a metric, each with its attributes."""
        data = self.reader.get_metrics_data()
        return [
            (dict(point.attributes or {}), point.value)
            for resource in (data.resource_metrics if data else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
            for point in metric.data.data_points
            if isinstance(point, NumberDataPoint)
        ]


@pytest.fixture
def collected(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collected]:
    """Let this process have the SDK for a test."""
    collected = Collected()
    monkeypatch.setattr(metrics, "get_meter", collected.meter_provider.get_meter)
    telemetry._instruments.cache_clear()
    yield collected
    telemetry._instruments.cache_clear()


async def identity(item: str) -> str:
    return item


def app_on(backend: StateBackend, app: FastAPI, exempt: ExemptCallback = never) -> FastAPI:
    app.add_middleware(maintenance_middleware(backend=backend, exempt=exempt, read_timeout=60))
    app.add_api_route("/items/{item}", identity)
    return app


@contextmanager
def instrumented(kind: str, collected: Collected, exempt: ExemptCallback = never) -> Iterator[FastAPI]:
    """Yield an app in maintenance with FastAPI's own telemetry, or OpenTelemetry's instrumentation of it."""
    backend = MemoryBackend(state=True)
    providers: Any = {"tracer_provider": collected.tracer_provider, "meter_provider": collected.meter_provider}
    if kind == "native":
        app = FastAPI(telemetry=providers) if _has_telemetry() else pytest.skip("an older FastAPI")
        yield app_on(backend, app, exempt)
        return
    app = FastAPI(telemetry={"tracing": False, "metrics": False}) if _has_telemetry() else FastAPI()
    FastAPIInstrumentor.instrument_app(app_on(backend, app, exempt), **providers)
    yield app
    FastAPIInstrumentor.uninstrument_app(app)


by_kind = pytest.mark.parametrize("kind", ["native", "instrumentation"])


@by_kind
async def test_the_span_of_a_blocked_request_has_its_route(kind: str, collected: Collected) -> None:
    with instrumented(kind, collected) as app:
        async with client(app) as http:
            assert 503 == (await http.get("/items/7")).status_code
    attributes = collected.server_span().attributes
    assert attributes is not None
    assert ("/items/{item}", True) == (attributes["http.route"], attributes["fastapi_maintenance.blocked"])
    assert [({"http.route": "/items/{item}"}, 1)] == collected.metric("fastapi_maintenance.blocked_requests")


@by_kind
async def test_dependency_that_exempts_makes_no_span_of_its_own(kind: str, collected: Collected) -> None:
    async def current_user(item: int) -> bool:
        return item == 7

    seen: list[Any] = []
    for exempt in (dependency(current_user), path_is("/items/7")):
        with instrumented(kind, collected, exempt) as app:
            async with client(app) as http:
                codes = [(await http.get(f"/items/{item}")).status_code for item in ("7", "8", "x")]
        spans = collected.spans.get_finished_spans()
        seen.append((codes, [(span.name, (span.attributes or {}).get("http.route")) for span in spans]))
        collected.spans.clear()
    assert seen[0] == seen[1]
    assert seen[0][0] == [200, 503, 503]


async def test_the_route_is_told_with_the_prefixes_of_included_routers_and_mounts(collected: Collected) -> None:
    inner, router, mounted = APIRouter(prefix="/b"), APIRouter(prefix="/a"), FastAPI()
    inner.add_api_route("/{item}", lambda item: item)
    router.include_router(inner)
    mounted.add_api_route("/{item}", lambda item: item)
    app = app_on(MemoryBackend(state=True), FastAPI())
    app.include_router(router)
    app.mount("/c/{tenant}", mounted)
    async with client(app) as http:
        for path in ("/a/b/1", "/c/2/3"):
            assert 503 == (await http.get(path)).status_code
    told = [attributes["http.route"] for attributes, _ in collected.metric("fastapi_maintenance.blocked_requests")]
    assert ["/a/b/{item}", "/c/{tenant}/{item}"] == told


def _has_telemetry() -> bool:
    try:
        FastAPI(telemetry={})
    except TypeError:
        return False
    return hasattr(FastAPI(), "_native_telemetry")


async def test_the_gauge_tells_by_switch_whether_maintenance_is_on(collected: Collected) -> None:
    backend = MemoryBackend()
    async with living(app_on(backend, FastAPI())):
        for active in (False, True, False):
            await set_maintenance_mode(active, backend)

            async def is_told(expected: int = int(active)) -> bool:
                await anyio.lowlevel.checkpoint()
                points = collected.metric("fastapi_maintenance.active")
                return [expected] == [value for _, value in points]

            await eventually(is_told)


async def test_without_the_api_nothing_is_imported_and_nothing_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    app = app_on(MemoryBackend(state=True), FastAPI())
    async with living(app), client(app) as http:  # for which newer versions of FastAPI import it
        monkeypatch.setitem(sys.modules, "opentelemetry", None)
        telemetry._instruments.cache_clear()
        assert 503 == (await http.get("/items/7")).status_code
    assert telemetry._instruments() == (None, None, None)
    telemetry._instruments.cache_clear()


def told(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.name == "fastapi_maintenance" and record.levelname == "INFO"]


def extra(record: logging.LogRecord) -> dict[str, object]:
    """Return what this library adds to a record."""
    prefix = "maintenance_"
    return {name.removeprefix(prefix): value for name, value in vars(record).items() if name.startswith(prefix)}


@pytest.mark.parametrize("make", [MemoryBackend, WatchableStore, BareSwitch])
async def test_each_transition_is_one_record_however_many_apps_there_are(
    make: type[MemoryBackend], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "fastapi_maintenance")
    backend = make()
    async with living(app_on(backend, FastAPI())), living(app_on(backend, FastAPI())):
        for active in (True, False):
            await set_maintenance_mode(active, backend)

            await eventually(partial(has_told, caplog, 1 if active else 2))
        await anyio.sleep(10)
    assert [True, False] == [vars(record)["maintenance_active"] for record in told(caplog)]


async def test_log_record_of_a_transition_has_who_and_when_and_why(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "fastapi_maintenance")
    backend = MemoryBackend()
    since = clock.now()
    ends_at = since + timedelta(seconds=20)
    state = MaintenanceState(
        switch=Switch(on=True, message="New\ndatabase", ends_at=ends_at, by="alice@host", since=since)
    )
    await backend.update_state(lambda _: state)
    async with living(app_on(backend, FastAPI())):
        await eventually(partial(has_told, caplog, 2))
        assert ends_at <= clock.now() < ends_at + timedelta(seconds=0.1)
    on, off = told(caplog)
    assert on.getMessage() == "Maintenance is on by MemoryBackend(), set by 'alice@host', 'New\\ndatabase'"
    assert off.getMessage() == "Maintenance is off by MemoryBackend()"
    facts = {"active": True, "message": "New\ndatabase", "by": "alice@host"}
    assert extra(on) == {**facts, "since": since.isoformat(), "ends_at": ends_at.isoformat()}
    assert extra(off) == {"active": False, "since": ends_at.isoformat()}


async def test_a_store_that_flaps_is_no_transition(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "fastapi_maintenance")
    store = WatchableStore(True)
    async with living(app_on(store, FastAPI())):
        await eventually(partial(has_told, caplog, 1))
        for _ in range(3):
            store.go_down()
            store.cut_off()
            await anyio.sleep(5)
            store.come_back()
            store.before_tell = anyio.lowlevel.checkpoint
            await anyio.sleep(10)
    assert 1 == len(told(caplog))


async def test_a_block_is_told_with_who_opened_it(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "fastapi_maintenance")
    backend = MemoryBackend()
    async with living(app_on(backend, FastAPI())), maintenance_mode_on(backend, by="the nightly job"):
        await eventually(partial(has_told, caplog, 1))
    assert vars(told(caplog)[0])["maintenance_by"] == "the nightly job"


async def test_log_record_block_ends_does_not_name_who_switched_it_off_before(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "fastapi_maintenance")
    backend = MemoryBackend()
    await set_maintenance_mode(False, backend, by="carol")
    async with living(app_on(backend, FastAPI())):
        for number in (1, 2):
            async with maintenance_mode_on(backend, by="bob"):
                await eventually(partial(has_told, caplog, 2 * number - 1))
            await eventually(partial(has_told, caplog, 2 * number))
    assert [extra(record).get("by") for record in told(caplog)] == ["bob", None, "bob", None]


async def has_told(caplog: pytest.LogCaptureFixture, number: int) -> bool:
    await anyio.lowlevel.checkpoint()
    return number == len(told(caplog))
