"""Operations on a database, which continue for a while if their caller is cancelled.

If SQLAlchemy cancels an operation, its connection is left to the garbage collector, a driver may raise in a callback of
the event loop, and on SQLite a task may never end. A write that continues cannot overwrite a later one, since it only
changes the version that it has read.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import anyio
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from fastapi_maintenance._helpers.waiting import ANSWER_TIMEOUT

_T = TypeVar("_T")
_GRACE = 0.1  # seconds that a cancelled caller waits for the end
_unfinished: set[asyncio.Future[Any]] = set()
"""The operations in progress: asyncio itself does not keep a task alive."""


async def run(engine: AsyncEngine, work: Callable[[AsyncConnection], Awaitable[_T]]) -> _T:
    """Do the work with a connection of the pool; skip it if the caller is cancelled before there is a connection."""

    async def do(is_cancelled: asyncio.Event) -> _T:
        async with engine.connect() as connection:
            if is_cancelled.is_set():
                raise asyncio.CancelledError
            return await work(connection)

    return await _finish_if_cancelled(engine, do)


async def connect(engine: AsyncEngine) -> AsyncConnection:
    """Return a connection for the caller to close."""
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
        for connection in opened:  # cancelled just after it was opened
            await connection.close()
        raise
    return opened[0]


async def finish() -> None:
    """Wait for the operations of this event loop whose callers were cancelled."""
    loop = asyncio.get_running_loop()
    tasks = [task for task in _unfinished if task.get_loop() is loop]
    if tasks:
        await asyncio.wait(tasks)


async def _finish_if_cancelled(engine: AsyncEngine, work: Callable[[asyncio.Event], Awaitable[_T]]) -> _T:
    """Do the work in its own task; after a cancellation, cancel it too if it takes long, except on SQLite."""
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
