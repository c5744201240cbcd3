"""`run`: maintenance is on while a command runs, and off again whatever happens."""

from __future__ import annotations

import io
import json
import logging
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import anyio
import pytest
from anyio.lowlevel import checkpoint

from fastapi_maintenance import LocalFileBackend, get_maintenance_mode
from fastapi_maintenance._switch import holds
from fastapi_maintenance.cli.hold import run_command
from fastapi_maintenance.state import status_of
from tests.cli.driving import (
    APP,
    NOW,
    OFF,
    at,
    command,
    errors,
    process,
    state,
    switch,
    use,
    wait_until,
)
from tests.servers import running
from tests.stores import BareSwitch
from tests.support import ROOT


@pytest.mark.parametrize(
    ("script", "status"),
    [("exit 3", 3), ("kill -TERM $PPID; exec sleep 60", 143), ("kill -INT $PPID; exec sleep 60", 130)],
)
def test_run_passes_on_signals_and_the_exit_status(script: str, status: int) -> None:
    assert switch("run", "--message", "why", "--", "sh", "-c", script).exit_code == status
    assert state() == OFF


@pytest.mark.usefixtures("_at_noon")
def test_run_keeps_what_is_given_in_its_hold() -> None:
    words = ["--expect", "5m", "--lease", "1m", "-m", "why", "--by", "the pipeline"]
    assert switch("run", *words, "--", "cp", "switch", "kept").exit_code == 0
    Path("kept").replace("switch")
    (hold,) = json.loads(switch("status", "--json").stdout)["holds"]
    assert (hold.pop("id") != "", hold) == (
        True,
        {
            "on": True,
            "message": "why",
            "by": "the pipeline",
            "ends_at": at(5).isoformat(),
            "expires_at": at(1).isoformat(),
            "since": NOW.isoformat(),
        },
    )
    assert status_of(state(), NOW).ends_at == at(5)


def test_run_with_a_misspelt_option_changes_nothing() -> None:
    result = switch("run", "--drian", "3s", "--", "touch", "ran")
    text = "error: there is no option --drian; the command to run stands after --\n"
    assert (result.exit_code, errors(result), Path("ran").exists()) == (2, text, False)


@pytest.mark.parametrize(
    ("words", "status", "text"),
    [
        (["no-such-command"], 127, "no-such-command: No such file or directory"),
        (["./nothing"], 127, "./nothing: No such file or directory"),
        (["./no-such-script"], 126, "./no-such-script: Permission denied"),
        (["no-such-script"], 126, "no-such-script: Permission denied"),
        (["./folder"], 126, "./folder: Permission denied"),
    ],
)
def test_run_of_a_command_that_cannot_run_turns_nothing_on(
    words: list[str], status: int, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{Path.cwd()}{os.pathsep}{os.environ['PATH']}")
    Path("no-such-script").write_text("#!/bin/sh\n")
    Path("folder").mkdir()
    result = switch("run", "--", *words)
    assert (result.exit_code, result.stderr) == (status, f"{text}; maintenance was not turned on\n")
    assert not Path("switch").exists()


def test_run_of_a_file_of_no_known_format_is_126() -> None:
    Path("script").write_bytes(b"\0no program")
    Path("script").chmod(0o755)
    result = switch("run", "--", "./script")
    assert (result.exit_code, errors(result)) == (126, "./script: Exec format error\n")
    assert state() == OFF


def test_run_of_a_command_that_is_gone_when_it_begins_is_127() -> None:
    assert anyio.run(run_command, ["./nothing"]) == 127


def test_run_does_not_send_twice_what_a_terminal_sends_to_the_command_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stdin", terminal)
    assert anyio.run(run_command, ["sh", "-c", "kill -INT $PPID; sleep 0.5; exit 4"]) == 4


# The store fails


def test_run_does_not_start_the_command_if_the_hold_cannot_be_written() -> None:
    result = command("run", "--backend", "file:no/folder/switch", "--", "touch", "ran")
    assert (result.exit_code, Path("ran").exists()) == (1, False)
    *_, last = errors(result).splitlines()
    assert last.startswith("error: the store cannot be reached: FileNotFoundError")


@pytest.mark.parametrize(("script", "status"), [("exit 3", 3), ("exit 0", 0), ("kill -TERM $$", 143)])
def test_run_keeps_the_exit_status_if_the_hold_cannot_be_released(script: str, status: int) -> None:
    Path("folder").mkdir()
    result = command("run", "--backend", "file:folder/switch", "--", "sh", "-c", f"rm -r folder; {script}")
    assert (result.exit_code, len(errors(result).splitlines())) == (status, 1)
    assert errors(result).startswith("error: the hold could not be released and counts up to 30s longer: ")


def test_run_on_a_bare_switch_that_cannot_be_set_back_says_that_it_stays_on(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = BareSwitch()
    use(monkeypatch, backend)

    async def go_down() -> None:
        backend.go_down()
        await checkpoint()

    backend.after_write = go_down
    result = command("run", *APP, "--", "sh", "-c", "exit 3")
    text = "error: the hold could not be released and leaves the switch on: ConnectionError: the store is down\n"
    holds.ledgers.clear()
    assert (result.exit_code, errors(result)) == (3, text)


@pytest.mark.servers
def test_run_prints_in_a_line_what_fails_while_the_command_runs() -> None:
    Path("folder").mkdir()
    noting = logging.Handler()
    noting.emit = lambda record: Path("again" if "again in" in record.msg else "failed").touch()  # type: ignore[method-assign]
    logging.getLogger("fastapi_maintenance").addHandler(noting)
    wait = "for _ in $(seq 600); do [ -e {0} ] && break; sleep 0.1; done"
    script = f"mv folder gone; {wait.format('failed')}; mv gone folder; {wait.format('again')}"
    result = command("run", "--backend", "file:folder/switch", "--lease", "1s", "--", "sh", "-c", script)
    assert result.exit_code == 0
    assert "fastapi-maintenance: A hold could not be renewed in LocalFileBackend('folder/switch')" in errors(result)
    assert "fastapi-maintenance: A hold has been renewed again" in errors(result)
    assert "Traceback" not in errors(result)
    assert LocalFileBackend("folder/switch").peek() == OFF


@pytest.mark.servers
@pytest.mark.parametrize("kind", ["redis", "asyncpg"])
def test_run_keeps_the_exit_status_if_the_store_goes_away(kind: str) -> None:
    with running(kind) as server:
        script = "touch begun; while [ ! -e gone ]; do sleep 0.05; done; exit 3"
        words = ["run", "--backend", server.url, "--", "sh", "-c", script]
        with process(*words, stderr=subprocess.PIPE) as started:
            wait_until(Path("begun").exists)
            server.kill()
            Path("gone").touch()
            _, said = started.communicate(timeout=60)
    assert started.returncode == 3
    (line,) = [line for line in said.splitlines() if line.startswith("error:")]
    assert line.startswith("error: the hold could not be released and counts up to 30s longer: ")


# As a process


@pytest.mark.servers
@pytest.mark.parametrize("store_url", ["file", "redis", "asyncpg"], indirect=True)
def test_run_turns_maintenance_on_for_other_processes(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    look = (
        "import anyio, sys; from fastapi_maintenance import get_maintenance_mode; "
        "sys.exit(10 + anyio.run(get_maintenance_mode, sys.argv[1]))"
    )
    result = command(
        "run", "--backend", store_url, "--message", "Migration", "--", sys.executable, "-c", look, store_url
    )
    assert (result.exit_code, anyio.run(get_maintenance_mode, store_url)) == (11, False)


@pytest.mark.servers
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_run_sends_a_signal_to_the_command_and_releases_its_hold(number: signal.Signals) -> None:
    with process("run", "--", "sh", "-c", "touch begun; exec sleep 60", stdin=subprocess.DEVNULL) as started:
        wait_until(Path("begun").exists)
        assert len(state().holds) == 1
        started.send_signal(number)
        assert started.wait(timeout=60) == 128 + number
    assert state() == OFF


@pytest.mark.servers
def test_run_waits_for_a_command_that_handles_a_signal() -> None:
    script = "trap 'echo tidied; exit 7' TERM; echo begun; while true; do sleep 0.1; done"
    with process("run", "--", "sh", "-c", script, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as started:
        assert started.stdout is not None
        assert started.stdout.readline() == "begun\n"
        started.send_signal(signal.SIGTERM)
        assert (started.wait(timeout=60), started.stdout.read()) == (7, "tidied\n")
    assert state() == OFF


@pytest.mark.servers
def test_hold_of_a_run_that_is_killed_expires() -> None:
    with process("run", "--lease", "2s", "--", "cat", stdin=subprocess.PIPE) as started:  # as long as the pipe is open
        wait_until(lambda: state().holds)
        started.kill()
    (hold,) = state().holds
    assert hold.expires_at is not None
    assert hold.expires_at < datetime.now(UTC) + timedelta(seconds=2)
