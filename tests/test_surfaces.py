"""Every surface that reports whether maintenance is on gives the same answer, in this process and in another.

The other process runs this module as a program.
"""

import json
import logging
import subprocess
import sys
from collections.abc import Callable, Generator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import anyio
import pytest
from anyio import to_thread
from fastapi import Depends, FastAPI, Request, Response
from fastapi.responses import JSONResponse
from typer.testing import CliRunner

from fastapi_maintenance import (
    Hold,
    LocalFileBackend,
    MaintenanceState,
    Switch,
    Window,
    current_status,
    get_maintenance_mode,
    get_maintenance_status,
    maintenance_changes,
    maintenance_middleware,
    maintenance_mode_off,
    wait_until_open,
)
from fastapi_maintenance._helpers import process
from fastapi_maintenance.cli.commands import app as cli
from fastapi_maintenance.router import maintenance_notice, maintenance_router
from fastapi_maintenance.state import add_hold
from tests.support import ROOT, client
from tests.switch.lifespans import living


class _Records(logging.Handler):
    """Whether a log record says that maintenance is on."""

    is_on = False

    def emit(self, record: logging.LogRecord) -> None:
        """Check a record."""
        self.is_on |= record.__dict__.get("maintenance_active") is True


async def answers(path: str) -> dict[str, bool]:
    """Return what each surface reports about the switch in a file."""
    backend = LocalFileBackend(path)
    statuses: list[bool] = []

    def respond(request: Request) -> Response:
        statuses.append(current_status(request).active)
        return JSONResponse({}, 503)

    app = FastAPI()
    app.include_router(maintenance_router(dependencies=[Depends(lambda: None)]))
    app.include_router(maintenance_notice())
    app.add_api_route("/", lambda: None)
    app.add_middleware(maintenance_middleware(backend=backend, response=respond))
    records, logger = _Records(), logging.getLogger("fastapi_maintenance")
    level = logger.level
    logger.addHandler(records)
    logger.setLevel(logging.INFO)
    try:
        async with living(app), client(app) as visitor:
            request = await visitor.get("/")
            overview = (await visitor.get("/maintenance")).json()
            notice = (await visitor.get("/maintenance/notice")).json()
            changes = maintenance_changes(
                backend
            )  # uses the follower of the app; a new one would first read after a second
            first = await anext(changes)
            await changes.aclose()
            with anyio.move_on_after(30 if notice["active"] else 0):
                while not records.is_on:  # noqa: ASYNC110 -- a log record has no event
                    await anyio.sleep(0.001)
    finally:
        logger.removeHandler(records)
        logger.setLevel(level)
    status = await get_maintenance_status(backend)
    try:
        await wait_until_open(backend, timeout=0.05 if status.active else 60)
        waits = False
    except TimeoutError:
        waits = True
    shown = await to_thread.run_sync(CliRunner().invoke, cli, ["--backend", f"file:{path}", "status", "--json"])
    return {
        "request": request.status_code == 503,
        "response callback": statuses == [True],
        "get_maintenance_mode": await get_maintenance_mode(backend),
        "get_maintenance_status": status.active,
        "maintenance_changes": first.active,
        "wait_until_open": waits,
        "admin API": overview["status"]["active"],
        "notice": notice["active"],
        "log": records.is_on,
        "command": json.loads(shown.stdout)["status"]["active"],
    }


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
    command = [sys.executable, "-m", "tests.test_surfaces", str(path)]
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


def main() -> None:
    """Print the answers once for each line of standard input."""
    for _ in sys.stdin:
        process.reset()  # a transition is logged once in a process
        print(json.dumps(anyio.run(answers, sys.argv[1])), flush=True)  # noqa: T201 -- the test reads it


if __name__ == "__main__":
    main()
