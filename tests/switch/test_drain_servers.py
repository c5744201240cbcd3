"""Drains with real stores and workers: under load, with workers that are killed or stopped, and without a store."""

from __future__ import annotations

import os
import signal
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import anyio
import httpx
import pytest

from fastapi_maintenance import (
    DrainableStateBackend,
    DrainTimeoutError,
    get_maintenance_state,
    maintenance_mode_on,
)
from fastapi_maintenance._switch.drain import get_workers
from fastapi_maintenance.backends.url import opened
from tests.support import eventually
from tests.switch.scenes import STORES, Scene, drained_under_load, staged, violations, waits

pytestmark = [pytest.mark.anyio, pytest.mark.servers]

BLOCKS = int(os.environ.get("DRAINED_BLOCKS", "10"))


@pytest.fixture
def anyio_backend() -> str:
    """Run on asyncio, as the clients of the stores do."""
    return "asyncio"


@pytest.fixture(params=["file", "redis", "asyncpg"])  # psycopg differs in nothing that these tests are about
def scene(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Scene]:
    with staged(request.param, tmp_path) as scene:
        yield scene


@pytest.mark.parametrize("scene", STORES, indirect=True)
async def test_of_blocks_under_load_none_has_a_request_inside(
    scene: Scene, record_property: Callable[[str, object], None]
) -> None:
    bodies = await drained_under_load(scene, BLOCKS)
    assert [] == violations(scene, bodies)
    assert {200, 503} == set(scene.statuses)
    record_property("median ms from the last request to the body", statistics.median(waits(scene, bodies)) * 1000)


async def test_a_killed_worker_is_not_waited_for(scene: Scene) -> None:
    async with opened(scene.url) as backend, anyio.create_task_group() as group:
        await scene.has_workers(backend)

        async def be_killed() -> None:
            with pytest.raises(httpx.TransportError):
                await scene.ask("/work/60", worker=1)

        group.start_soon(be_killed)
        await scene.has_begun()
        scene.processes[1].send_signal(signal.SIGKILL)
        async with maintenance_mode_on(backend, drain=60):
            assert 1 == len(await get_workers(backend))


async def test_a_stopped_worker_makes_the_drain_time_out_and_is_named(scene: Scene) -> None:
    async with opened(scene.url) as backend:
        await scene.has_workers(backend)
        scene.processes[1].send_signal(signal.SIGSTOP)
        try:
            with pytest.raises(DrainTimeoutError) as raised:
                async with maintenance_mode_on(backend, drain=10):
                    pytest.fail("the body ran")
        finally:
            scene.processes[1].send_signal(signal.SIGCONT)
        assert [scene.processes[1].pid] == [worker.process_id for worker in raised.value.workers]
        assert () == (await get_maintenance_state(backend)).holds
        assert 200 == await scene.ask("/work/0", worker=1)  # it runs again, and knows if it was cut off meanwhile
        await scene.has_workers(backend)
        async with maintenance_mode_on(backend, drain=60):
            assert 503 == await scene.ask("/work/0", worker=1)


async def test_a_worker_that_goes_on_after_it_was_stopped_is_waited_for_all_the_same(scene: Scene) -> None:
    async with opened(scene.url) as backend, anyio.create_task_group() as group:
        await scene.has_workers(backend)
        group.start_soon(scene.ask, "/work/12", 1)
        await scene.has_begun()

        async def be_stopped() -> None:
            scene.processes[1].send_signal(signal.SIGSTOP)
            await anyio.sleep(6)  # for all that it waits for, its time is over by then
            scene.processes[1].send_signal(signal.SIGCONT)

        group.start_soon(be_stopped)
        async with maintenance_mode_on(backend, drain=60):
            began = time.monotonic()
            await anyio.sleep(0.1)
            bodies = [(began, time.monotonic())]
    assert ([200], []) == (scene.statuses, violations(scene, bodies))


async def test_a_drain_without_its_store_ends_and_hangs_nowhere(scene: Scene) -> None:
    if scene.server is None:
        pytest.skip("a file does not go away by itself")
    server = scene.server
    async with opened(scene.url) as backend, anyio.create_task_group() as group:
        await scene.has_workers(backend)
        group.start_soon(scene.ask, "/work/10")  # longer than the drain, also where that begins late
        await scene.has_begun()

        async def go_away() -> None:
            await anyio.sleep(0.3)
            server.freeze()
            await anyio.sleep(3)
            server.thaw()

        group.start_soon(go_away)
        with anyio.fail_after(60), pytest.raises(Exception, match=r".*"):  # the drain's own, or the store's
            async with maintenance_mode_on(backend, lease=60, drain=2):
                pytest.fail("the body ran")

        async def is_given_back() -> bool:
            return not (await get_maintenance_state(backend)).holds

        await eventually(is_given_back)


async def test_a_drain_that_is_cancelled_at_any_moment_leaves_no_hold(scene: Scene) -> None:
    async with opened(scene.url) as backend:
        await scene.has_workers(backend)
        for place in range(12):
            with anyio.move_on_after(0.001 * 2**place / 4):
                async with maintenance_mode_on(backend, drain=60):
                    pass
            assert () == (await get_maintenance_state(backend)).holds


async def test_a_worker_that_is_ended_or_reloads_is_not_counted_any_more(scene: Scene) -> None:
    async with opened(scene.url) as backend:
        assert isinstance(backend, DrainableStateBackend)
        await scene.has_workers(backend)
        scene.processes[1].send_signal(signal.SIGTERM)
        await scene.has_workers(backend, 1)
