"""The state in Redis or Valkey, pushed to all who follow it."""

from __future__ import annotations

import logging
import random
import re
import weakref
from collections.abc import AsyncIterator, Hashable
from contextlib import aclosing
from datetime import datetime, timedelta, timezone
from urllib.parse import urlsplit

import anyio

from fastapi_maintenance._helpers import clock
from fastapi_maintenance._helpers.checks import check_name, check_seconds, reject_kind
from fastapi_maintenance._helpers.waiting import ANSWER_TIMEOUT, WRITE_TIMEOUT, in_time
from fastapi_maintenance.backends.base import off_in_place_of, set_to
from fastapi_maintenance.codec import state_to_text, text_to_state
from fastapi_maintenance.errors import InvalidStateError
from fastapi_maintenance.state import MaintenanceState, is_active
from fastapi_maintenance.typing import StateChange

try:
    from redis.asyncio import Redis, RedisCluster
    from redis.asyncio.connection import AbstractConnection
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff
    from redis.exceptions import RedisError, ResponseError
except ImportError as _error:
    msg = "RedisBackend needs redis: pip install 'fastapi-maintenance[redis]'"
    raise ImportError(msg, name=_error.name) from _error

__all__ = ["RedisBackend", "make_client"]

_MAX_PAUSE = 0.02  # seconds between two tries of a change that others were faster than
_GARBAGE = "2"
_TAG = re.compile(r"[^{]*\{[^}]+\}")  # the first braces of a key, unless there is nothing in them
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
"""Set the key if it is still what it was, missing (0), the text (1) or whatever it is (2); and tell the followers.

The second key counts the changes. So a change that was given up while it was on its way, and arrives after what was
done instead, finds another count and is refused, also where the text is the same again.
"""
_unsubscribed: weakref.WeakSet[Redis | RedisCluster] = weakref.WeakSet()
"""The clients that are not allowed to subscribe, of which a warning has been logged."""

_logger = logging.getLogger("fastapi_maintenance")


class RedisBackend:
    """Keep the state in a key of Redis 6 or later, Valkey, or a Cluster of either.

    The key holds `1`, `0` or a JSON object, and a second key, `{<key>}:changes`, counts its changes. A missing key is
    off, and words such as `true` that others set are understood. Each change is published on a channel of the key's
    name, so that followers know it within milliseconds; what is set in another way, say with `redis-cli`, they find
    within `poll_interval`. It runs on asyncio, as the client does.

    Args:
        client: A client that you made and that you close; with or without `decode_responses`. Each process that follows
            the state keeps one connection of it for the channel.
        key: The key.
        poll_interval: Seconds between two looks at the key while it is followed. They also show whether the store is
            still there.

    Raises:
        TypeError: An argument is of the wrong type.
        ValueError: `key` is empty, or has a `}` that ends no `{tag}`, or `poll_interval` is not above zero.

    """

    def __init__(
        self, client: Redis | RedisCluster, key: str = "fastapi_maintenance_mode", *, poll_interval: float = 1.0
    ) -> None:
        if not isinstance(client, (Redis, RedisCluster)):
            reject_kind("client", "a redis.asyncio.Redis or RedisCluster (for a URL: backend_from_url)", client)
        self.client = client
        self.key: str = check_name("key", key)
        has_tag = _TAG.match(key) is not None
        if "}" in key and not has_tag:
            msg = f"key must have no }} but that of its {{tag}}, so that another key can lie in its slot, got {key!r}"
            raise ValueError(msg)
        # in the same slot of a Cluster as the key, whose own {tag} decides on that where it has one
        self._count_key = f"{key}:changes" if has_tag else f"{{{key}}}:changes"
        self.poll_interval: float = check_seconds("poll_interval", poll_interval)

    @property
    def switch_identity(self) -> Hashable:
        """What tells this switch from others: the server, the database and the key."""
        if isinstance(self.client, RedisCluster):
            return "redis+cluster", id(self.client), self.key
        pool = self.client.connection_pool
        facts = pool.connection_kwargs
        service = getattr(pool, "service_name", None), id(getattr(pool, "sentinel_manager", None))  # of a Sentinel
        return "redis", *(facts.get(name) for name in ("host", "port", "path", "db")), *service, self.key

    def __repr__(self) -> str:
        """Show the key."""
        return f"{type(self).__name__}(key={self.key!r})"

    async def get_value(self) -> bool:
        """Return whether there is maintenance now; raises as `get_state` does."""
        return is_active(await self.get_state(), clock.now())

    async def set_value(self, value: bool) -> None:  # noqa: FBT001 -- the spec's own signature
        """Set the operator's switch, without message or window; open holds stay. Raises as `update_state` does."""
        await self.update_state(set_to(value))

    async def get_state(self) -> MaintenanceState:
        """Return what the key says.

        Raises:
            InvalidStateError: What is there is no UTF-8, or no state.
            redis.RedisError: The store cannot be read.

        """
        return _state_of(await self._get())

    async def update_state(self, change: StateChange) -> MaintenanceState:
        """Apply a change to the key, so that no other change by any process is lost, and return the result.

        Raises:
            InvalidStateError: What is there is no state, and the change does not set the switch. One that does replaces
                it, as if it had been off, and a warning is logged.
            redis.RedisError: The store cannot be written.
            TimeoutError: It has not answered for ten seconds, or others were faster for as long.

        """
        with in_time(WRITE_TIMEOUT):
            while True:
                count = await self.client.get(self._count_key)
                try:
                    found = await self._get()
                    before, expected = _state_of(found), ("0" if found is None else "1", found or "")
                except InvalidStateError as error:
                    before, expected = off_in_place_of(error, change, self), (_GARBAGE, "")
                after = change(before)
                keys = (self.key, self._count_key)
                if await self.client.eval(_SWAP, len(keys), *keys, count or "", *expected, state_to_text(after)):
                    return after
                await anyio.sleep(random.uniform(0, _MAX_PAUSE))  # noqa: S311 -- no secret

    async def now(self) -> datetime:
        """Return the time by the clock of the store, aware and in UTC; raises `redis.RedisError`."""
        seconds, microseconds = await self.client.time()
        return datetime.fromtimestamp(seconds, timezone.utc) + timedelta(microseconds=microseconds)

    async def watch(self) -> AsyncIterator[MaintenanceState]:
        """Yield the state at once, after each change, and at each look; raises as `get_state` does.

        Raises:
            TimeoutError: The store has not answered for two seconds.

        """
        async with aclosing(_Subscription(self.client, self.key)) as subscription:
            with in_time(ANSWER_TIMEOUT):
                await subscription.subscribe()
            while True:
                with in_time(ANSWER_TIMEOUT):
                    state = await self.get_state()
                yield state
                with in_time(self.poll_interval + ANSWER_TIMEOUT):
                    await subscription.wait(self.poll_interval)

    async def _get(self) -> str | None:
        try:
            found: bytes | str | None = await self.client.get(self.key)
            return found.decode("utf-8") if isinstance(found, bytes) else found
        except UnicodeDecodeError as error:
            msg = f"text must be UTF-8, got {error.object[:200]!r}: {error}"
            raise InvalidStateError(msg) from None
        except ResponseError as error:
            if "WRONGTYPE" not in str(error):
                raise
            msg = f"{self.key} must be a string: {error}"
            raise InvalidStateError(msg) from None


def _state_of(text: str | None) -> MaintenanceState:
    return MaintenanceState() if text is None else text_to_state(text)


def make_client(url: str, *, cluster: bool) -> Redis | RedisCluster:
    """Return a client for a URL as redis-py has it; raises `ValueError` for what is none, and shows none of it."""
    try:
        parts = urlsplit(url)
        named = parts.path if parts.scheme == "unix" else parts.hostname
    except ValueError:
        named = None
    if not named or "://" not in url:
        msg = "it names no host" if not url.startswith("unix:") else "it names no socket"
        raise ValueError(msg)
    if parts.scheme != "unix" and not _DATABASE.fullmatch(parts.path):
        msg = "its path must be the number of a database"
        raise ValueError(msg)
    try:
        if cluster:
            return RedisCluster.from_url(url)
        client = Redis.from_url(url)
        _new_connection(client)  # of a query that no connection understands, this tells now
    except (TypeError, ValueError, RedisError) as error:  # whose text may have a password
        msg = f"redis-py refuses it with {type(error).__name__}"
        raise ValueError(msg) from None
    return client


class _Subscription:
    """A subscription to the channel on which changes of the key are published."""

    def __init__(self, client: Redis | RedisCluster, channel: str) -> None:
        self._client = client
        self._channel = channel
        # redis-py before 8 has none for a Cluster: there the key is only looked at now and then
        self._pubsub = client.pubsub() if hasattr(client, "pubsub") else None

    async def subscribe(self) -> None:
        """Subscribe; raises at once, without the client's own retries, where nobody answers."""
        if isinstance(self._client, Redis):
            await _ping(self._client)
        await self._client.initialize()  # a Cluster has to know its nodes
        if self._pubsub is None:
            return
        try:
            await self._pubsub.subscribe(self._channel)
            await self._pubsub.get_message(timeout=ANSWER_TIMEOUT)  # the answer to that
        except ResponseError as error:
            if self._client not in _unsubscribed:
                _unsubscribed.add(self._client)
                _logger.warning("Changes of %s are not pushed, the key is only polled: %s", self._channel, error)
            await self.aclose()
            self._pubsub = None

    async def wait(self, seconds: float) -> None:
        """Return when a change is published, or the time is over."""
        if self._pubsub is None:
            await anyio.sleep(seconds)
        else:
            await self._pubsub.get_message(timeout=seconds)

    async def aclose(self) -> None:
        if self._pubsub is not None:
            with anyio.move_on_after(ANSWER_TIMEOUT, shield=True):
                await self._pubsub.aclose()  # type: ignore[no-untyped-call]  # as redis-py has it


async def _ping(client: Redis) -> None:
    """Connect once, without the client's own retries, which may wait past the moment at which the store is back."""
    connection = _new_connection(client)
    connection.retry = Retry(NoBackoff(), 0)
    try:
        await connection.connect()  # type: ignore[no-untyped-call]  # as above
    finally:
        await connection.disconnect(nowait=True)


def _new_connection(client: Redis) -> AbstractConnection:
    """Return a connection that is not open yet, and belongs to nobody."""
    connection: AbstractConnection = client.connection_pool.make_connection()  # type: ignore[no-untyped-call]  # as above
    return connection
