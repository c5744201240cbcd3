"""`backend_from_url`: the backend for a URL, refused URLs, and who closes the client."""

from __future__ import annotations

import re
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
import redis.asyncio
from fastapi import FastAPI
from redis.asyncio.sentinel import Sentinel
from sqlalchemy.ext.asyncio import create_async_engine

from fastapi_maintenance import (
    MaintenanceModeMiddleware,
    MemoryBackend,
    StateBackend,
    backend_from_url,
    cached,
    configure_backend,
    get_maintenance_mode,
    get_maintenance_state,
    maintenance_middleware,
    maintenance_mode_off,
    maintenance_mode_on,
    set_maintenance_mode,
)
from fastapi_maintenance.backends.last_known import key_of
from fastapi_maintenance.backends.redis import RedisBackend
from fastapi_maintenance.backends.sqlalchemy import SQLAlchemyBackend
from fastapi_maintenance.backends.url import close_if_made_here
from tests.middleware.test_failures import app_on, status
from tests.stores import BareSwitch
from tests.support import eventually
from tests.switch.lifespans import living

pytestmark = pytest.mark.anyio
only_asyncio = pytest.mark.parametrize("anyio_backend", ["asyncio"])
MODE = "fastapi_maintenance_mode"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("env:CLOSED", "EnvVarBackend('CLOSED')"),
        ("env:", "EnvVarBackend('FASTAPI_MAINTENANCE_MODE')"),
        ("env:A%20B", "EnvVarBackend('A B')"),
        ("file:switch", "LocalFileBackend('switch')"),
        ("file:a/b c", "LocalFileBackend('a/b c')"),
        ("file:a%20b%3F", "LocalFileBackend('a b?')"),
        ("file:/var/switch", "LocalFileBackend('/var/switch')"),
        ("file:///var/switch", "LocalFileBackend('/var/switch')"),
        ("file://localhost/var/switch", "LocalFileBackend('/var/switch')"),
        ("memory:", "MemoryBackend()"),
        ("sqlite+aiosqlite:////var/x.db", f"SQLAlchemyBackend('sqlite+aiosqlite:////var/x.db', key='{MODE}')"),
        ("sqlite+aiosqlite://", f"SQLAlchemyBackend('sqlite+aiosqlite://', key='{MODE}')"),
        (
            "postgresql+asyncpg://me:secret@db/shop?key=shop&ssl=require",
            "SQLAlchemyBackend('postgresql+asyncpg://me:***@db/shop', key='shop')",
        ),
        (
            "postgresql+psycopg://db/shop?create_table=False&user=me&password=secret",
            f"SQLAlchemyBackend('postgresql+psycopg://db/shop', key='{MODE}')",
        ),
    ],
)
def test_url_is_that_of_a_backend_whose_repr_shows_no_password(url: str, shown: str) -> None:
    assert repr(backend_from_url(url)) == shown
    assert backend_from_url(url) is not backend_from_url(url)


@only_asyncio
@pytest.mark.parametrize(
    ("url", "client", "key", "facts"),
    [
        ("redis://10.0.0.1:6390/2", "Redis", MODE, {"host": "10.0.0.1", "port": 6390, "db": 2}),
        ("rediss://10.0.0.1?key=shop", "Redis", "shop", {"host": "10.0.0.1"}),
        ("redis://h/0?socket_timeout=3&key=a%26b", "Redis", "a&b", {"host": "h", "db": 0, "socket_timeout": 3.0}),
        ("unix:///run/redis.sock?db=1&key=shop", "Redis", "shop", {"path": "/run/redis.sock", "db": 1}),
        ("redis://h?key=shop&username=who?", "Redis", "shop", {"host": "h", "username": "who?"}),
        ("redis+cluster://10.0.0.1:7000?key=shop", "RedisCluster", "shop", {}),
    ],
)
async def test_url_of_redis_has_key_and_client_options(
    url: str, client: str, key: str, facts: dict[str, object]
) -> None:
    backend = backend_from_url(url)
    assert isinstance(backend, RedisBackend)
    assert (type(backend.client).__name__, backend.key) == (client, key)
    found = backend.client.get_connection_kwargs()
    assert {name: found.get(name) for name in facts} == facts
    assert "key" not in found


def test_url_of_database_may_have_a_question_mark_in_its_password() -> None:
    backend = backend_from_url("postgresql+asyncpg://me:what?ever@db/shop?key=shop")
    assert isinstance(backend, SQLAlchemyBackend)
    url = backend.engine.url
    assert (url.password, url.host, backend.key) == ("what?ever", "db", "shop")


KNOWN = r"one of env: file: memory: redis: .* postgresql\+asyncpg: .* sqlite\+aiosqlite:"


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("", f"^url must begin with {KNOWN}, got ''$"),
        ("sqlite+aiosqlite:///a.db?create_tabel=no", "^url has 'create_tabel' in its query; did you mean create_table"),
        ("maintenance.txt", r"^url must begin with .*, got 'maintenance.txt'; did you mean file:maintenance.txt\?$"),
        ("folder/redis", r"^url must begin with .*, got 'folder/redis'; did you mean file:folder/redis\?$"),
        ("reddis://me:secret@host", rf"^url must begin with {KNOWN}, got 'reddis:'; did you mean redis://\?$"),
        ("postgres://me:secret@host", r"got 'postgres:'; did you mean postgresql\+asyncpg://\?$"),
        ("redis", r"got 'redis'; did you mean redis://\?$"),
        ("fiel:switch", r"got 'fiel:'; did you mean file:\?$"),
        ("secret@host", "got a text with an @ before its first colon$"),
        ("gopher://me:secret@host", "got 'gopher:'$"),
        ("memory:on", "^url must be just 'memory:', got 'memory:on'$"),
        ("file:", "^file_path must name a file"),
        ("file://host/switch", "^url must be file:relative/path or file:///absolute/path, got the host 'host'$"),
        ("file://switch", "got the host 'switch'$"),
        ("file:a?b", "^url must have .* percent-encoded"),
        ("file:a#b", "^url must have .* percent-encoded"),
        ("env:A=B", "^var_name must be a name without '='"),
        ("env://CLOSED", "^url must name a variable, such as env:CLOSED, got 'env://CLOSED'$"),
        ("env:/CLOSED", "^url must name a variable, such as env:CLOSED, got 'env:/CLOSED'$"),
        ("redis://host:port", "^url must be a Redis URL, such as redis://host:6379/0: redis-py rejects it with"),
        ("redis:host:6379", "it has no host$"),
        ("rediss://", "it has no host$"),
        ("redis://[::1", "it has no host$"),
        ("unix://", "it has no path of a socket$"),
        ("redis+cluster://", "it has no host$"),
        ("redis://host/notadb", "its path must be the number of a database$"),
        ("redis://host?socket_timeout=soon", "redis-py rejects it with"),
        ("redis://host?sockt_timeout=1", "redis-py rejects it with TypeError"),
        ("redis://:secret/@host", "it has no host$"),
        ("secret@host:6379", "got a text with an @ before its first colon$"),
        ("postgresql+asyncpg://me:x@y:secret@db:zz/shop", "SQLAlchemy rejects it with"),
        ("redis://host?key=", "^key must not be empty"),
        ("sqlite+aiosqlite://?key=", "^key must be 1 to 255 characters long, got ''$"),
        ("sqlite+aiosqlite://?create_table=", "^url must have create_table=true or .* in its query, got ''$"),
        ("sqlite+aiosqlite://?create_table=maybe", "^url must have create_table=true or .* in its query, got 'maybe'$"),
        ("postgresql://me:secret@db", r"^url must name an async driver, postgresql\+asyncpg: or .*psycopg:, got"),
        ("sqlite:///x.db", r"^url must name an async driver, sqlite\+aiosqlite:, got 'sqlite:'$"),
        ("sqlite+pysqlite:///x.db", "its driver is not async$"),
        ("nosuch+driver://me:secret@db", f"^url must begin with {KNOWN}, or be another .*; nosuch.driver: "),
        ("postgresql+asyncpg:me:secret@db", r"^url must begin with .*; postgresql\+asyncpg: "),
    ],
)
def test_url_that_is_not_valid_raises_and_shows_no_password(url: str, text: str) -> None:
    with pytest.raises(ValueError, match=text) as caught:
        backend_from_url(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", [None, 1, b"env:", MemoryBackend()])
def test_url_that_is_not_a_str_raises(url: str) -> None:
    with pytest.raises(TypeError, match=f"^url must be a str, got {type(url).__name__}$"):
        backend_from_url(url)


@pytest.mark.parametrize(
    ("package", "url", "text"),
    [
        ("redis", "redis://host", "RedisBackend needs redis: pip install 'fastapi-maintenance[redis]'"),
        (
            "sqlalchemy.ext.asyncio",
            "sqlite+aiosqlite://",
            "SQLAlchemyBackend needs sqlalchemy[asyncio]: pip install 'fastapi-maintenance[sqlalchemy]'",
        ),
        ("aiomysql", "mysql+aiomysql://h/s", "the driver in the URL needs the package aiomysql: pip install aiomysql"),
    ],
)
def test_url_of_a_backend_whose_package_is_missing_raises_saying_what_to_install(
    package: str, url: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = f"fastapi_maintenance.backends.{package.partition('.')[0]}"
    for name in [name for name in sys.modules if name.startswith((f"{package}.", ours))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)  # as if it were not installed
    with pytest.raises(ImportError, match=re.escape(text)):
        backend_from_url(url)


async def test_url_is_accepted_wherever_a_backend_is(tmp_path: Path) -> None:
    url = f"file:{tmp_path}/switch"
    apps = [app_on(url), FastAPI(), app_on(None)]
    apps[1].add_middleware(MaintenanceModeMiddleware, backend=url)
    apps[1].add_api_route("/", lambda: "open")
    configure_backend(url)
    for active in (True, False):
        await set_maintenance_mode(active, url)
        assert await get_maintenance_mode(url) == active
        assert [await status(app) for app in apps] == [503 if active else 200] * 3
    async with maintenance_mode_on(url, message="Back soon"):
        assert (await get_maintenance_state(url)).holds[0].message == "Back soon"
        async with maintenance_mode_off(url):
            assert [await status(app) for app in apps] == [200] * 3
        assert [await status(app) for app in apps] == [503] * 3
    with pytest.raises(ValueError, match=r"^backend must begin with"):
        maintenance_middleware(backend="reddis://host")


# The client is closed


Count = Callable[[], Awaitable[int]]


@pytest.fixture
async def connections(redis_url: str) -> AsyncGenerator[Count]:
    """Return a function that counts the connections to Redis; finally, there are none."""
    async with redis.asyncio.Redis.from_url(redis_url) as client:

        async def count() -> int:
            return len(await client.client_list()) - 1  # without its own

        yield count
        await eventually(lambda: is_zero(count))


async def is_zero(count: Count) -> bool:
    return await count() == 0


@pytest.mark.servers
@only_asyncio
async def test_url_client_of_a_call_is_closed_after_it(redis_url: str, connections: Count) -> None:
    for _ in range(3):
        await set_maintenance_mode(True, redis_url)
        await get_maintenance_mode(redis_url)
        async with maintenance_mode_on(redis_url):
            assert await connections() >= 1


@pytest.mark.servers
@only_asyncio
@pytest.mark.parametrize("given", [str, cached])
@pytest.mark.parametrize("is_cancelled", [False, True])
async def test_url_client_of_a_middleware_is_closed_when_its_app_ends(
    given: Callable[[str], Any], is_cancelled: bool, redis_url: str, connections: Count
) -> None:
    app = app_on(given(redis_url))
    for _ in range(2):
        with anyio.CancelScope() as scope:
            async with living(app):
                assert await status(app) == 200
                assert await connections() >= 1
                if is_cancelled:
                    scope.cancel()
        await eventually(lambda: is_zero(connections))


@pytest.mark.servers
@only_asyncio
async def test_url_client_of_replaced_configured_backend_is_closed(redis_url: str, connections: Count) -> None:
    configure_backend(redis_url)
    app = app_on(None)
    async with living(app):
        assert await status(app) == 200
        configure_backend(MemoryBackend(True))
        assert await status(app) == 503
        await eventually(lambda: is_zero(connections))


async def test_close_if_made_here_in_a_cancelled_task_closes_the_client(monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[bool] = []

    async def close() -> None:
        await anyio.lowlevel.checkpoint()
        closed.append(True)

    backend = backend_from_url("redis://10.0.0.1")
    monkeypatch.setattr(backend, "close_client", close)
    with anyio.CancelScope() as scope:
        scope.cancel()
        await close_if_made_here(backend)
    assert closed == [True]


@only_asyncio
async def test_close_if_made_here_disposes_of_an_engine_and_leaves_other_backends_alone() -> None:
    class Unhashable(BareSwitch):
        __hash__ = None  # type: ignore[assignment]

    backend: Any = backend_from_url("sqlite+aiosqlite://")
    pool = backend.engine.pool
    for each in (backend, Unhashable(), BareSwitch(), MemoryBackend()):
        await close_if_made_here(each)
    assert backend.engine.pool is not pool


def test_key_of_a_switch_is_the_same_for_its_url_and_differs_in_anything_else() -> None:
    urls = [
        *(
            "file:a",
            "file:b",
            "env:A",
            "env:B",
            "redis://h",
            "redis://h/1",
            "redis://h?key=a",
            "unix:///run/redis.sock",
        ),
        *("postgresql+asyncpg://h/shop", "postgresql+asyncpg://a@h/shop"),  # a role may have a schema of its own
        *(
            "postgresql+asyncpg:///shop",
            "postgresql+asyncpg:///shop?host=/run/a",
            "postgresql+asyncpg:///shop?host=/run/b",
        ),
        *("sqlite+aiosqlite:///shop.db", "sqlite+aiosqlite:///shop.db?key=a"),
    ]
    sentinel: Any = Sentinel([("127.0.0.1", 1)])  # type: ignore[no-untyped-call]  # untyped in redis-py
    engine = create_async_engine("sqlite+aiosqlite:///shop.db").execution_options(schema_translate_map={None: "a"})
    hosts = [create_async_engine("postgresql+asyncpg:///shop", connect_args={"host": host}) for host in "ab"]
    others = [
        *map(SQLAlchemyBackend, [engine, *hosts]),
        *(RedisBackend(sentinel.master_for(name)) for name in ("shop", "billing")),
    ]
    keys = [key_of(backend) for backend in [*map(backend_from_url, urls), *others]]
    assert keys[: len(urls)] == [key_of(backend_from_url(url)) for url in urls]
    assert len({*keys}) == len(urls) + len(others)


@only_asyncio
@pytest.mark.parametrize(
    "backends",
    [
        [
            *map(
                backend_from_url,
                ["redis://h", "redis://h:6379", "redis://h/0", "redis://me:secret@h:6379/0?key=" + MODE],
            )
        ],
        [backend_from_url("redis://localhost"), RedisBackend(redis.asyncio.Redis())],
        [*map(backend_from_url, ["postgresql+asyncpg://h/shop", "postgresql+psycopg://h:5432/shop"])],
    ],
    ids=["redis", "client", "postgresql"],
)
async def test_key_of_a_switch_is_the_same_with_and_without_defaults(backends: list[StateBackend]) -> None:
    assert len({key_of(backend) for backend in backends}) == 1


def test_key_of_a_switch_whose_identity_is_unhashable_is_the_backend_itself() -> None:
    class ListsItsIdentity(BareSwitch):
        switch_identity = ["store", "key"]  # noqa: RUF012 -- as a user may

    one, other = ListsItsIdentity(), ListsItsIdentity()
    assert (key_of(one) == key_of(cached(one)), key_of(one) == key_of(other)) == (True, False)
