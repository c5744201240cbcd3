"""What SQLite needs: its file may be replaced while connections are open, and no operation may be cut off."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

__all__ = ["file_identity", "finish"]

_T = TypeVar("_T")
_unfinished: set[asyncio.Future[Any]] = set()
"""The operations that have not ended yet: asyncio alone keeps no task alive that nobody waits for."""


def file_identity(path: str | None) -> tuple[int, int] | None:
    """Return what tells a database file from others of its name; None where it is missing, or in memory."""
    try:
        status = Path(path or ":memory:").stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


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
