"""The proof of a drain: confirmations of its own hold, by each worker that it has seen, while nothing was lost."""

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
    maintenance_mode_off,
    maintenance_mode_on,
    set_maintenance_mode,
)
from fastapi_maintenance._helpers import clock
from fastapi_maintenance._switch import worker
from tests.stores import DrainableStore, be_down
from tests.switch.lifespans import once
from tests.switch.services import Elsewhere, Service, refused, seconds_to_body, served, until_drained

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend(jumping_loop: tuple[str, dict[str, Any]]) -> tuple[str, dict[str, Any]]:
    """Run the tests on a clock that jumps."""
    return jumping_loop


async def after(seconds: float, act: Callable[[], object]) -> None:
    await anyio.sleep(seconds)
    act()


async def lose_state(store: DrainableStore) -> None:
    await store.memory.update_state(lambda _: MaintenanceState())


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
        assert "considers maintenance off, by its clock or a block of its own; its clock is 60 s ahead" in text
        assert await seconds_to_body(store, lease=120) == pytest.approx(2, abs=0.2)
        await set_maintenance_mode(True, store)  # on, but not by the hold
        text = await refused(DrainTimeoutError, store, 5, lease=30)
        assert "has not confirmed that maintenance is on; its clock is 60 s ahead" in text


async def test_worker_with_an_older_block_of_its_own_that_its_store_has_lost_does_not_confirm() -> None:
    store = DrainableStore()
    elsewhere = DrainableStore(beside=store)
    async with served(Service(elsewhere)), maintenance_mode_off(elsewhere):
        elsewhere.before_write = be_down  # so its hold cannot be put back
        await lose_state(store)
        text = await refused(DrainTimeoutError, store, 5)
        assert text.endswith("considers maintenance off, by its clock or a block of its own")
        elsewhere.come_back()
        await anyio.sleep(2)  # it is put back, as the older one
        assert await seconds_to_body(store) == pytest.approx(2, abs=0.2)


async def test_worker_with_a_record_of_another_version_does_not_confirm_and_is_named() -> None:
    store = DrainableStore()
    for number, text in enumerate(["", "[]", "{}", '{"holds": [], "requests": 0}']):
        store.workers.reported[f"web.example.{number}.x-1"] = text
    text = await refused(DrainTimeoutError, store, 5)
    assert [f"process {number} on web.example has not reported" in text for number in range(4)] == [True] * 4


# Another block that opens the service


@pytest.mark.parametrize(("by", "named"), [(None, ""), ("ops", " by ops")])
async def test_drain_while_a_newer_block_opens_the_service_times_out_and_names_the_block(
    by: str | None, named: str
) -> None:
    backend = MemoryBackend()
    service = Service(backend)
    texts: list[str] = []

    async def drain() -> None:
        with pytest.raises(DrainTimeoutError) as raised:
            await seconds_to_body(backend, 5)
        texts.append(str(raised.value))

    async with served(service) as group:
        await service.begin(group)
        group.start_soon(drain)
        await anyio.sleep(1)
        async with maintenance_mode_off(backend, by=by):
            newest = (await backend.get_state()).holds[-1]
            service.let_go.set()
            await anyio.sleep(9)
    assert [text.rpartition("; ")[2] for text in texts] == [f"the block {newest.id[:8]}{named} keeps maintenance off"]


async def test_drain_waits_for_a_request_that_another_block_has_let_in() -> None:
    backend = MemoryBackend()
    service = Service(backend)
    async with served(service) as group:
        first = service.let_go
        await service.begin(group)
        group.start_soon(until_drained, backend, service)
        await anyio.sleep(1)
        async with maintenance_mode_off(backend):
            service.let_go = anyio.Event()
            await service.begin(group, "/work/b")
            first.set()
            await anyio.sleep(1)
        await anyio.sleep(5)
        service.let_go.set()
    assert service.events == ["a begins", "b begins", "a ends", "b ends", "body"]


@pytest.mark.parametrize("fails_first", [False, True])
async def test_drain_after_another_block_opened_the_service_needs_new_confirmations(fails_first: bool) -> None:
    store = DrainableStore()
    other = Elsewhere(store)
    store.after_write = other.sign

    async def open_for_a_moment() -> None:
        await anyio.sleep(1)
        store.come_back()  # from now on the other worker stalls
        async with maintenance_mode_off(store):
            await anyio.sleep(0.5)
        if fails_first:
            once(store, "before_write", be_down)  # the write that dates the hold anew
        await anyio.sleep(5)
        await other.sign()

    async with anyio.create_task_group() as group:
        group.start_soon(open_for_a_moment)
        assert await seconds_to_body(store) >= 6.4


# Losses


@pytest.mark.parametrize("is_back", [True, False])
async def test_drain_whose_hold_is_lost_ends_two_seconds_after_that_is_put_back(is_back: bool) -> None:
    store = DrainableStore()
    store.after_write = sign = Elsewhere(store).sign

    async def lose() -> None:
        await anyio.sleep(1.5)
        store.before_write = be_down
        await lose_state(store)
        await anyio.sleep(3)
        if is_back:
            store.come_back()
            store.after_write = sign

    async with anyio.create_task_group() as group:
        group.start_soon(lose)
        if is_back:
            assert await seconds_to_body(store) >= 6.4
        else:
            with pytest.raises(DrainTimeoutError, match="the hold of this block is not in the store"):
                await seconds_to_body(store, 5)
            store.come_back()
    assert (await store.get_state()).holds == ()


async def test_drain_whose_hold_is_lost_just_before_it_is_renewed_puts_that_back() -> None:
    store = DrainableStore()

    async def lose() -> None:
        store.come_back()
        await lose_state(store)

    def begin_anew() -> None:
        store.workers.reported.clear()
        store.before_write = lose  # the next write is the drain's, which dates its hold from then

    async with served(Service(store)), anyio.create_task_group() as group:
        group.start_soon(after, 1.5, begin_anew)
        async with maintenance_mode_on(store, drain=60):
            assert store.before_write is not lose
            assert len((await store.get_state()).holds) == 1


async def test_drain_whose_mark_is_lost_begins_anew_and_finds_the_workers_that_sign_again() -> None:
    store = DrainableStore()
    service = Service(store)
    async with served(service) as group:
        group.start_soon(after, 1.5, store.workers.reported.clear)
        assert await seconds_to_body(store) >= 3.5
        await service.begin(group)
        store.workers.reported.clear()
        assert "process" in await refused(DrainTimeoutError, store, 5)
    assert store.workers.reported == {}


async def test_drain_whose_records_are_lost_again_and_again_times_out_with_that_reason() -> None:
    store = DrainableStore()

    async def lose() -> None:
        store.workers.reported.clear()

    store.workers.before_read = lose
    text = "requests are not drained after 5 s: the records of the workers were lost"
    assert await refused(DrainTimeoutError, store, 5, workers=0) == text


async def test_drain_waits_two_seconds_more_for_a_worker_whose_record_is_gone() -> None:
    store = DrainableStore()
    other = Elsewhere(store)
    await other.sign(confirms=False)
    async with anyio.create_task_group() as group:
        group.start_soon(after, 10, lambda: store.workers.reported.pop(other.id))
        assert await seconds_to_body(store, workers=0) == pytest.approx(12, abs=0.3)


async def test_drain_while_the_store_is_down_goes_on_when_it_is_back_or_times_out_with_that_reason() -> None:
    store = DrainableStore()
    async with served(Service(store)) as group:
        group.start_soon(after, 1, store.workers.go_down)
        group.start_soon(after, 10, store.workers.come_back)
        assert await seconds_to_body(store) == pytest.approx(10, abs=1.2)
        group.start_soon(after, 1, store.workers.go_down)
        text = await refused(DrainTimeoutError, store, 5)
        assert text.endswith("the store does not answer: ConnectionError: the store is down")
        store.workers.come_back()


async def test_drain_whose_mark_is_refused_raises_and_changes_nothing() -> None:
    store = DrainableStore()
    store.workers.before_write = be_down
    assert await refused(ConnectionError, store, 5) == "the store is down"
    assert store.workers.reported == {}
