"""A clock that a test moves: what opens, closes and runs out by time does so in no time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import anyio
import pytest
from fastapi import FastAPI

from fastapi_maintenance import (
    Hold,
    LocalFileBackend,
    MaintenanceState,
    MemoryBackend,
    cached,
    get_maintenance_mode,
    maintenance_middleware,
    maintenance_mode_on,
    plan_maintenance,
    set_maintenance_mode,
)
from fastapi_maintenance.testing import MovedClock, moved_clock
from fastapi_maintenance.typing import DetailedStateBackend
from tests.support import client

pytestmark = pytest.mark.anyio

HOUR = timedelta(hours=1)


def is_ahead(clock: MovedClock, by: timedelta) -> bool:
    """Tell whether the clock, which goes on while a test runs, is so much ahead of that of the machine."""
    before = datetime.now(UTC)
    moved = clock.now()
    return before <= moved - by <= datetime.now(UTC)


def test_it_begins_at_the_time_that_it_is_and_moves_by_what_it_is_told() -> None:
    with moved_clock() as clock:
        assert is_ahead(clock, timedelta())
        clock.move(days=1, hours=2, minutes=3, seconds=4.5)
        moved = timedelta(days=1, hours=2, minutes=3, seconds=4.5)
        assert is_ahead(clock, moved)
        clock.move(hours=-2)
        assert is_ahead(clock, moved - 2 * HOUR)


def test_it_moves_to_a_time_of_any_zone_and_goes_on_from_there() -> None:
    with moved_clock() as clock:
        moment = datetime(2030, 12, 31, 22, 0, tzinfo=timezone(-HOUR))
        began = datetime.now(UTC)
        clock.move_to(moment)
        assert moment <= clock.now() < clock.now()
        gone = clock.now() - datetime(2030, 12, 31, 23, 0, tzinfo=UTC)
        assert gone <= datetime.now(UTC) - began
        assert UTC is clock.now().tzinfo


def test_the_time_is_what_it_was_after_the_block_however_it_ends() -> None:
    with moved_clock() as outer:
        outer.move(hours=1)
        with pytest.raises(ZeroDivisionError), moved_clock() as inner:
            inner.move(hours=1)
            raise ZeroDivisionError
        assert is_ahead(outer, HOUR)
    assert is_ahead(outer, timedelta())


def test_it_counts_in_all_threads() -> None:
    seen: list[bool] = []
    with moved_clock() as clock:
        clock.move(hours=1)
        thread = threading.Thread(target=lambda: seen.append(is_ahead(clock, HOUR)))
        thread.start()
        thread.join()
        assert [True] == seen


MAKERS: dict[str, Callable[[Path], DetailedStateBackend]] = {
    "memory": lambda _: MemoryBackend(),
    "file": lambda folder: LocalFileBackend(folder / "switch"),
    "cached": lambda _: cached(MemoryBackend()),
}


@pytest.mark.parametrize("kind", MAKERS)
async def test_middleware_window_begins_and_ends_is_on_meanwhile(kind: str, tmp_path: Path) -> None:
    backend = MAKERS[kind](tmp_path)
    app = FastAPI()
    app.add_middleware(maintenance_middleware(backend=backend))
    app.add_api_route("/", lambda: "open")
    with moved_clock() as clock:
        starts_at = clock.now() + HOUR
        await plan_maintenance(starts_at, starts_at + HOUR, backend, message="New database")
        answers = []
        async with client(app) as http:
            for minutes in (-60, 0, 30, 60):
                clock.move_to(starts_at + timedelta(minutes=minutes))
                response = await http.get("/")
                said = await get_maintenance_mode(backend), await backend.get_value()
                answers.append((response.status_code, response.text, response.headers.get("retry-after"), *said))
    assert answers == [
        (200, '"open"', None, False, False),
        (503, '{"detail":"New database"}', "3600", True, True),
        (503, '{"detail":"New database"}', "1800", True, True),
        (200, '"open"', None, False, False),
    ]


async def test_an_end_that_has_passed_on_the_clock_is_refused() -> None:
    with moved_clock() as clock:
        ends_at = clock.now() + HOUR
        clock.move(hours=2)
        with pytest.raises(ValueError, match="ends_at must be in the future"):
            await set_maintenance_mode(True, MemoryBackend(), ends_at=ends_at)


async def test_hold_lease_begins_and_runs_out_at_the_time_of_the_clock() -> None:
    backend = MemoryBackend(MaintenanceState(holds=(Hold(id="a", on=True, expires_at=datetime.now(UTC)),)))
    with moved_clock() as clock:
        clock.move(hours=-1)
        assert await backend.get_value()
        clock.move(hours=2)
        assert not await backend.get_value()
        began = clock.now()
        async with maintenance_mode_on(backend, lease=60):
            hold = (await backend.get_state()).holds[-1]
            assert hold.expires_at is not None
            assert began <= hold.expires_at - timedelta(minutes=1) <= clock.now()


async def test_timers_are_left_alone() -> None:
    with moved_clock() as clock:
        began = anyio.current_time()
        clock.move(days=1)
        with anyio.fail_after(60):
            await anyio.sleep(0.001)
        assert anyio.current_time() - began < 60


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
    ],
)
def test_wrong_times_are_refused_and_change_nothing(
    move: Callable[[MovedClock], None], kind: type[Exception], message: str
) -> None:
    with moved_clock() as clock:
        with pytest.raises(kind, match=message):
            move(clock)
        assert is_ahead(clock, timedelta())
