"""Processes that are killed while they write the file leave it whole, and lock nobody out."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from fastapi_maintenance import LocalFileBackend, MaintenanceState, Switch, set_maintenance_mode
from tests.support import ROOT

KILLS = 30
MESSAGE = "x" * 4_000

# Two writers at any time, each killed at a random moment and replaced. They are forked, for a start of Python takes
# longer than many writes.
KILLER = """
import os, random, signal, sys, time, anyio, filelock  # before the writers are forked, so that none has to
from fastapi_maintenance import LocalFileBackend, set_maintenance_mode

backend = LocalFileBackend(sys.argv[1])

async def write(begun):
    await set_maintenance_mode(False, backend)
    os.write(begun, b"1")
    while True:
        await set_maintenance_mode(True, backend, message=sys.argv[3])
        await set_maintenance_mode(False, backend)

def start():
    listen, begun = os.pipe()
    pid = os.fork()
    if pid == 0:
        anyio.run(write, begun)
    os.close(begun)
    os.read(listen, 1)
    os.close(listen)
    return pid

chance = random.Random(0)
writers = [start(), start()]
kills = 0
while kills < int(sys.argv[2]) or not os.path.exists(sys.argv[4]):
    kills += 1
    time.sleep(chance.uniform(0, 0.02))
    os.kill(writers[0], signal.SIGKILL)
    os.waitpid(writers.pop(0), 0)
    writers.append(start())
for pid in writers:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
@pytest.mark.servers
def test_a_file_whose_writers_are_killed_is_never_torn_and_never_locked_for_good(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    reader = LocalFileBackend(folder / "switch")
    seen: set[Switch] = set()
    seen_both = tmp_path / "seen both"
    command = [sys.executable, "-c", KILLER, reader.file_path, str(KILLS), MESSAGE, str(seen_both)]
    with subprocess.Popen(command, cwd=ROOT) as killer:
        while killer.poll() is None:
            seen.add(replace(reader.peek().switch, since=None))  # it would raise if the file were torn
            if len(seen) > 1:
                seen_both.touch()
    assert 0 == killer.returncode
    assert seen == {Switch(), Switch(on=True, message=MESSAGE)}

    left_behind = {path.name for path in folder.iterdir()}
    assert {"switch", "switch.lock"} <= left_behind <= {"switch", "switch.lock", "switch.tmp"}
    anyio.run(set_maintenance_mode, True, reader)
    assert reader.peek() == MaintenanceState(switch=Switch(on=True))
    assert {"switch", "switch.lock"} == {path.name for path in folder.iterdir()}
