"""OpenTelemetry, FastAPI's telemetry or Sentry lacks something, or raises: requests are blocked as without it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import anyio
import pytest
from fastapi import FastAPI

from fastapi_maintenance import MemoryBackend, maintenance_middleware, set_maintenance_mode
from fastapi_maintenance._helpers import metrics
from fastapi_maintenance._routing import traces
from tests.middleware.test_failures import status
from tests.support import on_jumping_clock
from tests.switch.lifespans import answers, living
from tests.telemetry.services import HAS_TELEMETRY, WITHOUT_TELEMETRY, Collected

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend(anyio_backend: str, monkeypatch: pytest.MonkeyPatch) -> tuple[str, dict[str, Any]]:
    """Let no test wait for the seconds between two reads of a store."""
    return on_jumping_clock(anyio_backend, monkeypatch)


class Api:
    """An API in which some calls raise, or are missing, and what the others were given."""

    def __init__(self) -> None:
        self.raises: set[str] = set()
        self.lacks: set[str] = set()
        self.calls: list[tuple[Any, ...]] = []

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 -- the API has no types here
        if name in self.lacks:
            raise AttributeError(name)

        def call(*arguments: object, **_: object) -> Api:
            if name in self.raises:
                message = f"{name} is broken"
                raise RuntimeError(message)
            self.calls.append((name, *arguments))
            return self

        return call

    def names(self) -> set[str]:
        return {call[0] for call in self.calls}


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[Api]:
    """Let this process have such an API of OpenTelemetry for a test."""
    api = Api()
    package = ModuleType("opentelemetry")
    for name in ("trace", "metrics"):
        module: Any = ModuleType(f"opentelemetry.{name}")
        module.__getattr__ = api.__getattr__
        setattr(package, name, module)
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(sys.modules, "opentelemetry", package)
    metrics.instruments_of.cache_clear()
    yield api
    metrics.instruments_of.cache_clear()


def service(backend: MemoryBackend, **arguments: Any) -> FastAPI:  # noqa: ANN401 -- FastAPI's
    app = FastAPI(**(arguments or WITHOUT_TELEMETRY))
    app.add_middleware(maintenance_middleware(backend=backend, read_timeout=60))
    app.add_api_route("/", lambda: "open")
    return app


BLOCKED = {("add", 1, (("http.route", "/"),)), ("set_attribute", "fastapi_maintenance.blocked", True)}


def recorded(api: Api) -> set[tuple[object, ...]]:
    """Return what was recorded of blocked requests."""
    calls = [call for call in api.calls if call[0] in {"add", "set_attribute"}]
    return {tuple(tuple(part.items()) if isinstance(part, dict) else part for part in call) for call in calls}


@pytest.mark.parametrize(
    "call", ["get_meter", "create_counter", "create_gauge", "add", "set", "get_current_span", "set_attribute"]
)
@pytest.mark.parametrize("fault", ["raises", "lacks"])
async def test_middleware_call_of_telemetry_fails_serves_as_without_it(api: Api, fault: str, call: str) -> None:
    getattr(api, fault).add(call)  # opentelemetry-api has `create_gauge` from 1.23 on
    backend = MemoryBackend()
    app = service(backend)
    async with living(app) as sent:
        for active in (True, False, True):
            await set_maintenance_mode(active, backend)
            await answers(app, 503 if active else 200)
            await anyio.sleep(2)  # the worker looks
        assert sent == ["lifespan.startup.complete"]
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    spared = {"set_attribute"} - {call} if call != "get_current_span" else set()
    spared |= {"add"} - {call} if call not in {"get_meter", "create_counter"} else set()
    assert {each[0] for each in recorded(api)} == spared
    assert ("set" in api.names()) is (call not in {"get_meter", "create_gauge", "set"})


@pytest.mark.parametrize("module", ["trace", "metrics"])
@pytest.mark.parametrize("error", [ImportError, RuntimeError, SyntaxError])
async def test_middleware_module_of_the_api_cannot_be_imported_loses_only_that(
    api: Api, module: str, error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken:
        def find_spec(self, name: str, *_: object) -> None:
            if name == f"opentelemetry.{module}":
                raise error

    monkeypatch.delitem(sys.modules, f"opentelemetry.{module}")
    monkeypatch.delattr(sys.modules["opentelemetry"], module)
    monkeypatch.setattr(sys.modules["opentelemetry"], "__path__", [], raising=False)
    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    assert await status(service(MemoryBackend(state=True))) == 503
    assert {each[0] for each in recorded(api)} == ({"add"} if module == "trace" else {"set_attribute"})


@pytest.mark.skipif(not HAS_TELEMETRY, reason="an older FastAPI")
@pytest.mark.parametrize("notify", [None, Api.__getattr__])
async def test_middleware_fastapi_cannot_be_notified_blocks_and_counts(
    notify: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    collected = Collected()
    monkeypatch.setattr(traces, "_route_selected", notify)
    assert await status(service(MemoryBackend(state=True), telemetry=collected.providers)) == 503
    assert collected.points("fastapi_maintenance.blocked_requests") == [({"http.route": "/"}, 1)]


@pytest.mark.parametrize("call", ["get_client", "get_integration", "get_current_scope", "set_transaction_name", None])
@pytest.mark.parametrize("fault", ["raises", "lacks"])
async def test_middleware_sentry_cannot_be_notified_blocks_and_counts(
    api: Api, fault: str, call: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    sentry = Api()
    sentry.lacks.add("_server_segment_span")  # as without span streaming
    getattr(sentry, fault).add(call)
    monkeypatch.setitem(sys.modules, "sentry_sdk", sentry)
    assert await status(service(MemoryBackend(state=True))) == 503
    assert recorded(api) == BLOCKED
    assert ("set_transaction_name" in sentry.names()) is (call is None)


@pytest.mark.parametrize("style", ["url", "endpoint", None])
async def test_middleware_sentry_traces_the_request_names_its_transaction(
    style: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As tests/telemetry/test_sentry.py shows with the real package, in a process of its own."""
    sentry, segment = Api(), Api()
    own = {"utils": sentry, "transaction_style": style, "_server_segment_span": segment}
    vars(sentry).update(own if style else {"get_integration": lambda _: None})
    monkeypatch.setitem(sys.modules, "sentry_sdk", sentry)
    assert await status(service(MemoryBackend(state=True))) == 503
    names = [call[1] for call in sentry.calls if call[0] == "set_transaction_name"]
    assert names == {"url": ["/"], "endpoint": [sentry], None: []}[style]
    assert segment.calls == ([("set_attribute", "http.route", "/")] if style else [])


@pytest.mark.parametrize("telemetry", [None, [], {"meter_provider": []}])
def test_gauge_of_an_app_with_an_odd_attribute_is_that_of_the_global_provider(api: Api, telemetry: object) -> None:
    metrics.set_active("switch", True, SimpleNamespace(_telemetry=telemetry))
    assert api.calls[-1] == ("set", 1, {"fastapi_maintenance.switch": "switch"})


async def test_middleware_provider_of_the_app_is_none_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    app = service(MemoryBackend(state=True))
    wrong: object
    for wrong in (None, [], {"meter_provider": []}, {"meter_provider": 1}):
        monkeypatch.setattr(app, "_telemetry", wrong, raising=False)
        assert await status(app) == 503
