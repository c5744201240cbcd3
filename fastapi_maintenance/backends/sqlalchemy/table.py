"""The table of the switches, and how a row of it is read and written."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import Column, Integer, MetaData, Select, String, Table, Text, insert, inspect, select, update
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from fastapi_maintenance._helpers.checks import check_name

__all__ = ["KEY_LENGTH", "Row", "maintenance_table", "read_row", "read_rows", "write_row"]

KEY_LENGTH = 255  # characters: what each database can have in an index


class Row(NamedTuple):
    """The state of a switch as text, and how often it was changed; by default of one that has no row."""

    state: str = ""
    version: int | None = None


def maintenance_table(metadata: MetaData, name: str = "fastapi_maintenance") -> Table:
    """Return the table that holds the state, in this `MetaData`, for those who make their tables by migrations.

    It has a row for each switch: `key`, `state` (`1`, `0` or a JSON object) and `version`, which counts the changes.
    """
    return Table(
        check_name("name", name),
        metadata,
        Column("key", String(KEY_LENGTH), primary_key=True),
        Column("state", Text, nullable=False),
        Column("version", Integer, nullable=False, server_default="0"),
        keep_existing=True,
    )


async def read_row(connection: AsyncConnection, table: Table, key: str) -> Row:
    """Return the row of a switch, which the table may lack, and the database the table."""
    found = await read_rows(connection, table, select(table.c.state, table.c.version).where(table.c.key == key))
    return Row(*found[0]) if found else Row()


async def read_rows(connection: AsyncConnection, table: Table, statement: Select[Any]) -> Sequence[Any]:
    """Return the rows that a statement selects, none where the database lacks the table."""
    try:
        found: Sequence[Any] = (await connection.execute(statement)).all()
    except DBAPIError as error:
        if error.connection_invalidated:
            raise
        if not await _exists(connection, table):
            return []
        found = (await connection.execute(statement)).all()  # another process may have just made the table
    return found


async def write_row(connection: AsyncConnection, table: Table, key: str, text: str, before: Row) -> bool:
    """Write the state of a switch, and make a missing table; return False where `before` is not the row any more."""
    if before.version is not None:
        unchanged = (table.c.key == key) & (table.c.version == before.version) & (table.c.state == before.state)
        statement = update(table).where(unchanged).values(state=text, version=before.version + 1)
        return (await connection.execute(statement)).rowcount == 1
    try:
        await connection.run_sync(lambda sync: table.create(sync, checkfirst=True))
    except DBAPIError:
        if not await _exists(connection, table):  # else another process has just made it
            raise
    try:
        await connection.execute(insert(table).values(key=key, state=text, version=0))
    except IntegrityError:
        return False
    return True


async def _exists(connection: AsyncConnection, table: Table) -> bool:
    return await connection.run_sync(lambda sync: inspect(sync).has_table(table.name, table.schema))
