"""Drains with real stores and workers: under load, with workers that are killed or stopped, and without a store."""

from __future__ import annotations

import os
import random
import signal
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import httpx
import psutil
import pytest

from fastapi_maintenance import (
    DrainableStateBackend,
    DrainTimeoutError,
    StateBackend,
    get_maintenance_state,
    maintenance_mode_on,
)
from fastapi_maintenance._switch.drain import get_workers
from fastapi_maintenance.backends.url import opened
from tests.servers import Server, running
from tests.support import eventually, uvicorn_process

pytestmark = [pytest.mark.anyio, pytest.mark.servers]

BLOCKS = int(os.environ.get("DRAINED_BLOCKS", "10"))
STORES = ["file", "redis", "asyncpg", "psycopg"]

APP = """
import asyncio
import os
import time

from fastapi import FastAPI

from fastapi_maintenance import maintenance_middleware, path_prefix

app = FastAPI()
app.add_middleware(maintenance_middleware(backend=os.environ["SWITCH"], exempt=path_prefix("/health")))
log = os.open(os.environ["LOG"], os.O_APPEND | os.O_CREAT | os.O_WRONLY)

@app.get("/work/{seconds}")
async def work(seconds: float):
    began = time.monotonic()
    try:
        await asyncio.sleep(seconds)
    finally:
        os.write(log, f"{os.getpid()} {began} {time.monotonic()}\\n".encode())

@app.get("/health/{seconds}")
async def health(seconds: float):
    await asyncio.sleep(seconds)
"""


@pytest.fixture
def anyio_backend() -> str:
    """Run on asyncio, as the clients of the stores do."""
    return "asyncio"


@dataclass
class Scene:
    """A store, and two workers behind it."""

    url: str
    log: Path
    bases: list[str]
    processes: list[psutil.Process]
    server: Server | None
    statuses: list[int] = field(default_factory=list)

    def work(self) -> list[tuple[float, float]]:
        """Return when each request that was not exempt began and ended, by a clock that all processes have."""
        lines = self.log.read_text(encoding="utf-8").splitlines() if self.log.exists() else []
        return [(float(began), float(ended)) for _, began, ended in map(str.split, lines)]

    async def ask(self, path: str, worker: int = 0) -> int:
        """Ask a worker, and return the status."""
        async with httpx.AsyncClient(base_url=self.bases[worker], timeout=30) as http:
            status = (await http.get(path)).status_code
        self.statuses.append(status)
        return status

    async def has_workers(self, backend: StateBackend, number: int = 2) -> None:
        """Wait until so many workers are counted, and each has reported."""

        async def are_there() -> bool:
            workers = await get_workers(backend)
            return number == len(workers) and all(worker.requests is not None for worker in workers)

        await eventually(are_there)


@contextmanager
def staged(kind: str, folder: Path) -> Iterator[Scene]:
    """Start a store of this kind, and two workers."""
    (folder / "served.py").write_text(APP, encoding="utf-8")
    with ExitStack() as stack:
        server = None if kind == "file" else stack.enter_context(running(kind))
        url = f"file:{folder / 'switch'}" if server is None else server.url
        environment = {"SWITCH": url, "LOG": str(folder / "log")}
        bases: list[str] = []
        workers: list[psutil.Process] = []
        for _ in range(2):
            before = psutil.Process().children()
            bases.append(stack.enter_context(uvicorn_process("served:app", env=environment, folder=folder)))
            workers += [child for child in psutil.Process().children() if child not in before]
        yield Scene(url, folder / "log", bases, workers, server)


@pytest.fixture(params=STORES)
def scene(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Scene]:
    with staged(request.param, tmp_path) as scene:
        yield scene


async def test_of_blocks_under_load_none_has_a_request_inside(
    scene: Scene, record_property: Callable[[str, object], None]
) -> None:
    bodies: list[tuple[float, float]] = []
    end = anyio.Event()
    rng = random.Random(0)  # noqa: S311 -- no secret

    async def load(number: int) -> None:
        async with httpx.AsyncClient(base_url=scene.bases[number % 2], timeout=30) as http:
            while not end.is_set():
                path = "/health/0.3" if number < 2 else f"/work/{rng.choice([0, 0.001, 0.01, 0.2])}"
                scene.statuses.append((await http.get(path)).status_code)
                await anyio.sleep(0.002)

    async with opened(scene.url) as backend, anyio.create_task_group() as group:
        await scene.has_workers(backend)
        for number in range(8):
            group.start_soon(load, number)
        for _ in range(BLOCKS):
            await anyio.sleep(rng.uniform(0, 0.1))
            async with maintenance_mode_on(backend, drain=20):
                began = time.monotonic()
                await anyio.sleep(0.02)
                bodies.append((began, time.monotonic()))
        end.set()
    work = scene.work()
    inside = [(began, ended) for began, ended in work for body in bodies if began < body[1] and body[0] < ended]
    assert [] == inside
    assert {200, 503} == set(scene.statuses)
    waits = [body[0] - max((ended for _, ended in work if ended <= body[0]), default=body[0]) for body in bodies]
    record_property("median ms from the last request to the body", statistics.median(waits) * 1000)


async def test_a_killed_worker_is_not_waited_for(scene: Scene) -> None:
    async with opened(scene.url) as backend, anyio.create_task_group() as group:
        await scene.has_workers(backend)

        async def be_killed() -> None:
            with pytest.raises(httpx.TransportError):
                await scene.ask("/work/60", worker=1)

        group.start_soon(be_killed)
        await anyio.sleep(0.3)
        scene.processes[1].send_signal(signal.SIGKILL)
        async with maintenance_mode_on(backend, drain=10):
            assert 1 == len(await get_workers(backend))


async def test_a_stopped_worker_makes_the_drain_time_out_and_is_named(scene: Scene) -> None:
    async with opened(scene.url) as backend:
        await scene.has_workers(backend)
        scene.processes[1].send_signal(signal.SIGSTOP)
        try:
            with pytest.raises(DrainTimeoutError) as raised:
                async with maintenance_mode_on(backend, drain=6):
                    pytest.fail("the body ran")
        finally:
            scene.processes[1].send_signal(signal.SIGCONT)
        assert [scene.processes[1].pid] == [worker.process_id for worker in raised.value.workers]
        assert () == (await get_maintenance_state(backend)).holds
        async with maintenance_mode_on(backend, drain=10):
            assert 503 == await scene.ask("/work/0", worker=1)


async def test_a_drain_without_its_store_ends_and_hangs_nowhere(scene: Scene) -> None:
    if scene.server is None:
        pytest.skip("a file does not go away by itself")
    server = scene.server
    async with opened(scene.url) as backend, anyio.create_task_group() as group:
        await scene.has_workers(backend)
        group.start_soon(scene.ask, "/work/1.5")
        await anyio.sleep(0.2)

        async def go_away() -> None:
            await anyio.sleep(0.3)
            server.freeze()
            await anyio.sleep(3)
            server.thaw()

        group.start_soon(go_away)
        with anyio.fail_after(30), pytest.raises(Exception, match=r".*"):  # the drain's own, or the store's
            async with maintenance_mode_on(backend, lease=5, drain=2):
                pytest.fail("the body ran")

        async def is_given_back() -> bool:
            return not (await get_maintenance_state(backend)).holds

        await eventually(is_given_back)


async def test_a_drain_that_is_cancelled_at_any_moment_leaves_no_hold(scene: Scene) -> None:
    async with opened(scene.url) as backend:
        await scene.has_workers(backend)
        for place in range(12):
            with anyio.move_on_after(0.001 * 2**place / 4):
                async with maintenance_mode_on(backend, drain=10):
                    pass
            assert () == (await get_maintenance_state(backend)).holds


async def test_a_worker_that_is_ended_or_reloads_is_not_counted_any_more(scene: Scene) -> None:
    async with opened(scene.url) as backend:
        assert isinstance(backend, DrainableStateBackend)
        await scene.has_workers(backend)
        scene.processes[1].send_signal(signal.SIGTERM)
        await scene.has_workers(backend, 1)
