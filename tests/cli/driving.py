"""Run the command, in this process and as a process of its own, on a switch in a file."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from fastapi_maintenance import LocalFileBackend, MaintenanceState
from fastapi_maintenance.cli.commands import app
from fastapi_maintenance.codec import state_to_text
from fastapi_maintenance.state import Hold, Switch, Window
from fastapi_maintenance.typing import StateBackend
from tests.servers import running
from tests.support import ROOT

COMMAND = [sys.executable, "-c", "from fastapi_maintenance.cli import main; main()"]
NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)
OFF = MaintenanceState()
APP = ["--app", "shop:app"]


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
    """Return what standard error has below the line that names the switch."""
    return re.sub(r"\Aswitch: .*\n", "", result.stderr)


def write(state: MaintenanceState) -> None:
    """Write the file by hand."""
    Path("switch").write_text(state_to_text(state), encoding="utf-8")


def state() -> MaintenanceState:
    """Return what the file says."""
    return LocalFileBackend("switch").peek()


def use(monkeypatch: pytest.MonkeyPatch, backend: StateBackend) -> None:
    """Let the app of `--app` have this backend."""
    monkeypatch.setattr("fastapi_maintenance.cli.switch.find_backend", lambda _: backend)


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


@contextmanager
def on_each_store(kind: str) -> Iterator[str]:
    """Give the URL of a store of this kind."""
    if kind == "file":
        yield "file:switch"
    else:
        with running(kind) as server:
            yield server.url
