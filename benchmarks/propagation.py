"""How long after `set_maintenance_mode` has returned do all workers answer alike?

Four uvicorn processes serve one app. The switch is set again and again by this process; after each change every worker
is asked, without pause, until it answers as it should. What is counted is the time of the slowest worker.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from load import connect
from tables import print_table
from workers import running, uvicorn_process

from fastapi_maintenance import set_maintenance_mode
from fastapi_maintenance.backends.url import opened

__all__ = ["measure"]

_APP = """
import os
from fastapi import FastAPI
from fastapi_maintenance import maintenance_middleware

app = FastAPI()
app.add_middleware(maintenance_middleware(backend=os.environ["STORE"]))

@app.get("/{number}")
async def root(number: int):
    return "open"
"""
_WORKERS = 4
_CHANGES = {"file": 1000, "redis": 1000, "postgresql+asyncpg": 1000, "postgresql+psycopg": 1000, "sqlite": 100}
"""Each store, and how often the switch is set in it."""

_PAUSES = {"sqlite": 1.0}
"""Up to how many seconds there are between two changes: a store that is polled is met at any moment of its second."""


@contextmanager
def store(name: str, folder: Path) -> Iterator[str]:
    """Start a store, and give its URL."""
    if name == "file":
        yield f"file:{folder}/switch"
    elif name == "sqlite":
        yield f"sqlite+aiosqlite:///{folder}/switch.db"
    else:
        with running(name.removeprefix("postgresql+")) as server:
            yield server.url


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
        connection.close()
    return times


def measure(_pythons: Mapping[str, str], *, quick: bool) -> dict[str, list[float]]:
    """Measure each store, print a table, and return the seconds; if `quick`, of a tenth of the changes."""
    found = {}
    for name, changes in _CHANGES.items():
        with TemporaryDirectory() as folder, ExitStack() as stack:
            url = stack.enter_context(store(name, Path(folder)))
            Path(folder, "main.py").write_text(_APP, encoding="utf-8")
            one = partial(uvicorn_process, "main:app", "--no-access-log", folder=Path(folder), env={"STORE": url})
            workers = [stack.enter_context(one()) for _ in range(_WORKERS)]
            found[name] = asyncio.run(change(url, workers, changes // (10 if quick else 1), _PAUSES.get(name, 0)))
    rows = []
    for name, times in found.items():
        cuts = statistics.quantiles(times, n=100)
        shown = [statistics.median(times), cuts[94], cuts[98], max(times)]
        rows.append((name, [str(len(times)), *(f"{seconds * 1000:.1f} ms" for seconds in shown)]))
    columns = ["store", "changes", "median", "95 % within", "99 % within", "slowest"]
    print_table(f"Until {_WORKERS} workers answer alike", columns, rows)
    return found
