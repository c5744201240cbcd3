"""How long after `set_maintenance_mode` has returned do all workers answer alike, and are WebSockets closed?

Four uvicorn processes serve one app. The switch is set again and again by this process; after each change every worker
is asked, without pause, until it answers as it should. What is counted is the time of the slowest worker; and apart
from that, of the last client of an open WebSocket, one on each worker, that receives 1012.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack, ExitStack
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from load import connect
from tables import print_table
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as connect_websocket
from websockets.exceptions import ConnectionClosedError

from fastapi_maintenance import set_maintenance_mode
from fastapi_maintenance.backends.url import opened
from tests.servers import running
from tests.support import uvicorn_process

_APP = """
import os
from fastapi import FastAPI, WebSocket
from fastapi_maintenance import maintenance_middleware

app = FastAPI()
app.add_middleware(maintenance_middleware(backend=os.environ["STORE"]))

@app.get("/{number}")
async def root(number: int):
    return "open"

@app.websocket("/ws")
async def listen(websocket: WebSocket):
    await websocket.accept()
    async for _ in websocket.iter_text():
        pass
"""
_WORKERS = 4
_CLOSINGS = 50
_STORES = {
    "file": ("file:{}/switch", 1000, 0.0),
    "redis": ("", 1000, 0.0),
    "postgresql+asyncpg": ("", 1000, 0.0),
    "postgresql+psycopg": ("", 1000, 0.0),
    "sqlite": ("sqlite+aiosqlite:///{}/switch.db", 100, 1.0),
}
"""Each store: its URL in a folder, unless it is a server; how often the switch is set in it; and up to how many seconds
there are between two changes, since a store that is polled is to be met at any moment of its second.
"""


async def change(url: str, workers: list[str], changes: int, pause: float) -> list[float]:
    """Return for each change the seconds until the last worker knew it."""
    ports = [int(worker.rpartition(":")[2]) for worker in workers]
    connections = [connection for port in ports for connection in await connect(port, "/{}", 1)]
    times = []
    async with opened(url) as backend:
        for number in range(changes):
            active, expected = (True, b"503") if number % 2 == 0 else (False, b"200")
            await asyncio.sleep(random.uniform(0, pause))
            await set_maintenance_mode(active, backend)
            returned = time.perf_counter()
            await asyncio.gather(*(each.ask(expected.__eq__) for each in connections))
            times.append(max(each.answered for each in connections) - returned)
    for connection in connections:
        connection.transport.close()
    return times


async def closings(url: str, workers: list[str], changes: int, pause: float) -> list[float]:
    """Return for each time that maintenance began the seconds until the last client received 1012."""
    times = []
    async with opened(url) as backend:
        for _ in range(changes):
            async with AsyncExitStack() as stack:
                opening = [connect_websocket(f"{worker.replace('http', 'ws')}/ws") for worker in workers]
                websockets = [await stack.enter_async_context(one) for one in opening]
                await asyncio.sleep(random.uniform(0, pause))
                await set_maintenance_mode(True, backend)  # noqa: FBT003 -- as in the API
                returned = time.perf_counter()
                times.append(max(await asyncio.gather(*map(_closed, websockets))) - returned)
            await set_maintenance_mode(False, backend)  # noqa: FBT003 -- as in the API
            await asyncio.sleep(pause + 0.3)  # until each worker knows
    return times


async def _closed(websocket: ClientConnection) -> float:
    try:
        await websocket.recv()
    except ConnectionClosedError as error:
        if error.rcvd is None or error.rcvd.code != 1012:  # noqa: PLR2004 -- what is measured
            raise
    return time.perf_counter()


def measure(_pythons: Mapping[str, str], *, quick: bool) -> dict[str, dict[str, list[float]]]:
    """Measure each store, print two tables, and return the seconds; if `quick`, of a tenth of the changes."""
    found: dict[str, dict[str, list[float]]] = {"answers": {}, "1012": {}}
    for name, (template, changes, pause) in _STORES.items():
        with TemporaryDirectory() as folder, ExitStack() as stack:
            url = template.format(folder) or stack.enter_context(running(name.removeprefix("postgresql+"))).url
            Path(folder, "main.py").write_text(_APP, encoding="utf-8")
            one = partial(uvicorn_process, "main:app", "--no-access-log", folder=Path(folder), env={"STORE": url})
            workers = [stack.enter_context(one()) for _ in range(_WORKERS)]
            found["answers"][name] = asyncio.run(change(url, workers, changes // (10 if quick else 1), pause))
            found["1012"][name] = asyncio.run(closings(url, workers, _CLOSINGS // (10 if quick else 1), pause))
    titles = {"answers": f"Until {_WORKERS} workers answer alike", "1012": f"Until {_WORKERS} WebSockets are closed"}
    for what, title in titles.items():
        rows = []
        for name, times in found[what].items():
            cuts = statistics.quantiles(times, n=100)
            shown = [statistics.median(times), cuts[94], cuts[98], max(times)]
            rows.append((name, [str(len(times)), *(f"{seconds * 1000:.1f} ms" for seconds in shown)]))
        columns = ["store", "changes", "median", "95 % within", "99 % within", "slowest"]
        print_table(title, columns, rows)
    return found
