"""What several share: apps with clients of their own, event loops that were closed, stores that raise anything."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import aclosing

import anyio
import pytest
from anyio.lowlevel import checkpoint

from fastapi_maintenance import (
    MaintenanceState,
    MemoryBackend,
    get_maintenance_mode,
    get_maintenance_state,
    get_maintenance_status,
    maintenance_changes,
    set_maintenance_mode,
)
from fastapi_maintenance._helpers import background
from fastapi_maintenance._switch import follower
from fastapi_maintenance.backends.known import forget_parent, known_of
from tests.middleware.test_failures import app_on, records, status
from tests.middleware.test_open_websockets import Client, Talk, service
from tests.stores import DetailedStore, WatchableStore, be_down
from tests.support import OddError, eventually
from tests.switch.lifespans import answers, answers_after, living

pytestmark = pytest.mark.anyio


class OwnClient(WatchableStore):
    """A client of its own to one store, which its app closes when it ends."""

    switch_identity = "one store"

    def close(self) -> None:
        self.go_down()
        self.cut_off()


async def test_apps_with_clients_of_their_own_go_on_with_the_client_of_the_one_that_is_left() -> None:
    first, second = OwnClient(), OwnClient()
    apps = app_on(first), app_on(second)
    has_begun, ends, has_ended = anyio.Event(), anyio.Event(), anyio.Event()

    async def live_first() -> None:
        async with living(apps[0]):
            has_begun.set()
            await ends.wait()
        first.close()
        has_ended.set()

    async with anyio.create_task_group() as group:
        group.start_soon(live_first)
        await has_begun.wait()
        async with living(apps[1]):
            assert [await status(app) for app in apps] == [200, 200]
            ends.set()
            await has_ended.wait()
            await second.set_value(True)  # as another process would
            await answers(apps[1], 503)
            assert second.watchers == 1


@pytest.mark.parametrize("error", [OddError(), SystemExit(3), BaseExceptionGroup("several", [OddError()])], ids=repr)
async def test_store_that_raises_what_is_no_exception_ends_no_app(
    error: BaseException, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background, "_PAUSES", (0.001,))

    class Store(WatchableStore):
        async def watch(self) -> AsyncIterator[MaintenanceState]:
            yield await self.get_state()
            raise error

    store = Store(True)
    app = app_on(store)
    async with living(app) as sent:
        assert await status(app) == 503
        await answers_after(caplog, f"it is read each second: {type(error).__name__}")
        store.before_read = be_down
        assert await status(app) == 503
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    caplog.clear()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_store_that_lets_out_a_cancellation_is_an_error_of_the_store() -> None:
    class Store(DetailedStore):
        async def get_state(self) -> MaintenanceState:
            await checkpoint()
            raise asyncio.CancelledError

    for get in (get_maintenance_mode, get_maintenance_status, get_maintenance_state):
        with pytest.raises(RuntimeError, match="although its task was not cancelled"):
            await get(Store())


async def test_read_in_progress_at_the_shutdown_ends_before_the_app_does() -> None:
    store, reads = DetailedStore(), [0, 0]

    async def read_slowly() -> None:
        reads[0] += 1
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(0.05)  # as it takes to give a connection back to its pool
            reads[1] += 1

    async def is_reading() -> bool:
        return reads[0] > reads[1]

    async with living(app_on(store)):
        store.before_read = read_slowly
        await eventually(is_reading)
    assert reads == [1, 1]


async def test_forked_child_takes_no_switch_for_followed() -> None:
    store = WatchableStore()
    async with living(app_on(store)):
        assert known_of(store).is_followed
        forget_parent()  # as the fork does in the child
        assert not known_of(store).is_followed


async def test_store_and_its_handling_that_both_raise_what_is_no_exception_end_no_app(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background, "_PAUSES", (0.001,))

    class Store(WatchableStore):
        async def get_state(self) -> MaintenanceState:
            await checkpoint()
            if self.fails:
                raise OddError
            return await super().get_state()

        fails = False

    store = Store(True)
    app = app_on(store)
    async with living(app) as sent:
        store.fails = True
        store.cut_off()
        await answers_after(caplog, "Background work failed; it is tried again until it succeeds")
        assert await status(app) == 503
        store.fails = False
        store.before_tell = checkpoint
        await store.set_value(False)
        await answers(app, 200)
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    caplog.clear()


async def test_websocket_of_an_app_without_lifespan_is_closed_after_another_app_has_ended() -> None:
    switch, talk, visitor = MemoryBackend(), Talk(), Client()
    app = service(switch, talk)
    async with anyio.create_task_group() as group:
        async with living(app_on(switch)):
            group.start_soon(visitor.connect, app)
            await talk.begun.wait()
        await set_maintenance_mode(True, switch)
        await visitor.is_closed()
    visitor.close()

    async def is_followed_no_longer() -> bool:
        await checkpoint()
        return follower.followers == {}

    await eventually(is_followed_no_longer)


def test_changes_that_are_kept_after_their_event_loop_was_closed_leave_the_switch_to_the_next() -> None:
    store = WatchableStore()
    loop = asyncio.new_event_loop()
    kept = maintenance_changes(store)
    loop.run_until_complete(anext(kept))
    for task in asyncio.all_tasks(loop):
        task._log_destroy_pending = False  # type: ignore[attr-defined]  # asyncio's own
    loop.close()
    store._changed = anyio.Event()  # a store has none of an event loop

    async def follow() -> tuple[bool, int]:
        async with aclosing(maintenance_changes(store)) as statuses:
            return (await anext(statuses)).active, len(follower.followers)

    assert asyncio.run(follow()) == (False, 1)
    del kept
    gc.collect()
    assert follower.followers == {}


def test_changes_dropped_after_their_event_loop_was_closed_leave_nothing() -> None:
    store = WatchableStore()
    loop = asyncio.new_event_loop()
    dropped = [maintenance_changes(store) for _ in range(3)]
    for each in dropped:
        loop.run_until_complete(anext(each))
    for task in asyncio.all_tasks(loop):
        task._log_destroy_pending = False  # type: ignore[attr-defined]  # asyncio's own
    loop.close()
    del each
    dropped.pop()
    gc.collect()

    async def drop_in_another_loop() -> int:
        dropped.clear()
        gc.collect()
        await anyio.sleep(0.01)
        return len(asyncio.all_tasks())

    assert asyncio.run(drop_in_another_loop()) == 1
    assert follower.followers == {}


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_work_that_turns_its_cancellation_into_an_error_ends(caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        try:
            await anyio.sleep_forever()
        except BaseException:  # noqa: BLE001 -- as code of users does
            msg = "it was disturbed"
            raise ConnectionError(msg) from None

    task = background.start(work)
    await anyio.sleep(0.01)
    (running,) = background._tasks
    running.cancel()
    await background.all_ended([task])
    assert task.has_ended
    assert records(caplog) == []
