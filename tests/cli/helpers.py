"""The command in this process and as a process, and the switch that it acts on."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from typer.testing import CliRunner, Result

from fastapi_maintenance import LocalFileBackend, MaintenanceState, state_to_text
from fastapi_maintenance.cli.commands import app
from tests.servers import running
from tests.support import ROOT

ME = f"alice@{socket.gethostname()}"


def command(*words: str, **env: str) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(app, list(words), env=env, prog_name="fastapi-maintenance")


def switch(*words: str) -> Result:
    """Run the command in this process on a file."""
    return command(*words[:1], "--backend", "file:switch", *words[1:])


def errors(result: Result) -> str:
    """Return what stands on standard error, below the line that names the switch where there is one."""
    return re.sub(r"\Aswitch: .*\n", "", result.stderr)


def process(*words: str, **settings: Any) -> subprocess.Popen[str]:  # noqa: ANN401 -- those of Popen
    """Start the command as a process on a file, or on the switch of `env`."""
    env = {"PYTHONPATH": str(ROOT), "FASTAPI_MAINTENANCE_BACKEND": "file:switch", **settings.pop("env", {})}
    python = [sys.executable, "-c", "from fastapi_maintenance.cli import main; main()"]
    return subprocess.Popen([*python, *words], env={**os.environ, **env}, text=True, **settings)


def state() -> MaintenanceState:
    """Return the state in the file, without who set it, and when."""
    return replace(LocalFileBackend("switch").peek(), by=None, since=None)


def write(state: MaintenanceState) -> None:
    """Write a state to the file."""
    Path("switch").write_text(state_to_text(state), encoding="utf-8")


def wait_until(condition: Callable[[], object], *, within: float = 60) -> None:
    """Return when the condition has come true; fail when it does not."""
    end = time.monotonic() + within
    while not condition():
        assert time.monotonic() < end, "it has not come true"
        time.sleep(0.02)


@contextmanager
def store(kind: str) -> Iterator[str]:
    """Yield the URL of a file, or of a server that runs meanwhile."""
    if kind == "file":
        yield "file:switch"
    else:
        with running(kind) as server:
            yield server.url
