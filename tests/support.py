"""Clients of apps: over HTTP and WebSocket in this process, and of real servers."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Scope
from trio.testing import MockClock

from fastapi_maintenance._helpers import clock

ROOT = Path(__file__).parent.parent
_EACH = 1_000  # ports
_begins = 20_000 + int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]) % 10 * _EACH
_ports = itertools.count(random.randrange(_EACH))  # noqa: S311 -- no secret


def client(app: ASGIApp, *, root_path: str = "", peer: tuple[str, int] = ("192.0.2.1", 50_000)) -> httpx.AsyncClient:
    """Return a client whose requests go straight to the app."""
    transport = httpx.ASGITransport(app=app, root_path=root_path, client=peer)
    return httpx.AsyncClient(transport=transport, base_url="http://testserver")


def make_request(
    path: str = "/",
    *,
    method: str = "GET",
    headers: Sequence[tuple[str, str]] = (),
    query: str = "",
    root_path: str = "",
    peer: tuple[str, int] | None = ("192.0.2.1", 50_000),
) -> Request:
    """Return a request as a server creates it; `path` is decoded and includes `root_path`."""
    return Request(
        {
            "type": "http",
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode("utf-8", "replace"),
            "query_string": query.encode("latin-1"),
            "root_path": root_path,
            "headers": [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers],
            "client": peer,
            "server": ("testserver", 80),
        }
    )


def websocket_scope(path: str = "/ws", *, denial: bool = False, headers: Mapping[str, str] | None = None) -> Scope:
    """Return the scope of a WebSocket handshake, from a server with or without the denial extension."""
    return {
        "type": "websocket",
        "http_version": "1.1",
        "scheme": "ws",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()],
        "client": ("192.0.2.1", 50_000),
        "server": ("testserver", 80),
        "subprotocols": [],
        "extensions": {"websocket.http.response": {}} if denial else {},
    }


async def handshake(app: ASGIApp, scope: Scope, *, impatient: bool = False) -> list[Message]:
    """Connect to an app as a WebSocket client, and return what the app sent.

    The client disconnects after the answer; an impatient one does not wait for it.
    """
    sent: list[Message] = []
    connected, answered = False, anyio.Event()

    async def receive() -> Message:
        nonlocal connected
        if not connected:
            connected = True
            return {"type": "websocket.connect"}
        if not impatient:
            await answered.wait()
        return {"type": "websocket.disconnect", "code": 1000}

    async def send(message: Message) -> None:
        sent.append(dict(message))
        if message["type"] != "websocket.http.response.start" and not message.get("more_body"):
            answered.set()

    with anyio.fail_after(30):
        await app(scope, receive, send)
    return sent


class OddError(BaseException):
    """A `BaseException` that is not an `Exception`, as extensions in other languages raise."""


async def eventually(condition: Callable[[], Awaitable[bool] | bool], *, within: float = 30.0) -> None:
    """Return when the condition is true; raise if that takes longer than these seconds."""
    pause = 0.005
    with anyio.fail_after(within):
        while not (known if isinstance(known := condition(), bool) else await known):
            await anyio.sleep(pause)
            pause = min(1.2 * pause, 0.05)  # poll slow conditions less often


class JumpingLoop(asyncio.SelectorEventLoop):
    """An asyncio event loop whose time passes only while everything waits, and then at once."""

    def __init__(self) -> None:
        self._passed = 0.0
        super().__init__()
        selector: Any = vars(self)["_selector"]
        select = selector.select

        def jump(timeout: float | None) -> Any:  # noqa: ANN401 -- what selectors return
            self._passed += timeout or 0.0
            return select(0)

        selector.select = jump

    def time(self) -> float:
        return self._passed


def on_jumping_clock(name: str, monkeypatch: pytest.MonkeyPatch) -> tuple[str, dict[str, Any]]:
    """Return the value of the fixture `anyio_backend` with a clock that jumps, which the library uses too."""
    began = clock.now()
    monkeypatch.setattr(clock, "now", lambda: began + timedelta(seconds=anyio.current_time()))
    return name, {"loop_factory": JumpingLoop} if name == "asyncio" else {"clock": MockClock(autojump_threshold=0)}


RunJumping = Callable[[Callable[[], Awaitable[None]]], None]
"""Runs a function on a clock that jumps."""


def free_port() -> int:
    """Return a free port of 127.0.0.1, below the range for the clients' ends of connections.

    Each worker of pytest-xdist has its own range, so no two use the same port.
    """
    for _ in range(_EACH):
        port = _begins + next(_ports) % _EACH
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    message = f"no port from {_begins} on is free"
    raise OSError(message)


@contextlib.contextmanager
def uvicorn_process(
    app: str,
    *arguments: str,
    server: str = "uvicorn",
    agent: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    folder: Path = ROOT,
    log: Path | None = None,
) -> Iterator[str]:
    """Run `uvicorn app arguments` in a new process, yield its base URL, and end the process.

    `agent` is a command that runs it, such as `opentelemetry-instrument`.
    """
    port = free_port()
    bind = (
        ["--bind", f"127.0.0.1:{port}"]
        if server in {"gunicorn", "hypercorn"}
        else ["--host", "127.0.0.1", "--port", str(port)]
    )
    command = [*agent, sys.executable, "-m", server, app, *bind, *arguments]
    with contextlib.ExitStack() as stack:
        output: Any = subprocess.DEVNULL if log is None else stack.enter_context(log.open("wb"))
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}", **(env or {})},
            stdout=output,
            stderr=output,
        )
        try:
            wait_for_port(port, process)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(timeout=30)


def wait_for_port(port: int, process: subprocess.Popen[bytes], *, within: float = 60.0) -> None:
    """Return when the process listens on the port; raise if it ends first, or takes longer than these seconds."""
    end = time.monotonic() + within
    while time.monotonic() < end:
        if process.poll() is not None:
            message = f"the server ended with status {process.returncode} before it listened"
            raise RuntimeError(message)
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    message = f"the server did not listen on port {port} within {within} seconds"
    raise TimeoutError(message)
