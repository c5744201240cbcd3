"""`LocalFileBackend` when threads cannot be started, or the file system fails or never answers."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import itertools
import os
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import anyio
import pytest

from fastapi_maintenance import LocalFileBackend, MaintenanceState, cached, set_maintenance_mode
from fastapi_maintenance.backends import file as file_module
from fastapi_maintenance.backends.file_workers import FileWorkers
from tests.backends.helpers import WORKER, as_root, check_drain
from tests.middleware.test_failures import app_on, status
from tests.support import eventually
from tests.switch.lifespans import answers, living

pytestmark = pytest.mark.anyio


class Threads:
    """Threads of the library, of which some cannot be started."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        start = threading.Thread.start
        self.failing: set[int] = set()
        self.started = 0

        def start_or_fail(thread: threading.Thread) -> None:
            if thread.name == "fastapi_maintenance":
                number, self.started = self.started, self.started + 1
                if number in self.failing:
                    message = "can't start new thread"
                    raise RuntimeError(message)
            start(thread)

        monkeypatch.setattr(threading.Thread, "start", start_or_fail)

    def fail(self, *numbers: int) -> None:
        """Make threads fail, counted from now on, from 0."""
        self.failing, self.started = set(numbers), 0


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch, _patient: None) -> Threads:
    return Threads(monkeypatch)


def fail_once(monkeypatch: pytest.MonkeyPatch, method: str, ending: str) -> list[str]:
    """Make the next call of a method of `Path` fail for a file with this ending; return the paths that failed."""
    original: Any = getattr(Path, method)
    failed: list[str] = []

    def fail_or_do(path: Path, *arguments: Any, **keywords: Any) -> Any:  # noqa: ANN401 -- any method
        if not failed and path.name.endswith(ending):
            failed.append(str(path))
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        return original(path, *arguments, **keywords)

    monkeypatch.setattr(Path, method, fail_or_do)
    return failed


async def first_of_watch(backend: LocalFileBackend) -> MaintenanceState:
    async with aclosing(backend.watch()) as states:  # type: ignore[type-var]  # a generator
        return await anext(states)


Use = Callable[[LocalFileBackend], Awaitable[object]]
USES: dict[str, Use] = {
    "get_state": lambda backend: backend.get_state(),
    "set_value": lambda backend: backend.set_value(True),
    "watch": first_of_watch,
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
async def test_file_thread_does_not_start_raises_and_leaves_no_lock(tmp_path: Path, threads: Threads, use: Use) -> None:
    backend = LocalFileBackend(tmp_path / "switch")
    threads.fail(0, 1)
    with anyio.fail_after(30):
        for _ in range(2):
            with pytest.raises(RuntimeError, match="can't start new thread"):
                await use(backend)
        await use(backend)
        await backend.set_value(True)
        assert await backend.get_value() is True


@pytest.mark.parametrize("numbers", [[0, 1], [2], [3, 4]])
async def test_file_threads_do_not_start_app_is_drained(tmp_path: Path, threads: Threads, numbers: list[int]) -> None:
    backend = LocalFileBackend(tmp_path / "switch")
    app = app_on(backend)
    threads.fail(*numbers)
    async with living(app):
        await eventually(lambda: threads.started > max(numbers))
        await check_drain(app, backend)


@pytest.mark.parametrize("is_thread", [True, False])
async def test_file_record_cannot_be_removed_at_the_end_leaves_no_worker(
    tmp_path: Path, threads: Threads, monkeypatch: pytest.MonkeyPatch, is_thread: bool
) -> None:
    backend = LocalFileBackend(tmp_path / "switch")
    async with living(app_on(backend)):
        await backend.get_state()
        if is_thread:
            threads.fail(0)
        else:
            failed = fail_once(monkeypatch, "unlink", ".json")
    assert threads.started > 0 if is_thread else failed
    threads.fail()
    app = app_on(backend)
    async with living(app):
        await check_drain(app, backend)


@pytest.mark.parametrize(("method", "ending"), [("write_text", ".new"), ("replace", ".new"), ("read_text", ".json")])
async def test_file_record_cannot_be_written_once_is_written_by_the_next_sign(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, ending: str
) -> None:
    workers = FileWorkers(str(tmp_path / "switch"))
    fail_once(monkeypatch, method, ending)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        await workers.sign(WORKER, "idle")
    assert await workers.reports() == {}
    await workers.sign(WORKER, "idle")
    assert await workers.reports() == {WORKER: "idle"}


async def test_file_worker_leaves_during_a_cancelled_sign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workers, goes_on = FileWorkers(str(tmp_path / "switch")), threading.Event()
    write_text = Path.write_text

    def write_late(path: Path, *arguments: Any, **keywords: Any) -> int:  # noqa: ANN401 -- the signature of the method
        goes_on.wait()
        return write_text(path, *arguments, **keywords)

    monkeypatch.setattr(Path, "write_text", write_late)
    with anyio.move_on_after(0.1):
        await workers.sign(WORKER, "busy")
    async with anyio.create_task_group() as group:
        group.start_soon(workers.leave, WORKER)
        await anyio.wait_all_tasks_blocked()
        goes_on.set()
    for _ in range(2):
        await workers.sign(WORKER, "busy")  # too late
        assert await workers.reports() == {}
        await workers.leave(WORKER)


@contextlib.contextmanager
def silent_file_system(folder: Path) -> Iterator[None]:
    """Mount a file system that never answers, until the block ends."""
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        with open("/dev/fuse", "r+b", buffering=0) as device:  # noqa: PTH123 -- closing it ends the file system
            options = f"fd={device.fileno()},rootmode=40000,user_id=0,group_id=0".encode()
            if libc.mount(b"silent", bytes(folder), b"fuse", 0, options):
                pytest.skip(f"no file system can be mounted here: {os.strerror(ctypes.get_errno())}")
            yield
    finally:
        libc.umount2(bytes(folder), 2)  # MNT_DETACH


@as_root
@pytest.mark.skipif(not Path("/dev/fuse").exists(), reason="there is no /dev/fuse")
async def test_cached_file_on_a_silent_file_system_holds_no_request_beyond_the_read_timeout(tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    volume.mkdir()
    backend = cached(LocalFileBackend(volume / "mode"), ttl=0.05)
    app = app_on(backend, read_timeout=0.2)
    await set_maintenance_mode(True, backend)
    assert await status(app) == 503
    with silent_file_system(volume):
        for _ in range(5):
            with anyio.fail_after(30):
                assert await status(app) == 503
            await anyio.sleep(0.06)
        await eventually(lambda: [each.name for each in threading.enumerate()].count("fastapi_maintenance") <= 1)
    (volume / "mode").write_text("0")
    await answers(app, 200)


@pytest.mark.parametrize("operation", ["get_state", "set_value"])
async def test_file_system_hangs_raises_in_time(
    operation: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    goes_on, use = threading.Event(), USES[operation]
    backend = LocalFileBackend(tmp_path / "mode")

    def hang(*_: object, **__: object) -> None:
        goes_on.wait(60)
        raise OSError(errno.EIO, "gone")

    with monkeypatch.context() as patched:
        patched.setattr(file_module, "WRITE_TIMEOUT", 0.05)
        patched.setattr(file_module, "ANSWER_TIMEOUT", 0.05)
        patched.setattr(os, "stat", hang)
        for _ in range(2):  # the second one waits for the first, which still hangs
            with pytest.raises(TimeoutError, match="no answer within"):
                await use(backend)
        goes_on.set()
    await use(backend)
    assert await backend.get_value() is (operation == "set_value")


@pytest.mark.parametrize("hangs", [1, 2])
async def test_file_watch_raises_after_two_polls_hang(
    hangs: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One may be due to this process, if it was stopped or busy."""
    backend = LocalFileBackend(tmp_path / "mode")
    poll, polls = LocalFileBackend._poll, itertools.count(1)

    def poll_slowly(*arguments: Any) -> MaintenanceState:  # noqa: ANN401 -- those of the method
        number = next(polls)
        if number == hangs:  # the limit of this poll is set, and the next one has time
            monkeypatch.setattr(file_module, "WRITE_TIMEOUT", 60)
        if number <= hangs:
            time.sleep(1)
        return poll(*arguments)

    monkeypatch.setattr(LocalFileBackend, "_poll", poll_slowly)
    async with aclosing(backend.watch()) as states:  # type: ignore[type-var]  # a generator
        assert not (await anext(states)).switch.on
        monkeypatch.setattr(file_module, "WRITE_TIMEOUT", 0.6)
        with anyio.fail_after(30):
            if hangs > 1:
                with pytest.raises(TimeoutError, match="has not answered"):
                    await anext(states)
            else:
                (tmp_path / "mode").write_text("1")
                assert (await anext(states)).switch.on
