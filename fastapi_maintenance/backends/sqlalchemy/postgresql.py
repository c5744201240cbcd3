"""What PostgreSQL adds: changes pushed by `LISTEN` and `NOTIFY`, with asyncpg or psycopg, and the workers of a switch.

Each worker has a row that names an advisory lock. The connection that listens for changes holds the lock, and the
database releases it when the connection is closed, so a worker whose lock is free is dead.
"""

import hashlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import anyio
from sqlalchemy import BigInteger, bindparam, column, delete, func, select
from sqlalchemy import text as sql
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from fastapi_maintenance._helpers.process import identity, let_go_in_children, remembered
from fastapi_maintenance._helpers.waiting import ANSWER_TIMEOUT, current_loop, in_time
from fastapi_maintenance.backends.base import Wait
from fastapi_maintenance.backends.sqlalchemy.table import SwitchTable, open_connection, run_operation
from fastapi_maintenance.errors import NotSupportedError

if TYPE_CHECKING:
    import asyncpg
    import psycopg

_CHANNEL = "fastapi_maintenance"
_ARRIVES_WITHIN = 0.5  # seconds; a worker waits up to a second for this before it signs
_POLL = 0.02  # seconds
_LOCKS = (
    sql(
        "SELECT (classid::bigint << 32) | objid::bigint AS number FROM pg_locks WHERE locktype = 'advisory' "
        "AND objsubid = 1 AND granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    )
    .columns(column("number", BigInteger))
    .subquery()
)
_held: list[int] = remembered([])
"""The locks that listening connections of this process hold."""
_refused: dict[int, str] = remembered({})
"""The locks that no connection can hold, and the reason."""


class NotPushedError(Exception):
    """Notifications are refused, or do not arrive."""


class _Listener(NamedTuple):
    """A connection that listens."""

    wait: Wait
    process_id: int
    """The id of the server's process, as reported when the connection was opened."""
    fileno: Callable[[], int]


def can_listen(engine: AsyncEngine) -> bool:
    """Return whether this is PostgreSQL with a driver that delivers notifications."""
    return engine.dialect.name == "postgresql" and engine.dialect.driver in _LISTENERS


async def now(connection: AsyncConnection) -> datetime:
    """Return the time of the database's clock."""
    time: datetime = (await connection.execute(select(func.clock_timestamp()))).scalar_one()
    return time


async def notify(connection: AsyncConnection, key: str) -> None:
    """Notify the followers that the state under the key has changed."""
    await connection.execute(select(func.pg_notify(_CHANNEL, key)))


@asynccontextmanager
async def listening(engine: AsyncEngine) -> AsyncGenerator[tuple[AsyncConnection, Wait]]:
    """Yield a listening connection, which does not return to the pool, and a function that waits for a change.

    Raises:
        NotPushedError: The server refuses to listen, as a standby does, or a pooler gives each transaction another
            connection, so that notifications do not arrive.
    """
    with in_time(ANSWER_TIMEOUT):
        connection = await open_connection(engine)
    try:
        with in_time(2 * ANSWER_TIMEOUT):
            process_id = select(func.pg_backend_pid())
            await connection.execute(process_id)  # raises if the connection is from before a restart of the server
            try:
                listener = await _LISTENERS[engine.dialect.driver](connection)
            except Exception as error:  # of the driver, not wrapped by SQLAlchemy here
                await connection.execute(process_id)  # raises if the connection is lost
                msg = f"{type(error).__name__}: {error}"
                raise NotPushedError(msg) from error
            is_direct = listener.process_id == (await connection.execute(process_id)).scalar_one()
            if not is_direct and not await _is_notified(engine, listener.wait):
                msg = "a pooler between this process and the database gives each transaction another connection"
                raise NotPushedError(msg)
        let_go_in_children(listener.fileno)
        yield connection, listener.wait
    finally:
        with anyio.move_on_after(ANSWER_TIMEOUT, shield=True):
            await connection.invalidate()
            await connection.close()


async def _is_notified(engine: AsyncEngine, wait: Wait) -> bool:
    """Return whether a notification from another connection arrives."""

    async def notify_all(connection: AsyncConnection) -> None:
        await notify(connection, "")

    began = anyio.current_time()
    await run_operation(engine, notify_all)
    await wait(_ARRIVES_WITHIN)
    return anyio.current_time() - began < _ARRIVES_WITHIN


async def _listen_with_asyncpg(connection: AsyncConnection) -> _Listener:
    driver = cast("asyncpg.Connection", (await connection.get_raw_connection()).driver_connection)
    notified = anyio.Event()

    def notify(*_: object) -> None:
        notified.set()

    async def wait(seconds: float) -> None:
        nonlocal notified
        with anyio.move_on_after(seconds):
            await notified.wait()
        notified = anyio.Event()

    await driver.add_listener(_CHANNEL, notify)
    driver.add_termination_listener(notify)
    transport = driver._transport  # noqa: SLF001 -- asyncpg has no public access to it
    return _Listener(wait, driver.get_server_pid(), lambda: transport.get_extra_info("socket").fileno())


async def _listen_with_psycopg(connection: AsyncConnection) -> _Listener:
    driver = cast("psycopg.AsyncConnection[object]", (await connection.get_raw_connection()).driver_connection)

    async def wait(seconds: float) -> None:
        async for _ in driver.notifies(timeout=seconds, stop_after=1):
            pass

    await driver.execute(f"LISTEN {_CHANNEL}")
    return _Listener(wait, driver.info.backend_pid, lambda: driver.fileno())  # noqa: PLW0108 -- a method would not be kept by a weak reference


_LISTENERS: dict[str, Callable[[AsyncConnection], Awaitable[_Listener]]] = {
    "asyncpg": _listen_with_asyncpg,
    "psycopg": _listen_with_psycopg,
}


class PostgreSQLWorkers:
    """The records of the workers behind one switch; each method raises a `sqlalchemy.exc.SQLAlchemyError` on failure.

    `run` does work with a connection of the pool.
    """

    def __init__(
        self, run: Callable[[Callable[[AsyncConnection], Awaitable[Any]]], Awaitable[Any]], rows: SwitchTable, key: str
    ) -> None:
        self._run = run
        self._rows = rows
        self._table = rows.table
        self._signed: dict[str, str] = {}  # what the row of each worker of this process has to be
        self._switch = hashlib.sha256(key.encode()).hexdigest()[:16]  # a key may be too long

    def refuse(self, reason: str) -> bool:
        """Refuse to sign in this event loop until `listening`; return whether it was not refused before."""
        number = self._lock()
        is_new = number not in _refused
        _refused[number] = reason
        return is_new

    @asynccontextmanager
    async def listening(self, connection: AsyncConnection) -> AsyncGenerator[None]:
        """Hold the lock on this connection, to show that this process is alive.

        The lock is a shared one, since the database may still count it for a previous connection that was lost.
        """
        number = self._lock()
        with in_time(ANSWER_TIMEOUT):
            await connection.execute(select(func.pg_advisory_lock_shared(number)))
        _held.append(number)
        _refused.pop(number, None)
        try:
            yield
        finally:
            _held.remove(number)

    async def sign(self, worker: str, report: str, /) -> None:
        """Write the row of a worker of this event loop; wait until a connection listens.

        Raises:
            NotSupportedError: No connection can listen.
        """
        number = self._lock()
        while number not in _held:
            if number in _refused:
                msg = f"drains need a listening connection in each worker, which is refused here: {_refused[number]}"
                raise NotSupportedError(msg)
            await anyio.sleep(_POLL)
        row, text = self._row(worker), f"{number} {report}"
        self._signed[row] = text
        while not await self._run(partial(self._write, row, text)):
            pass

    async def leave(self, worker: str, /) -> None:
        """Remove the row of a worker."""
        row = self._row(worker)
        self._signed.pop(row, None)
        await self._run(partial(self._remove, row))

    async def reports(self) -> Mapping[str, str]:
        """Return the report of each worker whose lock is held, and remove the rows of the others."""
        reports: dict[str, str] = await self._run(self._read)
        return reports

    async def _write(self, row: str, text: str, connection: AsyncConnection) -> bool:
        """Write a row, unless a later call has replaced or removed it; return False if another write came first."""
        found = await self._rows.read_row(connection, row)
        if self._signed.get(row) != text:  # this caller was cancelled
            return True
        is_written = found.state == text or await self._rows.write_row(connection, row, text, found)
        if row not in self._signed:  # `leave` may have come first
            await self._remove(row, connection)
        return is_written

    async def _remove(self, row: str, connection: AsyncConnection) -> None:
        await connection.execute(delete(self._table).where(self._table.c.key == row))

    async def _read(self, connection: AsyncConnection) -> dict[str, str]:
        table, prefix = self._table, self._row("")
        statement = select(table.c.key, table.c.state).where(table.c.key.startswith(prefix, autoescape=True))
        rows = await self._rows.read_rows(connection, statement)
        held = {str(number) for number in (await connection.execute(select(_LOCKS.c.number))).scalars()}
        reports = {}
        for row, text in rows:
            number, _, report = text.partition(" ")
            if number in held:
                reports[row.removeprefix(prefix)] = report
                continue
            dead = (table.c.key == row) & (table.c.state == text)
            bound = bindparam("number", int(number) if number.lstrip("-").isdecimal() else 0, BigInteger)
            with suppress(DBAPIError):  # this user may not be permitted to write
                await connection.execute(delete(table).where(dead, bound.not_in(select(_LOCKS.c.number))))
        return reports

    def _row(self, worker: str) -> str:
        """Return the key of a worker's row."""
        return f"worker/{self._switch}/{worker}"

    def _lock(self) -> int:
        """Return the number of the lock for this process, event loop and switch."""
        name = f"{identity()} {id(current_loop())} {self._table.fullname} {self._switch}"
        return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big", signed=True)
