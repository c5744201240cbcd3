"""What PostgreSQL does for a switch: it pushes changes by `LISTEN` and `NOTIFY`, through each of its drivers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, cast

import anyio
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from fastapi_maintenance._helpers.waiting import ANSWER_TIMEOUT, in_time
from fastapi_maintenance.backends.base import Wait

if TYPE_CHECKING:
    import asyncpg
    import psycopg

__all__ = ["can_listen", "listening", "notify"]

_CHANNEL = "fastapi_maintenance"


def can_listen(engine: AsyncEngine) -> bool:
    """Tell whether this is PostgreSQL through a driver that passes notifications on."""
    return engine.dialect.name == "postgresql" and engine.dialect.driver in _LISTENERS


async def notify(connection: AsyncConnection, key: str) -> None:
    """Tell the followers that the state under the key has changed."""
    await connection.execute(select(func.pg_notify(_CHANNEL, key)))


@asynccontextmanager
async def listening(engine: AsyncEngine) -> AsyncIterator[tuple[AsyncConnection, Wait]]:
    """Give a connection that listens, and so does not go back to the pool, and a function that waits for a change."""
    with in_time(ANSWER_TIMEOUT):
        connection = await engine.connect()
    try:
        with in_time(ANSWER_TIMEOUT):
            wait = await _LISTENERS[engine.dialect.driver](connection)
        yield connection, wait
    finally:
        with anyio.move_on_after(ANSWER_TIMEOUT, shield=True):
            await connection.invalidate()
            await connection.close()


async def _listen_with_asyncpg(connection: AsyncConnection) -> Wait:
    driver = cast("asyncpg.Connection", (await connection.get_raw_connection()).driver_connection)
    notified = anyio.Event()

    def note(*_: object) -> None:
        notified.set()

    async def wait(seconds: float) -> None:
        nonlocal notified
        with anyio.move_on_after(seconds):
            await notified.wait()
        notified = anyio.Event()

    await driver.add_listener(_CHANNEL, note)
    driver.add_termination_listener(note)
    return wait


async def _listen_with_psycopg(connection: AsyncConnection) -> Wait:
    driver = cast("psycopg.AsyncConnection[object]", (await connection.get_raw_connection()).driver_connection)

    async def wait(seconds: float) -> None:
        async for _ in driver.notifies(timeout=seconds, stop_after=1):
            pass

    await driver.execute(f"LISTEN {_CHANNEL}")
    return wait


_LISTENERS = {"asyncpg": _listen_with_asyncpg, "psycopg": _listen_with_psycopg}
