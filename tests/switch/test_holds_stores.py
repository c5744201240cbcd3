"""Blocks that fail, are cancelled, or whose store fails: their maintenance ends, and errors reach the right one."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio import CancelScope
from anyio.lowlevel import checkpoint
from filelock import FileLock

from fastapi_maintenance import (
    Hold,
    InvalidStateError,
    LocalFileBackend,
    MaintenanceState,
    NotSupportedError,
    Switch,
    get_maintenance_mode,
    get_maintenance_state,
    maintenance_mode_off,
    maintenance_mode_on,
    set_maintenance_mode,
)
from fastapi_maintenance._switch import block, holds
from tests.stores import BareSwitch, DetailedStore, be_down
from tests.support import eventually
from tests.switch.blocks import LOGGER, ONLY_ASYNCIO, BodyError, file, kept_by, messages_of
from tests.switch.lifespans import once

pytestmark = pytest.mark.anyio
each_store = pytest.mark.parametrize("make", [BareSwitch, DetailedStore])
Make = type[BareSwitch | DetailedStore]


# A store that fails


@each_store
@pytest.mark.parametrize("moment", ["before_write", "after_write", "down"])
async def test_block_whose_store_fails_when_it_is_entered_raises_and_holds_nothing(
    make: Make, moment: str, caplog: pytest.LogCaptureFixture
) -> None:
    store = make()
    if moment == "down":
        store.go_down()
    else:
        once(store, moment, be_down)
    with pytest.raises(ConnectionError):
        async with maintenance_mode_on(store):
            pytest.fail("a block that the store may not have was entered")
    store.come_back()
    assert await kept_by(store) == await get_maintenance_state(store) == MaintenanceState()
    assert messages_of(caplog) == [f"A hold could not be removed from {make.__name__}"] * (moment == "down")


@asynccontextmanager
async def failing_release(store: BareSwitch | DetailedStore) -> AsyncGenerator[None]:
    """Enter a block whose store is down when it ends, and which therefore raises; then let the store come back."""
    with pytest.raises(ConnectionError):
        async with maintenance_mode_on(store):
            yield
            store.go_down()
    assert holds.local_holds(store) == ()
    store.come_back()


@each_store
async def test_block_whose_store_fails_when_it_ends_raises_and_counts_no_longer_here(make: Make) -> None:
    store = make()
    async with failing_release(store):
        pass
    await set_maintenance_mode(False, store)


@each_store
async def test_block_that_raises_while_its_store_fails_raises_its_own_error_and_logs_the_other(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    store = make()
    with pytest.raises(BodyError):
        async with maintenance_mode_on(store):
            store.go_down()
            raise BodyError
    (record,) = [record for record in caplog.records if record.name == LOGGER]
    assert record.getMessage() == f"A hold could not be removed from {make.__name__}"
    assert record.exc_info is not None
    assert record.exc_info[0] is ConnectionError
    store.come_back()
    await set_maintenance_mode(False, store)


@each_store
async def test_block_whose_store_hangs_ends(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(block, "_CLOSE_TIMEOUT", 0.02)
    store = make()
    with anyio.fail_after(30), pytest.raises(TimeoutError):
        async with maintenance_mode_on(store):
            store.before_write = anyio.sleep_forever
    store.come_back()
    await set_maintenance_mode(False, store)


# An invalid value


@pytest.mark.parametrize("value", ["on", None, 2, 1.0])
async def test_block_on_a_backend_with_an_invalid_value_does_not_begin(value: Any) -> None:  # noqa: ANN401 -- wrong on purpose
    with pytest.raises(InvalidStateError, match=rf"must return True or False, got {type(value).__name__} "):
        async with maintenance_mode_on(BareSwitch(value)):
            pytest.fail("the block was entered")


async def test_block_on_a_file_with_an_invalid_state_does_not_begin_and_leaves_it(tmp_path: Path) -> None:
    (tmp_path / "mode").write_text("1x")  # a typo: taking it for off would lose the operator's switch
    with pytest.raises(InvalidStateError, match="got '1x"):
        async with maintenance_mode_on(file(tmp_path), message="Never begun"):
            pytest.fail("the block was entered")
    assert (tmp_path / "mode").read_text() == "1x"


async def test_block_during_which_the_state_becomes_invalid_raises_and_leaves_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    backend = file(tmp_path)
    with pytest.raises(InvalidStateError, match="got '1x"):
        async with maintenance_mode_on(backend, lease=0.3):
            (tmp_path / "mode").write_text("1x")
            await eventually(lambda: "A hold could not be renewed" in "".join(messages_of(caplog)))
    assert (tmp_path / "mode").read_text() == "1x"
    await set_maintenance_mode(True, backend)
    assert await kept_by(backend) == MaintenanceState(switch=Switch(on=True))


async def test_hold_that_was_removed_is_seen_to_be_put_back_although_a_read_fails_before() -> None:
    store = DetailedStore(MaintenanceState(holds=(Hold(id="a", on=True),)))
    once(store, "before_read", be_down)
    assert await holds.is_put_back("a", store)


# A bare switch


async def test_bare_switch_without_a_block_is_read_by_several_callers_at_once() -> None:
    store, readers, all_read = BareSwitch(), list[None](), anyio.Event()

    async def wait_for_all() -> None:
        readers.append(None)
        if len(readers) == 3:
            all_read.set()
        await all_read.wait()

    store.before_read = wait_for_all
    with anyio.fail_after(30):
        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(get_maintenance_mode, store)


async def test_bare_switch_on_which_a_block_begins_during_a_read_shows_the_value_of_the_operator() -> None:
    store = BareSwitch()
    async with AsyncExitStack() as stack:
        once(store, "before_read", lambda: stack.enter_async_context(maintenance_mode_on(store)))
        state = await get_maintenance_state(store)
    assert (state.switch.on, [hold.on for hold in state.holds]) == (False, [True])


async def test_bare_switch_keeps_the_second_change_by_another_process_too() -> None:
    store = BareSwitch()
    async with maintenance_mode_on(store):
        store.value = False
        async with maintenance_mode_off(store):
            store.value = True
    assert store.value


@pytest.mark.parametrize("operator", [None, True])
async def test_bare_switch_that_could_not_be_set_back_is_set_back_by_the_next_block(operator: bool | None) -> None:
    store = BareSwitch()
    async with failing_release(store):
        pass
    assert store.value
    if operator is not None:
        await set_maintenance_mode(operator, store)
    async with maintenance_mode_on(store):
        pass
    assert (store.value, holds.ledgers) == (bool(operator), {})


async def test_bare_switch_write_that_failed_is_not_later_taken_for_one_of_this_process() -> None:
    store = BareSwitch()
    store.before_write = be_down
    with pytest.raises(ConnectionError):
        async with maintenance_mode_on(store):
            pytest.fail("the block was entered")
    store.come_back()
    store.value = True
    async with maintenance_mode_on(store):
        pass
    assert store.value


@pytest.mark.parametrize(
    ("wanted", "details"),
    [
        (maintenance_mode_on, {"message": "Copying"}),
        (maintenance_mode_on, {"lease": 60}),
        (maintenance_mode_off, {"lease": 60}),
    ],
)
async def test_bare_switch_cannot_keep_details_and_the_error_names_the_missing_method(
    wanted: Any,  # noqa: ANN401 -- one of two functions
    details: dict[str, Any],
) -> None:
    store = BareSwitch()
    with pytest.raises(NotSupportedError, match=rf"{next(iter(details))} needs .* update_state\(change\)"):
        async with wanted(store, **details):
            pytest.fail("the block was entered")
    assert not store.value


# Cancelled


@each_store
@pytest.mark.parametrize("moment", ["before", "before_write", "after_write", "exit before_write", "exit after_write"])
async def test_block_that_is_cancelled_when_it_is_entered_or_left_holds_nothing(make: Make, moment: str) -> None:
    store = make()
    at_exit, hook = "exit" in moment, moment.removeprefix("exit ")
    with CancelScope() as scope:

        async def cancel() -> None:
            scope.cancel()
            await checkpoint()

        if moment == "before":
            scope.cancel()
        elif not at_exit:
            once(store, hook, cancel)
        async with maintenance_mode_on(store):
            assert at_exit, "a cancelled block was entered"
            once(store, hook, cancel)
    assert scope.cancelled_caught or at_exit
    assert await kept_by(store) == await get_maintenance_state(store) == MaintenanceState()


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
@each_store
@pytest.mark.parametrize("at_exit", [True, False])
async def test_task_that_is_cancelled_in_its_block_or_while_that_ends_lifts_its_maintenance_first(
    make: Make, at_exit: bool
) -> None:
    store, is_waiting = make(), asyncio.Event()

    async def wait() -> None:
        is_waiting.set()
        await asyncio.sleep(60)

    async def job() -> None:
        async with maintenance_mode_on(store):
            if at_exit:
                once(store, "before_write", wait)
            else:
                await wait()

    task = asyncio.create_task(job())
    await asyncio.wait_for(is_waiting.wait(), 30)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 30)
    assert await kept_by(store) == MaintenanceState()


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
