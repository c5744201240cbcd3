"""What SQLite needs: its file may be replaced while connections are open, and no operation may be cut off."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.pool import ConnectionPoolEntry

__all__ = ["drop_stale", "finish", "note_files"]

_T = TypeVar("_T")
_FILE = "fastapi_maintenance.file"  # under which a connection keeps the identity of the file that it was opened on
_unfinished: set[asyncio.Future[Any]] = set()
"""The operations that have not ended yet: asyncio alone keeps no task alive that nobody waits for."""


def note_files(engine: AsyncEngine) -> None:
    """Let each new connection of the engine keep which file it was opened on."""

    def note(_connection: object, record: ConnectionPoolEntry) -> None:
        record.info[_FILE] = _identity(engine)

    event.listen(engine.sync_engine, "connect", note)


async def drop_stale(connection: AsyncConnection) -> None:
    """Take another connection in place of one that was opened on a file that has been deleted or replaced since."""
    while (await connection.get_raw_connection()).info.get(_FILE) != _identity(connection.engine):
        await connection.invalidate()  # the next use takes another one of the pool, or opens one


async def finish(operation: Coroutine[Any, Any, _T]) -> _T:
    """Await an operation, which goes on to its end where this is cancelled.

    An operation on SQLite does end, but SQLAlchemy's way of cutting it off can leave a task that never does, and
    keeps the process from ending.
    """
    task = asyncio.ensure_future(operation)
    _unfinished.add(task)
    task.add_done_callback(_forget)
    await asyncio.wait([task])
    return task.result()


def _forget(task: asyncio.Future[Any]) -> None:
    _unfinished.discard(task)
    if not task.cancelled():  # as when the event loop closes
        task.exception()  # is then known, and asyncio does not log it where nobody waits any more


def _identity(engine: AsyncEngine) -> tuple[int, int] | None:
    """Return what tells the database file from others of its name; None where it is missing, or in memory."""
    try:
        status = Path(engine.url.database or ":memory:").stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
