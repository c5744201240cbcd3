"""Outages, lost connections and stopped apps leave no tasks, objects or connections."""

from __future__ import annotations

import asyncio
import gc
import logging
import weakref
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import cast

import anyio
import pytest
from anyio.lowlevel import checkpoint
from fastapi import FastAPI

from fastapi_maintenance import backend_from_url, maintenance_middleware
from fastapi_maintenance._helpers import background, process
from fastapi_maintenance._switch import follower
from fastapi_maintenance.backends.last_known import known_of
from fastapi_maintenance.backends.redis import RedisBackend
from fastapi_maintenance.backends.url import close_if_made_here
from tests.middleware.test_failures import app_on, status
from tests.stores import WatchableStore
from tests.support import eventually
from tests.switch.lifespans import answers, living

pytestmark = [pytest.mark.anyio, pytest.mark.servers, pytest.mark.no_cover]  # that would double the time

WARM, MANY = 200, 300
SLACK = 270  # objects: less than one for each time


@pytest.fixture
def anyio_backend() -> str:
    """Run on asyncio, as the clients do."""
    return "asyncio"


@pytest.fixture(autouse=True)
def _no_records() -> Iterator[None]:
    """Drop log records: a kept one would keep its exception."""
    logger = logging.getLogger("fastapi_maintenance")

    def drop(_record: logging.LogRecord) -> bool:
        return False

    logger.addFilter(drop)
    yield
    logger.removeFilter(drop)


async def endpoint() -> str:
    """Answer; one for all apps, as FastAPI remembers each endpoint."""
    return "open"


async def assert_leaves_nothing(act: Callable[[], Awaitable[None]]) -> None:
    """Do it some hundred times, and some hundred times more; compare the numbers of tasks and objects."""
    counts = []
    for times in (WARM, MANY):
        for _ in range(times):
            await act()
        counts.append(await settled())
    (tasks, objects), (tasks_after, objects_after) = counts
    assert tasks_after == tasks
    assert objects_after < objects + SLACK


async def settled() -> tuple[int, int]:
    """Return the numbers of tasks and objects once they no longer fall."""
    counts: list[tuple[int, int]] = []
    while len(counts) < 3 or (len(counts) < 100 and min(counts[-3:-1]) > counts[-1]):
        await anyio.sleep(0.1)
        gc.collect()
        gc.collect()  # objects with finalizers need a second round
        counts.append((len(asyncio.all_tasks()), len(gc.get_objects())))
    return counts[-1]


async def are_clients(most: int, operator: RedisBackend) -> bool:
    """Return whether no more clients are connected; the server notices a closed connection a little later."""
    return len(await operator.client.client_list()) <= most


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition, without pauses."""
    while not condition():
        await checkpoint()


async def test_outages_of_a_store_leave_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "_PAUSES", (0.0001,))
    store = WatchableStore(True)
    app, known = app_on(store), known_of(store)

    async def fail_and_come_back() -> None:
        store.go_down()
        store.cut_off()
        await until(lambda: not known.is_available)
        store.come_back()
        store.before_tell = checkpoint
        await until(lambda: known.is_available)
        assert await status(app) == 503

    async with living(app):
        await assert_leaves_nothing(fail_and_come_back)
        assert store.watchers == 1
    assert store.watchers == 0


async def test_lost_connections_leave_nothing(monkeypatch: pytest.MonkeyPatch, redis_url: str) -> None:
    monkeypatch.setattr(background, "_PAUSES", (0.0001,))
    operator = cast("RedisBackend", backend_from_url(redis_url))
    await operator.set_value(True)
    app = app_on(redis_url)

    async def is_followed() -> bool:
        channels = await operator.client.pubsub_numsub(operator.key)
        return channels[0][1] == 1

    async def cut_and_come_back() -> None:
        await operator.client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
        await eventually(is_followed)

    async with living(app):
        await assert_leaves_nothing(cut_and_come_back)
        await answers(app, 503)
        # this one, the subscriptions, and the pool's: a few, of hundreds
        await eventually(partial(are_clients, 8, operator))
    await eventually(partial(are_clients, 1, operator))
    await close_if_made_here(operator)


async def test_stopped_apps_leave_nothing(redis_url: str) -> None:
    operator = cast("RedisBackend", backend_from_url(redis_url))
    await operator.set_value(True)

    async def live() -> None:
        app = FastAPI(openapi_url=None)
        app.add_middleware(maintenance_middleware(backend=redis_url, read_timeout=60))
        app.add_api_route("/", endpoint)
        async with living(app):
            await answers(app, 503)

    await assert_leaves_nothing(live)
    await eventually(partial(are_clients, 1, operator))
    assert follower.followers == {}
    process.reset()  # from Python 3.15 on, connections keep the context in which they began, and so the app
    gc.collect()
    known = weakref.ref(known_of(operator))
    assert known() is None
    await close_if_made_here(operator)
