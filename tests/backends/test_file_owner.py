"""The file: its owner is kept, whoever writes it."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from fastapi_maintenance import LocalFileBackend
from fastapi_maintenance.backends import file as file_module
from tests.backends.helpers import as_root, only_posix

pytestmark = [pytest.mark.anyio, pytest.mark.servers]
SERVICE, OTHER = 12_345, 12_346
"""Users of whom nothing has to be known."""


def run_as(user: int, path: Path, value: bool) -> str:
    """Set the switch in a process of this user, and return what was raised."""
    script = """
import asyncio, os, sys, tempfile
from fastapi_maintenance import LocalFileBackend, set_maintenance_mode
user, path, value = int(sys.argv[1]), sys.argv[2], sys.argv[3] == "True"
async def run():
    await set_maintenance_mode(value, LocalFileBackend(path))
    print(LocalFileBackend(path).peek().switch.on, end="")
async def import_all_that_only_root_may_read():
    with tempfile.TemporaryDirectory() as folder:
        await set_maintenance_mode(True, LocalFileBackend(folder + "/mode"))
asyncio.run(import_all_that_only_root_may_read())
os.setgroups([]); os.setgid(user); os.setuid(user)
try:
    asyncio.run(run())
except Exception as error:
    print(f"{type(error).__name__}: {error}", end="")
"""
    command = [sys.executable, "-c", script, str(user), str(path), str(value)]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


@pytest.fixture
def shared_folder() -> Iterator[Path]:
    """Give a folder that belongs to the service and that others can get to."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o777)
        os.chown(folder, SERVICE, SERVICE)
        yield folder


@as_root
def test_a_switch_that_root_makes_or_sets_belongs_to_the_service_and_so_does_its_lock(shared_folder: Path) -> None:
    path = shared_folder / "mode"
    for mode in (None, 0o600, 0o440):
        if mode is not None:
            path.chmod(mode)
        assert run_as(0, path, True) == "True"
        status = path.stat()
        assert (status.st_uid, status.st_gid) == (SERVICE, SERVICE)
        assert stat.S_IMODE(status.st_mode) == mode or mode is None
    assert run_as(SERVICE, path, False) == "False"


@as_root
def test_who_cannot_keep_the_owner_is_told_and_changes_nothing(shared_folder: Path) -> None:
    path = shared_folder / "mode"
    path.write_text("1")
    path.chmod(0o666)
    os.chown(path, SERVICE, SERVICE)
    told = run_as(OTHER, path, False)
    assert told.startswith("PermissionError: ")
    assert f"belongs to user {SERVICE} and group {SERVICE}, and must be written by them or root" in told
    assert ("1", ["mode"]) == (path.read_text(), [entry.name for entry in shared_folder.iterdir()])
    assert "False" == run_as(SERVICE, path, False)


@pytest.mark.parametrize("user", [0, 1])
async def test_a_new_switch_in_a_folder_of_ones_own_is_ones_own(
    user: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_module, "_user", lambda: user)
    await LocalFileBackend(tmp_path / "mode").set_value(True)
    assert tmp_path.stat().st_uid == (tmp_path / "mode").stat().st_uid


@only_posix
def test_a_file_is_given_to_the_owner_of_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "fchown", lambda _, user, group: given.append((user, group)))
    like = cast("os.stat_result", SimpleNamespace(st_uid=SERVICE, st_gid=OTHER))
    with (tmp_path / "new").open("w") as file:
        file_module._give(file.fileno(), tmp_path / "new", like)
    assert [(SERVICE, OTHER)] == given


@only_posix
async def test_a_file_that_cannot_be_given_to_the_owner_of_the_switch_is_not_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    path = tmp_path / "mode"
    path.write_text("1")
    like = cast("os.stat_result", SimpleNamespace(st_uid=SERVICE, st_gid=SERVICE))
    real = file_module._give
    monkeypatch.setattr(os, "fchown", refuse)
    monkeypatch.setattr(file_module, "_give", lambda descriptor, new, _: real(descriptor, new, like))
    with pytest.raises(PermissionError, match=f"belongs to user {SERVICE} and group {SERVICE}"):
        await LocalFileBackend(path).set_value(False)
    assert ("1", [path]) == (path.read_text(), list(tmp_path.iterdir()))
