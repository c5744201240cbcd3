"""Push changes by `LISTEN` and `NOTIFY` of PostgreSQL, with asyncpg or psycopg."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple, cast

import anyio
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from fastapi_maintenance._helpers.process import let_go_in_children
from fastapi_maintenance._helpers.waiting import ANSWER_TIMEOUT, in_time
from fastapi_maintenance.backends.base import Wait
from fastapi_maintenance.backends.sqlalchemy import operations

if TYPE_CHECKING:
    import asyncpg
    import psycopg

_CHANNEL = "fastapi_maintenance"
_ARRIVES_WITHIN = 0.5  # seconds; a worker waits up to a second for this before it signs


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
        connection = await operations.connect(engine)
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
    await operations.run(engine, notify_all)
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
