"""`wait_until_open` and `maintenance_changes`, as background workers use them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, asynccontextmanager
from datetime import datetime, timedelta
from typing import Any

import anyio
import pytest

from fastapi_maintenance import (
    EnvVarBackend,
    Hold,
    MaintenanceState,
    MaintenanceStatus,
    MemoryBackend,
    StateBackend,
    Switch,
    maintenance_changes,
    maintenance_mode_off,
    maintenance_mode_on,
    plan_maintenance,
    set_maintenance_mode,
    wait_until_open,
)
from fastapi_maintenance._helpers import clock
from fastapi_maintenance._switch import follower
from tests.stores import BareSwitch, DetailedStore, WatchableStore
from tests.support import eventually
from tests.switch.blocks import messages_of, served

pytestmark = pytest.mark.anyio

BACKENDS = [MemoryBackend, WatchableStore, DetailedStore, BareSwitch]


@pytest.fixture
def anyio_backend(jumping_loop: tuple[str, dict[str, Any]]) -> tuple[str, dict[str, Any]]:
    """Run the tests on a clock that jumps."""
    return jumping_loop


class Listener:
    """The statuses that `maintenance_changes` has yielded."""

    def __init__(self, backend: StateBackend) -> None:
        self.statuses: list[MaintenanceStatus] = []
        self._backend = backend

    async def listen(self) -> None:
        async for status in maintenance_changes(self._backend):
            self.statuses.append(status)

    async def has(self, *expected: tuple[bool, str | None]) -> None:
        await eventually(lambda: [(status.active, status.message) for status in self.statuses] == list(expected))


def now_and(seconds: float) -> datetime:
    return clock.now() + timedelta(seconds=seconds)


@asynccontextmanager
async def nothing_left() -> AsyncGenerator[None]:
    """Wait at the end until no switch is followed."""
    yield
    await eventually(lambda: follower.followers == {})


@pytest.mark.parametrize("make", BACKENDS)
async def test_wait_until_open_returns_at_once_while_off_and_otherwise_when_maintenance_ends(
    make: Callable[[], Any],
) -> None:
    backend = make()
    opened: list[int] = []

    async def consume() -> None:
        await wait_until_open(backend)
        opened.append(1)

    async with nothing_left():
        await wait_until_open(backend)
        await set_maintenance_mode(True, backend)
        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(consume)
            await anyio.sleep(30)
            assert opened == []
            await set_maintenance_mode(False, backend)
        assert opened == [1, 1, 1]


@pytest.mark.parametrize(
    ("timeout", "error", "text"),
    [
        (0.05, TimeoutError, r"maintenance is still on, or its state is unknown, after 0\.05 seconds"),
        (0, ValueError, "timeout must be a finite number of seconds above 0"),
        ("1", TypeError, "timeout must be a number"),
    ],
)
async def test_wait_until_open_with_a_timeout_that_is_over_or_invalid_raises(
    timeout: float,  # noqa: ASYNC109 -- what is tested
    error: type[Exception],
    text: str,
) -> None:
    async with nothing_left():
        with pytest.raises(error, match=text):
            await wait_until_open(MemoryBackend(state=True), timeout=timeout)


async def test_wait_until_open_returns_when_the_lease_of_a_dead_job_expires() -> None:
    dead = Hold(id="a job that died", on=True, expires_at=now_and(20))
    await wait_until_open(MemoryBackend(MaintenanceState(holds=(dead,))), timeout=21)


async def test_wait_until_open_takes_a_url_and_without_one_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, url in {"CLOSED": ["env:CLOSED"], "FASTAPI_MAINTENANCE_MODE": []}.items():
        monkeypatch.setenv(name, "1")
        with pytest.raises(TimeoutError):
            await wait_until_open(*url, timeout=2)
        monkeypatch.setenv(name, "0")
        await wait_until_open(*url, timeout=2)


async def test_wait_until_open_goes_by_blocks_of_this_process_that_the_store_does_not_keep() -> None:
    backend = served(EnvVarBackend())
    async with anyio.create_task_group() as group, maintenance_mode_on(backend):
        with pytest.raises(TimeoutError):
            await wait_until_open(backend, timeout=0.1)
        async with maintenance_mode_off(backend):
            await wait_until_open(backend, timeout=60)
        group.start_soon(wait_until_open, backend)
        await anyio.sleep(0.05)


async def test_wait_until_open_during_an_outage_uses_the_last_state_and_logs_two_records(
    caplog: pytest.LogCaptureFixture,
) -> None:
    backend = WatchableStore(True)
    async with anyio.create_task_group() as group:
        group.start_soon(wait_until_open, backend)
        await anyio.wait_all_tasks_blocked()
        backend.go_down()
        backend.cut_off()
        await anyio.sleep(10)
        assert len(messages_of(caplog)) == 1
        backend.come_back()
        backend.before_tell = anyio.lowlevel.checkpoint
        await anyio.sleep(10)
        await backend.set_value(False)
    assert len(messages_of(caplog)) == 2


async def test_followed_switch_has_one_watch_which_goes_on_when_its_first_subscriber_is_cancelled() -> None:
    backend = WatchableStore(True)
    scopes = [anyio.CancelScope() for _ in range(5)]
    opened: list[int] = []

    async def consume(number: int) -> None:
        with scopes[number]:
            await wait_until_open(backend)
            opened.append(number)

    async with nothing_left():
        async with anyio.create_task_group() as group:
            for number in range(5):
                group.start_soon(consume, number)
            for scope in scopes[:3]:
                await eventually(lambda: backend.watchers == 1)
                scope.cancel()
                await anyio.sleep(1)
            await eventually(lambda: backend.watchers == 1)
            await backend.set_value(False)  # as another process would
        assert sorted(opened) == [3, 4]
    await eventually(lambda: backend.watchers == 0)


async def test_maintenance_changes_after_the_watching_subscriber_leaves_in_an_outage_keep_the_last_state() -> None:
    backend = WatchableStore()
    early, late, leaving = Listener(backend), Listener(backend), anyio.CancelScope()

    async def watch() -> None:
        with leaving:
            await Listener(backend).listen()

    async with anyio.create_task_group() as group:
        group.start_soon(watch)
        await eventually(lambda: backend.watchers == 1)
        group.start_soon(early.listen)
        await early.has((False, None))
        await backend.set_value(True)  # as another process would
        await early.has((False, None), (True, None))
        leaving.cancel()
        backend.go_down()
        backend.cut_off()
        group.start_soon(late.listen)
        await late.has((True, None))
        await anyio.sleep(10)
        await early.has((False, None), (True, None))
        await late.has((True, None))
        group.cancel_scope.cancel()


async def test_maintenance_changes_yields_each_change_and_no_renewal_of_a_lease() -> None:
    backend = MemoryBackend()
    listener = Listener(backend)
    async with nothing_left(), anyio.create_task_group() as group:
        group.start_soon(listener.listen)
        await listener.has((False, None))
        await set_maintenance_mode(True, backend, message="soon")
        await listener.has((False, None), (True, "soon"))
        async with maintenance_mode_on(backend, lease=60):
            first = backend.peek()
            await anyio.sleep(30)
            assert (backend.peek() != first, len(listener.statuses)) == (True, 3)
        await listener.has((False, None), (True, "soon"), (True, "soon"), (True, "soon"))
        group.cancel_scope.cancel()
    assert [type(status.decided_by) for status in listener.statuses] == [type(None), Switch, Hold, Switch]


@pytest.mark.parametrize("make", BACKENDS[:3])
async def test_maintenance_changes_yields_a_window_when_it_begins_and_ends(make: Callable[[], Any]) -> None:
    backend = make()
    starts_at, ends_at = now_and(30), now_and(60)
    await plan_maintenance(starts_at, ends_at, backend)
    late, expected = [], [(False, None), (True, starts_at), (False, ends_at)]
    async with nothing_left(), aclosing(maintenance_changes(backend)) as statuses:
        for active, moment in expected:
            assert (await anext(statuses)).active is active
            late.append((clock.now() - moment).total_seconds() if moment else 0)
    assert [0 <= seconds < 0.25 for seconds in late] == [True, True, True]
