"""A backend in Redis or Valkey, with each change pushed to its followers."""

import re
from collections.abc import AsyncGenerator, Hashable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from urllib.parse import urlsplit

import anyio

from fastapi_maintenance._helpers.checks import reject_kind, reject_value
from fastapi_maintenance._helpers.logs import get_logger
from fastapi_maintenance._helpers.process import let_go_in_children
from fastapi_maintenance._helpers.waiting import ANSWER_TIMEOUT, in_time
from fastapi_maintenance.backends.base import DEFAULT_KEY, Read, StoreBackend, Wait, apply
from fastapi_maintenance.codec import state_to_text, text_to_state
from fastapi_maintenance.errors import InvalidStateError
from fastapi_maintenance.state import MaintenanceState
from fastapi_maintenance.typing import StateChange

try:
    from redis.asyncio import Redis, RedisCluster
    from redis.asyncio.client import PubSub
    from redis.asyncio.connection import AbstractConnection
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff
    from redis.exceptions import RedisError, ResponseError
except ImportError as _error:
    msg = "RedisBackend needs redis: pip install 'fastapi-maintenance[redis]'"
    raise ImportError(msg, name=_error.name) from _error

from fastapi_maintenance.backends.redis_workers import RedisWorkers

__all__ = ["RedisBackend", "make_client"]

_TAG = re.compile(r"[^{]*\{[^}]+\}")  # the first braces of a key, if not empty
_DATABASE = re.compile(r"/?[0-9]*/?")
_SWAP = """
if redis.call('GET', KEYS[2]) ~= (ARGV[1] ~= '' and ARGV[1]) then
    return 0
end
if ARGV[2] ~= '2' then
    local before = redis.call('GET', KEYS[1])
    if (ARGV[2] == '0' and before) or (ARGV[2] == '1' and before ~= ARGV[3]) then
        return 0
    end
end
redis.call('SET', KEYS[1], ARGV[4])
redis.call('INCR', KEYS[2])
redis.pcall('PUBLISH', KEYS[1], ARGV[4])
return 1
"""
"""Set the key if it is still missing (0), if it still has the same text (1), or always (2), and notify the followers.

The second key counts the changes, so a change that was cancelled and arrives late is refused, even if the text is the
same again.
"""
_logger = get_logger()


class RedisBackend(StoreBackend):
    """Keep the state in a key of Redis 6 or later, Valkey, or a Cluster of either.

    The key holds `1`, `0` or a JSON object, and a second key, `{<key>}:changes`, counts its changes. A missing key is
    off, and words such as `true` are read too. Each change is published on a channel named as the key, so followers see
    it within milliseconds; a change made in another way, such as with `redis-cli`, within `poll_interval`. It runs on
    asyncio, as the client does. Its methods raise a `redis.RedisError` if the store cannot be read or written.

    Args:
        client: A client that you create and close, with or without `decode_responses`. Each event loop in which the
            state is followed keeps one of its connections for the channel.
        key: The key.
        poll_interval: Seconds, or a timedelta, between reads of the key while it is followed, which also show whether
            the store can be reached.

    Raises:
        TypeError: An argument is of the wrong type.
        ValueError: `key` is empty or has a `}` outside its `{tag}`, or `poll_interval` is not above zero.
    """

    def __init__(
        self, client: Redis | RedisCluster, key: str = DEFAULT_KEY, *, poll_interval: float | timedelta = 1.0
    ) -> None:
        if not isinstance(client, (Redis, RedisCluster)):
            reject_kind("client", "a redis.asyncio.Redis or RedisCluster (for a URL: backend_from_url)", client)
        super().__init__(key, poll_interval)
        self.client = client
        self._has_logged = False  # that the user of the client may not subscribe
        has_tag = _TAG.match(key) is not None
        if "}" in key and not has_tag:
            reject_value("key", "have no } outside its {tag}, so that other keys can share its hash slot", key)
        slot = key if has_tag else f"{{{key}}}"  # begins other keys in the same hash slot of a Cluster
        self._count_key = f"{slot}:changes"
        self.workers: RedisWorkers = RedisWorkers(client, slot)
        """The workers behind this switch."""

    @property
    def switch_identity(self) -> Hashable:
        """Identifies this switch: the server, the database and the key."""
        if isinstance(self.client, RedisCluster):
            return "redis+cluster", id(self.client), self.key
        pool = self.client.connection_pool
        facts = {"host": "localhost", "port": 6379, "db": 0} | pool.connection_kwargs
        service = getattr(pool, "service_name", None), id(getattr(pool, "sentinel_manager", None))  # of a Sentinel
        return "redis", *(facts.get(name) for name in ("host", "port", "path", "db")), *service, self.key

    def __repr__(self) -> str:
        return f"{type(self).__name__}(key={self.key!r})"

    async def now(self) -> datetime:
        """Return the time of the server's clock, aware and in UTC; raise a `redis.RedisError` if it is unavailable."""
        seconds, microseconds = await self.client.time()
        return datetime.fromtimestamp(seconds, UTC) + timedelta(microseconds=microseconds)

    async def _read(self) -> MaintenanceState:
        return _state_of(await self._get())

    async def _try(self, change: StateChange) -> MaintenanceState | None:
        count = await self.client.get(self._count_key)
        found = await self._get()
        after = apply(change, partial(_state_of, found), self)
        mode = "0" if found is None else "1" if isinstance(found, str) else "2"
        before = found if isinstance(found, str) else ""
        keys = [self.key, self._count_key]
        done = await self.client.eval(_SWAP, len(keys), *keys, count or "", mode, before, state_to_text(after))
        return after if done else None

    async def _get(self) -> str | InvalidStateError | None:
        """Return the text, None if the key is missing, or an error if its value is not text."""
        try:
            found: bytes | str | None = await self.client.get(self.key)
            return found.decode("utf-8") if isinstance(found, bytes) else found
        except UnicodeDecodeError as error:
            return InvalidStateError(f"text must be UTF-8, got {error.object[:200]!r}: {error}")
        except ResponseError as error:
            if "WRONGTYPE" not in str(error):
                raise
            return InvalidStateError(f"{self.key} must be a string: {error}")

    def _listening(self) -> AbstractAsyncContextManager[tuple[Read, Wait]]:
        if hasattr(self.client, "pubsub"):
            return self._subscribed()
        self.workers.can_subscribe = False  # a Cluster client of redis-py before 8: the key is only polled
        return nullcontext((self.get_state, anyio.sleep))

    @asynccontextmanager
    async def _subscribed(self) -> AsyncGenerator[tuple[Read, Wait]]:
        """Subscribe to the channel of changes, without the client's own retries."""
        pubsub = self.client.pubsub()
        fileno = partial(_fileno, pubsub)
        let_go_in_children(fileno)
        try:
            with in_time(ANSWER_TIMEOUT):
                if isinstance(self.client, Redis):
                    await _connect_once(self.client)
                await self.client.initialize()  # a Cluster has to know its nodes
                is_subscribed = await self._subscribe(pubsub, self.key)
                self.workers.can_subscribe = is_subscribed and await self._subscribe(pubsub, self.workers.channel())
            wait: Wait = (lambda seconds: pubsub.get_message(timeout=seconds)) if is_subscribed else anyio.sleep
            yield self.get_state, wait
        finally:
            with anyio.move_on_after(ANSWER_TIMEOUT, shield=True):
                await pubsub.aclose()  # type: ignore[no-untyped-call]  # untyped in redis-py

    async def _subscribe(self, pubsub: PubSub, channel: str) -> bool:
        """Subscribe; return False if that is not permitted, and log it once."""
        try:
            await pubsub.subscribe(channel)
            await pubsub.get_message(timeout=ANSWER_TIMEOUT)  # the confirmation
        except ResponseError as error:
            if not self._has_logged:
                self._has_logged = True
                text = "Cannot subscribe to the channel %s, so the key is only polled, or drains take longer: %s"
                _logger.warning(text, channel, error)
            return False
        return True


def _state_of(found: str | InvalidStateError | None) -> MaintenanceState:
    if isinstance(found, InvalidStateError):
        raise found
    return text_to_state(found or "")


def _fileno(pubsub: PubSub) -> int:
    """Return the file descriptor of a subscription's socket; -1 if it is not connected."""
    writer = getattr(pubsub.connection, "_writer", None)  # redis-py has no public access to it
    return -1 if writer is None else writer.get_extra_info("socket").fileno()


async def _connect_once(client: Redis) -> None:
    """Connect once, without the client's own retries, which might wait although the store is available again."""
    connection = _new_connection(client)
    connection.retry = Retry(NoBackoff(), 0)
    try:
        await connection.connect()  # type: ignore[no-untyped-call]  # as above
    finally:
        await connection.disconnect(nowait=True)


def _new_connection(client: Redis) -> AbstractConnection:
    """Return a new connection, not yet open."""
    connection: AbstractConnection = client.connection_pool.make_connection()  # type: ignore[no-untyped-call]  # as above
    return connection


def make_client(url: str, *, cluster: bool) -> Redis | RedisCluster:
    """Return a client for a URL of redis-py; raise a `ValueError` that does not show an invalid one."""
    is_socket, parts = url.startswith("unix:"), None
    with suppress(ValueError):
        parts = urlsplit(url)
    if parts is None or "://" not in url or not (parts.path if is_socket else parts.hostname):
        msg = "it has no path of a socket" if is_socket else "it has no host"
        raise ValueError(msg)
    if not is_socket and not _DATABASE.fullmatch(parts.path):
        msg = "its path must be the number of a database"
        raise ValueError(msg)
    try:
        if cluster:
            return RedisCluster.from_url(url)
        client = Redis.from_url(url)
        _new_connection(client)  # raises if the query has an unknown option
    except (TypeError, ValueError, RedisError) as error:  # their text may contain a password
        msg = f"redis-py rejects it with {type(error).__name__}"
        raise ValueError(msg) from None
    return client
