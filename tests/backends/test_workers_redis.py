"""`RedisWorkers`: lost records, hung and silent workers, missing permissions, and a Cluster of two nodes."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, asynccontextmanager
from functools import partial
from typing import Any

import pytest
import redis.asyncio
from redis.exceptions import RedisError

from fastapi_maintenance._helpers import process
from fastapi_maintenance.backends.redis import RedisBackend
from tests.backends.helpers import WORKER, connected, on_asyncio  # noqa: F401 -- a fixture
from tests.servers import ValkeyCluster, running
from tests.support import eventually

pytestmark = [pytest.mark.anyio, pytest.mark.servers, pytest.mark.usefixtures("_patient")]
RECORDS = "{fastapi_maintenance_mode}:workers"


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Return a function that moves the clock by which records are read."""
    ahead, now = [0.0], time.monotonic

    def move(seconds: float) -> None:
        ahead[0] += seconds

    monkeypatch.setattr("fastapi_maintenance.backends.redis_workers.time.monotonic", lambda: now() + ahead[0])
    return move


async def reports(backend: RedisBackend, expected: dict[str, str]) -> bool:
    """Return whether these are the reports."""
    return await backend.workers.reports() == expected


@asynccontextmanager
async def subscribed(backend: RedisBackend) -> AsyncGenerator[None]:
    """Watch the switch, as the process of a worker does."""
    async with aclosing(backend.watch()) as states:  # type: ignore[type-var]  # a generator
        await anext(states)
        yield


async def be_silent(backend: RedisBackend, seconds: int) -> None:
    """Make the record that many seconds older."""
    record: Any = await backend.client.hget(RECORDS, WORKER)
    written, _, rest = record.decode().partition(" ")
    await backend.client.hset(RECORDS, WORKER, f"{int(written) - seconds} {rest}")


async def test_redis_reports_keep_a_worker_whose_record_is_lost_while_its_process_is_subscribed(
    redis_url: str, later: Callable[[float], None]
) -> None:
    async with connected(redis_url) as backend, connected(redis_url) as other:
        async with subscribed(backend):
            await backend.workers.sign(WORKER, "busy")
            assert await other.workers.reports() == {WORKER: "busy"}
            await other.client.flushall()
            for _ in range(2):
                later(20)
                assert await other.workers.reports() == {WORKER: "busy"}
        later(3)
        assert await other.workers.reports() == {WORKER: "busy"}
        later(2)
        await eventually(lambda: reports(other, {}))  # as soon as the server has noticed the end of the connection


async def test_redis_reports_keep_a_worker_that_hangs_until_its_process_is_gone(redis_url: str) -> None:
    async with connected(redis_url) as backend, connected(redis_url) as other:
        async with subscribed(backend):
            await backend.workers.sign(WORKER, "busy")
            await be_silent(other, 3600)
            assert await other.workers.reports() == {WORKER: "busy"}
        await eventually(lambda: reports(other, {}))
        assert await other.client.hlen(RECORDS) == 0


async def test_redis_worker_that_may_not_subscribe_is_counted_for_a_minute_after_its_last_write(redis_url: str) -> None:
    async with connected(redis_url) as other:
        rules = ["on", ">secret", "~*", "resetchannels", "&fastapi_maintenance_mode", "+@all"]
        await other.client.execute_command("ACL", "SETUSER", "app", *rules)
        async with connected(redis_url.replace("//", "//app:secret@")) as backend:
            async with subscribed(backend):
                await backend.workers.sign(WORKER, "busy")
            for seconds, expected in ((0, {WORKER: "busy"}), (30, {WORKER: "busy"}), (61, {})):
                await be_silent(other, seconds)
                assert await other.workers.reports() == expected


async def test_redis_reports_read_by_a_user_who_may_not_write_omit_a_dead_worker(redis_url: str) -> None:
    async with connected(redis_url) as other:
        await other.client.hset(RECORDS, WORKER, "0 channel {}")
        await other.client.hset(RECORDS, "of another version", "")
        await other.client.execute_command("ACL", "SETUSER", "reader", "on", ">x", "~*", "&*", "+@all", "-hdel")
        async with connected(redis_url.replace("//", "//reader:x@")) as reading:
            assert await reading.workers.reports() == {"of another version": ""}
        assert await other.client.hlen(RECORDS) == 2
        await other.workers.leave(WORKER)
        assert await other.workers.reports() == {"of another version": ""}


async def test_cluster_worker_that_hangs_is_counted_if_its_process_is_subscribed_on_any_node() -> None:
    with running("cluster") as server:
        assert isinstance(server, ValkeyCluster)
        with server.second_node() as second:
            for port in (server.port, second):
                async with connected(server.url) as backend, redis.asyncio.Redis(port=port) as node:
                    await backend.client.hset(RECORDS, WORKER, "0 channel busy")
                    pubsub = node.pubsub()
                    await pubsub.subscribe("channel")
                    assert await pubsub.get_message(timeout=30)
                    assert await backend.workers.reports() == {WORKER: "busy"}
                    await pubsub.aclose()  # type: ignore[no-untyped-call]  # untyped in redis-py
                    await eventually(partial(reports, backend, {}))


async def test_redis_worker_subscription_unknown_is_counted(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: Any, **__: Any) -> None:  # noqa: ANN401 -- those of the method
        message = "a node is down"
        raise RedisError(message)

    async with connected(redis_url) as backend:
        await backend.client.hset(RECORDS, WORKER, "0 channel busy")
        monkeypatch.setattr(backend.client, "pubsub_numsub", fail)
        assert await backend.workers.reports() == {WORKER: "busy"}


async def test_redis_subscription_is_a_socket_that_forked_children_close(redis_url: str) -> None:
    before = {*process._descriptors}
    async with connected(redis_url) as backend:
        async with subscribed(backend):
            [fileno] = {*process._descriptors} - before
            assert stat.S_ISSOCK(os.fstat(fileno()).st_mode)
        assert fileno() == -1
