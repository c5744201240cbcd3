"""`run` and `on` with `--drain`: what they wait for, print and leave behind."""

from __future__ import annotations

import io
import re
import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from anyio.lowlevel import checkpoint

from fastapi_maintenance import MaintenanceState, MemoryBackend
from fastapi_maintenance._helpers import clock
from fastapi_maintenance._switch.reports import Applied
from fastapi_maintenance.cli.run import shown_progress
from fastapi_maintenance.errors import WorkerStatus
from fastapi_maintenance.state import Switch, status_of
from tests.cli.driving import (
    COMMAND,
    OFF,
    OfApp,
    at,
    busy_server,
    errors,
    invoke,
    on_app,
    on_file,
    report,
    start,
    stored,
    wait_until,
)
from tests.stores import be_down

ON = MaintenanceState(switch=Switch(on=True))
RUN = ["run", "--drain", "9s", "--", "touch", "ran"]
NOT_STARTED = "the hold was released, and the command was not started"


def test_run_whose_drain_times_out_names_what_is_left_and_does_not_start_the_command(
    of_app: OfApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastapi_maintenance.cli.run._FIRST_LINE", 0)
    store = of_app(web_1=report(requests=2), web_2=report(requests=1), web_3="", web_4=report())
    result = on_app("run", "--drain", "1s", "--", "touch", "ran")
    assert (result.exit_code, Path("ran").exists(), store.memory.peek()) == (75, False, ON)
    left = [
        "process 1 on web has 2 requests in progress, the oldest POST /orders for N s",
        "process 2 on web has 1 request in progress, POST /orders for N s",
        "process 3 on web has not reported",
        "process 4 on web has not confirmed that maintenance is on",
    ]
    assert re.sub(r"\b\d+ s\b", "N s", errors(result)).splitlines() == [
        "waiting for 3 requests in progress on 2 workers, the oldest for N s, 2 workers yet to report; N s left",
        "error: requests are not drained after N s: " + "; ".join(left),
        NOT_STARTED,
    ]


@pytest.mark.usefixtures("_at_noon")
def test_on_whose_drain_times_out_holds_with_the_end_of_the_switch_and_leaves_it_on(of_app: OfApp) -> None:
    store, statuses = of_app(web_1=report()), []

    async def look() -> None:
        await checkpoint()
        statuses.append(status_of(store.memory.peek(), clock.now()))

    store.workers.before_reports = look
    store.memory = MemoryBackend()
    result = on_app("on", "--for", "30m", "-m", "why", "--by", "alice", "--drain", "1s")
    error, then = errors(result).splitlines()[-2:]
    assert (result.exit_code, error.partition(": process 1")[0], then) == (
        75,
        "error: requests are not drained after 1 s",
        "maintenance stays on",
    )
    waiting, kept = statuses[-1], store.memory.peek()
    assert type(waiting.decided_by).__name__ == "Hold"
    assert (waiting.ends_at, waiting.message, waiting.by) == (at(30), "why", "alice")
    assert (kept.switch.on, kept.switch.message, kept.holds) == (True, "why", ())


HAS_IT = "on: 1 worker on 1 host has it\n"
DRAINED = "drained after 0.0 s, confirmed by 1 process\n"
TOO_FEW = "error: requests are not drained after 1 s: 1 of 2 processes have confirmed"


@pytest.mark.parametrize(
    ("words", "status", "text"),
    [
        ("on --drain 9s", 0, HAS_IT + DRAINED),
        (" ".join(RUN), 0, f"maintenance begins\n{DRAINED}released after 1s; maintenance is still on\n"),
        ("on --drain 1s --workers 2", 75, f"{HAS_IT}{TOO_FEW}\nmaintenance stays on\n"),
        ("run --drain 1s --workers 2 -- touch no", 75, f"maintenance begins\n{TOO_FEW}\n{NOT_STARTED}\n"),
    ],
)
def test_drain_counts_the_processes_that_confirm(of_app: OfApp, words: str, status: int, text: str) -> None:
    store = of_app()

    async def confirm() -> None:
        await checkpoint()
        state = store.memory.peek()
        store.workers.records["web.1.id"] = report(Applied(state, is_on=True, confirmed=state.holds))

    store.workers.before_reports = confirm
    result = on_app(*words.split())
    printed = re.sub("checking .*\n", "", re.sub(r"0\.\d s", "0.0 s", result.stderr)).partition("\n")[2]
    assert (result.exit_code, printed, Path("ran").exists()) == (status, text, "ran" in words)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("on --drain 9s", f"{HAS_IT}interrupted; maintenance stays on"),
        (" ".join(RUN), f"interrupted; {NOT_STARTED}"),
    ],
)
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_drain_that_is_interrupted_releases_its_hold_and_says_so(
    of_app: OfApp, words: str, text: str, number: signal.Signals, status: int
) -> None:
    store = of_app(web_1=report())

    async def interrupt() -> None:
        if store.memory.peek().holds:
            signal.raise_signal(number)
        await checkpoint()

    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # as main() does
    store.workers.before_reports = interrupt
    result = on_app(*words.split())
    signal.signal(signal.SIGTERM, before)
    assert (result.exit_code, result.stderr.partition("\n")[2].strip()) == (status, text)
    assert (store.memory.peek().holds, Path("ran").exists()) == ((), False)


def test_drain_whose_hold_cannot_be_released_does_not_say_that_it_was(of_app: OfApp) -> None:
    store = of_app(web_1=report())

    async def go_down() -> None:
        await checkpoint()
        if store.memory.peek().holds:
            store.before_write = be_down

    store.workers.before_reports = go_down
    result = on_app("run", "--drain", "1s", "--", "touch", "ran")
    assert (result.exit_code, Path("ran").exists(), "was released" in result.stderr) == (75, False, False)
    assert "fastapi-maintenance: A hold could not be removed from CountingStore\n" in result.stderr


@pytest.mark.parametrize(
    ("words", "then", "after"), [(["on", "--drain", "9s"], "maintenance stays on", ON), (RUN, NOT_STARTED, OFF)]
)
def test_drain_without_a_worker_names_the_switch_and_fails(words: list[str], then: str, after: object) -> None:
    result = on_file(*words)
    error = (
        f"error: no worker has signed in behind file:{Path('switch').resolve()}: is this the switch of the service, "
        f"and does its server run the lifespan of the app? --workers 0 allows a drain without any\n{then}\n"
    )
    assert (result.exit_code, re.sub("^checking .*\n", "", errors(result))) == (75, error)
    assert (stored(), Path("ran").exists()) == (after, False)


@pytest.mark.parametrize(("words", "after"), [(["on", "--drain", "9s"], ON), (RUN, OFF)])
def test_drain_that_needs_no_worker_succeeds_without_one_and_asks_no_question(words: list[str], after: object) -> None:
    result = on_file(words[0], "--workers", "0", *words[1:])
    assert (result.exit_code, stored(), Path("ran").exists()) == (0, after, words == RUN)
    text = (
        r"switch: .*\n(maintenance begins\n)?checking that no worker is missing; \d s left\n"
        r"drained after \d+\.\d s, confirmed by 0 processes\n(released after \d+s; maintenance is off\n)?"
    )
    assert re.fullmatch(text, result.stderr), result.stderr


@pytest.mark.parametrize("words", [["on", "--drain", "9s"], RUN])
@pytest.mark.parametrize("url", ["env:CLOSED", "sqlite+aiosqlite:///switch.db"])
def test_drain_of_a_store_that_cannot_count_changes_nothing(words: list[str], url: str) -> None:
    result = invoke(words[0], "--backend", url, *words[1:])
    assert (result.exit_code, Path("ran").exists()) == (1, False)
    assert re.match("error: the workers of .* cannot be counted: ", errors(result))
    assert invoke("status", "--backend", url).stdout == "off\n"


# How progress is shown


def worker(requests: int) -> WorkerStatus:
    since = clock.now() + timedelta(minutes=1)  # by a clock that is ahead, so no time has passed
    return WorkerStatus(host="web", process_id=1, requests=requests, oldest_since=since, oldest_route="GET /")


def test_progress_in_a_log_is_a_line_when_numbers_change_and_not_too_often(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monotonic = 100
    monkeypatch.setattr("fastapi_maintenance.cli.run.time.monotonic", lambda: monotonic)
    with shown_progress() as progress:
        for monotonic, requests in ((100, 4), (101, 3), (102, 2), (105, 2), (106, 2), (112, 2), (113, 1)):
            progress([worker(requests)], 200 - monotonic)
    assert capsys.readouterr().err.splitlines() == [
        "waiting for 3 requests in progress on 1 worker, the oldest for 0 s; 99 s left",
        "waiting for 2 requests in progress on 1 worker, the oldest for 0 s; 94 s left",
        "waiting for 1 request in progress on 1 worker, the oldest for 0 s; 87 s left",
    ]


def test_progress_in_a_terminal_is_a_line_that_changes_and_disappears(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(screen, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stderr", screen)
    for name, value in {"TERM": "xterm", "COLUMNS": "120"}.items():
        monkeypatch.setenv(name, value)
    with shown_progress() as progress:
        progress([worker(3)], 9.6)
        text = "waiting for 3 requests in progress on 1 worker, the oldest for 0 s; 10 s left"
        wait_until(lambda: text in screen.getvalue())
    assert screen.getvalue().endswith("\x1b[2K"), "the line has not been erased"


# With a server


def end_request_for(started: subprocess.Popen[str]) -> tuple[int, str]:
    """Let the request end when the command says that it waits for it; return the exit status and standard error."""
    assert started.stderr is not None
    lines = []
    for line in started.stderr:
        lines.append(line)
        if line.startswith("waiting for 1 request in progress on 1 worker, the oldest for"):
            assert started.poll() is None
            Path("end").touch()
    return started.wait(timeout=60), "".join(lines)


@pytest.mark.servers
@pytest.mark.parametrize("store_url", ["redis", "asyncpg"], indirect=True)  # on a file: test_terminal.py
def test_drain_on_a_shared_store_waits_for_a_request_that_status_shows(store_url: str) -> None:
    env = {"FASTAPI_MAINTENANCE_BACKEND": store_url}
    with busy_server(store_url):
        result = invoke("on", "--drain", "2s", **env)
        assert (result.exit_code, result.stderr.splitlines()[-1]) == (75, "maintenance stays on")
        text = r"on  1 request in progress on 1 worker, the oldest for \d+ s\n"
        wait_until(lambda: re.fullmatch(text, invoke("status", **env).stdout))
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        with start("run", "-m", "why", "--drain", "60s", "--", *COMMAND, "status", env=env, **pipes) as started:
            status, printed = end_request_for(started)
            assert started.stdout is not None
            output = started.stdout.read()
        assert (status, Path("ended").exists()) == (0, True)
        assert re.fullmatch(r"on( for \d s)?: why  held by 1 running job \(\w{8}\)  no requests in progress\n", output)
        assert invoke("status", **env).stdout == "on  no requests in progress\n"
    text = (
        r"switch: .*\nmaintenance begins\n((waiting for|checking) .*\n)+"
        r"drained after \d+\.\d s, confirmed by 1 process\nswitch: .*\nreleased after \d+s; maintenance is still on\n"
    )
    assert re.fullmatch(text, printed), printed
