"""Background work: its errors are logged once and tried again; and module-level state, which tests and forks reset."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from weakref import WeakValueDictionary

import anyio
import pytest
from anyio.lowlevel import checkpoint

from fastapi_maintenance import LocalFileBackend, MemoryBackend
from fastapi_maintenance._helpers import background, process
from fastapi_maintenance._helpers.process import alive, remembered, reset
from fastapi_maintenance._helpers.waiting import current_loop
from tests.support import OddError, eventually

pytestmark = pytest.mark.anyio
only_asyncio = pytest.mark.parametrize("anyio_backend", ["asyncio"])


@pytest.mark.parametrize(
    "failure",
    [
        ValueError("wrong"),
        SystemExit(3),
        OddError(),
        ExceptionGroup("several", [ValueError("wrong")]),
        BaseExceptionGroup("several", [OddError()]),
        asyncio.CancelledError(),
    ],
    ids=repr,
)
async def test_start_work_that_raises_is_logged_once_and_tried_again(
    failure: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    tries = 0

    async def work() -> None:
        nonlocal tries
        tries += 1
        await checkpoint()
        if tries < 3:
            raise failure

    task = background.start(work)
    await background.all_ended([task])
    assert (tries, task.has_ended) == (3, True)
    (record,) = caplog.records
    assert (record.levelno, record.exc_info is not None) == (logging.ERROR, True)


async def sleep_and_raise_a_group() -> None:
    try:
        await anyio.sleep_forever()
    except anyio.get_cancelled_exc_class() as error:
        errors, msg = [error, ValueError()], "as a task group raises it"
        raise BaseExceptionGroup(msg, errors) from None


@pytest.mark.parametrize("work", [anyio.sleep_forever, sleep_and_raise_a_group])
@pytest.mark.parametrize("in_thread", [True, False])
async def test_stop_ends_the_task(work: background._Work, in_thread: bool) -> None:
    task = background.start(work)
    await anyio.wait_all_tasks_blocked()
    if in_thread:
        await anyio.to_thread.run_sync(task.stop)
    else:
        task.stop()
    await background.all_ended([task])
    assert task.has_ended


async def test_stop_while_a_failure_is_handled_ends_the_task() -> None:
    is_handled = anyio.Event()

    async def fail() -> None:
        await checkpoint()
        raise OddError

    async def handle(_error: BaseException) -> None:
        is_handled.set()
        await anyio.sleep_forever()

    task = background.start(fail, on_error=handle)
    with anyio.fail_after(30):
        await is_handled.wait()
        task.stop()
        await task.ended()
    assert task.has_ended


async def sleep_and_raise_an_error() -> None:
    try:
        await anyio.sleep_forever()
    except BaseException:  # noqa: BLE001 -- as users write it
        msg = "it was disturbed"
        raise ConnectionError(msg) from None


async def test_stop_that_work_turns_into_an_error_ends_the_task(caplog: pytest.LogCaptureFixture) -> None:
    async def handle(error: BaseException) -> None:
        raise error

    task = background.start(sleep_and_raise_an_error, on_error=handle)
    await anyio.wait_all_tasks_blocked()
    task.stop()
    await background.all_ended([task])
    assert (task.has_ended, task.failures, caplog.records) == (True, 0, [])


@only_asyncio
async def test_cancellation_that_work_turns_into_an_error_ends_the_task(caplog: pytest.LogCaptureFixture) -> None:
    task = background.start(sleep_and_raise_an_error)
    await anyio.wait_all_tasks_blocked()
    (running,) = background._tasks
    running.cancel()
    await background.all_ended([task])
    assert (task.has_ended, caplog.records) == (True, [])


def test_stop_after_the_event_loop_was_closed_does_nothing() -> None:
    async def begin() -> background.Task:
        return background.start(anyio.sleep_forever)

    task = asyncio.run(begin())
    task.stop()
    assert task.has_ended


async def test_ended_in_another_event_loop_returns_at_once() -> None:
    task = background.start(anyio.sleep_forever)
    await anyio.to_thread.run_sync(anyio.run, task.ended)
    task.stop()


@only_asyncio
async def test_start_keeps_a_task_that_nothing_else_refers_to() -> None:
    has_run = anyio.Event()

    async def work() -> None:
        await checkpoint()
        gc.collect()
        has_run.set()

    background.start(work)
    await eventually(has_run.is_set)


def test_current_loop_while_another_thread_imports_trio_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "trio.lowlevel", ModuleType("trio.lowlevel"))
    assert current_loop() is None


def test_reset_restores_what_was_registered() -> None:
    numbers, names, ids = remembered([1]), remembered({"a": 1}), remembered({1})
    numbers.append(2)
    names["b"] = 2
    ids.clear()
    reset()
    assert (numbers, names, ids) == ([1], {"a": 1}, {1})


def test_alive_while_another_thread_adds_and_removes_values_returns_those_that_are_alive() -> None:
    kept, has_ended = OddError(), threading.Event()
    values: WeakValueDictionary[int, OddError] = WeakValueDictionary({0: kept})

    def add_and_remove() -> None:
        while not has_ended.is_set():
            added = [OddError() for _ in range(100)]
            values.update(enumerate(added, 1))
            added.clear()

    thread = threading.Thread(target=add_and_remove)
    thread.start()
    try:
        assert [alive(values)[0] for _ in range(10_000)] == [(0, kept)] * 10_000
    finally:
        has_ended.set()
        thread.join()


def test_forked_child_closes_the_sockets_of_its_parent_and_is_another_process(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(process, "_identity", process._identity.copy())
    before, (here, peer) = process.identity(), socket.socketpair()
    with here, peer, (tmp_path / "file").open("w") as file:
        here.setblocking(False)
        filenos = [here.fileno, file.fileno, lambda: -1]  # as connections keep theirs
        for fileno in filenos:
            process.let_go_in_children(fileno)
        is_free = os.dup(file.fileno())
        os.close(is_free)
        process._begin_as_child()  # as the fork does in the child
        assert peer.recv(1) == b""
        assert not os.get_inheritable(here.fileno())
        assert os.dup(file.fileno()) == is_free
        os.close(is_free)
        file.write("still open")
    assert (tmp_path / "file").read_text() == "still open"
    assert process.identity() != before


@pytest.mark.parametrize("backend_of", [LocalFileBackend, lambda _: MemoryBackend()])
async def test_forked_child_of_a_thread_that_holds_a_lock_uses_the_store(
    backend_of: Callable[[Path], LocalFileBackend | MemoryBackend], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "_identity", process._identity.copy())
    backend = backend_of(tmp_path / "switch")
    for lock in list(process._locks):
        lock.current.acquire(blocking=False)
    process._begin_as_child()  # as the fork does in the child
    with anyio.fail_after(30):
        assert await backend.update_state(lambda state: state) == await backend.get_state()
        await backend.workers.sign("worker", "report")
        assert await backend.workers.reports() == {"worker": "report"}
        await backend.workers.leave("worker")
