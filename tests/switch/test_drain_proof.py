"""What a drain takes for proof: confirmations of its own hold, by workers that it has seen, while nothing was lost."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any

import anyio
import pytest

from fastapi_maintenance import (
    DrainTimeoutError,
    MaintenanceState,
    MemoryBackend,
    get_maintenance_state,
    maintenance_mode_off,
    maintenance_mode_on,
    set_maintenance_mode,
)
from fastapi_maintenance._helpers import clock
from fastapi_maintenance._switch import worker
from tests.stores import DrainableStore, be_down
from tests.switch.services import Elsewhere, Service, refused, seconds_to_body, served, until_drained

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend(jumping_loop: tuple[str, dict[str, Any]]) -> tuple[str, dict[str, Any]]:
    """Wait for nothing in vain."""
    return jumping_loop


async def after(seconds: float, act: Callable[[], object]) -> None:
    """Do something in so many seconds."""
    await anyio.sleep(seconds)
    act()


# Confirmations


class ClockedStore(DrainableStore):
    """A store with a clock of its own."""

    async def now(self) -> datetime:
        await anyio.lowlevel.checkpoint()
        return clock.now()


async def test_worker_whose_clock_is_ahead_by_more_than_the_lease_does_not_confirm(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(worker, "clock", SimpleNamespace(now=lambda: clock.now() + timedelta(seconds=60)))
    store = DrainableStore()
    async with served(Service(ClockedStore(beside=store))):
        text = await refused(DrainTimeoutError, store, 5, lease=30)
        assert "takes maintenance for off, by its clock or a block of its own; its clock is 60 s ahead" in text
        assert await seconds_to_body(store, lease=120) == pytest.approx(2, abs=0.2)
        await set_maintenance_mode(True, store)  # on, but not by the hold
        text = await refused(DrainTimeoutError, store, 5, lease=30)
        assert "has not confirmed that maintenance is on; its clock is 60 s ahead" in text


async def test_worker_with_an_older_block_of_its_own_that_its_store_has_lost_does_not_confirm() -> None:
    store = DrainableStore()
    elsewhere = DrainableStore(beside=store)
    async with served(Service(elsewhere)), maintenance_mode_off(elsewhere):
        elsewhere.before_write = be_down  # nor can it be put back
        await store.memory.update_state(lambda _: MaintenanceState())
        text = await refused(DrainTimeoutError, store, 5)
        assert text.endswith("takes maintenance for off, by its clock or a block of its own")
        elsewhere.come_back()
        await anyio.sleep(2)  # it is put back, as the older one
        assert await seconds_to_body(store) == pytest.approx(2, abs=0.2)


@pytest.mark.parametrize(("by", "named"), [(None, ""), ("ops", " by ops")])
async def test_drain_in_which_a_newer_block_opens_the_service_times_out_and_names_it(
    by: str | None, named: str
) -> None:
    backend = MemoryBackend()
    service = Service(backend)
    async with served(service) as group:
        group.start_soon(service.get, "/work/a")
        await service.begun("a")
        block = maintenance_mode_off(backend, by=by)
        texts: list[str] = []

        async def drain() -> None:
            with pytest.raises(DrainTimeoutError) as raised:
                async with maintenance_mode_on(backend, drain=5):
                    pytest.fail("the body ran")
            texts.append(str(raised.value))

        async with anyio.create_task_group() as drains:
            drains.start_soon(drain)
            await anyio.sleep(1)
            async with block:
                newest = (await backend.get_state()).holds[-1]
                service.let_go.set()
                await anyio.sleep(9)
    assert [text.endswith(f"the block {newest.id[:8]}{named} keeps maintenance off") for text in texts] == [True]


async def test_request_that_another_block_has_let_in_is_waited_for() -> None:
    backend = MemoryBackend()
    service = Service(backend)
    async with served(service) as group:
        first = service.let_go
        group.start_soon(service.get, "/work/a")
        await service.begun("a")
        group.start_soon(until_drained, backend, service)
        await anyio.sleep(1)
        async with maintenance_mode_off(backend):
            service.let_go = anyio.Event()
            group.start_soon(service.get, "/work/b")
            await service.begun("b")
            first.set()
            await anyio.sleep(1)
        await anyio.sleep(5)
        service.let_go.set()
    assert service.events == ["a begins", "b begins", "a ends", "b ends", "body"]


async def test_confirmation_from_before_another_block_opened_the_service_proves_nothing() -> None:
    store = DrainableStore()
    other, began = Elsewhere(store, 7), anyio.current_time()
    store.after_write = lambda: other.sign(confirms=True)
    async with anyio.create_task_group() as group:

        async def open_for_a_moment() -> None:
            await anyio.sleep(1)
            store.come_back()  # the other worker stalls
            async with maintenance_mode_off(store):
                await anyio.sleep(0.5)
            await anyio.sleep(5)
            await other.sign(confirms=True)

        group.start_soon(open_for_a_moment)
        async with maintenance_mode_on(store, drain=60):
            assert anyio.current_time() - began >= 6.4


# The hold


@pytest.mark.parametrize("is_back", [True, False])
async def test_body_does_not_begin_while_its_hold_is_gone_from_the_store_nor_in_the_two_seconds_after(
    is_back: bool,
) -> None:
    store = DrainableStore()
    other, began = Elsewhere(store, 7), anyio.current_time()
    store.after_write = lambda: other.sign(confirms=True)

    async def lose() -> None:
        await anyio.sleep(1.5)
        store.before_write = be_down
        await store.memory.update_state(lambda _: MaintenanceState())
        await anyio.sleep(3)
        if is_back:
            store.come_back()
            store.after_write = lambda: other.sign(confirms=True)

    async with anyio.create_task_group() as group:
        group.start_soon(lose)
        if is_back:
            async with maintenance_mode_on(store, drain=60):
                assert anyio.current_time() - began >= 6.4
                assert len((await store.get_state()).holds) == 1
        else:
            with pytest.raises(DrainTimeoutError, match="the hold of this block is not in the store"):
                async with maintenance_mode_on(store, drain=5):
                    pytest.fail("the body ran")
            store.come_back()
    assert (await get_maintenance_state(store)).holds == ()


async def test_hold_that_is_lost_just_before_the_drain_renews_it_is_put_back() -> None:
    store = DrainableStore()

    async def lose() -> None:
        store.come_back()
        await store.memory.update_state(lambda _: MaintenanceState())

    def begin_anew() -> None:
        store.workers.reported.clear()
        store.before_write = lose  # the next write is that of the drain, which lets its hold count since then

    async with served(Service(store)), anyio.create_task_group() as group:
        group.start_soon(after, 1.5, begin_anew)
        async with maintenance_mode_on(store, drain=60):
            assert store.before_write is not lose
            assert len((await store.get_state()).holds) == 1


# The records


async def test_drain_whose_mark_is_lost_begins_anew_and_finds_the_workers_that_sign_again() -> None:
    store = DrainableStore()
    service = Service(store)
    async with served(service) as group, anyio.create_task_group() as losses:
        losses.start_soon(after, 1.5, store.workers.reported.clear)
        assert await seconds_to_body(store) >= 3.5
        group.start_soon(service.get, "/work/a")
        await service.begun("a")
        store.workers.reported.clear()
        assert "process" in await refused(DrainTimeoutError, store, 5)
    assert store.workers.reported == {}


async def test_drain_whose_records_are_lost_over_and_over_says_so() -> None:
    store = DrainableStore()

    async def reported() -> None:
        store.workers.reported.clear()

    store.workers.before_read = reported
    text = "requests are not drained after 5 s: the records of the workers were lost"
    assert await refused(DrainTimeoutError, store, 5, workers=0) == text


async def test_worker_whose_record_is_gone_is_waited_for_two_seconds_more() -> None:
    store = DrainableStore()
    other = Elsewhere(store, 7)
    await other.sign(confirms=False)
    async with anyio.create_task_group() as group:
        group.start_soon(after, 10, lambda: store.workers.reported.pop(other.id))
        assert await seconds_to_body(store, workers=0) == pytest.approx(12, abs=0.3)


async def test_store_that_raises_during_a_drain_is_asked_again() -> None:
    store = DrainableStore()
    service = Service(store)
    async with served(service), anyio.create_task_group() as group:
        group.start_soon(after, 1, store.workers.go_down)
        group.start_soon(after, 10, store.workers.come_back)
        assert await seconds_to_body(store) == pytest.approx(10, abs=1.2)
        group.start_soon(after, 1, store.workers.go_down)
        text = await refused(DrainTimeoutError, store, 5)
        assert text.endswith("the store does not answer: ConnectionError: the store is down")
        store.workers.come_back()


async def test_mark_that_the_store_refuses_changes_nothing() -> None:
    store = DrainableStore()
    store.workers.before_write = be_down
    assert await refused(ConnectionError, store, 5) == "the store is down"
    assert store.workers.reported == {}


async def test_record_of_another_version_confirms_nothing_and_is_named() -> None:
    store = DrainableStore()
    for number, text in enumerate(["", "[]", "{}", '{"holds": [], "requests": 0}']):
        store.workers.reported[f"web.example.{number}.x-1"] = text
    text = await refused(DrainTimeoutError, store, 5)
    assert [f"process {number} on web.example has not reported" in text for number in range(4)] == [True] * 4
