"""`run` and `on` with `--drain`, and what `status` says of requests in progress."""

from __future__ import annotations

import io
import json
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from anyio.lowlevel import checkpoint

from fastapi_maintenance import MaintenanceState, MemoryBackend
from fastapi_maintenance._helpers import clock
from fastapi_maintenance._switch.reports import Goes
from fastapi_maintenance.cli.hold import shown_progress
from fastapi_maintenance.errors import WorkerStatus
from fastapi_maintenance.state import Switch, status_of
from tests.cli.driving import (
    APP,
    OFF,
    OfApp,
    at,
    command,
    errors,
    process,
    report,
    state,
    switch,
    wait_until,
)
from tests.stores import be_down
from tests.support import uvicorn_process

SERVED = """
import asyncio
import os
from pathlib import Path
from fastapi import FastAPI
from fastapi_maintenance import maintenance_middleware

app = FastAPI()
app.add_middleware(maintenance_middleware(backend=os.environ["SWITCH"]))

@app.post("/orders/{number}")
async def order(number: int):
    Path("begun").touch()
    while not Path("end").exists():
        await asyncio.sleep(0.02)
    Path("ended").touch()
"""


# What the status says


@pytest.mark.parametrize(
    ("reports", "text"),
    [
        ({}, "on\n"),
        ({"idle_1": {}}, "on  no requests in progress\n"),
        (
            {"idle_1": {}, "busy_2": {"requests": 2, "seconds": 12}, "busier_3": {"requests": 1, "seconds": 3}},
            "on  3 requests in progress on 2 workers, the oldest for 12 s\n",
        ),
        (
            {"ahead_1": {"requests": 1, "seconds": -60}, "new_2": None},
            "on  1 request in progress on 1 worker, the oldest for 0 s, 1 worker yet to report\n",
        ),
    ],
)
def test_status_counts_requests_in_progress(
    of_app: OfApp, reports: dict[str, dict[str, Any] | None], text: str
) -> None:
    store = of_app(**{name: "" if facts is None else report(**facts) for name, facts in reports.items()})
    assert re.sub(r"1[2-9] s", "12 s", command("status", *APP).stdout) == text
    store.memory = MemoryBackend()
    assert command("status", *APP).stdout == "off\n"


def test_status_has_requests_in_progress_by_worker_for_programs(of_app: OfApp) -> None:
    of_app(web_1=report(requests=2, ahead=0.5), web_2="")
    first, second = json.loads(command("status", "--json", *APP).stdout)["workers"]
    assert datetime.fromisoformat(first.pop("oldest_since")).tzinfo is not None
    known = {"is_current": True, "is_on": True, "clock_ahead": 0.5, "requests": 2, "oldest_route": "POST /orders"}
    assert first == {"host": "web", "process_id": 1, **known}
    assert second == {"host": "web", "process_id": 2, **dict.fromkeys([*known, "oldest_since"])}


@pytest.mark.parametrize("url", ["env:CLOSED", "sqlite+aiosqlite:///switch.db"])
def test_status_of_a_store_that_cannot_count_leaves_requests_out(url: str) -> None:
    result = command("status", "--json", "--backend", url)
    assert (result.exit_code, json.loads(result.stdout)["workers"]) == (0, None)


def test_status_is_shown_if_workers_cannot_be_read(of_app: OfApp) -> None:
    of_app().workers.before_reports = be_down
    result = command("status", *APP)
    assert (result.exit_code, result.stdout) == (0, "on\n")
    assert errors(result) == "error: the store cannot be reached: ConnectionError: the store is down\n"
    assert json.loads(command("status", "--json", *APP).stdout)["workers"] is None


# What is waited for


def test_run_that_times_out_releases_its_hold_and_does_not_start_the_command(
    of_app: OfApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastapi_maintenance.cli.hold._FIRST_LINE", 0)
    store = of_app(web_1=report(requests=2), web_2=report(requests=1), web_3="", web_4=report())
    result = command("run", "--drain", "1s", *APP, "--", "touch", "ran")
    assert (result.exit_code, Path("ran").exists()) == (75, False)
    assert store.memory.peek() == MaintenanceState(switch=Switch(on=True))
    left = [
        "process 1 on web has 2 requests in progress, the oldest POST /orders for N s",
        "process 2 on web has 1 request in progress, POST /orders for N s",
        "process 3 on web has not reported",
        "process 4 on web has not confirmed that maintenance is on",
    ]
    assert re.sub(r"\b\d+ s\b", "N s", errors(result)).splitlines() == [
        "waiting for 3 requests in progress on 2 workers, the oldest for N s, 2 workers yet to report; N s left",
        "error: requests are not drained after N s: " + "; ".join(left),
        "the hold was given back, and the command was not started",
    ]


def test_on_that_times_out_leaves_maintenance_on(of_app: OfApp) -> None:
    store = of_app(web_1=report(requests=1))
    store.memory = MemoryBackend()
    result = command("on", "--message", "why", "--drain", "1s", *APP)
    assert (result.exit_code, result.stdout) == (75, "on: why\n")
    error, then = errors(result).splitlines()[-2:]
    assert error.startswith("error: requests are not drained after 1 s: process 1 on")
    assert then == "maintenance stays on"
    kept = store.memory.peek()
    assert (kept.switch.on, kept.switch.message, kept.holds) == (True, "why", ())


@pytest.mark.usefixtures("_at_noon")
def test_on_with_drain_has_the_end_of_the_switch_while_it_waits(of_app: OfApp) -> None:
    store = of_app(web_1=report())
    statuses = []

    async def look() -> None:
        await checkpoint()
        statuses.append(status_of(store.memory.peek(), clock.now()))

    store.workers.before_reports = look
    store.memory = MemoryBackend()
    assert command("on", "--for", "30m", "-m", "why", "--by", "alice", "--drain", "1s", *APP).exit_code == 75
    assert type(statuses[-1].decided_by).__name__ == "Hold"
    assert (statuses[-1].ends_at, statuses[-1].message, statuses[-1].by) == (at(30), "why", "alice")


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("on", "on: 1 worker on 1 host has it\ndrained after 0.0 s, confirmed by 1 process\n"),
        (
            "run -- touch ran",
            (
                "maintenance begins\ndrained after 0.0 s, confirmed by 1 process\n"
                "released after 1s; maintenance is still on\n"
            ),
        ),
    ],
)
def test_drain_that_is_done_at_once_says_by_how_many(of_app: OfApp, words: str, text: str) -> None:
    store = of_app()

    async def confirm() -> None:
        await checkpoint()
        stored = store.memory.peek()
        store.workers.records["web.1.id"] = report(Goes(stored, is_on=True, confirmed=stored.holds))

    store.workers.before_reports = confirm
    word, *others = words.split()
    result = command(word, "--drain", "9s", *APP, *others)
    said = re.sub(r"0\.\d s", "0.0 s", result.stderr)
    assert (result.exit_code, said.partition("\n")[2], Path("ran").exists()) == (0, text, word == "run")


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("on", "on: 1 worker on 1 host has it\ninterrupted; maintenance stays on\n"),
        ("run -- touch ran", "interrupted; the hold was given back, and the command was not started\n"),
    ],
)
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_drain_that_is_interrupted_says_what_became_of_maintenance(
    of_app: OfApp, words: str, text: str, number: signal.Signals, status: int
) -> None:
    store = of_app(web_1=report())

    async def interrupt() -> None:
        if store.memory.peek().holds:
            signal.raise_signal(number)
        await checkpoint()

    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # as main() has it
    store.workers.before_reports = interrupt
    word, *others = words.split()
    result = command(word, "--drain", "9s", *APP, *others)
    signal.signal(signal.SIGTERM, before)
    assert (result.exit_code, result.stderr.partition("\n")[2].strip()) == (status, text.strip())
    assert (store.memory.peek().holds, Path("ran").exists()) == ((), False)


def test_drain_does_not_say_that_a_hold_was_given_back_if_it_was_not(of_app: OfApp) -> None:
    store = of_app(web_1=report())

    async def go_down() -> None:
        await checkpoint()
        if store.memory.peek().holds:
            store.before_write = be_down

    store.workers.before_reports = go_down
    result = command("run", "--drain", "1s", *APP, "--", "touch", "ran")
    assert (result.exit_code, Path("ran").exists()) == (75, False)
    assert "fastapi-maintenance: A hold could not be taken out of CountingStore\n" in result.stderr
    assert "given back" not in result.stderr


NO_WORKER = (
    "error: no worker has signed in behind {}: is this the switch of the service, and does its server run the lifespan "
    "of the app? --workers 0 says that none has to be there\n"
)


@pytest.mark.parametrize(
    ("words", "then"),
    [
        (["on", "--drain", "9s"], "maintenance stays on\n"),
        (["run", "--drain", "9s", "--", "touch", "ran"], "the hold was given back, and the command was not started\n"),
    ],
)
def test_drain_without_a_worker_names_the_switch_and_runs_nothing(words: list[str], then: str) -> None:
    result = switch(*words)
    said = re.sub("^checking .*\n", "", errors(result))
    assert (result.exit_code, said) == (75, NO_WORKER.format(f"file:{Path('switch').resolve()}") + then)
    assert (state(), Path("ran").exists()) == (MaintenanceState(switch=Switch(on=words[0] == "on")), False)


def test_drain_of_no_worker_is_done_where_none_has_to_be_there() -> None:
    result = switch("run", "--drain", "9s", "--workers", "0", "--", "touch", "ran")
    assert (result.exit_code, Path("ran").exists(), state()) == (0, True, OFF)
    text = (
        r"switch: (.*)\nmaintenance begins\nchecking that no worker is missing; \d s left\n"
        r"drained after \d+\.\d s, confirmed by 0 processes\n"
        r"on: no worker has signed in behind \1; is this the switch of the service\?\n"
        r"released after \d+s; maintenance is off\n"
    )
    assert re.fullmatch(text, result.stderr), result.stderr


@pytest.mark.parametrize("words", [["on", "--drain", "9s"], ["run", "--drain", "9s", "--", "touch", "ran"]])
@pytest.mark.parametrize("url", ["env:CLOSED", "sqlite+aiosqlite:///switch.db"])
def test_drain_of_a_store_that_cannot_count_changes_nothing(words: list[str], url: str) -> None:
    result = command(*words[:1], "--backend", url, *words[1:])
    assert (result.exit_code, Path("ran").exists()) == (1, False)
    assert re.match("error: the workers of .* cannot be counted: ", errors(result))
    assert command("status", "--backend", url).stdout == "off\n"


# How it is shown


def worker(requests: int) -> WorkerStatus:
    since = clock.now() + timedelta(minutes=1)  # by a clock that is ahead, so that it is shown as none
    return WorkerStatus(host="web", process_id=1, requests=requests, oldest_since=since, oldest_route="GET /")


def test_progress_in_a_log_is_a_line_when_numbers_change_and_not_too_often(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monotonic = 100
    monkeypatch.setattr("fastapi_maintenance.cli.hold.time.monotonic", lambda: monotonic)
    with shown_progress() as progress:
        for monotonic, requests in ((100, 4), (101, 3), (102, 2), (105, 2), (106, 2), (112, 2), (113, 1)):
            progress([worker(requests)], 200 - monotonic)
    assert capsys.readouterr().err.splitlines() == [
        "waiting for 3 requests in progress on 1 worker, the oldest for 0 s; 99 s left",
        "waiting for 2 requests in progress on 1 worker, the oldest for 0 s; 94 s left",
        "waiting for 1 request in progress on 1 worker, the oldest for 0 s; 87 s left",
    ]


def test_progress_in_a_terminal_is_a_line_that_changes_and_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.StringIO()
    monkeypatch.setattr(shown, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stderr", shown)
    for name, value in {"TERM": "xterm", "COLUMNS": "120"}.items():
        monkeypatch.setenv(name, value)
    with shown_progress() as progress:
        progress([worker(3)], 9.6)
        text = "waiting for 3 requests in progress on 1 worker, the oldest for 0 s; 10 s left"
        wait_until(lambda: text in shown.getvalue())
    assert shown.getvalue().endswith("\x1b[2K"), "the line has not been erased"


# With a server


@contextmanager
def busy_server(url: str = "file:switch", *arguments: str) -> Iterator[None]:
    """Start a server behind a switch, and a request that ends when there is a file `end`."""
    Path("served.py").write_text(SERVED)
    with uvicorn_process("served:app", *arguments, env={"SWITCH": url}, folder=Path.cwd()) as base:
        request = threading.Thread(target=httpx.post, args=[f"{base}/orders/1"], kwargs={"timeout": 300})
        request.start()
        wait_until(Path("begun").exists)
        try:
            yield
        finally:
            Path("end").touch()
            request.join()


def end_request_for(started: subprocess.Popen[str]) -> tuple[int, str]:
    """Let the request end when the command says that it waits for it; return its exit status and standard error."""
    waiting = "waiting for 1 request in progress on 1 worker, the oldest for"
    with started:
        assert started.stderr is not None
        lines = []
        for line in started.stderr:
            lines.append(line)
            if line.startswith(waiting):
                assert started.poll() is None
                Path("end").touch()
        return started.wait(timeout=60), "".join(lines)


@pytest.mark.servers
def test_run_beside_a_request_starts_the_command_only_when_that_has_ended() -> None:
    words = ["run", "--drain", "60s", "--", "sh", "-c", "ls > ran"]
    with busy_server():
        # The time runs out.
        result = switch("run", "--drain", "6s", *words[3:])
        assert (result.exit_code, Path("ran").exists(), Path("ended").exists()) == (75, False, False)
        text = rf"process \d+ on {socket.gethostname()} has 1 request in progress, POST /orders/\{{number\}} for \d+ s"
        assert re.search(text, result.stderr)
        assert state() == OFF

        # A signal comes.
        for number in (signal.SIGINT, signal.SIGTERM):
            with process(*words, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE) as started:
                assert started.stderr is not None
                assert any(line.startswith("waiting for 1 request") for line in started.stderr)
                started.send_signal(number)
                *_, last = started.stderr
                assert last == "interrupted; the hold was given back, and the command was not started\n"
            assert (started.returncode, Path("ended").exists()) == (128 + number, False)
            assert (state(), Path("ran").exists()) == (OFF, False)

        # It ends.
        status, said = end_request_for(process(*words, stderr=subprocess.PIPE))
    assert (status, "ended" in Path("ran").read_text().split()) == (0, True)
    text = (
        r"switch: file:/.*/switch\nmaintenance begins\n(waiting for .*\n|checking .*\n)+"
        r"drained after \d+\.\d s, confirmed by 1 process\nreleased after \d+s; maintenance is off\n"
    )
    assert re.fullmatch(text, said), said


@pytest.mark.servers
def test_drain_that_wants_two_workers_needs_two() -> None:
    with busy_server("file:switch", "--workers", "2"):
        Path("end").touch()
        assert switch("run", "--drain", "30s", "--workers", "2", "--", "touch", "ran").exit_code == 0
        Path("ran").unlink()
        result = switch("run", "--drain", "4s", "--workers", "3", "--", "touch", "ran")
        assert (result.exit_code, Path("ran").exists(), state()) == (75, False, OFF)
    assert "error: requests are not drained after 4 s: 2 of 3 processes have confirmed\n" in result.stderr


@pytest.mark.servers
@pytest.mark.parametrize("store_url", ["file", "redis", "asyncpg"], indirect=True)
def test_status_shows_a_real_request_until_on_has_waited_for_it(store_url: str) -> None:
    env = {"FASTAPI_MAINTENANCE_BACKEND": store_url}
    with busy_server(store_url):
        assert command("on", "--drain", "2s", **env).exit_code == 75
        told = r"on  1 request in progress on 1 worker, the oldest for \d+ s\n"
        wait_until(lambda: re.fullmatch(told, command("status", **env).stdout))
        status, said = end_request_for(process("on", "--drain", "60s", env=env, stderr=subprocess.PIPE))
        assert (status, Path("ended").exists()) == (0, True)
        assert "on: 1 worker on 1 host has it\n" in said
        assert command("status", **env).stdout == "on  no requests in progress\n"
