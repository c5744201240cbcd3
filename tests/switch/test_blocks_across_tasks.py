"""Blocks that are entered in one task and left in another: neither is disturbed, and the lease is renewed between.

That is how fixtures of pytest, dropped generators, and start and stop hooks use them. Each test has an event loop of
its own, so that a block that breaks one breaks no other test.
"""

from __future__ import annotations

import gc
from collections.abc import AsyncGenerator, Awaitable, Callable
from functools import partial

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
from tests.support import RunJumping, client, eventually

LEASE = 30.0  # seconds; the clock jumps
Step = Callable[[], Awaitable[object]]


async def is_renewed(store: DetailedStore, before: MaintenanceState) -> bool:
    state = await store.get_state()
    return state != before and len(state.holds) == 1


async def renewal(store: DetailedStore) -> None:
    """Wait until the lease of the hold has been renewed."""
    await eventually(partial(is_renewed, store, await store.get_state()), within=LEASE)


async def is_gone_for_good(store: DetailedStore) -> bool:
    """Return whether no hold is there, now and after the next renewals would have been due."""
    states = [await store.get_state()]
    for _ in range(10):
        await anyio.sleep(LEASE / 5)
        states.append(await store.get_state())
    return states == [MaintenanceState()] * len(states) and not await get_maintenance_mode(store)


async def in_two_tasks(store: DetailedStore, enter: Step, leave: Step) -> list[str]:
    """Enter in one task, which goes on, and leave in another after a renewal; return what both came to."""
    events: list[str] = []
    entered, left = anyio.Event(), anyio.Event()

    async def first() -> None:
        await enter()
        events.append("entered")
        entered.set()
        await left.wait()
        await anyio.sleep(LEASE)
        events.append("the first task has ended")

    async def second() -> None:
        await entered.wait()
        await renewal(store)
        await leave()
        events.append("left")
        left.set()
        await anyio.sleep(2 * LEASE)
        events.append("the second task has ended")

    async with anyio.create_task_group() as group:
        group.start_soon(first)
        group.start_soon(second)
    return events


UNDISTURBED = ["entered", "left", "the first task has ended", "the second task has ended"]


def test_leased_block_left_in_another_task_disturbs_neither(run_jumping: RunJumping) -> None:
    async def main() -> None:
        store = DetailedStore()
        block = maintenance_mode_on(store, lease=LEASE)
        events = await in_two_tasks(store, block.__aenter__, partial(block.__aexit__, None, None, None))
        assert (events, await is_gone_for_good(store)) == (UNDISTURBED, True)

    run_jumping(main)


async def fixture(store: DetailedStore) -> AsyncGenerator[None]:
    """Hold maintenance on as a fixture of pytest does."""
    async with maintenance_mode_on(store, lease=LEASE):
        yield


def test_leased_block_of_a_fixture_torn_down_in_another_task_disturbs_neither(run_jumping: RunJumping) -> None:
    async def main() -> None:
        store = DetailedStore()
        generator = fixture(store)
        events = await in_two_tasks(store, generator.__anext__, partial(anext, generator, None))
        assert (events, await is_gone_for_good(store)) == (UNDISTURBED, True)

    run_jumping(main)


@pytest.mark.filterwarnings("ignore:Async generator:ResourceWarning")  # by trio
def test_leased_block_of_a_dropped_generator_disturbs_no_task(run_jumping: RunJumping) -> None:
    async def main() -> None:
        store = DetailedStore()
        generators: list[AsyncGenerator[None]] = []

        async def start() -> None:
            generators.append(fixture(store))
            await anext(generators[0])

        async def drop() -> None:
            generators.clear()
            gc.collect()
            await anyio.sleep(LEASE)

        events = await in_two_tasks(store, start, drop)
        assert (events, await is_gone_for_good(store)) == (UNDISTURBED, True)

    run_jumping(main)


def test_leased_block_of_start_and_stop_hooks_is_renewed_after_the_start_has_ended(run_jumping: RunJumping) -> None:
    async def main() -> None:
        store = DetailedStore()
        block = maintenance_mode_on(store, lease=LEASE)

        async def start() -> None:
            await block.__aenter__()

        async def stop() -> None:
            await block.__aexit__(None, None, None)

        async with anyio.create_task_group() as group:
            group.start_soon(start)
        await renewal(store)
        await renewal(store)
        async with anyio.create_task_group() as group:
            group.start_soon(stop)
        assert await is_gone_for_good(store)

    run_jumping(main)


def test_leased_block_opened_by_a_request_and_left_by_another_serves_both(run_jumping: RunJumping) -> None:
    async def main() -> None:
        store = DetailedStore()
        block = maintenance_mode_on(store, lease=LEASE)
        app = FastAPI()
        app.add_middleware(maintenance_middleware(backend=store, exempt=path_prefix("/jobs")))
        app.add_api_route("/items", lambda: "open")

        @app.post("/jobs/start")
        async def start() -> None:
            await block.__aenter__()

        @app.post("/jobs/stop")
        async def stop() -> None:
            await block.__aexit__(None, None, None)

        statuses: list[int] = []

        async def ask(method: str, path: str) -> None:
            async with client(app) as http:
                statuses.append((await http.request(method, path)).status_code)

        for method, path in (("POST", "/jobs/start"), ("GET", "/items"), ("POST", "/jobs/stop"), ("GET", "/items")):
            async with anyio.create_task_group() as group:  # as a server runs each request in a task of its own
                group.start_soon(ask, method, path)
            if path == "/jobs/start":
                await renewal(store)
        assert (statuses, await is_gone_for_good(store)) == ([200, 503, 200, 200], True)

    run_jumping(main)


def test_leased_block_entered_within_a_time_limit_outlives_it(run_jumping: RunJumping) -> None:
    async def main() -> None:
        store = DetailedStore()
        block = maintenance_mode_on(store, lease=LEASE)
        with anyio.fail_after(LEASE):
            await block.__aenter__()
        await anyio.sleep(2 * LEASE)
        await renewal(store)
        await block.__aexit__(None, None, None)
        assert await is_gone_for_good(store)

    run_jumping(main)


def test_leased_block_whose_task_is_cancelled_is_left_in_another(run_jumping: RunJumping) -> None:
    async def main() -> None:
        store = DetailedStore()
        block = maintenance_mode_on(store, lease=LEASE)
        entered = anyio.Event()

        async def enter() -> None:
            await block.__aenter__()
            entered.set()
            await anyio.sleep_forever()

        async with anyio.create_task_group() as group:
            group.start_soon(enter)
            await entered.wait()
            group.cancel_scope.cancel()
        await renewal(store)
        await block.__aexit__(None, None, None)
        assert await is_gone_for_good(store)

    run_jumping(main)


def test_leased_block_left_in_another_task_during_a_renewal_is_not_put_back(run_jumping: RunJumping) -> None:
    """The store takes no cancellation: the renewal is written after the hold has been taken out."""

    async def main() -> None:
        store = DetailedStore()
        block = maintenance_mode_on(store, lease=LEASE)
        is_renewing, go_on = anyio.Event(), anyio.Event()

        async def write_slowly() -> None:
            store.come_back()
            is_renewing.set()
            with anyio.CancelScope(shield=True):
                await go_on.wait()

        async def enter() -> None:
            await block.__aenter__()
            store.before_write = write_slowly

        async def leave() -> None:
            await block.__aexit__(None, None, None)

        async with anyio.create_task_group() as group:
            group.start_soon(enter)
        await is_renewing.wait()
        async with anyio.create_task_group() as group:
            group.start_soon(leave)
            await anyio.sleep(LEASE / 5)
            go_on.set()
        assert await is_gone_for_good(store)

    run_jumping(main)
