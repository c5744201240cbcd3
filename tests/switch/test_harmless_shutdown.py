"""A shutdown: an app awaits nothing after its last message, as a server such as hypercorn may cancel it then."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
from fastapi import FastAPI
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fastapi_maintenance import LocalFileBackend, MemoryBackend, maintenance_middleware
from tests.stores import BareSwitch, WatchableStore
from tests.support import uvicorn_process


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
def test_hypercorn_that_is_terminated_logs_no_error(tmp_path: Path, switch: str, worker: str) -> None:
    (tmp_path / "served.py").write_text(SERVED, encoding="utf-8")
    log, environment = tmp_path / "log", {"SWITCH": switch}
    with uvicorn_process("served:app", "-k", worker, server="hypercorn", env=environment, folder=tmp_path, log=log):
        pass
    text = log.read_text(encoding="utf-8")
    assert [one for one in ("Traceback", "CancelledError", "Exception") if one in text] == []


async def embedded(app: ASGIApp, before_stop: Callable[[], None] = lambda: None) -> list[str]:
    """Run an app as hypercorn does, which cancels it once it has sent its last message; return what happened."""
    log: list[str] = []
    started, stop, stopped = anyio.Event(), anyio.Event(), anyio.Event()

    async def receive() -> Message:
        if not log:
            log.append("received startup")
            return {"type": "lifespan.startup"}
        await stop.wait()
        return {"type": "lifespan.shutdown"}

    async def send(message: Message) -> None:  # never waits, like hypercorn's
        log.append(message["type"].removeprefix("lifespan."))
        started.set()
        if log[-1] != "startup.complete":
            stopped.set()

    async def run() -> None:
        await app({"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}, receive, send)
        log.append("returned")  # the caller's own cleanup

    with anyio.fail_after(60):
        task = asyncio.ensure_future(run())
        await started.wait()
        before_stop()
        stop.set()
        await stopped.wait()
        task.cancel()
        await asyncio.wait([task])
    return log


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
    assert await embedded(app, go_down) == expected


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
    assert await embedded(app) == ["received startup", *before, f"{at}.failed", "returned"]
