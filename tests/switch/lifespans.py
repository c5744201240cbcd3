"""Helpers for tests of following: run an app's lifespan, act at a moment of a store, wait for an answer."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncGenerator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, cast

import anyio
import pytest
from anyio.lowlevel import checkpoint
from fastapi import FastAPI
from starlette.types import ASGIApp, Message

from fastapi_maintenance import MaintenanceState, Switch
from tests.middleware.test_failures import records, status
from tests.stores import Hook
from tests.support import eventually

ON = MaintenanceState(switch=Switch(on=True))
OFF = MaintenanceState()


@asynccontextmanager
async def living(app: ASGIApp) -> AsyncGenerator[list[str]]:
    """Run the lifespan of an app as a server does, and check that it does not end early; yield what it has sent."""
    sent: list[str] = []
    started, end = anyio.Event(), anyio.Event()
    received = 0

    async def receive() -> Message:
        nonlocal received
        received += 1
        if received > 1:
            await end.wait()
        return {"type": "lifespan.startup" if received == 1 else "lifespan.shutdown"}

    async def send(message: Message) -> None:
        await checkpoint()
        sent.append(message["type"])
        started.set()

    async def live() -> None:
        await app({"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}, receive, send)

    async with anyio.create_task_group() as group:
        group.start_soon(live)
        with anyio.fail_after(30):
            await started.wait()
        yield sent
        assert len(sent) == 1, "the lifespan has ended early"
        end.set()
    assert sent[1:] == ["lifespan.shutdown.complete"]


async def cancel() -> None:
    """Raise what a client raises whose own background task was cancelled."""
    raise asyncio.CancelledError


def once(store: object, moment: str, action: Hook) -> anyio.Event:
    """Run an action at the next such moment of a store, such as `before_read`; return an event set when it begins."""
    begun = anyio.Event()

    async def act() -> None:
        setattr(store, moment, checkpoint)
        begun.set()
        await action()

    setattr(store, moment, act)
    return begun


async def answers(app: FastAPI, expected: int) -> None:
    """Wait until the app answers with this status."""

    async def does() -> bool:
        return await status(app) == expected

    await eventually(does)


async def answers_after(caplog: pytest.LogCaptureFixture, text: str) -> None:
    """Wait for a log record, and check that it contains the text and is the only one."""
    found: list[str] = []

    async def is_there() -> bool:
        found.extend(records(caplog))
        return bool(found)

    await eventually(is_there)
    assert [text in record for record in found] == [True]


left_behind = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
"""For a test that leaves something in a closed event loop."""


class Abandoned:
    """An asyncio loop that runs a coroutine for a while, and is then closed with its tasks still in it."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        loop = asyncio.new_event_loop()
        kept = loop.create_task(coroutine)
        loop.run_until_complete(asyncio.sleep(0.05))
        self._tasks = [*asyncio.all_tasks(loop), kept]
        loop.close()
        for task in self._tasks:
            task._log_destroy_pending = False  # type: ignore[attr-defined]  # asyncio's own

    def let_go(self) -> None:
        """Close what was left, as the garbage collector may: in a thread without an event loop."""
        thread = threading.Thread(target=self._close)
        thread.start()
        thread.join()

    def _close(self) -> None:
        for task in self._tasks:
            with contextlib.suppress(Exception):  # an `await` on the way out fails
                cast("Coroutine[Any, Any, None]", task.get_coro()).close()
