"""`LocalFileBackend`: writers that are killed leave the file whole, and its lock free."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from fastapi_maintenance import LocalFileBackend, Switch, set_maintenance_mode
from tests.backends.helpers import ON, start_python

KILLS = 20
MESSAGE = "x" * 4_000

# Two writers at any time, each killed at a random moment and replaced. They are forked, since Python starts slower than
# it writes.
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

def kill(pid):
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)

chance = random.Random(0)
writers = [start(), start()]
kills = 0
while kills < int(sys.argv[2]) or not os.path.exists(sys.argv[4]):
    kills += 1
    time.sleep(chance.uniform(0, 0.02))
    kill(writers.pop(0))
    writers.append(start())
for pid in writers:
    kill(pid)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
@pytest.mark.servers
def test_file_whose_writers_are_killed_is_never_torn_or_locked(tmp_path: Path) -> None:
    folder, seen_both = tmp_path / "folder", tmp_path / "seen both"
    folder.mkdir()
    reader = LocalFileBackend(folder / "switch")
    seen: set[Switch] = set()
    with start_python(KILLER, reader.file_path, KILLS, MESSAGE, seen_both) as killer:
        while killer.poll() is None:
            seen.add(replace(reader.peek().switch, since=None))  # raises if the file is torn
            if len(seen) > 1:
                seen_both.touch()
    assert (killer.returncode, seen) == (0, {Switch(), Switch(on=True, message=MESSAGE)})
    left_behind = {path.name for path in folder.iterdir()}
    assert {"switch", "switch.lock"} <= left_behind <= {"switch", "switch.lock", "switch.tmp"}
    anyio.run(set_maintenance_mode, True, reader)
    assert reader.peek() == ON
    assert {path.name for path in folder.iterdir()} == {"switch", "switch.lock"}
