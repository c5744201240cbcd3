"""The file: how it is replaced as a whole, under a lock."""

from __future__ import annotations

import errno
import json
import os
import re
import stat
import subprocess
import sys
import textwrap
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from fastapi_maintenance import LocalFileBackend, MaintenanceState, Switch, set_maintenance_mode
from fastapi_maintenance.backends import file as file_module
from tests.backends.helpers import LIMIT, only_posix
from tests.strategies import state_of_size
from tests.support import ROOT

pytestmark = pytest.mark.anyio
ON, OFF = MaintenanceState(switch=Switch(on=True)), MaintenanceState()


async def test_a_plain_switch_is_written_as_a_person_would_and_more_as_one_json_object(tmp_path: Path) -> None:
    path = tmp_path / "mode"
    backend = LocalFileBackend(path)
    written = []
    for set_switch in (backend.set_value, partial(set_maintenance_mode, backend=backend)):
        for value in (True, False):
            await set_switch(value)
            written.append(path.read_text())
    await backend.update_state(lambda _: MaintenanceState(switch=Switch(on=True, message="Zurück")))
    assert written == ["1\n", "0\n"] * 2
    assert json.loads(path.read_text()) == {"switch": {"on": True, "message": "Zurück"}}


async def test_a_write_leaves_the_file_and_its_lock_and_nothing_else(tmp_path: Path) -> None:
    await LocalFileBackend(tmp_path / "mode").set_value(True)
    assert {"mode", "mode.lock"} == {entry.name for entry in tmp_path.iterdir()}


async def test_what_a_dead_writer_left_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "mode.tmp").write_text('{"swit')
    (tmp_path / "mode.lock").touch()
    backend = LocalFileBackend(tmp_path / "mode")
    await backend.set_value(True)
    assert ON == backend.peek()
    assert {"mode", "mode.lock"} == {entry.name for entry in tmp_path.iterdir()}


async def test_the_content_is_on_the_disk_before_the_name_and_the_name_before_the_write_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    fsync, rename = os.fsync, Path.replace

    def noting_fsync(descriptor: int) -> None:
        steps.append("sync folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "sync file")
        fsync(descriptor)

    def noting_rename(path: Path, target: Path) -> Path:
        steps.append("rename")
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", noting_fsync)
    monkeypatch.setattr(Path, "replace", noting_rename)
    await LocalFileBackend(tmp_path / "mode").set_value(True)
    assert ["sync file", "rename", "sync folder"] == steps


async def test_a_folder_that_the_system_does_not_open_is_no_obstacle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on Windows."""
    open_descriptor = os.open

    def refusing(path: Any, *args: Any, **settings: Any) -> int:  # noqa: ANN401 -- as os.open has it
        if Path(path) == tmp_path:
            raise PermissionError
        return open_descriptor(path, *args, **settings)

    monkeypatch.setattr(os, "open", refusing)
    backend = LocalFileBackend(tmp_path / "mode")
    await backend.set_value(True)
    assert ON == backend.peek()


@pytest.mark.parametrize("name", ["fsync", "open"])
async def test_a_write_for_which_the_disk_has_no_room_leaves_what_was_there(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = LocalFileBackend(tmp_path / "mode")
    await backend.set_value(True)

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, name, full)
        with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
            await backend.set_value(False)
    assert ON == backend.peek()
    assert {"mode", "mode.lock"} == {entry.name for entry in tmp_path.iterdir()}


@only_posix
def test_a_write_that_the_system_cuts_off_leaves_what_was_there(tmp_path: Path) -> None:
    program = """
        import resource, signal, sys, anyio
        from fastapi_maintenance import LocalFileBackend, set_maintenance_mode

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1024, 1024))

        async def write():
            await set_maintenance_mode(True, LocalFileBackend(sys.argv[1]), message="x" * 4_000)

        try:
            anyio.run(write)
        except OSError as error:
            print(error.errno)
    """
    (tmp_path / "mode").write_text("0")
    command: list[str | Path] = [sys.executable, "-c", textwrap.dedent(program), tmp_path / "mode"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert str(errno.EFBIG) == done.stdout.strip()
    assert "0" == (tmp_path / "mode").read_text()
    assert {"mode", "mode.lock"} == {entry.name for entry in tmp_path.iterdir()}


async def test_a_state_that_is_too_big_to_be_read_again_is_not_written(tmp_path: Path) -> None:
    backend = LocalFileBackend(tmp_path / "mode")
    await backend.set_value(True)
    with pytest.raises(ValueError, match=f"must take at most {LIMIT - 1} bytes"):
        await backend.update_state(lambda _: state_of_size(LIMIT))
    assert ON == backend.peek()


async def test_the_biggest_state_that_is_written_can_be_read_again(tmp_path: Path) -> None:
    backend = LocalFileBackend(tmp_path / "mode")
    biggest = state_of_size(LIMIT - 1)
    await backend.update_state(lambda _: biggest)
    assert (LIMIT, biggest) == ((tmp_path / "mode").stat().st_size, backend.peek())


async def test_a_missing_folder_is_not_made_by_a_write(tmp_path: Path) -> None:
    backend = LocalFileBackend(tmp_path / "mistyped" / "mode")
    with pytest.raises(FileNotFoundError) as refused:
        await backend.set_value(True)
    error = refused.value
    expected = (errno.ENOENT, "The folder of the switch is missing", str(tmp_path / "mistyped"))
    assert expected == (error.errno, error.strerror, error.filename)
    assert [] == list(tmp_path.iterdir())


@only_posix
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664])
async def test_the_permissions_of_the_file_are_kept(mode: int, tmp_path: Path) -> None:
    path = tmp_path / "mode"
    path.write_text("0")
    path.chmod(mode)
    await LocalFileBackend(path).set_value(True)
    assert ("1\n", mode) == (path.read_text(), stat.S_IMODE(path.stat().st_mode))


@only_posix
@pytest.mark.parametrize("there", [True, False])
async def test_a_link_stays_a_link_and_what_it_links_to_is_written(there: bool, tmp_path: Path) -> None:
    target, link = tmp_path / "data" / "mode", tmp_path / "mode"
    target.parent.mkdir()
    if there:
        target.write_text("0")
    link.symlink_to(target)
    backend = LocalFileBackend(link)
    before = backend.peek()
    await backend.set_value(True)
    assert (OFF, ON, "1\n") == (before, backend.peek(), target.read_text())
    assert target == link.readlink()


@only_posix
async def test_a_file_and_a_link_to_it_share_their_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_module, "WRITE_TIMEOUT", 0.02)
    (tmp_path / "link").symlink_to(tmp_path / "mode")
    with FileLock(tmp_path / "mode.lock"), pytest.raises(TimeoutError):
        await LocalFileBackend(tmp_path / "link").set_value(True)


async def test_a_lock_that_is_not_let_go_of_is_an_error_and_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = LocalFileBackend(tmp_path / "mode")
    with FileLock(tmp_path / "mode.lock"):
        with monkeypatch.context() as patch, pytest.raises(TimeoutError):
            patch.setattr(file_module, "WRITE_TIMEOUT", 0.05)
            await backend.set_value(True)
        assert OFF == backend.peek()  # which nobody has to wait for
    await backend.set_value(True)
    assert ON == backend.peek()


@pytest.mark.parametrize("path", [None, 7, b"mode", ["mode"]])
def test_what_is_no_path_is_refused(path: Any) -> None:  # noqa: ANN401 -- what is refused
    with pytest.raises(
        TypeError, match=rf"^file_path must be a path, got {type(path).__name__} {re.escape(repr(path))}$"
    ):
        LocalFileBackend(path)


@pytest.mark.parametrize("path", ["", "a\0b"])
def test_what_cannot_name_a_file_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match=r"^file_path must name a file, got "):
        LocalFileBackend(path)


def test_a_file_backend_shows_its_path(tmp_path: Path) -> None:
    assert f"LocalFileBackend({str(tmp_path)!r})" == repr(LocalFileBackend(tmp_path))
