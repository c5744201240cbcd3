"""Leases and vanished holds: both are renewed while their block runs, and a warning is logged if a lease lapsed."""

from __future__ import annotations

import asyncio
import logging
import math
import re
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from itertools import product
from pathlib import Path
from typing import Any

import anyio
import pytest
import redis
import trio
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
    set_maintenance_mode,
)
from fastapi_maintenance._helpers import clock
from fastapi_maintenance.backends.url import opened
from fastapi_maintenance.state import add_hold, release_hold
from fastapi_maintenance.testing import moved_clock
from fastapi_maintenance.typing import DetailedStateBackend
from tests.stores import DetailedStore, Hook, WatchableStore, be_down
from tests.support import eventually
from tests.switch.blocks import LOGGER, ONLY_ASYNCIO, messages_of, served
from tests.switch.lifespans import cancel, once

pytestmark = pytest.mark.anyio
LEASE = 30.0  # seconds, on a clock that jumps
SOON = 2.5  # seconds within which a vanished hold is back: about two
Kind = type[DetailedStore | MemoryBackend]
each_kind = pytest.mark.parametrize("kind", [DetailedStore, WatchableStore, MemoryBackend])
on_a_real_clock = pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])


@pytest.fixture
def anyio_backend(jumping_loop: tuple[str, dict[str, Any]]) -> tuple[str, dict[str, Any]]:
    """Run on a clock that jumps."""
    return jumping_loop


async def expires_at(store: MemoryBackend | DetailedStore, place: int = 0) -> Any:  # noqa: ANN401 -- a datetime or None
    """Return when a hold in the store expires."""
    return (await store.get_state()).holds[place].expires_at


# Renewed


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


@pytest.mark.parametrize(
    ("failure", "error"), [(be_down, ConnectionError), (cancel, RuntimeError), (anyio.sleep_forever, TimeoutError)]
)
async def test_renewal_that_fails_or_hangs_is_logged_and_tried_again_soon(
    failure: Hook, error: type[Exception], caplog: pytest.LogCaptureFixture
) -> None:
    store = DetailedStore()
    async with maintenance_mode_on(store, lease=3):
        before = await expires_at(store)
        once(store, "before_write", failure)
        await once(store, "after_write", checkpoint).wait()
        assert await expires_at(store) - before < timedelta(seconds=4 if error is TimeoutError else 1.9)
        await eventually(lambda: messages_of(caplog)[-1] == "A hold has been renewed again in DetailedStore")
    (record,) = [record for record in caplog.records if record.name == LOGGER and record.exc_info]
    assert record.getMessage() == "A hold could not be renewed in DetailedStore; retrying until it succeeds"
    assert record.exc_info is not None
    assert record.exc_info[0] is error


async def test_renewal_without_a_lease_is_logged_only_after_a_write(caplog: pytest.LogCaptureFixture) -> None:
    store = DetailedStore()
    async with maintenance_mode_on(store):
        store.before_write = be_down
        await store.memory.update_state(lambda _: MaintenanceState())  # the hold vanishes
        await eventually(lambda: "could not be renewed" in "".join(messages_of(caplog)))
        store.before_read = be_down
        await anyio.sleep(1.5)  # it tries again every second
        assert "renewed again" not in "".join(messages_of(caplog))
        store.before_read = store.before_write = checkpoint
        await eventually(lambda: "renewed again" in "".join(messages_of(caplog)))


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


# Lapsed


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    records = [record for record in caplog.records if record.name == LOGGER and record.levelno >= logging.WARNING]
    return [record.getMessage() for record in records]


def lapses_of(caplog: pytest.LogCaptureFixture) -> list[float]:
    """Return the seconds of each warning about a lapse."""
    found = [re.search(r"lapsed\D*(\d+(?:\.\d+)?) s", text) for text in warnings_of(caplog)]
    return [float(each[1]) for each in found if each]


def block_the_loop(seconds: float) -> None:
    """Let time pass while nothing else runs, as code that blocks the event loop does."""
    try:
        loop: Any = asyncio.get_running_loop()
    except RuntimeError:
        trio_clock: Any = trio.lowlevel.current_clock()
        trio_clock.jump(seconds)
    else:
        loop._passed += seconds


async def is_kept(store: DetailedStateBackend) -> bool:
    """Return whether the store has a hold that counts."""
    holds = (await store.get_state()).holds
    return len(holds) == 1 and (holds[0].expires_at is None or clock.now() < holds[0].expires_at)


async def is_back(store: DetailedStateBackend, *, within: float) -> None:
    await eventually(lambda: is_kept(store), within=within)


@pytest.mark.parametrize(
    ("blocked_for", "lapses"), [([LEASE + 5, LEASE + 100], [5, 100]), ([LEASE - 1], [])], ids=["longer", "shorter"]
)
@each_kind
async def test_hold_whose_event_loop_is_blocked_longer_than_its_lease_is_renewed_with_a_warning(
    kind: Kind, blocked_for: list[float], lapses: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    store = kind()
    async with maintenance_mode_on(store, lease=LEASE):
        for seconds in blocked_for:
            block_the_loop(seconds)
            assert await is_kept(store) is (lapses == [])
            await is_back(store, within=LEASE)
        await anyio.sleep(3 * LEASE)
    assert await store.get_state() == MaintenanceState()
    assert lapses_of(caplog) == [pytest.approx(seconds, abs=1) for seconds in lapses]
    assert len(warnings_of(caplog)) == len(lapses)


async def test_hold_that_lapses_during_a_renewal_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    """The process stops after the renewal is written, and goes on before that expires."""
    store = DetailedStore()

    async def block() -> None:
        block_the_loop(LEASE - 1)
        await checkpoint()

    async with maintenance_mode_on(store, lease=LEASE):
        once(store, "after_write", block)
        await anyio.sleep(LEASE)
    assert lapses_of(caplog) == [pytest.approx(LEASE / 3 - 1, abs=1)]


@on_a_real_clock
async def test_hold_whose_host_slept_past_its_lease_is_renewed_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    """The clock has moved on, unlike that of the event loop."""
    store = DetailedStore()
    with moved_clock() as moved:
        async with maintenance_mode_on(store, lease=3):
            moved.move(seconds=60)
            await is_back(store, within=30)
    assert lapses_of(caplog) == [pytest.approx(58, abs=2)]


# Vanished


async def empty(store: DetailedStateBackend) -> None:
    await store.update_state(lambda _: MaintenanceState())


async def release(store: DetailedStateBackend) -> None:
    """Release it as an operator does who believes that the job is gone."""
    (hold,) = (await store.get_state()).holds
    await store.update_state(lambda state: release_hold(state, hold.id))


async def lose(store: DetailedStateBackend) -> None:
    """Lose it unnoticed by any watch, as in a flush."""
    await empty(getattr(store, "memory", store))


@pytest.mark.parametrize("lease", [None, LEASE])
@pytest.mark.parametrize("vanish", [empty, release, lose])
@each_kind
async def test_hold_that_vanishes_is_put_back_with_a_warning(
    kind: Kind,
    vanish: Callable[[DetailedStateBackend], Awaitable[None]],
    lease: float | None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = kind()
    async with maintenance_mode_on(store, lease=lease, message="Migration"):
        (before,) = (await store.get_state()).holds
        await anyio.sleep(1)
        await vanish(store)
        await is_back(store, within=SOON)
        (after,) = (await store.get_state()).holds
        await anyio.sleep(2 * SOON)
    await anyio.sleep(2 * SOON)
    assert (after.id, after.message) == (before.id, "Migration")
    assert await store.get_state() == MaintenanceState()
    (warning,) = warnings_of(caplog)
    assert "hold had vanished" in warning


@pytest.mark.parametrize("lease", [None, 3600])
async def test_hold_that_vanishes_is_put_back_although_the_first_write_hangs(lease: float | None) -> None:
    store = DetailedStore()
    async with maintenance_mode_on(store, lease=lease):
        begun = once(store, "before_write", anyio.sleep_forever)
        await empty(store.memory)
        await begun.wait()
        await is_back(store, within=13)


async def test_hold_that_vanishes_from_a_slow_store_is_put_back() -> None:
    store = SlowStore(before=3, after=0)
    async with maintenance_mode_on(store):
        await empty(store.memory)
        await is_back(store, within=3 + SOON)


async def test_hold_that_vanishes_is_put_back_although_the_block_failed_to_open_for_a_function() -> None:
    store = DetailedStore()
    block = maintenance_mode_on(store)

    @block
    async def never_called() -> None:
        raise NotImplementedError

    async with block:
        once(store, "before_write", be_down)
        with pytest.raises(ConnectionError):
            await never_called()
        await empty(store.memory)
        await is_back(store, within=SOON)


@pytest.mark.parametrize("lease", [None, LEASE])
async def test_hold_that_vanishes_is_put_back_in_its_place_by_age(lease: float | None) -> None:
    store = DetailedStore()
    newer = Hold(id="newer", on=False, since=clock.now() + timedelta(seconds=1))
    async with maintenance_mode_on(store, lease=lease):
        await store.update_state(lambda _: MaintenanceState(holds=(replace(newer, id="older", since=None), newer)))
        await anyio.sleep(SOON)
        assert [hold.on for hold in (await store.get_state()).holds] == [False, True, False]


async def test_hold_without_a_lease_that_stays_is_not_written_again() -> None:
    store, written = DetailedStore(), list[bool]()

    async def count() -> None:
        written.append(True)
        await checkpoint()

    async with maintenance_mode_on(store):
        store.after_write = count
        await anyio.sleep(10 * SOON)
        await set_maintenance_mode(True, store)
        await anyio.sleep(10 * SOON)
        assert written == [True]


async def is_back_and_logged(store: DetailedStateBackend, caplog: pytest.LogCaptureFixture) -> None:
    await is_back(store, within=20)
    await eventually(lambda: ["hold had vanished" in warning for warning in warnings_of(caplog)] == [True], within=20)


@on_a_real_clock
@pytest.mark.parametrize("lease", [None, 60])
async def test_hold_whose_file_is_deleted_is_put_back_with_a_warning(
    lease: int | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = LocalFileBackend(tmp_path / "mode")
    async with maintenance_mode_on(store, lease=lease):
        Path(store.file_path).unlink()
        await is_back_and_logged(store, caplog)
    assert store.peek() == MaintenanceState()


@ONLY_ASYNCIO  # on a clock that does not jump
@pytest.mark.servers
@pytest.mark.parametrize("lease", [None, 60])
async def test_hold_whose_redis_is_flushed_is_put_back_with_a_warning(
    lease: int | None, redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(redis_url) as store:
        assert isinstance(store, DetailedStateBackend)
        async with maintenance_mode_on(store, lease=lease):
            with redis.Redis.from_url(redis_url) as other:
                other.flushall()
            await is_back_and_logged(store, caplog)
        assert (await store.get_state()).holds == ()
