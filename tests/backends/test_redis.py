"""`RedisBackend`: the key, its channel, late changes, users without permissions, and its workers."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any, cast

import anyio
import anyio.lowlevel
import pytest
import redis.asyncio
from redis.asyncio.client import PubSub
from redis.crc import key_slot
from redis.exceptions import RedisError

from fastapi_maintenance import InvalidStateError, MaintenanceState, Switch, maintenance_mode_on, set_maintenance_mode
from fastapi_maintenance._helpers import process
from fastapi_maintenance.backends import base as base_module
from fastapi_maintenance.backends import redis as redis_module
from fastapi_maintenance.backends.redis import RedisBackend
from tests.backends.conftest import Place
from tests.backends.helpers import (  # noqa: F401 -- a fixture
    OFF,
    ON,
    WORKER,
    connected,
    messages_of,
    on_asyncio,
    watched,
)
from tests.documents import examples_of
from tests.middleware.test_failures import app_on
from tests.servers import ValkeyCluster, running
from tests.support import ROOT, eventually
from tests.switch.lifespans import answers, living

pytestmark = [pytest.mark.anyio, pytest.mark.servers, pytest.mark.usefixtures("_patient")]


@pytest.fixture
async def backend(redis_url: str) -> AsyncGenerator[RedisBackend]:
    async with connected(redis_url) as backend:
        yield backend


@pytest.mark.parametrize("before", [None, "1", "0", ""])
async def test_redis_change_is_applied_to_what_was_set_by_hand_meanwhile(redis_url: str, before: str | None) -> None:
    given: list[str | None] = []
    with redis.Redis.from_url(redis_url) as by_hand:

        def change(state: MaintenanceState) -> MaintenanceState:
            if not given:
                by_hand.set("fastapi_maintenance_mode", '{"switch": {"on": false, "message": "By hand"}}')
            given.append(state.switch.message)
            return replace(state, switch=replace(state.switch, on=True))

        place = Place("redis", redis_url)
        if before is not None:
            await place.write(before)
        async with place.opened() as backend:
            changed = await backend.update_state(change)
    assert changed == MaintenanceState(switch=Switch(on=True, message="By hand"))
    assert given == [None, "By hand"]


@pytest.mark.parametrize("key", ["mode", "{shop}:mode", "a{b"])
async def test_redis_keys_are_in_one_hash_slot(key: str) -> None:
    backend = RedisBackend(redis.asyncio.Redis(), key)
    assert {key_slot(each.encode()) for each in (backend._count_key, backend.workers._key)} == {key_slot(key.encode())}


async def test_redis_change_that_was_cancelled_and_arrives_late_is_refused(backend: RedisBackend) -> None:
    """A block is cancelled during its first write, which arrives after the block was closed."""
    await backend.set_value(False)
    send, late, is_late = backend.client.eval, list[tuple[Any, ...]](), anyio.Event()

    async def be_late(*words: Any) -> None:  # noqa: ANN401 -- what eval takes
        backend.client.eval = send  # type: ignore[method-assign]
        late.append(words)
        is_late.set()
        await anyio.sleep_forever()

    async def open_block() -> None:
        async with maintenance_mode_on(backend):
            pytest.fail("it cannot have opened")

    backend.client.eval = be_late  # type: ignore[assignment, method-assign]
    async with anyio.create_task_group() as group:
        group.start_soon(open_block)
        await is_late.wait()
        group.cancel_scope.cancel()
    assert await send(*late[0]) == 0
    assert await backend.get_state() == OFF


async def test_redis_change_never_first_times_out(backend: RedisBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_module, "_SWAP", "return 0")
    monkeypatch.setattr(base_module, "WRITE_TIMEOUT", 0.3)
    with pytest.raises(TimeoutError, match=r"no answer within 0\.3 seconds"), anyio.fail_after(30):
        await backend.set_value(True)
    assert await backend.get_state() == OFF


async def test_redis_watch_cancelled_closes_connection(backend: RedisBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    close, closed = PubSub.aclose, list[bool]()

    async def close_slowly(pubsub: PubSub) -> None:
        await anyio.lowlevel.checkpoint()
        await close(pubsub)  # type: ignore[no-untyped-call]  # untyped in redis-py
        closed.append(True)

    monkeypatch.setattr(PubSub, "aclose", close_slowly)
    async with watched(backend):
        pass
    assert closed == [True]


async def test_redis_key_of_another_type_raises_and_is_overwritten_by_a_switch(backend: RedisBackend) -> None:
    await backend.client.lpush(backend.key, "a list")
    with pytest.raises(InvalidStateError, match="must be a string: WRONGTYPE"):
        await backend.get_state()
    await backend.set_value(True)
    assert await backend.get_state() == ON


async def as_user(url: str, *rules: str) -> str:
    """Create a user who may use any key, no channel, and what the rules permit; return the URL."""
    client: Any = redis.asyncio.from_url(url)
    await client.execute_command("ACL", "SETUSER", "app", "on", ">secret", "~*", "resetchannels", *rules)
    await client.aclose()
    return url.replace("redis://", "redis://app:secret@")


async def test_redis_user_without_permissions_gets_an_error(redis_url: str) -> None:
    async with Place("redis", await as_user(redis_url, "+ping")).opened() as backend:
        for act in (backend.get_state(), backend.set_value(True), anext(backend.watch())):
            with pytest.raises(redis.RedisError, match="permission"):
                await act


async def test_redis_user_may_not_subscribe_polls_and_logs_once(
    redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    url = await as_user(redis_url, "+@all")
    async with Place("redis", url).opened() as backend:
        backend.poll_interval = 0.02
        app = app_on(backend)
        async with living(app):
            for active in (True, False):
                await set_maintenance_mode(active, f"{url}/0")
                await answers(app, 503 if active else 200)
        for _ in range(2):
            async with aclosing(backend.watch()) as states:
                assert await anext(states) == OFF
    (message,) = messages_of(caplog)
    text = (
        "Cannot subscribe to the channel fastapi_maintenance_mode, so the key is only polled, or drains take longer: "
    )
    assert message.startswith(text)
    assert message[len(text) :] not in {"", "None"}


async def test_redis_cluster_without_pubsub_polls(
    url_of: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(redis.asyncio.RedisCluster, "pubsub")  # as in redis-py before 8
    place = Place("cluster", url_of("cluster"))
    async with place.opened() as writer, place.opened() as backend:
        backend.poll_interval = 0.05
        async with watched(backend) as states:
            await writer.set_value(True)
            await eventually(lambda: states[-1:] == [ON])


async def test_redis_key_is_shared_with_the_backend_of_the_spec(redis_url: str) -> None:
    (block, _) = examples_of(ROOT / "tests" / "spec" / "custom-backends.md", "python")
    client = redis.asyncio.from_url(redis_url)
    theirs = cast("Any", block.run()["RedisBackend"])(client)
    ours = RedisBackend(client, theirs.key)
    for active in (True, False):
        await theirs.set_value(active)
        assert await ours.get_value() == active
        await ours.set_value(not active)
        assert await theirs.get_value() == (not active)
    await client.aclose()


# Workers


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
