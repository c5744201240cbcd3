"""What does a process hold after many requests, changes and failures of its store, and how does it stop?

For each server and store, one process serves an app with the middleware. Clients send requests without pause and keep
WebSockets open. While they do, maintenance begins and ends in different ways, from inside the process and from outside,
and the store is stopped and continued, killed and restarted. A first, shorter round warms the process up. What it holds
after that is compared with what it holds at the end. Then it is stopped with SIGTERM.

The script ends with 1 if anything is wrong: a request that gets anything but 200 or the middleware's own 503, answers
that do not follow a change within ten seconds, a change that raises, growth, or a stop that is not clean.

    python benchmarks/soak.py redis postgresql --server uvicorn --server granian

The store `none` is the app without the middleware, for comparison.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import psutil
from soaking import Soak
from tables import print_table
from workers import HERE

from fastapi_maintenance import get_maintenance_state
from tests.servers import Server, running
from tests.support import free_port, wait_for_port

SERVERS = {
    "uvicorn": "uvicorn soaked:app --port {} --log-level warning --timeout-keep-alive 15",
    "hypercorn": "hypercorn soaked:app --bind 127.0.0.1:{} --keep-alive 15",
    "hypercorn-trio": "hypercorn soaked:app --bind 127.0.0.1:{} --keep-alive 15 -k trio",
    "granian": "granian soaked:app --port {} --interface asgi",
    "gunicorn": "gunicorn soaked:app -b 127.0.0.1:{} --keep-alive 15 --no-control-socket -k asgi",
    "gunicorn-uvicorn": "gunicorn soaked:app -b 127.0.0.1:{} --keep-alive 15 --no-control-socket"
    " -k uvicorn.workers.UvicornWorker",
}
"""How each server is started. No connection is closed because this process had to wait for the processor."""

STORES = {"redis": "redis", "postgresql": "asyncpg", "psycopg": "psycopg", "file": "", "memory": "", "none": ""}
"""Each store, and its name in `tests.servers` if it is a process. The others work on trio too."""

_NOISE = {"MiB": 10, "objects": 1000, "files": 2, "store": 2}  # pools grow by chance


def more(before: dict[str, float], after: dict[str, float]) -> list[str]:
    """Return what has grown by more than noise."""
    growth = {name: after[name] - before[name] for name in before}
    return [f"{name} {grown:+.0f}" for name, grown in growth.items() if grown > _NOISE.get(name, 0)]


@contextmanager
def served(server: str, port: int, url: str | None, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Serve the app, and end what is left of the process by its id."""
    path = os.pathsep.join([str(HERE), str(HERE.parent), os.environ.get("PYTHONPATH", "")])
    env = {**os.environ, "PYTHONPATH": path, **({"SOAK_STORE": url} if url else {})}
    command = [sys.executable, "-m", *SERVERS[server].format(port).split()]
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=log.parent, env=env, stdout=output, stderr=output)
    try:
        wait_for_port(port, process)
        yield process
    finally:
        if process.poll() is None:
            for one in psutil.Process(process.pid).children(recursive=True):
                one.kill()
            process.kill()
            process.wait(30)


def stop(process: subprocess.Popen[bytes], worker: psutil.Process, log: Path) -> list[str]:
    """Stop a server with SIGTERM, and return what is not clean about it."""
    serving = log.stat().st_size
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(30)
    said = log.read_bytes()[serving:].decode(errors="replace")
    wrong = [] if process.returncode in {0, -signal.SIGTERM} else [f"stop: status {process.returncode}"]
    if errors := re.findall(r"^.*(?:Traceback|\w(?:Error|Exception)\b|Task (?:exception|was)).*$", said, re.MULTILINE):
        wrong.append(f"stop: {errors[-1]:.60}")
    return [*wrong, *(["stop: its worker still runs"] if worker.is_running() else [])]


async def holds(one: Soak, before: dict[str, float] | None = None) -> tuple[dict[str, float], Any]:
    """Return what the process holds, and its own answer, which names its tasks.

    Wait until it holds no more than `before`, for 40 seconds at most. Without `before`, wait for 20 seconds, since idle
    threads and connections end within 15.
    """
    end = time.monotonic() + (20 if before is None else 40)
    async with one.client() as http:
        while True:
            said = (await http.get("/exempt/figures")).json()
            process = psutil.Process(said["process"])
            ports = [connection.raddr.port for connection in process.net_connections("tcp") if connection.raddr]
            figures = {
                "MiB": process.memory_info().rss / 2**20,
                "objects": said["objects"],
                "tasks": len(said["tasks"]),
                "threads": process.num_threads(),
                "files": process.num_fds(),
                "store": ports.count(one.store.port) if one.store else 0,
            }
            if time.monotonic() > end or (before is not None and not more(before, figures)):
                return figures, said
            await asyncio.sleep(0.5)


async def soak(server: str, name: str, options: argparse.Namespace, folder: Path, store: Server | None) -> list[str]:
    """Soak one process; return the cells of its row."""
    urls = {"file": f"file:{folder / 'switch'}", "memory": "memory:", "none": None}
    one = Soak(free_port(), store.url if store else urls[name], store)
    log = folder / f"{server}-{name}.log"
    with served(server, one.port, one.url, log) as process:
        await one.load(max(options.requests // 10, 1000), 24, faults=store is not None)
        before, _ = await holds(one)
        warm, one.closed, one.slowest = one.answers.total(), 0, 0.0  # what went wrong until here is wrong too
        await one.load(options.requests, options.changes, faults=store is not None)
        after, said = await holds(one, before)
        if one.url not in {None, "memory:"}:
            state = await get_maintenance_state(one.url)
            one.wrong["left in the store"] += len(state.holds) + len(state.windows) + state.switch.on
        tracebacks = log.read_text(errors="replace").count("Traceback")
        wrong = [f"{what} ({times})" for what, times in one.wrong.items() if times] + more(before, after)
        wrong += stop(process, psutil.Process(said["process"]), log)
    if after["tasks"] > before["tasks"]:
        print("tasks:", *said["tasks"], sep="\n  ")
    counts = [one.answers.total() - warm, options.changes if one.url else 0, one.closed, tracebacks]
    held = [f"{before[key]:.0f} > {after[key]:.0f}" for key in before]
    return [*map(str, counts), f"{one.slowest * 1000:.0f} ms", *held, "; ".join(wrong) or "nothing"]


def main() -> int:
    """Soak each server on each store, print a table, and return 1 if anything is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stores", nargs="*", metavar="store", help=f"of {', '.join(STORES)}; the first two by default")
    parser.add_argument("--server", action="append", choices=SERVERS, help="as often as wanted; uvicorn by default")
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--changes", type=int, default=200, help="how often maintenance begins or ends")
    parser.add_argument("--minutes", type=float, default=60, help="that one row may take")
    parser.add_argument("--logs", type=Path, help="a folder in which the servers' logs are kept")
    options = parser.parse_args()
    if unknown := set(options.stores) - STORES.keys():
        parser.error(f"there is no store {', '.join(sorted(unknown))}")
    logging.disable()  # only here: the changes from outside see the faults too
    rows: list[tuple[str, list[str]]] = []
    for server, name in product(options.server or ["uvicorn"], options.stores or ["redis", "postgresql"]):
        if find_spec(SERVERS[server].split()[0]) is None or (server == "hypercorn-trio" and STORES[name]):
            print(f"left out: {server} on {name}")
            continue
        with ExitStack() as stack:
            folder = options.logs or Path(stack.enter_context(TemporaryDirectory(prefix="maintenance-soak-")))
            store = stack.enter_context(running(STORES[name])) if STORES[name] else None
            soaking = soak(server, name, options, folder, store)
            try:
                cells = asyncio.run(asyncio.wait_for(soaking, options.minutes * 60))
            except (OSError, httpx.HTTPError, psutil.NoSuchProcess) as error:  # the process hangs or is gone
                cells = ["?"] * 11 + [f"{error!r:.100}"]
        rows.append((f"{server}, {name}", cells))
    held = ["MiB", "objects", "tasks", "threads", "files", "store connections"]
    columns = ["server, store", "requests", "changes", "closed", "tracebacks", "slowest", *held, "wrong"]
    print_table("What one process held after the warm-up and at the end", columns, rows)
    return int(any(cells[-1] != "nothing" for _, cells in rows))


if __name__ == "__main__":
    sys.exit(main())
