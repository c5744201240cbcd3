"""Waiting for maintenance to end, and for each change of what counts, as background workers do."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import aclosing
from datetime import datetime, timedelta
from functools import partial
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
from fastapi_maintenance._switch import follower, renewal
from tests.stores import BareSwitch, DetailedStore, WatchableStore
from tests.support import eventually
from tests.switch.blocks import served

pytestmark = pytest.mark.anyio

BACKENDS = [MemoryBackend, WatchableStore, DetailedStore, BareSwitch]


@pytest.fixture
def anyio_backend(jumping_loop: tuple[str, dict[str, Any]]) -> tuple[str, dict[str, Any]]:
    """Wait for nothing in vain."""
    return jumping_loop


class Told:
    """What a task was told by `maintenance_changes`."""

    def __init__(self, backend: StateBackend) -> None:
        self.statuses: list[MaintenanceStatus] = []
        self._backend = backend

    async def listen(self) -> None:
        async for status in maintenance_changes(self._backend):
            self.statuses.append(status)

    async def is_told(self, *expected: tuple[bool, str | None]) -> None:
        async def is_so() -> bool:
            return list(expected) == [(status.active, status.message) for status in self.statuses]

        await eventually(is_so)


def now_and(seconds: float) -> datetime:
    return clock.now() + timedelta(seconds=seconds)


async def nothing_is_left() -> None:
    async def is_so() -> bool:
        return {} == follower.followers

    await eventually(is_so)


@pytest.mark.parametrize("make", BACKENDS)
async def test_wait_until_open_returns_at_once_while_off_and_else_when_maintenance_ends(
    make: Callable[[], Any],
) -> None:
    backend = make()
    with anyio.fail_after(30):
        await wait_until_open(backend)
    await set_maintenance_mode(True, backend)
    ended = [anyio.Event(), anyio.Event(), anyio.Event()]

    async def consume(event: anyio.Event) -> None:
        await wait_until_open(backend)
        event.set()

    async with anyio.create_task_group() as group:
        for event in ended:
            group.start_soon(consume, event)
        await anyio.sleep(0.1)
        assert not any(event.is_set() for event in ended)
        await set_maintenance_mode(False, backend)
    await nothing_is_left()


async def test_wait_until_open_after_its_timeout_raises() -> None:
    with pytest.raises(TimeoutError, match=r"maintenance is still on, or its state is unknown, after 0\.05 seconds"):
        await wait_until_open(MemoryBackend(state=True), timeout=0.05)
    await nothing_is_left()


@pytest.mark.parametrize(
    ("timeout", "error", "text"),
    [
        (0, ValueError, "timeout must be a finite number of seconds above 0"),
        ("1", TypeError, "timeout must be a number"),
    ],
)
async def test_wait_until_open_with_an_invalid_timeout_raises(
    timeout: float,  # noqa: ASYNC109 -- what is tested
    error: type[Exception],
    text: str,
) -> None:
    with pytest.raises(error, match=text):
        await wait_until_open(MemoryBackend(), timeout=timeout)


async def test_many_share_one_watch_and_another_goes_on_where_the_first_is_cancelled() -> None:
    backend = WatchableStore(True)
    scopes = [anyio.CancelScope() for _ in range(5)]
    opened: list[int] = []

    async def consume(number: int) -> None:
        with scopes[number]:
            await wait_until_open(backend)
            opened.append(number)

    async with anyio.create_task_group() as group:
        for number in range(5):
            group.start_soon(consume, number)
        for number in range(3):
            await is_watched(backend)
            scopes[number].cancel()
            await anyio.sleep(0.05)
        await is_watched(backend)
        await backend.set_value(False)  # as another process would
    assert [3, 4] == sorted(opened)
    await nothing_is_left()

    async def is_ended() -> bool:
        return 0 == backend.watchers

    await eventually(is_ended)


async def is_watched(backend: WatchableStore) -> None:
    async def is_so() -> bool:
        return 1 == backend.watchers

    await eventually(is_so)


async def test_changes_when_the_watcher_leaves_during_an_outage_keeps_the_last_known_state() -> None:
    backend = WatchableStore()
    early, late, leaving = Told(backend), Told(backend), anyio.CancelScope()

    async def watch() -> None:
        with leaving:
            await Told(backend).listen()

    async with anyio.create_task_group() as group:
        group.start_soon(watch)
        await is_watched(backend)
        group.start_soon(early.listen)
        await early.is_told((False, None))
        await backend.set_value(True)  # as another process would
        await early.is_told((False, None), (True, None))
        await is_watched(backend)
        leaving.cancel()
        backend.go_down()
        backend.cut_off()
        group.start_soon(late.listen)
        await late.is_told((True, None))
        await anyio.sleep(10)
        await early.is_told((False, None), (True, None))
        await late.is_told((True, None))
        group.cancel_scope.cancel()


async def test_changes_yields_each_change_and_no_renewal_of_a_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(renewal, "_RENEWALS_PER_LEASE", 600)
    backend = MemoryBackend()
    told = Told(backend)
    async with anyio.create_task_group() as group:
        group.start_soon(told.listen)
        await told.is_told((False, None))
        await set_maintenance_mode(True, backend, message="soon")
        await told.is_told((False, None), (True, "soon"))
        async with maintenance_mode_on(backend, lease=60):
            first = backend.peek()

            async def is_renewed() -> bool:
                return first != backend.peek()

            await eventually(is_renewed)
            await anyio.sleep(0.3)
            assert len(told.statuses) == 3
        await told.is_told((False, None), (True, "soon"), (True, "soon"), (True, "soon"))
        group.cancel_scope.cancel()
    assert [type(status.decided_by) for status in told.statuses] == [type(None), Switch, Hold, Switch]
    await nothing_is_left()


@pytest.mark.parametrize("make", BACKENDS[:3])
async def test_changes_yields_a_window_at_the_moment_when_it_begins_and_ends(make: Callable[[], Any]) -> None:
    backend = make()
    starts_at, ends_at = now_and(0.3), now_and(0.6)
    await plan_maintenance(starts_at, ends_at, backend)
    moments, seen = [], []
    async with aclosing(maintenance_changes(backend)) as statuses:
        async for status in statuses:
            moments.append(clock.now())
            seen.append(status.active)
            if len(seen) == 3:
                break
    assert seen == [False, True, False]
    assert starts_at <= moments[1] < starts_at + timedelta(seconds=0.25)
    assert ends_at <= moments[2] < ends_at + timedelta(seconds=0.25)
    await nothing_is_left()


async def test_wait_until_open_returns_when_the_lease_of_a_dead_job_ends() -> None:
    dead = Hold(id="a job that died", on=True, expires_at=now_and(0.2))
    backend = MemoryBackend(MaintenanceState(holds=(dead,)))
    with anyio.fail_after(30):
        await wait_until_open(backend)


async def test_wait_until_open_during_an_outage_uses_the_last_state_and_logs_twice(
    caplog: pytest.LogCaptureFixture,
) -> None:
    backend = WatchableStore(True)
    async with anyio.create_task_group() as group:
        group.start_soon(wait_until_open, backend)
        await anyio.wait_all_tasks_blocked()
        backend.go_down()
        backend.cut_off()
        await eventually(partial(are_logged, caplog, 1))
        await anyio.sleep(0.3)
        assert 1 == len(messages(caplog))
        backend.come_back()
        backend.before_tell = anyio.lowlevel.checkpoint
        await eventually(partial(are_logged, caplog, 2))
        await anyio.sleep(0.3)
        await backend.set_value(False)
    assert 2 == len(messages(caplog))


async def are_logged(caplog: pytest.LogCaptureFixture, number: int) -> bool:
    return number == len(messages(caplog))


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "fastapi_maintenance"]


async def test_wait_until_open_takes_a_url_and_without_one_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, url in {"CLOSED": ["env:CLOSED"], "FASTAPI_MAINTENANCE_MODE": []}.items():
        monkeypatch.setenv(name, "1")
        with pytest.raises(TimeoutError):
            await wait_until_open(*url, timeout=2)
        monkeypatch.setenv(name, "0")
        await wait_until_open(*url, timeout=2)


async def test_blocks_of_this_process_count_where_the_store_does_not_keep_them() -> None:
    backend = served(EnvVarBackend())
    async with anyio.create_task_group() as group, maintenance_mode_on(backend):
        with pytest.raises(TimeoutError):
            await wait_until_open(backend, timeout=0.1)
        async with maintenance_mode_off(backend):
            await wait_until_open(backend, timeout=60)
        group.start_soon(wait_until_open, backend)
        await anyio.sleep(0.05)
