"""`status` and `watch`: what they print for people and for programs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from functools import partial
from pathlib import Path

import anyio
import pytest
from typer.testing import CliRunner

from fastapi_maintenance import MaintenanceState, set_maintenance_mode
from fastapi_maintenance.cli.commands import app as cli
from fastapi_maintenance.cli.show import show_change
from fastapi_maintenance.cli.times import shown_time
from fastapi_maintenance.state import Hold, MaintenanceStatus, Switch, Window, status_of
from tests.cli.driving import APP, NOW, at, command, errors, just, process, switch, use, write
from tests.stores import DetailedStore

at_noon = pytest.mark.usefixtures("_at_noon")
ON = Switch(on=True, message="why", by="alice", since=at(-120))
JOB = Hold(id="badcab1e01234567", on=True, message="Deployment", by="job", since=at(-0.5))
BEGUN = Window(id="decade0123456789", starts_at=at(-49), ends_at=at(60), message="Old database", by="bob", since=NOW)
LATER = Window(id="c0ffee0123456789", starts_at=at(60))
UNTIL = f"until {shown_time(at(60))}, for 1h"
PAST = f"expected until {shown_time(at(-5))}, 5 min ago"
PLAN = f"planned c0ffee01  from {shown_time(at(60))}, in 1h"


def held(hold_id: str, *, on: bool = True, minutes: float | None = None) -> Hold:
    return Hold(id=hold_id, on=on, ends_at=None if minutes is None else at(minutes))


# (the state, what is printed, what follows it in `status`, and in `watch`)
CASES: list[tuple[list[Switch | Window | Hold], str, str, str]] = [
    ([], "off", "", ""),
    ([ON], "on for 2 h by alice: why", "", ""),
    ([Switch(on=True, message="why")], "on: why", "", ""),
    ([Switch(on=True, since=at(1))], "on", "", ""),
    ([Switch(by="alice", since=at(-3))], "off for 3 min by alice", "", ""),
    ([Switch(on=True, since=at(-9), ends_at=at(-2))], "off for 2 min", "", ""),
    ([ON, BEGUN], "on for 2 h by alice: why", "  in 1 window (decade01)", ""),
    (
        [BEGUN, LATER],
        "on for 49 min by bob: Old database",
        f"  in 1 window (decade01)\n{PLAN}",
        f"  in the window decade01  {PLAN}",
    ),
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
]


@at_noon
@pytest.mark.parametrize(("parts", "text", "in_status", "in_watch"), CASES)
def test_status_says_since_when_by_whom_why_and_until_when(
    parts: list[Switch | Window | Hold], text: str, in_status: str, in_watch: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write(just(*parts))
    assert switch("status").stdout == f"{text}{in_status}\n"
    show_change(status_of(just(*parts), NOW))
    assert capsys.readouterr().out == f"{NOW.astimezone():%H:%M:%S}  {text}{in_watch}\n"


@at_noon
def test_status_has_json_for_programs() -> None:
    expired = Hold(id="expired", on=True, expires_at=at(-1))
    over = Window(id="over", starts_at=at(-9), ends_at=at(-8))
    write(MaintenanceState(switch=ON, windows=(over, LATER), holds=(expired, JOB)))
    nothing = dict.fromkeys(("ends_at", "message", "by", "since"))
    later = {"id": LATER.id, "starts_at": "2030-01-01T13:00:00+00:00", **nothing}
    details = {"message": "Deployment", "ends_at": None, "by": "job", "since": "2030-01-01T11:59:30+00:00"}
    assert json.loads(switch("status", "--json").stdout) == {
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
def test_status_for_scripts_says_what_decides_and_ends_with_3_if_maintenance_is_on(
    parts: list[Switch | Window | Hold], decided_by: str | None, exit_code: int
) -> None:
    write(just(*parts))
    result = switch("status", "--json", "--exit-code")
    assert (result.exit_code, json.loads(result.stdout)["status"]["decided_by"]) == (exit_code, decided_by)
    assert switch("status").exit_code == 0


def test_message_is_shown_on_one_line_without_markup() -> None:
    text = "Back :smile:\n\x1b[2J at [bold]ten"
    shown = "Back :smile: [2J at [bold]ten"
    assert switch("on", "-m", text, "--by", text).stdout == f"on by {shown}: {shown}\n"
    assert errors(switch("on")) == f'kept: "{shown}", by {shown}\n'


@pytest.mark.servers
@pytest.mark.parametrize("url", ["file:switch", "sqlite+aiosqlite:///switch.db", "env:CLOSED"])
def test_watch_ends_when_it_is_interrupted(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    timer = threading.Timer(1.5, os.kill, (os.getpid(), signal.SIGINT))  # after it has looked a second time

    def show_and_start_timer(status: MaintenanceStatus) -> None:
        show_change(status)
        timer.start()

    monkeypatch.setattr("fastapi_maintenance.cli.commands.show_change", show_and_start_timer)
    result = command("watch", "--backend", url)
    timer.join()
    assert (result.exit_code, [line.split()[1] for line in result.stdout.splitlines()]) == (130, ["off"])


@pytest.mark.servers
def test_watch_says_in_a_line_that_the_store_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = DetailedStore()
    use(monkeypatch, backend)
    timer = threading.Timer(2.5, os.kill, (os.getpid(), signal.SIGINT))  # after it has looked twice more

    def show_and_go_down(status: MaintenanceStatus) -> None:
        show_change(status)
        backend.go_down()
        timer.start()

    monkeypatch.setattr("fastapi_maintenance.cli.commands.show_change", show_and_go_down)
    result = command("watch", *APP)
    timer.join()
    assert (result.exit_code, len(result.stdout.splitlines())) == (130, 1)
    (line,) = errors(result).splitlines()
    assert line.startswith("fastapi-maintenance: The maintenance state cannot be read from ")


@pytest.mark.servers
@pytest.mark.parametrize("store_url", ["file", "redis"], indirect=True)
def test_watch_prints_each_change(store_url: str) -> None:
    env = {"FASTAPI_MAINTENANCE_BACKEND": store_url, "PYTHONUNBUFFERED": "1"}
    with process("watch", env=env, stdout=subprocess.PIPE) as started:
        assert started.stdout is not None
        lines = [started.stdout.readline()]
        for on in (True, False):
            anyio.run(partial(set_maintenance_mode, on, store_url, by="alice"))
            lines.append(started.stdout.readline())
        started.send_signal(signal.SIGINT)
        assert started.wait(timeout=60) == 130
    assert [line[10:].strip() for line in lines] == ["off", "on by alice", "off by alice"]


def test_status_of_a_variable_that_is_no_boolean_prints_the_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLOSED", "maybe")
    done = CliRunner().invoke(cli, ["--backend", "env:CLOSED", "status"])
    assert (done.exit_code, done.stdout) == (0, "off\n")
    assert "fastapi-maintenance: The environment variable CLOSED counts as off: value must be" in done.stderr
