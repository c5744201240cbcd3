"""What PostgreSQL does for a switch: it pushes changes by `LISTEN` and `NOTIFY`, through each of its drivers."""

import hashlib
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import TYPE_CHECKING, cast

import anyio
from sqlalchemy import BigInteger, Table, bindparam, column, delete, func, select, update
from sqlalchemy import text as sql
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from fastapi_maintenance._helpers.waiting import ANSWER_TIMEOUT, in_time
from fastapi_maintenance.backends.base import Wait
from fastapi_maintenance.backends.sqlalchemy.operations import connect
from fastapi_maintenance.backends.sqlalchemy.table import Row, read_rows, write_row

if TYPE_CHECKING:
    import asyncpg
    import psycopg

__all__ = ["add_worker", "can_listen", "listening", "notify", "now", "remove_worker", "report", "reports"]

_CHANNEL = "fastapi_maintenance"
_LOCKS = (
    sql(
        "SELECT (classid::bigint << 32) | objid::bigint AS number FROM pg_locks WHERE locktype = 'advisory' "
        "AND objsubid = 1 AND granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    )
    .columns(column("number", BigInteger))
    .subquery()
)


def can_listen(engine: AsyncEngine) -> bool:
    """Tell whether this is PostgreSQL through a driver that passes notifications on."""
    return engine.dialect.name == "postgresql" and engine.dialect.driver in _LISTENERS


async def now(connection: AsyncConnection) -> datetime:
    """Return the time by the clock of the database."""
    time: datetime = (await connection.execute(select(func.clock_timestamp()))).scalar_one()
    return time


async def notify(connection: AsyncConnection, key: str) -> None:
    """Tell the followers that the state under the key has changed."""
    await connection.execute(select(func.pg_notify(_CHANNEL, key)))


@asynccontextmanager
async def listening(engine: AsyncEngine) -> AsyncGenerator[tuple[AsyncConnection, Wait]]:
    """Give a connection that listens, and so does not go back to the pool, and a function that waits for a change."""
    with in_time(ANSWER_TIMEOUT):
        connection = await connect(engine)
    try:
        with in_time(ANSWER_TIMEOUT):
            wait = await _LISTENERS[engine.dialect.driver](connection)
        yield connection, wait
    finally:
        with anyio.move_on_after(ANSWER_TIMEOUT, shield=True):
            await connection.invalidate()
            await connection.close()


async def add_worker(connection: AsyncConnection, table: Table, key: str, worker: str) -> None:
    """Count a worker for as long as this connection lives.

    It takes an advisory lock, which the database lifts when the connection is closed, and then adds a row; so a row
    whose lock is free is that of a dead worker. The lock is a shared one, as the database may not know yet that the
    connection on which this worker had it before is lost.
    """
    row = _worker_key(key, worker)
    await connection.execute(select(func.pg_advisory_lock_shared(_lock_number(row))))
    await write_row(connection, table, row, "", Row())  # one that it left before is as good


async def remove_worker(connection: AsyncConnection, table: Table, key: str, worker: str) -> None:
    """Count a worker no longer; its lock is lifted with its connection."""
    await connection.execute(delete(table).where(table.c.key == _worker_key(key, worker)))


async def report(connection: AsyncConnection, *, table: Table, key: str, worker: str, text: str) -> None:
    """Replace the report of a worker, if it has a row."""
    await connection.execute(update(table).where(table.c.key == _worker_key(key, worker)).values(state=text))


async def reports(connection: AsyncConnection, *, table: Table, key: str) -> dict[str, str]:
    """Return the report of each worker whose lock is taken, and take away the rows of the others."""
    prefix = _worker_key(key, "")
    statement = select(table.c.key, table.c.state).where(table.c.key.startswith(prefix, autoescape=True))
    rows = await read_rows(connection, table, statement)
    taken = set((await connection.execute(select(_LOCKS.c.number))).scalars())
    dead = [row for row, _ in rows if _lock_number(row) not in taken]
    for row in dead:
        number = bindparam("number", _lock_number(row), BigInteger)
        await connection.execute(delete(table).where(table.c.key == row, number.not_in(select(_LOCKS.c.number))))
    return {row.removeprefix(prefix): text for row, text in rows if row not in dead}


def _worker_key(key: str, worker: str) -> str:
    """Return the key of a worker's row, which is short enough for every key of a switch."""
    return f"worker/{hashlib.sha256(key.encode()).hexdigest()[:16]}/{worker}"


def _lock_number(row: str) -> int:
    return int.from_bytes(hashlib.sha256(row.encode()).digest()[:8], "big", signed=True)


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
