"""`middleware.py` on real servers: uvicorn with each of its WebSocket implementations, and hypercorn."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import anyio
import httpx
import pytest
from starlette.responses import PlainTextResponse
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware
from websockets.exceptions import ConnectionClosedError, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from fastapi_maintenance import MemoryBackend, client_in, maintenance_middleware, set_maintenance_mode
from fastapi_maintenance.backends.url import opened
from tests.servers import running
from tests.support import client, eventually, uvicorn_process

pytestmark = pytest.mark.servers

APP = """
import os
from fastapi import FastAPI, WebSocket, WebSocketDisconnect
from fastapi_maintenance import maintenance_middleware, path_prefix

app = FastAPI()
app.add_middleware(maintenance_middleware(backend=os.environ["SWITCH"], exempt=path_prefix("/exempt")))
log = os.open("log", os.O_APPEND | os.O_CREAT | os.O_WRONLY)

@app.get("/")
async def root():
    return "open"

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

IMPLEMENTATIONS = {
    "websockets": "websockets_impl",
    "websockets-sansio": "websockets_sansio_impl",
    "wsproto": "wsproto_impl",
}
PAIRS = [
    pair
    for pair in [("websockets", "redis"), ("websockets-sansio", "redis"), ("wsproto", "file"), ("hypercorn", "file")]
    if pair[0] == "hypercorn" or find_spec(f"uvicorn.protocols.websockets.{IMPLEMENTATIONS[pair[0]]}")
]


class Service(NamedTuple):
    """A server of the app, and its switch."""

    base: str
    switch: str
    folder: Path

    def set(self, active: bool) -> None:
        """Set the switch, from this process."""

        async def main() -> None:
            async with opened(self.switch) as backend:
                await set_maintenance_mode(active, backend)

        anyio.run(main)

    def answers(self, status: int) -> list[httpx.Response]:
        """Return the responses up to the first one with this status."""
        responses: list[httpx.Response] = []

        async def does() -> bool:
            async with httpx.AsyncClient(timeout=60) as http:
                responses.append(await http.get(self.base))
            return responses[-1].status_code == status

        anyio.run(eventually, does)
        return responses

    @contextmanager
    def open(self, path: str) -> Iterator[ClientConnection]:
        """Open a WebSocket that the app has accepted."""
        with connect(self.base.replace("http", "ws") + path, open_timeout=60) as websocket:
            websocket.send("hello")
            assert websocket.recv(60) == "hello"
            yield websocket

    async def has_cleaned_up(self) -> bool:
        """Return whether the app received 1001, once, and logged it."""
        lines = (self.folder / "log").read_text(encoding="utf-8").splitlines()
        return lines.count("1001 cleaned up") == 1


@pytest.fixture(scope="module", params=PAIRS, ids="-".join)
def service(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Serve the app by each server, on a store that pushes changes or one that is read."""
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


def test_server_implementations_that_are_installed_are_tried() -> None:
    assert {server for server, _ in PAIRS} >= {"websockets", "wsproto"}


def test_server_closes_an_open_websocket_that_is_blocked_with_1012_and_leaves_an_exempt_one(service: Service) -> None:
    service.set(active=False)
    service.answers(200)
    with service.open("/ws") as blocked, service.open("/exempt/ws") as exempt:
        service.set(active=True)
        with pytest.raises(ConnectionClosedError) as raised:
            blocked.recv(60)
        assert raised.value.rcvd is not None
        assert (raised.value.rcvd.code, raised.value.rcvd.reason) == (1012, "maintenance")
        exempt.send("still here")
        assert exempt.recv(60) == "still here"
        anyio.run(eventually, service.has_cleaned_up)


def test_server_answers_a_blocked_handshake_as_the_request_over_http(service: Service) -> None:
    service.set(active=True)
    over_http = service.answers(503)[-1]
    with pytest.raises(InvalidStatus) as caught, service.open("/ws"):
        pass
    denial = caught.value.response
    names = ("content-type", "retry-after", "cache-control")
    assert (denial.status_code, bytes(denial.body or b"")) == (503, over_http.content)
    assert [denial.headers[name] for name in names] == [over_http.headers[name] for name in names]
    with service.open("/exempt/ws"):
        pass


def test_server_obeys_another_process_and_with_a_file_from_the_next_request_on(service: Service) -> None:
    for active in (False, True, False):
        service.set(active=active)
        answers = service.answers(503 if active else 200)
        assert len(answers) == 1 or not service.switch.startswith("file:")
    with service.open("/ws"):
        pass


@pytest.mark.parametrize(
    ("around", "status"),
    [
        (lambda app: ProxyHeadersMiddleware(app, "*"), 200),  # the server believes what the client wrote itself
        (lambda app: ProxyHeadersMiddleware(app, "127.0.0.1"), 503),
        (lambda app: app, 503),
    ],
    ids=["--forwarded-allow-ips=*", "--forwarded-allow-ips=127.0.0.1", "--no-proxy-headers"],
)
def test_server_that_trusts_every_proxy_lets_clients_choose_their_address(
    around: Callable[[Any], Any], status: int
) -> None:
    """As the documentation of `client_in` says: the proxy on 127.0.0.1 appends the last address."""
    exempt = client_in("10.0.0.0/8", trusted_proxies=["127.0.0.1"])
    app = maintenance_middleware(backend=MemoryBackend(state=True), exempt=exempt)(PlainTextResponse("open"))

    async def statuses() -> list[int]:
        async with client(around(app), peer=("127.0.0.1", 50_000)) as http:
            sent = [{"X-Forwarded-For": addresses} for addresses in ("10.0.0.1, 203.0.113.9", "10.0.0.1")]
            return [(await http.get("/", headers=headers)).status_code for headers in sent]

    assert anyio.run(statuses) == [status, 200]
