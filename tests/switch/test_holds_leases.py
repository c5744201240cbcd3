"""Leases: they are renewed while their block runs, and the hold of a process that died expires."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from itertools import product
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from fastapi_maintenance import (
    EnvVarBackend,
    Hold,
    LocalFileBackend,
    MaintenanceState,
    MemoryBackend,
    get_maintenance_mode,
    maintenance_mode_off,
    maintenance_mode_on,
    status_of,
)
from fastapi_maintenance._helpers import clock
from fastapi_maintenance.state import add_hold
from fastapi_maintenance.testing import moved_clock
from tests.stores import DetailedStore, Hook, be_down
from tests.support import ROOT, eventually
from tests.switch.blocks import LOGGER, ONLY_ASYNCIO, messages_of, served
from tests.switch.lifespans import once

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend(jumping_loop: tuple[str, dict[str, Any]]) -> tuple[str, dict[str, Any]]:
    """Run on a clock that jumps."""
    return jumping_loop


async def expires_at(store: MemoryBackend | DetailedStore, place: int = 0) -> Any:  # noqa: ANN401 -- a datetime, which is compared
    """Return when a hold in the store expires."""
    return (await store.get_state()).holds[place].expires_at


@pytest.mark.parametrize("lease", [60, 60.0, timedelta(minutes=1)])
@pytest.mark.usefixtures("stopped_at")
async def test_hold_expires_after_its_lease_and_not_without_one(lease: float | timedelta) -> None:
    store = MemoryBackend()
    async with maintenance_mode_on(store, lease=lease), maintenance_mode_off(store):
        assert await expires_at(store) == clock.now() + timedelta(minutes=1)
        assert await expires_at(store, 1) is None


async def test_lease_is_renewed_while_the_block_runs_and_not_after() -> None:
    store = DetailedStore()
    async with maintenance_mode_off(store, lease=0.03):
        (first,) = (await store.get_state()).holds
        await once(store, "after_write", checkpoint).wait()
        (second,) = (await store.get_state()).holds
    late = once(store, "after_write", checkpoint)
    await anyio.sleep(0.04)
    assert replace(second, expires_at=first.expires_at) == first
    assert second.expires_at > first.expires_at  # type: ignore[operator]  # both have one
    assert not late.is_set()


async def test_renewal_of_a_hold_that_others_dropped_puts_it_back_in_its_place_by_age() -> None:
    store = DetailedStore()
    newer = Hold(id="newer", on=False, since=clock.now() + timedelta(seconds=1))
    async with maintenance_mode_on(store, lease=0.03):
        await store.update_state(lambda _: MaintenanceState(holds=(replace(newer, id="older", since=None), newer)))
        await once(store, "after_write", checkpoint).wait()
        assert [hold.on for hold in (await store.get_state()).holds] == [False, True, False]


@ONLY_ASYNCIO  # on a clock that does not jump
@pytest.mark.servers
async def test_hold_of_a_process_that_died_expires_and_is_dropped_by_a_block_an_hour_later(tmp_path: Path) -> None:
    program = """
        import sys
        import anyio
        from fastapi_maintenance import LocalFileBackend, maintenance_mode_on

        async def job():
            async with maintenance_mode_on(LocalFileBackend(sys.argv[1]), lease=60):
                print("held", flush=True)
                await anyio.sleep_forever()

        anyio.run(job)
    """
    store = LocalFileBackend(tmp_path / "mode")
    process = subprocess.Popen(  # noqa: ASYNC220 -- nothing else runs here
        [sys.executable, "-c", textwrap.dedent(program), store.file_path], cwd=ROOT, stdout=subprocess.PIPE
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == b"held"
        assert await get_maintenance_mode(store)
        os.kill(process.pid, signal.SIGKILL)
    (hold,) = store.peek().holds
    assert hold.expires_at is not None
    assert status_of(store.peek(), hold.expires_at - timedelta.resolution).active
    with moved_clock() as moved:
        moved.move(seconds=60)
        assert not await get_maintenance_mode(store)
        async with maintenance_mode_off(store):
            assert hold.id in [other.id for other in store.peek().holds]
        moved.move(hours=1, seconds=2)
        async with maintenance_mode_on(store):
            assert hold.id not in [other.id for other in store.peek().holds]


class SlowStore(DetailedStore):
    """A remote store: a write takes this long to reach it, and its answer takes as long."""

    def __init__(self, before: float, after: float) -> None:
        super().__init__()
        self.before, self.after = before, after

    async def update_state(self, change: Callable[[MaintenanceState], MaintenanceState]) -> MaintenanceState:
        await anyio.sleep(self.before)
        state = await super().update_state(change)
        await anyio.sleep(self.after)
        return state


@pytest.mark.parametrize("share", [0.02, 0.2])
async def test_lease_on_a_slow_store_never_expires_while_the_block_runs(
    share: float, caplog: pytest.LogCaptureFixture
) -> None:
    """A renewal takes twice this share of the lease."""
    lease = 2.0
    store = SlowStore(share * lease, share * lease)
    async with maintenance_mode_on(store, lease=lease):
        end = anyio.current_time() + 2 * lease
        while anyio.current_time() < end:
            assert await store.get_value()
            await anyio.sleep(0.01)
    assert messages_of(caplog) == []


@pytest.mark.parametrize(("before", "after"), [(1.0, 1.0), (0, 3.0)], ids=["late", "later than its lease"])
async def test_lease_counts_when_the_block_begins_although_its_first_write_was_slow(
    before: float, after: float
) -> None:
    store = SlowStore(before, after)
    async with maintenance_mode_on(store, lease=1.9):
        store.before = store.after = 0
        assert await expires_at(store) > clock.now()


async def test_renewal_leaves_the_hold_of_a_host_whose_clock_is_ahead_in_its_place() -> None:
    store = MemoryBackend()
    async with maintenance_mode_on(store, message="first", lease=0.5):
        there = clock.now() + timedelta(minutes=30)
        await store.update_state(lambda state: add_hold(state, Hold(id="second", on=True), there))
        before = await expires_at(store)
        await anyio.sleep(0.5)
        assert [hold.message for hold in store.peek().holds] == ["first", None]
        assert await expires_at(store) > before


@pytest.mark.parametrize(("failure", "error"), [(be_down, ConnectionError), (anyio.sleep_forever, TimeoutError)])
async def test_renewal_that_fails_or_hangs_is_logged_and_tried_again_soon(
    failure: Hook, error: type[Exception], caplog: pytest.LogCaptureFixture
) -> None:
    store = DetailedStore()
    async with maintenance_mode_on(store, lease=3):
        before = await expires_at(store)
        once(store, "before_write", failure)
        await once(store, "after_write", checkpoint).wait()
        assert await expires_at(store) - before < timedelta(seconds=1.9 if failure is be_down else 4)
        await eventually(lambda: messages_of(caplog)[-1] == "A hold has been renewed again in DetailedStore")
    (record,) = [record for record in caplog.records if record.name == LOGGER and record.exc_info]
    assert record.getMessage() == "A hold could not be renewed in DetailedStore; it is tried again until it can"
    assert record.exc_info is not None
    assert record.exc_info[0] is error


async def test_block_counts_in_its_own_process_although_its_lease_expired_in_the_store() -> None:
    store = DetailedStore()
    async with maintenance_mode_on(store, lease=0.02):
        store.before_write = be_down
        await anyio.sleep(0.03)
        assert (await store.get_value(), await get_maintenance_mode(store)) == (False, True)
        store.come_back()


async def test_block_ends_although_a_renewal_hangs() -> None:
    store = DetailedStore()
    with anyio.fail_after(30):
        async with maintenance_mode_on(store, lease=0.03):
            await once(store, "before_write", anyio.sleep_forever).wait()
    assert await store.get_state() == MaintenanceState()


async def test_lease_on_a_read_only_store_logs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async with maintenance_mode_on(served(EnvVarBackend("HOLDS_MODE")), lease=0.03):
        await anyio.sleep(10)
    assert messages_of(caplog) == []


@pytest.mark.parametrize(
    ("leases", "error", "text"),
    [
        ([True, "60", [60]], TypeError, "lease must be a number of seconds or a timedelta"),
        ([0, -1, math.nan, math.inf, timedelta(0)], ValueError, "lease must be a finite number of seconds above 0"),
        ([1e300, 1e12, timedelta.max], ValueError, "lease must end before the year 10000"),
    ],
)
def test_lease_that_is_not_a_duration_is_refused(leases: list[Any], error: type[Exception], text: str) -> None:
    for lease, block in product(leases, (maintenance_mode_on, maintenance_mode_off)):
        with pytest.raises(error, match=text):
            block(MemoryBackend(), lease=lease)
