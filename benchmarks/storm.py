"""Many clients are told to retry: when do they come back, and what does the process hold that answers them?

First the return is simulated: all clients ask within one second, and each comes back when its `Retry-After` has told
it to, with the header that this library gave it. Then real connections, as many as the limits of this machine allow,
ask a real server at the same moment, again and again.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import resource
import statistics
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import psutil
import uvloop
from apps import make_app
from drive import new_scope, receive
from load import Client
from server import Served, port_of, serving
from starlette.types import Message
from tables import print_table
from variants import VARIANTS
from workers import parse_peers, stores

from fastapi_maintenance import MaintenanceState, MemoryBackend, maintenance_middleware

_END = 300
"""Seconds after which the maintenance ends, where that is known."""

_TOLD: dict[str, tuple[int | tuple[int, int], bool]] = {
    "end known, 60": (60, True),
    "end known, (60, 180)": ((60, 180), True),
    "end unknown, 60": (60, False),
    "end unknown, (60, 180)": ((60, 180), False),
}
_VARIANTS = ("plain", "bare 503 in app", "memory factory", "0.0.5 env", "waygate")


async def returns(clients: int, retry_after: int | tuple[int, int], *, known: bool) -> Counter[int]:
    """Return how many clients come back in each second."""
    end = datetime.now(timezone.utc) + timedelta(seconds=_END) if known else None
    backend = MemoryBackend(MaintenanceState(active=True, ends_at=end))
    app = make_app(10)
    app.add_middleware(maintenance_middleware(backend=backend, retry_after=retry_after))
    told: list[int] = []

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            told.append(int(dict(message["headers"])[b"retry-after"]))

    for _ in range(clients):
        await app(new_scope("/first/{}"), receive, send)
    return Counter(int(random.random() + seconds) for seconds in told)


def print_returns(clients: int) -> dict[str, dict[int, int]]:
    """Print when the clients come back, and return it."""
    found, rows = {}, []
    for name, (retry_after, known) in _TOLD.items():
        seconds = asyncio.run(returns(clients, retry_after, known=known))
        found[name] = dict(sorted(seconds.items()))
        cells = [max(seconds.values()), min(seconds), max(seconds), len(seconds)]
        rows.append((name, [str(cell) for cell in cells]))
    columns = ["retry_after", "most in a second", "first after s", "last after s", "seconds with any"]
    print_table(f"The return of {clients} clients that asked in the same second, simulated", columns, rows)
    return found


@contextmanager
def watched(process: psutil.Process) -> Iterator[list[int]]:
    """Note the memory of a process, in bytes, every few milliseconds."""
    seen = [process.memory_info().rss]
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.005):
            seen.append(process.memory_info().rss)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()


async def ask_all(port: int, clients: int, times: int, process: psutil.Process) -> dict[str, Any]:
    """Open the connections, let all ask at the same moment, several times, and close them."""
    loop = asyncio.get_running_loop()
    before = process.memory_info().rss
    opened: list[Held] = []
    for begin in range(0, clients, 250):
        batch = [Held("/first/{}", 0) for _ in range(min(250, clients - begin))]
        await asyncio.gather(*(loop.create_connection(lambda held=held: held, "127.0.0.1", port) for held in batch))  # type: ignore[misc]
        opened += batch
    held, took = process.memory_info().rss, []
    with watched(process) as seen:
        for _ in range(times):
            begin_at = time.perf_counter()
            await asyncio.gather(*[client.ask() for client in opened])
            took.append(time.perf_counter() - begin_at)
    for client in opened:
        client.close()
    statuses = sum((client.statuses for client in opened), Counter[bytes]())
    return {
        "before": before,
        "open": held,
        "most": max(seen),
        "took": statistics.median(took),
        "statuses": {status.decode(): number for status, number in statuses.items()},
    }


class Held(Client):
    """A connection that asks when it is told to, and stays open."""

    def connection_made(self, transport: Any) -> None:  # noqa: ANN401 -- uvloop's
        """Wait."""
        self._transport = transport

    def ask(self) -> asyncio.Future[None]:
        """Ask once, and return what is done when the answer is there."""
        self._waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self.over.done():
            self._waiting.set_result(None)
        else:
            self._ask()
        return self._waiting

    def close(self) -> None:
        """End the connection."""
        self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        super().connection_lost(exc)
        if not self._waiting.done():
            self.statuses[b"lost"] += 1
            self._waiting.set_result(None)

    def _answered(self) -> None:
        self._waiting.set_result(None)


def main() -> None:
    """Simulate, measure, print tables, and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer", action="append", default=[], help="name=path of its Python; as often as wanted")
    parser.add_argument("--clients", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="one round")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    options = parser.parse_args()
    simulated = print_returns(options.clients)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    clients = options.clients if most == resource.RLIM_INFINITY else min(options.clients, most - 500)
    pythons = parse_peers(options.peer)
    peer_of = {name: peer for peer in pythons for name in VARIANTS[peer]}
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in _VARIANTS if name in peer_of}
    with stores() as env:
        for number in range(1 if options.quick else options.rounds):
            for name, runs in found.items():
                with ExitStack() as stack:
                    process = stack.enter_context(serving(pythons[peer_of[name]], Served(name, on=True), 10, env))
                    seen = psutil.Process(process.pid)
                    runs.append(uvloop.run(ask_all(port_of(process), clients, 3, seen)))
            print(f"round {number + 1}", file=sys.stderr, flush=True)
    rows = []
    for name, runs in found.items():
        sizes = [statistics.median(run[key] for run in runs) / 2**20 for key in ("before", "open", "most")]
        seconds = statistics.median(run["took"] for run in runs)
        answers = sum((Counter(run["statuses"]) for run in runs), Counter[str]())
        told = ", ".join(f"{count} x {status}" for status, count in sorted(answers.items()))
        cells = [*(f"{size:.1f}" for size in sizes), f"{sizes[2] - sizes[1]:.1f}", f"{seconds:.2f}", told]
        rows.append((name, cells))
    columns = ["variant", "MiB before", "all connected", "most while answering", "more", "seconds", "answers"]
    print_table(f"{clients} connections ask at the same moment, three times", columns, rows)
    if options.json:
        options.json.write_text(json.dumps({"returns": simulated, "storm": found}) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
