"""Blocks that are entered in one task and left in another: neither is disturbed, and the lease is renewed in between.

That is how pytest's fixtures, dropped generators, and start and stop hooks use them.
"""

from __future__ import annotations

import gc
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from functools import partial
from typing import Any

import anyio
import pytest
from fastapi import FastAPI

from fastapi_maintenance import (
    MaintenanceState,
    get_maintenance_mode,
    maintenance_middleware,
    maintenance_mode_on,
    path_prefix,
)
from tests.stores import DetailedStore
from tests.support import client, eventually

pytestmark = pytest.mark.anyio

LEASE = 30.0  # seconds; the clock jumps
Step = Callable[[], Awaitable[object]]
Job = Callable[[], Coroutine[Any, Any, None]]


@pytest.fixture
def anyio_backend(jumping_loop: tuple[str, dict[str, Any]]) -> tuple[str, dict[str, Any]]:
    """Run the tests on a clock that jumps."""
    return jumping_loop


async def renewal(store: DetailedStore) -> None:
    """Wait until the lease of the hold has been renewed."""
    before = await store.get_state()

    async def is_renewed() -> bool:
        state = await store.get_state()
        return state != before and len(state.holds) == 1

    await eventually(is_renewed, within=LEASE)


async def check_released(store: DetailedStore) -> None:
    """Assert that no hold is stored, now and after the next renewals would have been due."""
    for _ in range(10):
        assert await store.get_state() == MaintenanceState()
        await anyio.sleep(LEASE / 5)
    assert not await get_maintenance_mode(store)


def block_of(store: DetailedStore) -> tuple[Job, Job]:
    """Return how to enter and leave a leased block."""
    block = maintenance_mode_on(store, lease=LEASE)
    return block.__aenter__, partial(block.__aexit__, None, None, None)


async def fixture(store: DetailedStore) -> AsyncGenerator[None]:
    async with maintenance_mode_on(store, lease=LEASE):
        yield


def fixture_of(store: DetailedStore) -> tuple[Step, Step]:
    generator = fixture(store)
    return generator.__anext__, partial(anext, generator, None)


def dropped_generator_of(store: DetailedStore) -> tuple[Step, Step]:
    generators = [fixture(store)]

    async def enter() -> None:
        await anext(generators[0])

    async def drop() -> None:
        generators.clear()
        gc.collect()
        await anyio.sleep(LEASE)

    return enter, drop


@pytest.mark.filterwarnings("ignore:Async generator:ResourceWarning")  # by trio
@pytest.mark.parametrize("way", [block_of, fixture_of, dropped_generator_of])
async def test_leased_block_left_in_another_task_disturbs_neither_task(
    way: Callable[[DetailedStore], tuple[Step, Step]],
) -> None:
    store = DetailedStore()
    enter, leave = way(store)
    events: list[str] = []
    entered, left = anyio.Event(), anyio.Event()

    async def first() -> None:
        await enter()
        entered.set()
        await left.wait()
        await anyio.sleep(LEASE)
        events.append("the first task has ended")

    async def second() -> None:
        await entered.wait()
        await renewal(store)
        await leave()
        left.set()
        await anyio.sleep(2 * LEASE)
        events.append("the second task has ended")

    async with anyio.create_task_group() as group:
        group.start_soon(first)
        group.start_soon(second)
    assert events == ["the first task has ended", "the second task has ended"]
    await check_released(store)


async def in_a_task_that_ends(job: Job) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(job)


async def within_a_time_limit(enter: Job) -> None:
    with anyio.fail_after(LEASE):
        await enter()
    await anyio.sleep(2 * LEASE)


async def in_a_task_that_is_cancelled(enter: Job) -> None:
    entered = anyio.Event()

    async def enter_and_stay() -> None:
        await enter()
        entered.set()
        await anyio.sleep_forever()

    async with anyio.create_task_group() as group:
        group.start_soon(enter_and_stay)
        await entered.wait()
        group.cancel_scope.cancel()


@pytest.mark.parametrize("where", [in_a_task_that_ends, within_a_time_limit, in_a_task_that_is_cancelled])
async def test_leased_block_is_renewed_after_what_it_was_entered_in_has_ended(
    where: Callable[[Job], Awaitable[None]],
) -> None:
    store = DetailedStore()
    enter, leave = block_of(store)
    await where(enter)
    for _ in range(2):
        await renewal(store)
    await in_a_task_that_ends(leave)
    await check_released(store)


async def test_leased_block_entered_by_a_request_and_left_by_another_serves_both() -> None:
    store = DetailedStore()
    enter, leave = block_of(store)
    app = FastAPI()
    app.add_middleware(maintenance_middleware(backend=store, exempt=path_prefix("/jobs")))
    app.add_api_route("/items", lambda: "open")

    @app.get("/jobs/{step}")
    async def take_step(step: str) -> None:
        await (enter if step == "start" else leave)()

    statuses: list[int] = []

    async def ask(path: str) -> None:
        async with client(app) as http:
            statuses.append((await http.get(path)).status_code)

    for path in ("/jobs/start", "/items", "/jobs/stop", "/items"):
        await in_a_task_that_ends(partial(ask, path))  # as a server runs each request
        if path == "/jobs/start":
            await renewal(store)
    assert statuses == [200, 503, 200, 200]
    await check_released(store)


async def test_leased_block_left_in_another_task_during_a_renewal_is_not_put_back() -> None:
    """The store ignores cancellation: the renewal is written after the hold was removed."""

    store = DetailedStore()
    enter, leave = block_of(store)
    is_renewing, go_on = anyio.Event(), anyio.Event()

    async def write_slowly() -> None:
        store.come_back()
        is_renewing.set()
        with anyio.CancelScope(shield=True):
            await go_on.wait()

    await in_a_task_that_ends(enter)
    store.before_write = write_slowly
    await is_renewing.wait()
    async with anyio.create_task_group() as group:
        group.start_soon(leave)
        await anyio.sleep(LEASE / 5)
        go_on.set()
    await check_released(store)
