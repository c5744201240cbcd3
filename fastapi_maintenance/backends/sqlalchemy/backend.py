"""The backend on SQLAlchemy, with any of its async drivers."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Hashable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, nullcontext
from datetime import datetime, timedelta
from functools import partial
from typing import TypeVar

import anyio

try:
    from sqlalchemy import MetaData, Table, make_url
    from sqlalchemy.exc import ArgumentError, DBAPIError, InvalidRequestError
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
except ImportError as _error:
    msg = "SQLAlchemyBackend needs sqlalchemy[asyncio]: pip install 'fastapi-maintenance[sqlalchemy]'"
    raise ImportError(msg, name=_error.name) from _error

from fastapi_maintenance._helpers.checks import check_bool, check_name, reject, reject_kind
from fastapi_maintenance._helpers.logs import get_logger
from fastapi_maintenance.backends.base import DEFAULT_KEY, Read, StoreBackend, Wait, apply
from fastapi_maintenance.backends.sqlalchemy import postgresql
from fastapi_maintenance.backends.sqlalchemy.table import (
    KEY_LENGTH,
    SwitchTable,
    finish_operations,
    maintenance_table,
    run_operation,
)
from fastapi_maintenance.codec import state_to_text, text_to_state
from fastapi_maintenance.errors import NotSupportedError
from fastapi_maintenance.state import MaintenanceState
from fastapi_maintenance.typing import StateChange, WorkerRegistry

_LISTEN_AGAIN = 30.0  # seconds after a refusal to listen before the next try
_IN_QUERY = ["create_table", "key"]
_PLACES = {"host", "odbc_connect", "service", "unix_socket"}  # options in the query that name a server
_PORTS = {"mariadb": 3306, "mysql": 3306, "postgresql": 5432}
_T = TypeVar("_T")
_logger = get_logger()


class SQLAlchemyBackend(StoreBackend):
    """Keep the state in a row of a small table.

    A missing table or row is off. On PostgreSQL with asyncpg or psycopg, each change reaches followers within
    milliseconds, by `LISTEN` and `NOTIFY`; on other databases, or if a change is made in another way, within
    `poll_interval`. It runs on asyncio, as SQLAlchemy does. Its methods raise a `sqlalchemy.exc.SQLAlchemyError` if the
    database cannot be read or written. (SQLite creates a missing file. A process keeps its file open, so replace the
    file only while the service is stopped.)

    Args:
        engine: An engine that you create and dispose of. On PostgreSQL, each event loop in which the state is followed
            keeps one connection of its pool.
        key: Distinguishes this switch from others in the same table; at most 255 characters. It must also differ if
            engines of one process have the same URL, with a host or file, but `async_creator`, `connect_args` or an
            event leads each to another database or schema.
        metadata: The `MetaData` to add the table to, so that migrations include it; its schema is used.
        create_table: Whether the first write creates the table if it is missing. False: your migrations create it;
            until then, reads are off, and writes raise a `MissingTableError`. None: False with `metadata`, else True.
        table_name: The table's name.
        poll_interval: Seconds, or a timedelta, between reads of the row while it is followed, which also show whether
            the database can be reached.

    Raises:
        TypeError: An argument is of the wrong type.
        ValueError: A name is empty, `key` is too long, or `poll_interval` is not above zero.
    """

    def __init__(  # noqa: PLR0913 -- each is a setting with a default
        self,
        engine: AsyncEngine,
        key: str = DEFAULT_KEY,
        *,
        metadata: MetaData | None = None,
        create_table: bool | None = None,
        table_name: str = "fastapi_maintenance",
        poll_interval: float | timedelta = 1.0,
    ) -> None:
        if not isinstance(engine, AsyncEngine):
            reject_kind("engine", "a sqlalchemy.ext.asyncio.AsyncEngine (for a URL: backend_from_url)", engine)
        if metadata is not None and not isinstance(metadata, MetaData):
            reject("metadata", "a sqlalchemy.MetaData or None", metadata)
        super().__init__(key, poll_interval, longest_key=KEY_LENGTH)
        self.engine = engine
        self.table: Table = maintenance_table(
            MetaData() if metadata is None else metadata, check_name("table_name", table_name)
        )
        create = metadata is None if create_table is None else check_bool("create_table", create_table)
        self._rows = SwitchTable(self.table, create=create)
        self._workers = postgresql.PostgreSQLWorkers(self._run, self._rows, key)
        # Each statement is a transaction: none stays open during a wait, and none fails to serialize.
        self._engine = engine.execution_options(isolation_level="AUTOCOMMIT")

    @property
    def switch_identity(self) -> Hashable:
        """Identifies this switch: the database, the user, who may have a schema, the table and the key."""
        url, kind = self.engine.url, self.engine.url.get_backend_name()
        if kind == "sqlite":
            is_complete = url.database not in {None, "", ":memory:"}
        else:  # an engine of the user's without a server in its URL may have `async_creator` or `connect_args`
            is_complete = bool(url.host or _PLACES & url.query.keys() or self.close_client)
        port = url.port or _PORTS.get(kind)
        facts = kind, url.username, url.host, port, url.database, str(sorted(url.query.items()))
        schemas = self.engine.get_execution_options().get("schema_translate_map")
        return facts if is_complete else id(self.engine), str(schemas), self.table.fullname, self.key

    def __repr__(self) -> str:
        where = self.engine.url.set(query={}).render_as_string()  # the query may contain a password too
        return f"{type(self).__name__}({where!r}, key={self.key!r})"

    async def now(self) -> datetime:
        """Return the time of the database's clock, aware; raise a `NotSupportedError` if it is not PostgreSQL."""
        if self.engine.dialect.name != "postgresql":
            msg = f"now() is supported on PostgreSQL only, not on {self!r}"
            raise NotSupportedError(msg)
        return await self._run(postgresql.now)

    async def _run(self, work: Callable[[AsyncConnection], Awaitable[_T]]) -> _T:
        return await run_operation(self._engine, work)

    async def _read(self) -> MaintenanceState:
        return await self._run(self._read_on)

    async def _read_on(self, connection: AsyncConnection) -> MaintenanceState:
        text, _ = await self._rows.read_row(connection, self.key)
        return text_to_state(text)

    async def _try(self, change: StateChange) -> MaintenanceState | None:
        work = partial(self._change, change)
        try:
            return await self._run(work)
        except DBAPIError as error:
            if not error.connection_invalidated:
                raise
        return await self._run(work)  # the connection was from before a restart of the database

    async def _change(self, change: StateChange, connection: AsyncConnection) -> MaintenanceState | None:
        before = await self._rows.read_row(connection, self.key)
        after = apply(change, partial(text_to_state, before.state), self)
        if not await self._rows.write_row(connection, self.key, state_to_text(after), before):
            return None
        if self.engine.dialect.name == "postgresql":
            await postgresql.notify(connection, self.key)
        return after

    @property
    def workers(self) -> WorkerRegistry | None:
        """The workers behind this switch; None: it is not PostgreSQL with asyncpg or psycopg."""
        return self._workers if postgresql.can_listen(self.engine) else None

    def _listening(self) -> AbstractAsyncContextManager[tuple[Read, Wait]]:
        if postgresql.can_listen(self.engine):
            return self._notified()
        return nullcontext((self.get_state, anyio.sleep))

    @asynccontextmanager
    async def _notified(self) -> AsyncGenerator[tuple[Read, Wait]]:
        async with AsyncExitStack() as stack:
            try:
                connection, wait = await stack.enter_async_context(postgresql.listening(self._engine))
            except postgresql.NotPushedError as error:
                if self._workers.refuse(str(error)):
                    text = "Changes of %r are not pushed: it is polled every %g s, and drains ignore this process: %s"
                    _logger.warning(text, self, self.poll_interval, error)
                yield self.get_state, partial(_sleep_until, anyio.current_time() + _LISTEN_AGAIN)
                return
            await stack.enter_async_context(self._workers.listening(connection))
            yield partial(self._read_on, connection), wait


async def _sleep_until(until: float, seconds: float) -> None:
    if anyio.current_time() > until:
        msg = "time to try again to listen for changes"
        raise TimeoutError(msg)
    await anyio.sleep(seconds)


async def close_engine(engine: AsyncEngine) -> None:
    """Close the connections of an engine after its operations have ended, which need the event loop until then."""
    await finish_operations()
    await engine.dispose()


def make_engine(url: str) -> tuple[AsyncEngine, dict[str, str]]:
    """Return an engine for a URL of SQLAlchemy, and the options in its query that are for `SQLAlchemyBackend`.

    Raises:
        ValueError: The URL is not valid; it is not shown.
        ImportError: Its driver is missing.
    """
    try:
        parts = make_url(url)
        ours = {name: values[-1] for name, values in parts.normalized_query.items() if name in _IN_QUERY}
        return create_async_engine(parts.difference_update_query(_IN_QUERY)), ours
    except ModuleNotFoundError as error:
        msg = f"the driver in the URL needs the package {error.name}: pip install {error.name}"
        raise ImportError(msg, name=error.name) from error
    except InvalidRequestError:
        msg = "its driver is not async"
        raise ValueError(msg) from None
    except (ArgumentError, TypeError, ValueError) as error:  # their text may contain a password
        msg = f"SQLAlchemy rejects it with {type(error).__name__}"
        raise ValueError(msg) from None
