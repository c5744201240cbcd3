"""What every shared store does, on real servers: read, change, tell, refuse."""

from __future__ import annotations

import asyncio
import re
import sqlite3
import subprocess
import sys
import textwrap
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, closing
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import anyio
import anyio.lowlevel
import pytest
import redis.asyncio
import sqlalchemy
from redis.asyncio.client import PubSub
from redis.crc import key_slot
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.schema import CreateTable

from fastapi_maintenance import (
    InvalidStateError,
    MaintenanceState,
    NotSupportedError,
    StateBackend,
    backend_from_url,
    get_maintenance_mode,
    get_maintenance_state,
    maintenance_mode_on,
    set_maintenance_mode,
)
from fastapi_maintenance.backends import base as base_module
from fastapi_maintenance.backends import redis as redis_module
from fastapi_maintenance.backends.redis import RedisBackend
from fastapi_maintenance.backends.sqlalchemy import SQLAlchemyBackend, maintenance_table
from fastapi_maintenance.backends.sqlalchemy import sqlite as sqlite_module
from fastapi_maintenance.backends.url import close_if_made_here
from fastapi_maintenance.testing import moved_clock
from fastapi_maintenance.typing import DetailedStateBackend, WatchableStateBackend
from tests.documents import examples_of
from tests.middleware.test_failures import app_on, status
from tests.servers import Server, running
from tests.support import ROOT, eventually
from tests.switch.test_following import living

pytestmark = [pytest.mark.anyio, pytest.mark.servers]

KINDS = ["redis", "redis-text", "cluster", "asyncpg", "psycopg", "sqlite"]
ON = MaintenanceState(active=True)
OFF = MaintenanceState()


@dataclass
class Place:
    """A running store."""

    kind: str
    url: str

    @property
    def is_redis(self) -> bool:
        """Tell whether it speaks the protocol of Redis."""
        return self.kind in {"redis", "redis-text", "cluster"}

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Any]:
        """Give a backend with a client of its own, as another process has it."""
        backend = backend_from_url(self.url)
        try:
            yield backend
        finally:
            await close_if_made_here(backend)

    async def write_by_hand(self, text: str | bytes) -> None:
        """Set the value as a person or another program does."""
        async with self.opened() as backend:
            if isinstance(backend, RedisBackend):
                await backend.client.set(backend.key, text)
                return
            assert isinstance(backend, SQLAlchemyBackend)
            await backend.set_value(False)  # makes the table and the row
            async with backend.engine.begin() as connection:
                await connection.execute(
                    sqlalchemy.text("UPDATE fastapi_maintenance SET state = :text"), {"text": text}
                )


@pytest.fixture
def anyio_backend() -> str:
    """Run on asyncio, as the clients do."""
    return "asyncio"


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """Start a store of each kind."""
    kind: str = request.param
    if kind == "sqlite":
        yield Place(kind, f"sqlite+aiosqlite:///{tmp_path}/switch.db")
        return
    with running(kind.removesuffix("-text")) as server:
        yield Place(kind, server.url + ("?decode_responses=1" if kind == "redis-text" else ""))


async def test_nothing_there_is_off_and_reading_makes_nothing(place: Place) -> None:
    async with place.opened() as backend:
        assert (False, OFF) == (await backend.get_value(), await backend.get_state())
        if isinstance(backend, RedisBackend):
            assert 0 == await backend.client.exists(backend.key)
        else:
            async with backend.engine.connect() as connection:
                assert [] == await connection.run_sync(lambda sync: sqlalchemy.inspect(sync).get_table_names())


async def test_a_state_with_everything_is_read_by_others(place: Place) -> None:
    starts_at = datetime.now(timezone.utc) - timedelta(minutes=1)
    ends_at = starts_at + timedelta(hours=1)
    async with place.opened() as one, place.opened() as other:
        await set_maintenance_mode(True, one, message="Zurück um zehn ☕", starts_at=starts_at, ends_at=ends_at)
        async with maintenance_mode_on(one, message="Deployment", lease=60):
            state = await other.get_state()
            assert ("Zurück um zehn ☕", starts_at, ends_at) == (state.message, state.starts_at, state.ends_at)
            assert ["Deployment"] == [hold.message for hold in state.holds]
            await set_maintenance_mode(False, other)
            assert await get_maintenance_mode(other)
        assert not await get_maintenance_mode(other)


@pytest.mark.parametrize(
    ("text", "state"),
    [
        ("1", ON),
        ("true", ON),
        (" Yes\n", ON),
        ("off", OFF),
        ('{"active": true, "message": "By hand"}', MaintenanceState(active=True, message="By hand")),
    ],
)
async def test_what_a_person_wrote_is_understood(place: Place, text: str, state: MaintenanceState) -> None:
    await place.write_by_hand(text)
    async with place.opened() as backend:
        assert state == await backend.get_state()


@pytest.mark.parametrize("text", ["perhaps", '{"active": tr', b"\xff\xfe"])
async def test_garbage_is_an_error_to_readers_and_other_changes_and_replaced_when_the_switch_is_set(
    place: Place, text: str | bytes, caplog: pytest.LogCaptureFixture
) -> None:
    if isinstance(text, bytes) and not place.is_redis:
        text = "\x01"
    await place.write_by_hand(text)
    async with place.opened() as backend:
        with pytest.raises(InvalidStateError):
            await backend.get_state()
        with pytest.raises(InvalidStateError):
            await backend.update_state(lambda state: state)
        await set_maintenance_mode(True, backend)
        assert ON == await backend.get_state()
    (record,) = [record for record in caplog.records if record.name == "fastapi_maintenance"]
    message = record.getMessage()
    assert message.startswith(f"{backend!r} is replaced, as if it had been off: ")
    assert message.partition(" off: ")[2].startswith(("value must be", "text must be"))


@pytest.mark.parametrize("value", [1, "1", None])
async def test_only_a_boolean_can_be_set(place: Place, value: bool) -> None:
    async with place.opened() as backend:
        with pytest.raises(TypeError, match="value must be True or False"):
            await backend.set_value(value)


async def test_a_window_counts_for_the_bare_value_too(place: Place) -> None:
    async with place.opened() as backend:
        values = []
        for days in (1, -1):
            end = datetime.now(timezone.utc) + timedelta(days=days)
            await backend.update_state(lambda _, end=end: MaintenanceState(active=True, ends_at=end))
            values.append(await backend.get_value())
    assert [True, False] == values


@pytest.mark.parametrize("before", [None, "1", "0", ""])
async def test_what_is_set_by_hand_while_a_change_is_made_is_what_is_changed(before: str | None) -> None:
    seen: list[MaintenanceState] = []
    with running("redis") as server, redis.Redis.from_url(server.url) as by_hand:
        place = Place("redis", server.url)

        def change(state: MaintenanceState) -> MaintenanceState:
            if not seen:
                by_hand.set("fastapi_maintenance_mode", '{"active": false, "message": "By hand"}')
            seen.append(state)
            return replace(state, active=True)

        if before is not None:
            await place.write_by_hand(before)
        async with place.opened() as backend:
            assert MaintenanceState(active=True, message="By hand") == await backend.update_state(change)
    assert [None, "By hand"] == [state.message for state in seen]


async def test_an_empty_key_is_off_and_can_be_changed() -> None:
    with running("redis") as server:
        place = Place("redis", server.url)
        await place.write_by_hand("")
        async with place.opened() as backend:
            assert OFF == await backend.get_state()
            await backend.set_value(True)
            assert ON == await backend.get_state()


@pytest.mark.parametrize("key", ["mode", "{shop}:mode", "a{b"])
async def test_the_count_of_changes_lies_in_the_slot_of_the_key(key: str) -> None:
    backend = RedisBackend(redis.asyncio.Redis(), key)
    assert key_slot(key.encode()) == key_slot(backend._count_key.encode())


def test_a_store_is_looked_at_each_second_unless_told_otherwise() -> None:
    engine = create_async_engine("sqlite+aiosqlite://")
    assert (1.0, 1.0) == (RedisBackend(redis.asyncio.Redis()).poll_interval, SQLAlchemyBackend(engine).poll_interval)


async def test_setting_the_switch_leaves_holds_open(place: Place) -> None:
    async with place.opened() as backend, maintenance_mode_on(backend):
        await backend.set_value(False)
        assert 1 == len((await backend.get_state()).holds)


async def test_many_changes_at_once_are_all_made(place: Place) -> None:
    async with place.opened() as one, place.opened() as other, anyio.create_task_group() as group:
        for _ in range(10):
            group.start_soon(one.update_state, counted)
            group.start_soon(other.update_state, counted)
    async with place.opened() as backend:
        assert "20" == (await backend.get_state()).message


def counted(state: MaintenanceState) -> MaintenanceState:
    """Return the state with a message that counts how often this was done."""
    return replace(state, message=str(int(state.message or "0") + 1))


def test_changes_by_many_processes_at_once_are_all_made(place: Place) -> None:
    program = """
        import sys
        from dataclasses import replace
        import anyio
        from fastapi_maintenance import backend_from_url

        def counted(state):
            return replace(state, active=True, message=str(int(state.message or 0) + 1))

        async def change():
            backend = backend_from_url(sys.argv[1])
            for _ in range(25):
                await backend.update_state(counted)

        anyio.run(change)
    """
    command = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(program), place.url]
    processes = [subprocess.Popen(command, cwd=ROOT) for _ in range(4)]
    assert [0, 0, 0, 0] == [process.wait(timeout=60) for process in processes]

    async def look() -> None:
        async with place.opened() as backend:
            assert "100" == (await backend.get_state()).message

    anyio.run(look)


async def test_a_change_that_was_given_up_and_arrives_late_is_refused() -> None:
    """A block is cancelled while its first write is on the way; the write arrives after the block was closed."""
    with running("redis") as server:
        backend = cast("RedisBackend", backend_from_url(server.url))
        await backend.set_value(False)
        send, late = backend.client.eval, list[tuple[Any, ...]]()

        async def be_late(*words: Any) -> None:  # noqa: ANN401 -- what eval takes
            backend.client.eval = send  # type: ignore[method-assign]
            late.append(words)
            await anyio.sleep_forever()

        backend.client.eval = be_late  # type: ignore[assignment, method-assign]
        with anyio.move_on_after(0.2):
            async with maintenance_mode_on(backend):
                pytest.fail("it cannot have opened")
        assert 0 == await send(*late[0])
        assert OFF == await backend.get_state()
        await close_if_made_here(backend)


async def test_a_write_that_others_are_always_faster_than_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    with running("redis") as server:
        backend = cast("RedisBackend", backend_from_url(server.url))
        monkeypatch.setattr(redis_module, "_SWAP", "return 0")
        monkeypatch.setattr(base_module, "WRITE_TIMEOUT", 0.3)
        with anyio.move_on_after(30) as bound:
            with pytest.raises(TimeoutError):
                await backend.set_value(True)
        assert (False, OFF) == (bound.cancelled_caught, await backend.get_state())
        await close_if_made_here(backend)


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


async def test_what_a_database_has_done_is_not_kept(tmp_path: Path) -> None:
    async with Place("sqlite", f"sqlite+aiosqlite:///{tmp_path}/switch.db").opened() as backend:
        await backend.set_value(True)

        async def nothing_is_kept() -> bool:
            return not sqlite_module._unfinished

        await eventually(nothing_is_kept)


async def test_an_operation_that_is_cancelled_with_its_event_loop_is_not_complained_of() -> None:
    future = asyncio.get_running_loop().create_future()
    future.cancel()
    sqlite_module._forget(future)
    assert future.cancelled()


async def test_a_channel_is_given_the_time_to_close_where_its_watch_is_cancelled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    closed: list[bool] = []

    async def close(_pubsub: object) -> None:
        await anyio.lowlevel.checkpoint()
        closed.append(True)

    backend = cast("RedisBackend", backend_from_url("redis://localhost"))
    pubsub = backend.client.pubsub()
    monkeypatch.setattr(PubSub, "aclose", close)
    with anyio.CancelScope() as scope:
        scope.cancel()
        await redis_module._close(pubsub)
    assert [True] == closed


async def test_what_is_written_by_url_counts_at_once_in_this_process(place: Place) -> None:
    if place.kind == "cluster":
        pytest.skip("two clients of a Cluster are not known to be of the same one")
    app = app_on(place.url)
    await set_maintenance_mode(False, place.url)
    async with living(app):
        for active in (True, False) * 5:
            await set_maintenance_mode(active, place.url)
            assert (503 if active else 200) == await status(app)
        async with maintenance_mode_on(place.url):
            assert 503 == await status(app)
        assert 200 == await status(app)


async def test_what_another_process_undoes_at_once_is_seen(place: Place) -> None:
    app = app_on(place.url)
    async with living(app), place.opened() as other:
        for _ in range(3):
            await set_maintenance_mode(True, place.url)
            await other.set_value(False)  # past this process's own knowledge

            async def is_open() -> bool:
                return 200 == await status(app)

            await eventually(is_open)
            await anyio.sleep(0.05)
            assert 200 == await status(app)


# Watching


@asynccontextmanager
async def told(backend: WatchableStateBackend) -> AsyncIterator[list[MaintenanceState]]:
    """Watch, and give the list of what was told."""
    states: list[MaintenanceState] = []

    async def listen() -> None:
        async for state in backend.watch():
            states.append(state)  # noqa: PERF401 -- each at once

    async with anyio.create_task_group() as group:
        group.start_soon(listen)
        yield states
        group.cancel_scope.cancel()


async def eventually_told(states: list[MaintenanceState]) -> None:
    """Wait until the first state has been told."""

    async def has_begun() -> bool:
        return bool(states)

    await eventually(has_begun)


async def test_watching_tells_the_state_at_once_and_then_each_change(place: Place) -> None:
    async with place.opened() as writer, place.opened() as reader:
        if place.kind not in {"cluster", "sqlite"}:  # the others push, and are not looked at meanwhile
            reader.poll_interval = 60.0
        await set_maintenance_mode(True, writer, message="first")
        async with told(reader) as states:
            for message in ["first", "second", "third"]:

                async def is_told(wanted: str = message) -> bool:
                    return wanted in [state.message for state in states]

                await set_maintenance_mode(True, writer, message=message)
                await eventually(is_told)
        assert ["first", "second", "third"] == list(dict.fromkeys(state.message for state in states))


async def test_a_change_by_hand_is_told_when_the_key_is_looked_at_again(place: Place) -> None:
    await place.write_by_hand("0")
    async with place.opened() as backend:
        backend.poll_interval = 0.05
        async with told(backend) as states:

            async def is_told() -> bool:
                return states[-1:] == [ON]

            await eventually_told(states)
            if place.is_redis:
                await place.write_by_hand("1")
            else:
                async with backend.engine.begin() as connection:
                    await connection.execute(sqlalchemy.text("UPDATE fastapi_maintenance SET state = '1'"))
            await eventually(is_told)


async def test_watching_leaves_no_connection_behind(place: Place) -> None:
    async with place.opened() as backend, place.opened() as counter:
        connections = connections_to(place, counter)
        await backend.set_value(True)
        before = await connections()
        for _ in range(5):
            async with told(backend) as states:
                await eventually_told(states)

        async def as_before() -> bool:
            return bool(await connections() <= before)

        await eventually(as_before)


def connections_to(place: Place, backend: Any) -> Callable[[], Any]:  # noqa: ANN401 -- any of the backends
    """Return a function that counts the connections to the store."""

    async def count() -> int:
        if place.is_redis:
            node = backend.client.get_default_node() if place.kind == "cluster" else None
            clients = await (
                backend.client.execute_command("CLIENT LIST", target_nodes=node)
                if node
                else backend.client.client_list()
            )
            return len(clients)
        if place.kind == "sqlite":
            return cast("int", backend.engine.pool.checkedout())
        async with backend.engine.connect() as connection:
            rows = await connection.execute(
                sqlalchemy.text("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'")
            )
            return cast("int", rows.scalar_one())

    return count


# Stores that refuse


async def test_a_full_redis_refuses_and_goes_on_telling_what_it_has() -> None:
    with running("redis") as server:
        backend = cast("RedisBackend", backend_from_url(server.url))
        await backend.set_value(True)
        await backend.client.config_set("maxmemory", "1")
        with pytest.raises(redis.RedisError, match="maxmemory"):
            await set_maintenance_mode(False, backend)
        assert ON == await backend.get_state()
        await backend.client.config_set("maxmemory", "0")
        await set_maintenance_mode(False, backend)
        assert OFF == await backend.get_state()
        await close_if_made_here(backend)


async def test_a_full_sqlite_refuses_and_goes_on_telling_what_it_has(tmp_path: Path) -> None:
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/switch.db")
    backend = SQLAlchemyBackend(engine)
    await backend.set_value(True)

    @sqlalchemy.event.listens_for(engine.sync_engine, "connect")
    def be_full(connection: Any, _record: object) -> None:  # noqa: ANN401 -- sqlite3's own
        connection.execute("PRAGMA max_page_count = 1")

    await engine.dispose()
    with pytest.raises(SQLAlchemyError, match="database or disk is full"):
        await set_maintenance_mode(True, backend, message="x" * 4_096)
    assert ON == await backend.get_state()
    await engine.dispose()


async def test_a_read_only_postgresql_refuses() -> None:
    with running("asyncpg") as server:
        engine = create_async_engine(
            server.url, connect_args={"server_settings": {"default_transaction_read_only": "on"}}
        )
        for backend in (SQLAlchemyBackend(engine), backend_from_url(server.url)):
            assert OFF == await get_maintenance_state(backend)
        with pytest.raises(DBAPIError, match="read-only transaction"):
            await set_maintenance_mode(True, SQLAlchemyBackend(engine))
        await engine.dispose()
        await close_if_made_here(backend)


async def test_a_key_that_holds_something_else_is_garbage_too() -> None:
    with running("redis") as server:
        backend = cast("RedisBackend", backend_from_url(server.url))
        await backend.client.lpush(backend.key, "a list")
        with pytest.raises(InvalidStateError, match="must be a string: WRONGTYPE"):
            await backend.get_state()
        await backend.set_value(True)
        assert ON == await backend.get_state()
        await close_if_made_here(backend)


async def test_a_user_who_may_do_nothing_is_told_so() -> None:
    with running("redis") as server:
        await as_user(server, "+ping")
        async with Place("redis", server.url.replace("redis://", "redis://app:secret@")).opened() as backend:
            for act in (backend.get_state(), backend.set_value(True), anext(backend.watch())):
                with pytest.raises(redis.RedisError, match="permission"):
                    await act


async def test_a_user_who_may_not_listen_looks_now_and_then(caplog: pytest.LogCaptureFixture) -> None:
    with running("redis") as server:
        await as_user(server, "+@all")
        url = server.url.replace("redis://", "redis://app:secret@")
        app = app_on(url)
        async with living(app):
            for active in (True, False):
                await set_maintenance_mode(active, f"{url}/0")

                async def is_seen(expected: int = 503 if active else 200) -> bool:
                    return expected == await status(app)

                await eventually(is_seen)
            await anyio.sleep(1.5)
    (record,) = [record.getMessage() for record in caplog.records if record.name == "fastapi_maintenance"]
    assert record.startswith("Changes of fastapi_maintenance_mode are not pushed, the key is only polled: ")
    assert not record.endswith("None")


async def test_that_nobody_may_listen_is_said_once_for_each_client(caplog: pytest.LogCaptureFixture) -> None:
    with running("redis") as server:
        await as_user(server, "+@all")
        async with Place("redis", server.url.replace("redis://", "redis://app:secret@")).opened() as backend:
            for _ in range(3):
                async with aclosing(backend.watch()) as states:
                    assert OFF == await anext(states)
    assert 1 == len([record for record in caplog.records if record.name == "fastapi_maintenance"])


async def as_user(server: Server, *rules: str) -> None:
    """Make a user who may use each key, no channel, and what the rules say."""
    client: Any = redis.asyncio.from_url(server.url)
    await client.execute_command("ACL", "SETUSER", "app", "on", ">secret", "~*", "resetchannels", *rules)
    await client.aclose()


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


async def test_what_a_database_refuses_is_not_tried_again(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "switch.db")) as other:
        other.execute("CREATE TABLE fastapi_maintenance (something_else)")
    tries: list[object] = []
    async with Place("sqlite", f"sqlite+aiosqlite:///{tmp_path}/switch.db").opened() as backend:
        try_once = backend._change

        def counted(change: object) -> object:
            tries.append(change)
            return try_once(change)

        backend._change = counted
        with pytest.raises(DBAPIError, match="no such column"):
            await backend.set_value(True)
    assert 1 == len(tries)


async def test_a_write_to_a_locked_sqlite_is_given_up_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base_module, "WRITE_TIMEOUT", 0.3)
    async with Place("sqlite", f"sqlite+aiosqlite:///{tmp_path}/switch.db?timeout=3").opened() as backend:
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
            for _ in range(20):
                assert 503 == await status(app)
                await anyio.sleep(0.1)
            other.execute("ROLLBACK")
        await set_maintenance_mode(False, f"sqlite+aiosqlite:///{path}")

        async def is_open() -> bool:
            return 200 == await status(app)

        await eventually(is_open)


def test_a_process_ends_although_its_sqlite_was_locked(tmp_path: Path) -> None:
    """What is cut off in the middle of a read must not keep the event loop from closing."""
    program = """
        import sqlite3, sys
        import anyio
        from fastapi_maintenance import set_maintenance_mode
        from tests.middleware.test_failures import app_on, status
        from tests.switch.test_following import living

        async def live(path):
            url = f"sqlite+aiosqlite:///{path}"
            await set_maintenance_mode(True, url)
            app = app_on(url + "?timeout=0.1")
            async with living(app):
                assert 503 == await status(app)
                other = sqlite3.connect(path, isolation_level=None)
                other.execute("BEGIN EXCLUSIVE")
                await anyio.sleep(1.05)  # until it is being looked at
            other.close()

        for number in range(5):
            anyio.run(live, f"{sys.argv[1]}{number}")
    """
    command = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(program), str(tmp_path / "switch.db")]
    assert 0 == subprocess.run(command, cwd=ROOT, timeout=60, check=False).returncode


@pytest.mark.parametrize("kind", ["redis", "asyncpg", "psycopg"])
async def test_watching_a_store_that_is_not_there_is_an_error(kind: str) -> None:
    with running(kind) as server:
        server.kill()
        async with Place(kind, server.url).opened() as backend:
            with pytest.raises((OSError, redis.RedisError, DBAPIError)):
                await anext(backend.watch())


@pytest.mark.parametrize("kind", ["redis", "asyncpg", "psycopg"])
async def test_watching_a_store_that_hangs_is_an_error_in_time(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("redis", "sqlalchemy.postgresql", "base"):
        monkeypatch.setattr(f"fastapi_maintenance.backends.{module}.ANSWER_TIMEOUT", 0.3)
    with running(kind) as server:
        async with Place(kind, server.url).opened() as backend:
            await backend.set_value(True)
            states = backend.watch()
            assert ON == await anext(states)
            server.freeze()
            with pytest.raises(TimeoutError, match="no answer within"):
                await anext(states)
            server.thaw()


async def test_a_cluster_whose_client_cannot_listen_is_looked_at_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(redis.asyncio.RedisCluster, "pubsub")  # as in redis-py before 8
    with running("cluster") as server:
        place = Place("cluster", server.url)
        async with place.opened() as writer, place.opened() as backend:
            backend.poll_interval = 0.05
            async with told(backend) as states:

                async def is_told() -> bool:
                    return states[-1:] == [ON]

                await writer.set_value(True)
                await eventually(is_told)


# The spec's own backend, and code that wants one of its own


async def test_it_shares_a_key_with_the_backend_of_the_spec() -> None:
    (block, _) = examples_of(ROOT / "tests" / "spec" / "custom-backends.md", "python")
    with running("redis") as server:
        client = redis.asyncio.from_url(server.url)
        theirs = cast("Any", block.run()["RedisBackend"])(client)
        ours = RedisBackend(client, theirs.key)
        for active in (True, False):
            await theirs.set_value(active)
            assert active == await ours.get_value()
            await ours.set_value(not active)
            assert (not active) == await theirs.get_value()
        await client.aclose()


# What is particular to databases


async def test_the_table_can_be_made_by_migrations_in_a_metadata_with_a_schema() -> None:
    with running("asyncpg") as server:
        engine = create_async_engine(server.url)
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


async def test_a_row_that_a_person_inserted_will_do(tmp_path: Path) -> None:
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/switch.db")
    backend = SQLAlchemyBackend(engine)
    async with engine.begin() as connection:
        await connection.run_sync(backend.table.metadata.create_all)
        await connection.execute(
            sqlalchemy.text("INSERT INTO fastapi_maintenance (key, state) VALUES ('fastapi_maintenance_mode', 'on')")
        )
    assert await backend.get_value()
    await backend.set_value(False)
    assert not await backend.get_value()
    await engine.dispose()


async def test_a_store_with_a_clock_tells_its_time_and_a_leased_block_warns_of_another(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    async with place.opened() as backend:
        if place.kind == "sqlite":
            with pytest.raises(NotSupportedError, match="PostgreSQL alone"):
                await backend.now()
            return
        assert timedelta(seconds=10) > abs(datetime.now(timezone.utc) - await backend.now())
        with moved_clock() as clock:
            clock.move(minutes=-5)

            async def is_warned_of() -> bool:
                return any("seconds behind that of" in record.getMessage() for record in caplog.records)

            async with maintenance_mode_on(backend, lease=60):
                await eventually(is_warned_of)


@pytest.mark.parametrize("in_place_of_it", ["nothing", "another"])
async def test_a_sqlite_that_is_deleted_or_replaced_is_noticed(in_place_of_it: str, tmp_path: Path) -> None:
    path = tmp_path / "switch.db"
    engine = create_async_engine(f"sqlite+aiosqlite:///{path}")
    backend = SQLAlchemyBackend(engine, poll_interval=0.05)
    states: list[MaintenanceState] = []

    async def watch() -> None:
        async for state in backend.watch():
            states.append(state)  # noqa: PERF401 -- seen while it goes on

    async def has_told(state: MaintenanceState) -> bool:
        return states[-1:] == [state]

    await backend.set_value(True)
    async with engine.connect(), engine.connect():
        pass  # more connections to the file that will be gone
    async with anyio.create_task_group() as group:
        group.start_soon(watch)
        await eventually(lambda: has_told(ON))
        if in_place_of_it == "another":
            other = f"sqlite+aiosqlite:///{tmp_path}/other.db"
            await set_maintenance_mode(True, other, message="Restored")
            (tmp_path / "other.db").replace(path)
        else:
            path.unlink()
        expected = MaintenanceState(active=True, message="Restored") if in_place_of_it == "another" else OFF
        await eventually(lambda: has_told(expected))
        assert expected == await backend.get_state()
        await set_maintenance_mode(False, backend)
        assert path.exists()
        group.cancel_scope.cancel()

    async def nothing_goes_on() -> bool:  # the last look, which was cut off, ends by itself
        return not sqlite_module._unfinished

    await eventually(nothing_goes_on)
    await engine.dispose()


async def test_switches_of_two_keys_in_one_table_are_two(place: Place) -> None:
    other = f"{place.url}{'&' if '?' in place.url else '?'}key=other"
    async with place.opened() as one:
        await one.set_value(True)
        assert (True, False) == (await get_maintenance_mode(place.url), await get_maintenance_mode(other))


async def test_a_connection_of_the_pool_is_left_as_it_was() -> None:
    with running("asyncpg") as server:
        engine = create_async_engine(server.url, pool_size=1, max_overflow=0)
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


class Thing:
    """What is neither a client nor an engine."""


@pytest.mark.parametrize(
    ("make", "arguments", "settings", "error", "text"),
    [
        (RedisBackend, (Thing(),), {}, TypeError, "client must be a redis.asyncio.Redis or RedisCluster"),
        (RedisBackend, (redis.Redis(),), {}, TypeError, "client must be a redis.asyncio.Redis or .*, got Redis$"),
        (RedisBackend, (redis.asyncio.Redis(), 1), {}, TypeError, "key must be a str, got int 1"),
        (RedisBackend, (redis.asyncio.Redis(), ""), {}, ValueError, "key must not be empty, got ''"),
        *(
            (RedisBackend, (redis.asyncio.Redis(), key), {}, ValueError, "key must have no } but that of its {tag}")
            for key in ("a}b", "a{}b", "{}{c}")
        ),
        (RedisBackend, (redis.asyncio.Redis(),), {"poll_interval": 0}, ValueError, "poll_interval must be a finite"),
        (
            SQLAlchemyBackend,
            (Thing(),),
            {},
            TypeError,
            r"engine must be a sqlalchemy.ext.asyncio.AsyncEngine \(for a URL: .*\), got Thing",
        ),
        (
            SQLAlchemyBackend,
            (sqlalchemy.create_engine("sqlite://"),),
            {},
            TypeError,
            "engine must be a sqlalchemy.ext.asyncio.AsyncEngine .*, got Engine",
        ),
        (SQLAlchemyBackend, ("engine", "k" * 256), {}, ValueError, "key must be 1 to 255 characters long"),
        (SQLAlchemyBackend, ("engine",), {"metadata": 1}, TypeError, "metadata must be a sqlalchemy.MetaData or None"),
        (SQLAlchemyBackend, ("engine",), {"table_name": ""}, ValueError, "table_name must not be empty"),
        (SQLAlchemyBackend, ("engine",), {"poll_interval": "1"}, TypeError, "poll_interval must be a number"),
        (maintenance_table, (sqlalchemy.MetaData(), 3), {}, TypeError, "name must be a str, got int 3"),
    ],
)
def test_wrong_arguments_are_refused(
    make: Callable[..., object],
    arguments: tuple[object, ...],
    settings: dict[str, object],
    error: type[Exception],
    text: str,
) -> None:
    given = [create_async_engine("sqlite+aiosqlite://") if value == "engine" else value for value in arguments]
    with pytest.raises(error, match=text):
        make(*given, **settings)


def test_the_backends_are_what_the_protocols_describe() -> None:
    engine: AsyncEngine = create_async_engine("sqlite+aiosqlite://")
    backends: list[StateBackend] = [RedisBackend(redis.asyncio.Redis()), SQLAlchemyBackend(engine)]
    assert [(True, True)] * 2 == [
        (isinstance(backend, DetailedStateBackend), isinstance(backend, WatchableStateBackend)) for backend in backends
    ]
    assert [
        "RedisBackend(key='fastapi_maintenance_mode')",
        "SQLAlchemyBackend('sqlite+aiosqlite://', key='fastapi_maintenance_mode')",
    ] == [repr(backend) for backend in backends]
