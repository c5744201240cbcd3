"""Backends on real servers: reads, changes, watching, arguments, and workers that are refused, killed or gone."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import anyio
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
    maintenance_mode_on,
    set_maintenance_mode,
)
from fastapi_maintenance.backends import file_workers, redis_workers
from fastapi_maintenance.backends.redis import RedisBackend
from fastapi_maintenance.backends.sqlalchemy import SQLAlchemyBackend, maintenance_table
from tests.backends.conftest import Place
from tests.backends.helpers import (  # noqa: F401 -- a fixture
    DRIVERS,
    IN_A_CENTURY,
    LONG_AGO,
    OFF,
    ON,
    adding,
    check_drain,
    connected,
    execute,
    forking,
    holds_of,
    messages_of,
    on_asyncio,
    wait_for_workers,
    watched,
)
from tests.middleware.test_failures import app_on
from tests.servers import running
from tests.support import eventually, free_port
from tests.switch.lifespans import living

pytestmark = [pytest.mark.anyio, pytest.mark.servers, pytest.mark.usefixtures("_patient")]


async def test_store_that_is_empty_is_off_and_reading_creates_nothing(place: Place) -> None:
    async with place.opened() as backend:
        assert (await backend.get_value(), await backend.get_state()) == (False, OFF)
        if place.is_redis:
            assert await backend.client.exists(backend.key) == 0
        else:
            async with backend.engine.connect() as connection:
                assert await connection.run_sync(lambda sync: sqlalchemy.inspect(sync).get_table_names()) == []


async def test_store_value_is_a_digit_as_in_0_0_5_and_what_people_write_is_read(place: Place) -> None:
    message = MaintenanceState(switch=Switch(on=True, message="Hi"))
    by_hand = {"": OFF, "1": ON, " Yes\n": ON, "off": OFF, '{"switch": {"on": true, "message": "Hi"}}': message}
    async with place.opened() as backend:
        for value in (True, False):
            await set_maintenance_mode(value, backend)
            assert await place.read() == str(int(value))
        for text, state in by_hand.items():
            await place.write(text)
            assert await backend.get_state() == state


@pytest.mark.parametrize("text", ["perhaps", '{"switch": tr', b"\xff\xfe"])
async def test_store_with_invalid_value_raises_and_is_overwritten_with_a_warning_by_a_switch(
    place: Place, text: str | bytes, caplog: pytest.LogCaptureFixture
) -> None:
    await place.write("\x01" if isinstance(text, bytes) and not place.is_redis else text)
    async with place.opened() as backend:
        for attempt in (backend.get_state(), backend.update_state(lambda state: state)):
            with pytest.raises(InvalidStateError) as caught:
                await attempt
        await set_maintenance_mode(True, backend)
        assert await backend.get_state() == ON
    assert messages_of(caplog) == [f"{backend!r} is being replaced, as if it had been off: {caught.value}"]
    assert str(caught.value).startswith(("value must be", "text must be"))


async def test_store_changes_at_once_to_an_empty_store_are_all_made(place: Place) -> None:
    async with place.opened() as one, place.opened() as other, anyio.create_task_group() as group:
        for number in range(20):
            group.start_soon((one, other)[number % 2].update_state, adding(str(number)))
    async with place.opened() as backend:
        assert len(holds_of(await backend.get_state())) == 20


async def test_store_watch_yields_each_change_pushed_or_polled_and_leaves_no_connection(place: Place) -> None:
    def has_message(message: str) -> bool:
        return message in [state.switch.message for state in states]

    async with place.opened() as writer, place.opened() as reader:
        await set_maintenance_mode(True, writer, message="first")
        await reader.get_state()  # connects
        before = await connections(place, writer)
        reader.poll_interval = 0.05 if place.kind in {"cluster", "sqlite"} else 60.0  # the others push
        async with watched(reader) as states:
            for message in ("first", "second", "third"):
                await set_maintenance_mode(True, writer, message=message)
                await eventually(partial(has_message, message))
        assert list(dict.fromkeys(state.switch.message for state in states)) == ["first", "second", "third"]
        reader.poll_interval = 0.05
        for text, state in (("0", OFF), ("1", ON)):
            async with watched(reader) as states:
                await place.write(text)  # which notifies nobody
                await eventually(lambda: states[-1:] == [state])  # noqa: B023 -- awaited here
        await eventually(lambda: is_at_most(before, connections(place, writer)))


async def is_at_most(limit: int, number: Awaitable[int]) -> bool:
    return await number <= limit


async def connections(place: Place, backend: Any) -> int:  # noqa: ANN401 -- any of the backends
    """Return the number of connections to the store."""
    if place.kind == "sqlite":
        return int(backend.engine.pool.checkedout())
    if place.is_redis:
        options = {"target_nodes": backend.client.get_default_node()} if place.kind == "cluster" else {}
        return len(await backend.client.execute_command("CLIENT LIST", **options))
    async with backend.engine.connect() as connection:
        statement = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'"
        return int(await connection.scalar(sqlalchemy.text(statement)))


@pytest.mark.parametrize(
    "url", ["redis://127.0.0.1:{}", *(f"postgresql+{name}://127.0.0.1:{{}}/x" for name in DRIVERS)]
)
async def test_store_watch_without_a_server_raises(url: str) -> None:
    async with Place("", url.format(free_port())).opened() as backend:
        with pytest.raises((OSError, redis.RedisError, DBAPIError)):
            await anext(backend.watch())


@pytest.mark.parametrize("kind", ["redis", *DRIVERS])
async def test_store_watch_of_a_server_that_hangs_raises_in_time(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
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
            with pytest.raises(
                NotSupportedError, match=r"^now\(\) is supported on PostgreSQL only, not on SQLAlchemyB"
            ):
                await backend.now()
        else:
            assert abs(datetime.now(UTC) - await backend.now()) < timedelta(seconds=60)


class Thing:
    """Neither a client nor an engine."""


def on_redis(*arguments: Any, **settings: Any) -> RedisBackend:  # noqa: ANN401 -- any
    return RedisBackend(redis.asyncio.Redis(), *arguments, **settings)


def on_sqlite(*arguments: Any, **settings: Any) -> SQLAlchemyBackend:  # noqa: ANN401 -- any
    return SQLAlchemyBackend(create_async_engine("sqlite+aiosqlite://"), *arguments, **settings)


def call(make: Callable[..., object], *arguments: object, **settings: object) -> Callable[[], object]:
    """Return a call with any arguments, also with those that the types refuse."""
    return partial(make, *arguments, **settings)


def test_store_poll_interval_is_a_second_by_default() -> None:
    assert (on_redis().poll_interval, on_sqlite().poll_interval) == (1.0, 1.0)


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (call(RedisBackend, Thing()), TypeError, "client must be a redis.asyncio.Redis or RedisCluster"),
        (call(RedisBackend, redis.Redis()), TypeError, "client must be a redis.asyncio.Redis or .*, got Redis$"),
        (call(RedisBackend, "redis://:secret@host"), TypeError, r"\(for a URL: backend_from_url\), got str$"),
        (call(on_redis, 1), TypeError, "key must be a str, got int 1"),
        (call(on_redis, ""), ValueError, "key must not be empty, got ''"),
        *((call(on_redis, key), ValueError, "key must have no } outside") for key in ("a}b", "a{}b", "{}{c}")),
        (call(on_redis, poll_interval=0), ValueError, "poll_interval must be a finite"),
        (
            call(SQLAlchemyBackend, Thing()),
            TypeError,
            r"engine must be a .*AsyncEngine \(for a URL: .*\), got Thing",
        ),
        (call(SQLAlchemyBackend, "redis://:secret@host"), TypeError, r"\(for a URL: backend_from_url\), got str$"),
        (
            call(SQLAlchemyBackend, sqlalchemy.create_engine("sqlite://")),
            TypeError,
            "engine must be a .*, got Engine",
        ),
        (call(on_sqlite, "k" * 256), ValueError, "key must be 1 to 255 characters long"),
        (call(on_sqlite, metadata=1), TypeError, "metadata must be a sqlalchemy.MetaData or None"),
        (call(on_sqlite, create_table="no"), TypeError, "create_table must be True or False, got str"),
        (call(on_sqlite, table_name=""), ValueError, "table_name must not be empty"),
        (call(on_sqlite, poll_interval="1"), TypeError, "poll_interval must be a number"),
        (call(maintenance_table, sqlalchemy.MetaData(), 3), TypeError, "name must be a str, got int 3"),
    ],
)
def test_store_backend_invalid_arguments_raise(make: Callable[[], object], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        make()


# Workers


READ_ONLY = "ALTER SYSTEM SET default_transaction_read_only = {}; SELECT pg_reload_conf()"


@pytest.mark.parametrize(
    ("kind", "user", "refuse", "mend"),
    [
        ("redis", "", "CONFIG SET maxmemory 1", "CONFIG SET maxmemory 0"),
        ("redis", "", "REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE"),
        ("redis", "", "CONFIG SET min-replicas-to-write 1", "CONFIG SET min-replicas-to-write 0"),
        *((driver, "postgres", READ_ONLY.format("on"), READ_ONLY.format("off")) for driver in DRIVERS),
        *(
            (driver, "reader", "CREATE ROLE reader LOGIN", "GRANT CREATE ON SCHEMA public TO reader")
            for driver in DRIVERS
        ),
    ],
)
async def test_app_whose_first_record_is_refused_signs_later_and_logs_both_once(
    kind: str, user: str, refuse: str, mend: str, url_of: Callable[[str], str], caplog: pytest.LogCaptureFixture
) -> None:
    url = url_of(kind)
    async with connected(url) as operator, connected(url.replace("postgres@", f"{user}@")) as backend:
        await execute(operator, refuse)
        try:
            app = app_on(backend)
            async with living(app):
                await eventually(lambda: len(messages_of(caplog)) == 1)
                await wait_for_workers(operator)
                await execute(operator, mend)
                await wait_for_workers(operator, os.getpid())
                await check_drain(app, backend)
        finally:
            await execute(operator, f"{mend}; DROP OWNED BY reader" if user == "reader" else mend)
    refused, accepted = messages_of(caplog)
    assert refused.startswith("No drain waits for the requests of this process until it can be registered in ")
    assert accepted.startswith("Drains wait again for the requests of this process, in ")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows has no fork")
@pytest.mark.parametrize("kind", ["file", "redis", *DRIVERS])
async def test_worker_that_has_forked_confirms_and_is_gone_when_it_is_killed_and_its_child_lives(
    kind: str, url_of: Callable[[str], str], tmp_path: Path
) -> None:
    url = f"file:{tmp_path}/switch" if kind == "file" else url_of(kind)
    async with connected(url) as backend:

        async def is_subscribed() -> bool:
            return not isinstance(backend, RedisBackend) or len(await backend.client.pubsub_channels("*:worker:*")) == 1

        with forking(url) as (worker, fork):
            await wait_for_workers(backend, worker.pid)
            await eventually(is_subscribed)
            child = fork()
            async with maintenance_mode_on(backend, drain=60):
                pass
            worker.kill()
            await wait_for_workers(backend)
            assert child.is_running()


@pytest.mark.parametrize("kind", ["file", "redis"])
@pytest.mark.parametrize("kept_for", [60.0, -1.0])
async def test_worker_that_has_left_is_forgotten_however_long_nobody_reads(
    kind: str, kept_for: float, url_of: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"file:{tmp_path}/switch" if kind == "file" else url_of(kind)
    async with connected(url) as a, connected(url) as b, connected(url) as c, aclosing(a.watch()) as states:
        await anext(states)
        one, other, reader = a.workers, b.workers, c.workers
        await one.sign("host.1.one", "{}")
        assert await reader.reports() == {"host.1.one": "{}"}
        await one.leave("host.1.one")
        for module in (file_workers, redis_workers):
            monkeypatch.setattr(module, "_KEPT_FOR", kept_for)
        await other.sign("host.2.two", "{}")
        assert [await each.reports() for each in (other, reader)] == [{"host.2.two": "{}"}] * 2
        await other.leave("host.2.two")
