"""The workers behind a switch in Redis: a hash of their reports, and when each was last heard of.

A worker also subscribes to a channel of its own, on which nothing is published: the server knows at once when its
process is gone, and still has the subscription of one that hangs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from redis.asyncio import Redis, RedisCluster

_GONE_AFTER = 4  # seconds
_COUNT = """
redis.call('HSETNX', KEYS[1], ARGV[1], '')
redis.call('ZADD', KEYS[2], redis.call('TIME')[1], ARGV[1])
"""
"""Count a worker, or note that it still lives."""

_REPORT = """
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 1 then
    redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
end
"""
"""Keep the report of a worker that is counted."""

_FORGET = """
local gone = {}
for i = 2, #ARGV do
    local seen = redis.call('ZSCORE', KEYS[2], ARGV[i])
    if not seen or tonumber(seen) + tonumber(ARGV[1]) <= tonumber(redis.call('TIME')[1]) then
        redis.call('HDEL', KEYS[1], ARGV[i])
        redis.call('ZREM', KEYS[2], ARGV[i])
        gone[#gone + 1] = ARGV[i]
    end
end
return gone
"""
"""Forget those of the workers that have not shown that they live for so many seconds, and return them."""


class RedisWorkers:
    """The workers behind one switch. Each method raises `redis.RedisError`.

    Args:
        client: The client.
        key: The key of the switch.
        slot: The same, with the tag by which it lies in one slot of a Cluster with other keys.
    """

    def __init__(self, client: Redis | RedisCluster, key: str, slot: str) -> None:
        self._client = client
        self._key = key
        self._keys = f"{slot}:workers", f"{slot}:workers:seen"

    def channel(self, worker: str) -> str:
        """Return the channel that a worker subscribes to while it lives."""
        return f"{self._key}:worker:{worker}"

    async def count(self, worker: str) -> None:
        """Count a worker, or note that it still lives."""
        await self._client.eval(_COUNT, 2, *self._keys, worker)

    async def remove(self, worker: str) -> None:
        """Count a worker no longer."""
        await self._client.eval(_FORGET, 2, *self._keys, 0, worker)

    async def report(self, worker: str, text: str) -> None:
        """Replace the report of a worker that is counted."""
        await self._client.eval(_REPORT, 1, self._keys[0], worker, text)

    async def reports(self) -> dict[str, str]:
        """Return the report of each living worker, and take away what dead ones have left."""
        found: dict[bytes | str, bytes | str] = await self._client.hgetall(self._keys[0])
        reports = {_text(worker): _text(report) for worker, report in found.items()}
        channels = {self.channel(worker): worker for worker in reports}
        subscribed = await self._client.pubsub_numsub(*channels) if channels else []
        silent = [channels[_text(channel)] for channel, number in subscribed if not number]
        dead = await self._client.eval(_FORGET, 2, *self._keys, _GONE_AFTER, *silent) if silent else []
        return {worker: report for worker, report in reports.items() if worker not in set(map(_text, dead))}


def _text(found: bytes | str) -> str:
    return found.decode() if isinstance(found, bytes) else found
