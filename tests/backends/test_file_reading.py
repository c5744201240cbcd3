"""`LocalFileBackend`: what is read, what is refused, and when a change is seen."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fastapi_maintenance import InvalidStateError, LocalFileBackend, MaintenanceState, Switch
from fastapi_maintenance.backends import file as file_module
from tests.backends.helpers import LIMIT, OFF, ON, messages_of, only_posix
from tests.middleware.test_failures import app_on, status

pytestmark = pytest.mark.anyio
MESSAGE = MaintenanceState(switch=Switch(on=True, message="Bäh"))


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
    assert messages_of(caplog) == [f"{path} is replaced, as if it had been off: {error}"]
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


def replace(path: Path, content: str) -> None:
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
    [*((change, file_module._signature) for change in (rewrite, replace, rewrite_with_an_old_time)), (rewrite, coarse)],
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
