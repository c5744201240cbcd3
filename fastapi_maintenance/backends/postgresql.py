"""Being told of changes by PostgreSQL: `LISTEN`, through each of its drivers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, cast

import anyio

if TYPE_CHECKING:
    import asyncpg
    import psycopg
    from sqlalchemy.ext.asyncio import AsyncConnection

__all__ = ["CHANNEL", "LISTENERS", "Wait"]

CHANNEL = "fastapi_maintenance"

Wait = Callable[[float], Awaitable[None]]
"""Returns when there was a notification, or the seconds are over."""


async def _listen_with_asyncpg(connection: AsyncConnection) -> Wait:
    driver = cast("asyncpg.Connection", (await connection.get_raw_connection()).driver_connection)
    rung = anyio.Event()

    def ring(*_: object) -> None:
        rung.set()

    async def wait(seconds: float) -> None:
        nonlocal rung
        with anyio.move_on_after(seconds):
            await rung.wait()
        rung = anyio.Event()

    await driver.add_listener(CHANNEL, ring)
    driver.add_termination_listener(ring)
    return wait


async def _listen_with_psycopg(connection: AsyncConnection) -> Wait:
    driver = cast("psycopg.AsyncConnection[object]", (await connection.get_raw_connection()).driver_connection)

    async def wait(seconds: float) -> None:
        async for _ in driver.notifies(timeout=seconds, stop_after=1):
            pass

    await driver.execute(f"LISTEN {CHANNEL}")
    return wait


LISTENERS = {"asyncpg": _listen_with_asyncpg, "psycopg": _listen_with_psycopg}
