"""`run` and `on` with `--drain`, and what `status` tells of requests in progress."""

from __future__ import annotations

import io
import json
import re
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
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
from tests.cli.helpers import ME, command, errors, process, state, store, switch, wait_until
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
        monkeypatch.setattr("fastapi_maintenance.cli.switch.find_backend", lambda _: store)
        return store

    return have


APP = ["--app", "shop:app"]
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


# What status shows


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
    busy = of_app(**{name: "" if facts is None else report(**facts) for name, facts in reports.items()})
    assert text == re.sub(r"1[2-9] s", "12 s", command("status", *APP).stdout)
    busy.memory = MemoryBackend()
    assert command("status", *APP).stdout == "off\n"


def test_status_as_json_has_the_requests_of_each_worker(of_app: OfApp) -> None:
    of_app(web_1=report(requests=2), web_2="")
    first, second = json.loads(command("status", "--json", *APP).stdout)["workers"]
    assert datetime.fromisoformat(first.pop("oldest_since")).tzinfo is not None
    assert first == {"host": "web", "process_id": 1, "requests": 2, "oldest_route": "POST /orders"}
    unknown = {"requests": None, "oldest_since": None, "oldest_route": None}
    assert second == {"host": "web", "process_id": 2, **unknown}


@pytest.mark.parametrize("url", ["env:CLOSED", "sqlite+aiosqlite:///switch.db"])
def test_status_of_a_backend_without_workers_leaves_them_out(url: str) -> None:
    result = command("status", "--json", "--backend", url)
    assert (result.exit_code, json.loads(result.stdout)["workers"]) == (0, None)


def test_status_shows_the_state_if_workers_cannot_be_read(of_app: OfApp) -> None:
    of_app().before_reports = be_down
    result = command("status", *APP)
    assert (result.exit_code, result.stdout) == (0, "on\n")
    assert errors(result) == "error: the store cannot be reached: ConnectionError: the store is down\n"
    assert json.loads(command("status", "--json", *APP).stdout)["workers"] is None


# What is waited for


def test_run_that_times_out_does_not_run_its_command_and_gives_its_hold_back(
    of_app: OfApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastapi_maintenance.cli.hold._FIRST_LINE", 0)
    busy = of_app(web_1=report(requests=2), web_2=report(requests=1), web_3="", web_4=report())
    result = command("run", "--drain", "1s", *APP, "--", "touch", "ran")
    assert (result.exit_code, Path("ran").exists()) == (75, False)
    assert busy.memory.peek() == MaintenanceState(active=True)
    waiting, error = re.sub(r"\b\d+ s\b", "N s", errors(result)).splitlines()
    assert waiting == (
        "waiting for 3 requests in progress on 2 workers, the oldest for N s, 2 workers yet to report; N s left"
    )
    assert error == (
        "error: requests are not drained after N s: "
        "process 1 on web has 2 requests in progress, the oldest POST /orders for N s; "
        "process 2 on web has 1 request in progress, POST /orders for N s; "
        "process 3 on web has not reported; "
        "process 4 on web has not reported that it knows of the maintenance"
    )


def test_on_that_times_out_leaves_maintenance_on(of_app: OfApp) -> None:
    busy = of_app(web_1=report(requests=1))
    busy.memory = MemoryBackend()
    result = command("on", "--message", "why", "--drain", "1s", *APP)
    assert (result.exit_code, result.stdout) == (75, f"on by {ME}: why\n")
    assert errors(result).splitlines()[-1].startswith("error: requests are not drained after 1 s: process 1 on")
    assert replace(busy.memory.peek(), since=None) == MaintenanceState(active=True, message="why", by=ME)


@pytest.mark.parametrize("words", [["on", "--drain", "9s"], ["run", "--drain", "9s", "--", "touch", "ran"]])
def test_drain_without_requests_prints_nothing(words: list[str]) -> None:
    result = switch(*words)
    assert (result.exit_code, errors(result), Path("ran").exists()) == (0, "", words[0] == "run")
    assert state() == MaintenanceState(active=words[0] == "on")


@pytest.mark.parametrize("words", [["on", "--drain", "9s"], ["run", "--drain", "9s", "--", "touch", "ran"]])
@pytest.mark.parametrize("url", ["env:CLOSED", "sqlite+aiosqlite:///switch.db"])
def test_drain_of_a_backend_without_workers_changes_nothing(words: list[str], url: str) -> None:
    result = command(*words[:1], "--backend", url, *words[1:])
    assert (result.exit_code, Path("ran").exists()) == (1, False)
    assert re.match(r"error: (a )?drain needs ", errors(result))
    assert command("status", "--backend", url).stdout == "off\n"


def test_window_that_has_begun_can_be_drained() -> None:
    assert switch("on", "--drain", "9s", "--from", "2001-01-01").exit_code == 0


# How it is shown


def worker(requests: int) -> WorkerStatus:
    since = clock.now() + timedelta(minutes=1)  # by a clock that is ahead, so that it is shown as none
    return WorkerStatus(host="web", process_id=1, requests=requests, oldest_since=since, oldest_route="GET /")


def test_progress_in_a_log_is_a_line_when_the_numbers_change_and_not_too_often(
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
def test_run_begins_its_command_when_the_request_has_ended() -> None:
    with busy_server():
        started = process("run", "--drain", "60s", "--", "sh", "-c", "ls > ran", stderr=subprocess.PIPE)
        assert end_request_for(started) == 0
    assert "ended" in Path("ran").read_text().split()


@pytest.mark.servers
def test_on_waits_for_the_request_that_status_shows() -> None:
    with store("redis") as url, busy_server(url):
        env = {"FASTAPI_MAINTENANCE_BACKEND": url}
        assert command("on", "--drain", "1s", **env).exit_code == 75
        told = rf"on( for \d+ s)? by {ME}  1 request in progress on 1 worker, the oldest for \d+ s\n"
        wait_until(lambda: re.fullmatch(told, command("status", **env).stdout))
        started = process("on", "--drain", "60s", env=env, stderr=subprocess.PIPE)
        assert (end_request_for(started), Path("ended").exists()) == (0, True)
        told = rf"on( for \d+ s)? by {ME}  no requests in progress\n"
        assert re.fullmatch(told, command("status", **env).stdout)


@pytest.mark.servers
def test_run_that_is_ended_while_it_waits_gives_its_hold_back() -> None:
    with busy_server():
        for number in (signal.SIGINT, signal.SIGTERM):
            started = process("run", "--drain", "60s", "--", "touch", "ran", stdin=subprocess.DEVNULL)
            wait_until(lambda: state().holds)
            started.send_signal(number)
            assert (started.wait(timeout=30), Path("ended").exists()) == (128 + number, False)
            assert (state(), Path("ran").exists()) == (MaintenanceState(), False)
