"""Run the command, in this process and as a process of its own, on a switch in a file."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from anyio.lowlevel import checkpoint
from typer.testing import CliRunner, Result

from fastapi_maintenance import LocalFileBackend, MaintenanceState
from fastapi_maintenance._switch.reports import Goes, report_of
from fastapi_maintenance.cli.commands import app
from fastapi_maintenance.codec import state_to_text
from fastapi_maintenance.state import Hold, Switch, Window
from fastapi_maintenance.typing import StateBackend
from tests.stores import DetailedStore, Hook
from tests.support import ROOT

COMMAND = [sys.executable, "-c", "from fastapi_maintenance.cli import main; main()"]
NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)
OFF = MaintenanceState()
APP = ["--app", "shop:app"]
GOES = Goes(MaintenanceState(switch=Switch(on=True)), is_on=True)


def at(minutes: float) -> datetime:
    """Return the time so many minutes after noon."""
    return NOW + timedelta(minutes=minutes)


def just(*parts: Switch | Window | Hold) -> MaintenanceState:
    """Return the state with these parts."""
    return MaintenanceState(
        switch=next((part for part in parts if isinstance(part, Switch)), Switch()),
        windows=tuple(part for part in parts if isinstance(part, Window)),
        holds=tuple(part for part in parts if isinstance(part, Hold)),
    )


def command(*words: str, **env: str) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(app, list(words), env=env)


def switch(*words: str) -> Result:
    """Run the command on a file."""
    return command(*words[:1], "--backend", "file:switch", *words[1:])


def errors(result: Result) -> str:
    """Return what standard error has besides the switch, who has its state, and when it began and ended."""
    of_each = r"^(switch: |(on|off): |maintenance begins$|released after ).*\n"
    return re.sub(of_each, "", result.stderr, flags=re.MULTILINE)


class Registry:
    """The records of workers, which report what a test wants."""

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
    """A store that has the reports of these workers: `web_1` is process 1 on the host web."""

    def __init__(self, **reports: str) -> None:
        super().__init__(state=True)
        self.workers = Registry(reports)


OfApp = Callable[..., CountingStore]


def report(goes: Goes = GOES, *, requests: int = 0, seconds: float = 0, ahead: float | None = None) -> str:
    """Return the report of a worker that goes by this, and whose oldest request began so many seconds ago."""
    facts = json.loads(report_of(replace(goes, ahead=ahead), ())) | {"requests": requests}
    if requests:
        facts |= {"since": (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat(), "route": "POST /orders"}
    return json.dumps(facts)


def write(state: MaintenanceState) -> None:
    """Write the file by hand."""
    Path("switch").write_text(state_to_text(state), encoding="utf-8")


def state() -> MaintenanceState:
    """Return what the file says."""
    return LocalFileBackend("switch").peek()


def use(monkeypatch: pytest.MonkeyPatch, backend: StateBackend) -> None:
    """Let the app of `--app` have this backend."""
    monkeypatch.setattr("fastapi_maintenance.cli.switch.find_backend", lambda *_: backend)


def wait_until(condition: Callable[[], object], *, within: float = 60) -> None:
    """Return when the condition has come true; fail when it does not."""
    end = time.monotonic() + within
    while not condition():
        assert time.monotonic() < end, "it has not come true"
        time.sleep(0.02)


def process(*words: str, **settings: Any) -> subprocess.Popen[str]:  # noqa: ANN401 -- those of Popen
    """Start the command as a process."""
    env = {"PYTHONPATH": str(ROOT), "FASTAPI_MAINTENANCE_BACKEND": "file:switch", **settings.pop("env", {})}
    return subprocess.Popen([*COMMAND, *words], env={**os.environ, **env}, text=True, **settings)
