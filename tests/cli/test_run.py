"""`run`: maintenance is on while a command runs, and off again whatever happens."""

from __future__ import annotations

import io
import logging
import signal
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import anyio
import pytest
from anyio.lowlevel import checkpoint

from fastapi_maintenance import EnvVarBackend, LocalFileBackend, MaintenanceState, get_maintenance_mode
from fastapi_maintenance._switch import holds
from fastapi_maintenance.cli.hold import run_command
from tests.cli.helpers import command, errors, process, state, store, switch, wait_until
from tests.servers import running
from tests.stores import BareSwitch

LOOK = (
    "import anyio, sys; from fastapi_maintenance import get_maintenance_mode; "
    "sys.exit(10 + anyio.run(get_maintenance_mode, sys.argv[1]))"
)
NOT_RELEASED = "error: the hold could not be released and counts up to 30s longer: "


@pytest.mark.servers
@pytest.mark.parametrize("kind", ["file", "redis", "asyncpg"])
def test_run_holds_maintenance_on_while_its_command_runs(kind: str) -> None:
    with store(kind) as url:
        result = command("run", "--backend", url, "--message", "Migration", "--", sys.executable, "-c", LOOK, url)
        assert (result.exit_code, anyio.run(get_maintenance_mode, url)) == (11, False)


@pytest.mark.parametrize(
    ("script", "status"),
    [
        ("exit 0", 0),
        ("exit 3", 3),
        ("kill -KILL $$", 137),
        ("kill -TERM $PPID; exec sleep 60", 143),
        ("kill -INT $PPID; exec sleep 60", 130),
        ("kill -HUP $PPID; exec sleep 60", 129),
    ],
)
def test_run_passes_signals_and_the_exit_status_on(script: str, status: int) -> None:
    assert (switch("run", "--", "sh", "-c", script).exit_code, state()) == (status, MaintenanceState())


def test_run_of_a_missing_command_ends_with_127() -> None:
    result = switch("run", "--", "no-such-command")
    assert (result.exit_code, errors(result)) == (127, "no-such-command: No such file or directory\n")
    assert state() == MaintenanceState()


def test_run_of_an_app_whose_switch_is_read_only_runs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastapi_maintenance.cli.switch.find_backend", lambda _: EnvVarBackend())
    result = command("run", "--app", "shop:app", "--", "touch", "ran")
    assert (result.exit_code, Path("ran").exists(), "it can only be read" in errors(result)) == (1, False, True)


@pytest.mark.servers
def test_failed_renewals_are_one_line_each() -> None:
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
    assert LocalFileBackend("folder/switch").peek() == MaintenanceState()


def test_interrupt_from_a_terminal_is_not_sent_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stdin", terminal)
    assert anyio.run(run_command, ["sh", "-c", "kill -INT $PPID; sleep 0.2; exit 4"]) == 4


# Where the hold cannot be released


@pytest.mark.parametrize(("script", "status"), [("exit 3", 3), ("exit 0", 0), ("kill -TERM $$", 143)])
def test_exit_status_is_kept_if_the_hold_cannot_be_released(script: str, status: int) -> None:
    Path("folder").mkdir()
    result = command("run", "--backend", "file:folder/switch", "--", "sh", "-c", f"rm -r folder; {script}")
    assert (result.exit_code, len(errors(result).splitlines())) == (status, 1)
    assert errors(result).startswith(NOT_RELEASED)


def test_bare_switch_that_cannot_be_set_back_is_said_to_stay_on(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = BareSwitch()
    monkeypatch.setattr("fastapi_maintenance.cli.switch.find_backend", lambda _: backend)

    async def go_down() -> None:
        backend.go_down()
        await checkpoint()

    backend.after_write = go_down
    result = command("run", "--app", "shop:app", "--", "sh", "-c", "exit 3")
    text = "error: the hold could not be released and leaves the switch on: ConnectionError: the store is down\n"
    holds.forget(backend)
    assert (result.exit_code, errors(result)) == (3, text)


@pytest.mark.servers
@pytest.mark.parametrize("kind", ["redis", "asyncpg"])
def test_exit_status_is_kept_if_the_server_is_killed(kind: str) -> None:
    script = "touch begun; while [ ! -e gone ]; do sleep 0.05; done; exit 3"
    with running(kind) as server:

        def kill() -> None:
            wait_until(Path("begun").exists)
            server.kill()
            Path("gone").touch()

        killing = threading.Thread(target=kill)
        killing.start()
        result = command("run", "--backend", server.url, "--", "sh", "-c", script)
        killing.join()
    (line,) = [line for line in errors(result).splitlines() if line.startswith("error:")]
    assert (result.exit_code, line.startswith(NOT_RELEASED)) == (3, True)


# As a process


@pytest.mark.servers
def test_signal_to_the_process_is_left_to_its_command() -> None:
    script = "trap 'echo tidied; exit 7' TERM; echo begun; while true; do sleep 0.1; done"
    with process("run", "--", "sh", "-c", script, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as started:
        assert started.stdout is not None
        assert started.stdout.readline() == "begun\n"
        started.send_signal(signal.SIGTERM)
        assert (started.wait(timeout=60), started.stdout.read(), state()) == (7, "tidied\n", MaintenanceState())


@pytest.mark.servers
def test_hold_of_a_killed_process_expires() -> None:
    with process("run", "--lease", "2s", "--", "cat", stdin=subprocess.PIPE) as started:  # as long as the pipe is open
        wait_until(lambda: state().holds)
        started.kill()
    (hold,) = state().holds
    assert hold.expires_at is not None
    assert hold.expires_at < datetime.now(UTC) + timedelta(seconds=2)
