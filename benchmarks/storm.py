"""Many clients are blocked at once: when do they come back, and how much memory does the server need?

First the return is simulated: all clients send a request within one second, and each comes back after the `Retry-After`
that this library sent it. Then real connections, as many as the limits of this machine allow, send requests to a real
server at the same moment, several times.
"""

from __future__ import annotations

import asyncio
import random
import re
import resource
import statistics
import time
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import uvloop
from load import close, connect
from starlette.types import Message
from tables import print_medians, print_table
from variants import PEER_OF, make_app, path_of
from worker import new_scope, receive
from workers import Served, serving, stores

from fastapi_maintenance import MaintenanceState, MemoryBackend, Switch, maintenance_middleware

_CLIENTS = 10_000
_END = timedelta(minutes=5)  # until the end of the maintenance
_ROUNDS = 5
_VARIANTS = ("plain", "bare 503", "memory", "0.0.5 env", "waygate")


async def returns(retry_after: int | tuple[int, int]) -> dict[int, int]:
    """Return how many clients come back in every second."""
    backend = MemoryBackend(MaintenanceState(switch=Switch(on=True, ends_at=datetime.now(UTC) + _END)))
    app = make_app(10)
    app.add_middleware(maintenance_middleware(backend=backend, retry_after=retry_after))
    seconds_sent: list[int] = []

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            seconds_sent.append(int(dict(message["headers"])[b"retry-after"]))

    for _ in range(_CLIENTS):
        await app(new_scope(path_of("first", 10)), receive, send)
    return dict(sorted(Counter(int(random.random() + seconds) for seconds in seconds_sent).items()))


def memory_of(process: int) -> tuple[float, float]:
    """Return the memory of a process in MiB, now and at most so far."""
    status = Path(f"/proc/{process}/status").read_text(encoding="utf-8")
    now, most = (int(re.findall(rf"{name}:\s+(\d+) kB", status)[0]) / 1024 for name in ("VmRSS", "VmHWM"))
    return now, most


async def ask_all(port: int, process: int, clients: int, served: Served) -> dict[str, float]:
    """Open the connections, let all ask at the same moment, three times, and close them."""
    before, took = memory_of(process)[0], []
    connections = await connect(port, path_of("first", 10), clients)
    connected = memory_of(process)[0]
    for _ in range(3):
        begin = time.perf_counter()
        await asyncio.gather(*[connection.ask() for connection in connections])
        took.append(time.perf_counter() - begin)
    most = memory_of(process)[1]
    close(connections, served, 503 if served.on else 200)
    sizes = {"MiB before": before, "all connected": connected, "at most": most, "more": most - connected}
    return {**sizes, "seconds": statistics.median(took)}


def measure(pythons: Mapping[str, str], *, quick: bool) -> dict[str, Any]:
    """Simulate, measure, print tables, and return the figures; if `quick`, one round."""
    returned = {str(retry_after): asyncio.run(returns(retry_after)) for retry_after in (60, (60, 180))}
    rows = [
        (name, [str(cell) for cell in (max(some.values()), min(some), max(some))]) for name, some in returned.items()
    ]
    columns = ["retry_after", "most in a second", "first after s", "last after s"]
    print_table(f"{_CLIENTS} clients that asked in the same second come back, simulated", columns, rows)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    clients = _CLIENTS if most == resource.RLIM_INFINITY else min(_CLIENTS, most - 500)
    found: dict[str, list[dict[str, float]]] = {name: [] for name in _VARIANTS if PEER_OF[name] in pythons}
    with stores() as env:
        for _ in range(1 if quick else _ROUNDS):
            for name, runs in found.items():
                served = Served(name, on=name != "plain")
                with serving(pythons, [served], env) as processes:
                    runs.append(uvloop.run(ask_all(*processes[served], clients, served)))
    shown = dict.fromkeys(found["memory"][0], "{:.2f}")
    print_medians(f"{clients} connections ask at the same moment, three times", shown, found)
    return {"returns": returned, "storm": found}
