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
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from anyio.lowlevel import checkpoint

from fastapi_maintenance import MaintenanceState, MemoryBackend
from fastapi_maintenance._helpers import clock
from fastapi_maintenance.cli.hold import shown_progress
from fastapi_maintenance.errors import WorkerStatus
from fastapi_maintenance.state import Switch, status_of
from tests.cli.driving import (
    APP,
    OFF,
    at,
    command,
    errors,
    on_each_store,
    process,
    state,
    switch,
    use,
    wait_until,
)
from tests.stores import DetailedStore, Hook, be_down
from tests.support import uvicorn_process


def report(*holds: str, requests: int = 0, seconds: float = 0, route: str = "POST /orders") -> str:
    """Return what a worker reports that has read these holds, and whose oldest request began so many seconds ago."""
    facts: dict[str, object] = {"holds": holds, "requests": requests}
    if requests:
        began = datetime.now(UTC) - timedelta(seconds=seconds)
        facts |= {"since": began.isoformat(), "route": route}
    return json.dumps(facts)


class CountingStore(DetailedStore):
    """A store whose workers report what a test wants."""

    def __init__(self, **reports: str) -> None:
        super().__init__(state=True)
        self.before_reports: Hook = checkpoint
        self.reports = {f"{worker.replace('_', '.')}.id": text for worker, text in reports.items()}

    async def watch(self, worker: str | None = None) -> AsyncIterator[MaintenanceState]:  # noqa: ARG002 -- as the Protocol has it
        yield await self.get_state()

    async def report(self, worker: str, text: str, /) -> None:
        self.reports[worker] = text

    async def get_reports(self) -> Mapping[str, str]:
        await self.before_reports()
        return self.reports


OfApp = Callable[..., CountingStore]


@pytest.fixture
def of_app(monkeypatch: pytest.MonkeyPatch) -> OfApp:
    """Let the app of `--app` have a store whose workers report this."""

    def have(**reports: str) -> CountingStore:
        store = CountingStore(**reports)
        use(monkeypatch, store)
        return store

    return have


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
    of_app(web_1=report(requests=2), web_2="")
    first, second = json.loads(command("status", "--json", *APP).stdout)["workers"]
    assert datetime.fromisoformat(first.pop("oldest_since")).tzinfo is not None
    assert first == {"host": "web", "process_id": 1, "requests": 2, "oldest_route": "POST /orders"}
    unknown = {"requests": None, "oldest_since": None, "oldest_route": None}
    assert second == {"host": "web", "process_id": 2, **unknown}


@pytest.mark.parametrize("url", ["env:CLOSED", "sqlite+aiosqlite:///switch.db"])
def test_status_of_a_store_that_cannot_count_leaves_requests_out(url: str) -> None:
    result = command("status", "--json", "--backend", url)
    assert (result.exit_code, json.loads(result.stdout)["workers"]) == (0, None)


def test_status_is_shown_if_workers_cannot_be_read(of_app: OfApp) -> None:
    of_app().before_reports = be_down
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
        "process 4 on web has not reported that it knows of the maintenance",
    ]
    assert re.sub(r"\b\d+ s\b", "N s", errors(result)).splitlines() == [
        "waiting for 3 requests in progress on 2 workers, the oldest for N s, 2 workers yet to report; N s left",
        "error: requests are not drained after N s: " + "; ".join(left),
    ]


def test_on_that_times_out_leaves_maintenance_on(of_app: OfApp) -> None:
    store = of_app(web_1=report(requests=1))
    store.memory = MemoryBackend()
    result = command("on", "--message", "why", "--drain", "1s", *APP)
    assert (result.exit_code, result.stdout) == (75, "on: why\n")
    assert errors(result).splitlines()[-1].startswith("error: requests are not drained after 1 s: process 1 on")
    kept = store.memory.peek()
    assert (kept.switch.on, kept.switch.message, kept.holds) == (True, "why", ())


@pytest.mark.usefixtures("_at_noon")
def test_on_with_drain_has_the_end_of_the_switch_while_it_waits(of_app: OfApp) -> None:
    store = of_app()
    statuses = []

    async def look() -> None:
        await checkpoint()
        statuses.append(status_of(store.memory.peek(), clock.now()))

    store.before_reports = look
    store.memory = MemoryBackend()
    assert command("on", "--for", "30m", "-m", "why", "--by", "alice", "--drain", "9s", *APP).exit_code == 0
    assert type(statuses[-1].decided_by).__name__ == "Hold"
    assert (statuses[-1].ends_at, statuses[-1].message, statuses[-1].by) == (at(30), "why", "alice")


@pytest.mark.parametrize("words", [["on", "--drain", "9s"], ["run", "--drain", "9s", "--", "touch", "ran"]])
def test_drain_of_nothing_prints_nothing(words: list[str]) -> None:
    result = switch(*words)
    assert (result.exit_code, errors(result), Path("ran").exists()) == (0, "", words[0] == "run")
    assert state() == MaintenanceState(switch=Switch(on=words[0] == "on"))


@pytest.mark.parametrize("words", [["on", "--drain", "9s"], ["run", "--drain", "9s", "--", "touch", "ran"]])
@pytest.mark.parametrize("url", ["env:CLOSED", "sqlite+aiosqlite:///switch.db"])
def test_drain_of_a_store_that_cannot_count_changes_nothing(words: list[str], url: str) -> None:
    result = command(*words[:1], "--backend", url, *words[1:])
    assert (result.exit_code, Path("ran").exists()) == (1, False)
    assert re.match(r"error: (a )?drain needs ", errors(result))
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
def busy_server(url: str = "file:switch") -> Iterator[None]:
    """Start a server behind a switch, and a request that ends when there is a file `end`."""
    Path("served.py").write_text(SERVED)
    with uvicorn_process("served:app", env={"SWITCH": url}, folder=Path.cwd()) as base:
        request = threading.Thread(target=httpx.post, args=[f"{base}/orders/1"], kwargs={"timeout": 300})
        request.start()
        wait_until(Path("begun").exists)
        try:
            yield
        finally:
            Path("end").touch()
            request.join()


def end_request_for(started: subprocess.Popen[str]) -> int:
    """Let the request end when the command says that it waits for it, and return the exit status of the command."""
    waiting = "waiting for 1 request in progress on 1 worker, the oldest for"
    with started:
        assert started.stderr is not None
        assert any(line.startswith(waiting) for line in started.stderr)
        assert started.poll() is None
        Path("end").touch()
        return started.wait(timeout=60)


@pytest.mark.servers
def test_run_beside_a_request_that_does_not_end_does_not_start_the_command() -> None:
    with busy_server():
        started = process("run", "--drain", "6s", "--", "touch", "ran", stderr=subprocess.PIPE)
        _, said = started.communicate(timeout=60)
        assert (started.returncode, Path("ran").exists(), Path("ended").exists()) == (75, False, False)
        assert state() == OFF
    text = rf"process \d+ on {socket.gethostname()} has 1 request in progress, POST /orders/\{{number\}} for \d+ s"
    assert re.search(text, said)


@pytest.mark.servers
def test_run_starts_the_command_when_the_request_has_ended() -> None:
    with busy_server():
        started = process("run", "--drain", "60s", "--", "sh", "-c", "ls > ran", stderr=subprocess.PIPE)
        assert end_request_for(started) == 0
    assert "ended" in Path("ran").read_text().split()


@pytest.mark.servers
@pytest.mark.parametrize("kind", ["file", "redis", "asyncpg"])
def test_status_shows_a_real_request_until_on_has_waited_for_it(kind: str) -> None:
    with on_each_store(kind) as url, busy_server(url):
        env = {"FASTAPI_MAINTENANCE_BACKEND": url}
        assert process("on", "--drain", "1s", env=env).wait(timeout=60) == 75
        told = r"on  1 request in progress on 1 worker, the oldest for \d+ s\n"
        wait_until(lambda: re.fullmatch(told, command("status", **env).stdout))
        started = process("on", "--drain", "60s", env=env, stderr=subprocess.PIPE)
        assert (end_request_for(started), Path("ended").exists()) == (0, True)
        assert command("status", **env).stdout == "on  no requests in progress\n"


@pytest.mark.servers
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_run_that_waits_ends_at_a_signal_and_releases_its_hold(number: signal.Signals, status: int) -> None:
    with busy_server():
        started = process("run", "--drain", "60s", "--", "touch", "ran", stdin=subprocess.DEVNULL)
        wait_until(lambda: state().holds)
        time.sleep(0.3)
        started.send_signal(number)
        assert (started.wait(timeout=30), Path("ended").exists()) == (status, False)
        assert (state(), Path("ran").exists()) == (OFF, False)
