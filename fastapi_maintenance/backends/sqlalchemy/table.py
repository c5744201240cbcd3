"""The table of the switches, how its rows are read and written, and the operations that do so.

An operation continues for a while if its caller is cancelled. If SQLAlchemy cancelled it, its connection would be left
to the garbage collector, a driver might raise in a callback of the event loop, and on SQLite a task might never end. A
write that continues cannot overwrite a later one, since it only changes the version that it has read.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import anyio
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from fastapi_maintenance._helpers.checks import check_name
from fastapi_maintenance._helpers.waiting import ANSWER_TIMEOUT
from fastapi_maintenance.errors import MissingTableError

KEY_LENGTH = 255  # characters: what any database can index
_GRACE = 0.1  # seconds that a cancelled caller waits for the end of its operation
_T = TypeVar("_T")
_unfinished: set[asyncio.Future[Any]] = set()
"""The operations in progress: asyncio itself does not keep a task alive."""


class Row(NamedTuple):
    """The state of a switch as text, and the number of its changes; by default, that of a missing row."""

    state: str = ""
    version: int | None = None


def maintenance_table(metadata: sa.MetaData, name: str = "fastapi_maintenance") -> sa.Table:
    """Add the table of the switches to a `MetaData` and return it, for use with migrations.

    It has a row for each switch: `key`, `state` (`1`, `0` or a JSON object) and `version`, which counts the changes.
    """
    return sa.Table(
        check_name("name", name),
        metadata,
        sa.Column("key", sa.String(KEY_LENGTH), primary_key=True),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("version", sa.Integer, nullable=False, server_default="0"),
        keep_existing=True,
    )


class SwitchTable:
    """The rows of the table. If it is missing, a write creates it with `create`, else raises a `MissingTableError`."""

    def __init__(self, table: sa.Table, *, create: bool) -> None:
        self.table = table
        self._create = create
        self._is_missing = False

    async def read_row(self, connection: AsyncConnection, key: str) -> Row:
        """Return the row of a switch; an empty one if the row or the table is missing."""
        columns = self.table.c
        found = await self.read_rows(connection, sa.select(columns.state, columns.version).where(columns.key == key))
        return Row(*found[0]) if found else Row()

    async def read_rows(self, connection: AsyncConnection, statement: sa.Select[Any]) -> Sequence[Any]:
        """Return the rows that a statement selects; none if the table is missing.

        If the table was missing before, look for it first: the database would log each failed statement.
        """
        if self._is_missing and not await self._exists(connection):
            return []
        try:
            found: Sequence[Any] = (await connection.execute(statement)).all()
        except DBAPIError as error:
            if error.connection_invalidated:
                raise
            if not await self._exists(connection):
                return []
            found = (await connection.execute(statement)).all()  # another process has just created the table
        return found

    async def write_row(self, connection: AsyncConnection, key: str, text: str, before: Row) -> bool:
        """Write the state of a switch; return False if the row has changed since `before` was read."""
        table = self.table
        if before.version is not None:
            unchanged = (table.c.key == key) & (table.c.version == before.version) & (table.c.state == before.state)
            statement = sa.update(table).where(unchanged).values(state=text, version=before.version + 1)
            return (await connection.execute(statement)).rowcount == 1
        if self._create:
            try:
                await connection.run_sync(lambda sync: table.create(sync, checkfirst=True))
            except DBAPIError:
                if not await self._exists(connection):  # else another process has just created it
                    raise
        elif self._is_missing:
            msg = (
                f"the table {table.fullname} is missing, and is left to your migrations (metadata=, or "
                "create_table=False): run the migration that creates it once without `fastapi-maintenance run`"
            )
            raise MissingTableError(msg)
        try:
            await connection.execute(sa.insert(table).values(key=key, state=text, version=0))
        except IntegrityError:
            return False
        return True

    async def _exists(self, connection: AsyncConnection) -> bool:
        def has_table(sync: sa.Connection) -> bool:
            return sa.inspect(sync).has_table(self.table.name, sync.schema_for_object(self.table))

        self._is_missing = not await connection.run_sync(has_table)
        return not self._is_missing


async def run_operation(engine: AsyncEngine, work: Callable[[AsyncConnection], Awaitable[_T]]) -> _T:
    """Do the work with a connection of the pool; skip it if the caller is cancelled before there is a connection."""

    async def do(is_cancelled: asyncio.Event) -> _T:
        async with engine.connect() as connection:
            if is_cancelled.is_set():
                raise asyncio.CancelledError
            return await work(connection)

    return await _finish_if_cancelled(engine, do)


async def open_connection(engine: AsyncEngine) -> AsyncConnection:
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


async def finish_operations() -> None:
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
