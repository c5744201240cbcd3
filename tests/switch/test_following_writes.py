"""Following a store: what is read is never older than what this process wrote."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from fastapi_maintenance import MaintenanceState, Switch, maintenance_mode_on, set_maintenance_mode
from tests.middleware.test_failures import app_on, hang, status
from tests.stores import BareSwitch, WatchableStore, be_down
from tests.switch.lifespans import OFF, answers, living

pytestmark = pytest.mark.anyio


async def test_a_write_counts_at_once_in_its_own_process() -> None:
    store = WatchableStore()
    app = app_on(store)
    async with living(app):
        store.before_tell = hang  # the push is late
        for active in (True, False):
            await set_maintenance_mode(active, store)
            assert (503 if active else 200) == await status(app)
        async with maintenance_mode_on(store):
            assert 503 == await status(app)
        assert 200 == await status(app)


async def test_a_push_from_before_a_write_does_not_undo_it() -> None:
    store = WatchableStore()
    app = app_on(store)
    async with living(app):
        reached, go_on = anyio.Event(), anyio.Event()

        async def wait() -> None:
            store.before_tell = checkpoint
            reached.set()
            await go_on.wait()

        store.before_tell = wait
        store.ring()
        await reached.wait()  # the watch has read that it is off
        await set_maintenance_mode(True, store)
        go_on.set()
        for _ in range(20):
            assert 503 == await status(app)


async def test_a_write_that_ends_after_a_newer_one_of_another_process_does_not_undo_it() -> None:
    store = WatchableStore()
    app = app_on(store)
    async with living(app):
        told, ended = anyio.Event(), anyio.Event()

        async def be_overtaken() -> None:
            store.after_write = checkpoint
            await store.memory.update_state(lambda _: OFF)  # another process
            store.ring()
            await told.wait()
            await anyio.wait_all_tasks_blocked()
            ended.set()

        async def tell() -> None:
            await checkpoint()
            told.set()

        store.after_write, store.before_tell = be_overtaken, tell
        await set_maintenance_mode(True, store)
        assert ended.is_set()
        assert 200 == await status(app)


@pytest.mark.parametrize("failure", [be_down, hang])
async def test_a_write_counts_although_the_store_cannot_be_read_after_it(failure: Any) -> None:  # noqa: ANN401 -- a hook
    store = WatchableStore()
    app = app_on(store, read_timeout=0.05)
    async with living(app):

        async def tell_and_fail() -> None:
            store.after_write = checkpoint
            store.ring()
            await anyio.sleep(0.05)
            store.before_read = failure

        store.after_write = tell_and_fail
        await set_maintenance_mode(True, store)
        assert 503 == await status(app)
        store.come_back()


async def test_a_write_in_another_thread_with_its_own_loop_counts_at_once() -> None:
    store = WatchableStore()
    app = app_on(store)
    async with living(app):
        store.before_tell = hang
        store.ring = lambda: None  # type: ignore[method-assign]  # an event belongs to one loop
        thread = threading.Thread(target=anyio.run, args=(set_maintenance_mode, True, store))
        thread.start()
        await anyio.to_thread.run_sync(thread.join)
        assert 503 == await status(app)


async def test_a_bare_switch_that_can_be_watched_counts_at_once_too() -> None:
    class Watchable(BareSwitch):
        async def watch(self) -> AsyncIterator[MaintenanceState]:
            yield MaintenanceState(switch=Switch(on=await self.get_value()))
            await anyio.sleep_forever()

    store = Watchable()
    app = app_on(store)
    async with living(app):
        await set_maintenance_mode(True, store)
        assert 503 == await status(app)


async def test_a_push_that_is_read_again_while_another_write_is_made_does_not_undo_that() -> None:
    store = WatchableStore()
    app = app_on(store)
    async with living(app):
        reached, go_on = anyio.Event(), anyio.Event()
        reading, read_on = anyio.Event(), anyio.Event()

        async def wait_before_telling() -> None:
            store.before_tell = checkpoint
            reached.set()
            await go_on.wait()

        async def read_slowly() -> MaintenanceState:
            del store.get_state  # once
            state = await store.memory.get_state()
            reading.set()
            await read_on.wait()
            return state

        store.before_tell = wait_before_telling
        store.ring()
        await reached.wait()
        await set_maintenance_mode(False, store)  # what is told next may be from before this, so it is read again
        store.get_state = read_slowly  # type: ignore[method-assign]
        go_on.set()
        await reading.wait()
        await set_maintenance_mode(True, store)
        read_on.set()
        for _ in range(20):
            assert 503 == await status(app)


async def test_write_that_another_process_undoes_is_noticed_if_a_watch_yields_only_differences() -> None:
    class Differing(WatchableStore):
        async def watch(self) -> AsyncIterator[MaintenanceState]:
            told = None
            async for state in super().watch():
                if state != told:
                    told = state
                    yield state

    store = Differing()
    app = app_on(store)
    async with living(app):
        undo = store.memory.set_value

        async def undo_at_once() -> None:
            store.after_write = checkpoint
            store.before_read = hold_on
            store.ring()

        async def hold_on() -> None:
            store.before_read = checkpoint
            await undo(False)  # another process, before this one looks

        store.after_write = undo_at_once
        await set_maintenance_mode(True, store)
        await answers(app, 200)
        await anyio.sleep(0.05)
        assert 200 == await status(app)
