"""Logging that raises, in a filter, a handler or a record factory: requests are answered, and the app stays served."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

import fastapi_maintenance
from fastapi_maintenance import MemoryBackend, StateBackend, maintenance_mode_on, set_maintenance_mode
from fastapi_maintenance._helpers.logs import get_logger
from tests.middleware.test_failures import app_on, status
from tests.stores import BareSwitch, DetailedStore, WatchableStore, be_down
from tests.support import on_jumping_clock
from tests.switch.lifespans import answers, living

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend(anyio_backend: str, monkeypatch: pytest.MonkeyPatch) -> tuple[str, dict[str, Any]]:
    """Run on a clock that jumps."""
    return on_jumping_clock(anyio_backend, monkeypatch)


class Broken(logging.Handler):
    """Counts the records of this library, and raises."""

    count = 0

    def emit(self, record: logging.LogRecord) -> None:
        if record.name.startswith("fastapi_maintenance"):
            self.count += 1
            raise LookupError(record.name)  # as a context variable without a value

    def filter(self, record: logging.LogRecord) -> bool:
        self.emit(record)
        return True


HINTS = ["cors", "twice", "layer", "path", "router", "lifespan"]
LOGGERS = ["fastapi_maintenance", "fastapi_maintenance.hints", *(f"fastapi_maintenance.hints.{one}" for one in HINTS)]


@pytest.fixture(params=["filter", "handler", "handler of the root", "record factory"])
def broken(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> Iterator[Broken]:
    """Let logging of this library raise."""
    broken = Broken(logging.DEBUG)
    loggers = [logging.getLogger(name) for name in LOGGERS]
    caplog.set_level(logging.DEBUG, LOGGERS[0])
    factory = logging.getLogRecordFactory()

    def make(*arguments: Any, **keywords: Any) -> logging.LogRecord:  # noqa: ANN401 -- as in the factory
        record = factory(*arguments, **keywords)
        broken.emit(record)
        return record

    if request.param == "filter":
        for logger in loggers:
            monkeypatch.setattr(logger, "filters", [broken])
    elif request.param == "record factory":
        logging.setLogRecordFactory(make)
    else:
        logger = loggers[0] if request.param == "handler" else logging.getLogger()
        monkeypatch.setattr(logger, "handlers", [broken])
    yield broken
    logging.setLogRecordFactory(factory)


@pytest.mark.parametrize("make", [MemoryBackend, BareSwitch, DetailedStore, WatchableStore])
async def test_served_app_whose_log_of_changes_raises_stays_served(
    broken: Broken, make: Callable[[], StateBackend]
) -> None:
    backend = make()
    app = app_on(backend)
    async with living(app):
        for active in (True, False, True):
            await set_maintenance_mode(active, backend)
            await answers(app, 503 if active else 200)
            await anyio.sleep(3)
    assert broken.count >= 3


@pytest.mark.parametrize("make", [BareSwitch, DetailedStore])
async def test_request_whose_log_of_an_outage_raises_is_answered(
    broken: Broken, make: type[BareSwitch | DetailedStore]
) -> None:
    store = make(True)
    app = app_on(store)
    assert await status(app) == 503
    for change in (store.go_down, store.come_back):
        change()
        await anyio.sleep(3)
        assert [await status(app) for _ in range(2)] == [503] * 2
    assert broken.count >= 2


async def test_renewal_whose_log_raises_is_tried_again(broken: Broken) -> None:
    store = DetailedStore()
    async with maintenance_mode_on(store, lease=9):
        store.before_write = be_down
        await anyio.sleep(5)
        store.come_back()
        await anyio.sleep(9)
        assert await status(app_on(store)) == 503
    assert (await store.memory.get_state()).holds == ()
    assert broken.count >= 2


@pytest.mark.usefixtures("broken")
@pytest.mark.parametrize("name", LOGGERS)
def test_logger_whose_handler_raises_raises_nothing(name: str) -> None:
    logger = get_logger(name)
    for log in (logger.debug, logger.info, logger.warning, logger.error, logger.exception):
        log("a %s", "record")


def test_package_logs_through_these_loggers_alone() -> None:
    """The command and `check_backend` are excepted: they run in no app that they could harm."""
    package = Path(fastapi_maintenance.__file__).parent
    excepted = {"_helpers/logs.py", "cli/errors.py", "cli/commands.py", "testing/check.py"}
    names = {
        path.relative_to(package).as_posix() for path in package.rglob("*.py") if "import logging" in path.read_text()
    }
    assert names == excepted
