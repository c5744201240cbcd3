"""Maintenance begins: real clients of real servers are told 1012, and the app learns it, on each implementation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import anyio
import pytest
from websockets.exceptions import ConnectionClosedError
from websockets.sync.client import ClientConnection, connect

from fastapi_maintenance import set_maintenance_mode
from fastapi_maintenance.backends.url import opened
from tests.middleware.test_uvicorn import IMPLEMENTATIONS
from tests.servers import running
from tests.support import eventually, uvicorn_process

pytestmark = pytest.mark.servers

APP = """
import os
from fastapi import FastAPI, WebSocket, WebSocketDisconnect
from fastapi_maintenance import maintenance_middleware, path_prefix

app = FastAPI()
app.add_middleware(maintenance_middleware(backend=os.environ["SWITCH"], exempt=path_prefix("/exempt")))
log = os.open("log", os.O_APPEND | os.O_CREAT | os.O_WRONLY)

@app.websocket("/ws")
@app.websocket("/exempt/ws")
async def echo(websocket: WebSocket):
    await websocket.accept()
    code = None
    try:
        while True:
            await websocket.send_text(await websocket.receive_text())
    except WebSocketDisconnect as disconnect:
        code = disconnect.code
    finally:
        os.write(log, f"{code} cleaned up\\n".encode())
"""

SERVERS = [*IMPLEMENTATIONS, "hypercorn"]
PAIRS = [*((server, "redis") for server in SERVERS), ("websockets", "file"), ("hypercorn", "file")]


class Service(NamedTuple):
    """A server of the app, and its switch."""

    base: str
    switch: str
    folder: Path

    def begin(self) -> None:
        """Begin maintenance."""

        async def on() -> None:
            async with opened(self.switch) as backend:
                await set_maintenance_mode(True, backend)

        anyio.run(on)

    @contextmanager
    def open(self, path: str) -> Iterator[ClientConnection]:
        """Open a WebSocket that the app has accepted."""
        with connect(self.base.replace("http", "ws") + path, open_timeout=60) as websocket:
            websocket.send("hello")
            assert "hello" == websocket.recv(60)
            yield websocket

    async def has_cleaned_up(self) -> bool:
        """Tell whether the app has written anything."""
        return bool(self.log())

    def log(self) -> list[str]:
        """Return what the app wrote."""
        return (self.folder / "log").read_text(encoding="utf-8").splitlines()


@pytest.fixture(scope="module", params=PAIRS, ids="-".join)
def service(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Serve the app by each server, on each store."""
    server, store = request.param
    folder = tmp_path_factory.mktemp("served")
    (folder / "served.py").write_text(APP, encoding="utf-8")
    with ExitStack() as stack:
        switch = f"file:{folder / 'switch'}" if store == "file" else stack.enter_context(running(store)).url
        of_uvicorn = server in IMPLEMENTATIONS
        arguments = ["--ws", server] if of_uvicorn else ["--workers", "0"]
        name = "uvicorn" if of_uvicorn else server
        served = uvicorn_process("served:app", *arguments, server=name, env={"SWITCH": switch}, folder=folder)
        yield Service(stack.enter_context(served), switch, folder)


def test_a_blocked_one_is_closed_with_1012_and_an_exempt_one_stays(service: Service) -> None:
    with service.open("/ws") as blocked, service.open("/exempt/ws") as exempt:
        service.begin()
        with pytest.raises(ConnectionClosedError) as raised:
            blocked.recv(60)
        assert raised.value.rcvd is not None
        assert (1012, "maintenance") == (raised.value.rcvd.code, raised.value.rcvd.reason)
        exempt.send("still here")
        assert "still here" == exempt.recv(60)
        anyio.run(eventually, service.has_cleaned_up)
        assert ["1012 cleaned up"] == service.log()
