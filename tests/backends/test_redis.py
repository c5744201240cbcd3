"""What is particular to Redis and Valkey: the key, its channel, and users who may not do everything."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import replace
from typing import Any, cast

import anyio
import anyio.lowlevel
import pytest
import redis.asyncio
from redis.asyncio.client import PubSub
from redis.crc import key_slot

from fastapi_maintenance import (
    InvalidStateError,
    MaintenanceState,
    Switch,
    backend_from_url,
    maintenance_mode_on,
    set_maintenance_mode,
)
from fastapi_maintenance.backends import base as base_module
from fastapi_maintenance.backends import redis as redis_module
from fastapi_maintenance.backends.redis import RedisBackend
from fastapi_maintenance.backends.url import opened
from tests.backends.helpers import messages_of, on_asyncio  # noqa: F401 -- a fixture
from tests.backends.places import Place, told
from tests.documents import examples_of
from tests.middleware.test_failures import app_on
from tests.support import ROOT, eventually
from tests.switch.lifespans import answers, living

pytestmark = [pytest.mark.anyio, pytest.mark.servers, pytest.mark.usefixtures("_patient")]
ON = MaintenanceState(switch=Switch(on=True))
OFF = MaintenanceState()


@pytest.fixture
async def backend(redis_url: str) -> AsyncGenerator[RedisBackend]:
    """Give a backend with a client of its own."""
    async with opened(redis_url) as backend:
        yield cast("RedisBackend", backend)


@pytest.mark.parametrize("before", [None, "1", "0", ""])
async def test_what_is_set_by_hand_while_a_change_is_made_is_what_is_changed(
    redis_url: str, before: str | None
) -> None:
    seen: list[MaintenanceState] = []
    with redis.Redis.from_url(redis_url) as by_hand:
        place = Place("redis", redis_url)

        def change(state: MaintenanceState) -> MaintenanceState:
            if not seen:
                by_hand.set("fastapi_maintenance_mode", '{"switch": {"on": false, "message": "By hand"}}')
            seen.append(state)
            return replace(state, switch=replace(state.switch, on=True))

        if before is not None:
            await place.write_by_hand(before)
        async with place.opened() as backend:
            assert MaintenanceState(switch=Switch(on=True, message="By hand")) == await backend.update_state(change)
    assert [None, "By hand"] == [state.switch.message for state in seen]


@pytest.mark.parametrize("key", ["mode", "{shop}:mode", "a{b"])
async def test_the_count_of_changes_lies_in_the_slot_of_the_key(key: str) -> None:
    backend = RedisBackend(redis.asyncio.Redis(), key)
    assert key_slot(key.encode()) == key_slot(backend._count_key.encode())


async def test_a_change_that_was_given_up_and_arrives_late_is_refused(backend: RedisBackend) -> None:
    """A block is cancelled while its first write is on the way; the write arrives after the block was closed."""
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
    assert 0 == await send(*late[0])
    assert OFF == await backend.get_state()


async def test_a_write_that_others_are_always_faster_than_is_given_up(
    backend: RedisBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_module, "_SWAP", "return 0")
    monkeypatch.setattr(base_module, "WRITE_TIMEOUT", 0.3)
    with pytest.raises(TimeoutError, match=r"no answer within 0\.3 seconds"), anyio.fail_after(30):
        await backend.set_value(True)
    assert await backend.get_state() == OFF


async def test_a_channel_is_given_the_time_to_close_where_its_watch_is_cancelled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    closed: list[bool] = []

    async def close(_pubsub: object) -> None:
        await anyio.lowlevel.checkpoint()
        closed.append(True)

    backend = cast("RedisBackend", backend_from_url("redis://localhost"))
    pubsub = backend.client.pubsub()
    monkeypatch.setattr(PubSub, "aclose", close)
    with anyio.CancelScope() as scope:
        scope.cancel()
        await redis_module._close(pubsub)
    assert [True] == closed


async def test_a_key_that_holds_something_else_is_garbage_too(backend: RedisBackend) -> None:
    await backend.client.lpush(backend.key, "a list")
    with pytest.raises(InvalidStateError, match="must be a string: WRONGTYPE"):
        await backend.get_state()
    await backend.set_value(True)
    assert ON == await backend.get_state()


async def test_a_user_who_may_do_nothing_is_told_so(redis_url: str) -> None:
    await as_user(redis_url, "+ping")
    async with Place("redis", redis_url.replace("redis://", "redis://app:secret@")).opened() as backend:
        for act in (backend.get_state(), backend.set_value(True), anext(backend.watch())):
            with pytest.raises(redis.RedisError, match="permission"):
                await act


async def test_a_user_who_may_not_listen_looks_now_and_then_and_is_told_so_once(
    redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    await as_user(redis_url, "+@all")
    url = redis_url.replace("redis://", "redis://app:secret@")
    async with Place("redis", url).opened() as backend:
        backend.poll_interval = 0.02
        app = app_on(backend, read_timeout=60)
        async with living(app):
            for active in (True, False):
                await set_maintenance_mode(active, f"{url}/0")
                await answers(app, 503 if active else 200)
        for _ in range(2):
            async with aclosing(backend.watch()) as states:
                assert OFF == await anext(states)
    (message,) = messages_of(caplog)
    assert message.startswith(
        "The channel fastapi_maintenance_mode cannot be subscribed to, so the key is only polled, "
    )
    assert not message.endswith("None")


async def as_user(url: str, *rules: str) -> None:
    """Make a user who may use each key, no channel, and what the rules say."""
    client: Any = redis.asyncio.from_url(url)
    await client.execute_command("ACL", "SETUSER", "app", "on", ">secret", "~*", "resetchannels", *rules)
    await client.aclose()


async def test_a_cluster_whose_client_cannot_listen_is_looked_at_now_and_then(
    url_of: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(redis.asyncio.RedisCluster, "pubsub")  # as in redis-py before 8
    place = Place("cluster", url_of("cluster"))
    async with place.opened() as writer, place.opened() as backend:
        backend.poll_interval = 0.05
        async with told(backend) as states:
            await writer.set_value(True)
            await eventually(lambda: states[-1:] == [ON])


async def test_it_shares_a_key_with_the_backend_of_the_spec(redis_url: str) -> None:
    (block, _) = examples_of(ROOT / "tests" / "spec" / "custom-backends.md", "python")
    client = redis.asyncio.from_url(redis_url)
    theirs = cast("Any", block.run()["RedisBackend"])(client)
    ours = RedisBackend(client, theirs.key)
    for active in (True, False):
        await theirs.set_value(active)
        assert active == await ours.get_value()
        await ours.set_value(not active)
        assert (not active) == await theirs.get_value()
    await client.aclose()
