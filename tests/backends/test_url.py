"""A backend from a URL: what it names, what it refuses, and who closes the client that it makes."""

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
    EnvVarBackend,
    LocalFileBackend,
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
from fastapi_maintenance.backends.known import key_of
from fastapi_maintenance.backends.redis import RedisBackend
from fastapi_maintenance.backends.sqlalchemy import SQLAlchemyBackend
from fastapi_maintenance.backends.url import close_if_made_here
from tests.middleware.test_failures import app_on, status
from tests.stores import BareSwitch
from tests.support import eventually
from tests.switch.lifespans import living

pytestmark = pytest.mark.anyio

only_asyncio = pytest.mark.parametrize("anyio_backend", ["asyncio"])


@pytest.mark.parametrize(
    ("url", "variable"), [("env:CLOSED", "CLOSED"), ("env:", "FASTAPI_MAINTENANCE_MODE"), ("env:A%20B", "A B")]
)
def test_env_names_a_variable(url: str, variable: str) -> None:
    assert EnvVarBackend(variable) == backend_from_url(url)


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("file:switch", "switch"),
        ("file:a/b c", "a/b c"),
        ("file:a%20b%3F", "a b?"),
        ("file:/var/switch", "/var/switch"),
        ("file:///var/switch", "/var/switch"),
        ("file://localhost/var/switch", "/var/switch"),
    ],
)
def test_file_names_a_path(url: str, path: str) -> None:
    backend = backend_from_url(url)
    assert isinstance(backend, LocalFileBackend)
    assert path == backend.file_path


def test_memory_is_new_each_time() -> None:
    assert isinstance(backend_from_url("memory:"), MemoryBackend)
    assert backend_from_url("memory:") is not backend_from_url("memory:")


@only_asyncio
@pytest.mark.parametrize(
    ("url", "key", "host"),
    [
        ("redis://10.0.0.1:6390/2", "fastapi_maintenance_mode", "10.0.0.1"),
        ("rediss://10.0.0.1?key=shop", "shop", "10.0.0.1"),
        ("redis://10.0.0.1/0?socket_timeout=3&key=a%26b", "a&b", "10.0.0.1"),
        ("unix:///run/redis.sock?db=1&key=shop", "shop", None),
        ("redis://10.0.0.1?key=shop&username=who?", "shop", "10.0.0.1"),
    ],
)
async def test_redis_names_a_server_and_a_key(url: str, key: str, host: str | None) -> None:
    backend = backend_from_url(url)
    assert isinstance(backend, RedisBackend)
    facts = backend.client.get_connection_kwargs()
    assert (key, host) == (backend.key, facts.get("host"))
    assert "key" not in facts
    assert [("socket_timeout", 3.0)] * ("timeout" in url) == [
        item for item in facts.items() if item[0] == "socket_timeout"
    ]


@only_asyncio
async def test_redis_cluster_is_another_client() -> None:
    backend = backend_from_url("redis+cluster://10.0.0.1:7000?key=shop")
    assert isinstance(backend, RedisBackend)
    assert ("RedisCluster", "shop") == (type(backend.client).__name__, backend.key)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("sqlite+aiosqlite:////var/x.db", "sqlite+aiosqlite:////var/x.db"),
        ("sqlite+aiosqlite://", "sqlite+aiosqlite://"),
        (
            "postgresql+asyncpg://me:secret@db/shop?key=shop&ssl=require",
            "postgresql+asyncpg://me:***@db/shop",
        ),
        ("postgresql+psycopg://db/shop?create_table=False&key=shop", "postgresql+psycopg://db/shop"),
    ],
)
def test_a_database_is_named_as_sqlalchemy_does(url: str, expected: str) -> None:
    backend = backend_from_url(url)
    assert isinstance(backend, SQLAlchemyBackend)
    key = "shop" if "key=shop" in url else "fastapi_maintenance_mode"
    assert f"SQLAlchemyBackend({expected!r}, key={key!r})" == repr(backend)


KNOWN = r"one of env: file: memory: redis: .* postgresql\+asyncpg: .* sqlite\+aiosqlite:"


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("", f"^url must begin with {KNOWN}, got ''$"),
        (
            "sqlite+aiosqlite:///a.db?create_tabel=false",
            "^url has 'create_tabel' in its query; did you mean create_table",
        ),
        ("maintenance.txt", "^url must begin with .*, got 'maintenance.txt'; did you mean file:maintenance.txt\\?$"),
        ("folder/redis", "^url must begin with .*, got 'folder/redis'; did you mean file:folder/redis\\?$"),
        ("reddis://me:secret@host", f"^url must begin with {KNOWN}, got 'reddis:'; did you mean redis://\\?$"),
        ("postgres://me:secret@host", "got 'postgres:'; did you mean postgresql\\+asyncpg://\\?$"),
        ("redis", "got 'redis'; did you mean redis://\\?$"),
        ("fiel:switch", "got 'fiel:'; did you mean file:\\?$"),
        ("secret@host", "got what has an @ before its first colon$"),
        ("gopher://me:secret@host", "got 'gopher:'$"),
        ("memory:on", "^url must be 'memory:' and no more, got 'on' after it$"),
        ("file:", "^file_path must name a file"),
        ("file://host/switch", "^url must be file:relative/path or file:///absolute/path, got the host 'host'$"),
        ("file://switch", "got the host 'switch'$"),
        ("file:a?b", "^url must have .* percent-encoded"),
        ("file:a#b", "^url must have .* percent-encoded"),
        ("env:A=B", "^var_name must be a name without '='"),
        (
            "redis://host:port",
            "^url must be a URL that Redis understands, such as redis://host:6379/0: redis-py refuses it",
        ),
        ("redis:host:6379", "it names no host$"),
        ("rediss://", "it names no host$"),
        ("redis://[::1", "it names no host$"),
        ("unix://", "it names no socket$"),
        ("redis+cluster://", "it names no host$"),
        ("redis://host/notadb", "its path must be the number of a database$"),
        ("redis://host?socket_timeout=soon", "redis-py refuses it with"),
        ("redis://host?sockt_timeout=1", "redis-py refuses it with TypeError"),
        ("redis://:secret/@host", "it names no host$"),
        ("secret@host:6379", "got what has an @ before its first colon$"),
        ("postgresql+asyncpg://me:x@y:secret@db:zz/shop", "SQLAlchemy refuses it with"),
        ("redis://host?key=", "^key must not be empty"),
        (
            "sqlite+aiosqlite://?create_table=maybe",
            "^url must have create_table=true or create_table=false in its query, got 'maybe'$",
        ),
        (
            "postgresql://me:secret@db",
            r"^url must name an async driver, postgresql\+asyncpg: or postgresql\+psycopg:, got",
        ),
        ("sqlite:///x.db", r"^url must name an async driver, sqlite\+aiosqlite:, got 'sqlite:'$"),
        ("sqlite+pysqlite:///x.db", "its driver is not async$"),
        ("nosuch+driver://me:secret@db", f"^url must begin with {KNOWN}, or be another .*; nosuch.driver: "),
        ("postgresql+asyncpg:me:secret@db", r"^url must begin with .*; postgresql\+asyncpg: "),
    ],
)
def test_what_names_no_backend_is_refused_without_telling_a_password(url: str, text: str) -> None:
    with pytest.raises(ValueError, match=text) as caught:
        backend_from_url(url)
    assert "secret" not in str(caught.value)


def test_a_password_may_have_a_question_mark_in_it() -> None:
    backend = backend_from_url("postgresql+asyncpg://me:what?ever@db/shop?key=shop")
    assert isinstance(backend, SQLAlchemyBackend)
    assert ("what?ever", "db", "shop") == (backend.engine.url.password, backend.engine.url.host, backend.key)


def test_a_password_in_a_query_is_not_shown() -> None:
    assert "secret" not in repr(backend_from_url("postgresql+psycopg://db/shop?user=me&password=secret"))


@pytest.mark.parametrize("make", [RedisBackend, SQLAlchemyBackend])
def test_a_url_in_the_place_of_a_client_is_not_shown(make: Callable[[Any], object]) -> None:
    with pytest.raises(TypeError, match=r"\(for a URL: backend_from_url\), got str$"):
        make("redis://:secret@host")


def test_a_missing_driver_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "aiomysql", None)
    with pytest.raises(ImportError, match="the driver in the URL needs the package aiomysql: pip install aiomysql"):
        backend_from_url("mysql+aiomysql://host/shop")


@pytest.mark.parametrize("url", [None, 1, b"env:", MemoryBackend()])
def test_what_is_no_text_is_refused(url: str) -> None:
    with pytest.raises(TypeError, match=f"^url must be a str, got {type(url).__name__}$"):
        backend_from_url(url)


@pytest.mark.parametrize(
    ("package", "module", "url", "text"),
    [
        ("redis", "redis", "redis://host", "RedisBackend needs redis: pip install 'fastapi-maintenance[redis]'"),
        (
            "sqlalchemy.ext.asyncio",
            "sqlalchemy",
            "sqlite+aiosqlite://",
            "SQLAlchemyBackend needs sqlalchemy[asyncio]: pip install 'fastapi-maintenance[sqlalchemy]'",
        ),
    ],
)
def test_a_missing_package_is_named_with_the_extra_to_install(
    package: str, module: str, url: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith(f"{package}.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)  # as Python does for what is not found
    for name in [name for name in sys.modules if name.startswith(f"fastapi_maintenance.backends.{module}")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(ImportError, match=re.escape(text)):
        backend_from_url(url)


# Wherever a backend is taken


async def test_a_url_is_taken_wherever_a_backend_is(tmp_path: Path) -> None:
    url = f"file:{tmp_path}/switch"
    apps = [app_on(url), FastAPI(), app_on(None)]
    apps[1].add_middleware(MaintenanceModeMiddleware, backend=url)
    apps[1].add_api_route("/", lambda: "open")
    configure_backend(url)
    for active in (True, False):
        await set_maintenance_mode(active, url)
        assert active == await get_maintenance_mode(url)
        assert [503 if active else 200] * 3 == [await status(app) for app in apps]
    async with maintenance_mode_on(url, message="Back soon"):
        assert "Back soon" == (await get_maintenance_state(url)).holds[0].message
        async with maintenance_mode_off(url):
            assert [200] * 3 == [await status(app) for app in apps]
        assert [503] * 3 == [await status(app) for app in apps]


def test_a_url_that_names_nothing_is_refused_by_the_middleware() -> None:
    with pytest.raises(ValueError, match=r"^backend must begin with"):
        maintenance_middleware(backend="reddis://host")


Count = Callable[[], Awaitable[int]]


@pytest.fixture
async def connections(redis_url: str) -> AsyncGenerator[Count]:
    """Give a function that counts the connections to Redis; in the end none is left."""
    async with redis.asyncio.Redis.from_url(redis_url) as client:

        async def count() -> int:
            return len(await client.client_list()) - 1  # without its own

        yield count
        await eventually(lambda: none_of(count))


async def none_of(count: Count) -> bool:
    """Return whether it counts none."""
    return await count() == 0


@pytest.mark.servers
@only_asyncio
async def test_the_client_of_a_call_is_closed_after_it(redis_url: str, connections: Count) -> None:
    for _ in range(3):
        await set_maintenance_mode(True, redis_url)
        await get_maintenance_mode(redis_url)
        async with maintenance_mode_on(redis_url):
            assert await connections() >= 1


@pytest.mark.servers
@only_asyncio
@pytest.mark.parametrize("given", [str, cached])
async def test_the_client_of_a_middleware_or_of_its_cache_is_closed_at_shutdown(
    given: Callable[[str], Any], redis_url: str, connections: Count
) -> None:
    app = app_on(given(redis_url), read_timeout=60)
    for _ in range(2):
        async with living(app):
            assert await status(app) == 200
            assert await connections() >= 1
        await eventually(lambda: none_of(connections))


@pytest.mark.servers
@only_asyncio
async def test_the_client_that_another_one_is_configured_instead_of_is_closed(
    redis_url: str, connections: Count
) -> None:
    configure_backend(redis_url)
    app = app_on(None)
    async with living(app):
        assert await status(app) == 200
        configure_backend(MemoryBackend(True))
        assert await status(app) == 503
        await eventually(lambda: none_of(connections))


@pytest.mark.servers
@only_asyncio
async def test_the_client_of_an_app_that_is_cancelled_is_closed(redis_url: str, connections: Count) -> None:
    app = app_on(redis_url, read_timeout=60)
    async with anyio.create_task_group() as group:
        with anyio.CancelScope() as scope:
            async with living(app):
                assert await connections() >= 1
                scope.cancel()
        group.cancel_scope.cancel()


@only_asyncio
async def test_the_connections_of_a_database_are_let_go_of() -> None:
    backend: Any = backend_from_url("sqlite+aiosqlite://")
    pool = backend.engine.pool
    await close_if_made_here(backend)
    assert pool is not backend.engine.pool


async def test_a_client_is_given_the_time_to_close_where_its_app_is_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[bool] = []

    async def close() -> None:
        await anyio.lowlevel.checkpoint()
        closed.append(True)

    backend = backend_from_url("redis://10.0.0.1")
    monkeypatch.setattr(backend, "close_client", close)
    with anyio.CancelScope() as scope:
        scope.cancel()
        await close_if_made_here(backend)
    assert [True] == closed


async def test_what_was_not_made_here_is_not_closed() -> None:
    class Unhashable(BareSwitch):
        __hash__ = None  # type: ignore[assignment]

    for backend in (Unhashable(), BareSwitch(), MemoryBackend()):
        await close_if_made_here(backend)


def test_stores_that_differ_in_anything_are_different_switches() -> None:
    sentinel: Any = Sentinel([("127.0.0.1", 1)])  # type: ignore[no-untyped-call]  # as redis-py has it
    engines = [
        create_async_engine("postgresql+asyncpg:///shop?host=/run/a"),
        create_async_engine("postgresql+asyncpg:///shop?host=/run/b"),
        create_async_engine("sqlite+aiosqlite:///shop.db"),
        create_async_engine("sqlite+aiosqlite:///shop.db").execution_options(schema_translate_map={None: "a"}),
    ]
    backends: list[StateBackend] = [RedisBackend(sentinel.master_for(name)) for name in ("shop", "billing")]
    backends += map(SQLAlchemyBackend, engines)
    assert len(backends) == len({key_of(backend) for backend in backends})
