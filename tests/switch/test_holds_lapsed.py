"""Holds that lapsed or vanished while their block runs: they are put back, and a warning says what happened."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest
import redis
import trio
from anyio.lowlevel import checkpoint

from fastapi_maintenance import LocalFileBackend, MaintenanceState, maintenance_mode_on, set_maintenance_mode
from fastapi_maintenance._helpers import clock
from fastapi_maintenance.backends import MemoryBackend
from fastapi_maintenance.backends.url import opened
from fastapi_maintenance.state import release_hold
from fastapi_maintenance.testing import moved_clock
from fastapi_maintenance.typing import DetailedStateBackend
from tests.stores import DetailedStore, WatchableStore
from tests.support import RunJumping, eventually
from tests.switch.blocks import LOGGER

LEASE = 30.0  # seconds; the clock jumps
SOON = 2.5  # seconds within which a hold that vanished is back: about two


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    records = [record for record in caplog.records if record.name == LOGGER and record.levelno >= logging.WARNING]
    return [record.getMessage() for record in records]


def lapses_of(caplog: pytest.LogCaptureFixture) -> list[float]:
    """Return the seconds of each warning that a hold had lapsed."""
    found = [re.search(r"lapsed\D*(\d+(?:\.\d+)?) s", text) for text in warnings_of(caplog)]
    return [float(each[1]) for each in found if each]


def block_the_loop(seconds: float) -> None:
    """Do what code that blocks the event loop does: time passes, and nothing else runs."""
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
    async def check() -> bool:
        return await is_kept(store)

    await eventually(check, within=within)


async def is_back_and_logged(store: DetailedStateBackend, caplog: pytest.LogCaptureFixture) -> None:
    """Wait until it is back and logged: a block that ends in between cancels the log record."""

    async def check() -> bool:
        await checkpoint()
        return bool(warnings_of(caplog))

    await is_back(store, within=20)
    await eventually(check, within=20)


# Lapsed


def test_hold_that_lapsed_during_a_renewal_is_warned_of(
    run_jumping: RunJumping, caplog: pytest.LogCaptureFixture
) -> None:
    """The process is stopped when the renewed hold has been made, and goes on before that would expire."""

    async def main() -> None:
        store = DetailedStore()

        async def block_once() -> None:
            store.after_write = checkpoint
            block_the_loop(LEASE - 1)
            await checkpoint()

        async with maintenance_mode_on(store, lease=LEASE):
            store.after_write = block_once
            await anyio.sleep(LEASE)

    run_jumping(main)
    assert lapses_of(caplog) == [pytest.approx(LEASE / 3 - 1, abs=1)]


@pytest.mark.parametrize("kind", [DetailedStore, WatchableStore, MemoryBackend])
def test_hold_that_lapsed_while_the_event_loop_was_blocked_is_renewed_with_a_warning(
    kind: type[DetailedStore | MemoryBackend], run_jumping: RunJumping, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        store = kind()
        async with maintenance_mode_on(store, lease=LEASE):
            block_the_loop(LEASE + 10)
            assert not await is_kept(store)
            await is_back(store, within=LEASE)
            await anyio.sleep(3 * LEASE)
        assert await store.get_state() == MaintenanceState()

    run_jumping(main)
    assert len(warnings_of(caplog)) == 1
    assert lapses_of(caplog) == [pytest.approx(10, abs=1)]


def test_hold_that_lapsed_twice_is_warned_of_twice(run_jumping: RunJumping, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        store = DetailedStore()
        async with maintenance_mode_on(store, lease=LEASE):
            for seconds in (5, 100):
                block_the_loop(LEASE + seconds)
                await is_back(store, within=LEASE)

    run_jumping(main)
    assert lapses_of(caplog) == [pytest.approx(5, abs=1), pytest.approx(100, abs=1)]


def test_hold_whose_event_loop_was_blocked_for_less_than_its_lease_is_not_warned_of(
    run_jumping: RunJumping, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with maintenance_mode_on(DetailedStore(), lease=LEASE):
            block_the_loop(LEASE - 1)
            await anyio.sleep(LEASE)

    run_jumping(main)
    assert warnings_of(caplog) == []


def test_hold_whose_clock_went_past_its_lease_is_renewed_with_a_warning(
    anyio_backend: str, caplog: pytest.LogCaptureFixture
) -> None:
    """As while its host slept: the time has passed, and the event loop did not see it."""

    async def main() -> None:
        store = DetailedStore()
        async with maintenance_mode_on(store, lease=3):
            moved.move(seconds=60)
            await is_back(store, within=30)

    with moved_clock() as moved:
        anyio.run(main, backend=anyio_backend)
    assert lapses_of(caplog) == [pytest.approx(58, abs=2)]


# Vanished


async def empty(store: DetailedStateBackend) -> None:
    await store.update_state(lambda _: MaintenanceState())


async def release(store: DetailedStateBackend) -> None:
    """Release it as an operator does: for a job that is gone, and this one is not."""
    (hold,) = (await store.get_state()).holds
    await store.update_state(lambda state: release_hold(state, hold.id))


async def lose(store: DetailedStateBackend) -> None:
    """Lose it behind everyone's back, as a flush does: no watch learns of it."""
    await getattr(store, "memory", store).update_state(lambda _: MaintenanceState())


@pytest.mark.parametrize("lease", [None, LEASE])
@pytest.mark.parametrize("vanish", [empty, release, lose])
@pytest.mark.parametrize("kind", [DetailedStore, WatchableStore, MemoryBackend])
def test_hold_that_vanished_is_put_back_with_a_warning(
    kind: type[DetailedStore | MemoryBackend],
    vanish: Callable[[DetailedStateBackend], Awaitable[None]],
    lease: float | None,
    run_jumping: RunJumping,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> None:
        store = kind()
        async with maintenance_mode_on(store, lease=lease, message="Migration"):
            (before,) = (await store.get_state()).holds
            await anyio.sleep(1)
            await vanish(store)
            await is_back(store, within=SOON)
            (after,) = (await store.get_state()).holds
            await anyio.sleep(2 * SOON)
        await anyio.sleep(2 * SOON)
        assert (before.id, "Migration") == (after.id, after.message)
        assert await store.get_state() == MaintenanceState()

    run_jumping(main)
    (warning,) = warnings_of(caplog)
    assert "hold" in warning.lower()


def test_hold_that_vanished_of_one_block_is_put_back_in_its_place(run_jumping: RunJumping) -> None:
    async def main() -> None:
        store = DetailedStore()
        async with maintenance_mode_on(store, message="first"):
            (first,) = (await store.get_state()).holds
            await anyio.sleep(1)
            async with maintenance_mode_on(store, message="second"):
                await store.update_state(lambda state: release_hold(state, first.id))
                await anyio.sleep(SOON)
                assert ["first", "second"] == [hold.message for hold in (await store.get_state()).holds]

    run_jumping(main)


def test_hold_that_stays_is_not_written_again(run_jumping: RunJumping) -> None:
    async def main() -> None:
        store = DetailedStore()
        async with maintenance_mode_on(store):
            written: list[bool] = []

            async def note() -> None:
                written.append(True)
                await checkpoint()

            store.after_write = note
            await anyio.sleep(10 * SOON)
            await set_maintenance_mode(True, store)
            await anyio.sleep(10 * SOON)
            assert written == [True]
            store.come_back()

    run_jumping(main)


@pytest.mark.parametrize("lease", [None, timedelta(minutes=1)])
def test_hold_whose_file_is_deleted_is_put_back_with_a_warning(
    lease: timedelta | None, anyio_backend: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = LocalFileBackend(tmp_path / "mode")

    async def main() -> None:
        async with maintenance_mode_on(store, lease=lease):
            Path(store.file_path).unlink()
            await is_back_and_logged(store, caplog)

    anyio.run(main, backend=anyio_backend)
    (warning,) = warnings_of(caplog)
    assert ("hold" in warning.lower(), store.peek()) == (True, MaintenanceState())


@pytest.mark.servers
@pytest.mark.parametrize("lease", [None, timedelta(minutes=1)])
def test_hold_whose_redis_is_flushed_is_put_back_with_a_warning(
    lease: timedelta | None, redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with opened(redis_url) as store:
            assert isinstance(store, DetailedStateBackend)
            async with maintenance_mode_on(store, lease=lease):
                with redis.Redis.from_url(redis_url) as other:
                    other.flushall()
                await is_back_and_logged(store, caplog)
            assert (await store.get_state()).holds == ()

    anyio.run(main, backend="asyncio")
    (warning,) = warnings_of(caplog)
    assert "hold" in warning.lower()
