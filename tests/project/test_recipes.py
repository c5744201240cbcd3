"""The recipes for workers, an alert and a server run as they are written, with the real packages."""

import asyncio
import contextlib
import importlib
import logging
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import anyio
import httpx
import pytest
import yaml
from opentelemetry import metrics as opentelemetry_metrics
from opentelemetry.sdk.metrics import MeterProvider

from fastapi_maintenance import get_workers, maintenance_mode_on, set_maintenance_mode
from fastapi_maintenance._helpers import metrics
from tests.documents import DOCS, example
from tests.support import ROOT, eventually, uvicorn_process

pytestmark = pytest.mark.anyio
SWITCH = "file:maintenance.txt"
A_WHILE = 0.3  # seconds in which a worker would take a job


@pytest.fixture
def anyio_backend() -> str:
    """Use asyncio, which these packages need."""
    return "asyncio"


@pytest.fixture(autouse=True)
async def _on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Turn maintenance on, and provide the module of the functions in an example."""
    monkeypatch.setitem(sys.modules, "example", ModuleType("example"))
    await set_maintenance_mode(True, SWITCH)


@pytest.fixture(autouse=True)
def _own_logging() -> Iterator[None]:
    """Restore the logging that these packages change for the whole process."""
    loggers = [logging.getLogger(), *map(logging.getLogger, list(logging.root.manager.loggerDict))]
    before = [(one, one.level, one.disabled, one.propagate, list(one.handlers)) for one in loggers]
    yield
    for one, level, disabled, propagate, handlers in before:
        one.setLevel(level)
        one.disabled, one.propagate, one.handlers[:] = disabled, propagate, handlers
    logging.captureWarnings(capture=False)


def recipe(heading: str, body: str = "done.append(number)", **changes: str) -> tuple[dict[str, Any], list[object]]:
    """Run a recipe whose jobs run `body`. Return its names, and the list `done`."""
    block = example(heading).replaced(" -> None: ...", f" -> None: {body}")
    for old, new in changes.items():
        block = block.replaced(old, new)
    done: list[object] = []
    return block.run(done=done), done


async def test_consumer_takes_a_job_when_maintenance_is_over() -> None:
    names, done = recipe("A plain asyncio consumer", "done.append(job)", **{"move_on_after(1)": "move_on_after(0.05)"})
    jobs: asyncio.Queue[str] = asyncio.Queue()
    jobs.put_nowait("first")
    async with anyio.create_task_group() as group:
        group.start_soon(names["consume"], jobs)
        await anyio.sleep(A_WHILE)
        assert (done, jobs.qsize()) == ([], 1)
        await set_maintenance_mode(False, SWITCH)
        await eventually(lambda: done == ["first"])
        jobs.put_nowait("second")
        await eventually(lambda: done == ["first", "second"])
        group.cancel_scope.cancel()


async def test_apscheduler_runs_a_due_job_when_maintenance_is_over() -> None:
    names, done = recipe("APScheduler", "done.append(1)", minutes="seconds", **{"=5": "=0.1"})
    async with anyio.create_task_group() as group:
        group.start_soon(names["main"])
        await anyio.sleep(A_WHILE)
        assert done == []
        await set_maintenance_mode(False, SWITCH)
        await eventually(lambda: len(done) > 1)
        await set_maintenance_mode(True, SWITCH)
        await anyio.sleep(A_WHILE)
        number = len(done)
        await anyio.sleep(A_WHILE)
        assert number == len(done)
        group.cancel_scope.cancel()
    names["scheduler"].shutdown()


async def test_taskiq_runs_a_task_when_maintenance_is_over() -> None:
    names, done = recipe("taskiq")
    broker: Any = names["broker"]
    await broker.startup()
    await names["send_invoice"].kiq(7)
    await anyio.sleep(A_WHILE)
    assert done == []
    await set_maintenance_mode(False, SWITCH)
    await eventually(lambda: done == [7])
    await broker.wait_all()
    await broker.shutdown()


def in_thread(function: Callable[..., object], *args: object) -> Any:  # noqa: ANN401 -- an awaitable of any type
    return anyio.to_thread.run_sync(function, *args)


async def test_celery_runs_a_task_when_maintenance_is_over() -> None:
    names, done = recipe("Celery")
    worker: Any = importlib.import_module("celery.contrib.testing.worker")
    with worker.start_worker(names["app"], perform_ping_check=False, shutdown_timeout=60):
        await in_thread(names["send_invoice"].delay, 7)
        await anyio.sleep(A_WHILE)
        assert done == []
        await set_maintenance_mode(False, SWITCH)
        await eventually(lambda: done == [7])


async def test_cron_job_waits_or_gives_up() -> None:
    names, done = recipe("A cron job", "done.append(1)", **{"600": "0.3"})
    with pytest.raises(TimeoutError):
        await in_thread(names["main"])
    assert done == []
    await set_maintenance_mode(False, SWITCH)
    names, done = recipe("A cron job", "done.append(1)")
    await in_thread(names["main"])
    assert done == [1]


async def test_alert_queries_the_metric_of_the_prometheus_exporter(monkeypatch: pytest.MonkeyPatch) -> None:
    (group,) = yaml.safe_load(example("Alert on a switch that somebody forgot", "yaml").text)["groups"]
    (rule,) = group["rules"]
    label, metric = re.fullmatch(r"max by \((\w+)\) \((\w+)\) == 1", rule["expr"]).groups()  # type: ignore[union-attr]
    exporter: Any = importlib.import_module("opentelemetry.exporter.prometheus")
    client: Any = importlib.import_module("prometheus_client")
    reader = exporter.PrometheusMetricReader()
    monkeypatch.setattr(opentelemetry_metrics, "get_meter", MeterProvider([reader], shutdown_on_exit=False).get_meter)
    metrics.instruments_of.cache_clear()
    metrics.set_active("RedisBackend(key='a')", True, None)
    exported = client.generate_latest().decode()
    metrics.instruments_of.cache_clear()
    reader.shutdown()
    (line,) = re.findall(rf"^{metric}{{.*$", exported, re.MULTILINE)
    assert f"{label}=\"RedisBackend(key='a')\"" in line
    assert line.endswith(" 1.0")
    assert f"$labels.{label} " in rule["annotations"]["summary"]


@pytest.mark.servers
async def test_gunicorn_is_closed_while_its_processes_are_replaced() -> None:
    (line,) = re.findall(
        r"^gunicorn shop:app (.+)$", (DOCS / "operations" / "servers.md").read_text("utf-8"), re.MULTILINE
    )
    options = [*line.split(), "--preload", "--max-requests", "10", "--pid", str(Path("pid").absolute())]
    env, seen = {"SHOP_STORE": f"file:{Path('maintenance.txt').absolute()}"}, set[int]()
    with uvicorn_process("shop:app", *options, server="gunicorn", env=env, folder=ROOT / "examples") as url:
        for number in range(60):
            if number == 30:
                os.kill(int(Path("pid").read_text("utf-8")), signal.SIGHUP)
            with contextlib.suppress(httpx.TransportError):  # a process that ends resets what arrives
                seen.add((await asyncio.to_thread(httpx.get, f"{url}/items", timeout=30)).status_code)
        async with maintenance_mode_on(SWITCH, drain=60, workers=4):
            assert len(await get_workers(SWITCH)) >= 4
    assert seen == {503}
