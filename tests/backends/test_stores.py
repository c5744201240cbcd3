"""What every shared store does, on real servers: read, change, tell, refuse."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, cast

import anyio
import anyio.lowlevel
import pytest
import redis.asyncio
import sqlalchemy
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine

from fastapi_maintenance import (
    InvalidStateError,
    MaintenanceState,
    NotSupportedError,
    Switch,
    Window,
    backend_from_url,
    get_maintenance_mode,
    get_maintenance_state,
    maintenance_mode_on,
    set_maintenance_mode,
)
from fastapi_maintenance.backends.redis import RedisBackend
from fastapi_maintenance.backends.sqlalchemy import SQLAlchemyBackend, maintenance_table
from tests.backends.helpers import IN_A_CENTURY, LONG_AGO, on_asyncio  # noqa: F401 -- a fixture
from tests.backends.places import Place, counted, eventually_told, told
from tests.middleware.test_failures import app_on, status
from tests.servers import running
from tests.support import ROOT, eventually, free_port
from tests.switch.lifespans import answers, living

pytestmark = [pytest.mark.anyio, pytest.mark.servers, pytest.mark.usefixtures("_patient")]
ON = MaintenanceState(switch=Switch(on=True))
OFF = MaintenanceState()
DRIVERS = ["asyncpg", "psycopg"]


async def test_nothing_there_is_off_and_reading_makes_nothing(place: Place) -> None:
    async with place.opened() as backend:
        assert (False, OFF) == (await backend.get_value(), await backend.get_state())
        if isinstance(backend, RedisBackend):
            assert 0 == await backend.client.exists(backend.key)
        else:
            async with backend.engine.connect() as connection:
                assert [] == await connection.run_sync(lambda sync: sqlalchemy.inspect(sync).get_table_names())


async def test_state_with_everything_is_read_by_others_and_off_ends_the_window_in_force(place: Place) -> None:
    details: dict[str, Any] = {"message": "Zurück um zehn ☕", "by": "ops", "since": LONG_AGO}
    in_force = Window(id="a", starts_at=LONG_AGO, ends_at=IN_A_CENTURY, **details)
    planned = replace(in_force, id="b", starts_at=IN_A_CENTURY, ends_at=None)
    switch = Switch(on=True, ends_at=IN_A_CENTURY, **details)
    written = MaintenanceState(switch=switch, windows=(in_force, planned))
    async with place.opened() as one, place.opened() as other:
        await one.update_state(lambda _: written)
        async with maintenance_mode_on(one, message="Deployment", lease=60):
            state = await other.get_state()
            assert replace(state, holds=()) == written
            assert [hold.message for hold in state.holds] == ["Deployment"]
            await other.set_value(False)
            assert await other.get_value()
        assert await one.get_state() == MaintenanceState(windows=(planned,))
        assert not await other.get_value()


async def test_set_maintenance_mode_writes_what_version_0_0_5_reads(place: Place) -> None:
    async with place.opened() as backend:
        texts = []
        for value in (True, False):
            await set_maintenance_mode(value, backend)
            texts.append(await place.read_by_hand())
    assert texts == ["1", "0"]


async def test_a_store_with_what_a_person_wrote_returns_that_state(place: Place) -> None:
    by_hand = {
        "": OFF,
        "1": ON,
        " Yes\n": ON,
        "off": OFF,
        '{"switch": {"on": true, "message": "Hi"}}': MaintenanceState(switch=Switch(on=True, message="Hi")),
    }
    async with place.opened() as backend:
        for text, state in by_hand.items():
            await place.write_by_hand(text)
            assert await backend.get_state() == state


@pytest.mark.parametrize("text", ["perhaps", '{"switch": tr', b"\xff\xfe"])
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
        assert await backend.get_state() == ON
    (record,) = [record for record in caplog.records if record.name == "fastapi_maintenance"]
    message = record.getMessage()
    assert message.startswith(f"{backend!r} is replaced, as if it had been off: ")
    assert message.partition(" off: ")[2].startswith(("value must be", "text must be"))


@pytest.mark.parametrize("value", [1, "1", None])
@pytest.mark.parametrize("url", ["redis://localhost", "sqlite+aiosqlite://"])
async def test_set_value_without_a_boolean_raises(url: str, value: bool) -> None:
    with pytest.raises(TypeError, match="value must be True or False"):
        await backend_from_url(url).set_value(value)


def test_a_store_is_looked_at_each_second_unless_told_otherwise() -> None:
    engine = create_async_engine("sqlite+aiosqlite://")
    assert (1.0, 1.0) == (RedisBackend(redis.asyncio.Redis()).poll_interval, SQLAlchemyBackend(engine).poll_interval)


async def test_many_changes_at_once_are_all_made(place: Place) -> None:
    async with place.opened() as one, place.opened() as other, anyio.create_task_group() as group:
        for _ in range(10):
            group.start_soon(one.update_state, counted)
            group.start_soon(other.update_state, counted)
    async with place.opened() as backend:
        assert (await backend.get_state()).switch.message == "20"


@pytest.mark.parametrize("url", ["file:{}/switch", "sqlite+aiosqlite:///{}/switch.db?timeout=60"])
def test_update_state_in_two_processes_on_one_file_loses_no_change(url: str, tmp_path: Path) -> None:
    """On a server two clients do as two processes; here the operating system's locks have to do it."""
    program = """
        import sys
        import anyio
        from fastapi_maintenance import backend_from_url
        from tests.backends.places import counted

        async def change():
            backend = backend_from_url(sys.argv[1])
            for _ in range(50):
                await backend.update_state(counted)

        anyio.run(change)
    """
    url = url.format(tmp_path)
    command = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(program), url]
    processes = [subprocess.Popen(command, cwd=ROOT) for _ in range(2)]
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    assert anyio.run(get_maintenance_state, url).switch.message == "100"


async def test_what_is_written_by_url_counts_at_once_in_this_process(place: Place) -> None:
    if place.kind == "cluster":
        pytest.skip("two clients of a Cluster are not known to be of the same one")
    app = app_on(place.url, read_timeout=60)
    await set_maintenance_mode(False, place.url)
    async with living(app):
        for active in (True, False) * 5:
            await set_maintenance_mode(active, place.url)
            assert (503 if active else 200) == await status(app)
        async with maintenance_mode_on(place.url):
            assert 503 == await status(app)
        assert 200 == await status(app)


async def test_a_write_that_another_process_undoes_at_once_is_seen_as_undone(place: Place) -> None:
    app = app_on(place.url, read_timeout=60)
    async with living(app), place.opened() as other:
        await set_maintenance_mode(True, place.url)
        await other.set_value(False)  # past this process's own knowledge
        await answers(app, 200)


def has_told(states: list[MaintenanceState], message: str) -> bool:
    return message in [state.switch.message for state in states]


async def test_watching_tells_the_state_at_once_and_then_each_change(place: Place) -> None:
    async with place.opened() as writer, place.opened() as reader:
        if place.kind not in {"cluster", "sqlite"}:  # the others push, and are not looked at meanwhile
            reader.poll_interval = 60.0
        await set_maintenance_mode(True, writer, message="first")
        async with told(reader) as states:
            for message in ["first", "second", "third"]:
                await set_maintenance_mode(True, writer, message=message)
                await eventually(partial(has_told, states, message))
        assert ["first", "second", "third"] == list(dict.fromkeys(state.switch.message for state in states))


async def test_a_change_by_hand_is_told_when_the_key_is_looked_at_again(place: Place) -> None:
    await place.write_by_hand("0")
    async with place.opened() as backend:
        backend.poll_interval = 0.05
        async with told(backend) as states:
            await eventually_told(states)
            if place.is_redis:
                await place.write_by_hand("1")
            else:
                async with backend.engine.begin() as connection:
                    await connection.execute(sqlalchemy.text("UPDATE fastapi_maintenance SET state = '1'"))
            await eventually(lambda: states[-1:] == [ON])


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


@pytest.mark.parametrize(
    "url", ["redis://127.0.0.1:{}", *(f"postgresql+{name}://127.0.0.1:{{}}/x" for name in DRIVERS)]
)
async def test_watch_without_a_server_raises(url: str) -> None:
    async with Place("", url.format(free_port())).opened() as backend:
        with pytest.raises((OSError, redis.RedisError, DBAPIError)):
            await anext(backend.watch())


@pytest.mark.parametrize("kind", ["redis", *DRIVERS])
async def test_watch_on_a_server_that_hangs_raises_in_time(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with running(kind) as server:
        async with Place(kind, server.url).opened() as backend:
            await backend.set_value(True)
            states = backend.watch()
            assert await anext(states) == ON
            for module in ("redis", "sqlalchemy.postgresql", "base"):
                monkeypatch.setattr(f"fastapi_maintenance.backends.{module}.ANSWER_TIMEOUT", 0.3)
            server.freeze()
            with pytest.raises(TimeoutError, match="no answer within"):
                await anext(states)
            server.thaw()


async def test_store_with_a_clock_returns_its_time(place: Place) -> None:
    async with place.opened() as backend:
        if place.kind == "sqlite":
            with pytest.raises(NotSupportedError, match="PostgreSQL alone"):
                await backend.now()
            return
        assert timedelta(seconds=60) > abs(datetime.now(UTC) - await backend.now())


async def test_switches_of_two_keys_in_one_table_are_two(place: Place) -> None:
    other = f"{place.url}{'&' if '?' in place.url else '?'}key=other"
    async with place.opened() as one:
        await one.set_value(True)
        assert (True, False) == (await get_maintenance_mode(place.url), await get_maintenance_mode(other))


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
        (
            SQLAlchemyBackend,
            ("engine",),
            {"create_table": "no"},
            TypeError,
            "create_table must be True or False, got str",
        ),
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
