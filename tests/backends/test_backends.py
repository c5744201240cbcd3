"""The built-in backends, each by itself: what they read, what they write, and what they refuse."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import re
import stat
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import anyio
import pytest
from fastapi import FastAPI
from filelock import FileLock

from fastapi_maintenance import (
    BaseStateBackend,
    EnvVarBackend,
    Hold,
    InvalidStateError,
    LocalFileBackend,
    MaintenanceState,
    MemoryBackend,
    ReadOnlyBackendError,
    cached,
    maintenance_middleware,
    set_maintenance_mode,
)
from fastapi_maintenance.backends import file as file_module
from fastapi_maintenance.state import add_hold
from tests.stores import TextSwitch
from tests.strategies import state_of_size
from tests.support import ROOT, client, eventually

pytestmark = pytest.mark.anyio

ON, OFF = MaintenanceState(active=True), MaintenanceState()
LONG_AGO = datetime(2000, 1, 1, tzinfo=timezone.utc)
LIMIT = 65_536
only_posix = pytest.mark.skipif(sys.platform == "win32", reason="what POSIX has and Windows has not")


def messages_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "fastapi_maintenance"]


def adding(hold_id: str) -> Callable[[MaintenanceState], MaintenanceState]:
    """Return a change that is lost where two writers overwrite each other."""
    return lambda state: add_hold(state, Hold(id=hold_id, active=True), LONG_AGO)


# The environment


@pytest.mark.parametrize(
    ("value", "expected"),
    [("1", ON), (" On ", ON), ("TRUE", ON), ("y", ON), ("0", OFF), ("off", OFF), ("No", OFF), ("", OFF), ("  ", OFF)],
)
async def test_a_variable_says_on_or_off_in_words(
    value: str, expected: MaintenanceState, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLOSED", value)
    backend = EnvVarBackend("CLOSED")
    assert [expected, expected] == [backend.peek(), await backend.get_state()]
    assert expected.active is await backend.get_value()


def test_a_variable_that_is_not_set_is_off_and_one_set_later_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = EnvVarBackend()
    before = backend.peek()
    monkeypatch.setenv("FASTAPI_MAINTENANCE_MODE", "1")
    assert (OFF, ON) == (before, backend.peek())


def test_nobody_is_warned_about_a_variable_that_is_not_set(caplog: pytest.LogCaptureFixture) -> None:
    assert OFF == EnvVarBackend().peek()
    assert [] == messages_of(caplog)


def test_a_variable_that_is_no_boolean_is_off_and_warned_about_once_for_each_value(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    backend = EnvVarBackend("CLOSED")
    seen = []
    for value in ("maybe", "maybe", "2", "1", "maybe", "2"):
        monkeypatch.setenv("CLOSED", value)
        seen.append(backend.peek().active)
    assert [False, False, False, True, False, False] == seen
    first, second = messages_of(caplog)
    assert first.startswith("The environment variable CLOSED counts as off: value must be one of ")
    assert ("'maybe'" in first, "'2'" in second) == (True, True)


def test_two_backends_of_one_variable_are_equal() -> None:
    assert EnvVarBackend("A") == EnvVarBackend("A")
    assert hash(EnvVarBackend("A")) == hash(EnvVarBackend("A"))
    assert EnvVarBackend() == EnvVarBackend("FASTAPI_MAINTENANCE_MODE")
    assert EnvVarBackend("A") != EnvVarBackend("B")
    assert EnvVarBackend("A") != "A"
    assert "EnvVarBackend('A')" == repr(EnvVarBackend("A"))


@pytest.mark.parametrize("value", [True, False])
async def test_a_variable_cannot_be_written_and_the_error_says_what_to_do_instead(value: bool) -> None:
    backend = EnvVarBackend("CLOSED")
    with pytest.raises(ReadOnlyBackendError, match=r"CLOSED cannot be switched .* LocalFileBackend") as refused:
        await backend.set_value(value)
    assert "because no other process would see it: set it before the service starts, or use" in str(refused.value)
    with pytest.raises(ReadOnlyBackendError, match=r"maintenance_mode_on\(\)"):
        await backend.update_state(lambda state: state)
    assert "CLOSED" not in os.environ


@pytest.mark.parametrize("name", ["", "A=B", "A\0B"])
def test_what_cannot_name_a_variable_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"^var_name must be a name without '=' and null characters, got "):
        EnvVarBackend(name)


def test_a_variable_name_that_is_no_text_is_refused() -> None:
    with pytest.raises(TypeError, match=r"^var_name must be a str, got int 7"):
        EnvVarBackend(7)  # type: ignore[arg-type]  # what is refused


# Memory


@pytest.mark.parametrize(
    ("given", "expected"),
    [(True, ON), (False, OFF), (MaintenanceState(message="Soon"), MaintenanceState(message="Soon"))],
)
async def test_memory_begins_with_what_it_is_given(given: MaintenanceState | bool, expected: MaintenanceState) -> None:
    backend = MemoryBackend(given)
    assert [expected, expected] == [backend.peek(), await backend.get_state()]
    assert f"MemoryBackend(state={expected!r})" == repr(backend)


@pytest.mark.parametrize("given", [1, "on", None])
def test_memory_refuses_to_begin_with_what_is_no_state(given: Any) -> None:  # noqa: ANN401 -- what is refused
    with pytest.raises(
        TypeError, match=rf"^state must be a MaintenanceState, True or False, got {type(given).__name__} {given!r}$"
    ):
        MemoryBackend(given)


async def test_memory_says_on_only_within_the_window() -> None:
    now = datetime.now(timezone.utc)
    hour = timedelta(hours=1)
    windows = [(now - hour, now + hour), (now + hour, None), (None, now - hour)]
    backends = [MemoryBackend(MaintenanceState(active=True, starts_at=start, ends_at=end)) for start, end in windows]
    assert [True, False, False] == [await backend.get_value() for backend in backends]


async def test_memory_returns_the_state_after_a_change_and_keeps_it() -> None:
    backend = MemoryBackend()
    changed = await backend.update_state(adding("a"))
    assert ["a"] == [hold.id for hold in changed.holds]
    assert changed == backend.peek()


# The base class


async def test_the_base_class_converts_between_words_and_booleans() -> None:
    backend = TextSwitch({})
    seen = [await backend.get_value()]
    await backend.set_value(True)
    seen.append(await backend.get_value())
    assert ([False, True], {"mode": "1"}) == (seen, backend.store)
    await backend.set_value(False)
    assert {"mode": "0"} == backend.store
    assert backend._str_to_bool(" Yes ")
    with pytest.raises(ValueError, match="'perhaps'"):
        backend._str_to_bool("perhaps")


def test_the_base_class_cannot_be_made_without_its_two_methods() -> None:
    with pytest.raises(TypeError, match="abstract"):
        BaseStateBackend()  # type: ignore[abstract]  # what is refused


# What all that are written have in common


@pytest.fixture(params=["memory", "file"])
def writable(request: pytest.FixtureRequest, tmp_path: Path) -> MemoryBackend | LocalFileBackend:
    return MemoryBackend() if request.param == "memory" else LocalFileBackend(tmp_path / "mode")


async def test_setting_the_switch_takes_message_and_window_away_and_leaves_the_holds(
    writable: MemoryBackend | LocalFileBackend,
) -> None:
    hold = Hold(id="a", active=False)
    await writable.update_state(
        lambda _: MaintenanceState(active=True, message="Soon", starts_at=LONG_AGO, holds=(hold,))
    )
    await writable.set_value(True)
    assert MaintenanceState(active=True, holds=(hold,)) == await writable.get_state()
    assert not await writable.get_value()


@pytest.mark.parametrize("value", [1, "on", None])
async def test_a_switch_is_set_to_nothing_but_true_and_false(
    value: Any,  # noqa: ANN401 -- what is refused
    writable: MemoryBackend | LocalFileBackend,
) -> None:
    with pytest.raises(TypeError, match=r"^value must be True or False, got "):
        await writable.set_value(value)
    assert OFF == writable.peek()


async def test_a_change_that_raises_changes_nothing(writable: MemoryBackend | LocalFileBackend) -> None:
    await writable.set_value(True)

    def fail(_state: MaintenanceState) -> MaintenanceState:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await writable.update_state(fail)
    assert ON == writable.peek()
    await writable.set_value(False)  # nothing stays locked
    assert OFF == writable.peek()


def test_no_change_by_one_of_many_threads_is_lost(writable: MemoryBackend | LocalFileBackend) -> None:
    threads, times = 6, 10

    async def add(number: int) -> None:
        for time_ in range(times):
            await writable.update_state(adding(f"{number}-{time_}"))

    started = [
        threading.Thread(target=lambda n=number: anyio.run(add, n, backend=("asyncio", "trio")[n % 2]))
        for number in range(threads)
    ]
    for thread in started:
        thread.start()
    for thread in started:
        thread.join(30)
    expected = {f"{number}-{time_}" for number in range(threads) for time_ in range(times)}
    assert expected == {hold.id for hold in writable.peek().holds}


def test_a_change_waits_for_the_one_that_another_thread_is_making(writable: MemoryBackend | LocalFileBackend) -> None:
    begun, overtaken = threading.Event(), threading.Event()

    def slowly(state: MaintenanceState) -> MaintenanceState:
        begun.set()
        overtaken.wait(0.1)  # in vain, as long as changes take turns
        return adding("first")(state)

    first = threading.Thread(target=anyio.run, args=(writable.update_state, slowly))
    first.start()
    assert begun.wait(10)
    anyio.run(writable.update_state, adding("second"))
    overtaken.set()
    first.join(10)
    assert ["first", "second"] == [hold.id for hold in writable.peek().holds]


def test_no_change_by_one_of_several_processes_is_lost(tmp_path: Path) -> None:
    program = """
        import sys
        from datetime import datetime, timezone
        import anyio
        from fastapi_maintenance import Hold, LocalFileBackend
        from fastapi_maintenance.state import add_hold

        async def add():
            backend, now = LocalFileBackend(sys.argv[1]), datetime.now(timezone.utc)
            for number in range(12):
                hold = Hold(id=f"{sys.argv[2]}-{number}", active=True)
                await backend.update_state(lambda state: add_hold(state, hold, now))

        print("ready", flush=True)
        sys.stdin.read()  # until all are ready
        anyio.run(add)
    """
    path = tmp_path / "mode"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(program), path, str(number)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for number in range(3)
    ]
    for process in processes:
        assert process.stdout is not None
        process.stdout.readline()
    for process in processes:
        assert process.stdin is not None
        process.stdin.close()
    for process in processes:
        with process:
            assert 0 == process.wait(30)
    expected = {f"{process}-{number}" for process in range(3) for number in range(12)}
    assert expected == {hold.id for hold in LocalFileBackend(path).peek().holds}


# What is read from a file


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", OFF),
        (b"1", ON),
        (b"on\r\n", ON),
        (b"0\n", OFF),
        (b"\xef\xbb\xbf1\n", ON),
        (b'{"active": true}', ON),
        (b'\xef\xbb\xbf{"active": true, "message": "B\xc3\xa4h"}', MaintenanceState(active=True, message="Bäh")),
        (b"1" + b" " * (LIMIT - 1), ON),
    ],
)
async def test_a_file_is_read_as_people_and_programs_write_it(
    content: bytes, expected: MaintenanceState, tmp_path: Path
) -> None:
    (tmp_path / "mode").write_bytes(content)
    backend = LocalFileBackend(tmp_path / "mode")
    assert [expected, expected] == [backend.peek(), await backend.get_state()]
    assert expected.active is await backend.get_value()


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


GARBAGE = {
    "no word": b"perhaps",
    "truncated JSON": b'{"active": tr',
    "JSON of something else": b'{"actively": true}',
    "not UTF-8": b"\xff1\x00",
    "null characters": b"\0" * 20,
    "too big": b"1" + b" " * LIMIT,
}
any_garbage = pytest.mark.parametrize("content", GARBAGE.values(), ids=GARBAGE)


@any_garbage
def test_garbage_in_a_file_is_an_error(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "mode").write_bytes(content)
    with pytest.raises(InvalidStateError) as caught:
        LocalFileBackend(tmp_path / "mode").peek()
    assert len(str(caught.value)) < 2_000
    assert f"{tmp_path}/mode must be at most {LIMIT} bytes long" == str(caught.value) or len(content) <= LIMIT


def test_what_is_not_utf_8_is_shown_by_its_first_bytes(tmp_path: Path) -> None:
    (tmp_path / "mode").write_bytes(b"\xff" * 300)
    with pytest.raises(InvalidStateError) as caught:
        LocalFileBackend(tmp_path / "mode").peek()
    assert str(caught.value).startswith(f"text must be UTF-8, got {bytes([255]) * 200!r}: 'utf-8' codec can't decode")


@any_garbage
async def test_garbage_in_a_file_is_replaced_with_a_warning_when_the_switch_is_set(
    content: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "mode"
    path.write_bytes(content)
    backend = LocalFileBackend(path)
    with pytest.raises(InvalidStateError) as error:
        backend.peek()
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
    thread.join(10)
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


# When a change is seen


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
        seen.append(backend.peek().active)
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
        seen.append(backend.peek().active)
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


def let_it_settle(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Let the backend believe that so much time has passed since the last change."""
    later = int(seconds * 1e9)
    monkeypatch.setattr(file_module, "time", SimpleNamespace(time_ns=lambda: time.time_ns() + later))


def test_a_file_that_has_settled_is_not_read_again_until_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opened: list[str]
) -> None:
    path = tmp_path / "mode"
    path.write_text("1")
    backend = LocalFileBackend(path)
    let_it_settle(monkeypatch, 10)
    assert [True] * 5 == [backend.peek().active for _ in range(5)]
    assert [str(path)] == opened
    path.write_text("off")
    assert [False] * 5 == [backend.peek().active for _ in range(5)]
    assert [str(path)] * 2 == opened


@pytest.mark.parametrize("seconds", [-3600, 0, 2])
def test_a_file_that_changed_a_moment_ago_or_in_the_future_is_read_each_time(
    seconds: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opened: list[str]
) -> None:
    (tmp_path / "mode").write_text("1")
    backend = LocalFileBackend(tmp_path / "mode")
    let_it_settle(monkeypatch, seconds)
    assert [True] * 3 == [backend.peek().active for _ in range(3)]
    assert 3 == len(opened)


def test_an_old_time_that_was_set_by_hand_does_not_make_a_new_file_a_settled_one(
    tmp_path: Path, opened: list[str]
) -> None:
    rewrite_at_the_same_time(tmp_path / "mode", "1")
    backend = LocalFileBackend(tmp_path / "mode")
    assert [True] * 3 == [backend.peek().active for _ in range(3)]
    assert 3 == len(opened)


# How a file is written


async def test_a_plain_switch_is_written_as_a_person_would_and_more_as_one_json_object(tmp_path: Path) -> None:
    path = tmp_path / "mode"
    backend = LocalFileBackend(path)
    written = []
    await backend.set_value(True)
    written.append(path.read_text())
    await backend.set_value(False)
    written.append(path.read_text())
    await backend.update_state(lambda _: MaintenanceState(active=True, message="Zurück"))
    assert ["1\n", "0\n"] == written
    assert {"active": True, "message": "Zurück"} == json.loads(path.read_text())


async def test_a_write_leaves_the_file_and_its_lock_and_nothing_else(tmp_path: Path) -> None:
    await LocalFileBackend(tmp_path / "mode").set_value(True)
    assert {"mode", "mode.lock"} == {entry.name for entry in tmp_path.iterdir()}


async def test_what_a_dead_writer_left_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "mode.tmp").write_text('{"acti')
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


async def test_a_write_for_which_the_disk_has_no_room_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = LocalFileBackend(tmp_path / "mode")
    await backend.set_value(True)

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
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


async def test_a_write_that_cannot_even_begin_is_told_with_its_own_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_args: object, **_settings: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    backend = LocalFileBackend(tmp_path / "mode")
    await backend.set_value(True)
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", full)
        with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
            await backend.set_value(False)
    assert ON == backend.peek()


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
    monkeypatch.setattr(file_module, "WRITE_TIMEOUT", 0.05)
    backend = LocalFileBackend(tmp_path / "mode")
    with FileLock(tmp_path / "mode.lock"):
        with pytest.raises(TimeoutError):
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


# Owners

as_root = pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can give files away")
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
    print(LocalFileBackend(path).peek().active, end="")
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
@pytest.mark.parametrize("mode", [0o600, 0o640])
def test_a_switch_that_root_sets_still_belongs_to_the_service(mode: int, shared_folder: Path) -> None:
    path = shared_folder / "mode"
    assert "True" == run_as(SERVICE, path, True)
    path.chmod(mode)
    assert "False" == run_as(0, path, False)
    status = path.stat()
    assert (SERVICE, SERVICE, mode) == (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode))
    assert "True" == run_as(SERVICE, path, True), "and so does its lock"


@as_root
def test_a_switch_that_root_makes_belongs_to_the_owner_of_the_folder(shared_folder: Path) -> None:
    path = shared_folder / "mode"
    assert "True" == run_as(0, path, True)
    assert (SERVICE, SERVICE) == (path.stat().st_uid, path.stat().st_gid)
    assert "False" == run_as(SERVICE, path, False)


@as_root
def test_a_lock_that_root_took_first_is_the_services_too(shared_folder: Path) -> None:
    path = shared_folder / "mode"
    path.write_text("0")
    os.chown(path, SERVICE, SERVICE)
    path.chmod(0o400)
    assert "True" == run_as(0, path, True)
    assert "False" == run_as(SERVICE, path, False)


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


# A file system that never answers


@contextlib.contextmanager
def silent_file_system(folder: Path) -> Iterator[None]:
    """Mount a file system that never answers, and end it; whoever waits for it is then told that it is gone."""
    libc = ctypes.CDLL(None, use_errno=True)
    device = os.open("/dev/fuse", os.O_RDWR)
    try:
        options = f"fd={device},rootmode=40000,user_id=0,group_id=0".encode()
        if libc.mount(b"silent", bytes(folder), b"fuse", 0, options):
            pytest.skip(f"no file system can be mounted here: {os.strerror(ctypes.get_errno())}")
        try:
            yield
        finally:
            os.close(device)  # which ends it
            device = -1
            libc.umount2(bytes(folder), 2)  # MNT_DETACH
    finally:
        if device >= 0:
            os.close(device)


@as_root
@pytest.mark.skipif(not Path("/dev/fuse").exists(), reason="there is no /dev/fuse to make a file system with")
async def test_a_file_system_that_never_answers_holds_no_request_beyond_the_read_timeout(tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    volume.mkdir()
    backend = cached(LocalFileBackend(volume / "mode"), ttl=0.05)
    app = FastAPI()
    app.add_api_route("/", lambda: "open")  # in a thread of the pool, of which none may be missing
    app.add_middleware(maintenance_middleware(backend=backend, read_timeout=0.2))
    await set_maintenance_mode(True, backend)
    async with client(app) as http:
        assert 503 == (await http.get("/")).status_code
        with silent_file_system(volume):
            before = threading.active_count()
            for _ in range(5):
                with anyio.fail_after(5):
                    assert 503 == (await http.get("/")).status_code
                await anyio.sleep(0.06)
            assert 1 >= threading.active_count() - before, "one read at a time hangs"
        (volume / "mode").write_text("0")

        async def is_open() -> bool:
            return (await http.get("/")).status_code == 200

        await eventually(is_open)


@pytest.mark.parametrize("operation", ["get_state", "set_value"])
async def test_a_file_system_that_hangs_is_given_up_in_time_and_asked_again_later(
    operation: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = threading.Event()
    backend = LocalFileBackend(tmp_path / "mode")
    arguments = [True] if operation == "set_value" else []

    def hang(*_: object, **_settings: object) -> Any:  # noqa: ANN401 -- never returned before it goes on
        answers.wait(30)
        raise OSError(errno.EIO, "gone")

    with monkeypatch.context() as patched:
        patched.setattr(file_module, "WRITE_TIMEOUT", 0.05)
        patched.setattr(file_module, "ANSWER_TIMEOUT", 0.05)
        patched.setattr(os, "stat", hang)
        for _ in range(2):  # the second waits for the first, which still hangs
            with pytest.raises(TimeoutError, match="no answer within"):
                await getattr(backend, operation)(*arguments)
        answers.set()
    await getattr(backend, operation)(*arguments)
    assert (operation == "set_value") is await backend.get_value()


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


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_a_file_in_utf_16_with_its_mark_is_read(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "switch"
    path.write_bytes("\ufeff1\r\n".encode(encoding))  # `echo 1 > switch` in PowerShell 5
    assert LocalFileBackend(path).peek().active
