"""Background work: what it raises is logged once and tried again, and nobody else learns of it."""

from __future__ import annotations

import asyncio
import gc
import logging
import socket
import threading
from pathlib import Path

import anyio
import pytest
from anyio.lowlevel import checkpoint

from fastapi_maintenance._helpers import background, process
from fastapi_maintenance._helpers.process import remembered, reset
from tests.support import OddError, eventually

pytestmark = pytest.mark.anyio


FAILURES = [
    ValueError("wrong"),
    SystemExit(3),
    OddError(),
    ExceptionGroup("several", [ValueError("wrong")]),
    BaseExceptionGroup("several", [OddError()]),
    asyncio.CancelledError(),
]


@pytest.mark.parametrize("failure", FAILURES, ids=repr)
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
    assert tries == 3
    (record,) = caplog.records
    assert (record.levelno, record.exc_info is not None) == (logging.ERROR, True)


async def test_start_work_that_raises_with_its_cancellation_in_a_group_ends_when_it_is_stopped() -> None:
    async def work() -> None:
        try:
            await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class() as error:
            errors = [error, ValueError()]
            msg = "what a task group raises"
            raise BaseExceptionGroup(msg, errors) from None

    task = background.start(work)
    await anyio.sleep(0.01)
    task.stop()
    await background.all_ended([task])
    assert task.has_ended


async def test_stop_in_another_thread_ends_the_task() -> None:
    task = background.start(anyio.sleep_forever)
    await anyio.sleep(0.01)
    await anyio.to_thread.run_sync(task.stop)
    await background.all_ended([task])
    assert task.has_ended


def test_stop_after_the_event_loop_was_closed_does_nothing() -> None:
    async def begin() -> background.Task:
        return background.start(anyio.sleep_forever)

    task = asyncio.run(begin())
    task.stop()
    assert task.has_ended


async def test_ended_in_another_event_loop_returns_at_once() -> None:
    task = background.start(anyio.sleep_forever)
    thread = threading.Thread(target=anyio.run, args=(task.ended,))
    thread.start()
    await anyio.to_thread.run_sync(thread.join)
    task.stop()
    assert not thread.is_alive()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_start_keeps_a_task_that_nobody_else_refers_to() -> None:
    has_run = anyio.Event()

    async def work() -> None:
        await checkpoint()
        gc.collect()
        has_run.set()

    background.start(work)

    async def is_run() -> bool:
        await checkpoint()
        return has_run.is_set()

    await eventually(is_run)


def test_reset_brings_back_what_was_registered() -> None:
    numbers, names, ids = remembered([1]), remembered({"a": 1}), remembered({1})
    numbers.append(2)
    names["b"] = 2
    ids.clear()
    reset()
    assert (numbers, names, ids) == ([1], {"a": 1}, {1})


async def test_work_that_is_stopped_while_its_failure_is_handled_ends() -> None:
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


def test_forked_child_lets_go_of_the_sockets_of_its_parent_and_is_another_process(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(process, "_identity", process._identity.copy())
    before, (here, peer) = process.identity(), socket.socketpair()
    with here, peer, (tmp_path / "file").open("w") as file:
        here.setblocking(False)
        filenos = [here.fileno, file.fileno, lambda: -1]  # kept, as connections keep theirs
        for fileno in filenos:
            process.let_go_in_children(fileno)
        process._begin_as_child()  # as the fork does in the child
        assert peer.recv(1) == b""
        file.write("still open")
    assert (tmp_path / "file").read_text() == "still open"
    assert process.identity() != before
