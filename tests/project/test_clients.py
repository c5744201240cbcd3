"""The recipes for clients, and the responses for GraphQL, JSON-RPC and MCP, with the real clients."""

import importlib
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from fastapi import FastAPI
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from fastapi_maintenance import MaintenanceState, MemoryBackend, Switch, maintenance_middleware, set_maintenance_mode
from fastapi_maintenance._helpers import clock
from fastapi_maintenance.codec import state_to_text
from tests.documents import example
from tests.support import client, on_jumping_clock, uvicorn_process

pytestmark = pytest.mark.anyio
DOWN, ENDS_AT = "New database", datetime(2030, 12, 31, 22, tzinfo=UTC)
DATA = {"endsAt": "2030-12-31T22:00:00+00:00"}
FAILURE = {"code": -32050, "message": DOWN, "data": DATA}
LOGGED = '"WebSocket /ws" 503', "connection rejected (503 Service Unavailable)"
INCOMPLETE = "ASGI callable returned without completing handshake."
APP = """
import os
from fastapi import FastAPI, WebSocket
from fastapi_maintenance import force_maintenance_mode_off, maintenance_middleware

app = FastAPI()
app.add_middleware(maintenance_middleware(backend="file:maintenance.txt"))

@app.get("/")
async def root(): ...

@app.websocket("/ws")
async def updates(websocket: WebSocket): ...

@app.websocket("/faulty")
@force_maintenance_mode_off
async def faulty(websocket: WebSocket): ...

def keep(record):
    with open("all", "a") as file:
        print(record.getMessage(), file=file)
    return True

logging.getLogger("uvicorn.error").filters.insert(0, keep)
"""


@pytest.fixture
def anyio_backend() -> str:
    """Use asyncio, which these packages need."""
    return "asyncio"


async def closed_app(heading: str) -> tuple[FastAPI, MemoryBackend]:
    """Return the app of a recipe during maintenance, and its switch."""
    switch = MemoryBackend()
    text = example(heading).replaced("middleware(response", "middleware(backend=switch, response")
    await set_maintenance_mode(True, switch, message=DOWN, ends_at=ENDS_AT)
    app: FastAPI = text.run(switch=switch)["app"]
    for path in ("/graphql", "/rpc", "/items"):
        app.add_api_route(path, lambda: "open", methods=["POST"])
    return app, switch


async def test_graphql_client_raises_an_error_with_the_message_and_the_code() -> None:
    gql = pytest.importorskip("gql")
    transports, exceptions = (importlib.import_module(f"gql.transport.{name}") for name in ("httpx", "exceptions"))
    app, _ = await closed_app("GraphQL")
    transport = transports.HTTPXAsyncTransport(
        "http://testserver/graphql", transport=transports.httpx.ASGITransport(app)
    )
    async with gql.Client(transport=transport) as session:
        with pytest.raises(exceptions.TransportQueryError) as caught:
            await session.execute(gql.gql("{ books }"))
    extensions = {"code": "MAINTENANCE", **DATA}
    assert caught.value.errors == [{"message": DOWN, "extensions": extensions}]


def call(**more: object) -> dict[str, object]:
    return {"jsonrpc": "2.0", "method": "add", **more}


def failure(number: object) -> dict[str, object]:
    return {"jsonrpc": "2.0", "id": number, "error": FAILURE}


@pytest.mark.parametrize(
    ("sent", "answer"),
    [
        (call(id=7), failure(7)),
        (call(id="a"), failure("a")),
        ([call(id=7), call(), call(id=8)], [failure(7), failure(8)]),
        ([call(id=7)], [failure(7)]),
        (call(), None),
        ([call()], None),
        ([], None),
        (call(id={}), None),
        ({"jsonrpc": "2.0", "id": 7, "result": 8}, None),  # a client's response to a call by the server
        (call(id=7, params=["a" * 70_000]), None),
        ("[" * 50_000, None),
        ("nothing", None),
    ],
)
async def test_json_rpc_call_gets_an_error_with_its_id(sent: object, answer: object) -> None:
    app, _ = await closed_app("JSON-RPC and MCP")
    body: dict[str, Any] = {"content": sent} if isinstance(sent, str) else {"json": sent}
    async with client(app) as http:
        response = await http.post("/rpc", **body)
        elsewhere = await http.post("/items", **body)
    found = response.json()
    assert (response.status_code, found) == ((503, {"detail": DOWN}) if answer is None else (200, answer))
    assert (response.headers["x-maintenance-mode"], elsewhere.json()) == ("on", {"detail": DOWN})


@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_mcp_client_keeps_its_session_through_maintenance(mode: str) -> None:
    mcp = pytest.importorskip("mcp")
    httpx2: Any = importlib.import_module("httpx2")
    server: Any = importlib.import_module("mcp.server.mcpserver").MCPServer("orders", log_level="ERROR")

    async def total() -> int:
        return 7

    server.add_tool(total)
    inner = server.streamable_http_app(streamable_http_path="/", host="testserver")
    app, switch = await closed_app("JSON-RPC and MCP")
    app.mount("/mcp", inner)
    sessions = list[str]()
    transports = importlib.import_module("mcp.client.streamable_http")

    async def record(request: Any) -> None:  # noqa: ANN401 -- a request of httpx2
        sessions.append(request.headers.get("mcp-session-id"))

    await set_maintenance_mode(False, switch)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(inner.router.lifespan_context(inner))
        hooks = {"request": [record]}
        http = httpx2.AsyncClient(transport=httpx2.ASGITransport(app), event_hooks=hooks)
        await stack.enter_async_context(http)
        transport = transports.streamable_http_client("http://testserver/mcp/", http_client=http)
        session = await stack.enter_async_context(mcp.Client(transport, mode=mode))
        results = [(await session.call_tool("total")).structured_content]
        await set_maintenance_mode(True, switch, message=DOWN, ends_at=ENDS_AT)
        with pytest.raises(mcp.MCPError) as caught:
            await session.call_tool("total")
        await set_maintenance_mode(False, switch)
        results.append((await session.call_tool("total")).structured_content)
    assert results == [{"result": 7}] * 2
    assert caught.value.error.model_dump() == FAILURE
    assert len(set(sessions) - {None}) == (1 if mode == "legacy" else 0)


@pytest.mark.parametrize(
    ("ends_in", "status", "waited"), [(10, 200, 10), (30, 503, 0), (None, 503, 0)], ids=["soon", "late", "unknown"]
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_httpx_client_waits_as_retry_after_says_within_its_limit(
    ends_in: int | None, status: int, waited: int, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, options = on_jumping_clock("asyncio", monkeypatch)
    app, switch = FastAPI(), MemoryBackend()
    app.add_api_route("/", lambda: "open", methods=["GET", "POST"])
    app.add_middleware(maintenance_middleware(backend=switch))

    async def main() -> None:
        ends_at = None if ends_in is None else clock.now() + timedelta(seconds=ends_in)
        await set_maintenance_mode(True, switch, ends_at=ends_at)
        transport = example("httpx").run()["WaitingTransport"](httpx.ASGITransport(app))
        began = anyio.current_time()
        async with httpx.AsyncClient(transport=transport, base_url="http://testserver") as http:
            response = await http.request(method, "/", content=b"")
        assert (response.status_code, round(anyio.current_time() - began)) == (status, waited)

    anyio.run(main, backend=name, backend_options=options)


@pytest.mark.parametrize("headers", [{}, {"X-Maintenance-Mode": "on"}])
async def test_httpx_client_gives_up_after_its_tries_or_at_once_without_maintenance(
    headers: dict[str, str],
) -> None:
    asked = list[str]()

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.method)
        return httpx.Response(503, headers={"Retry-After": "0", **headers})

    names = example("httpx").run()
    async with httpx.AsyncClient(transport=names["WaitingTransport"](httpx.MockTransport(answer))) as http:
        response = await http.get("http://testserver/")
    assert (response.status_code, len(asked)) == (503, names["MOST_TRIES"] if headers else 1)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """Serve an app with the log filter of the recipe."""
    folder = tmp_path_factory.mktemp("clients")
    (folder / "served.py").write_text(example("uvicorn's log").text + APP, encoding="utf-8")
    with uvicorn_process("served:app", folder=folder, log=folder / "log") as url:
        yield url, folder


def close(folder: Path, *, ends_in: float | None = None) -> None:
    ends_at = None if ends_in is None else datetime.now(UTC) + timedelta(seconds=ends_in)
    state = MaintenanceState(switch=Switch(on=True, ends_at=ends_at))
    (folder / "maintenance.txt").write_text(state_to_text(state), encoding="utf-8")


@pytest.mark.servers
def test_urllib3_client_waits_as_retry_after_says_within_its_limit(
    served: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, folder = served
    urllib3: Any = importlib.import_module("urllib3")
    http = example("urllib3").run()["http"]
    close(folder, ends_in=1)
    assert http.request("GET", url).status == 200
    close(folder)
    waited: list[float] = []
    monkeypatch.setattr(time, "sleep", waited.append)
    with pytest.raises(urllib3.exceptions.MaxRetryError):
        http.request("GET", url)
    assert waited == [20, 20, 20]
    http.clear()


@pytest.mark.servers
def test_log_filter_drops_handshakes_that_maintenance_refuses(served: tuple[str, Path]) -> None:
    url, folder = served
    close(folder)
    statuses = []
    for path in ("/ws", "/faulty"):
        with pytest.raises(InvalidStatus) as caught:
            connect(f"{url.replace('http', 'ws')}{path}")
        statuses.append(caught.value.response.status_code)
    assert statuses == [503, 500]
    shown = (folder / "log").read_text(encoding="utf-8")
    logged = (folder / "all").read_text(encoding="utf-8").splitlines()
    assert [text for text in LOGGED if not any(line.endswith(text) for line in logged)] == []
    assert [text for text in LOGGED if text in shown] == []
    assert shown.count(INCOMPLETE) == 1
