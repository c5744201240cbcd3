"""The file: locks of this process are free again after an error, and no worker is left that nobody runs."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any, cast

import anyio
import pytest

from fastapi_maintenance import LocalFileBackend, MaintenanceState
from fastapi_maintenance.backends.file_workers import FileWorkers
from tests.backends.workers import WORKER, is_drained
from tests.middleware.test_failures import app_on
from tests.switch.lifespans import living

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("_patient")]


class Threads:
    """Which threads of the library cannot be started, counted from now on."""

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
        """Let the threads of these numbers fail; the next one has the number 0."""
        self.failing, self.started = set(numbers), 0


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> Threads:
    return Threads(monkeypatch)


async def first_of_a_watch(backend: LocalFileBackend) -> MaintenanceState:
    async with aclosing(cast("Any", backend.watch())) as states:
        return cast("MaintenanceState", await anext(states))


Use = Callable[[LocalFileBackend], Awaitable[object]]
USES: dict[str, Use] = {
    "get_value": lambda backend: backend.get_value(),
    "get_state": lambda backend: backend.get_state(),
    "set_value": lambda backend: backend.set_value(True),
    "update_state": lambda backend: backend.update_state(lambda state: state),
    "watch": first_of_a_watch,
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
async def test_file_thread_cannot_be_started_once_raises_once(tmp_path: Path, threads: Threads, use: Use) -> None:
    backend = LocalFileBackend(tmp_path / "switch")
    threads.fail(0, 1)
    with anyio.fail_after(10):
        for _ in range(2):
            with pytest.raises(RuntimeError, match="can't start new thread"):
                await use(backend)
        await use(backend)
        await backend.set_value(True)
        assert await backend.get_value() is True


@pytest.mark.parametrize("number", range(5))
@pytest.mark.parametrize("many", [1, 2])
async def test_app_on_a_file_threads_cannot_be_started_for_a_moment_is_drained(
    tmp_path: Path, threads: Threads, number: int, many: int
) -> None:
    backend = LocalFileBackend(tmp_path / "switch")
    app = app_on(backend)
    threads.fail(*range(number, number + many))
    async with living(app):
        with anyio.fail_after(30):
            while threads.started <= max(threads.failing):  # noqa: ASYNC110 -- they are started by the watch
                await anyio.sleep(0.01)
        await is_drained(app, backend)


class Failing:
    """Let a method of `Path` fail the next times for the files with an ending."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch
        self.times = 0

    def fail(self, method: str, ending: str, times: int = 1) -> None:
        original: Any = getattr(Path, method)
        self.times = times

        def fail_or_do(path: Path, *arguments: Any, **keywords: Any) -> Any:  # noqa: ANN401 -- any method
            if self.times and path.name.endswith(ending):
                self.times -= 1
                raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
            return original(path, *arguments, **keywords)

        self._monkeypatch.setattr(Path, method, fail_or_do)


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Failing:
    return Failing(monkeypatch)


@pytest.mark.parametrize("is_thread", [True, False])
async def test_app_on_a_file_thread_or_removal_of_its_record_fails_at_its_end_leaves_no_worker(
    tmp_path: Path, threads: Threads, failing: Failing, is_thread: bool
) -> None:
    backend = LocalFileBackend(tmp_path / "switch")
    async with living(app_on(backend)):
        await backend.get_state()
        if is_thread:
            threads.fail(0)
        else:
            failing.fail("unlink", ".json")
    assert (threads.started > 0, failing.times) == (True, 0)
    threads.fail()
    app = app_on(backend)
    async with living(app):
        await is_drained(app, backend)


@pytest.mark.parametrize(("method", "ending"), [("write_text", ".new"), ("replace", ".new"), ("read_text", ".json")])
async def test_file_record_cannot_be_written_once_is_written_at_the_next_try(
    tmp_path: Path, failing: Failing, method: str, ending: str
) -> None:
    workers = FileWorkers(str(tmp_path / "switch"))
    failing.fail(method, ending)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        await workers.sign(WORKER, "idle")
    assert await workers.reports() == {}
    await workers.sign(WORKER, "idle")
    assert await workers.reports() == {WORKER: "idle"}


async def test_file_worker_that_leaves_while_its_record_is_written_leaves_after_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workers, goes_on = FileWorkers(str(tmp_path / "switch")), threading.Event()
    write_text = Path.write_text

    def write_late(path: Path, *arguments: Any, **keywords: Any) -> int:  # noqa: ANN401 -- as the method has it
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
