"""A shutdown: an app awaits nothing after its last message, as a server such as hypercorn may cancel it then."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import pytest
from fastapi import FastAPI
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fastapi_maintenance import LocalFileBackend, MemoryBackend, maintenance_middleware
from tests.stores import BareSwitch, WatchableStore
from tests.support import ROOT, free_port, wait_for_port


@pytest.fixture
def anyio_backend() -> str:
    """Run on asyncio, where a canceller cannot know what a task still awaits."""
    return "asyncio"


SERVED = """
import os
from fastapi import FastAPI
from fastapi_maintenance import maintenance_middleware

app = FastAPI()
if os.environ["SWITCH"]:
    app.add_middleware(maintenance_middleware(backend=os.environ["SWITCH"]))
"""


@pytest.mark.servers
@pytest.mark.parametrize("worker", ["asyncio", "trio"])
@pytest.mark.parametrize("switch", ["", "file:switch"], ids=["without the middleware", "file"])
def test_hypercorn_that_is_terminated_stops_without_an_error(tmp_path: Path, switch: str, worker: str) -> None:
    (tmp_path / "served.py").write_text(SERVED, encoding="utf-8")
    port, log = free_port(), tmp_path / "log"
    command = [sys.executable, "-m", "hypercorn", "served:app", "-b", f"127.0.0.1:{port}", "-k", worker]
    environment = {"PYTHONPATH": f"{tmp_path}:{ROOT}", "SWITCH": switch}
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=output, stderr=output)
        try:
            wait_for_port(port, process)
            process.send_signal(signal.SIGTERM)
            result = process.wait(timeout=60)
        finally:
            with suppress(ProcessLookupError):
                process.kill()
            process.wait(timeout=30)
    text = log.read_text(encoding="utf-8")
    assert [one for one in ("Traceback", "CancelledError", "Exception") if one in text] == []
    assert result == 0


class Embedding:
    """Runs an app as hypercorn does: once the app says that it is shut down, its task is cancelled."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.log: list[str] = []
        self._started, self._stop, self._stopped = anyio.Event(), anyio.Event(), anyio.Event()

    async def run(self, *, before_stop: Callable[[], None] = lambda: None) -> list[str]:
        """Start the app and stop it; return what has happened."""
        with anyio.fail_after(60):
            task = asyncio.ensure_future(self._run_app())
            await self._started.wait()
            before_stop()
            self._stop.set()
            await self._stopped.wait()
            task.cancel()
            await asyncio.wait([task])
        return self.log

    async def _run_app(self) -> None:
        scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}
        await self.app(scope, self._receive, self._send)
        self.log.append("returned")  # the caller's own cleanup

    async def _receive(self) -> Message:
        if not self.log:
            self.log.append("received startup")
            return {"type": "lifespan.startup"}
        await self._stop.wait()
        return {"type": "lifespan.shutdown"}

    async def _send(self, message: Message) -> None:  # never waits, like hypercorn's
        self.log.append(message["type"].removeprefix("lifespan."))
        self._started.set()
        if self.log[-1] != "startup.complete":
            self._stopped.set()


BACKENDS: dict[str, Callable[[Path], list[Any]]] = {
    "none": lambda _: [],
    "memory": lambda _: [MemoryBackend()],
    "bare": lambda _: [BareSwitch()],
    "two watched": lambda _: [WatchableStore(), WatchableStore()],
    "file": lambda folder: [LocalFileBackend(folder / "switch")],
    "url": lambda folder: [f"file:{folder / 'switch'}"],
}


@pytest.mark.anyio
@pytest.mark.parametrize("kind", BACKENDS)
async def test_app_that_is_shut_down_awaits_nothing_more(kind: str, tmp_path: Path) -> None:
    app = FastAPI()
    backends = BACKENDS[kind](tmp_path)
    for backend in backends:
        app.add_middleware(maintenance_middleware(backend=backend, read_timeout=60))

    def go_down() -> None:
        if kind == "two watched":
            backends[0].go_down()

    expected = ["received startup", "startup.complete", "shutdown.complete", "returned"]
    assert await Embedding(app).run(before_stop=go_down) == expected


def failing(*, at: str) -> ASGIApp:
    """Return an app that fails at its start or its end, and says so."""

    async def run(scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001 -- as in ASGI
        await receive()
        if at == "shutdown":
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": f"lifespan.{at}.failed", "message": "broken"})

    return run


@pytest.mark.anyio
@pytest.mark.parametrize("at", ["startup", "shutdown"])
@pytest.mark.parametrize("make", [MemoryBackend, BareSwitch, WatchableStore])
async def test_app_that_has_failed_awaits_nothing_more(make: Callable[[], Any], at: str) -> None:
    app = maintenance_middleware(backend=make(), read_timeout=60)(failing(at=at))
    before = [] if at == "startup" else ["startup.complete"]
    assert await Embedding(app).run() == ["received startup", *before, f"{at}.failed", "returned"]
