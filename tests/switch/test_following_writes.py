"""Following a store that this process writes: no read or push is older than its own last write."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial

import anyio
import pytest
from anyio.lowlevel import checkpoint

from fastapi_maintenance import MaintenanceState, Switch, maintenance_mode_on, set_maintenance_mode
from tests.middleware.test_failures import app_on, hang, status
from tests.stores import BareSwitch, Hook, WatchableStore, be_down
from tests.switch.lifespans import OFF, answers, living, once

pytestmark = pytest.mark.anyio


async def test_write_counts_before_its_push_arrives() -> None:
    store = WatchableStore()
    app = app_on(store)
    async with living(app):
        store.before_tell = hang
        for active in (True, False):
            await set_maintenance_mode(active, store)
            assert await status(app) == (503 if active else 200)
        async with maintenance_mode_on(store):
            assert await status(app) == 503
        assert await status(app) == 200
        store.ring = lambda: None  # type: ignore[method-assign]  # its event belongs to this event loop
        await anyio.to_thread.run_sync(partial(anyio.run, set_maintenance_mode, True, store))
        assert await status(app) == 503


async def test_push_from_before_a_write_does_not_undo_it() -> None:
    store, go_on = WatchableStore(), anyio.Event()
    app = app_on(store)
    async with living(app):
        has_read = once(store, "before_tell", go_on.wait)
        store.ring()
        await has_read.wait()  # that it is off
        await set_maintenance_mode(True, store)
        go_on.set()
        for _ in range(20):
            assert await status(app) == 503


async def test_push_that_is_read_again_during_another_write_does_not_undo_that() -> None:
    store, push, read_on = WatchableStore(), anyio.Event(), anyio.Event()
    app = app_on(store)
    async with living(app):
        has_read, reading = once(store, "before_tell", push.wait), anyio.Event()

        async def read_slowly() -> MaintenanceState:
            del store.get_state  # once
            state = await store.memory.get_state()
            reading.set()
            await read_on.wait()
            return state

        store.ring()
        await has_read.wait()
        await set_maintenance_mode(False, store)  # the push may be from before this, so the store is read again
        store.get_state = read_slowly  # type: ignore[method-assign]
        push.set()
        await reading.wait()
        await set_maintenance_mode(True, store)
        read_on.set()
        for _ in range(20):
            assert await status(app) == 503


async def test_write_that_ends_after_a_newer_one_of_another_process_does_not_undo_it() -> None:
    store = WatchableStore()
    app = app_on(store)
    async with living(app):

        async def be_overtaken() -> None:
            pushed = once(store, "before_tell", checkpoint)
            await store.memory.update_state(lambda _: OFF)  # another process
            store.ring()
            await pushed.wait()
            await anyio.wait_all_tasks_blocked()

        overtaken = once(store, "after_write", be_overtaken)
        await set_maintenance_mode(True, store)
        assert overtaken.is_set()
        assert await status(app) == 200


@pytest.mark.parametrize("failure", [be_down, hang])
async def test_write_counts_although_the_store_cannot_be_read_after_it(failure: Hook) -> None:
    store = WatchableStore()
    app = app_on(store, read_timeout=0.05)
    async with living(app):

        async def push_and_fail() -> None:
            store.ring()
            await anyio.sleep(0.05)
            store.before_read = failure

        once(store, "after_write", push_and_fail)
        await set_maintenance_mode(True, store)
        assert await status(app) == 503
        store.come_back()


async def test_write_to_a_watchable_bare_switch_counts_at_once() -> None:
    class Watchable(BareSwitch):
        async def watch(self) -> AsyncIterator[MaintenanceState]:
            yield MaintenanceState(switch=Switch(on=await self.get_value()))
            await anyio.sleep_forever()

    store = Watchable()
    app = app_on(store)
    async with living(app):
        await set_maintenance_mode(True, store)
        assert await status(app) == 503


async def test_write_that_another_process_undoes_is_noticed_if_a_watch_yields_only_differences() -> None:
    class Differing(WatchableStore):
        async def watch(self) -> AsyncIterator[MaintenanceState]:
            last = None
            async for state in super().watch():
                if state != last:
                    last = state
                    yield state

    store = Differing()
    app = app_on(store)
    async with living(app):

        async def undo() -> None:
            once(store, "before_read", lambda: store.memory.set_value(False))  # another process, before this one looks
            store.ring()

        once(store, "after_write", undo)
        await set_maintenance_mode(True, store)
        await answers(app, 200)
        await anyio.wait_all_tasks_blocked()
        assert await status(app) == 200
