"""`PostgreSQLWorkers`: behind a pooler, on a standby, dead workers, and lost connections."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from fastapi_maintenance import (
    MaintenanceState,
    NotSupportedError,
    get_workers,
    maintenance_mode_on,
    set_maintenance_mode,
)
from fastapi_maintenance.backends.sqlalchemy import SQLAlchemyBackend, postgresql
from fastapi_maintenance.backends.sqlalchemy import backend as backend_module
from tests.backends.helpers import (  # noqa: F401 -- a fixture
    DRIVERS,
    WORKER,
    check_drain,
    connected,
    execute,
    messages_of,
    on_asyncio,
    wait_for_workers,
)
from tests.middleware.test_failures import app_on
from tests.servers import Postgres, running
from tests.support import eventually
from tests.switch.lifespans import answers, living

pytestmark = [pytest.mark.anyio, pytest.mark.servers, pytest.mark.usefixtures("_patient")]
each_driver = pytest.mark.parametrize("driver", DRIVERS)
UNPREPARED: dict[str, dict[str, Any]] = {
    "asyncpg": {"statement_cache_size": 0, "prepared_statement_name_func": lambda: f"statement_{uuid4()}"},
    "psycopg": {"prepare_threshold": None},
}
"""The options with which a driver uses no prepared statements, which poolers do not support."""


@pytest.fixture
def postgres(_servers: Callable[[str], Postgres]) -> Postgres:
    server = _servers("asyncpg")
    server.empty()
    return server


@asynccontextmanager
async def behind(url: str, driver: str) -> AsyncGenerator[SQLAlchemyBackend]:
    """Yield a backend that works behind any pooler."""
    engine = create_async_engine(url.replace("asyncpg", driver), connect_args=UNPREPARED[driver])
    yield SQLAlchemyBackend(engine)
    await engine.dispose()


async def logged_once(caplog: pytest.LogCaptureFixture, backend: SQLAlchemyBackend) -> str:
    """Wait until it is logged that changes are polled, and return the reason."""
    text = f"Changes of {backend!r} are not pushed: it is polled every 1 s, and drains ignore this process: "

    def reasons() -> list[str]:
        return [record.removeprefix(text) for record in messages_of(caplog) if record.startswith(text)]

    await eventually(lambda: len(reasons()) > 0)
    [reason] = reasons()
    return reason


@each_driver
async def test_app_behind_a_pooler_of_transactions_polls_and_logs_it_once_and_a_drain_is_refused(
    postgres: Postgres, driver: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend_module, "_LISTEN_AGAIN", 0.1)  # fails again, and is not logged again
    with postgres.pooler("transaction") as url:
        async with behind(url, driver) as backend, connected(postgres.url) as direct, living(app := app_on(backend)):
            assert "gives each transaction another connection" in await logged_once(caplog, backend)
            for each in (backend, SQLAlchemyBackend(backend.engine)):
                with pytest.raises(NotSupportedError, match="in each worker, which is refused here: a pooler"):
                    async with maintenance_mode_on(each, drain=60):
                        pytest.fail("the body ran")
            assert await direct.get_state() == MaintenanceState()
            for value in (True, False):
                await set_maintenance_mode(value, direct)
                await answers(app, 503 if value else 200)
            await logged_once(caplog, backend)


@each_driver
async def test_app_behind_a_pooler_of_sessions_is_drained(postgres: Postgres, driver: str) -> None:
    with postgres.pooler("session") as url:
        async with behind(url, driver) as backend, living(app := app_on(backend)):
            await check_drain(app, backend)


@each_driver
async def test_app_on_a_hot_standby_polls_and_is_drained_after_that_is_promoted(
    driver: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend_module, "_LISTEN_AGAIN", 0.1)
    with running(driver) as server:
        assert isinstance(server, Postgres)
        await set_maintenance_mode(True, server.url)
        with server.standby() as standby:
            async with connected(standby.url) as backend, living(app := app_on(backend)):
                await answers(app, 503)
                assert "during recovery" in await logged_once(caplog, backend)
                with pytest.raises(NotSupportedError, match="during recovery"):
                    async with maintenance_mode_on(backend, drain=60):
                        pytest.fail("the body ran")
                async with backend.engine.connect() as connection:
                    await connection.execute(text("SELECT pg_promote()"))
                async with connected(standby.url) as other:
                    await set_maintenance_mode(False, other)
                await answers(app, 200)
                await wait_for_workers(backend, os.getpid())
                await check_drain(app, backend)


async def test_postgresql_reports_by_reader_omit_a_dead_worker(postgres: Postgres) -> None:
    async with connected(postgres.url) as backend:
        await set_maintenance_mode(False, backend)
        row = f"worker/{backend._workers._switch}/{WORKER}"
        async with backend.engine.begin() as connection:
            await connection.execute(backend.table.insert().values(key=row, state="1 {}"))
        await execute(backend, "CREATE ROLE reader LOGIN; GRANT SELECT ON fastapi_maintenance TO reader")
        for user, left in (("reader", 2), ("postgres", 1)):
            async with connected(postgres.url.replace("postgres@", f"{user}@")) as reading:
                assert await get_workers(reading) == ()
            async with backend.engine.connect() as connection:
                assert await connection.scalar(text("SELECT count(*) FROM fastapi_maintenance")) == left


@each_driver
async def test_postgresql_connection_that_the_server_has_closed_does_not_count_as_a_refusal_to_push(
    postgres: Postgres, driver: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with connected(postgres.url.replace("asyncpg", driver)) as backend, connected(postgres.url) as other:
        await backend.set_value(False)  # the pool keeps the connection
        async with other.engine.connect() as connection:
            others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
            await connection.execute(text(f"{others} AND datname = current_database()"))
        async with living(app := app_on(backend)):
            await wait_for_workers(backend, os.getpid())
            await check_drain(app, backend)
    assert [message for message in messages_of(caplog) if "not pushed" in message] == []


@each_driver
async def test_postgresql_worker_whose_connection_is_lost_while_it_begins_to_listen_signs_with_the_next_one(
    driver: str, url_of: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend_module, "_LISTEN_AGAIN", 3600.0)
    listen = postgresql._LISTENERS[driver]
    lost: list[AsyncConnection] = []

    async def lose_first(connection: AsyncConnection) -> Any:  # noqa: ANN401 -- what the drivers return
        if not lost:
            lost.append(connection)
            raw: Any = (await connection.get_raw_connection()).driver_connection
            await raw.close()
        return await listen(connection)

    monkeypatch.setitem(postgresql._LISTENERS, driver, lose_first)
    async with connected(url_of(driver)) as backend, living(app_on(backend)):
        await wait_for_workers(backend, os.getpid())
    assert len(lost) == 1
