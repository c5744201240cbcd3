"""OpenTelemetry that lacks something, or raises: requests are blocked as ever, and the app goes on."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import anyio
import pytest
from fastapi import FastAPI

from fastapi_maintenance import MemoryBackend, maintenance_middleware, set_maintenance_mode
from fastapi_maintenance._helpers import telemetry
from tests.middleware.test_failures import status
from tests.support import eventually, on_jumping_clock
from tests.switch.lifespans import answers, living

pytestmark = pytest.mark.anyio


async def endpoint() -> str:
    return "open"


@pytest.fixture
def anyio_backend(anyio_backend: str, monkeypatch: pytest.MonkeyPatch) -> tuple[str, dict[str, Any]]:
    """Let no test wait for the seconds between two looks at a store."""
    return on_jumping_clock(anyio_backend, monkeypatch)


class Api:
    """An OpenTelemetry API in which one call raises, or one is missing, and what the others were given."""

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
    """Let this process have such an API for a test."""
    api = Api()
    package = ModuleType("opentelemetry")
    for name in ("trace", "metrics"):
        module: Any = ModuleType(f"opentelemetry.{name}")
        module.__getattr__ = api.__getattr__
        setattr(package, name, module)
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(sys.modules, "opentelemetry", package)
    telemetry._instruments.cache_clear()
    yield api
    telemetry._instruments.cache_clear()


def app_on(backend: MemoryBackend) -> FastAPI:
    app = FastAPI(telemetry={"tracing": False, "metrics": False}) if _has_telemetry() else FastAPI()
    app.add_middleware(maintenance_middleware(backend=backend, read_timeout=60))
    app.add_api_route("/", endpoint)
    return app


def _has_telemetry() -> bool:
    try:
        FastAPI(telemetry={})
    except TypeError:
        return False
    return hasattr(FastAPI(), "_native_telemetry")


async def switch_on_and_off(app: FastAPI, backend: MemoryBackend) -> list[str]:
    """Switch a served app on and off, as its requests and its worker see it; return what its lifespan sent."""
    async with living(app) as sent:
        for active in (True, False, True):
            await set_maintenance_mode(active, backend)
            await answers(app, 503 if active else 200)
            await anyio.sleep(2)  # the worker looks
        assert sent == ["lifespan.startup.complete"]
    return sent


CALLS = [
    "get_meter", "create_counter", "create_gauge", "add", "set", "get_current_span", "set_attributes"
]  # fmt: skip


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("fault", ["raises", "lacks"])
async def test_middleware_call_of_telemetry_fails_serves_as_without_it(api: Api, fault: str, call: str) -> None:
    getattr(api, fault).add(call)
    backend = MemoryBackend()
    sent = await switch_on_and_off(app_on(backend), backend)
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


@pytest.mark.parametrize("fault", ["raises", "lacks"])
async def test_middleware_gauge_cannot_be_created_counts_blocked_requests(api: Api, fault: str) -> None:
    getattr(api, fault).add("create_gauge")  # opentelemetry-api has it from 1.23 on
    assert await status(app_on(MemoryBackend(state=True))) == 503
    counted, marked = [call for call in api.calls if call[0] in {"add", "set_attributes"}]
    assert counted == ("add", 1, {"http.route": "/"})
    assert marked == ("set_attributes", {"fastapi_maintenance.blocked": True, "http.route": "/"})


@pytest.mark.parametrize("call", ["create_counter", "add"])
async def test_middleware_counter_fails_marks_the_span_and_sets_the_gauge(api: Api, call: str) -> None:
    api.raises.add(call)
    backend = MemoryBackend(state=True)
    app = app_on(backend)
    async with living(app):
        assert await status(app) == 503
        await eventually(lambda: is_called(api, "set"))
    assert {"set_attributes", "set"} <= api.names()


async def is_called(api: Api, name: str) -> bool:
    await anyio.lowlevel.checkpoint()
    return name in api.names()


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
    assert await status(app_on(MemoryBackend(state=True))) == 503
    assert ({"add"} if module == "trace" else {"set_attributes"}) == {"add", "set_attributes"} & api.names()
