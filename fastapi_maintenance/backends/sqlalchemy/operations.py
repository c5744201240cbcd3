"""Operations on a database: each goes on to its end for a while if its caller is cancelled.

Where SQLAlchemy cuts off an operation, its connection is left to the garbage collector, a driver may raise in a
callback of the event loop, and on SQLite a task may never end. A write that goes on cannot overtake what follows it,
since it changes only the version that it has read.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import anyio
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from fastapi_maintenance._helpers.waiting import ANSWER_TIMEOUT

_T = TypeVar("_T")
_GRACE = 0.1  # seconds that a caller who is cancelled waits for the end
_unfinished: set[asyncio.Future[Any]] = set()
"""The operations that have not ended yet: asyncio itself does not keep a task alive."""


async def run(engine: AsyncEngine, work: Callable[[AsyncConnection], Awaitable[_T]]) -> _T:
    """Do the work with a connection of the pool; if the caller is cancelled before that has one, leave it out."""

    async def do(is_cancelled: asyncio.Event) -> _T:
        async with engine.connect() as connection:
            if is_cancelled.is_set():
                raise asyncio.CancelledError
            return await work(connection)

    return await _finish_if_cancelled(engine, do)


async def connect(engine: AsyncEngine) -> AsyncConnection:
    """Return a connection, which the caller closes."""
    opened: list[AsyncConnection] = []

    async def do(is_cancelled: asyncio.Event) -> None:
        connection = await engine.connect()
        if is_cancelled.is_set():
            await connection.close()
        else:
            opened.append(connection)

    try:
        await _finish_if_cancelled(engine, do)
    except BaseException:
        for connection in opened:  # the cancellation came just after it was opened
            await connection.close()
        raise
    return opened[0]


async def finish() -> None:
    """Wait for the operations of this event loop that go on after they were cancelled."""
    loop = asyncio.get_running_loop()
    tasks = [task for task in _unfinished if task.get_loop() is loop]
    if tasks:
        await asyncio.wait(tasks)


async def _finish_if_cancelled(engine: AsyncEngine, work: Callable[[asyncio.Event], Awaitable[_T]]) -> _T:
    """Do the work in a task of its own; one of SQLite always ends, any other is cut off when it takes too long."""
    is_cancelled = asyncio.Event()
    task = asyncio.ensure_future(work(is_cancelled))
    _unfinished.add(task)
    task.add_done_callback(_forget)
    try:
        await asyncio.wait([task])
    except asyncio.CancelledError:
        is_cancelled.set()
        with anyio.CancelScope(shield=True):
            await asyncio.wait([task], timeout=_GRACE)
        if engine.dialect.name != "sqlite":
            asyncio.get_running_loop().call_later(ANSWER_TIMEOUT, task.cancel)
        raise
    return task.result()


def _forget(task: asyncio.Future[Any]) -> None:
    _unfinished.discard(task)
    if not task.cancelled():  # as when the event loop closes
        task.exception()  # so that asyncio does not log it
