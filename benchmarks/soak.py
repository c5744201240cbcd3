"""What does a process hold after many requests, changes and failures of its store, and how does it stop?

For each server and store one process serves an app with the middleware. It is warmed up, and what it holds is counted.
Then clients ask it without pause and keep WebSockets open. Meanwhile maintenance begins and ends in different ways,
inside the process and outside, and the store is stopped and continued, killed and restarted. At the end what the
process holds is counted again, and it is stopped with SIGTERM. The script ends with 1 if anything is wrong: a request
that is answered with anything but 200 or the middleware's own 503, an answer that does not follow a change within ten
seconds, more held than before, or a stop that is not clean.

    python benchmarks/soak.py redis postgresql --server uvicorn --server granian

The store `none` is the app without the middleware, for comparison.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import math
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, closing, contextmanager, suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from itertools import cycle, islice, product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import psutil
from soaked import WAYS
from tables import print_table
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from workers import HERE

from fastapi_maintenance import get_maintenance_state
from tests.servers import Server, running
from tests.support import free_port, wait_for_port

SERVERS = {
    "uvicorn": "uvicorn soaked:app --port {} --log-level warning",
    "hypercorn": "hypercorn soaked:app --bind 127.0.0.1:{}",
    "hypercorn-trio": "hypercorn soaked:app --bind 127.0.0.1:{} --worker-class trio",
    "granian": "granian soaked:app --port {} --interface asgi",
    "gunicorn": "gunicorn soaked:app --bind 127.0.0.1:{} --no-control-socket --worker-class asgi",
    "gunicorn-uvicorn": "gunicorn soaked:app --bind 127.0.0.1:{} --no-control-socket -k uvicorn.workers.UvicornWorker",
}
STORES = {"redis": "redis", "postgresql": "asyncpg", "psycopg": "psycopg", "file": "", "memory": "", "none": ""}
"""Each store, and how `tests.servers` calls it if it is a process. Those that are not work on trio too."""

_CONNECTIONS = 8
_FAULTS = [
    ("switch", False, "stopped"),
    ("block", True, "killed"),
    ("block", True, "stopped"),
    ("switch", True, "killed"),
]
"""What befalls the store, and how maintenance began before, inside the process or not."""

_FAULT_SECONDS = 3.0
_MORE_MIB, _MORE_OBJECTS = 5.0, 1000  # up to which growth is taken for noise


@dataclass
class Soak:
    """A process that is served, what was asked of it, and what it answered."""

    port: int
    url: str | None
    store: Server | None
    wrong: Counter[str] = field(default_factory=Counter)
    answers: Counter[str] = field(default_factory=Counter)
    last: str = ""
    in_a_row: int = 0
    slowest: float = 0.0
    closed: int = 0

    async def ask(self) -> None:
        """Ask without pause; where the server ends the connection in good order, go on with another one."""
        while True:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
                with closing(writer):
                    while await self._ask_once(reader, writer):
                        pass
            except (OSError, EOFError) as error:
                self.wrong[f"request: {type(error).__name__}"] += 1
                await asyncio.sleep(0.1)

    async def _ask_once(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        begin = time.perf_counter()
        writer.write(b"GET / HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n")
        async with asyncio.timeout(10):
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            await reader.readexactly(int(re.findall(rb"\r\ncontent-length: *(\d+)\r\n", head)[0]))
        self.slowest = max(self.slowest, time.perf_counter() - begin)
        status = head[9:12].decode()
        answer = "on" if status == "503" and b"\r\nretry-after: " in head else status
        self.in_a_row = self.in_a_row + 1 if answer == self.last else 1
        self.last = answer
        self.answers[answer] += 1
        if answer not in {"200", "on"}:
            self.wrong[f"request: {answer}"] += 1
        return b"\r\nconnection: close\r\n" not in head

    async def listen(self, path: str) -> None:
        """Keep a WebSocket open. If it is not exempt, maintenance may close it with 1012, or refuse it."""
        exempt = path.startswith("/exempt")
        while True:
            try:
                async with connect(f"ws://127.0.0.1:{self.port}{path}", ping_interval=None) as websocket:
                    while True:
                        await websocket.recv()
            except InvalidStatus as error:
                if exempt or error.response.status_code not in {403, 503}:
                    self.wrong[f"{path}: {error.response.status_code}"] += 1
            except (ConnectionClosed, OSError) as error:
                code = error.rcvd.code if isinstance(error, ConnectionClosed) and error.rcvd else type(error).__name__
                self.closed += 1
                if exempt or code != 1012:  # noqa: PLR2004 -- "service restart"
                    self.wrong[f"{path}: {code}"] += 1
            await asyncio.sleep(0.1)

    async def until(self, answer: str, after: str) -> None:
        """Wait until this is what every connection is answered."""
        if not await poll(lambda: self.last == answer and self.in_a_row >= 2 * _CONNECTIONS, 10):
            self.wrong[f"not {answer} after {after}"] += 1

    async def change(self, way: str, inside: bool, fault: str = "") -> None:  # noqa: FBT001 -- a row of a table
        """Let maintenance begin and end; while it is on, the store may be stopped or killed for a while."""
        name = f"{way} {'inside' if inside else 'outside'}"
        try:
            async with self._closed_inside(way) if inside else WAYS[way](self.url):
                await self.until("on", f"{name} began")
                if fault and self.store is not None:
                    await self._fail(self.store, fault)
        except Exception as error:  # noqa: BLE001 -- whatever a write raises is a result
            self.wrong[f"{name}: {error!r:.80}"] += 1
        await self.until("200", f"{name} ended")

    @asynccontextmanager
    async def _closed_inside(self, way: str) -> AsyncGenerator[None]:
        async with self.client() as http:
            closing_it = asyncio.create_task(http.post(f"/exempt/close/{way}"))
            yield
            (await http.post("/exempt/open")).raise_for_status()
            (await closing_it).raise_for_status()

    async def _fail(self, store: Server, fault: str) -> None:
        before = self.answers["200"]
        await asyncio.to_thread(store.kill if fault == "killed" else store.freeze)
        await asyncio.sleep(_FAULT_SECONDS)
        await asyncio.to_thread(store.start if fault == "killed" else store.thaw)
        assert self.url is not None
        await asyncio.wait_for(get_maintenance_state(self.url), 30)
        await asyncio.sleep(_FAULT_SECONDS)
        if opened := self.answers["200"] - before:
            self.wrong[f"200 after the store was {fault}"] += opened

    def client(self) -> httpx.AsyncClient:
        """Return a client whose connections are not kept."""
        limits = httpx.Limits(max_keepalive_connections=0)
        return httpx.AsyncClient(base_url=f"http://127.0.0.1:{self.port}", timeout=120, limits=limits)

    async def load(self, requests: int, changes: int, *, faults: bool = False) -> None:
        """Send at least so many requests; meanwhile maintenance begins or ends so often, and the store fails."""
        first, pairs = self.answers.total(), changes // 2 if self.url else 0
        kinds: list[tuple[Any, ...]] = list(product(WAYS, [True] if self.url == "memory:" else [False, True]))
        kinds = list(islice(cycle(kinds), pairs))
        for number, fault in enumerate(_FAULTS if faults else [], start=1):
            kinds.insert(number * pairs // len(_FAULTS), fault)
        paths = ["/ws", "/ws", "/exempt/ws", "/exempt/ws"]
        tasks = [asyncio.create_task(self.ask()) for _ in range(_CONNECTIONS)]
        tasks += [asyncio.create_task(self.listen(path)) for path in paths]
        for number, kind in enumerate(kinds):
            await poll(lambda: self.answers.total() >= first + requests * number // len(kinds))  # noqa: B023 -- awaited
            await self.change(*kind)
        await poll(lambda: self.answers.total() >= first + requests)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def holds(self, before: dict[str, float] | None = None) -> tuple[dict[str, float], Any]:
        """Return what the process holds, and what it says of itself.

        That is as soon as it is no more than before, or after 30 seconds; without `before`, after 12 seconds, within
        which threads that have nothing to do end.
        """
        end = time.monotonic() + (12 if before is None else 30)
        while True:
            async with self.client() as http:
                said = (await http.get("/exempt/figures")).json()
            process = psutil.Process(said["process"])
            ports = [connection.raddr.port for connection in process.net_connections("tcp") if connection.raddr]
            figures = {
                "MiB": process.memory_info().rss / 2**20,
                "objects": said["objects"],
                "tasks": len(said["tasks"]),
                "threads": process.num_threads(),
                "files": process.num_fds(),
                "store": ports.count(self.store.port) if self.store else 0,
            }
            if time.monotonic() > end or (before is not None and not more(before, figures)):
                return figures, said
            await asyncio.sleep(0.5)


async def poll(condition: Callable[[], bool], seconds: float = math.inf) -> bool:
    """Return whether the condition comes true within these seconds, as soon as it does."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        await asyncio.sleep(0.01)
    return True


def more(before: dict[str, float], after: dict[str, float]) -> list[str]:
    """Return of what there is more than before."""
    noise = {"MiB": _MORE_MIB, "objects": _MORE_OBJECTS}
    return [
        f"{name} {after[name] - before[name]:+.0f}"
        for name in before
        if after[name] > before[name] + noise.get(name, 0)
    ]


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
    if "Traceback" in said or "Error" in said:
        wrong.append("stop: an error is logged")
        print(said, file=sys.stderr)
    return [*wrong, *(["stop: its worker still runs"] if worker.is_running() else [])]


async def soak(server: str, name: str, options: argparse.Namespace, folder: Path, store: Server | None) -> list[str]:
    """Return the cells of a row: what was done, what the process held before and after, and what is wrong."""
    urls = {"file": f"file:{folder / 'switch'}", "memory": "memory:", "none": None}
    one = Soak(free_port(), store.url if store else urls[name], store)
    log = folder / f"{server}-{name}.log"
    with served(server, one.port, one.url, log) as process:
        await one.load(max(options.requests // 10, 1000), 24)
        before, _ = await one.holds()
        warm, one.closed, one.slowest = one.answers.total(), 0, 0.0
        await one.load(options.requests, options.changes, faults=store is not None)
        after, said = await one.holds(before)
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
    logging.disable()  # of this process, whose changes also see the faults
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
