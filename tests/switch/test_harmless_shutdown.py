"""An app that has said that it is shut down is over: hypercorn stops cleanly, and so does whoever embeds the app."""

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

from fastapi_maintenance import LocalFileBackend, MemoryBackend, StateBackend, maintenance_middleware
from tests.stores import BareSwitch, WatchableStore
from tests.support import ROOT, free_port, wait_for_port


@pytest.fixture
def anyio_backend() -> str:
    """Run on asyncio, where whoever cancels a task cannot know what it still does."""
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
@pytest.mark.parametrize("switch", ["", "memory:", "file:switch", "env:HARMLESS"])
def test_hypercorn_is_terminated_stops_without_an_error(tmp_path: Path, switch: str, worker: str) -> None:
    """Without the middleware, an empty switch, it does so too."""
    (tmp_path / "served.py").write_text(SERVED, encoding="utf-8")
    port, log = free_port(), tmp_path / "log"
    command = [sys.executable, "-m", "hypercorn", "served:app", "-b", f"127.0.0.1:{port}", "-k", worker]
    environment = {"PYTHONPATH": f"{tmp_path}:{ROOT}", "SWITCH": switch, "FASTAPI_MAINTENANCE_MODE": "0"}
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


def app_on(*backends: StateBackend) -> FastAPI:
    app = FastAPI()
    for backend in backends:
        app.add_middleware(maintenance_middleware(backend=backend, read_timeout=60))
    return app


class Embedding:
    """Runs an app as hypercorn does: once the app says that it is shut down, what runs it is cancelled."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.log: list[str] = []
        self.started, self.stopped = anyio.Event(), anyio.Event()
        self._stop = anyio.Event()

    async def run(self, *, meanwhile: Callable[[], None] = lambda: None) -> list[str]:
        """Start the app and stop it; return what has happened."""
        with anyio.fail_after(60):
            task = asyncio.ensure_future(self._run_app())
            await self.started.wait()
            meanwhile()
            self._stop.set()
            await self.stopped.wait()
            task.cancel()
            await asyncio.wait([task])
        return self.log

    async def _run_app(self) -> None:
        scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}
        await self.app(scope, self._receive, self._send)
        self.log.append("returned")  # the caller's own cleanup

    async def _receive(self) -> Message:
        if not self.started.is_set() and not self.log:
            self.log.append("received startup")
            return {"type": "lifespan.startup"}
        await self._stop.wait()
        return {"type": "lifespan.shutdown"}

    async def _send(self, message: Message) -> None:  # it never waits, as hypercorn's does not
        self.log.append(message["type"].removeprefix("lifespan."))
        if message["type"] == "lifespan.startup.complete":
            self.started.set()
        else:
            self.started.set()
            self.stopped.set()


ENDED = ["received startup", "startup.complete", "shutdown.complete", "returned"]


@pytest.mark.anyio
@pytest.mark.parametrize("number", [0, 1, 2])
@pytest.mark.parametrize("make", [MemoryBackend, BareSwitch, WatchableStore])
async def test_lifespan_app_is_shut_down_awaits_nothing_more(make: Callable[[], StateBackend], number: int) -> None:
    assert await Embedding(app_on(*(make() for _ in range(number)))).run() == ENDED


@pytest.mark.anyio
async def test_lifespan_app_on_a_file_is_shut_down_awaits_nothing_more(tmp_path: Path) -> None:
    assert await Embedding(app_on(LocalFileBackend(tmp_path / "switch"))).run() == ENDED


@pytest.mark.anyio
async def test_lifespan_app_on_a_url_is_shut_down_awaits_nothing_more(tmp_path: Path) -> None:
    app = FastAPI()
    app.add_middleware(maintenance_middleware(backend=f"file:{tmp_path / 'switch'}", read_timeout=60))
    assert await Embedding(app).run() == ENDED


@pytest.mark.anyio
async def test_lifespan_backend_is_down_at_the_end_awaits_nothing_more() -> None:
    store = WatchableStore()
    assert await Embedding(app_on(store)).run(meanwhile=store.go_down) == ENDED


def failing(*, at: str) -> ASGIApp:
    """Return an app that fails at its start or its end, and says so."""

    async def run(scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001 -- as ASGI has it
        await receive()
        if at == "startup":
            await send({"type": "lifespan.startup.failed", "message": "broken"})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.failed", "message": "broken"})

    return run


@pytest.mark.anyio
@pytest.mark.parametrize("at", ["startup", "shutdown"])
@pytest.mark.parametrize("make", [MemoryBackend, BareSwitch, WatchableStore])
async def test_lifespan_app_has_failed_awaits_nothing_more(make: Callable[[], Any], at: str) -> None:
    app = maintenance_middleware(backend=make(), read_timeout=60)(failing(at=at))
    before = [] if at == "startup" else ["startup.complete"]
    assert await Embedding(app).run() == ["received startup", *before, f"{at}.failed", "returned"]
