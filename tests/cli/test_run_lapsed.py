"""`run` whose own process was stopped for longer than its lease: it says so, and does not end with success."""

from __future__ import annotations

import os
import signal
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.cli.driving import OFF, process, state, wait_until

LAPSED = 76
_SCRIPT = "echo $$ > begun; while [ ! -e end ]; do sleep 0.05; done; exit {}"

pytestmark = pytest.mark.servers


def has_lapsed() -> bool:
    (hold,) = state().holds
    assert hold.expires_at is not None
    return hold.expires_at < datetime.now(UTC)


def run_and_stop(status: int, *, ends_while_stopped: bool) -> tuple[int, str]:
    """Run a command, stop `run` until its hold has lapsed; return the exit status and what was printed as errors."""
    with process(
        "run",
        "--lease",
        "1s",
        "--",
        "sh",
        "-c",
        _SCRIPT.format(status),
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    ) as started:
        try:
            wait_until(lambda: Path("begun").exists() and Path("begun").read_text())
            started.send_signal(signal.SIGSTOP)
            wait_until(has_lapsed)
            if ends_while_stopped:
                Path("end").touch()
                wait_until(lambda: has_ended(int(Path("begun").read_text())))
            started.send_signal(signal.SIGCONT)
            if not ends_while_stopped:
                wait_until(lambda: not has_lapsed())
            Path("end").touch()
            _, errors = started.communicate(timeout=60)
        finally:
            started.kill()
    return started.returncode, errors


def has_ended(process_id: int) -> bool:
    """Return whether a process has ended; it is a zombie while its parent is stopped."""
    stat = Path(f"/proc/{process_id}/stat").read_text()
    return stat.rpartition(")")[2].split()[0] == "Z"


needs_proc = pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="looks at a zombie")  # noqa: PTH110


@pytest.mark.parametrize("ends_while_stopped", [False, pytest.param(True, marks=needs_proc)])
@pytest.mark.parametrize(("status", "expected"), [(0, LAPSED), (3, 3)])
def test_run_whose_hold_lapsed_prints_it_and_does_not_end_with_success(
    status: int, expected: int, ends_while_stopped: bool
) -> None:
    code, errors = run_and_stop(status, ends_while_stopped=ends_while_stopped)
    assert (code, "lapsed" in errors, "Traceback" in errors) == (expected, True, False)
    assert state() == OFF


def test_run_that_was_stopped_for_less_than_its_lease_ends_with_success() -> None:
    with process(
        "run", "--lease", "60s", "--", "sh", "-c", _SCRIPT.format(0), stdin=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as started:
        wait_until(Path("begun").exists)
        started.send_signal(signal.SIGSTOP)
        started.send_signal(signal.SIGCONT)
        Path("end").touch()
        _, errors = started.communicate(timeout=60)
    assert (started.returncode, "lapsed" in errors) == (0, False)
