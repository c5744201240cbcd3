"""A blocked request in traces and metrics, with the real SDK, and each transition as one log record.

What Sentry shows is tested in `tests/telemetry`, with the examples of the page.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, ClassVar

import anyio
import pytest
from fastapi import FastAPI, Request, Response
from opentelemetry import metrics as opentelemetry_metrics
from opentelemetry.sdk.trace import ReadableSpan
from starlette.middleware import Middleware
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from fastapi_maintenance import (
    MaintenanceState,
    MemoryBackend,
    Switch,
    dependency,
    maintenance_middleware,
    maintenance_mode_on,
    path_is,
    set_maintenance_mode,
)
from fastapi_maintenance._helpers import clock, metrics
from tests.stores import BareSwitch, WatchableStore
from tests.support import client, eventually, handshake, on_jumping_clock, websocket_scope
from tests.switch.lifespans import living
from tests.telemetry.services import HANDSHAKES, HAS_TELEMETRY, REQUESTS, Collected, service, set_up, traced_kinds

pytestmark = pytest.mark.anyio
BLOCKED = "fastapi_maintenance.blocked"


@pytest.fixture
def anyio_backend(anyio_backend: str, monkeypatch: pytest.MonkeyPatch) -> tuple[str, dict[str, Any]]:
    """Let no test wait for the seconds between two reads of a store, or for the end of a window."""
    return on_jumping_clock(anyio_backend, monkeypatch)


@pytest.fixture
def collected(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collected]:
    """Let this process have the SDK for a test."""
    collected = Collected()
    monkeypatch.setattr(opentelemetry_metrics, "get_meter", collected.meter_provider.get_meter)
    metrics.instruments_of.cache_clear()
    yield collected
    metrics.instruments_of.cache_clear()


class Scopes:
    """Middleware outside that keeps the scope of the last request, as traces read it."""

    last: ClassVar[Scope] = {}

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)
        Scopes.last = scope

    @classmethod
    def shown(cls) -> dict[str, object]:
        """Return what routing has left, comparable between two services."""
        left = {name: cls.last.get(name) for name in ("path_params", "root_path", "app_root_path", "route")}
        return {name: repr(value) for name, value in left.items()} | {
            name: getattr(cls.last.get(name), "title", type(cls.last.get(name))) for name in ("app", "router")
        }


def shown(span: ReadableSpan) -> tuple[object, ...]:
    """Return all of a span but its times, without the attribute that marks it."""
    attributes = {name: value for name, value in (span.attributes or {}).items() if name != BLOCKED}
    return span.name, attributes, span.status.status_code


@traced_kinds
@pytest.mark.parametrize(("url", "root_path"), REQUESTS)
async def test_middleware_blocks_a_request_looks_as_if_its_route_had_answered(
    kind: str, url: str, root_path: str, collected: Collected
) -> None:
    seen = []
    for active in (False, True):
        with set_up(kind, collected, MemoryBackend(state=active)) as app:
            async with client(app, root_path=root_path) as http:
                assert (await http.get(url)).status_code == 503
        span = collected.server_span()
        assert (span.attributes or {}).get(BLOCKED, False) is active
        seen.append((shown(span), collected.duration_attributes()))
        collected.clear()
    assert seen[1] == seen[0]
    assert kind != "fastapi" or "{" in str(seen[1][0][0])  # the others do not name each kind of route


async def test_middleware_in_a_mounted_app_blocks_a_request_looks_as_if_its_route_had_answered(
    collected: Collected,
) -> None:
    seen = []
    for active in (False, True):
        arguments: dict[str, Any] = {"telemetry": collected.providers} if HAS_TELEMETRY else {}
        app = FastAPI(**arguments)
        app.mount("/mounted/{name}", service(MemoryBackend(state=active)))
        app.add_middleware(Scopes)
        async with client(app) as http:
            assert (await http.get("/mounted/1/tenants/3/items/7")).status_code == 503
        seen.append((Scopes.shown(), list(map(shown, collected.server_spans()))))
        collected.clear()
    assert seen[1] == seen[0]


@pytest.mark.parametrize(("url", "root_path"), REQUESTS)
async def test_middleware_blocks_a_request_leaves_the_scope_as_its_route_does(url: str, root_path: str) -> None:
    seen = []
    for active in (False, True):
        app = service(MemoryBackend(state=active))
        app.add_middleware(Scopes)
        async with client(app, root_path=root_path) as http:
            assert (await http.get(url)).status_code == 503
        seen.append(Scopes.shown())
    assert seen[1] == seen[0]


@pytest.mark.parametrize("is_around", [False, True])
async def test_middleware_blocks_a_request_response_callback_sees_the_scope_of_before_and_the_app(
    is_around: bool,
) -> None:
    seen: list[object] = []

    def respond(request: Request) -> Response:
        seen.append((request.path_params, request.scope.get("route"), request.scope["root_path"], request.app))
        return Response(status_code=503)

    app, closing = FastAPI(), maintenance_middleware(enabled=True, response=respond, unmatched="block")
    app.mount("/tenants/{tenant}", service(MemoryBackend()))
    if not is_around:
        app.add_middleware(closing)
    async with client(closing(app) if is_around else app) as http:
        for path in ("/tenants/3/items/7", "/nothing"):
            await http.get(path)
    assert seen == [({}, None, "", app)] * 2


@traced_kinds
@pytest.mark.parametrize("path", HANDSHAKES)
@pytest.mark.parametrize("denial", [False, True])
async def test_middleware_refuses_a_handshake_looks_as_if_its_route_had_refused_it(
    kind: str, path: str, denial: bool, collected: Collected
) -> None:
    seen = []
    for active in (False, True):
        with set_up(kind, collected, MemoryBackend(state=active)) as app:
            await handshake(app, websocket_scope(path, denial=denial))
        seen.append([shown(span) for span in collected.server_spans()])
        collected.clear()
    assert seen[1] == seen[0]
    assert len(seen[1]) == (0 if kind == "middleware" else 1)


@traced_kinds
async def test_dependency_exempts_makes_no_span_of_its_own(kind: str, collected: Collected) -> None:
    async def current_user(request: Request) -> bool:
        return request.url.path == "/typed/7"

    seen: list[Any] = []
    for exempt in (dependency(current_user), path_is("/typed/7")):
        with set_up(kind, collected, MemoryBackend(state=True), exempt) as app:
            async with client(app) as http:
                for item in ("7", "8"):
                    await http.get(f"/typed/{item}")
        spans = collected.spans.get_finished_spans()
        seen.append([(span.name, (span.attributes or {}).get("http.route")) for span in spans])
        collected.clear()
    assert seen[0] == seen[1]


async def test_counter_requests_are_blocked_has_the_paths_of_their_routes(collected: Collected) -> None:
    app = service(MemoryBackend(state=True))
    async with client(app) as http:
        for path in ("/items/7", "/v1/a/b/7", "/tenants/3/items/7", "/items/8"):
            assert (await http.get(path)).status_code == 503
    paths = {"/items/{item}": 2, "/v1/a/b/{item}": 1, "/tenants/{tenant}/items/{item:int}": 1}
    expected = [({"http.route": path}, number) for path, number in paths.items()]
    assert collected.points("fastapi_maintenance.blocked_requests") == expected


@pytest.mark.skipif(not HAS_TELEMETRY, reason="an older FastAPI")
async def test_counter_fastapi_traces_the_request_has_the_route_of_the_span(collected: Collected) -> None:
    with set_up("fastapi", collected, MemoryBackend(state=True)) as app:
        async with client(app, root_path="/root") as http:
            await http.get("/root/tenants/3/items/7")
    assert collected.points("fastapi_maintenance.blocked_requests") == [
        ({"http.route": "/root/tenants/{tenant}/items/{item}"}, 1)
    ]


@pytest.mark.skipif(not HAS_TELEMETRY, reason="an older FastAPI")
@pytest.mark.parametrize("outside", [False, True])
async def test_meter_provider_of_each_app_gets_its_gauge_and_its_counter(outside: bool, collected: Collected) -> None:
    switch, each = MemoryBackend(state=True), [Collected(), Collected()]
    apps: list[ASGIApp] = []
    for one in each:
        app = FastAPI(telemetry={"meter_provider": one.meter_provider})
        app.add_api_route("/items/{item}", identity)
        layer = maintenance_middleware(backend=switch)
        apps.append(layer(app) if outside else app)
        app.user_middleware += [] if outside else [Middleware(layer)]
    async with living(apps[0]), living(apps[1]), client(apps[1]) as http:
        assert (await http.get("/items/7")).status_code == 503
        await eventually(lambda: has_points(each[0], 1) and has_points(each[1], 1))
        await set_maintenance_mode(False, switch)
        await eventually(lambda: has_points(each[0], 0) and has_points(each[1], 0))
    blocked = [one.points("fastapi_maintenance.blocked_requests") for one in (*each, collected)]
    assert blocked == [[], [({"http.route": "/items/{item}"}, 1)], []]
    assert collected.points("fastapi_maintenance.active") == []


@pytest.mark.skipif(not HAS_TELEMETRY, reason="an older FastAPI")
async def test_meter_provider_of_the_app_gets_the_counter_of_a_middleware_on_a_route(collected: Collected) -> None:
    own = Collected()
    app = FastAPI(telemetry={"meter_provider": own.meter_provider})
    layer = Middleware(maintenance_middleware(backend=MemoryBackend(state=True)))
    app.router.routes.append(Route("/items/{item}", identity, middleware=[layer]))
    async with client(app) as http:
        assert (await http.get("/items/7")).status_code == 503
    name = "fastapi_maintenance.blocked_requests"
    assert [[value for _, value in one.points(name)] for one in (own, collected)] == [[1], []]


async def identity(item: str) -> str:
    return item


def has_points(collected: Collected, expected: int) -> bool:
    return [value for _, value in collected.points("fastapi_maintenance.active")] == [expected]


class ShowsItsValue(MemoryBackend):
    """A backend that shows its value, as a dataclass does."""

    def __repr__(self) -> str:
        return f"ShowsItsValue({self.peek().switch.on})"


@pytest.mark.parametrize("kind", [MemoryBackend, ShowsItsValue])
async def test_gauge_switch_changes_keeps_its_label(kind: type[MemoryBackend], collected: Collected) -> None:
    backend = kind()
    label = {"fastapi_maintenance.switch": repr(backend)}
    async with living(service(backend)):
        for active in (0, 1, 0):
            await set_maintenance_mode(bool(active), backend)
            await eventually(lambda expected=active: has_points(collected, expected))  # type: ignore[misc]
            assert [found for found, _ in collected.points("fastapi_maintenance.active")] == [label]


async def test_middleware_api_is_missing_imports_nothing_and_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    app = service(MemoryBackend(state=True))
    async with living(app), client(app) as http:  # for which newer versions of FastAPI import it
        monkeypatch.setitem(sys.modules, "opentelemetry", None)
        metrics.instruments_of.cache_clear()
        assert (await http.get("/items/7")).status_code == 503
    assert metrics.instruments_of(None) == (None, None, None)
    metrics.instruments_of.cache_clear()


def transitions(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.name == "fastapi_maintenance" and record.levelname == "INFO"]


async def wait_for(number: int, caplog: pytest.LogCaptureFixture) -> None:
    """Wait until so many transitions have been logged."""

    async def are_logged() -> bool:
        await anyio.lowlevel.checkpoint()
        return len(transitions(caplog)) == number

    await eventually(are_logged)


def fields(record: logging.LogRecord) -> dict[str, object]:
    """Return what this library adds to a record."""
    prefix = "maintenance_"
    return {name.removeprefix(prefix): value for name, value in vars(record).items() if name.startswith(prefix)}


@pytest.fixture
def _info(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "fastapi_maintenance")


@pytest.mark.usefixtures("_info")
@pytest.mark.parametrize("make", [MemoryBackend, WatchableStore, BareSwitch])
async def test_log_several_apps_on_a_switch_has_one_record_of_each_transition(
    make: type[MemoryBackend], caplog: pytest.LogCaptureFixture
) -> None:
    backend = make()
    async with living(service(backend)), living(service(backend)):
        for number, active in enumerate((True, False), start=1):
            await set_maintenance_mode(active, backend)
            await wait_for(number, caplog)
        await anyio.sleep(10)
    assert [fields(record)["active"] for record in transitions(caplog)] == [True, False]


@pytest.mark.usefixtures("_info")
async def test_log_transition_has_who_and_when_and_why(caplog: pytest.LogCaptureFixture) -> None:
    backend, since = MemoryBackend(), clock.now()
    ends_at = since + timedelta(seconds=20)
    state = MaintenanceState(
        switch=Switch(on=True, message="New\ndatabase", ends_at=ends_at, by="alice@host", since=since)
    )
    await backend.update_state(lambda _: state)
    async with living(service(backend)):
        await wait_for(2, caplog)
        assert ends_at <= clock.now() < ends_at + timedelta(seconds=0.1)
    on, off = transitions(caplog)
    assert on.getMessage() == "Maintenance is on by MemoryBackend(), set by 'alice@host', 'New\\ndatabase'"
    assert off.getMessage() == "Maintenance is off by MemoryBackend()"
    facts = {"active": True, "message": "New\ndatabase", "by": "alice@host"}
    assert fields(on) == {**facts, "since": since.isoformat(), "ends_at": ends_at.isoformat()}
    assert fields(off) == {"active": False, "since": ends_at.isoformat()}


@pytest.mark.usefixtures("_info")
async def test_log_store_flaps_has_no_transition(caplog: pytest.LogCaptureFixture) -> None:
    store = WatchableStore(True)
    async with living(service(store)):
        await wait_for(1, caplog)
        for _ in range(3):
            store.go_down()
            store.cut_off()
            await anyio.sleep(5)
            store.come_back()
            store.before_tell = anyio.lowlevel.checkpoint
            await anyio.sleep(10)
    assert len(transitions(caplog)) == 1


@pytest.mark.usefixtures("_info")
async def test_log_blocks_begin_and_end_names_who_opened_them_alone(caplog: pytest.LogCaptureFixture) -> None:
    backend = MemoryBackend()
    await set_maintenance_mode(False, backend, by="carol")
    async with living(service(backend)):
        for number in (1, 3):
            async with maintenance_mode_on(backend, by="bob"):
                await wait_for(number, caplog)
            await wait_for(number + 1, caplog)
    assert [fields(record).get("by") for record in transitions(caplog)] == ["bob", None, "bob", None]
