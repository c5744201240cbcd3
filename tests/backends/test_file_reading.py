"""The file: what is read from it, what is refused, and when a change is seen."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import FastAPI

from fastapi_maintenance import InvalidStateError, LocalFileBackend, MaintenanceState, Switch, maintenance_middleware
from fastapi_maintenance.backends import file as file_module
from tests.backends.helpers import LIMIT, messages_of, only_posix
from tests.support import ROOT, client

pytestmark = pytest.mark.anyio
ON, OFF = MaintenanceState(switch=Switch(on=True)), MaintenanceState()
GARBAGE = {
    "no word": b"perhaps",
    "truncated JSON": b'{"switch": tr',
    "JSON of something else": b'{"active": true}',
    "not UTF-8": b"\xff1\x00",
    "null characters": b"\0" * 20,
    "too big": b"1" + b" " * LIMIT,
}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", OFF),
        (b"1", ON),
        (b"on\r\n", ON),
        (b"0\n", OFF),
        (b"\xef\xbb\xbf1\n", ON),
        *(("\ufeff1\r\n".encode(encoding), ON) for encoding in ("utf-16-le", "utf-16-be")),  # of PowerShell 5
        (b'{"switch": {"on": true}}', ON),
        (
            b'\xef\xbb\xbf{"switch": {"on": true, "message": "B\xc3\xa4h"}}',
            MaintenanceState(switch=Switch(on=True, message="Bäh")),
        ),
        (b"1" + b" " * (LIMIT - 1), ON),
    ],
)
async def test_a_file_is_read_as_people_and_programs_write_it(
    content: bytes, expected: MaintenanceState, tmp_path: Path
) -> None:
    (tmp_path / "mode").write_bytes(content)
    backend = LocalFileBackend(tmp_path / "mode")
    assert [expected, expected] == [backend.peek(), await backend.get_state()]
    assert expected.switch.on is await backend.get_value()


async def test_a_file_that_is_not_there_is_off_and_reading_does_not_create_it(tmp_path: Path) -> None:
    backend = LocalFileBackend(tmp_path / "mode")
    assert (OFF, OFF, False) == (backend.peek(), await backend.get_state(), await backend.get_value())
    assert [] == list(tmp_path.iterdir())


@pytest.mark.parametrize("is_link", [False, True])
async def test_a_missing_folder_is_an_outage_and_not_off(is_link: bool, tmp_path: Path) -> None:
    """As of a volume that is not mounted; also where the file is a link into it."""
    path = tmp_path / "link" if is_link else tmp_path / "volume" / "mode"
    if is_link:
        path.symlink_to(tmp_path / "volume" / "mode")
    backend = LocalFileBackend(path)
    with pytest.raises(FileNotFoundError, match="The folder of the switch is missing"):
        backend.peek()
    with pytest.raises(FileNotFoundError, match="The folder of the switch is missing"):
        await backend.get_state()
    (tmp_path / "volume").mkdir()
    assert OFF == backend.peek()


async def test_while_the_volume_is_not_mounted_the_last_known_state_counts(tmp_path: Path) -> None:
    volume, elsewhere = tmp_path / "volume", tmp_path / "elsewhere"
    volume.mkdir()
    backend = LocalFileBackend(volume / "mode")
    await backend.set_value(True)
    app = FastAPI()
    app.add_api_route("/", lambda: "open")
    app.add_middleware(maintenance_middleware(backend=backend))
    async with client(app) as http:
        statuses = [(await http.get("/")).status_code]
        volume.rename(elsewhere)
        statuses.append((await http.get("/")).status_code)
        elsewhere.rename(volume)
        (volume / "mode").unlink()
        statuses.append((await http.get("/")).status_code)
    assert [503, 503, 200] == statuses


async def test_a_file_that_is_taken_away_is_off_again(tmp_path: Path) -> None:
    backend = LocalFileBackend(tmp_path / "mode")
    await backend.set_value(True)
    before = backend.peek()
    (tmp_path / "mode").unlink()
    assert (ON, OFF) == (before, backend.peek())


def test_a_file_that_is_taken_away_while_it_is_read_is_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mode").write_text("1")
    backend = LocalFileBackend(tmp_path / "mode")

    def vanish(*_args: object) -> None:
        raise FileNotFoundError

    monkeypatch.setattr(file_module, "open", vanish, raising=False)
    assert OFF == backend.peek()


def test_what_is_not_utf_8_is_shown_by_its_first_bytes(tmp_path: Path) -> None:
    (tmp_path / "mode").write_bytes(b"\xff" * 300)
    with pytest.raises(InvalidStateError) as caught:
        LocalFileBackend(tmp_path / "mode").peek()
    assert str(caught.value).startswith(f"text must be UTF-8, got {bytes([255]) * 200!r}: 'utf-8' codec can't decode")


@pytest.mark.parametrize("content", GARBAGE.values(), ids=GARBAGE)
async def test_garbage_in_a_file_is_an_error_and_replaced_with_a_warning_when_the_switch_is_set(
    content: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "mode"
    path.write_bytes(content)
    backend = LocalFileBackend(path)
    with pytest.raises(InvalidStateError) as error:
        backend.peek()
    assert len(str(error.value)) < 2_000
    assert f"{path} must be at most {LIMIT} bytes long" == str(error.value) or len(content) <= LIMIT
    with pytest.raises(InvalidStateError) as of_change:
        await backend.update_state(lambda state: state)
    assert (content, str(error.value), []) == (path.read_bytes(), str(of_change.value), messages_of(caplog))
    await backend.set_value(True)
    (message,) = messages_of(caplog)
    assert f"{path} is replaced, as if it had been off: {error.value}" == message
    assert ("1\n", ON) == (path.read_text(), backend.peek())


async def test_a_folder_in_place_of_the_file_is_an_error_and_stays(tmp_path: Path) -> None:
    path = tmp_path / "mode"
    (path / "inside").mkdir(parents=True)
    backend = LocalFileBackend(path)
    with pytest.raises(InvalidStateError, match="must be a regular file"):
        backend.peek()
    with pytest.raises(OSError, match="mode"):
        await backend.set_value(True)
    assert {path / "inside"} == set(path.iterdir())
    assert {"mode", "mode.lock"} == {entry.name for entry in tmp_path.iterdir()}


@only_posix
def test_a_pipe_in_place_of_the_file_is_an_error_and_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "mode")
    errors: list[Exception] = []

    def peek() -> None:
        try:
            LocalFileBackend(tmp_path / "mode").peek()
        except InvalidStateError as error:
            errors.append(error)

    thread = threading.Thread(target=peek, daemon=True)  # which does not keep the tests from ending if it waits
    thread.start()
    thread.join(30)
    (error,) = errors
    assert "must be a regular file" in str(error)


@only_posix
def test_what_the_process_has_no_permission_for_is_an_error_that_reaches_the_caller_and_changes_nothing() -> None:
    program = """
        import os, sys, anyio
        from fastapi_maintenance import LocalFileBackend

        rehearsal, unreadable, in_closed_folder = map(LocalFileBackend, sys.argv[1:])

        async def attempt(method, *args):
            try:
                await method(*args)
            except Exception as error:
                print(type(error).__name__)
            else:
                print("no error")

        async def main():
            await rehearsal.set_value(True)  # imports all that is needed, while it may be read
            if os.getuid() == 0:
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
            for backend in (unreadable, in_closed_folder):
                await attempt(backend.get_state)
                await attempt(backend.set_value, False)

        anyio.run(main)
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o777)  # so that only the file itself is in the way
        unreadable, closed = folder / "mode", folder / "closed"
        unreadable.write_text("1")
        unreadable.chmod(0)
        closed.mkdir()
        (closed / "mode").write_text("1")
        (closed / "mode.lock").touch()
        (closed / "mode.lock").chmod(0o666)
        closed.chmod(0o555)
        command: list[str | Path] = [
            sys.executable,
            "-c",
            textwrap.dedent(program),
            folder / "first",
            unreadable,
            closed / "mode",
        ]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
        closed.chmod(0o755)
        unreadable.chmod(0o600)
        assert ("1", "1") == (unreadable.read_text(), (closed / "mode").read_text())
        assert {"mode", "mode.lock"} == {entry.name for entry in closed.iterdir()}
    assert ["PermissionError", "PermissionError", "no error", "PermissionError"] == done.stdout.splitlines()


def rewrite(path: Path, content: str) -> None:
    path.write_text(content)


def replace(path: Path, content: str) -> None:
    other = path.with_name("other")
    other.write_text(content)
    other.replace(path)


def rewrite_at_the_same_time(path: Path, content: str) -> None:
    path.write_text(content)
    os.utime(path, ns=(10**18, 10**18))


@pytest.mark.parametrize("change", [rewrite, replace, rewrite_at_the_same_time])
def test_each_change_is_seen_by_the_very_next_look(change: Callable[[Path, str], None], tmp_path: Path) -> None:
    backend = LocalFileBackend(tmp_path / "mode")
    seen = []
    for content in "1010" * 10:
        change(tmp_path / "mode", content)
        seen.append(backend.peek().switch.on)
    assert [True, False, True, False] * 10 == seen


def test_changes_of_the_same_size_within_one_tick_of_a_coarse_clock_are_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tick = 2_000_000_000  # nanoseconds: that of FAT

    def coarse(status: os.stat_result) -> tuple[int, int, int, int, int]:
        return (status.st_mtime_ns // tick * tick, 0, status.st_size, status.st_ino, status.st_dev)

    monkeypatch.setattr(file_module, "_signature", coarse)
    backend = LocalFileBackend(tmp_path / "mode")
    seen = []
    for content in "1010" * 5:
        rewrite(tmp_path / "mode", content)
        seen.append(backend.peek().switch.on)
    assert [True, False, True, False] * 5 == seen


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """List the files that the backend opens to read them."""
    names: list[str] = []

    def noting(name: str, mode: str) -> Any:  # noqa: ANN401 -- as open has it
        names.append(name)
        return open(name, mode)  # noqa: PTH123 -- as the backend does

    monkeypatch.setattr(file_module, "open", noting, raising=False)
    return names


def let_it_settle(monkeypatch: pytest.MonkeyPatch, path: Path, seconds: float) -> None:
    """Let the backend believe that so much time has passed since the last change."""

    def later() -> int:
        return path.stat().st_ctime_ns + int(seconds * 1e9)

    monkeypatch.setattr(file_module, "time", SimpleNamespace(time_ns=later))


def test_a_file_that_has_settled_is_not_read_again_until_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opened: list[str]
) -> None:
    path = tmp_path / "mode"
    path.write_text("1")
    backend = LocalFileBackend(path)
    let_it_settle(monkeypatch, path, 10)
    assert [True] * 5 == [backend.peek().switch.on for _ in range(5)]
    assert [str(path)] == opened
    path.write_text("off")
    assert [False] * 5 == [backend.peek().switch.on for _ in range(5)]
    assert [str(path)] * 2 == opened


@pytest.mark.parametrize(
    ("write", "seconds"), [(rewrite, -3600), (rewrite, 0), (rewrite, 2), (rewrite_at_the_same_time, 0)]
)
def test_a_file_that_changed_a_moment_ago_or_in_the_future_is_read_each_time(
    write: Callable[[Path, str], None],
    seconds: float,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    opened: list[str],
) -> None:
    """Also where its time was set by hand to an old one."""
    write(tmp_path / "mode", "1")
    backend = LocalFileBackend(tmp_path / "mode")
    let_it_settle(monkeypatch, tmp_path / "mode", seconds)
    assert [True] * 3 == [backend.peek().switch.on for _ in range(3)]
    assert 3 == len(opened)


async def test_a_relative_path_is_one_from_the_folder_in_which_it_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    backend = LocalFileBackend("switch")
    other = tmp_path / "other"
    other.mkdir()
    monkeypatch.chdir(other)
    await backend.set_value(value=True)
    assert (tmp_path / "switch").read_text() == "1\n"
