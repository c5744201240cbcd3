"""Who has the state: what `on`, `off`, `edit`, `run` and `workers` print of the workers behind the switch."""

from __future__ import annotations

import os
import re
import signal
import socket
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from fastapi_maintenance import MaintenanceState, MemoryBackend
from fastapi_maintenance._switch.reports import Goes
from fastapi_maintenance.cli import workers
from fastapi_maintenance.state import Hold
from tests.cli.driving import APP, GOES, OfApp, command, report, switch, wait_until
from tests.stores import be_down
from tests.support import uvicorn_process

OFF = Goes(MaintenanceState())
OLD = report(OFF)
CLOSED = report()
NOBODY = "no worker has signed in behind file:{}; is this the switch of the service?\n"


def said(*words: str) -> str:
    """Run the command on the app's switch and return standard error below the name of the switch."""
    result = command(words[0], *APP, *words[1:])
    assert result.exit_code == 0, result.stderr
    return result.stderr.partition("\n")[2]


# After a change


@pytest.mark.parametrize(
    ("reports", "text"),
    [
        ({"web_1": CLOSED}, "on: 1 worker on 1 host has it\n"),
        ({"web_1": CLOSED, "web_2": CLOSED, "db_1": CLOSED}, "on: 3 workers on 2 hosts have it\n"),
        (
            {"web_1": CLOSED, "web_2": OLD, "[b]_3": ""},
            (
                "on: 1 worker on 1 host has it\n"
                "on: process 3 on [b] has not reported\n"
                "on: process 2 on web does not have the state; maintenance is off for it\n"
            ),
        ),
        (
            {"web_1": report(replace(GOES, is_on=False), ahead=-7)},
            (
                "on: process 1 on web has the state; maintenance is off for it; "
                "its clock is 7 s behind that of the store\n"
            ),
        ),
    ],
)
def test_on_says_who_has_it_and_names_who_does_not(of_app: OfApp, reports: dict[str, str], text: str) -> None:
    of_app(**reports)
    assert said("on") == text
    assert said("edit", "--no-end") == text


def test_off_says_who_has_it(of_app: OfApp) -> None:
    of_app(web_1=OLD, web_2=CLOSED)
    assert said("off") == (
        "off: 1 worker on 1 host has it\noff: process 2 on web does not have the state; maintenance is on for it\n"
    )


def test_off_beside_a_job_that_holds_maintenance_on_says_who_has_it_on(of_app: OfApp) -> None:
    held = MaintenanceState(holds=(Hold(id="job", on=True),))
    of_app(web_1=report(replace(GOES, state=held))).memory = MemoryBackend(held)
    assert said("off") == ("the switch is off; 1 job still holds maintenance on\non: 1 worker on 1 host has it\n")


def test_on_waits_for_workers_that_read_the_state_a_moment_later(
    of_app: OfApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "_PATIENCE", 60)
    store = of_app()
    steps = iter([{}, {"web.1.id": ""}, {"web.1.id": OLD}, {"web.1.id": CLOSED}])

    async def step() -> None:
        store.workers.records = next(steps)
        await anyio.lowlevel.checkpoint()

    store.workers.before_reports = step
    assert said("on") == "on: 1 worker on 1 host has it\n"


@pytest.mark.parametrize("words", ["on", "off", "run -- true"])
def test_change_without_a_worker_names_the_absolute_switch_and_succeeds(words: str) -> None:
    result = switch(*words.split())
    word = "off" if words == "off" else "on"
    assert (result.exit_code, f"{word}: {NOBODY.format(Path('switch').absolute())}" in result.stderr) == (0, True)


@pytest.mark.parametrize("words", ["on", "off", "run -- true"])
def test_change_of_a_store_that_cannot_count_says_so(words: str) -> None:
    word, *others = words.split()
    result = command(word, "--backend", "sqlite+aiosqlite:///switch.db", *others)
    text = f"{'off' if word == 'off' else 'on'}: this store cannot say which workers have it\n"
    assert (result.exit_code, text in result.stderr) == (0, True)


def test_change_says_that_workers_cannot_be_read(of_app: OfApp) -> None:
    of_app().workers.before_reports = be_down
    assert said("on") == "on: which workers have it is not known: ConnectionError: the store is down\n"


def test_change_says_that_a_store_hangs(of_app: OfApp, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "ANSWER_TIMEOUT", 0.01)
    of_app().workers.before_reports = anyio.sleep_forever
    assert said("on") == "on: which workers have it is not known: TimeoutError: no answer within 0.01 seconds\n"


# The subcommand


def test_workers_has_a_line_for_each(of_app: OfApp) -> None:
    of_app(
        a_1=CLOSED,
        a_2=report(requests=1, seconds=9),
        a_3=report(requests=3, seconds=9, ahead=0.9),
        b_1=report(OFF, ahead=12.5),
        b_2="of another version",
        **{"[b]_3": CLOSED},
    )
    result = command("workers", *APP)
    assert (result.exit_code, re.sub(r"\b(9|1\d) s$", "9 s", result.stdout, flags=re.MULTILINE).splitlines()) == (
        0,
        [
            "on  process 3 on [b]  has the state  no requests in progress",
            "on  process 1 on a  has the state  no requests in progress",
            "on  process 2 on a  has the state  1 request in progress, POST /orders for 9 s",
            "on  process 3 on a  has the state  3 requests in progress, the oldest POST /orders for 9 s",
            "off  process 1 on b  does not have the state  its clock is 12.5 s ahead of that of the store",
            "process 2 on b  has not reported",
        ],
    )


def test_workers_without_a_worker_names_the_absolute_switch() -> None:
    result = switch("workers")
    name = f"file:{Path('switch').absolute()}"
    assert (result.exit_code, result.stdout) == (0, f"no worker has signed in behind {name}\n")


def test_workers_of_a_store_that_cannot_count_is_an_error() -> None:
    result = command("workers", "--backend", "env:CLOSED")
    text = "error: the workers of EnvVarBackend('CLOSED') cannot be counted"
    assert (result.exit_code, result.stderr.splitlines()[1].startswith(text)) == (1, True)


# With servers

SERVED = """
import os
from fastapi import FastAPI
from fastapi_maintenance import maintenance_middleware

app = FastAPI()
app.add_middleware(maintenance_middleware(backend=os.environ["SWITCH"]))
"""


@pytest.mark.servers
@pytest.mark.parametrize("store_url", ["file", "redis", "asyncpg"], indirect=True)
def test_on_names_a_real_worker_that_is_stopped_until_it_runs_again(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("served.py").write_text(SERVED)
    monkeypatch.setattr(workers, "_PATIENCE", 2)
    env = {"FASTAPI_MAINTENANCE_BACKEND": store_url}
    with uvicorn_process("served:app", "--workers", "2", env={"SWITCH": store_url}, folder=Path.cwd()):
        wait_until(lambda: command("workers", **env).stdout.count("off  process ") == 2)
        stopped = int(re.findall(r"process (\d+) ", command("workers", **env).stdout)[0])
        os.kill(stopped, signal.SIGSTOP)
        try:
            result = command("on", **env)
            assert result.stderr.splitlines()[1:] == [
                "on: 1 worker on 1 host has it",
                f"on: process {stopped} on {socket.gethostname()} does not have the state; maintenance is off for it",
            ]
        finally:
            os.kill(stopped, signal.SIGCONT)
        assert command("on", **env).stderr.endswith("on: 2 workers on 1 host have it\n")
        assert command("workers", **env).stdout.count("  has the state  no requests in progress\n") == 2
