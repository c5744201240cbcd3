"""Which workers have the state: what `on`, `off`, `edit`, `run` and `workers` print of them."""

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
from fastapi_maintenance._switch.reports import Applied
from fastapi_maintenance.cli import status
from fastapi_maintenance.state import Hold
from tests.cli.driving import GOES, OfApp, busy_server, invoke, on_app, on_file, report, wait_until
from tests.stores import Hook, be_down

OLD, NEW = report(Applied(MaintenanceState())), report()
FAST = report(Applied(MaintenanceState()), ahead=12.5)
WRONG = report(replace(GOES, is_on=False), ahead=-7)
HELD = MaintenanceState(holds=(Hold(id="job", on=True),))
STORE = "that of the store"
LACKS = "does not have the state; maintenance is"


@pytest.mark.parametrize(
    ("word", "reports", "lines"),
    [
        ("on", {"web_1": NEW}, ["on: 1 worker on 1 host has it"]),
        ("edit", {"web_1": NEW, "web_2": NEW, "db_1": NEW}, ["on: 3 workers on 2 hosts have it"]),
        (
            "on",
            {"web_1": NEW, "web_2": OLD, "[b]_3": ""},
            [
                "on: 1 worker on 1 host has it",
                "on: process 3 on [b] has not reported",
                f"on: process 2 on web {LACKS} off for it",
            ],
        ),
        (
            "on",
            {"web_1": WRONG},
            [f"on: process 1 on web has the state; maintenance is off for it; its clock is 7 s behind {STORE}"],
        ),
        (
            "off",
            {"web_1": OLD, "web_2": NEW},
            ["off: 1 worker on 1 host has it", f"off: process 2 on web {LACKS} on for it"],
        ),
    ],
)
def test_change_prints_which_workers_have_it(
    of_app: OfApp, word: str, reports: dict[str, str], lines: list[str]
) -> None:
    of_app(**reports)
    result = on_app(word, *["--no-end"] * (word == "edit"))
    assert (result.exit_code, result.stderr.splitlines()[1:]) == (0, lines)


def test_off_beside_a_job_that_holds_maintenance_on_prints_which_workers_have_it_on(of_app: OfApp) -> None:
    of_app(web_1=report(replace(GOES, state=HELD))).memory = MemoryBackend(HELD)
    lines = ["the switch is off; 1 job still holds maintenance on", "on: 1 worker on 1 host has it"]
    assert on_app("off").stderr.splitlines()[1:] == lines


def test_on_waits_for_workers_that_read_the_state_a_moment_later(
    of_app: OfApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status, "_PATIENCE", 60)
    store = of_app()
    steps = iter([{}, {"web.1.id": ""}, {"web.1.id": OLD}, {"web.1.id": NEW}])

    async def step() -> None:
        store.workers.records = next(steps)
        await anyio.lowlevel.checkpoint()

    store.workers.before_reports = step
    assert on_app("on").stderr.splitlines()[1:] == ["on: 1 worker on 1 host has it"]


@pytest.mark.parametrize("words", ["on", "off", "run -- true"])
def test_change_of_a_store_that_cannot_count_says_so(words: str) -> None:
    result = invoke("--backend", "sqlite+aiosqlite:///switch.db", *words.split())
    text = f"{'off' if words == 'off' else 'on'}: this store cannot say which workers have it\n"
    assert (result.exit_code, text in result.stderr) == (0, True)


@pytest.mark.parametrize(
    ("reading", "patience", "problem"),
    [
        (be_down, 60, "ConnectionError: the store is down"),
        (anyio.sleep_forever, 0.01, "TimeoutError: no answer within 0.01 seconds"),
    ],
)
def test_change_whose_workers_cannot_be_read_says_so(
    of_app: OfApp, monkeypatch: pytest.MonkeyPatch, reading: Hook, patience: float, problem: str
) -> None:
    monkeypatch.setattr(status, "ANSWER_TIMEOUT", patience)
    of_app().workers.before_reports = reading
    result = on_app("on")
    assert (result.exit_code, result.stdout) == (0, "on\n")
    assert result.stderr.splitlines()[1:] == [f"on: which workers have it is not known: {problem}"]


def test_workers_has_a_line_for_each(of_app: OfApp) -> None:
    busy = {"a_2": report(requests=1, seconds=9), "a_3": report(requests=3, seconds=9, ahead=0.9)}
    of_app(a_1=NEW, **busy, b_1=FAST, b_2="of another version", **{"[b]_3": NEW})
    result = on_app("workers")
    assert result.exit_code == 0
    assert re.sub(r"\b(9|1\d) s$", "9 s", result.stdout, flags=re.MULTILINE).splitlines() == [
        "on  process 3 on [b]  has the state  no requests in progress",
        "on  process 1 on a  has the state  no requests in progress",
        "on  process 2 on a  has the state  1 request in progress, POST /orders for 9 s",
        "on  process 3 on a  has the state  3 requests in progress, the oldest POST /orders for 9 s",
        "off  process 1 on b  does not have the state  its clock is 12.5 s ahead of that of the store",
        "process 2 on b  has not reported",
    ]


def test_workers_without_a_worker_names_the_switch_and_on_a_store_that_cannot_count_is_an_error() -> None:
    result = on_file("workers")
    text = f"no worker has signed in behind file:{Path('switch').absolute()}\n"
    assert (result.exit_code, result.stdout) == (0, text)
    result = invoke("workers", "--backend", "env:CLOSED")
    text = "error: the workers of EnvVarBackend('CLOSED') cannot be counted"
    assert (result.exit_code, result.stderr.splitlines()[1].startswith(text)) == (1, True)


@pytest.mark.servers
def test_on_names_a_real_worker_that_is_stopped_until_it_runs_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status, "_PATIENCE", 2)
    with busy_server("file:switch", "--workers", "2"):
        Path("end").touch()
        wait_until(lambda: on_file("workers").stdout.count("off  process ") == 2)
        stopped = int(re.findall(r"process (\d+) ", on_file("workers").stdout)[0])
        os.kill(stopped, signal.SIGSTOP)
        try:
            assert on_file("on").stderr.splitlines()[1:] == [
                "on: 1 worker on 1 host has it",
                f"on: process {stopped} on {socket.gethostname()} {LACKS} off for it",
            ]
        finally:
            os.kill(stopped, signal.SIGCONT)
        assert on_file("on").stderr.endswith("on: 2 workers on 1 host have it\n")
