"""`LocalFileBackend`: reading and replacing the file, its owner and mode, and writers that are killed."""

from __future__ import annotations

import errno
import json
import os
import re
import stat
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import anyio
import pytest
from filelock import FileLock

from fastapi_maintenance import InvalidStateError, LocalFileBackend, MaintenanceState, Switch, set_maintenance_mode
from fastapi_maintenance.backends import file as file_module
from tests.backends.helpers import LIMIT, OFF, ON, as_root, messages_of, only_posix, run_python, start_python
from tests.middleware.test_failures import app_on, status
from tests.strategies import state_of_size

pytestmark = pytest.mark.anyio
MESSAGE = MaintenanceState(switch=Switch(on=True, message="Bäh"))
SERVICE, OTHER = 12_345, 12_346  # unknown users


# Reading


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, OFF),
        (b"", OFF),
        (b"1", ON),
        (b"on\r\n", ON),
        (b"0\n", OFF),
        (b"\xef\xbb\xbf1\n", ON),
        *(("\ufeff1\r\n".encode(encoding), ON) for encoding in ("utf-16-le", "utf-16-be")),  # of PowerShell 5
        (b'{"switch": {"on": true}}', ON),
        (b'\xef\xbb\xbf{"switch": {"on": true, "message": "B\xc3\xa4h"}}', MESSAGE),
        (b"1" + b" " * (LIMIT - 1), ON),
    ],
)
async def test_file_content_returns_its_state(
    content: bytes | None, expected: MaintenanceState, tmp_path: Path
) -> None:
    path = tmp_path / "mode"
    if content is not None:
        path.write_bytes(content)
    backend = LocalFileBackend(path)
    assert [backend.peek(), await backend.get_state()] == [expected, expected]
    assert await backend.get_value() is expected.switch.on
    assert path.exists() is (content is not None)


@pytest.mark.parametrize("is_link", [False, True])
async def test_file_in_missing_folder_is_an_outage(is_link: bool, tmp_path: Path) -> None:
    """As on a volume that is not mounted, also if the path is a link into it."""
    path = tmp_path / "link" if is_link else tmp_path / "volume" / "mode"
    if is_link:
        path.symlink_to(tmp_path / "volume" / "mode")
    backend = LocalFileBackend(path)
    with pytest.raises(FileNotFoundError, match="The folder of the switch is missing"):
        backend.peek()
    with pytest.raises(FileNotFoundError, match="The folder of the switch is missing"):
        await backend.get_state()
    (tmp_path / "volume").mkdir()
    assert backend.peek() == OFF


def test_file_removed_while_it_is_read_is_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mode").write_text("1")

    def vanish(*_: object) -> None:
        raise FileNotFoundError

    monkeypatch.setattr(file_module, "open", vanish, raising=False)
    assert LocalFileBackend(tmp_path / "mode").peek() == OFF


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        (b"perhaps", "value must be one of "),
        (b'{"switch": tr', "text must be a JSON object"),
        (b'{"active": true}', "text must be a JSON object"),
        (b"\xff" * 300, "text must be UTF-8, got " + repr(b"\xff" * 200) + ": 'utf-8' codec can't decode"),
        (b"\0" * 20, "value must be one of "),
        (b"1" + b" " * LIMIT, f"{{path}} must be at most {LIMIT} bytes long"),
    ],
)
async def test_file_with_invalid_content_raises_and_is_overwritten_with_a_warning_by_a_switch(
    content: bytes, rule: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "mode"
    path.write_bytes(content)
    backend = LocalFileBackend(path)
    with pytest.raises(InvalidStateError) as of_read:
        backend.peek()
    with pytest.raises(InvalidStateError) as of_change:
        await backend.update_state(lambda state: state)
    error = str(of_read.value)
    assert (str(of_change.value), error.startswith(rule.format(path=path)), len(error) < 2_000) == (error, True, True)
    assert (path.read_bytes(), messages_of(caplog)) == (content, [])
    await backend.set_value(True)
    assert messages_of(caplog) == [f"{path} is being replaced, as if it had been off: {error}"]
    assert (path.read_text(), backend.peek()) == ("1\n", ON)


async def test_file_path_of_a_folder_raises_and_keeps_it(tmp_path: Path) -> None:
    path = tmp_path / "mode"
    (path / "inside").mkdir(parents=True)
    backend = LocalFileBackend(path)
    with pytest.raises(InvalidStateError, match="must be a regular file"):
        backend.peek()
    with pytest.raises(OSError, match="mode"):
        await backend.set_value(True)
    assert list(path.iterdir()) == [path / "inside"]
    assert {entry.name for entry in tmp_path.iterdir()} == {"mode", "mode.lock"}


@only_posix
def test_file_path_of_a_pipe_raises_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "mode")
    errors: list[str] = []

    def peek() -> None:
        try:
            LocalFileBackend(tmp_path / "mode").peek()
        except InvalidStateError as error:
            errors.append(str(error))

    thread = threading.Thread(target=peek, daemon=True)
    thread.start()
    thread.join(30)
    assert errors == [f"{tmp_path}/mode must be a regular file"]


def rewrite(path: Path, content: str) -> None:
    path.write_text(content)


def replace_file(path: Path, content: str) -> None:
    other = path.with_name("other")
    other.write_text(content)
    other.replace(path)


def rewrite_with_an_old_time(path: Path, content: str) -> None:
    path.write_text(content)
    os.utime(path, ns=(10**18, 10**18))


def coarse(status: os.stat_result) -> tuple[int, int, int, int, int]:
    """Return the signature of a file by the clock of FAT."""
    tick = 2_000_000_000  # nanoseconds
    return (status.st_mtime_ns // tick * tick, 0, status.st_size, status.st_ino, status.st_dev)


Signature = Callable[[os.stat_result], tuple[int, int, int, int, int]]


@pytest.mark.parametrize(
    ("change", "signature"),
    [
        *((change, file_module._signature) for change in (rewrite, replace_file, rewrite_with_an_old_time)),
        (rewrite, coarse),
    ],
)
def test_file_change_is_seen_by_the_next_peek(
    change: Callable[[Path, str], None], signature: Signature, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_module, "_signature", signature)
    backend = LocalFileBackend(tmp_path / "mode")
    seen = []
    for content in "1010" * 10:
        change(tmp_path / "mode", content)
        seen.append(backend.peek().switch.on)
    assert seen == [True, False, True, False] * 10


@pytest.mark.parametrize(
    ("write", "seconds", "reads"),
    [(rewrite, 10, 1), (rewrite, -3600, 3), (rewrite, 0, 3), (rewrite, 2, 3), (rewrite_with_an_old_time, 0, 3)],
)
def test_file_is_read_again_only_if_it_has_just_changed(
    write: Callable[[Path, str], None],
    seconds: float,
    reads: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path, opened = tmp_path / "mode", list[str]()

    def record_open(name: str, mode: str) -> Any:  # noqa: ANN401 -- the signature of open
        opened.append(name)
        return open(name, mode)  # noqa: PTH123 -- as the backend does

    monkeypatch.setattr(file_module, "open", record_open, raising=False)
    now = SimpleNamespace(time_ns=lambda: path.stat().st_ctime_ns + int(seconds * 1e9))
    monkeypatch.setattr(file_module, "time", now)
    backend = LocalFileBackend(path)
    for content in ("1", "off"):
        write(path, content)
        assert [backend.peek().switch.on for _ in range(3)] == [content == "1"] * 3
    assert opened == [str(path)] * 2 * reads


async def test_file_relative_path_is_resolved_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    backend = LocalFileBackend("switch")
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    await backend.set_value(True)
    assert (tmp_path / "switch").read_text() == "1\n"


# Writing


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


class BytesPath:
    def __fspath__(self) -> bytes:
        return b"mode"


@pytest.mark.parametrize(
    ("path", "error", "rule"),
    [
        *((path, TypeError, f"be a path, got {type(path).__name__} {path!r}") for path in (None, 7, b"mode", ["mode"])),
        (BytesPath(), TypeError, "be a path, got bytes b'mode'"),
        *((path, ValueError, f"name a file, got {path!r}") for path in ("", "a\0b")),
    ],
)
def test_file_backend_with_invalid_path_raises(path: Any, error: type[Exception], rule: str) -> None:  # noqa: ANN401
    with pytest.raises(error, match=f"^file_path must {re.escape(rule)}$"):
        LocalFileBackend(path)


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


# Writers that are killed


KILLS = 20
LONG_MESSAGE = "x" * 4_000

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
    with start_python(KILLER, reader.file_path, KILLS, LONG_MESSAGE, seen_both) as killer:
        while killer.poll() is None:
            seen.add(replace(reader.peek().switch, since=None))  # raises if the file is torn
            if len(seen) > 1:
                seen_both.touch()
    assert (killer.returncode, seen) == (0, {Switch(), Switch(on=True, message=LONG_MESSAGE)})
    left_behind = {path.name for path in folder.iterdir()}
    assert {"switch", "switch.lock"} <= left_behind <= {"switch", "switch.lock", "switch.tmp"}
    anyio.run(set_maintenance_mode, True, reader)
    assert reader.peek() == ON
    assert {path.name for path in folder.iterdir()} == {"switch", "switch.lock"}


async def test_file_volume_is_unmounted_app_uses_the_last_state(tmp_path: Path) -> None:
    volume, elsewhere = tmp_path / "volume", tmp_path / "elsewhere"
    volume.mkdir()
    backend = LocalFileBackend(volume / "mode")
    await backend.set_value(True)
    app = app_on(backend)
    statuses = [await status(app)]
    volume.rename(elsewhere)
    statuses.append(await status(app))
    elsewhere.rename(volume)
    (volume / "mode").unlink()
    statuses.append(await status(app))
    assert statuses == [503, 503, 200]


def test_file_backend_repr_is_its_path(tmp_path: Path) -> None:
    assert repr(LocalFileBackend(tmp_path)) == f"LocalFileBackend({str(tmp_path)!r})"


async def test_file_write_of_the_longest_state_is_read_and_of_a_longer_one_raises(tmp_path: Path) -> None:
    backend = LocalFileBackend(tmp_path / "mode")
    longest = state_of_size(LIMIT - 1)
    await backend.update_state(lambda _: longest)
    with pytest.raises(ValueError, match=f"must take at most {LIMIT - 1} bytes"):
        await backend.update_state(lambda _: state_of_size(LIMIT))
    assert ((tmp_path / "mode").stat().st_size, backend.peek()) == (LIMIT, longest)
