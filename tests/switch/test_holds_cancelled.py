"""Blocks that are cancelled, or end by an exception: their maintenance always ends with them."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import anyio
import pytest
from anyio import CancelScope
from anyio.lowlevel import checkpoint
from filelock import FileLock

from fastapi_maintenance import LocalFileBackend, MaintenanceState, get_maintenance_state, maintenance_mode_on
from tests.stores import DetailedStore
from tests.switch.blocks import ONLY_ASYNCIO, BodyError, Make, any_backend, any_hooked, kept_by
from tests.switch.lifespans import once

pytestmark = pytest.mark.anyio


@any_backend
@pytest.mark.parametrize("at", ["before", "body", "error"])
async def test_block_that_raises_or_is_cancelled_lifts_its_maintenance(make: Make, at: str, tmp_path: Path) -> None:
    store, raised = make(tmp_path), BodyError()
    caught: list[BodyError] = []
    with CancelScope() as scope:
        if at == "before":
            scope.cancel()
        try:
            async with maintenance_mode_on(store):
                if at == "error":
                    raise raised
                scope.cancel()
                await checkpoint()
                pytest.fail("a cancelled block went on")
        except BodyError as error:
            caught.append(error)
    assert (scope.cancelled_caught, caught) == ((False, [raised]) if at == "error" else (True, []))
    assert await kept_by(store) == await get_maintenance_state(store) == MaintenanceState()


@any_hooked
@pytest.mark.parametrize("moment", ["before_write", "after_write"])
@pytest.mark.parametrize("at", ["enter", "exit"])
async def test_block_that_is_cancelled_while_it_is_entered_or_left_holds_nothing(
    make: Make, moment: str, at: str
) -> None:
    store = make(Path())
    with CancelScope() as scope:

        async def cancel() -> None:
            scope.cancel()
            await checkpoint()

        if at == "enter":
            once(store, moment, cancel)
        async with maintenance_mode_on(store):
            assert at == "exit"
            once(store, moment, cancel)
    assert scope.cancelled_caught or at == "exit"
    assert await kept_by(store) == MaintenanceState()


async def test_block_that_is_cancelled_while_it_waits_for_another_holds_nothing() -> None:
    store, go_on, scope = DetailedStore(), anyio.Event(), CancelScope()
    entered = []

    async def hold(name: str, scope: CancelScope) -> None:
        with scope:
            async with maintenance_mode_on(store):
                entered.append(name)

    writing = once(store, "before_write", go_on.wait)
    with anyio.fail_after(30):
        async with anyio.create_task_group() as group:
            group.start_soon(hold, "first", CancelScope())
            await writing.wait()
            group.start_soon(hold, "second", scope)
            await anyio.sleep(0.01)
            scope.cancel()
            go_on.set()
    assert (entered, scope.cancelled_caught) == (["first"], True)
    assert await store.get_state() == MaintenanceState()


@ONLY_ASYNCIO
@any_backend
async def test_task_that_is_cancelled_in_its_block_lifts_its_maintenance(make: Make, tmp_path: Path) -> None:
    store, begun = make(tmp_path), asyncio.Event()

    async def job() -> None:
        async with maintenance_mode_on(store):
            begun.set()
            await asyncio.sleep(60)

    await cancelled_after(begun, asyncio.create_task(job()))
    assert await get_maintenance_state(store) == MaintenanceState()


@ONLY_ASYNCIO
@any_hooked
async def test_task_that_is_cancelled_while_its_block_ends_lifts_its_maintenance_first(make: Make) -> None:
    store, ending = make(Path()), asyncio.Event()

    async def hang() -> None:
        ending.set()
        await asyncio.sleep(60)

    async def job() -> None:
        async with maintenance_mode_on(store):
            once(store, "before_write", hang)

    await cancelled_after(ending, asyncio.create_task(job()))
    assert await kept_by(store) == MaintenanceState()


async def cancelled_after(event: asyncio.Event, task: asyncio.Task[None]) -> None:
    """Cancel a task when an event is set, and wait until it is cancelled."""
    await asyncio.wait_for(event.wait(), 30)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 30)


@ONLY_ASYNCIO
async def test_late_write_to_a_file_of_a_cancelled_task_does_not_come_after_its_release(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting, overtaken, over = threading.Event(), threading.Event(), threading.Event()

    class FirstComesLast(FileLock):
        def acquire(self, *args: object, **settings: object) -> object:  # type: ignore[override]  # passed on unchanged
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
async def test_block_that_a_scope_cancels_does_not_leave_its_task_cancelled() -> None:
    with anyio.move_on_after(0.01) as scope:
        async with maintenance_mode_on(DetailedStore(), lease=60):
            await anyio.sleep_forever()
    await asyncio.sleep(0)
    task = asyncio.current_task()
    assert (scope.cancelled_caught, task.cancelling() if task else 0) == (True, 0)


async def test_exception_of_a_leased_block_that_is_cancelled_too_comes_out() -> None:
    store = DetailedStore()
    with pytest.raises(BodyError), CancelScope() as scope:
        async with maintenance_mode_on(store, lease=60):
            scope.cancel()
            raise BodyError
    assert await store.get_state() == MaintenanceState()
