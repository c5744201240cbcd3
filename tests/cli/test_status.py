"""`status` and `watch`: what they print for people and for programs."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from datetime import datetime
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import anyio
import pytest

from fastapi_maintenance import MemoryBackend, set_maintenance_mode
from fastapi_maintenance.cli.durations import format_time
from fastapi_maintenance.cli.show import print_change
from fastapi_maintenance.state import Hold, MaintenanceStatus, Switch, Window, status_of
from tests.cli.driving import (
    NOW,
    OfApp,
    Part,
    at,
    errors,
    invoke,
    on_app,
    on_file,
    report,
    start,
    state_with,
    store,
    use,
)
from tests.stores import DetailedStore, be_down

at_noon = pytest.mark.usefixtures("_at_noon")
ON = Switch(on=True, message="why", by="alice", since=at(-120))
JOB = Hold(id="badcab1e01234567", on=True, message="Deployment", by="job", since=at(-0.5))
BEGUN = Window(id="decade0123456789", starts_at=at(-49), ends_at=at(60), message="Old database", by="bob", since=NOW)
LATER = Window(id="c0ffee0123456789", starts_at=at(60))
UNTIL = f"until {format_time(at(60))}, for 1h"
PAST = f"expected until {format_time(at(-5))}, 5 min ago"
PLAN = f"planned c0ffee01  from {format_time(at(60))}, in 1h  without an end"
OLD = "on for 49 min by bob: Old database"


def held(hold_id: str, *, on: bool = True, minutes: float | None = None) -> Hold:
    return Hold(id=hold_id, on=on, ends_at=None if minutes is None else at(minutes))


@at_noon
@pytest.mark.parametrize(
    ("parts", "text", "in_status", "in_watch"),
    [
        ([], "off", "", ""),
        ([ON], "on for 2 h by alice: why", "", ""),
        ([Switch(on=True, since=at(1))], "on", "", ""),
        ([Switch(by="alice", since=at(-3))], "off for 3 min by alice", "", ""),
        ([Switch(on=True, since=at(-9), ends_at=at(-2))], "off for 2 min", "", ""),
        ([ON, BEGUN], "on for 2 h by alice: why", "  in 1 window (decade01)", ""),
        ([BEGUN, LATER], OLD, f"  in 1 window (decade01)\n{PLAN}", f"  in the window decade01  {PLAN}"),
        ([LATER], "off", f"\n{PLAN}", f"  {PLAN}"),
        (
            [ON, JOB],
            "on for 30 s by job: Deployment",
            "  held by 1 running job (badcab1e)",
            "  held by the job badcab1e",
        ),
        (
            [held("a", minutes=60), held("\x1b[2J[b]", minutes=0)],
            f"on  {UNTIL}",
            "  held by 2 running jobs (a, [2J[b])",
            "  held by the job [2J[b]",
        ),
        (
            [held("same-begin-1"), held("same-begin-2", minutes=-5)],
            "on",
            "  held by 2 running jobs (same-begin-1, same-begin-2)",
            "  held by the job same-beg",
        ),
        ([held("a", minutes=-5)], f"on  {PAST}", "  held by 1 running job (a)", "  held by the job a"),
        ([ON, held("a", on=False)], "off", "  held by 1 running job (a)", "  held by the job a"),
        ([ON, Hold(id="a", on=False, expires_at=NOW)], "on for 2 h by alice: why", "", ""),
    ],
)
def test_status_and_watch_print_age_author_message_and_end(
    parts: list[Part], text: str, in_status: str, in_watch: str, capsys: pytest.CaptureFixture[str]
) -> None:
    store(*parts)
    assert on_file("status").stdout == f"{text}{in_status}\n"
    print_change(status_of(state_with(*parts), NOW))
    assert capsys.readouterr().out == f"{NOW.astimezone():%H:%M:%S}  {text}{in_watch}\n"


@at_noon
def test_status_as_json_has_each_part_that_has_not_ended() -> None:
    expired, over = Hold(id="a", on=False, expires_at=NOW), Window(id="a", starts_at=at(-9), ends_at=at(-8))
    store(ON, over, LATER, expired, JOB)
    nothing = dict.fromkeys(("ends_at", "message", "by", "since"))
    later = {"id": LATER.id, "starts_at": "2030-01-01T13:00:00+00:00", **nothing}
    details = {"message": "Deployment", "ends_at": None, "by": "job", "since": "2030-01-01T11:59:30+00:00"}
    assert json.loads(on_file("status", "--json").stdout) == {
        "name": f"file:{Path('switch').absolute()}",
        "status": {"active": True, "decided_by": "hold", "next_window": later, **details},
        "switch": {"on": True, "message": "why", "ends_at": None, "by": "alice", "since": "2030-01-01T10:00:00+00:00"},
        "windows": [later],
        "holds": [{"id": JOB.id, "on": True, "expires_at": None, **details}],
        "workers": [],
    }


@at_noon
@pytest.mark.parametrize(
    ("parts", "decided_by", "exit_code"),
    [
        ([], None, 0),
        ([ON], "switch", 3),
        ([BEGUN], "window", 3),
        ([JOB], "hold", 3),
        ([held("a", on=False)], "hold", 0),
    ],
)
def test_status_for_scripts_prints_what_decides_and_ends_with_3_if_maintenance_is_on(
    parts: list[Part], decided_by: str | None, exit_code: int
) -> None:
    store(*parts)
    result = on_file("status", "--json", "--exit-code")
    assert (result.exit_code, json.loads(result.stdout)["status"]["decided_by"]) == (exit_code, decided_by)
    assert on_file("status").exit_code == 0


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
def test_status_counts_requests_in_progress_while_maintenance_is_on(
    of_app: OfApp, reports: dict[str, dict[str, Any] | None], text: str
) -> None:
    store = of_app(**{name: "" if facts is None else report(**facts) for name, facts in reports.items()})
    assert re.sub(r"1[2-9] s", "12 s", on_app("status").stdout) == text
    store.memory = MemoryBackend()
    assert on_app("status").stdout == "off\n"


def test_status_as_json_has_each_worker(of_app: OfApp) -> None:
    store = of_app(web_1=report(requests=2, ahead=0.5), web_2="")
    first, second = json.loads(on_app("status", "--json").stdout)["workers"]
    assert datetime.fromisoformat(first.pop("oldest_since")).tzinfo is not None
    known = {"is_current": True, "is_on": True, "clock_ahead": 0.5, "requests": 2, "oldest_route": "POST /orders"}
    assert first == {"host": "web", "process_id": 1, **known}
    assert second == {"host": "web", "process_id": 2, **dict.fromkeys([*known, "oldest_since"])}
    # The state is printed all the same if they cannot be read.
    store.workers.before_reports = be_down
    result = on_app("status")
    assert (result.exit_code, result.stdout) == (0, "on\n")
    assert errors(result) == "error: the store cannot be reached: ConnectionError: the store is down\n"
    assert json.loads(on_app("status", "--json").stdout)["workers"] is None


@pytest.mark.parametrize("url", ["env:CLOSED", "sqlite+aiosqlite:///switch.db"])
def test_status_as_json_of_a_store_that_cannot_count_has_no_workers(url: str) -> None:
    result = invoke("status", "--json", "--backend", url)
    assert (result.exit_code, json.loads(result.stdout)["workers"]) == (0, None)


def test_message_is_printed_on_one_line_without_markup() -> None:
    text = "Back :smile:\n\x1b[2J at [bold]ten"
    shown = "Back :smile: [2J at [bold]ten"
    assert on_file("on", "-m", text, "--by", text).stdout == f"on by {shown}: {shown}\n"
    assert errors(on_file("on")) == f'kept: "{shown}", by {shown}\n'


def test_status_of_a_variable_that_is_not_a_boolean_prints_the_warning() -> None:
    result = invoke("--backend", "env:CLOSED", "status", CLOSED="maybe")
    assert (result.exit_code, result.stdout) == (0, "off\n")
    assert "fastapi-maintenance: The environment variable CLOSED counts as off: value must be" in result.stderr


@pytest.mark.servers
@pytest.mark.parametrize("store_url", ["file", "redis", "sqlite"], indirect=True)
def test_watch_prints_each_change_until_it_is_interrupted(store_url: str) -> None:
    env = {"FASTAPI_MAINTENANCE_BACKEND": store_url, "PYTHONUNBUFFERED": "1"}
    with start("watch", env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as started:
        assert started.stdout is not None
        assert started.stderr is not None
        lines = [started.stdout.readline()]
        for on in (True, False):
            anyio.run(partial(set_maintenance_mode, on, store_url, by="alice"))
            lines.append(started.stdout.readline())
        started.send_signal(signal.SIGINT)
        assert (started.wait(timeout=60), len(started.stderr.readlines())) == (130, 1)
    printed = [re.sub(r" for \d+ s", "", line[10:].strip()) for line in lines]
    assert printed == ["off", "on by alice", "off by alice"]


@pytest.mark.servers
def test_watch_prints_a_line_when_the_store_becomes_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = DetailedStore()
    use(monkeypatch, backend)
    reads = count(1)

    async def fail_and_interrupt() -> None:
        if next(reads) == 2:
            signal.raise_signal(signal.SIGINT)
        await be_down()

    def print_and_go_down(status: MaintenanceStatus) -> None:
        print_change(status)
        backend.before_read = fail_and_interrupt

    monkeypatch.setattr("fastapi_maintenance.cli.status.print_change", print_and_go_down)
    result = on_app("watch")
    (line,) = errors(result).splitlines()
    assert (result.exit_code, len(result.stdout.splitlines())) == (130, 1)
    assert line.startswith("fastapi-maintenance: The maintenance state cannot be read from ")
