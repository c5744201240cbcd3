"""`LocalFileBackend` and its workers when threads, the file system or records fail or are lost."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import itertools
import os
import shutil
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
from fastapi_maintenance.backends import file_workers
from fastapi_maintenance.backends.file_workers import FileWorkers
from tests.backends.helpers import WORKER, as_root, check_drain, wait_for_workers
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
def file_system_hangs() -> Iterator[None]:
    """Let the file system not answer until the block ends."""
    goes_on = threading.Event()

    def hang(*_: object, **__: object) -> None:
        goes_on.wait(60)
        raise OSError(errno.EIO, "gone")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "stat", hang)
        yield
        goes_on.set()


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
    backend, use = LocalFileBackend(tmp_path / "mode"), USES[operation]
    with monkeypatch.context() as patched, file_system_hangs():
        patched.setattr(file_module, "WRITE_TIMEOUT", 0.05)
        patched.setattr(file_module, "ANSWER_TIMEOUT", 0.05)
        for _ in range(2):  # the second one waits for the first, which still hangs
            with pytest.raises(TimeoutError, match="no answer within"):
                await use(backend)
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


# Workers


def remove(folder: Path, pattern: str) -> None:
    """Remove files of a folder, or the folder."""
    if not pattern:
        shutil.rmtree(folder.rename(f"{folder}.old"))  # nobody can write into it any more
    for path in folder.glob(pattern or "*"):
        path.unlink()


each_loss = pytest.mark.parametrize("pattern", ["", "*", "*.json", "*.lock"], ids=["folder", "all", "record", "lock"])


@each_loss
async def test_file_worker_whose_record_is_lost_is_counted_and_signs_again(tmp_path: Path, pattern: str) -> None:
    path = str(tmp_path / "switch")
    worker, reader = FileWorkers(path), FileWorkers(path)
    await worker.sign(WORKER, "busy")
    assert await reader.reports() == {WORKER: "busy"}
    remove(tmp_path / "switch.workers", pattern)
    assert await reader.reports() == {WORKER: "busy"}
    assert await FileWorkers(path).reports() == ({WORKER: "busy"} if pattern == "*.lock" else {})
    for report in ("busy", "idle"):
        await worker.sign(WORKER, report)
        assert [await each.reports() for each in (reader, FileWorkers(path))] == [{WORKER: report}] * 2
    await worker.leave(WORKER)
    assert await reader.reports() == {}


async def test_app_on_a_link_to_a_file_that_is_changed_signs_beside_the_other_file(tmp_path: Path) -> None:
    link = tmp_path / "current"
    for name in ("1", "2"):
        (tmp_path / name).mkdir()
    link.symlink_to("1")
    async with living(app := app_on(LocalFileBackend(link / "switch"))):
        reader = LocalFileBackend(link / "switch")
        await wait_for_workers(reader, os.getpid())
        (tmp_path / "new").symlink_to("2")
        (tmp_path / "new").replace(link)
        assert len(await reader.workers.reports()) == 1
        await wait_for_workers(LocalFileBackend(tmp_path / "2" / "switch"), os.getpid())
        await wait_for_workers(LocalFileBackend(tmp_path / "1" / "switch"))
        await check_drain(app, LocalFileBackend(link / "switch"))
    assert list(tmp_path.glob("*/switch.workers/*.json")) == []


async def test_file_worker_whose_lock_is_free_is_removed_by_readers_and_writers(tmp_path: Path) -> None:
    folder = tmp_path / "switch.workers"
    for look in (
        lambda: FileWorkers(str(tmp_path / "switch")).reports(),
        lambda: FileWorkers(str(tmp_path / "switch")).sign("host.2.process-1", "idle"),
    ):
        folder.mkdir(exist_ok=True)
        (folder / f"{WORKER}.json").write_text("busy", encoding="utf-8")
        (folder / f"{WORKER}.lock").touch()
        os.utime(folder / f"{WORKER}.lock", (0, 0))
        await look()
        assert not (folder / f"{WORKER}.json").exists()
        assert (folder / f"{WORKER}.lock").stat().st_mtime > time.time() - 60  # kept, as it has just been found dead


async def test_file_lock_of_worker_that_left_is_removed_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, lock = str(tmp_path / "switch"), tmp_path / "switch.workers" / f"{WORKER}.lock"
    worker, reader = FileWorkers(path), FileWorkers(path)
    await worker.sign(WORKER, "busy")
    assert await reader.reports() == {WORKER: "busy"}
    await worker.leave(WORKER)
    for is_old in (False, True):
        if is_old:
            os.utime(lock, (0, 0))
        await worker.sign(f"host.1.process-{is_old}", "idle")
        assert lock.exists() is not is_old
    monkeypatch.setattr(file_workers, "_KEPT_FOR", 0.0)
    assert WORKER not in await reader.reports()


async def test_file_worker_without_the_folder_of_the_switch_raises_naming_it(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"The folder of the switch is missing: '.*missing'"):
        await FileWorkers(str(tmp_path / "missing" / "switch")).sign(WORKER, "busy")
