"""`SQLAlchemyBackend`: the table, the connections of the pool, SQLite, and the workers of PostgreSQL."""

from __future__ import annotations

import asyncio
import gc
import os
import re
import sqlite3
import threading
import warnings
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from uuid import uuid4

import anyio
import anyio.lowlevel
import pytest
import sqlalchemy
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.schema import CreateTable

from fastapi_maintenance import (
    MaintenanceState,
    NotSupportedError,
    backend_from_url,
    get_maintenance_state,
    get_workers,
    maintenance_mode_on,
    set_maintenance_mode,
)
from fastapi_maintenance.backends import base as base_module
from fastapi_maintenance.backends.sqlalchemy import SQLAlchemyBackend, maintenance_table
from fastapi_maintenance.backends.sqlalchemy import backend as backend_module
from fastapi_maintenance.backends.sqlalchemy import postgresql as postgresql_module
from fastapi_maintenance.backends.sqlalchemy import table as table_module
from fastapi_maintenance.backends.url import close_if_made_here, opened
from tests.backends.conftest import Place
from tests.backends.helpers import (  # noqa: F401 -- a fixture
    DRIVERS,
    OFF,
    ON,
    WORKER,
    check_drain,
    connected,
    execute,
    messages_of,
    on_asyncio,
    run_python,
    wait_for_workers,
    watched,
)
from tests.middleware.test_failures import app_on, status
from tests.servers import Postgres, running
from tests.support import eventually
from tests.switch.lifespans import answers, living

pytestmark = [pytest.mark.anyio, pytest.mark.servers, pytest.mark.usefixtures("_patient")]


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Lock an SQLite database."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        yield
        other.execute("ROLLBACK")


@pytest.fixture
async def backend(tmp_path: Path) -> AsyncGenerator[SQLAlchemyBackend]:
    async with connected(f"sqlite+aiosqlite:///{tmp_path}/switch.db?timeout=60") as backend:
        yield backend


async def test_sqlalchemy_change_row_changed_there_and_back_is_retried(
    tmp_path: Path, backend: SQLAlchemyBackend
) -> None:
    given: list[MaintenanceState] = []

    async def change_there_and_back() -> None:
        async with opened(f"sqlite+aiosqlite:///{tmp_path}/switch.db") as other:
            for value in (False, True):
                await other.set_value(value)

    def change(state: MaintenanceState) -> MaintenanceState:
        given.append(state)
        if len(given) == 1:
            thread = threading.Thread(target=anyio.run, args=(change_there_and_back,))
            thread.start()
            thread.join(30)
        return state

    await backend.set_value(True)
    await backend.update_state(change)
    async with backend.engine.connect() as connection:
        version = await connection.scalar(sqlalchemy.text("SELECT version FROM fastapi_maintenance"))
    assert (given, version) == ([ON, ON], 3)


async def test_operation_that_is_cancelled_with_its_event_loop_logs_nothing() -> None:
    future = asyncio.get_running_loop().create_future()
    future.cancel()
    table_module._forget(future)
    assert future.cancelled()


async def test_sqlite_that_is_full_raises_and_keeps_its_state(backend: SQLAlchemyBackend) -> None:
    await backend.set_value(True)

    @sqlalchemy.event.listens_for(backend.engine.sync_engine, "connect")
    def be_full(connection: Any, _record: object) -> None:  # noqa: ANN401 -- sqlite3's own
        connection.execute("PRAGMA max_page_count = 1")

    await backend.engine.dispose()
    with pytest.raises(SQLAlchemyError, match="database or disk is full"):
        await set_maintenance_mode(True, backend, message="x" * 4_096)
    assert await backend.get_state() == ON


@pytest.mark.parametrize("driver", DRIVERS)
async def test_postgresql_write_after_a_restart_does_not_fail_on_a_stale_connection(driver: str) -> None:
    with running(driver) as server:
        backend = backend_from_url(server.url)
        await set_maintenance_mode(True, backend)
        server.kill()
        with pytest.raises(OSError if driver == "asyncpg" else DBAPIError):
            await set_maintenance_mode(False, backend)
        server.start()
        await set_maintenance_mode(True, backend, message="kept")
        server.kill()
        server.start()
        await set_maintenance_mode(False, backend)
        assert await get_maintenance_state(backend) == OFF
        await close_if_made_here(backend)


async def test_sqlalchemy_write_refused_by_database_is_not_retried(tmp_path: Path, backend: SQLAlchemyBackend) -> None:
    errors: list[object] = []
    sqlalchemy.event.listen(backend.engine.sync_engine, "handle_error", errors.append)
    with closing(sqlite3.connect(tmp_path / "switch.db")) as other:
        other.execute("CREATE TABLE fastapi_maintenance (something_else)")
    with pytest.raises(DBAPIError, match="no such column"):
        await backend.set_value(True)
    assert len(errors) == 2  # the second one after a look for the table


async def test_sqlite_write_while_it_is_locked_raises_in_time(
    tmp_path: Path, backend: SQLAlchemyBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base_module, "WRITE_TIMEOUT", 0.3)
    await backend.set_value(True)
    with locked(tmp_path / "switch.db"), pytest.raises(TimeoutError):
        await backend.set_value(False)


def test_sqlite_that_was_locked_does_not_keep_its_process_from_ending(tmp_path: Path) -> None:
    program = """
        import sqlite3, sys
        import anyio
        from fastapi_maintenance import set_maintenance_mode
        from tests.middleware.test_failures import app_on
        from tests.switch.lifespans import answers, living

        async def live(path):
            url = f"sqlite+aiosqlite:///{path}"
            await set_maintenance_mode(True, url)
            app = app_on(url + "?timeout=0.1", read_timeout=60)
            async with living(app):
                await answers(app, 503)
                other = sqlite3.connect(path, isolation_level=None)
                other.execute("BEGIN EXCLUSIVE")
                await anyio.sleep(1.05)  # until it is being polled
            other.close()

        async def main():
            async with anyio.create_task_group() as group:
                for number in range(5):
                    group.start_soon(live, f"{sys.argv[1]}{number}")

        anyio.run(main)
    """
    run_python(program, tmp_path / "switch.db")


async def test_sqlalchemy_row_that_a_person_inserted_is_read_and_written(backend: SQLAlchemyBackend) -> None:
    async with backend.engine.begin() as connection:
        await connection.run_sync(backend.table.metadata.create_all)
        await connection.execute(
            sqlalchemy.text("INSERT INTO fastapi_maintenance (key, state) VALUES ('fastapi_maintenance_mode', 'on')")
        )
    assert await backend.get_value()
    await backend.set_value(False)
    assert not await backend.get_value()


async def test_close_engine_waits_for_cancelled_operations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table_module, "_GRACE", 0)
    backend = backend_from_url(f"sqlite+aiosqlite:///{tmp_path}/switch.db?timeout=60")
    reading = asyncio.ensure_future(backend.get_value())
    while not table_module._unfinished:  # noqa: ASYNC110 -- it has no event
        await asyncio.sleep(0)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert len(table_module._unfinished) == 1
    await close_if_made_here(backend)
    assert table_module._unfinished == set()
    await close_if_made_here(backend)


async def test_sqlalchemy_leaves_connections_of_the_pool_as_they_were(url_of: Callable[[str], str]) -> None:
    url = url_of("asyncpg")
    engine = create_async_engine(url, pool_size=1, max_overflow=0)
    await SQLAlchemyBackend(engine).set_value(True)
    async with engine.connect() as connection:
        assert await connection.get_isolation_level() == "READ COMMITTED"
    await engine.dispose()


@pytest.mark.parametrize("dialect", [mysql, postgresql, sqlite])
def test_maintenance_table_can_be_created_in_each_database(dialect: ModuleType) -> None:
    statement = str(CreateTable(maintenance_table(sqlalchemy.MetaData())).compile(dialect=dialect.dialect()))
    words = " ".join(re.sub(r"[`\"]", "", statement).split()).replace("NOT NULL DEFAULT '0'", "DEFAULT '0' NOT NULL")
    assert words == (
        "CREATE TABLE fastapi_maintenance ( key VARCHAR(255) NOT NULL, state TEXT NOT NULL, "
        "version INTEGER DEFAULT '0' NOT NULL, PRIMARY KEY (key) )"
    )


@pytest.mark.parametrize("driver", DRIVERS)
async def test_postgresql_reads_that_are_cancelled_leave_no_connection_to_the_garbage_collector(
    driver: str, url_of: Callable[[str], str]
) -> None:
    async with Place(driver, url_of(driver)).opened() as backend:
        await backend.set_value(True)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for turns in range(60):
                if turns % 4 == 0:
                    await table_module.finish_operations()
                    await backend.engine.dispose()  # so that some have to connect
                reading = asyncio.ensure_future(backend.get_state())
                for _ in range(turns):
                    await anyio.lowlevel.checkpoint()
                reading.cancel()
                await asyncio.wait([reading])
            gc.collect()
    assert [str(warning.message) for warning in caught] == []


@pytest.mark.parametrize("is_open", [True, False])
async def test_connection_that_is_opened_when_its_caller_is_cancelled_is_closed(is_open: bool) -> None:
    closed: list[str] = []

    class Connection:
        async def close(self) -> None:
            closed.append("closed")

    async def open_and_cancel() -> Connection:
        connecting.cancel()
        if not is_open:  # the caller is cancelled before
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        return Connection()

    engine: Any = SimpleNamespace(connect=open_and_cancel, dialect=SimpleNamespace(name="postgresql"))
    connecting: asyncio.Future[Any] = asyncio.ensure_future(table_module.open_connection(engine))
    with pytest.raises(asyncio.CancelledError):
        await connecting
    assert closed == ["closed"]


async def test_postgresql_not_pushed_is_logged_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(_engine: object) -> None:
        raise postgresql_module.NotPushedError("refused")  # noqa: EM101 -- whatever the server says

    monkeypatch.setattr(postgresql_module, "listening", refuse)
    backend = SQLAlchemyBackend(create_async_engine("postgresql+asyncpg://nobody@127.0.0.1:1/nowhere"))
    for _ in range(2):
        async with backend._listening() as (read, _wait):
            assert read == backend.get_state
    text = f"Changes of {backend!r} are not pushed: it is polled every 1 s, and drains ignore this process: refused"
    assert caplog.messages == [text]


# Workers


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
                    await connection.execute(sqlalchemy.text("SELECT pg_promote()"))
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
                assert await connection.scalar(sqlalchemy.text("SELECT count(*) FROM fastapi_maintenance")) == left


@each_driver
async def test_postgresql_connection_that_the_server_has_closed_does_not_count_as_a_refusal_to_push(
    postgres: Postgres, driver: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with connected(postgres.url.replace("asyncpg", driver)) as backend, connected(postgres.url) as other:
        await backend.set_value(False)  # the pool keeps the connection
        async with other.engine.connect() as connection:
            others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
            await connection.execute(sqlalchemy.text(f"{others} AND datname = current_database()"))
        async with living(app := app_on(backend)):
            await wait_for_workers(backend, os.getpid())
            await check_drain(app, backend)
    assert [message for message in messages_of(caplog) if "not pushed" in message] == []


@each_driver
async def test_postgresql_worker_whose_connection_is_lost_while_it_begins_to_listen_signs_with_the_next_one(
    driver: str, url_of: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend_module, "_LISTEN_AGAIN", 3600.0)
    listen = postgresql_module._LISTENERS[driver]
    lost: list[AsyncConnection] = []

    async def lose_first(connection: AsyncConnection) -> Any:  # noqa: ANN401 -- what the drivers return
        if not lost:
            lost.append(connection)
            raw: Any = (await connection.get_raw_connection()).driver_connection
            await raw.close()
        return await listen(connection)

    monkeypatch.setitem(postgresql_module._LISTENERS, driver, lose_first)
    async with connected(url_of(driver)) as backend, living(app_on(backend)):
        await wait_for_workers(backend, os.getpid())
    assert len(lost) == 1


async def test_postgresql_watch_that_waits_for_the_lock_of_its_worker_raises_in_time(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with connected(postgres.url) as backend, backend.engine.connect() as other:
        await other.execute(sqlalchemy.select(sqlalchemy.func.pg_advisory_lock(backend._workers._lock())))
        monkeypatch.setattr(postgresql_module, "ANSWER_TIMEOUT", 0.3)
        with pytest.raises(TimeoutError, match="no answer within"):
            await anext(backend.watch())


@pytest.mark.parametrize("method", ["read_row", "write_row"])
@pytest.mark.parametrize("before", [[], ["first"]])
@pytest.mark.parametrize("after", [[], ["new"]])
async def test_postgresql_sign_that_is_cancelled_and_late_changes_nothing(
    method: str, before: list[str], after: list[str], postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with connected(postgres.url) as backend, watched(backend):
        await backend.set_value(False)
        workers, original = backend.workers, getattr(backend._rows, method)
        for report in before:
            await workers.sign(WORKER, report)
        is_late, may_go_on = anyio.Event(), anyio.Event()

        async def be_late(connection: AsyncConnection, key: str, *row: object) -> object:
            if key != backend.key and not is_late.is_set():
                is_late.set()
                await may_go_on.wait()
            return await original(connection, key, *row)

        monkeypatch.setattr(backend._rows, method, be_late)
        signing = asyncio.ensure_future(workers.sign(WORKER, "old"))
        await is_late.wait()
        signing.cancel()
        await asyncio.wait([signing])
        for report in after:
            await workers.sign(WORKER, report)
        if not after:
            await workers.leave(WORKER)
        may_go_on.set()
        await table_module.finish_operations()
        assert await workers.reports() == dict.fromkeys([WORKER] if after else [], "new")


async def test_postgresql_sign_at_the_same_time_as_another_write_of_its_row_is_stored(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with connected(postgres.url) as backend, watched(backend):
        await backend.set_value(False)
        await backend.workers.sign(WORKER, "first")
        write = backend._rows.write_row

        async def be_overtaken(*args: Any) -> bool:  # noqa: ANN401 -- passed on
            monkeypatch.undo()
            await execute(backend, "UPDATE fastapi_maintenance SET version = version + 1")
            return bool(await write(*args))

        monkeypatch.setattr(backend._rows, "write_row", be_overtaken)
        await backend.workers.sign(WORKER, "new")
        assert await backend.workers.reports() == {WORKER: "new"}


async def test_sqlite_that_is_locked_holds_no_request(tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path}/switch.db"
    app = app_on(f"{url}?timeout=0.1", read_timeout=3600)
    await set_maintenance_mode(True, url)
    async with living(app):
        assert await status(app) == 503
        with locked(tmp_path / "switch.db"):
            for _ in range(12):  # for longer than a second, after which it is polled
                assert await status(app) == 503
                await anyio.sleep(0.1)
        await set_maintenance_mode(False, url)
        await answers(app, 200)


async def test_maintenance_table_in_a_metadata_with_a_schema_is_used(url_of: Callable[[str], str]) -> None:
    url = url_of("asyncpg")
    engine = create_async_engine(url)
    metadata = sqlalchemy.MetaData(schema="shop")
    backend = SQLAlchemyBackend(engine, metadata=metadata, table_name="switches")
    assert backend.table is maintenance_table(metadata, "switches")
    assert await backend.get_state() == OFF
    async with engine.begin() as connection:
        await connection.execute(sqlalchemy.schema.CreateSchema("shop"))
        await connection.run_sync(metadata.create_all)
    await set_maintenance_mode(True, backend, message="In a schema")
    async with engine.connect() as connection:
        rows = await connection.execute(sqlalchemy.text("SELECT key, version FROM shop.switches"))
        assert [tuple(row) for row in rows] == [("fastapi_maintenance_mode", 0)]
    await engine.dispose()
