"""The workers behind a switch in Redis: a hash of their records, each with the time of its last write.

A record also names a channel to which its process subscribes, and on which nothing is published. So the server knows
immediately when the process is gone, and keeps the subscription of one that hangs. Without a subscription, only the
time of the record counts. Of a worker that has left, the time is kept, since its process may still be subscribed.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from fastapi_maintenance._helpers.process import identity
from fastapi_maintenance._helpers.waiting import current_loop

if TYPE_CHECKING:
    from redis.asyncio import Redis, RedisCluster

_GONE_AFTER = 4.0  # seconds since the last write, without a subscription
_SILENT_FOR = 60.0  # seconds since the last write of a process that cannot subscribe
_KEPT_FOR = 60.0  # seconds after a worker has left
_SIGN = "redis.call('HSET', KEYS[1], ARGV[1], redis.call('TIME')[1] .. ' ' .. ARGV[2])"
_LEAVE = "redis.call('HSET', KEYS[1], ARGV[1], redis.call('TIME')[1])"
_READ = "return {redis.call('TIME')[1], redis.call('HGETALL', KEYS[1])}"


class _Record(NamedTuple):
    """The record of a worker, and when the worker was last known to be alive, by the clock of this process."""

    channel: str
    report: str
    heard: float


class RedisWorkers:
    """The records of the workers behind one switch; each method raises a `redis.RedisError` on failure.

    `slot` begins the keys in the hash slot of the switch.
    """

    def __init__(self, client: Redis | RedisCluster, slot: str) -> None:
        self._client = client
        self._slot = slot
        self._key = f"{slot}:workers"
        self._seen: dict[str, _Record] = {}
        self._looked_at = 0.0
        self.can_subscribe: bool = True
        """Whether this process can subscribe to its channel."""

    def channel(self) -> str:
        """Return the channel, without spaces, to which this process subscribes in this event loop."""
        slot = self._slot.replace("%", "%25").replace(" ", "%20")
        return f"{slot}:worker:{identity()}:{id(current_loop())}"

    async def sign(self, worker: str, report: str, /) -> None:
        """Write the record of a worker of this event loop."""
        channel = self.channel() if self.can_subscribe else ""
        await self._client.eval(_SIGN, 1, self._key, worker, f"{channel} {report}")

    async def leave(self, worker: str, /) -> None:
        """Replace the record of a worker by the time at which it left."""
        await self._client.eval(_LEAVE, 1, self._key, worker)

    async def reports(self) -> Mapping[str, str]:
        """Return the last report of each worker that has not left and is not known to be dead.

        A worker is dead if the server has no subscription of its process and no write for four seconds; a worker that
        could not subscribe, after a minute. This also applies to a worker that was seen here and whose record is lost.
        """
        self._looked_at, before = time.monotonic(), self._looked_at
        if self._looked_at - before > _KEPT_FOR / 2:
            self._seen.clear()  # the times of workers that have left may have been removed
        records, left = await self._read()
        lost = {worker: record for worker, record in self._seen.items() if worker not in records | left}
        found = lost | records
        subscribed = await self._subscribed({record.channel for record in found.values()})
        now = time.monotonic()
        alive, dead = {}, [worker for worker, age in left.items() if age > _KEPT_FOR]
        for worker, record in found.items():
            patience = _GONE_AFTER if record.channel else _SILENT_FOR
            if record.channel in subscribed:
                alive[worker] = record._replace(heard=now) if worker in lost else record
            elif now - record.heard < patience:
                alive[worker] = record
            elif worker in records:
                dead.append(worker)
        self._seen = alive
        if dead:
            with suppress(Exception):  # this user may not be permitted to write
                await self._client.hdel(self._key, *dead)
        return {worker: record.report for worker, record in alive.items()}

    async def _read(self) -> tuple[dict[str, _Record], dict[str, int]]:
        """Return the records, and the seconds since each worker that has left did so."""
        time_there, flat = await self._client.eval(_READ, 1, self._key)
        now, texts = time.monotonic(), [_text(each) for each in flat]
        records, left = {}, {}
        for worker, text in zip(texts[::2], texts[1::2], strict=True):
            written, *rest = text.split(" ", 2)
            age = int(time_there) - int(written) if written.isdecimal() else 0
            if written.isdecimal() and not rest:
                left[worker] = age
            else:
                channel, report = (*rest, "", "")[:2]
                records[worker] = _Record(channel, report, now - age)
        return records, left

    async def _subscribed(self, channels: set[str]) -> set[str]:
        """Return the channels that have subscribers; all of them if a node is unavailable."""
        asked = sorted(channels - {""})
        if not asked:
            return set()
        options = {} if hasattr(self._client, "connection_pool") else {"target_nodes": "all"}  # of a Cluster
        try:
            numbers = await self._client.pubsub_numsub(*asked, **options)
        except Exception:  # noqa: BLE001 -- any error of the client
            return set(asked)
        return {_text(channel) for channel, number in numbers if number}


def _text(found: bytes | str) -> str:
    return found.decode() if isinstance(found, bytes) else found
