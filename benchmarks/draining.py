"""The service of `drains.py`: workers under load, and the faults that befall them, their records and their store."""

from __future__ import annotations

import asyncio
import math
import os
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import httpx
import psycopg
from redis import Redis, RedisError
from workers import HERE

from tests.servers import Server
from tests.support import uvicorn_process

FAULTS: dict[str, Sequence[str]] = {
    "file": (
        "folder removed",
        "records removed",
        "one record removed",
        "one lock removed",
        "one worker's files removed",
    ),
    "redis": ("records deleted", "everything flushed", "store restarted", "store restarted"),
    "postgresql": ("records deleted", "connections terminated", "store restarted", "store restarted"),
}
"""What befalls the records and the store of each kind."""

_OF_WORKERS = ("stopped", "stopped", "killed", "ended")
_PATHS = ("/work", "/work", "/thread", "/background", "/background", "/exempt")
_SHORT, _LONG, _LONG_SHARE = (
    (0.0, 0.3),
    (2.0, 5.0),
    0.02,
)  # seconds that a request takes; how many are longer than a drain
_CLIENTS = 3  # of each worker
_TO_SIGN = 2.0  # seconds that a worker has to write its record again
_TO_GO_ON = 0.1  # seconds


class Fault(NamedTuple):
    """What happens to a worker, or to the records and the store."""

    kind: str
    after: float
    """Seconds after the block before it has ended."""
    seconds: float
    """How long it lasts."""
    worker: int


class Injected(NamedTuple):
    """A fault that was injected, with its times by the clock that all processes have."""

    kind: str
    worker: int
    began: float
    ended: float


class Request(NamedTuple):
    """A request that maintenance blocks, with its times by the same clock."""

    worker: int
    process: int
    began: float
    ended: float


def plan(store: str, workers: int, rng: random.Random) -> list[Fault]:
    """Choose the faults of one block."""
    kinds = rng.choices([rng.choice(_OF_WORKERS), rng.choice(FAULTS[store])], k=rng.randint(1, 2))
    return [Fault(kind, rng.uniform(0, 3), 0.5 + 5.5 * rng.random() ** 2, rng.randrange(workers)) for kind in kinds]


class Worker:
    """One uvicorn process after the other on one switch.

    Args:
        number: Its number.
        url: The switch.
        folder: Where its logs are.
    """

    def __init__(self, number: int, url: str, folder: Path) -> None:
        self.is_busy = asyncio.Lock()
        self.base = ""
        self.process = 0
        self._number = number
        self._url = url
        self._folder = folder
        self._running = ExitStack()
        self._lives: list[tuple[Path, float]] = []

    def start(self) -> None:
        """Start a process, and return when it serves."""
        log = self._folder / f"{self._number}-{len(self._lives)}.requests"
        env = {"DRAINS_STORE": self._url, "DRAINS_LOG": str(log)}
        served = uvicorn_process("drained:app", "--no-access-log", env=env, folder=HERE, log=log.with_suffix(".log"))
        self.base = self._running.enter_context(served)
        self.process = int(log.read_text().partition("\n")[0])
        self._lives.append((log, math.inf))

    def end(self) -> None:
        """End the process in good order."""
        self._running.close()

    def kill(self) -> None:
        """Kill the process; none of its requests goes on after that."""
        os.kill(self.process, signal.SIGKILL)
        self._lives[-1] = self._lives[-1][0], time.monotonic()
        self._running.close()

    def requests(self) -> Iterator[Request]:
        """Yield the requests that it has begun, as they logged it."""
        for log, killed in self._lives:
            process, *lines = log.read_text().splitlines()
            times: dict[str, list[float]] = {}
            for number, moment in map(str.split, lines):
                times.setdefault(number, []).append(float(moment))
            yield from (Request(self._number, int(process), *[*each, killed][:2]) for each in times.values())


@dataclass
class Service:
    """Workers on one switch, their clients, and what was injected."""

    store: str
    url: str
    server: Server | None
    folder: Path
    workers: list[Worker] = field(default_factory=list)
    answers: Counter[int] = field(default_factory=Counter)
    injected: list[Injected] = field(default_factory=list)
    is_closed: Callable[[], bool] = lambda: False
    """Whether the body of a block runs."""
    _is_starting: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def run(self, stack: AsyncExitStack, workers: int) -> None:
        """Start so many workers and their clients, until the stack is closed."""
        for number in range(workers):
            worker = Worker(number, self.url, self.folder)
            stack.callback(worker.end)
            await asyncio.to_thread(worker.start)
            self.workers.append(worker)
        for number in range(workers * _CLIENTS):
            asking = asyncio.create_task(self._ask(self.workers[number % workers], random.Random(number)))
            stack.callback(asking.cancel)

    async def _ask(self, worker: Worker, rng: random.Random) -> None:
        """Send one request after the other, until cancelled."""
        async with httpx.AsyncClient(timeout=30) as http:
            while True:
                seconds = rng.uniform(*(_LONG if rng.random() < _LONG_SHARE else _SHORT))
                path = f"{worker.base}{rng.choice(_PATHS)}/{seconds:.3f}"
                try:
                    self.answers[(await http.get(path)).status_code] += 1
                except httpx.TransportError:
                    self.answers[0] += 1
                    await asyncio.sleep(0.1)
                await asyncio.sleep(rng.uniform(0, 0.05))

    async def inject(self, fault: Fault) -> None:
        """Inject a fault at its time."""
        await asyncio.sleep(fault.after)
        if fault.kind in _OF_WORKERS:
            worker = self.workers[fault.worker]
            async with worker.is_busy:
                await self._timed(fault, self._befall(worker, fault))
        elif fault.kind == "store restarted":
            async with self._is_starting:
                await self._timed(fault, self._restart_store(fault.seconds / 4))
        else:
            while fault.kind == "everything flushed" and self.is_closed():  # noqa: ASYNC110 -- it may let requests in, as documented
                await asyncio.sleep(0.01)
            with suppress(RedisError, psycopg.Error):  # the store is being restarted
                await self._timed(fault, asyncio.to_thread(self._lose, fault.kind))

    async def _timed(self, fault: Fault, doing: Awaitable[None]) -> None:
        began = time.monotonic()
        await doing
        self.injected.append(Injected(fault.kind, fault.worker, began, time.monotonic()))

    async def _befall(self, worker: Worker, fault: Fault) -> None:
        if fault.kind == "stopped":
            os.kill(worker.process, signal.SIGSTOP)
            try:
                await asyncio.sleep(fault.seconds)
            finally:
                os.kill(worker.process, signal.SIGCONT)
            return
        await asyncio.to_thread(worker.kill if fault.kind == "killed" else worker.end)
        async with self._is_starting:  # a worker that starts without its store knows no state, as documented
            await asyncio.to_thread(worker.start)

    async def _restart_store(self, seconds: float) -> None:
        assert self.server is not None
        await asyncio.to_thread(self.server.kill)
        await asyncio.sleep(seconds)
        await asyncio.to_thread(self.server.start)

    def _lose(self, kind: str) -> None:
        if self.server is None:
            self._lose_files(kind)
        elif self.store == "redis":
            with Redis.from_url(self.url) as client:
                if kind == "everything flushed":
                    client.flushall()
                else:
                    client.delete(*client.keys("*:workers"))
        else:
            with psycopg.connect(f"host=127.0.0.1 port={self.server.port} user=postgres", autocommit=True) as client:
                if kind == "records deleted":
                    client.execute("DELETE FROM fastapi_maintenance WHERE key LIKE 'worker/%'")
                else:
                    client.execute("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'")

    def _lose_files(self, kind: str) -> None:
        folder = Path(self.url.removeprefix("file:") + ".workers")
        if kind == "folder removed":
            shutil.rmtree(folder, ignore_errors=True)
            return
        records = sorted(folder.glob("*.json"))
        chosen = records if kind == "records removed" else records[:1]
        suffixes = {"one lock removed": [".lock"], "one worker's files removed": [".json", ".lock"]}
        for record in chosen:
            for suffix in suffixes.get(kind, [".json"]):
                record.with_suffix(suffix).unlink(missing_ok=True)

    def is_excluded(self, request: Request, began: float) -> bool:
        """Return whether a request in the body that began then is of a worker that the documentation excludes.

        It did not run at all for two seconds before, and lost its record, or what shows that it lives.
        """
        lost = [one for one in self.injected if one.kind not in _OF_WORKERS]
        for stopped, continued in self._pauses(request.worker):
            until = min(continued, began)
            if until - stopped >= _TO_SIGN and any(
                one.began < until and stopped - _TO_SIGN < one.ended for one in lost
            ):
                return True
        return False

    def _pauses(self, worker: int) -> list[tuple[float, float]]:
        """Return from when to when a worker was stopped; one that was stopped again at once did not run between."""
        pauses: list[tuple[float, float]] = []
        for one in sorted(self.injected, key=lambda one: one.began):
            if (one.kind, one.worker) == ("stopped", worker):
                if pauses and one.began - pauses[-1][1] < _TO_GO_ON:
                    pauses[-1] = pauses[-1][0], one.ended
                else:
                    pauses.append((one.began, one.ended))
        return pauses
