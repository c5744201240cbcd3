"""What the tests of following share: the life of an app, and waiting for what it answers."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import anyio
import pytest
from anyio.lowlevel import checkpoint
from fastapi import FastAPI
from starlette.types import ASGIApp, Message

from fastapi_maintenance import MaintenanceState, Switch
from tests.middleware.test_failures import records, status
from tests.support import eventually

ON = MaintenanceState(switch=Switch(on=True))
OFF = MaintenanceState()


@asynccontextmanager
async def living(app: ASGIApp) -> AsyncGenerator[list[str]]:
    """Run the lifespan of an app as a server does; give the types of the messages that it sent."""
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
        end.set()


async def answers(app: FastAPI, expected: int) -> None:
    """Wait until the app answers with this status."""

    async def does() -> bool:
        return expected == await status(app)

    await eventually(does)


async def answers_after(caplog: pytest.LogCaptureFixture, text: str) -> None:
    """Wait for a record, and compare it; it has to be the only one."""
    found: list[str] = []

    async def is_there() -> bool:
        found.extend(records(caplog))  # asyncio may have logged that a callback was slow
        return bool(found)

    await eventually(is_there)
    assert [True] == [text in record for record in found]
