"""How long after `set_maintenance_mode` has returned do all workers answer alike?

Four uvicorn processes serve one app. The switch is set again and again by this process; after each change every worker
is asked, without pause, until it answers as it should. What is counted is the time of the slowest worker.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from fastapi_maintenance import set_maintenance_mode  # noqa: E402 -- from here on the clone can be imported
from fastapi_maintenance.backends.url import opened  # noqa: E402
from tests.servers import running  # noqa: E402
from tests.support import uvicorn_process  # noqa: E402

APP = """
import os
from fastapi import FastAPI
from fastapi_maintenance import maintenance_middleware

app = FastAPI()
app.add_middleware(maintenance_middleware(backend=os.environ["STORE"]))

@app.get("/")
async def root():
    return "open"
"""
WORKERS = 4
REQUEST = b"GET / HTTP/1.1\r\nHost: worker\r\n\r\n"
STORES = {"file": 1000, "redis": 1000, "postgresql+asyncpg": 1000, "postgresql+psycopg": 1000, "sqlite": 100}
"""Each store, and how often the switch is set in it."""

PAUSES = {"sqlite": 1.0}
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


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> int:
    """Return the status of one request."""
    writer.write(REQUEST)
    head = await reader.readuntil(b"\r\n\r\n")
    (length,) = [line.split(b":")[1] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")]
    await reader.readexactly(int(length))
    return int(head.split()[1])


async def until(status: int, connection: tuple[asyncio.StreamReader, asyncio.StreamWriter]) -> float:
    """Ask a worker until it answers with this status, and return when that was."""
    while await ask(*connection) != status:
        pass
    return time.perf_counter()


async def measure(url: str, workers: list[str], changes: int, pause: float) -> list[float]:
    """Return for each change the seconds until the last worker knew it."""
    ports = [int(worker.rpartition(":")[2]) for worker in workers]
    connections = [await asyncio.open_connection("127.0.0.1", port) for port in ports]
    times = []
    async with opened(url) as backend:
        for number in range(changes):
            active = number % 2 == 0
            await asyncio.sleep(random.uniform(0, pause))
            await set_maintenance_mode(active, backend)
            returned = time.perf_counter()
            known = await asyncio.gather(*(until(503 if active else 200, connection) for connection in connections))
            times.append(max(known) - returned)
    for _, writer in connections:
        writer.close()
    return times


def main() -> None:
    """Measure each store that is asked for, and print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stores", nargs="*", default=list(STORES), help=f"of {', '.join(STORES)}; all by default")
    parser.add_argument("--quick", action="store_true", help="a tenth of the changes")
    options = parser.parse_args()
    print("| store | changes | median | 95 % within | 99 % within | slowest |\n|---|---|---|---|---|---|")
    for name in options.stores:
        with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
            url = stack.enter_context(store(name, Path(folder)))
            Path(folder, "main.py").write_text(APP, encoding="utf-8")
            workers = [
                stack.enter_context(
                    uvicorn_process("main:app", "--no-access-log", folder=Path(folder), env={"STORE": url})
                )
                for _ in range(WORKERS)
            ]
            times = asyncio.run(
                measure(url, workers, STORES[name] // (10 if options.quick else 1), PAUSES.get(name, 0))
            )
        cuts = statistics.quantiles(times, n=100)
        shown = [statistics.median(times), cuts[94], cuts[98], max(times)]
        cells = " | ".join(f"{seconds * 1000:.1f} ms" for seconds in shown)
        print(f"| {name} | {len(times)} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
