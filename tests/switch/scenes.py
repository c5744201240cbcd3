"""A store with two workers behind it, and drained blocks under load."""

from __future__ import annotations

import random
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import anyio
import httpx
import psutil

from fastapi_maintenance import StateBackend, get_workers, maintenance_mode_on
from fastapi_maintenance.backends.url import opened
from tests.servers import Server, running
from tests.support import eventually, uvicorn_process

STORES = ["file", "redis", "asyncpg", "psycopg"]

APP = """
import asyncio
import os
import time
from contextlib import contextmanager

from fastapi import FastAPI

from fastapi_maintenance import maintenance_middleware, path_prefix

app = FastAPI()
app.add_middleware(maintenance_middleware(backend=os.environ["SWITCH"], exempt=path_prefix("/health")))
log = os.open(os.environ["LOG"], os.O_APPEND | os.O_CREAT | os.O_WRONLY)

@contextmanager
def logged():
    began = time.monotonic()
    try:
        yield
    finally:
        os.write(log, f"{os.getpid()} {began} {time.monotonic()}\\n".encode())

@app.get("/work/{seconds}")
async def work(seconds: float):
    with logged():
        await asyncio.sleep(seconds)

@app.get("/until/{name}")
async def work_until_let_go(name: str):
    with logged():
        os.mkdir(f"{os.environ['LOG']}.{name}.begun")
        while not os.path.exists(f"{os.environ['LOG']}.{name}.let go"):
            await asyncio.sleep(0.01)

@app.get("/health/{seconds}")
async def health(seconds: float):
    await asyncio.sleep(seconds)
"""
_names = count()


@dataclass
class Scene:
    """A store, and two workers behind it."""

    url: str
    log: Path
    server: Server | None
    bases: list[str] = field(default_factory=list)
    processes: list[psutil.Process] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)

    def work(self) -> list[tuple[float, float]]:
        """Return when each request that was not exempt began and ended, by the clock that all processes share."""
        lines = self.log.read_text(encoding="utf-8").splitlines() if self.log.exists() else []
        return [(float(began), float(ended)) for _, began, ended in map(str.split, lines)]

    async def ask(self, path: str, worker: int = 0) -> int:
        """Send a request to a worker, and return the status, 0 if the worker was killed."""
        async with httpx.AsyncClient(base_url=self.bases[worker], timeout=60) as http:
            try:
                status = (await http.get(path)).status_code
            except httpx.TransportError:
                status = 0
        self.statuses.append(status)
        return status

    @asynccontextmanager
    async def request_in_progress(self, worker: int = 0) -> AsyncGenerator[Callable[[], None]]:
        """Keep a request in progress until the yielded function is called, or the block ends."""
        name = next(_names)

        begun, let_go = (self.log.with_name(f"{self.log.name}.{name}.{end}") for end in ("begun", "let go"))
        async with anyio.create_task_group() as group:
            group.start_soon(self.ask, f"/until/{name}", worker)
            await eventually(begun.exists)
            yield let_go.touch
            let_go.touch()

    async def has_workers(self, backend: StateBackend, number: int = 2) -> None:
        """Wait until this number of workers is counted, and each has reported."""

        async def have_reported() -> bool:
            workers = await get_workers(backend)
            return len(workers) == number and all(worker.requests is not None for worker in workers)

        await eventually(have_reported)

    @contextmanager
    def worker(self) -> Iterator[int]:
        """Start one more worker, and yield its number."""
        before = psutil.Process().children()
        environment = {"SWITCH": self.url, "LOG": str(self.log)}
        with uvicorn_process("served:app", env=environment, folder=self.log.parent) as base:
            self.bases.append(base)
            self.processes += [child for child in psutil.Process().children() if child not in before]
            yield len(self.bases) - 1
            self.bases.pop()
            self.processes.pop()


@contextmanager
def staged(kind: str, folder: Path) -> Iterator[Scene]:
    """Start a store of this kind, and two workers."""
    (folder / "served.py").write_text(APP, encoding="utf-8")
    with ExitStack() as stack:
        server = None if kind == "file" else stack.enter_context(running(kind))
        scene = Scene(f"file:{folder / 'switch'}" if server is None else server.url, folder / "log", server)
        for _ in range(2):
            stack.enter_context(scene.worker())
        yield scene


async def drained_under_load(scene: Scene, blocks: int) -> list[tuple[float, float]]:
    """Enter drained blocks under a load of short and long requests; return when each body began and ended."""
    bodies: list[tuple[float, float]] = []
    end = anyio.Event()
    rng = random.Random(0)  # noqa: S311 -- no secret

    async def load(number: int) -> None:
        async with httpx.AsyncClient(base_url=scene.bases[number % 2], timeout=60) as http:
            while not end.is_set():
                path = "/health/0.3" if number < 2 else f"/work/{rng.choice([0, 0.001, 0.01, 0.2])}"
                scene.statuses.append((await http.get(path)).status_code)
                await anyio.sleep(0.002)

    async with opened(scene.url) as backend, anyio.create_task_group() as group:
        await scene.has_workers(backend)
        for number in range(8):
            group.start_soon(load, number)
        for _ in range(blocks):
            await anyio.sleep(rng.uniform(0, 0.1))
            async with maintenance_mode_on(backend, drain=60):
                began = time.monotonic()
                await anyio.sleep(0.02)
                bodies.append((began, time.monotonic()))
        end.set()
    return bodies


def violations(scene: Scene, bodies: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the requests that were in progress while a body ran."""
    return [one for one in scene.work() if any(one[0] < body[1] and body[0] < one[1] for body in bodies)]


def waits(scene: Scene, bodies: Sequence[tuple[float, float]]) -> list[float]:
    """Return the seconds from the end of the last request to the beginning of each body."""
    ends = [ended for _, ended in scene.work()]
    return [body[0] - max((ended for ended in ends if ended <= body[0]), default=body[0]) for body in bodies]
