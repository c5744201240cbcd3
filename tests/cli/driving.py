"""Run the command, in this process and as a process of its own, on a switch in a file or of an app."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from anyio.lowlevel import checkpoint
from typer.testing import CliRunner, Result

from fastapi_maintenance import LocalFileBackend, MaintenanceState
from fastapi_maintenance._switch.reports import Applied, report_of
from fastapi_maintenance.cli.commands import app
from fastapi_maintenance.codec import state_to_text
from fastapi_maintenance.state import Hold, Switch, Window
from fastapi_maintenance.typing import StateBackend
from tests.stores import DetailedStore, Hook
from tests.support import ROOT, uvicorn_process

COMMAND = [sys.executable, "-c", "from fastapi_maintenance.cli import main; main()"]
NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)
OFF = MaintenanceState()
GOES = Applied(MaintenanceState(switch=Switch(on=True)), is_on=True)
Part = Switch | Window | Hold
_SERVED = """
import asyncio
import os
from pathlib import Path
from fastapi import FastAPI
from fastapi_maintenance import maintenance_middleware

app = FastAPI()
app.add_middleware(maintenance_middleware(backend=os.environ["SWITCH"]))

@app.post("/orders/{number}")
async def order(number: int):
    Path("begun").touch()
    while not Path("end").exists():
        await asyncio.sleep(0.02)
    Path("ended").touch()
"""


def at(minutes: float) -> datetime:
    """Return the time so many minutes after noon."""
    return NOW + timedelta(minutes=minutes)


def state_with(*parts: Part) -> MaintenanceState:
    """Return the state that consists of these parts."""
    return MaintenanceState(
        switch=next((part for part in parts if isinstance(part, Switch)), Switch()),
        windows=tuple(part for part in parts if isinstance(part, Window)),
        holds=tuple(part for part in parts if isinstance(part, Hold)),
    )


def store(*parts: Part) -> None:
    """Write the file by hand."""
    Path("switch").write_text(state_to_text(state_with(*parts)), encoding="utf-8")


def stored() -> MaintenanceState:
    """Return the state in the file."""
    return LocalFileBackend("switch").peek()


def invoke(*words: str, **env: str) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(app, list(words), env=env)


def on_file(*words: str) -> Result:
    """Run the command on the file."""
    return invoke(*words[:1], "--backend", "file:switch", *words[1:])


def on_app(*words: str) -> Result:
    """Run the command on the switch of an app, which is replaced by `use`."""
    return invoke(*words[:1], "--app", "shop:app", *words[1:])


def use(monkeypatch: pytest.MonkeyPatch, backend: StateBackend) -> None:
    """Give the app of `on_app` this backend."""
    monkeypatch.setattr("fastapi_maintenance.cli.target.find_backend", lambda *_: backend)


def errors(result: Result) -> str:
    """Return standard error without the lines about the switch, its workers, and when maintenance began and ended."""
    usual = r"^(switch: |(on|off): |maintenance begins$|released after ).*\n"
    return re.sub(usual, "", result.stderr, flags=re.MULTILINE)


class Registry:
    """The reports of workers, which a test chooses."""

    is_durable = True

    def __init__(self, reports: dict[str, str]) -> None:
        self.before_reports: Hook = checkpoint
        self.records = {f"{worker.replace('_', '.')}.{worker}": text for worker, text in reports.items()}

    async def sign(self, worker: str, report: str, /) -> None:
        await checkpoint()
        self.records[worker] = report

    async def leave(self, worker: str, /) -> None:
        await checkpoint()
        self.records.pop(worker, None)

    async def reports(self) -> dict[str, str]:
        await self.before_reports()
        return self.records.copy()


class CountingStore(DetailedStore):
    """A store that is on and has the reports of these workers: `web_1` is process 1 on the host web."""

    def __init__(self, **reports: str) -> None:
        super().__init__(state=True)
        self.workers = Registry(reports)


OfApp = Callable[..., CountingStore]


def report(goes: Applied = GOES, *, requests: int = 0, seconds: float = 0, ahead: float | None = None) -> str:
    """Return the report of a worker that uses a state, and whose oldest request began so many seconds ago."""
    facts = json.loads(report_of(replace(goes, ahead=ahead), ())) | {"requests": requests}
    if requests:
        facts |= {"since": (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat(), "route": "POST /orders"}
    return json.dumps(facts)


def start(*words: str, **settings: Any) -> subprocess.Popen[str]:  # noqa: ANN401 -- those of Popen
    """Start the command as a process, on the file unless its environment names another switch."""
    env = {"PYTHONPATH": str(ROOT), "FASTAPI_MAINTENANCE_BACKEND": "file:switch", **settings.pop("env", {})}
    return subprocess.Popen([*COMMAND, *words], env={**os.environ, **env}, text=True, **settings)


def wait_until(condition: Callable[[], object], *, within: float = 60) -> None:
    """Return when the condition has become true; fail if it does not."""
    end = time.monotonic() + within
    while not condition():
        assert time.monotonic() < end, "the condition is still false"
        time.sleep(0.02)


@contextmanager
def busy_server(url: str = "file:switch", *arguments: str) -> Iterator[None]:
    """Start a server behind a switch, and a request that ends when there is a file `end`."""
    Path("served.py").write_text(_SERVED)
    with uvicorn_process("served:app", *arguments, env={"SWITCH": url}, folder=Path.cwd()) as base:
        request = threading.Thread(target=httpx.post, args=[f"{base}/orders/1"], kwargs={"timeout": 300})
        request.start()
        wait_until(Path("begun").exists)
        try:
            yield
        finally:
            Path("end").touch()
            request.join()
