"""`moved_clock`: windows, ends and leases follow a clock that a test moves, and nothing else does."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import anyio
import pytest

from fastapi_maintenance import (
    Hold,
    LocalFileBackend,
    MaintenanceState,
    MemoryBackend,
    cached,
    get_maintenance_mode,
    maintenance_mode_on,
    plan_maintenance,
    set_maintenance_mode,
)
from fastapi_maintenance.testing import MovedClock, moved_clock
from fastapi_maintenance.typing import DetailedStateBackend
from tests.middleware.test_failures import app_on, get

pytestmark = pytest.mark.anyio
HOUR = timedelta(hours=1)


def is_ahead(clock: MovedClock, by: timedelta) -> bool:
    """Return whether the clock, which keeps running, is this much ahead of the machine's."""
    before = datetime.now(UTC)
    moved = clock.now()
    return before <= moved - by <= datetime.now(UTC)


async def test_clock_moves_in_all_threads_and_is_restored_after_each_block() -> None:
    with moved_clock() as outer:
        assert is_ahead(outer, timedelta())
        outer.move(days=1, hours=2, minutes=3, seconds=4.5)
        ahead = timedelta(days=1, hours=2, minutes=3, seconds=4.5)
        assert is_ahead(outer, ahead)
        with pytest.raises(ZeroDivisionError), moved_clock() as inner:
            inner.move(hours=-2)
            assert await anyio.to_thread.run_sync(is_ahead, outer, ahead - 2 * HOUR)
            raise ZeroDivisionError
        assert is_ahead(outer, ahead)
    assert is_ahead(outer, timedelta())


def test_clock_moves_to_a_time_of_any_zone_and_runs_on() -> None:
    with moved_clock() as clock:
        moment = datetime(2030, 12, 31, 22, 0, tzinfo=timezone(-HOUR))
        began = datetime.now(UTC)
        clock.move_to(moment)
        assert moment <= clock.now() < clock.now()
        assert clock.now() - datetime(2030, 12, 31, 23, 0, tzinfo=UTC) <= datetime.now(UTC) - began
        assert clock.now().tzinfo is UTC


async def test_clock_leaves_timers_alone() -> None:
    with moved_clock() as clock:
        began = anyio.current_time()
        clock.move(days=1)
        with anyio.fail_after(60):
            await anyio.sleep(0.001)
        assert anyio.current_time() - began < 60


@pytest.mark.parametrize(
    "make", [lambda _: MemoryBackend(), lambda folder: LocalFileBackend(folder / "switch"), lambda _: cached("memory:")]
)
async def test_window_begins_and_ends_by_the_clock(
    make: Callable[[Path], DetailedStateBackend], tmp_path: Path
) -> None:
    backend = make(tmp_path)
    app = app_on(backend)
    with moved_clock() as clock:
        starts_at = clock.now() + HOUR
        await plan_maintenance(starts_at, starts_at + HOUR, backend, message="New database")
        seen = []
        for minutes in (-60, 0, 30, 60):
            clock.move_to(starts_at + timedelta(minutes=minutes))
            response = await get(app)
            active = await get_maintenance_mode(backend), await backend.get_value()
            seen.append((response.status_code, response.text, response.headers.get("retry-after"), *active))
    assert seen == [
        (200, '"open"', None, False, False),
        (503, '{"detail":"New database"}', "3600", True, True),
        (503, '{"detail":"New database"}', "1800", True, True),
        (200, '"open"', None, False, False),
    ]


async def test_end_that_has_passed_on_the_clock_is_refused() -> None:
    with moved_clock() as clock:
        ends_at = clock.now() + HOUR
        clock.move(hours=2)
        with pytest.raises(ValueError, match="ends_at must be in the future"):
            await set_maintenance_mode(True, MemoryBackend(), ends_at=ends_at)


async def test_lease_begins_and_expires_by_the_clock() -> None:
    backend = MemoryBackend(MaintenanceState(holds=(Hold(id="a", on=True, expires_at=datetime.now(UTC)),)))
    with moved_clock() as clock:
        for hours, expected in ((-1, True), (2, False)):
            clock.move(hours=hours)
            assert await backend.get_value() is expected
        began = clock.now()
        async with maintenance_mode_on(backend, lease=60):
            hold = (await backend.get_state()).holds[-1]
            assert hold.expires_at is not None
            assert began <= hold.expires_at - timedelta(minutes=1) <= clock.now()


@pytest.mark.parametrize(
    ("move", "kind", "message"),
    [
        (lambda clock: clock.move_to("22:00"), TypeError, "moment must be a datetime, got str '22:00'"),
        (
            lambda clock: clock.move_to(datetime(2030, 1, 1)),  # noqa: DTZ001 -- naive on purpose
            ValueError,
            "moment must be an aware datetime .*, got the naive 2030-01-01T00:00:00",
        ),
        (lambda clock: clock.move(days=10_000_000), ValueError, "the time must stay between the years 1 and 9999"),
        (lambda clock: clock.move(days=10**10), ValueError, "the time must stay between the years 1 and 9999"),
    ],
)
def test_wrong_time_is_refused_and_changes_nothing(
    move: Callable[[MovedClock], None], kind: type[Exception], message: str
) -> None:
    with moved_clock() as clock:
        with pytest.raises(kind, match=message):
            move(clock)
        assert is_ahead(clock, timedelta())
