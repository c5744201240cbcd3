"""Blocks that end by an exception or are cancelled: whatever happens, their maintenance ends with them."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import anyio
import pytest
from anyio import CancelScope, fail_after
from anyio.lowlevel import checkpoint
from filelock import FileLock

from fastapi_maintenance import LocalFileBackend, MaintenanceState, get_maintenance_state, maintenance_mode_on
from tests.stores import DetailedStore
from tests.switch.blocks import ONLY_ASYNCIO, BodyError, Make, any_backend, any_hooked, kept_by

pytestmark = pytest.mark.anyio


@any_backend
async def test_block_that_raises_lets_the_error_out_and_lifts_maintenance(make: Make, tmp_path: Path) -> None:
    store = make(tmp_path)
    raised = BodyError()
    with pytest.raises(BodyError) as caught:
        async with maintenance_mode_on(store):
            raise raised
    assert raised is caught.value
    assert MaintenanceState() == await get_maintenance_state(store)


@any_backend
async def test_a_cancelled_block_lifts_its_maintenance(make: Make, tmp_path: Path) -> None:
    store = make(tmp_path)
    with CancelScope() as scope:
        async with maintenance_mode_on(store):
            scope.cancel()
            await anyio.sleep_forever()
    assert scope.cancelled_caught
    assert MaintenanceState() == await kept_by(store)


@any_backend
async def test_a_block_that_is_cancelled_before_it_begins_never_runs_and_holds_nothing(
    make: Make, tmp_path: Path
) -> None:
    store = make(tmp_path)
    with CancelScope() as scope:
        scope.cancel()
        async with maintenance_mode_on(store):
            await checkpoint()
            pytest.fail("a cancelled block went on")
    assert scope.cancelled_caught
    assert MaintenanceState() == await kept_by(store)


@any_hooked
@pytest.mark.parametrize("moment", ["before_write", "after_write"])
async def test_a_block_that_is_cancelled_while_it_is_entered_holds_nothing(make: Make, moment: str) -> None:
    store = make(Path())
    with CancelScope() as scope:

        async def cancel() -> None:
            setattr(store, moment, checkpoint)
            scope.cancel()
            await checkpoint()

        setattr(store, moment, cancel)
        async with maintenance_mode_on(store):
            pytest.fail("a block was entered after all")
    assert scope.cancelled_caught
    assert MaintenanceState() == await kept_by(store)


@any_hooked
@pytest.mark.parametrize("moment", ["before_write", "after_write"])
async def test_a_block_that_is_cancelled_while_it_ends_lifts_its_maintenance(make: Make, moment: str) -> None:
    store = make(Path())
    with CancelScope() as scope:
        async with maintenance_mode_on(store):

            async def cancel() -> None:
                setattr(store, moment, checkpoint)
                scope.cancel()
                await checkpoint()

            setattr(store, moment, cancel)
    assert MaintenanceState() == await kept_by(store)


async def test_a_block_that_is_cancelled_while_it_waits_for_its_turn_holds_nothing() -> None:
    store = DetailedStore()
    writing, go_on, scope = anyio.Event(), anyio.Event(), CancelScope()
    entered = []

    async def wait() -> None:
        store.before_write = checkpoint
        writing.set()
        await go_on.wait()

    async def hold(name: str) -> None:
        async with maintenance_mode_on(store):
            entered.append(name)

    async def hold_in_scope() -> None:
        with scope:
            await hold("second")

    store.before_write = wait
    with fail_after(30):
        async with anyio.create_task_group() as group:
            group.start_soon(hold, "first")
            await writing.wait()
            group.start_soon(hold_in_scope)
            await anyio.sleep(0.01)
            scope.cancel()
            go_on.set()
    assert (["first"], True) == (entered, scope.cancelled_caught)
    assert MaintenanceState() == await store.get_state()


@ONLY_ASYNCIO
@any_backend
async def test_a_task_that_is_cancelled_in_its_block_lifts_its_maintenance(make: Make, tmp_path: Path) -> None:
    store = make(tmp_path)
    begun = asyncio.Event()

    async def job() -> None:
        async with maintenance_mode_on(store):
            begun.set()
            await asyncio.sleep(60)

    task = asyncio.create_task(job())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert MaintenanceState() == await get_maintenance_state(store)


@ONLY_ASYNCIO
@any_hooked
async def test_a_task_that_is_cancelled_while_its_block_ends_lifts_its_maintenance_first(make: Make) -> None:
    store = make(Path())
    ending = asyncio.Event()

    async def hang_once() -> None:
        setattr(store, "before_write", checkpoint)  # noqa: B010 -- a hook that not every backend has
        ending.set()
        await asyncio.sleep(60)

    async def job() -> None:
        async with maintenance_mode_on(store):
            setattr(store, "before_write", hang_once)  # noqa: B010 -- as above

    task = asyncio.create_task(job())
    await asyncio.wait_for(ending.wait(), 5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 5)
    assert MaintenanceState() == await kept_by(store)


@ONLY_ASYNCIO
async def test_a_write_to_a_file_that_a_cancelled_task_has_left_behind_does_not_come_after_its_release(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting, overtaken, over = threading.Event(), threading.Event(), threading.Event()

    class FirstComesLast(FileLock):
        def acquire(self, *args: object, **settings: object) -> object:  # type: ignore[override]  # passed on as it is
            self.is_first = not waiting.is_set()
            waiting.set()
            if self.is_first:
                overtaken.wait(30)
            return super().acquire(*args, **settings)  # type: ignore[arg-type]  # as above

        def release(self, force: bool = False) -> None:
            super().release(force)
            if self.is_first:
                over.set()

    monkeypatch.setattr("filelock.FileLock", FirstComesLast)
    store = LocalFileBackend(tmp_path / "mode")

    async def job() -> None:
        async with maintenance_mode_on(store):
            pytest.fail("the block was entered")

    task = asyncio.create_task(job())
    assert await asyncio.to_thread(waiting.wait, 30)
    task.cancel()
    asyncio.get_running_loop().call_later(0.1, overtaken.set)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await asyncio.to_thread(over.wait, 30)
    assert store.peek() == MaintenanceState()


@ONLY_ASYNCIO
async def test_a_task_is_not_left_cancelled_by_a_block_that_a_scope_cancelled() -> None:
    with anyio.move_on_after(0.01) as scope:
        async with maintenance_mode_on(DetailedStore(), lease=60):
            await anyio.sleep_forever()
    await asyncio.sleep(0)
    task = asyncio.current_task()
    assert (True, 0) == (scope.cancelled_caught, task.cancelling() if task else 0)


async def test_an_exception_of_a_leased_block_comes_out_although_the_block_is_cancelled_too() -> None:
    store = DetailedStore()
    with pytest.raises(BodyError), CancelScope() as scope:
        async with maintenance_mode_on(store, lease=60):
            scope.cancel()
            raise BodyError
    assert MaintenanceState() == await store.get_state()
