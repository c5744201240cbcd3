"""Leases: how long a hold counts whose process has died, and how it is renewed while its block runs."""

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
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio import fail_after
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
from tests.switch.blocks import LOGGER, ONLY_ASYNCIO, after_next_write, messages_of, served

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend(jumping_loop: tuple[str, dict[str, Any]]) -> tuple[str, dict[str, Any]]:
    """Wait for nothing in vain."""
    return jumping_loop


@pytest.mark.parametrize("lease", [60, 60.0, timedelta(minutes=1)])
async def test_a_lease_is_kept_as_the_time_at_which_the_hold_expires(lease: float | timedelta) -> None:
    store = MemoryBackend()
    before = clock.now()
    async with maintenance_mode_on(store, lease=lease):
        (hold,) = store.peek().holds
    assert hold.expires_at is not None
    assert before <= hold.expires_at - timedelta(minutes=1) <= clock.now()


async def test_a_hold_without_a_lease_does_not_expire() -> None:
    store = MemoryBackend()
    async with maintenance_mode_off(store):
        assert [None] == [hold.expires_at for hold in store.peek().holds]


async def test_a_lease_is_renewed_while_the_block_runs_and_not_after() -> None:
    store = DetailedStore()
    async with maintenance_mode_off(store, lease=0.03):
        (first,) = (await store.get_state()).holds
        with fail_after(30):
            await after_next_write(store).wait()
        (second,) = (await store.get_state()).holds
    late = after_next_write(store)
    await anyio.sleep(0.04)
    assert (second.id, second.on) == (first.id, False)
    assert first.expires_at is not None
    assert second.expires_at is not None
    assert first.expires_at < second.expires_at
    assert not late.is_set()


async def test_renewal_of_a_hold_that_others_dropped_puts_it_back_where_it_belongs_by_its_age() -> None:
    store = DetailedStore()
    newer = Hold(id="newer", on=False, since=clock.now() + timedelta(seconds=1))
    async with maintenance_mode_on(store, lease=0.03):
        await store.update_state(lambda _: MaintenanceState(holds=(replace(newer, id="older", since=None), newer)))
        with fail_after(30):
            await after_next_write(store).wait()
        assert [hold.on for hold in (await store.get_state()).holds] == [False, True, False]


@ONLY_ASYNCIO  # on a clock that does not jump
@pytest.mark.servers
async def test_the_hold_of_a_process_that_died_runs_out_and_is_dropped_by_a_block_an_hour_later(tmp_path: Path) -> None:
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
    process = subprocess.Popen(  # noqa: ASYNC220 -- nothing else runs meanwhile
        [sys.executable, "-c", textwrap.dedent(program), store.file_path], cwd=ROOT, stdout=subprocess.PIPE
    )
    with process:
        assert process.stdout is not None
        assert b"held" == process.stdout.readline().strip()
        held = await get_maintenance_mode(store)
        os.kill(process.pid, signal.SIGKILL)
    (hold,) = store.peek().holds
    assert hold.expires_at is not None
    assert held
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
    """A store that is far away: what is written takes as long to get there as the answer takes to come back."""

    def __init__(self, one_way: float) -> None:
        super().__init__()
        self.one_way = one_way

    async def update_state(self, change: Callable[[MaintenanceState], MaintenanceState]) -> MaintenanceState:
        await anyio.sleep(self.one_way)
        state = await super().update_state(change)
        await anyio.sleep(self.one_way)
        return state


@pytest.mark.parametrize("share", [0.02, 0.2])
async def test_a_lease_on_a_slow_store_never_runs_out_while_the_block_runs(
    share: float, caplog: pytest.LogCaptureFixture
) -> None:
    """A renewal takes twice this share of the lease."""
    lease = 2.0
    store = SlowStore(share * lease)
    async with maintenance_mode_on(store, lease=lease):
        end = anyio.current_time() + 2 * lease
        while anyio.current_time() < end:
            assert await store.get_value()
            await anyio.sleep(0.002)
    assert messages_of(caplog) == []


async def test_a_lease_begins_when_the_hold_is_written_however_long_that_took() -> None:
    store = SlowStore(1.0)
    async with maintenance_mode_on(store, lease=1.9):
        assert await store.get_value()


async def test_a_host_whose_clock_is_ahead_leaves_the_holds_of_others_in_their_place() -> None:
    store = MemoryBackend()
    async with maintenance_mode_on(store, message="first", lease=0.5):
        there = clock.now() + timedelta(minutes=30)
        await store.update_state(lambda state: add_hold(state, Hold(id="second", on=True), there))
        (before, _) = store.peek().holds
        await eventually(lambda: is_renewed(store, before))
        assert ["first", None] == [hold.message for hold in store.peek().holds]


async def is_renewed(store: MemoryBackend, before: Hold) -> bool:
    return store.peek().holds[0] not in (before, None) and store.peek().holds[0].id == before.id


async def has_told(caplog: pytest.LogCaptureFixture, number: int) -> bool:
    return number <= len(messages_of(caplog))


@pytest.mark.parametrize(("failure", "error"), [(be_down, ConnectionError), (anyio.sleep_forever, TimeoutError)])
async def test_renewal_that_fails_or_hangs_is_logged_and_tried_again(
    failure: Hook, error: type[Exception], caplog: pytest.LogCaptureFixture
) -> None:
    store = DetailedStore()

    async def fail_once() -> None:
        store.before_write = checkpoint
        await failure()

    async with maintenance_mode_on(store, lease=0.9):
        store.before_write = fail_once
        await eventually(partial(has_told, caplog, 2))
        assert len((await store.get_state()).holds) == 1
        await anyio.sleep(0.05)
    record, *later = [
        record for record in caplog.records if record.name == LOGGER and "had lapsed" not in record.getMessage()
    ]
    assert record.getMessage() == "A hold could not be renewed in DetailedStore; it is tried again until it can"
    assert [one.getMessage() for one in later] == ["A hold has been renewed again in DetailedStore"]
    assert record.exc_info is not None
    assert record.exc_info[0] is error


async def test_a_block_counts_in_its_own_process_although_its_lease_ran_out_in_the_store() -> None:
    store = DetailedStore()
    async with maintenance_mode_on(store, lease=0.02):
        store.before_write = be_down
        (hold,) = (await store.get_state()).holds
        assert hold.expires_at is not None
        while clock.now() < hold.expires_at:  # noqa: ASYNC110 -- the clock is waited for
            await anyio.sleep(0.005)
        assert not await store.get_value()
        assert await get_maintenance_mode(store)
        store.come_back()


async def test_a_block_ends_although_a_renewal_hangs() -> None:
    store = DetailedStore()
    hanging = anyio.Event()

    async def hang_once() -> None:
        store.before_write = checkpoint
        hanging.set()
        await anyio.sleep_forever()

    with fail_after(30):
        async with maintenance_mode_on(store, lease=0.03):
            store.before_write = hang_once
            await hanging.wait()
    assert MaintenanceState() == await store.get_state()


async def test_a_renewal_that_failed_is_tried_again_soon() -> None:
    """The second try is not a third of the lease later, where the third one would come when it is over."""
    store = DetailedStore()

    async def fail_once() -> None:
        store.before_write = checkpoint
        await be_down()

    async with maintenance_mode_on(store, lease=3):
        (first,) = (await store.get_state()).holds
        store.before_write = fail_once
        await after_next_write(store).wait()
        (second,) = (await store.get_state()).holds
    assert first.expires_at is not None
    assert second.expires_at is not None
    assert second.expires_at - first.expires_at < timedelta(seconds=1.9)


async def test_a_lease_on_a_store_that_cannot_be_written_is_nothing_to_complain_of(
    caplog: pytest.LogCaptureFixture,
) -> None:
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
def test_lease_that_is_no_duration_is_refused(leases: list[Any], error: type[Exception], text: str) -> None:
    for lease, block in product(leases, (maintenance_mode_on, maintenance_mode_off)):
        with pytest.raises(error, match=text):
            block(MemoryBackend(), lease=lease)


async def test_a_hold_that_took_longer_to_write_than_its_lease_is_renewed_before_the_block_begins() -> None:
    store = DetailedStore()
    update, slow = store.update_state, True

    async def update_late(change: Callable[[MaintenanceState], MaintenanceState], /) -> MaintenanceState:
        nonlocal slow
        state = await update(change)
        if slow:
            slow = False
            await anyio.sleep(0.3)
        return state

    store.update_state = update_late  # type: ignore[method-assign]  # for this test
    async with maintenance_mode_on(store, lease=0.25):
        [hold] = (await store.get_state()).holds
        assert hold.expires_at is not None
        assert hold.expires_at > clock.now()
