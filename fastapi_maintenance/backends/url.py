"""Backends from URLs, for use in configuration."""

import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from difflib import get_close_matches
from functools import partial
from urllib.parse import parse_qsl, unquote, urlencode

import anyio

from fastapi_maintenance._helpers.checks import reject_kind, reject_value
from fastapi_maintenance._helpers.waiting import ANSWER_TIMEOUT
from fastapi_maintenance.backends.base import DEFAULT_KEY, StoreBackend, check_backend
from fastapi_maintenance.backends.env import EnvVarBackend
from fastapi_maintenance.backends.file import LocalFileBackend
from fastapi_maintenance.backends.memory import MemoryBackend
from fastapi_maintenance.typing import StateBackend

_ASYNC_DRIVERS = {
    "mariadb": ("aiomysql", "asyncmy"),
    "mssql": ("aioodbc",),
    "mysql": ("aiomysql", "asyncmy"),
    "postgresql": ("asyncpg", "psycopg"),
    "sqlite": ("aiosqlite",),
}


def backend_from_url(url: str) -> StateBackend:
    """Return the backend for a URL. It connects when it is first used.

    >>> backend_from_url("file:maintenance.txt")
    LocalFileBackend('maintenance.txt')

    | URL | backend |
    |---|---|
    | `env:NAME`, `env:` | `EnvVarBackend` |
    | `file:relative/path`, `file:///absolute/path` (percent-encoded, RFC 8089) | `LocalFileBackend` |
    | `memory:` | `MemoryBackend`, a new one each time |
    | `redis://`, `rediss://` (TLS), `unix://` (a socket), `redis+cluster://`, `rediss+cluster://` | `RedisBackend` |
    | `postgresql+asyncpg://`, `sqlite+aiosqlite://`, other async drivers of SQLAlchemy | `SQLAlchemyBackend` |

    Stores and databases accept `?key=...` instead of the default key, `fastapi_maintenance_mode`, and databases
    `?create_table=false` if migrations create the table. The rest of the query is passed to the client.

    The client is closed at the shutdown of the app whose middleware uses it, or at the end of a call that was given
    the URL.

    Raises:
        TypeError: `url` is not a `str`.
        ValueError: The scheme is unknown, or the rest is not valid for it; no password is shown.
        ImportError: A package that the backend needs is missing; the message says which extra to install.
    """
    if not isinstance(url, str):
        reject_kind("url", "a str", url)
    return _from_url("url", url)


def _from_url(name: str, url: str) -> StateBackend:
    scheme, colon, rest = url.partition(":")
    dialect, _, driver = scheme.partition("+")
    if colon and scheme == "env":
        if rest.startswith("/"):  # it would be a variable of that name, and off
            reject_value(name, f"name a variable, such as env:{rest.strip('/') or 'NAME'}", url)
        return EnvVarBackend(unquote(rest) or None)
    if colon and scheme == "file":
        return _file(name, rest)
    if colon and scheme == "memory":
        return MemoryBackend() if not rest else reject_value(name, "be just 'memory:'", url)
    if colon and scheme in _REDIS:
        return _redis(name, scheme, rest)
    if colon and driver and dialect:
        return _sqlalchemy(name, url, scheme)
    if colon and dialect in _ASYNC_DRIVERS:
        drivers = " or ".join(f"{dialect}+{known}:" for known in _ASYNC_DRIVERS[dialect])
        msg = f"{name} must name an async driver, {drivers}, got '{scheme}:'"
        raise ValueError(msg)
    shown = "a text with an @ before its first colon" if "@" in scheme else repr(scheme + colon)  # maybe a password
    msg = f"{name} must begin with {_KNOWN_SCHEMES}, got {shown}{_suggestion(url, scheme)}"
    raise ValueError(msg)


def _suggestion(url: str, scheme: str) -> str:
    """Return "did you mean ...?", or an empty text; show no part of a URL that may contain a password."""
    nearest = get_close_matches(scheme, [*_WITHOUT_SLASHES, *_REDIS, *_ASYNC_DRIVERS, *_DRIVERS], n=1)
    if url and ":" not in url and "@" not in url and (not nearest or re.search(r"[./\\]", url)):
        return f"; did you mean file:{url}?"
    if not nearest:
        return ""
    found = nearest[0] if nearest[0] not in _ASYNC_DRIVERS else f"{nearest[0]}+{_ASYNC_DRIVERS[nearest[0]][0]}"
    return f"; did you mean {found}:{'' if found in _WITHOUT_SLASHES else '//'}?"


def as_backend(name: str, value: object) -> StateBackend:
    """Return the value if it is a backend; if it is a URL, the backend for it."""
    return _from_url(name, value) if isinstance(value, str) else check_backend(name, value)


@asynccontextmanager
async def opened(backend: StateBackend | str) -> AsyncGenerator[StateBackend]:
    """Yield a backend; close its client afterwards if it was created here, from a URL."""
    if not isinstance(backend, str):
        yield backend
        return
    made = _from_url("backend", backend)
    try:
        yield made
    finally:
        await close_if_made_here(made)


async def close_if_made_here(backend: StateBackend) -> None:
    """Close the client of a backend that was created from a URL; if used again, it connects again."""
    if isinstance(backend, StoreBackend) and backend.close_client is not None:
        with anyio.move_on_after(ANSWER_TIMEOUT, shield=True):
            await backend.close_client()


def _file(name: str, rest: str) -> StateBackend:
    if "?" in rest or "#" in rest:
        msg = f"{name} must have ? and # in the path of a file percent-encoded, as %3F and %23"
        raise ValueError(msg)
    if rest.startswith("//"):
        host, slash, rest = rest[2:].partition("/")
        if host not in {"", "localhost"} or not slash:
            msg = f"{name} must be file:relative/path or file:///absolute/path, got the host {host!r}"
            raise ValueError(msg)
        rest = slash + rest
    return LocalFileBackend(unquote(rest))


def _redis(name: str, scheme: str, rest: str) -> StateBackend:
    from fastapi_maintenance.backends.redis import RedisBackend, make_client  # noqa: PLC0415 -- an extra

    plain, _, cluster = scheme.partition("+")
    url, key = _without_key(f"{plain}:{rest}")
    try:
        client = make_client(url, cluster=bool(cluster))
    except ValueError as error:
        msg = f"{name} must be a Redis URL, such as {scheme}://host:6379/0: {error}"
        raise ValueError(msg) from None
    backend = RedisBackend(client, key)
    backend.close_client = client.aclose
    return backend


def _sqlalchemy(name: str, url: str, scheme: str) -> StateBackend:
    from fastapi_maintenance.backends.sqlalchemy.backend import SQLAlchemyBackend, close_engine, make_engine  # noqa: PLC0415 -- an extra

    options = parse_qsl(url.partition("?")[2], keep_blank_values=True)
    for option, _ in options:
        if option != "create_table" and get_close_matches(option, ["create_table"]):
            msg = f"{name} has {option!r} in its query; did you mean create_table?"
            raise ValueError(msg)
    try:
        engine, given = make_engine(url)
    except ValueError as error:
        msg = f"{name} must begin with {_KNOWN_SCHEMES}, or be another URL of SQLAlchemy; {scheme}: {error}"
        raise ValueError(msg) from None
    given = {option: "" for option, value in options if not value} | given  # SQLAlchemy drops empty values
    word = given.get("create_table", "true").lower()
    if word not in ("true", "false"):
        msg = f"{name} must have create_table=true or create_table=false in its query, got {word!r}"
        raise ValueError(msg)
    backend = SQLAlchemyBackend(engine, given.get("key", DEFAULT_KEY), create_table=word == "true")
    backend.close_client = partial(close_engine, engine)
    return backend


def _without_key(url: str) -> tuple[str, str]:
    """Return the URL without `key=...` in its query, and that key."""
    base, _, query = url.partition("?")
    pairs = parse_qsl(query, keep_blank_values=True)
    rest = [pair for pair in pairs if pair[0] != "key"]
    if rest == pairs:
        return url, DEFAULT_KEY
    return f"{base}?{urlencode(rest)}".removesuffix("?"), dict(pairs)["key"]


_REDIS = ("redis", "rediss", "unix", "redis+cluster", "rediss+cluster")
_WITHOUT_SLASHES = ("env", "file", "memory")
_DRIVERS = [f"{dialect}+{driver}" for dialect, drivers in _ASYNC_DRIVERS.items() for driver in drivers]
_KNOWN_SCHEMES = "one of " + " ".join(f"{scheme}:" for scheme in [*_WITHOUT_SLASHES, *_REDIS, *_DRIVERS])
