"""A `CancelledError` that escapes from a store or a user's code is an error like others, not a cancellation."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from fastapi import FastAPI, Request

from fastapi_maintenance import (
    MaintenanceState,
    MemoryBackend,
    StateBackend,
    any_of,
    maintenance_changes,
    maintenance_mode_on,
    set_maintenance_mode,
    wait_until_open,
)
from tests.middleware.test_failures import app_on, hang, records, status
from tests.stores import BareSwitch, DetailedStore, DrainableStore, Hook, WatchableStore
from tests.support import client, eventually, on_jumping_clock
from tests.switch.lifespans import cancel, living

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend(monkeypatch: pytest.MonkeyPatch) -> tuple[str, dict[str, Any]]:
    """Run on asyncio, where user code can raise a cancellation, on a clock that jumps."""
    return on_jumping_clock("asyncio", monkeypatch)


async def cancel_later() -> None:
    """Wait for a task that is cancelled, as a client waits for its reader."""
    task = asyncio.ensure_future(asyncio.sleep(1000))
    asyncio.get_running_loop().call_soon(task.cancel)
    await task


async def outcome(awaitable: Awaitable[object]) -> object:
    """Return what it returns or raises; the cancellation of a task is "cancelled"."""
    task = asyncio.ensure_future(awaitable)
    with anyio.fail_after(600):
        await asyncio.wait([task])
    return "cancelled" if task.cancelled() else task.exception() or task.result()


each_cancel = pytest.mark.parametrize("hook", [cancel, cancel_later])


class Peekable(MemoryBackend):
    """A backend whose `peek` can raise."""

    cancelled = False

    def peek(self) -> MaintenanceState:
        if self.cancelled:
            raise asyncio.CancelledError
        return super().peek()


@each_cancel
@pytest.mark.parametrize("make", [BareSwitch, DetailedStore])
@pytest.mark.parametrize("closed", [True, False])
async def test_request_whose_read_raises_a_cancellation_gets_the_last_known_state_or_fail_closed(
    make: type[BareSwitch | DetailedStore], closed: bool, hook: Hook, caplog: pytest.LogCaptureFixture
) -> None:
    store = make(not closed)
    app = app_on(store, fail_closed=closed)
    store.before_read = hook
    assert await outcome(status(app)) == (503 if closed else 200)
    store.come_back()
    assert await status(app) == (200 if closed else 503)
    caplog.clear()
    store.before_read = hook
    assert [await outcome(status(app)) for _ in range(3)] == [200 if closed else 503] * 3
    (record,) = records(caplog)
    assert "cannot be read" in record


async def test_request_whose_peek_raises_a_cancellation_gets_the_last_known_state() -> None:
    backend = Peekable(state=True)
    app = app_on(backend)
    assert await status(app) == 503
    backend.cancelled = True
    assert await outcome(status(app)) == 503


async def raise_now(_: Request) -> bool:
    raise asyncio.CancelledError


async def raise_later(_: Request) -> bool:
    await cancel_later()
    return True


def raise_in_sync(_: Request) -> bool:
    raise asyncio.CancelledError


@pytest.mark.parametrize("setting", ["exempt", "response"])
@pytest.mark.parametrize("callback", [raise_now, raise_later, raise_in_sync, any_of(raise_now)])
async def test_request_whose_callback_raises_a_cancellation_gets_the_default_response(
    callback: Any,  # noqa: ANN401 -- each kind
    setting: str,
) -> None:
    assert await outcome(status(app_on(MemoryBackend(state=True), **{setting: callback}))) == 503


def hanging_read() -> FastAPI:
    store = DetailedStore()
    store.before_read = hang
    return app_on(store)


async def hang_in_callback(_: Request) -> bool:
    await hang()
    return True


@pytest.mark.parametrize("place", ["read", "exempt", "response"])
async def test_request_that_its_server_cancels_is_cancelled(place: str) -> None:
    callbacks: dict[str, Any] = {place: hang_in_callback}
    app = hanging_read() if place == "read" else app_on(MemoryBackend(state=True), **callbacks)
    task = asyncio.ensure_future(status(app))
    await anyio.sleep(0.5)
    task.cancel()
    assert await outcome(task) == "cancelled"


# While an app is served


class Watched(WatchableStore):
    """A store that counts how often a watch of it begins."""

    watches = 0

    async def watch(self) -> AsyncIterator[MaintenanceState]:
        self.watches += 1
        async for state in super().watch():
            yield state


@each_cancel
async def test_served_app_whose_watch_raises_a_cancellation_is_watched_again_after_pauses(hook: Hook) -> None:
    store = Watched(True)
    app = app_on(store)
    async with living(app):
        assert await status(app) == 503
        store.before_tell = hook
        store.ring()
        await anyio.sleep(2)
        assert 2 <= store.watches <= 16  # the pauses grow from 0.05 to 0.8 seconds
        assert await outcome(status(app)) == 503
        store.before_tell = checkpoint
        await set_maintenance_mode(False, store)
        await anyio.sleep(2)
        assert await status(app) == 200
    assert store.watchers == 0


async def drain(backend: StateBackend) -> str:
    async with maintenance_mode_on(backend, drain=30):
        return "drained"


async def test_served_app_whose_record_raises_a_cancellation_is_drained_later() -> None:
    store = DrainableStore()
    store.workers.before_write = cancel
    async with living(app_on(store)):
        await anyio.sleep(3)
        store.workers.come_back()
        assert await outcome(drain(store)) == "drained"


async def test_drain_waits_for_a_request_whose_predicate_raises_a_cancellation() -> None:
    backend, begun, goes_on = MemoryBackend(), anyio.Event(), anyio.Event()
    app = app_on(backend, exempt=raise_now)

    @app.get("/long")
    async def take_long() -> None:
        begun.set()
        await goes_on.wait()

    async with living(app):

        async def ask() -> int:
            async with client(app) as http:
                return (await http.get("/long")).status_code

        request = asyncio.ensure_future(ask())
        await begun.wait()
        draining = asyncio.ensure_future(drain(backend))
        await anyio.sleep(5)
        assert not draining.done()
        goes_on.set()
        assert [await outcome(request), await outcome(draining)] == [200, "drained"]


@pytest.mark.parametrize("moment", ["before_tell", "before_read"])
async def test_waiting_for_a_change_goes_on_when_the_watch_raises_a_cancellation(moment: str) -> None:
    store = Watched(True)
    seen: list[bool] = []

    async def listen() -> None:
        async for change in maintenance_changes(store):
            seen.append(change.active)  # noqa: PERF401 -- it never ends

    waiting, listening = asyncio.ensure_future(wait_until_open(store)), asyncio.ensure_future(listen())
    await anyio.sleep(1)
    setattr(store, moment, cancel)
    store.ring()
    await anyio.sleep(2)
    assert (waiting.done(), listening.done(), store.watches <= 20) == (False, False, True)
    setattr(store, moment, checkpoint)
    await set_maintenance_mode(False, store)
    assert await outcome(waiting) is None
    await eventually(lambda: seen == [True, False])
    listening.cancel()
    assert await outcome(listening) == "cancelled"
