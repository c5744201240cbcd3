"""The table of the switches, and how its rows are read and written."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from fastapi_maintenance._helpers.checks import check_name
from fastapi_maintenance.errors import MissingTableError

KEY_LENGTH = 255  # characters: what any database can index


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
        """Write the state of a switch; return False if the row is no longer `before`, which was just read."""
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
