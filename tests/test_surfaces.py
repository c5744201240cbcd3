"""Every surface that reports whether maintenance is on gives the same answer, in this process and in another."""

import json
import subprocess
import sys
from collections.abc import Callable, Generator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import anyio
import pytest

from fastapi_maintenance import Hold, LocalFileBackend, MaintenanceState, Switch, Window, maintenance_mode_off
from fastapi_maintenance.state import add_hold
from tests.support import ROOT
from tests.surfaces import answers

Ask = Callable[[], dict[str, bool]]
NOW, DAY = datetime.now(UTC), timedelta(days=1)
PAST, FUTURE = NOW - DAY, NOW + DAY
ON, ENDED_SWITCH = Switch(on=True), Switch(on=True, ends_at=PAST)
IN_FORCE = Window(id="in force", starts_at=PAST, ends_at=FUTURE)
PLANNED = Window(id="planned", starts_at=FUTURE, ends_at=FUTURE + DAY)
ENDED = Window(id="ended", starts_at=PAST - DAY, ends_at=PAST)
HELD_ON, HELD_OFF = Hold(id="on", on=True, ends_at=PAST), Hold(id="off", on=False)
EXPIRED_ON, EXPIRED_OFF = Hold(id="1", on=True, expires_at=PAST), Hold(id="2", on=False, expires_at=PAST)

CASES = [  # `tests/test_state.py` has every rule of `status_of`
    (MaintenanceState(switch=Switch(on=False, by="alice", since=PAST)), False),
    (MaintenanceState(switch=Switch(on=True, message="Back at ten", ends_at=FUTURE, by="alice", since=PAST)), True),
    (MaintenanceState(switch=ENDED_SWITCH, windows=(PLANNED,)), False),
    (MaintenanceState(switch=ENDED_SWITCH, windows=(ENDED, IN_FORCE, PLANNED)), True),
    (MaintenanceState(windows=(ENDED, PLANNED)), False),
    (MaintenanceState(switch=ON, windows=(IN_FORCE,), holds=(HELD_ON, HELD_OFF)), False),
    (MaintenanceState(windows=(PLANNED,), holds=(HELD_OFF, HELD_ON)), True),
    (MaintenanceState(switch=ON, holds=(EXPIRED_OFF,)), True),
    (MaintenanceState(holds=(HELD_OFF, EXPIRED_ON)), False),
    (MaintenanceState(holds=(EXPIRED_OFF, HELD_ON, EXPIRED_ON)), True),
]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of the switch."""
    return tmp_path_factory.mktemp("switch") / "maintenance.txt"


@pytest.fixture(scope="module")
def ask_another(path: Path) -> Generator[Ask]:
    """A function that asks every surface in another process."""
    command = [sys.executable, "-m", "tests.surfaces", str(path)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        lines_in, lines_out = process.stdin, process.stdout

        def ask() -> dict[str, bool]:
            lines_in.write("\n")
            lines_in.flush()
            found: dict[str, bool] = json.loads(lines_out.readline())
            return found

        yield ask
        lines_in.close()


@pytest.mark.servers
@pytest.mark.parametrize(("state", "expected"), CASES)
def test_surfaces_of_one_state_agree(state: MaintenanceState, expected: bool, path: Path, ask_another: Ask) -> None:
    anyio.run(LocalFileBackend(path).update_state, lambda _: state)
    here = anyio.run(answers, str(path))
    assert here == dict.fromkeys(here, expected)
    assert ask_another() == here


@pytest.mark.servers
@pytest.mark.parametrize("is_newer", [True, False])
def test_surfaces_within_an_off_block_agree_with_the_newer_hold(is_newer: bool, path: Path, ask_another: Ask) -> None:
    backend = LocalFileBackend(path)

    async def ask_within_a_block() -> dict[str, bool]:
        await backend.update_state(lambda _: MaintenanceState(holds=() if is_newer else (HELD_ON,)))
        async with maintenance_mode_off(backend):
            if is_newer:
                await backend.update_state(lambda state: add_hold(state, HELD_ON, NOW))
            here = await answers(str(path))
            assert await anyio.to_thread.run_sync(ask_another) == here
        return here

    here = anyio.run(ask_within_a_block)
    assert here == dict.fromkeys(here, is_newer)
