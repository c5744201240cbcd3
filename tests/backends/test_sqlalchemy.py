"""What is particular to databases: the table, connections of a pool, and SQLite."""

from __future__ import annotations

import asyncio
import gc
import re
import sqlite3
import subprocess
import sys
import textwrap
import threading
import warnings
from collections.abc import AsyncGenerator, Callable
from contextlib import closing
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, cast

import anyio
import anyio.lowlevel
import pytest
import sqlalchemy
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.schema import CreateTable

from fastapi_maintenance import MaintenanceState, Switch, backend_from_url, get_maintenance_state, set_maintenance_mode
from fastapi_maintenance.backends import base as base_module
from fastapi_maintenance.backends.sqlalchemy import SQLAlchemyBackend, maintenance_table, operations
from fastapi_maintenance.backends.sqlalchemy import postgresql as postgresql_module
from fastapi_maintenance.backends.sqlalchemy.postgresql import NotPushedError
from fastapi_maintenance.backends.url import close_if_made_here, opened
from tests.backends.helpers import on_asyncio  # noqa: F401 -- a fixture
from tests.backends.places import Place
from tests.middleware.test_failures import app_on, status
from tests.servers import running
from tests.support import ROOT, eventually
from tests.switch.lifespans import answers, living

pytestmark = [pytest.mark.anyio, pytest.mark.servers, pytest.mark.usefixtures("_patient")]
ON = MaintenanceState(switch=Switch(on=True))
OFF = MaintenanceState()
RESTORED = MaintenanceState(switch=Switch(on=True, message="Restored"))


@pytest.fixture
async def backend(tmp_path: Path) -> AsyncGenerator[SQLAlchemyBackend]:
    """Give a backend on an SQLite of its own."""
    async with opened(f"sqlite+aiosqlite:///{tmp_path}/switch.db?timeout=60") as backend:
        yield cast("SQLAlchemyBackend", backend)


async def test_a_change_is_made_again_where_others_changed_the_row_there_and_back(tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path}/switch.db"
    given: list[MaintenanceState] = []

    async def there_and_back() -> None:
        other = backend_from_url(url)
        for value in (False, True):
            await other.set_value(value)
        await close_if_made_here(other)

    def change(state: MaintenanceState) -> MaintenanceState:
        given.append(state)
        if len(given) == 1:
            thread = threading.Thread(target=anyio.run, args=(there_and_back,))
            thread.start()
            thread.join(30)
        return state

    async with Place("sqlite", url).opened() as backend:
        await backend.set_value(True)
        await backend.update_state(change)
        async with backend.engine.connect() as connection:
            version = await connection.scalar(sqlalchemy.text("SELECT version FROM fastapi_maintenance"))
        assert ([ON, ON], 3) == (given, version)


async def test_what_a_database_has_done_is_not_kept(backend: SQLAlchemyBackend) -> None:
    await backend.set_value(True)
    await eventually(lambda: not operations._unfinished)


async def test_an_operation_that_is_cancelled_with_its_event_loop_is_not_complained_of() -> None:
    future = asyncio.get_running_loop().create_future()
    future.cancel()
    operations._forget(future)
    assert future.cancelled()


async def test_a_full_sqlite_refuses_and_goes_on_telling_what_it_has(backend: SQLAlchemyBackend) -> None:
    await backend.set_value(True)

    @sqlalchemy.event.listens_for(backend.engine.sync_engine, "connect")
    def be_full(connection: Any, _record: object) -> None:  # noqa: ANN401 -- sqlite3's own
        connection.execute("PRAGMA max_page_count = 1")

    await backend.engine.dispose()
    with pytest.raises(SQLAlchemyError, match="database or disk is full"):
        await set_maintenance_mode(True, backend, message="x" * 4_096)
    assert ON == await backend.get_state()


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
async def test_the_first_write_after_a_restart_does_not_fail_on_a_stale_connection(driver: str) -> None:
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
        assert OFF == await get_maintenance_state(backend)
        await close_if_made_here(backend)


async def test_what_a_database_refuses_is_not_tried_again(
    tmp_path: Path, backend: SQLAlchemyBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(sqlite3.connect(tmp_path / "switch.db")) as other:
        other.execute("CREATE TABLE fastapi_maintenance (something_else)")
    tries: list[object] = []
    try_once = backend._change

    def counted(change: Any, connection: Any) -> Any:  # noqa: ANN401 -- as the method has it
        tries.append(change)
        return try_once(change, connection)

    monkeypatch.setattr(backend, "_change", counted)
    with pytest.raises(DBAPIError, match="no such column"):
        await backend.set_value(True)
    assert 1 == len(tries)


async def test_a_write_to_a_locked_sqlite_is_given_up_in_time(
    tmp_path: Path, backend: SQLAlchemyBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base_module, "WRITE_TIMEOUT", 0.3)
    await backend.set_value(True)
    with closing(sqlite3.connect(tmp_path / "switch.db", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(TimeoutError):
            await backend.set_value(False)
        other.execute("ROLLBACK")


async def test_a_sqlite_that_is_locked_holds_no_request(tmp_path: Path) -> None:
    path = tmp_path / "switch.db"
    app = app_on(f"sqlite+aiosqlite:///{path}?timeout=0.1", read_timeout=3600)
    await set_maintenance_mode(True, f"sqlite+aiosqlite:///{path}")
    async with living(app):
        assert 503 == await status(app)
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            for _ in range(12):  # longer than a second, after which it is looked at
                assert 503 == await status(app)
                await anyio.sleep(0.1)
            other.execute("ROLLBACK")
        await set_maintenance_mode(False, f"sqlite+aiosqlite:///{path}")
        await answers(app, 200)


def test_a_process_ends_although_its_sqlite_was_locked(tmp_path: Path) -> None:
    """What is cut off in the middle of a read must not keep the event loop from closing."""
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
                await anyio.sleep(1.05)  # until it is being looked at
            other.close()

        async def main():
            async with anyio.create_task_group() as group:
                for number in range(5):
                    group.start_soon(live, f"{sys.argv[1]}{number}")

        anyio.run(main)
    """
    command = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(program), str(tmp_path / "switch.db")]
    assert 0 == subprocess.run(command, cwd=ROOT, timeout=120, check=False).returncode


async def test_the_table_can_be_made_by_migrations_in_a_metadata_with_a_schema(url_of: Callable[[str], str]) -> None:
    url = url_of("asyncpg")
    engine = create_async_engine(url)
    metadata = sqlalchemy.MetaData(schema="shop")
    backend = SQLAlchemyBackend(engine, metadata=metadata, table_name="switches")
    assert backend.table is maintenance_table(metadata, "switches")
    assert OFF == await backend.get_state()
    async with engine.begin() as connection:
        await connection.execute(sqlalchemy.schema.CreateSchema("shop"))
        await connection.run_sync(metadata.create_all)
    await set_maintenance_mode(True, backend, message="In a schema")
    async with engine.connect() as connection:
        rows = await connection.execute(sqlalchemy.text("SELECT key, version FROM shop.switches"))
        assert [("fastapi_maintenance_mode", 0)] == [tuple(row) for row in rows]
    await engine.dispose()


async def test_a_row_that_a_person_inserted_will_do(backend: SQLAlchemyBackend) -> None:
    async with backend.engine.begin() as connection:
        await connection.run_sync(backend.table.metadata.create_all)
        await connection.execute(
            sqlalchemy.text("INSERT INTO fastapi_maintenance (key, state) VALUES ('fastapi_maintenance_mode', 'on')")
        )
    assert await backend.get_value()
    await backend.set_value(False)
    assert not await backend.get_value()


async def test_close_engine_waits_for_operations_of_sqlite_that_were_cancelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operations, "_GRACE", 0)
    backend = backend_from_url(f"sqlite+aiosqlite:///{tmp_path}/switch.db?timeout=60")
    reading = asyncio.ensure_future(backend.get_value())
    while not operations._unfinished:  # noqa: ASYNC110 -- it has no event
        await asyncio.sleep(0)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert len(operations._unfinished) == 1
    await close_if_made_here(backend)
    assert operations._unfinished == set()
    await close_if_made_here(backend)


async def test_a_connection_of_the_pool_is_left_as_it_was(url_of: Callable[[str], str]) -> None:
    url = url_of("asyncpg")
    engine = create_async_engine(url, pool_size=1, max_overflow=0)
    await SQLAlchemyBackend(engine).set_value(True)
    async with engine.connect() as connection:
        assert "READ COMMITTED" == await connection.get_isolation_level()
    await engine.dispose()


@pytest.mark.parametrize("dialect", [mysql, postgresql, sqlite])
def test_the_table_is_one_that_each_database_can_make(dialect: ModuleType) -> None:
    table = maintenance_table(sqlalchemy.MetaData())
    statement = str(CreateTable(table).compile(dialect=dialect.dialect()))
    words = (
        re.sub(r"\s+", " ", re.sub(r"[`\"]", "", statement))
        .strip()
        .replace("NOT NULL DEFAULT '0'", "DEFAULT '0' NOT NULL")
    )
    assert (
        "CREATE TABLE fastapi_maintenance ( key VARCHAR(255) NOT NULL, state TEXT NOT NULL, "
        "version INTEGER DEFAULT '0' NOT NULL, PRIMARY KEY (key) )"
    ) == words


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
async def test_reads_that_are_cut_off_leave_no_connection_to_the_collector(
    driver: str, url_of: Callable[[str], str]
) -> None:
    async with Place(driver, url_of(driver)).opened() as backend:
        await backend.set_value(True)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for turns in range(60):
                if turns % 4 == 0:
                    await backend.engine.dispose()  # so that some have to connect
                reading = asyncio.ensure_future(backend.get_state())
                for _ in range(turns):
                    await anyio.lowlevel.checkpoint()
                reading.cancel()
                await asyncio.wait([reading])
            gc.collect()
    assert [str(warning.message) for warning in caught] == []


async def test_connection_that_was_just_opened_when_its_caller_is_cancelled_is_closed() -> None:
    closed: list[str] = []

    class Connection:
        async def close(self) -> None:
            closed.append("closed")

    async def open_and_cancel() -> Connection:
        connecting.cancel()
        return Connection()

    engine: Any = SimpleNamespace(connect=open_and_cancel, dialect=SimpleNamespace(name="postgresql"))
    connecting: asyncio.Future[Any] = asyncio.ensure_future(operations.connect(engine))
    with pytest.raises(asyncio.CancelledError):
        await connecting
    assert closed == ["closed"]


async def test_refusal_to_push_is_logged_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(_engine: object) -> None:
        raise NotPushedError("refused")  # noqa: EM101 -- whatever the server says

    monkeypatch.setattr(postgresql_module, "listening", refuse)
    backend = SQLAlchemyBackend(create_async_engine("postgresql+asyncpg://nobody@127.0.0.1:1/nowhere"))
    for _ in range(2):
        async with backend._listening() as (read, _wait):
            assert read == backend.get_state
    text = f"Changes of {backend!r} are not pushed, it is read each 1 s, and no drain waits for this process: refused"
    assert caplog.messages == [text]
