"""Drains with real stores and workers: under load, with workers that are killed or stopped, and while a store hangs."""

from __future__ import annotations

import signal
import statistics
import time
from collections.abc import Callable, Iterator

import anyio
import pytest

from fastapi_maintenance import DrainTimeoutError, get_maintenance_state, get_workers, maintenance_mode_on
from fastapi_maintenance.backends.url import opened
from tests.support import eventually
from tests.switch.scenes import STORES, Scene, drained_under_load, staged, violations, waits

pytestmark = [pytest.mark.anyio, pytest.mark.servers]

BLOCKS = 3  # of two seconds at least; `benchmarks/drains.py` enters more


@pytest.fixture
def anyio_backend() -> str:
    """Run on asyncio, as the clients of the stores do."""
    return "asyncio"


@pytest.fixture(scope="module", params=STORES)
def stage(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """Start a store and two workers, shared by the tests."""
    with staged(request.param, tmp_path_factory.mktemp("stage")) as scene:
        yield scene


@pytest.fixture
def scene(stage: Scene) -> Scene:
    stage.statuses.clear()
    return stage


# psycopg does not differ in the other tests
without_psycopg = pytest.mark.parametrize("stage", ["file", "redis", "asyncpg"], indirect=True, scope="module")


async def test_drain_under_load_leaves_no_request_in_a_block(
    scene: Scene, record_property: Callable[[str, object], None]
) -> None:
    bodies = await drained_under_load(scene, BLOCKS)
    assert violations(scene, bodies) == []
    assert set(scene.statuses) == {200, 503}
    record_property("median ms from the last request to the body", statistics.median(waits(scene, bodies)) * 1000)


@without_psycopg
async def test_drain_with_a_worker_that_is_killed_or_ended_does_not_wait_for_it(scene: Scene) -> None:
    async with opened(scene.url) as backend:
        with scene.worker() as number:
            await scene.has_workers(backend, 3)
            async with scene.request_in_progress(number):
                scene.processes[number].send_signal(signal.SIGKILL)
                async with maintenance_mode_on(backend, drain=60):
                    assert len(await get_workers(backend)) == 2
            assert scene.statuses == [0]
        with scene.worker() as number:
            await scene.has_workers(backend, 3)
            scene.processes[number].send_signal(signal.SIGTERM)
            await scene.has_workers(backend, 2)


@without_psycopg
async def test_drain_with_a_stopped_worker_times_out_and_waits_when_that_continues(scene: Scene) -> None:
    bodies: list[tuple[float, float]] = []
    stopped = scene.processes[1]

    async def drain() -> None:
        async with maintenance_mode_on(backend, drain=60):
            began = time.monotonic()
            assert await scene.ask("/work/0", worker=1) == 503
            bodies.append((began, time.monotonic()))

    async with opened(scene.url) as backend, anyio.create_task_group() as group:
        await scene.has_workers(backend)
        async with scene.request_in_progress(1):
            stopped.send_signal(signal.SIGSTOP)
            try:
                with pytest.raises(DrainTimeoutError) as raised:  # later than all timeouts of its own
                    async with maintenance_mode_on(backend, drain=7):
                        pytest.fail("the body ran")
                assert [worker.process_id for worker in raised.value.workers] == [stopped.pid]
                assert (await get_maintenance_state(backend)).holds == ()
                group.start_soon(drain)
            finally:
                stopped.send_signal(signal.SIGCONT)
            await anyio.sleep(2.5)
            assert bodies == []
    assert (sorted(scene.statuses), violations(scene, bodies)) == ([200, 503], [])


@pytest.mark.parametrize("stage", ["redis", "asyncpg"], indirect=True, scope="module")
async def test_drain_whose_store_hangs_ends_in_time(scene: Scene) -> None:
    server = scene.server
    assert server is not None
    async with opened(scene.url) as backend:
        await scene.has_workers(backend)
        async with scene.request_in_progress(), anyio.create_task_group() as group:

            async def hang() -> None:
                await anyio.sleep(0.3)
                server.freeze()
                await anyio.sleep(3)
                server.thaw()

            group.start_soon(hang)
            with anyio.fail_after(60), pytest.raises(Exception, match=r".*"):  # the drain's own, or the store's
                async with maintenance_mode_on(backend, lease=60, drain=2):
                    pytest.fail("the body ran")

        async def is_released() -> bool:
            return not (await get_maintenance_state(backend)).holds

        await eventually(is_released)
