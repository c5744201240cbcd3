"""What SQLite needs: its file may be replaced while connections are open, and no operation may be cut off."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.pool import ConnectionPoolEntry

__all__ = ["finish", "note_files", "run"]

_T = TypeVar("_T")
_FILE = "fastapi_maintenance.file"  # under which a connection keeps the identity of the file that it was opened on
_unfinished: set[asyncio.Future[Any]] = set()
"""The operations that have not ended yet: asyncio alone keeps no task alive that nobody waits for."""


def note_files(engine: AsyncEngine) -> None:
    """Let each new connection of the engine keep which file it was opened on."""
    path = engine.url.database

    def note(_connection: object, record: ConnectionPoolEntry) -> None:
        record.info[_FILE] = _identity(path)

    event.listen(engine.sync_engine, "connect", note)


async def run(engine: AsyncEngine, work: Callable[[AsyncConnection], Awaitable[_T]]) -> _T:
    """Do the work with a connection to the file as it is now; the work goes on to its end where this is cancelled.

    An operation on SQLite does end, but SQLAlchemy's way of cutting it off can leave a task that never does, and
    keeps the process from ending. What has not begun yet by then is left out: it would overtake what follows.
    """
    is_cancelled = asyncio.Event()
    task = asyncio.ensure_future(_run(engine, work, is_cancelled))
    _unfinished.add(task)
    task.add_done_callback(_forget)
    try:
        await asyncio.wait([task])
    except asyncio.CancelledError:
        is_cancelled.set()
        raise
    return task.result()


async def finish() -> None:
    """Wait for the operations of this event loop that go on after they were cancelled."""
    loop = asyncio.get_running_loop()
    tasks = [task for task in _unfinished if task.get_loop() is loop]
    if tasks:
        await asyncio.wait(tasks)


async def _run(
    engine: AsyncEngine, work: Callable[[AsyncConnection], Awaitable[_T]], is_cancelled: asyncio.Event
) -> _T:
    async with engine.connect() as connection:
        while (await connection.get_raw_connection()).info.get(_FILE) != _identity(engine.url.database):
            await connection.invalidate()  # the next use takes another one of the pool, or opens one
        if is_cancelled.is_set():
            raise asyncio.CancelledError
        return await work(connection)


def _forget(task: asyncio.Future[Any]) -> None:
    _unfinished.discard(task)
    if not task.cancelled():  # as when the event loop closes
        task.exception()  # so asyncio does not log it where nobody waits any more


def _identity(path: str | None) -> tuple[int, int] | None:
    """Return what tells the database file from others of its name; None where it is missing, or in memory."""
    try:
        status = Path(path or ":memory:").stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
