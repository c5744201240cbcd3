"""`run`: maintenance is on while a command runs, and off again whatever happens."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import anyio
import pytest
from anyio.lowlevel import checkpoint

from fastapi_maintenance import LocalFileBackend
from fastapi_maintenance._switch import holds
from fastapi_maintenance.cli.run import run_command
from fastapi_maintenance.state import status_of
from tests.cli.driving import COMMAND, NOW, OFF, at, errors, invoke, on_app, on_file, start, stored, use, wait_until
from tests.servers import running
from tests.stores import BareSwitch
from tests.support import ROOT


@pytest.mark.parametrize(
    ("script", "status"),
    [("exit 3", 3), ("kill -TERM $PPID; exec sleep 60", 143), ("kill -INT $PPID; exec sleep 60", 130)],
)
def test_run_passes_on_signals_and_the_exit_status(script: str, status: int) -> None:
    assert on_file("run", "--message", "why", "--", "sh", "-c", script).exit_code == status
    assert stored() == OFF


@pytest.mark.usefixtures("_at_noon")
def test_run_writes_its_options_into_the_hold() -> None:
    words = ["--expect", "5m", "--lease", "1m", "-m", "why", "--by", "the pipeline"]
    assert on_file("run", *words, "--", "cp", "switch", "kept").exit_code == 0
    Path("kept").replace("switch")
    (hold,) = json.loads(on_file("status", "--json").stdout)["holds"]
    assert hold == {
        "id": hold["id"],
        "on": True,
        "message": "why",
        "by": "the pipeline",
        "ends_at": at(5).isoformat(),
        "expires_at": at(1).isoformat(),
        "since": NOW.isoformat(),
    }
    assert status_of(stored(), NOW).ends_at == at(5)


@pytest.mark.parametrize(
    ("command", "status", "text"),
    [
        ("no-such-command", 127, "No such file or directory"),
        ("./nothing", 127, "No such file or directory"),
        ("./no-such-script", 126, "Permission denied"),
        ("no-such-script", 126, "Permission denied"),
        ("./folder", 126, "Permission denied"),
    ],
)
def test_run_of_a_command_that_cannot_run_turns_nothing_on(
    command: str, status: int, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{Path.cwd()}{os.pathsep}{os.environ['PATH']}")
    Path("no-such-script").write_text("#!/bin/sh\n")
    Path("folder").mkdir()
    result = on_file("run", "--", command)
    assert (result.exit_code, result.stderr) == (status, f"{command}: {text}; maintenance was not turned on\n")
    assert not Path("switch").exists()


def test_run_of_a_command_that_cannot_run_once_maintenance_is_on_is_126_or_127() -> None:
    Path("script").write_bytes(b"\0no program")
    Path("script").chmod(0o755)
    result = on_file("run", "--", "./script")
    assert (result.exit_code, errors(result), stored()) == (126, "./script: Exec format error\n", OFF)
    assert anyio.run(run_command, ["./nothing"]) == 127


def test_run_does_not_send_twice_what_a_terminal_sends_to_the_command_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "isatty", lambda _: True)
    assert anyio.run(run_command, ["sh", "-c", "kill -INT $PPID; sleep 0.5; exit 4"]) == 4


@pytest.mark.parametrize("error", [ProcessLookupError, PermissionError])
def test_run_goes_on_if_a_signal_cannot_be_sent_to_the_command(
    error: type[OSError], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has just ended, or runs as another user, as of sudo."""

    def refuse(_process: object, _number: int) -> None:
        Path("refused").touch()
        raise error

    monkeypatch.setattr("anyio._backends._asyncio.Process.send_signal", refuse)
    script = "kill -TERM $PPID; until [ -e refused ]; do sleep 0.05; done; exit 4"
    assert anyio.run(run_command, ["sh", "-c", script]) == 4


@pytest.mark.servers
def test_run_without_standard_input_sends_an_interrupt_to_the_command() -> None:
    started = subprocess.run(
        ["/bin/sh", "-c", 'exec "$@" 0<&-', "sh", *COMMAND, "run", "--", "sh", "-c", "kill -INT $PPID; exec sleep 60"],
        env={**os.environ, "PYTHONPATH": str(ROOT), "FASTAPI_MAINTENANCE_BACKEND": "file:switch"},
        check=False,
    )
    assert (started.returncode, stored()) == (130, OFF)


# The store fails


@pytest.mark.parametrize(("script", "status"), [("exit 3", 3), ("exit 0", 0), ("kill -TERM $$", 143)])
def test_run_keeps_the_exit_status_if_the_hold_cannot_be_released(script: str, status: int) -> None:
    Path("folder").mkdir()
    result = invoke("run", "--backend", "file:folder/switch", "--", "sh", "-c", f"rm -r folder; {script}")
    (line,) = errors(result).splitlines()
    assert (result.exit_code, line.partition("longer: ")[0]) == (
        status,
        "error: the hold could not be released and counts up to 30s ",
    )


def test_run_on_a_bare_switch_that_cannot_be_set_back_says_that_it_stays_on(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = BareSwitch()
    use(monkeypatch, backend)

    async def go_down() -> None:
        backend.go_down()
        await checkpoint()

    backend.after_write = go_down
    result = on_app("run", "--", "sh", "-c", "exit 3")
    text = "error: the hold could not be released and leaves the switch on: ConnectionError: the store is down\n"
    holds.ledgers.clear()
    assert (result.exit_code, errors(result)) == (3, text)


@pytest.mark.servers
def test_run_prints_in_a_line_what_fails_while_the_command_runs() -> None:
    Path("folder").mkdir()
    handler = logging.Handler()
    handler.emit = lambda record: Path("again" if "again in" in record.msg else "failed").touch()  # type: ignore[method-assign]
    logging.getLogger("fastapi_maintenance").addHandler(handler)
    wait = "for _ in $(seq 600); do [ -e {0} ] && break; sleep 0.1; done"
    script = f"mv folder gone; {wait.format('failed')}; mv gone folder; {wait.format('again')}"
    result = invoke("run", "--backend", "file:folder/switch", "--lease", "1s", "--", "sh", "-c", script)
    assert (result.exit_code, "Traceback" in result.stderr) == (0, False)
    assert "fastapi-maintenance: A hold could not be renewed in LocalFileBackend('folder/switch')" in errors(result)
    assert "fastapi-maintenance: A hold has been renewed again" in errors(result)
    assert LocalFileBackend("folder/switch").peek() == OFF


@pytest.mark.servers
def test_run_keeps_the_exit_status_if_the_store_is_killed() -> None:
    with running("redis") as server:
        script = "touch begun; while [ ! -e gone ]; do sleep 0.05; done; exit 3"
        words = ["run", "--backend", server.url, "--", "sh", "-c", script]
        with start(*words, stderr=subprocess.PIPE) as started:
            wait_until(Path("begun").exists)
            server.kill()
            Path("gone").touch()
            _, printed = started.communicate(timeout=60)
    (line,) = [line for line in printed.splitlines() if line.startswith("error:")]
    assert started.returncode == 3
    assert line.startswith("error: the hold could not be released and counts up to 30s longer: ")


# As a process


@pytest.mark.servers
@pytest.mark.parametrize(
    ("number", "script", "status", "output"),
    [
        (signal.SIGHUP, "echo begun; exec sleep 60", 129, ""),
        (signal.SIGINT, "echo begun; exec sleep 60", 130, ""),
        (signal.SIGTERM, "trap 'echo tidied; exit 7' TERM; echo begun; while true; do sleep 0.1; done", 7, "tidied\n"),
    ],
)
def test_run_sends_a_signal_to_the_command_and_waits_for_it(
    number: signal.Signals, script: str, status: int, output: str
) -> None:
    with start("run", "--", "sh", "-c", script, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as started:
        assert started.stdout is not None
        assert (started.stdout.readline(), len(stored().holds)) == ("begun\n", 1)
        started.send_signal(number)
        assert (started.wait(timeout=60), started.stdout.read()) == (status, output)
    assert stored() == OFF


def lease_is_over() -> bool:
    (hold,) = stored().holds
    assert hold.expires_at is not None
    return hold.expires_at < datetime.now(UTC)


def is_zombie(process_id: str) -> bool:
    """Return whether a process has ended, and its parent, which is stopped, has not noticed."""
    return Path(f"/proc/{process_id.strip()}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


needs_proc = pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="looks at a zombie")  # noqa: PTH110


@pytest.mark.servers
@pytest.mark.parametrize(
    ("lease", "result", "ends_while_stopped", "status"),
    [
        ("1s", 0, False, 76),
        pytest.param("1s", 0, True, 76, marks=needs_proc),
        pytest.param("1s", 3, True, 3, marks=needs_proc),
        ("60s", 0, False, 0),
    ],
)
def test_run_that_is_stopped_for_longer_than_its_lease_prints_it_and_does_not_succeed(
    lease: str, result: int, ends_while_stopped: bool, status: int
) -> None:
    script = f"echo $$ > begun; while [ ! -e end ]; do sleep 0.05; done; exit {result}"
    words = ["run", "--lease", lease, "--", "sh", "-c", script]
    with start(*words, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE) as started:
        try:
            wait_until(lambda: Path("begun").exists() and Path("begun").read_text())
            started.send_signal(signal.SIGSTOP)
            wait_until(lambda: lease == "60s" or lease_is_over())
            if ends_while_stopped:
                Path("end").touch()
                wait_until(lambda: is_zombie(Path("begun").read_text()))
            started.send_signal(signal.SIGCONT)
            wait_until(lambda: ends_while_stopped or not lease_is_over())
            Path("end").touch()
            _, printed = started.communicate(timeout=60)
        finally:
            started.kill()
    assert (started.returncode, "lapsed" in printed, "Traceback" in printed) == (status, lease == "1s", False)
    assert stored() == OFF


@pytest.mark.servers
def test_run_that_is_killed_leaves_a_hold_that_expires() -> None:
    with start("run", "--lease", "2s", "--", "cat", stdin=subprocess.PIPE) as started:  # as long as the pipe is open
        wait_until(lambda: stored().holds)
        started.kill()
    (hold,) = stored().holds
    assert hold.expires_at is not None
    assert hold.expires_at < datetime.now(UTC) + timedelta(seconds=2)


def test_run_does_not_start_the_command_if_the_hold_cannot_be_written() -> None:
    result = invoke("run", "--backend", "file:no/folder/switch", "--", "touch", "ran")
    assert (result.exit_code, Path("ran").exists()) == (1, False)
    assert errors(result).splitlines()[-1].startswith("error: the store cannot be reached: FileNotFoundError")
