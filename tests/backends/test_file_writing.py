"""`LocalFileBackend`: a file is replaced atomically, under a lock, with its owner and mode."""

from __future__ import annotations

import errno
import json
import os
import re
import stat
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from filelock import FileLock

from fastapi_maintenance import LocalFileBackend, MaintenanceState, Switch, set_maintenance_mode
from fastapi_maintenance.backends import file as file_module
from tests.backends.helpers import LIMIT, OFF, ON, as_root, only_posix, run_python
from tests.strategies import state_of_size

pytestmark = pytest.mark.anyio
SERVICE, OTHER = 12_345, 12_346  # unknown users


def names_in(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


async def test_file_switch_is_written_as_a_digit_and_details_as_json(tmp_path: Path) -> None:
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


async def test_file_write_removes_what_a_dead_writer_left(tmp_path: Path) -> None:
    (tmp_path / "mode.tmp").write_text('{"swit')
    (tmp_path / "mode.lock").touch()
    backend = LocalFileBackend(tmp_path / "mode")
    await backend.set_value(True)
    assert (backend.peek(), names_in(tmp_path)) == (ON, ["mode", "mode.lock"])


async def test_file_write_syncs_content_and_then_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []
    fsync, rename = os.fsync, Path.replace

    def record_fsync(descriptor: int) -> None:
        steps.append("sync folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "sync file")
        fsync(descriptor)

    def record_rename(path: Path, target: Path) -> Path:
        steps.append("rename")
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", record_fsync)
    monkeypatch.setattr(Path, "replace", record_rename)
    await LocalFileBackend(tmp_path / "mode").set_value(True)
    assert steps == ["sync file", "rename", "sync folder"]


async def test_file_write_without_folders_that_open_succeeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Windows."""
    open_descriptor = os.open

    def refuse_folders(path: Any, *args: Any, **settings: Any) -> int:  # noqa: ANN401 -- the signature of os.open
        if Path(path) == tmp_path:
            raise PermissionError
        return open_descriptor(path, *args, **settings)

    monkeypatch.setattr(os, "open", refuse_folders)
    backend = LocalFileBackend(tmp_path / "mode")
    await backend.set_value(True)
    assert backend.peek() == ON


@pytest.mark.parametrize("name", ["fsync", "open"])
async def test_file_write_full_disk_changes_nothing(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = LocalFileBackend(tmp_path / "mode")
    await backend.set_value(True)

    def be_full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch, pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        patch.setattr(os, name, be_full)
        await backend.set_value(False)
    assert (backend.peek(), names_in(tmp_path)) == (ON, ["mode", "mode.lock"])


async def test_file_write_of_the_longest_state_is_read_and_of_a_longer_one_raises(tmp_path: Path) -> None:
    backend = LocalFileBackend(tmp_path / "mode")
    longest = state_of_size(LIMIT - 1)
    await backend.update_state(lambda _: longest)
    with pytest.raises(ValueError, match=f"must take at most {LIMIT - 1} bytes"):
        await backend.update_state(lambda _: state_of_size(LIMIT))
    assert ((tmp_path / "mode").stat().st_size, backend.peek()) == (LIMIT, longest)


async def test_file_write_in_missing_folder_raises_and_does_not_create_it(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        await LocalFileBackend(tmp_path / "mistyped" / "mode").set_value(True)
    expected = (errno.ENOENT, "The folder of the switch is missing", str(tmp_path / "mistyped"))
    assert (caught.value.errno, caught.value.strerror, caught.value.filename) == expected
    assert names_in(tmp_path) == []


@only_posix
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664])
async def test_file_write_keeps_the_mode(mode: int, tmp_path: Path) -> None:
    path = tmp_path / "mode"
    path.write_text("0")
    path.chmod(mode)
    await LocalFileBackend(path).set_value(True)
    assert (path.read_text(), stat.S_IMODE(path.stat().st_mode)) == ("1\n", mode)


@only_posix
@pytest.mark.parametrize("exists", [True, False])
async def test_file_write_through_a_link_writes_its_target_and_keeps_the_link(exists: bool, tmp_path: Path) -> None:
    target, link = tmp_path / "data" / "mode", tmp_path / "mode"
    target.parent.mkdir()
    if exists:
        target.write_text("0")
    link.symlink_to(target)
    backend = LocalFileBackend(link)
    assert backend.peek() == OFF
    await backend.set_value(True)
    assert (backend.peek(), target.read_text(), link.readlink()) == (ON, "1\n", target)


@pytest.mark.parametrize("name", ["mode", "link"])
async def test_file_write_lock_is_taken_raises(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "mode")
    backend = LocalFileBackend(tmp_path / name)
    with FileLock(tmp_path / "mode.lock"):
        with monkeypatch.context() as patch, pytest.raises(TimeoutError):
            patch.setattr(file_module, "WRITE_TIMEOUT", 0.05)
            await backend.set_value(True)
        assert backend.peek() == OFF  # reads take no lock
    await backend.set_value(True)
    assert backend.peek() == ON


@pytest.mark.parametrize(
    ("path", "error", "rule"),
    [
        *((path, TypeError, f"be a path, got {type(path).__name__} {path!r}") for path in (None, 7, b"mode", ["mode"])),
        *((path, ValueError, f"name a file, got {path!r}") for path in ("", "a\0b")),
    ],
)
def test_file_backend_with_invalid_path_raises(path: Any, error: type[Exception], rule: str) -> None:  # noqa: ANN401
    with pytest.raises(error, match=f"^file_path must {re.escape(rule)}$"):
        LocalFileBackend(path)


def test_file_backend_repr_is_its_path(tmp_path: Path) -> None:
    assert repr(LocalFileBackend(tmp_path)) == f"LocalFileBackend({str(tmp_path)!r})"


# The owner


def run_as(user: int, path: Path, value: bool) -> str:
    """Set the switch in a process of this user, if root may start it; return the value after that, or the error."""
    program = """
        import asyncio, os, sys, tempfile
        from fastapi_maintenance import LocalFileBackend, set_maintenance_mode

        user, path, value = int(sys.argv[1]), sys.argv[2], sys.argv[3] == "True"

        async def run():
            await set_maintenance_mode(value, LocalFileBackend(path))
            print(LocalFileBackend(path).peek().switch.on, end="")

        async def import_everything():
            with tempfile.TemporaryDirectory() as folder:
                await set_maintenance_mode(True, LocalFileBackend(folder + "/mode"))

        asyncio.run(import_everything())
        if os.getuid() == 0:
            os.setgroups([]); os.setgid(user); os.setuid(user)
        try:
            asyncio.run(run())
        except Exception as error:
            print(f"{type(error).__name__}: {error}", end="")
    """
    return run_python(program, user, path, value)


@pytest.fixture
def shared_folder() -> Iterator[Path]:
    """Yield a folder in which every user may write; if root may give it away, it belongs to the service."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o777)
        with suppress(PermissionError):
            os.chown(name, SERVICE, SERVICE)
        yield Path(name)
        Path(name).chmod(0o777)


@as_root
@pytest.mark.servers
def test_file_written_by_root_belongs_to_the_service_and_so_does_its_lock(shared_folder: Path) -> None:
    path = shared_folder / "mode"
    for mode in (None, 0o600, 0o440):
        if mode is not None:
            path.chmod(mode)
        assert run_as(0, path, True) == "True"
        status = path.stat()
        assert (status.st_uid, status.st_gid) == (SERVICE, SERVICE)
        assert mode in {None, stat.S_IMODE(status.st_mode)}
    assert run_as(SERVICE, path, False) == "False"


OWNED = f"belongs to user {SERVICE} and group {SERVICE}, and must be written by them or root"


@only_posix
@pytest.mark.servers
@pytest.mark.parametrize(
    ("modes", "error"),
    [
        pytest.param({"mode": 0o666}, OWNED, marks=as_root),
        ({"mode": 0, "mode.lock": 0o666}, "Permission denied"),
        ({"mode": 0o666, "mode.lock": 0o666, ".": 0o555}, "Permission denied"),
    ],
)
def test_file_write_not_permitted_raises_and_changes_nothing(
    modes: dict[str, int], error: str, shared_folder: Path
) -> None:
    path = shared_folder / "mode"
    for name, mode in modes.items():
        if name != ".":
            (shared_folder / name).write_text("1")
            with suppress(PermissionError):
                os.chown(shared_folder / name, SERVICE, SERVICE)
        (shared_folder / name).chmod(mode)
    printed = run_as(OTHER, path, False)
    assert (printed.startswith("PermissionError: "), error in printed) == (True, True)
    path.chmod(0o666)
    assert (path.read_text(), names_in(shared_folder)) == ("1", sorted(modes.keys() - {"."}))


@pytest.mark.parametrize("user", [0, 1])
async def test_file_created_in_own_folder_belongs_to_user(
    user: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_module, "_user", lambda: user)
    await LocalFileBackend(tmp_path / "mode").set_value(True)
    assert (tmp_path / "mode").stat().st_uid == tmp_path.stat().st_uid


@only_posix
@pytest.mark.parametrize("is_permitted", [True, False])
async def test_file_of_another_owner_is_given_to_it_or_left_as_it_was(
    is_permitted: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, given = tmp_path / "mode", list[tuple[int, int]]()
    path.write_text("1")

    def change_owner(_: int, user: int, group: int) -> None:
        if not is_permitted:
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
        given.append((user, group))

    give, like = file_module._set_owner, cast("os.stat_result", SimpleNamespace(st_uid=SERVICE, st_gid=OTHER))
    monkeypatch.setattr(os, "fchown", change_owner)
    monkeypatch.setattr(file_module, "_set_owner", lambda descriptor, new, _: give(descriptor, new, like))
    if is_permitted:
        await LocalFileBackend(path).set_value(False)
        assert (path.read_text(), given) == ("0\n", [(SERVICE, OTHER)] * 2)  # the lock, and the new file
    else:
        with pytest.raises(PermissionError, match=f"belongs to user {SERVICE} and group {OTHER}"):
            await LocalFileBackend(path).set_value(False)
        assert (path.read_text(), names_in(tmp_path)) == ("1", ["mode"])
