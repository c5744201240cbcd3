"""The state in a table of any database that SQLAlchemy speaks to asynchronously; pushed by PostgreSQL."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Hashable
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import anyio

from fastapi_maintenance._helpers import clock
from fastapi_maintenance._helpers.checks import check_name, check_seconds, reject, reject_kind
from fastapi_maintenance._helpers.waiting import ANSWER_TIMEOUT, WRITE_TIMEOUT, in_time
from fastapi_maintenance.backends.base import off_in_place_of, set_to
from fastapi_maintenance.backends.postgresql import CHANNEL, LISTENERS, Wait
from fastapi_maintenance.codec import state_to_text, text_to_state
from fastapi_maintenance.errors import InvalidStateError, NotSupportedError
from fastapi_maintenance.state import MaintenanceState, is_active
from fastapi_maintenance.typing import StateChange

try:
    from sqlalchemy import (
        Column,
        Integer,
        MetaData,
        String,
        Table,
        Text,
        event,
        func,
        insert,
        inspect,
        make_url,
        select,
        update,
    )
    from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, InvalidRequestError
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
    from sqlalchemy.pool import ConnectionPoolEntry
except ImportError as _error:
    msg = "SQLAlchemyBackend needs sqlalchemy[asyncio]: pip install 'fastapi-maintenance[sqlalchemy]'"
    raise ImportError(msg, name=_error.name) from _error

__all__ = ["SQLAlchemyBackend", "maintenance_table", "make_engine"]

_MAX_PAUSE = 0.02  # seconds between two tries of a change that others were faster than
_OFF = MaintenanceState()
_T = TypeVar("_T")
_going_on: set[asyncio.Future[Any]] = set()
"""Operations that are not finished yet, also where nobody waits for them any more."""

_FILE = "fastapi_maintenance.file"
"""The key under which a connection to SQLite keeps which file it was opened on."""


def maintenance_table(metadata: MetaData, name: str = "fastapi_maintenance") -> Table:
    """Return the table that holds the state, in this `MetaData`, for those who make their tables by migrations.

    It has a row for each switch: `key`, `state` (`1`, `0` or a JSON object) and `version`, which counts the changes.
    """
    return Table(
        check_name("name", name),
        metadata,
        Column("key", String(255), primary_key=True),
        Column("state", Text, nullable=False),
        Column("version", Integer, nullable=False, server_default="0"),
        keep_existing=True,
    )


class SQLAlchemyBackend:
    """Keep the state in a row of a small table, which is made when it is first written and missing.

    A missing table or row is off. (SQLite itself makes an empty file where there is none.) On PostgreSQL, with asyncpg
    or psycopg, followers are told of each change through `LISTEN` and `NOTIFY`, within milliseconds; elsewhere, and of
    what is set in another way, they learn within `poll_interval`. It runs on asyncio, as SQLAlchemy does.

    Args:
        engine: An engine that you made and that you dispose of. On PostgreSQL each process that follows the state keeps
            one connection of its pool.
        key: Tells this switch from others in the same table; at most 255 characters.
        metadata: The `MetaData` to put the table in, so that migrations see it; its schema is used.
        table_name: The table's name.
        poll_interval: Seconds between two looks at the row while it is followed. They also show whether the store is
            still there.

    Raises:
        TypeError: An argument is of the wrong type.
        ValueError: A name is empty, `key` is too long, or `poll_interval` is not above zero.

    """

    def __init__(
        self,
        engine: AsyncEngine,
        key: str = "fastapi_maintenance_mode",
        *,
        metadata: MetaData | None = None,
        table_name: str = "fastapi_maintenance",
        poll_interval: float = 1.0,
    ) -> None:
        if not isinstance(engine, AsyncEngine):
            reject_kind("engine", "a sqlalchemy.ext.asyncio.AsyncEngine (for a URL: backend_from_url)", engine)
        if metadata is not None and not isinstance(metadata, MetaData):
            reject("metadata", "a sqlalchemy.MetaData or None", metadata)
        self.engine = engine
        self.key: str = check_name("key", key, at_most=255)
        self.table: Table = maintenance_table(
            MetaData() if metadata is None else metadata, check_name("table_name", table_name)
        )
        self.poll_interval: float = check_seconds("poll_interval", poll_interval)
        # Each statement is a transaction of its own: none stays open while this waits, and none fails to serialize.
        self._engine = engine.execution_options(isolation_level="AUTOCOMMIT")
        if engine.dialect.name == "sqlite":
            event.listen(engine.sync_engine, "connect", partial(_note_file, engine.url.database or ""))

    @property
    def switch_identity(self) -> Hashable:
        """What tells this switch from others: the database, the table and the key."""
        url = self.engine.url
        in_memory = url.get_backend_name() == "sqlite" and url.database in {None, "", ":memory:"}
        facts = url.get_backend_name(), url.host, url.port, url.database, str(sorted(url.query.items()))
        schemas = self.engine.get_execution_options().get("schema_translate_map")
        return id(self.engine) if in_memory else facts, str(schemas), self.table.fullname, self.key

    def __repr__(self) -> str:
        """Show the database, without its password, and the key."""
        where = self.engine.url.set(query={}).render_as_string()  # a password may stand in the query too
        return f"{type(self).__name__}({where!r}, key={self.key!r})"

    async def get_value(self) -> bool:
        """Return whether there is maintenance now; raises as `get_state` does."""
        return is_active(await self.get_state(), clock.now())

    async def set_value(self, value: bool) -> None:  # noqa: FBT001 -- the spec's own signature
        """Set the operator's switch, without message or window; open holds stay. Raises as `update_state` does."""
        await self.update_state(set_to(value))

    async def get_state(self) -> MaintenanceState:
        """Return what the row says.

        Raises:
            InvalidStateError: What is there is no state.
            sqlalchemy.exc.SQLAlchemyError: The database cannot be read.

        """
        return await self._whole(self._get())

    async def update_state(self, change: StateChange) -> MaintenanceState:
        """Apply a change to the row, so that no other change by any process is lost, and return the result.

        Raises:
            InvalidStateError: What is there is no state, and the change does not set the switch. One that does replaces
                it, as if it had been off, and a warning is logged.
            sqlalchemy.exc.SQLAlchemyError: The database cannot be written.
            TimeoutError: It has not answered for ten seconds, or others were faster for as long.

        """
        with in_time(WRITE_TIMEOUT):
            may_be_stale = True
            while True:
                try:
                    after = await self._whole(self._change(change))
                except DBAPIError as error:
                    if not (may_be_stale and error.connection_invalidated):
                        raise
                    may_be_stale, after = False, None  # the pool held a connection from before a restart
                if after is not None:
                    return after
                await anyio.sleep(random.uniform(0, _MAX_PAUSE))  # noqa: S311 -- no secret

    async def now(self) -> datetime:
        """Return the time by the clock of the database, aware.

        Raises:
            NotSupportedError: It is not PostgreSQL.
            sqlalchemy.exc.SQLAlchemyError: The database cannot be read.

        """
        if self.engine.dialect.name != "postgresql":
            msg = f"now() is known of PostgreSQL alone, and not of {self!r}"
            raise NotSupportedError(msg)
        async with self._engine.connect() as connection:
            time: datetime = (await connection.execute(select(func.clock_timestamp()))).scalar_one()
        return time

    async def watch(self) -> AsyncIterator[MaintenanceState]:
        """Yield the state at once, after each change, and at each look; raises as `get_state` does.

        Raises:
            TimeoutError: The database has not answered for two seconds.

        """
        async with self._listening() as (read, wait):
            while True:
                with in_time(ANSWER_TIMEOUT):
                    state = await read()
                yield state
                with in_time(self.poll_interval + ANSWER_TIMEOUT):
                    await wait(self.poll_interval)

    async def _whole(self, operation: Coroutine[Any, Any, _T]) -> _T:
        """Await an operation, which on SQLite goes on to its end by itself where this is cancelled.

        An operation on SQLite does end, but SQLAlchemy's way of cutting it off can leave a task that never does, and
        keeps the process from ending.
        """
        if self.engine.dialect.name != "sqlite":
            return await operation
        task = asyncio.ensure_future(operation)
        _going_on.add(task)
        task.add_done_callback(_end)
        return await asyncio.shield(task)

    async def _get(self) -> MaintenanceState:
        async with self._connected() as connection:
            return await self._state(connection)

    async def _change(self, change: StateChange) -> MaintenanceState | None:
        async with self._connected() as connection:
            return await self._try(connection, change)

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[AsyncConnection]:
        """Give a connection; on SQLite none that was opened on a file that has been deleted or replaced since."""
        async with self._engine.connect() as connection:
            while self._is_stale((await connection.get_raw_connection()).info):
                await connection.invalidate()  # the next use takes another one of the pool, or opens one
            yield connection

    def _is_stale(self, info: dict[Any, Any]) -> bool:
        return _FILE in info and info[_FILE] != _identity_of(self.engine.url.database or "")

    async def _state(self, connection: AsyncConnection) -> MaintenanceState:
        found = await self._row(connection)
        return _OFF if found is None else text_to_state(found[0])

    async def _row(self, connection: AsyncConnection) -> tuple[str, int] | None:
        try:
            return await self._select(connection)
        except DBAPIError as error:
            if error.connection_invalidated:
                raise
            if not await self._has_table(connection):
                return None
        return await self._select(connection)  # another process has just made the table; else this fails as before

    async def _select(self, connection: AsyncConnection) -> tuple[str, int] | None:
        columns = self.table.c
        rows = await connection.execute(select(columns.state, columns.version).where(columns.key == self.key))
        row = rows.one_or_none()
        return None if row is None else (row.state, row.version)

    async def _has_table(self, connection: AsyncConnection) -> bool:
        return await connection.run_sync(lambda sync: inspect(sync).has_table(self.table.name, self.table.schema))

    async def _try(self, connection: AsyncConnection, change: StateChange) -> MaintenanceState | None:
        """Change the row if it is still what it was when it was read; return None if it was not."""
        found = await self._row(connection)
        try:
            before = _OFF if found is None else text_to_state(found[0])
        except InvalidStateError as error:
            before = off_in_place_of(error, change, self)
        after = change(before)
        done = await (self._insert(connection, after) if found is None else self._replace(connection, after, *found))
        if not done:
            return None
        if connection.dialect.name == "postgresql":
            await connection.execute(select(func.pg_notify(CHANNEL, self.key)))
        return after

    async def _insert(self, connection: AsyncConnection, state: MaintenanceState) -> bool:
        if not await self._has_table(connection):
            try:
                await connection.run_sync(lambda sync: self.table.create(sync, checkfirst=True))
            except DBAPIError:
                if not await self._has_table(connection):  # else another process has just made it
                    raise
        try:
            await connection.execute(insert(self.table).values(key=self.key, state=state_to_text(state), version=0))
        except IntegrityError:
            return False
        return True

    async def _replace(self, connection: AsyncConnection, state: MaintenanceState, before: str, version: int) -> bool:
        columns = self.table.c
        unchanged = (columns.key == self.key) & (columns.version == version) & (columns.state == before)
        statement = update(self.table).where(unchanged).values(state=state_to_text(state), version=version + 1)
        return (await connection.execute(statement)).rowcount == 1

    @asynccontextmanager
    async def _listening(self) -> AsyncIterator[tuple[Callable[[], Awaitable[MaintenanceState]], Wait]]:
        """Give a function that reads the state, and one that waits for a change, at most that many seconds."""
        dialect = self.engine.dialect
        listen = LISTENERS.get(dialect.driver) if dialect.name == "postgresql" else None
        if listen is None:
            yield self.get_state, anyio.sleep
        else:
            async with self._own_connection() as connection:
                with in_time(ANSWER_TIMEOUT):
                    wait = await listen(connection)
                yield (lambda: self._state(connection)), wait

    @asynccontextmanager
    async def _own_connection(self) -> AsyncIterator[AsyncConnection]:
        """Give a connection that does not go back to the pool: it will listen."""
        with in_time(ANSWER_TIMEOUT):
            connection = await self._engine.connect()
        try:
            yield connection
        finally:
            with anyio.move_on_after(ANSWER_TIMEOUT, shield=True):
                await connection.invalidate()
                await connection.close()


def _note_file(path: str, _connection: object, record: ConnectionPoolEntry) -> None:
    record.info[_FILE] = _identity_of(path)


def _identity_of(path: str) -> tuple[int, int] | None:
    """Return what tells a file from others of its name, None where there is none."""
    try:
        status = Path(path).stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _end(task: asyncio.Future[Any]) -> None:
    _going_on.discard(task)
    with suppress(asyncio.CancelledError):  # as when the event loop closes
        task.exception()  # whoever waited for it has it; where nobody did any more, nobody has to know


def make_engine(url: str, key: str) -> tuple[AsyncEngine, str]:
    """Return an engine for a URL as SQLAlchemy has it, and the `key` of its query, if it has one, else this one.

    Raises:
        ValueError: It is no such URL; none of it is shown.
        ImportError: Its driver is missing.

    """
    try:
        parts = make_url(url)
        keys = parts.query.get("key", key)
        engine = create_async_engine(parts.difference_update_query(["key"]))
    except ModuleNotFoundError as error:
        msg = f"the driver in the URL needs the package {error.name}: pip install {error.name}"
        raise ImportError(msg, name=error.name) from error
    except InvalidRequestError:
        msg = "its driver is not async"
        raise ValueError(msg) from None
    except (ArgumentError, TypeError, ValueError) as error:  # whose text may have a password
        msg = f"SQLAlchemy refuses it with {type(error).__name__}"
        raise ValueError(msg) from None
    return engine, keys if isinstance(keys, str) else keys[-1]
