"""`RedisBackend`: the key, its channel, late changes, and users without permissions."""

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

from fastapi_maintenance import InvalidStateError, MaintenanceState, Switch, maintenance_mode_on, set_maintenance_mode
from fastapi_maintenance.backends import base as base_module
from fastapi_maintenance.backends import redis as redis_module
from fastapi_maintenance.backends.redis import RedisBackend
from tests.backends.conftest import Place
from tests.backends.helpers import OFF, ON, connected, messages_of, on_asyncio, watched  # noqa: F401 -- a fixture
from tests.documents import examples_of
from tests.middleware.test_failures import app_on
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
