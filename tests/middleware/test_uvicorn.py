"""A real server, with each of uvicorn's WebSocket implementations, closed and opened by another process."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import anyio
import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from fastapi_maintenance import LocalFileBackend, set_maintenance_mode
from tests.support import uvicorn_process

pytestmark = pytest.mark.servers

APP = """
from fastapi import FastAPI, WebSocket
from fastapi_maintenance import LocalFileBackend, maintenance_middleware, path_prefix

app = FastAPI()
app.add_middleware(maintenance_middleware(backend=LocalFileBackend("switch"), exempt=path_prefix("/exempt")))

@app.get("/")
async def root():
    return "open"

@app.websocket("/ws")
@app.websocket("/exempt/ws")
async def echo(websocket: WebSocket):
    await websocket.accept()
    await websocket.send_text(await websocket.receive_text())
"""

IMPLEMENTATIONS = [
    name
    for name, module in [
        ("websockets", "websockets_impl"),
        ("websockets-sansio", "websockets_sansio_impl"),
        ("wsproto", "wsproto_impl"),
    ]
    if find_spec(f"uvicorn.protocols.websockets.{module}")
]


@pytest.fixture(scope="module", params=IMPLEMENTATIONS)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """Run the app under uvicorn; yield its base URL and the file that is its switch."""
    folder = tmp_path_factory.mktemp("served")
    (folder / "served.py").write_text(APP, encoding="utf-8")
    with uvicorn_process("served:app", "--ws", request.param, folder=folder) as url:
        yield url, folder / "switch"


def switch(file: Path, value: str) -> None:
    """Set the switch, from this process."""
    anyio.run(set_maintenance_mode, value == "on", LocalFileBackend(file))


def echoed(url: str, path: str) -> str | bytes:
    """Say something over a WebSocket, and return what comes back."""
    with connect(url.replace("http", "ws") + path, open_timeout=60) as websocket:
        websocket.send("hello")
        return websocket.recv()


def test_both_implementations_of_uvicorn_are_tried() -> None:
    assert {"websockets", "wsproto"} <= set(IMPLEMENTATIONS)


def test_what_another_process_sets_counts_from_the_next_request_on(server: tuple[str, Path]) -> None:
    url, file = server
    statuses = []
    with httpx.Client(timeout=60) as http:
        for value in ("off", "on", "off", "on", "off"):
            switch(file, value)
            statuses.append(http.get(url).status_code)
    assert [200, 503, 200, 503, 200] == statuses


def test_a_blocked_handshake_is_answered_as_the_same_request_over_http(server: tuple[str, Path]) -> None:
    url, file = server
    switch(file, "on")
    over_http = httpx.get(url, timeout=60)
    with pytest.raises(InvalidStatus) as caught:
        echoed(url, "/ws")
    denial = caught.value.response
    names = ("content-type", "retry-after", "cache-control")
    assert (503, over_http.content) == (denial.status_code, bytes(denial.body or b""))
    assert [over_http.headers[name] for name in names] == [denial.headers[name] for name in names]


def test_an_exempt_handshake_is_let_in(server: tuple[str, Path]) -> None:
    url, file = server
    switch(file, "on")
    assert "hello" == echoed(url, "/exempt/ws")


def test_every_handshake_is_let_in_when_maintenance_is_over(server: tuple[str, Path]) -> None:
    url, file = server
    switch(file, "off")
    assert "hello" == echoed(url, "/ws")


BEHIND_PROXY = """
from fastapi import FastAPI
from fastapi_maintenance import MemoryBackend, client_in, maintenance_middleware

app = FastAPI()
app.add_api_route("/", lambda: "open")
exempt = client_in("10.0.0.0/8", trusted_proxies=["127.0.0.1"])
app.add_middleware(maintenance_middleware(backend=MemoryBackend(state=True), exempt=exempt))
"""


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["--forwarded-allow-ips", "*"], 200),  # the server believes what the client wrote itself
        (["--forwarded-allow-ips", "127.0.0.1"], 503),
        (["--no-proxy-headers"], 503),
    ],
)
def test_a_server_that_trusts_every_proxy_lets_clients_choose_their_address(
    arguments: list[str], status: int, tmp_path: Path
) -> None:
    """As the documentation of `client_in` says: the proxy on 127.0.0.1 has added the last address."""
    (tmp_path / "proxied.py").write_text(BEHIND_PROXY, encoding="utf-8")
    with uvicorn_process("proxied:app", *arguments, folder=tmp_path) as url:
        forged = httpx.get(url, headers={"X-Forwarded-For": "10.0.0.1, 203.0.113.9"}, timeout=60)
        honest = httpx.get(url, headers={"X-Forwarded-For": "10.0.0.1"}, timeout=60)
    assert (status, 200) == (forged.status_code, honest.status_code)
