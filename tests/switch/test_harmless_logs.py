"""Logging that raises (a filter, a handler, a record factory): requests are answered, and the app stays served."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from fastapi import Depends, FastAPI, Request

from fastapi_maintenance import (
    EnvVarBackend,
    LocalFileBackend,
    MemoryBackend,
    StateBackend,
    maintenance_middleware,
    maintenance_mode_on,
    set_maintenance_mode,
    wait_until_open,
)
from fastapi_maintenance.router import maintenance_router
from tests.middleware.test_failures import status
from tests.stores import BareSwitch, DetailedStore, WatchableStore, be_down
from tests.support import client, eventually, on_jumping_clock
from tests.switch.lifespans import answers, living

pytestmark = pytest.mark.anyio


async def endpoint() -> str:
    return "open"


@pytest.fixture
def anyio_backend(anyio_backend: str, monkeypatch: pytest.MonkeyPatch) -> tuple[str, dict[str, Any]]:
    """Let no test wait for the seconds between two looks at a store."""
    return on_jumping_clock(anyio_backend, monkeypatch)


class Broken(logging.Handler):
    """Counts the records of this library that it is given, and raises."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def emit(self, record: logging.LogRecord) -> None:
        if record.name.startswith("fastapi_maintenance"):
            self.count += 1
            raise LookupError(record.name)  # as a context variable that has no value outside of requests

    def filter(self, record: logging.LogRecord) -> bool:
        self.emit(record)
        return True


HINTS = ["cors", "twice", "layer", "path", "router", "lifespan"]
LOGGERS = ["fastapi_maintenance", "fastapi_maintenance.hints", *(f"fastapi_maintenance.hints.{one}" for one in HINTS)]


@pytest.fixture(params=["filter", "handler", "handler of the root", "record factory"])
def broken(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> Iterator[Broken]:
    """Let what this library logs raise."""
    broken = Broken()
    broken.setLevel(logging.DEBUG)
    loggers = [logging.getLogger(name) for name in LOGGERS]
    caplog.set_level(logging.DEBUG, loggers[0].name)
    factory = logging.getLogRecordFactory()
    if request.param == "filter":
        for logger in loggers:
            monkeypatch.setattr(logger, "filters", [broken])
    elif request.param == "record factory":

        def make(*arguments: Any, **keywords: Any) -> logging.LogRecord:  # noqa: ANN401 -- as the factory has it
            record = factory(*arguments, **keywords)
            broken.emit(record)
            return record

        logging.setLogRecordFactory(make)
    else:
        logger = loggers[0] if request.param == "handler" else logging.getLogger()
        monkeypatch.setattr(logger, "handlers", [broken])
    yield broken
    logging.setLogRecordFactory(factory)


@asynccontextmanager
async def served(backend: StateBackend, **settings: Any) -> AsyncGenerator[FastAPI]:  # noqa: ANN401 -- the middleware's
    """Serve an app; fail if its own lifespan ends before it is asked to, or does not end then."""
    opened: list[bool] = []

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
        opened.append(True)
        yield
        opened.clear()

    app = FastAPI(lifespan=lifespan)
    app.add_middleware(maintenance_middleware(backend=backend, **{"read_timeout": 60, **settings}))
    app.add_api_route("/", endpoint)
    async with living(app) as sent:
        assert (opened, sent) == ([True], ["lifespan.startup.complete"])
        yield app
        assert (opened, sent) == ([True], ["lifespan.startup.complete"])
    assert (opened, sent[1:]) == ([], ["lifespan.shutdown.complete"])


def app_on(backend: StateBackend | None, **settings: Any) -> FastAPI:  # noqa: ANN401 -- those of the middleware
    app = FastAPI()
    app.add_middleware(maintenance_middleware(backend=backend, **{"read_timeout": 60, **settings}))
    app.add_api_route("/", endpoint)
    return app


@pytest.mark.parametrize("make", [MemoryBackend, BareSwitch, DetailedStore, WatchableStore])
async def test_served_app_log_of_a_transition_raises_stays_served(
    broken: Broken, make: Callable[[], StateBackend]
) -> None:
    backend = make()
    async with served(backend) as app:
        for active in (True, False, True):
            await set_maintenance_mode(active, backend)
            await answers(app, 503 if active else 200)
            await anyio.sleep(3)
    assert broken.count >= 3


async def test_served_app_log_of_an_outage_raises_stays_served_and_followed(broken: Broken) -> None:
    store = WatchableStore()
    async with served(store) as app:
        for on in (True, False):
            store.go_down()
            store.cut_off()
            await anyio.sleep(3)
            assert await status(app) == (200 if on else 503)
            store.come_back()
            store.before_tell = anyio.lowlevel.checkpoint
            await set_maintenance_mode(on, store)
            await anyio.sleep(3)
            assert await status(app) == (503 if on else 200)
    assert broken.count >= 4


@pytest.mark.parametrize("make", [BareSwitch, DetailedStore])
async def test_request_log_of_an_outage_raises_is_answered(
    broken: Broken, make: Callable[[bool], BareSwitch | DetailedStore]
) -> None:
    store = make(True)
    app = app_on(store)
    assert await status(app) == 503
    store.go_down()
    await anyio.sleep(3)
    assert [await status(app) for _ in range(2)] == [503] * 2
    store.come_back()
    await anyio.sleep(3)
    assert [await status(app) for _ in range(2)] == [503] * 2
    assert broken.count >= 2


def fail(_: Request) -> Any:  # noqa: ANN401 -- there is none
    raise ZeroDivisionError


@pytest.mark.parametrize("settings", [{"exempt": fail}, {"response": fail}])
async def test_request_log_of_a_callback_that_failed_raises_is_blocked(
    broken: Broken, settings: dict[str, Any]
) -> None:
    assert await status(app_on(MemoryBackend(state=True), **settings)) == 503
    assert broken.count >= 1


async def test_request_hint_at_a_missing_lifespan_raises_is_blocked(broken: Broken) -> None:
    assert await status(app_on(MemoryBackend(state=True))) == 503
    assert broken.count >= 1


async def test_request_log_of_a_wrong_variable_raises_is_answered(
    broken: Broken, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARMLESS", "perhaps")
    assert await status(app_on(EnvVarBackend("HARMLESS"))) == 200
    assert broken.count >= 1


async def test_lifespan_hints_raise_app_is_served(broken: Broken) -> None:
    backend = MemoryBackend()
    app = app_on(backend)
    app.add_middleware(maintenance_middleware(backend=backend))  # two on one switch: a hint
    async with living(app):
        assert await status(app) == 200
    assert broken.count >= 1


@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])  # on a clock that does not jump: it waits for a thread
async def test_write_log_of_a_state_that_is_replaced_raises_is_written(broken: Broken, tmp_path: Path) -> None:
    path = tmp_path / "switch"
    path.write_text("nonsense", encoding="utf-8")
    await set_maintenance_mode(True, LocalFileBackend(path))
    assert path.read_text(encoding="utf-8").strip() != "nonsense"
    assert broken.count >= 1


async def test_block_log_of_renewals_raises_is_renewed_again(broken: Broken) -> None:
    store = DetailedStore()
    async with maintenance_mode_on(store, lease=9):
        store.before_write = be_down
        await anyio.sleep(5)
        store.come_back()
        await anyio.sleep(9)
        assert await status(app_on(store)) == 503
    assert (await store.memory.get_state()).holds == ()
    assert broken.count >= 2


async def test_block_log_of_a_failed_release_raises_keeps_the_error_of_its_body(broken: Broken) -> None:
    store = DetailedStore()
    with pytest.raises(ZeroDivisionError):
        async with maintenance_mode_on(store):
            store.before_write = be_down
            raise ZeroDivisionError
    assert broken.count >= 1


async def test_wait_until_open_log_of_an_outage_raises_waits_on(broken: Broken) -> None:
    store = WatchableStore(True)
    is_open = anyio.Event()

    async def wait() -> None:
        await wait_until_open(store)
        is_open.set()

    async with anyio.create_task_group() as group:
        group.start_soon(wait)
        await anyio.sleep(3)
        store.go_down()
        store.cut_off()
        await anyio.sleep(3)
        assert not is_open.is_set()
        store.come_back()
        store.before_tell = anyio.lowlevel.checkpoint
        await set_maintenance_mode(False, store)
        with anyio.fail_after(30):
            await is_open.wait()
    assert broken.count >= 1


async def test_router_log_of_a_failing_store_raises_answers_503(broken: Broken) -> None:
    store = DetailedStore()
    app = app_on(store)
    app.include_router(maintenance_router(dependencies=[Depends(lambda: None)], backend=store))
    store.go_down()
    async with client(app) as http:
        assert (await http.get("/maintenance")).status_code == 503
    assert broken.count >= 1


@pytest.mark.usefixtures("broken")
async def test_served_app_log_raises_still_counts_for_drains() -> None:
    backend = MemoryBackend()
    async with served(backend) as app:
        for _ in range(2):
            async with maintenance_mode_on(backend, drain=20):
                assert await status(app) == 503

            async def is_open() -> bool:
                return await status(app) == 200

            await eventually(is_open)
