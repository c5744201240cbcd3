"""Holds that lapse or vanish while their block runs: they are put back, and a warning says what happened."""

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
from tests.switch.lifespans import once

LEASE = 30.0  # seconds, on a clock that jumps
SOON = 2.5  # seconds within which a vanished hold is back: about two
each_kind = pytest.mark.parametrize("kind", [DetailedStore, WatchableStore, MemoryBackend])
Kind = type[DetailedStore | MemoryBackend]


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


async def is_back_and_logged(store: DetailedStateBackend, caplog: pytest.LogCaptureFixture) -> None:
    """Wait for both: a block that ends in between cancels the log record."""
    await is_back(store, within=20)
    await eventually(lambda: bool(warnings_of(caplog)), within=20)


# Lapsed


@pytest.mark.parametrize(
    ("blocked_for", "lapses"), [([LEASE + 5, LEASE + 100], [5, 100]), ([LEASE - 1], [])], ids=["longer", "shorter"]
)
@each_kind
def test_hold_whose_event_loop_is_blocked_longer_than_its_lease_is_renewed_with_a_warning(
    kind: Kind, blocked_for: list[float], lapses: list[float], run_jumping: RunJumping, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        store = kind()
        async with maintenance_mode_on(store, lease=LEASE):
            for seconds in blocked_for:
                block_the_loop(seconds)
                assert await is_kept(store) is (lapses == [])
                await is_back(store, within=LEASE)
            await anyio.sleep(3 * LEASE)
        assert await store.get_state() == MaintenanceState()

    run_jumping(main)
    assert lapses_of(caplog) == [pytest.approx(seconds, abs=1) for seconds in lapses]
    assert len(warnings_of(caplog)) == len(lapses)


def test_hold_that_lapses_during_a_renewal_is_warned_of(
    run_jumping: RunJumping, caplog: pytest.LogCaptureFixture
) -> None:
    """The process stops after the renewal is written, and goes on before that expires."""

    async def main() -> None:
        store = DetailedStore()

        async def block() -> None:
            block_the_loop(LEASE - 1)
            await checkpoint()

        async with maintenance_mode_on(store, lease=LEASE):
            once(store, "after_write", block)
            await anyio.sleep(LEASE)

    run_jumping(main)
    assert lapses_of(caplog) == [pytest.approx(LEASE / 3 - 1, abs=1)]


def test_hold_whose_host_slept_past_its_lease_is_renewed_with_a_warning(
    anyio_backend: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The clock has moved on, unlike that of the event loop."""

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
    """Release it as an operator does who believes that the job is gone."""
    (hold,) = (await store.get_state()).holds
    await store.update_state(lambda state: release_hold(state, hold.id))


async def lose(store: DetailedStateBackend) -> None:
    """Lose it unnoticed by any watch, as in a flush."""
    await empty(getattr(store, "memory", store))


@pytest.mark.parametrize("lease", [None, LEASE])
@pytest.mark.parametrize("vanish", [empty, release, lose])
@each_kind
def test_hold_that_vanishes_is_put_back_with_a_warning(
    kind: Kind,
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
        assert (after.id, after.message) == (before.id, "Migration")
        assert await store.get_state() == MaintenanceState()

    run_jumping(main)
    (warning,) = warnings_of(caplog)
    assert "hold had vanished" in warning


def test_older_hold_that_vanishes_is_put_back_in_its_place(run_jumping: RunJumping) -> None:
    async def main() -> None:
        store = DetailedStore()
        async with maintenance_mode_on(store, message="first"):
            await anyio.sleep(1)
            first = (await store.get_state()).holds[0].id
            async with maintenance_mode_on(store, message="second"):
                await store.update_state(lambda state: release_hold(state, first))
                await anyio.sleep(SOON)
                assert [hold.message for hold in (await store.get_state()).holds] == ["first", "second"]

    run_jumping(main)


def test_hold_without_a_lease_that_stays_is_not_written_again(run_jumping: RunJumping) -> None:
    async def main() -> None:
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
    assert "hold had vanished" in warning
    assert store.peek() == MaintenanceState()


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
    assert "hold had vanished" in warning
