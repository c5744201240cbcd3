"""A drained block: when its body begins, no request that it blocks is in progress, and none begins until it ends."""

from __future__ import annotations

import math
import os
import re
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any

import anyio
import pytest
from fastapi import FastAPI
from starlette.requests import Request

from fastapi_maintenance import (
    DrainTimeoutError,
    EnvVarBackend,
    LocalFileBackend,
    MemoryBackend,
    NotSupportedError,
    NoWorkersError,
    StateBackend,
    cached,
    configure_backend,
    get_maintenance_mode,
    get_workers,
    maintenance_middleware,
    maintenance_mode_on,
    path_prefix,
)
from fastapi_maintenance._helpers import clock
from fastapi_maintenance._switch.drain import Drain
from fastapi_maintenance.state import Hold, add_hold
from tests.stores import BareSwitch, DetailedStore, DrainableStore, WatchableStore
from tests.support import client, eventually
from tests.switch.lifespans import living
from tests.switch.services import Elsewhere, Service, refused, seconds_to_body, served, until_drained

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend(jumping_loop: tuple[str, dict[str, Any]]) -> tuple[str, dict[str, Any]]:
    """Run the tests on a clock that jumps."""
    return jumping_loop


# What is waited for


async def test_drain_of_several_apps_ends_when_their_requests_have_ended() -> None:
    backend = MemoryBackend()
    services = [Service(backend), Service(backend)]
    async with served(*services) as group:
        for service in services:
            await service.begin(group)
        group.start_soon(until_drained, backend, *services)
        for service in services:
            await anyio.sleep(5)
            assert service.events == ["a begins"]
            service.let_go.set()
    assert [service.events for service in services] == [["a begins", "a ends", "body"]] * 2
    assert not await get_maintenance_mode(backend)


@pytest.mark.parametrize("has_lifespan", [True, False])
@pytest.mark.parametrize("is_cached", [True, False])
@pytest.mark.parametrize(
    ("path", "is_waited_for"), [("/work/a", True), ("/later/a", True), ("/health/a", False), ("/open/a", False)]
)
async def test_drain_with_a_request_in_progress_waits_unless_maintenance_lets_it_pass(
    path: str, is_waited_for: bool, is_cached: bool, has_lifespan: bool
) -> None:
    backend = MemoryBackend()
    service = Service(cached(backend, ttl=60) if is_cached else backend, exempt=path_prefix("/health"))
    async with AsyncExitStack() as stack:
        if has_lifespan:
            await stack.enter_async_context(living(service.app))
        group = await stack.enter_async_context(anyio.create_task_group())
        assert await service.get("/openapi.json") == 200
        await service.begin(group, path)
        group.start_soon(until_drained, cached(backend) if is_cached else backend, service)
        await anyio.sleep(5)
        service.let_go.set()
    assert service.events == ["a begins", *(["a ends", "body"] if is_waited_for else ["body", "a ends"])]
    assert await get_workers(backend) == ()


async def test_drain_does_not_wait_for_a_middleware_with_enabled() -> None:
    backend, hold = MemoryBackend(), Hold(id="of another process", on=True)
    service = Service(backend, enabled=False)
    async with served(service) as group:
        await service.begin(group)
        await backend.update_state(lambda state: add_hold(state, hold, clock.now()))
        drain = Drain(backend, 60, 0)
        async with drain.begun():
            await drain.wait(hold)
        assert service.events == ["a begins"]


async def test_drain_in_a_request_does_not_wait_for_that_in_any_of_its_middlewares() -> None:
    backend = MemoryBackend()
    inner, outer = FastAPI(), FastAPI()
    for app in (inner, outer):
        app.add_middleware(maintenance_middleware(backend=backend))
    outer.mount("/inner", inner)

    @inner.get("/migrate")
    async def migrate() -> float:
        return await seconds_to_body(backend)

    async with living(outer), living(inner), client(outer) as http:
        assert float((await http.get("/inner/migrate")).text) < 1


async def test_drains_in_two_requests_do_not_wait_for_each_other() -> None:
    backend = MemoryBackend()
    app = FastAPI()
    app.add_middleware(maintenance_middleware(backend=backend))
    begun, inside = [anyio.Event(), anyio.Event()], [anyio.Event(), anyio.Event()]

    @app.get("/migrate/{number}")
    async def migrate(number: int) -> None:
        begun[number].set()
        await begun[1 - number].wait()
        async with maintenance_mode_on(drain=60):
            inside[number].set()
            await inside[1 - number].wait()

    async with living(app), client(app) as http, anyio.create_task_group() as group:
        with anyio.fail_after(30):
            group.start_soon(http.get, "/migrate/0")
            assert (await http.get("/migrate/1")).status_code == 200


async def test_drain_of_a_decorated_function_is_repeated_in_each_call() -> None:
    backend = MemoryBackend()
    service = Service(backend)

    @maintenance_mode_on(backend, drain=60)
    async def migrate() -> None:
        service.events.append("body")

    async with served(service) as group:
        await migrate()
        await service.begin(group)
        group.start_soon(migrate)
        await anyio.sleep(5)
        service.let_go.set()
    assert service.events == ["body", "a begins", "a ends", "body"]


async def test_drain_waits_for_a_request_whose_predicate_is_still_running() -> None:
    backend = MemoryBackend(state=True)
    asked, answer = anyio.Event(), anyio.Event()

    async def slow(_request: Request) -> bool:
        asked.set()
        await answer.wait()
        return True

    service = Service(backend, exempt=slow)
    async with served(service) as group:
        group.start_soon(service.get, "/work/a")
        await asked.wait()

        async def drain() -> None:
            service.events.append(f"drained: {await seconds_to_body(backend) >= 5}")

        group.start_soon(drain)
        await anyio.sleep(5)
        answer.set()
        await eventually(lambda: "drained: True" in service.events)


# What is left


async def test_drain_whose_time_runs_out_names_what_is_left_and_releases_its_hold() -> None:
    backend = MemoryBackend()
    service = Service(backend)
    async with served(service) as group:
        for name in ("a", "b"):
            await service.begin(group, f"/work/{name}")
        with pytest.raises(DrainTimeoutError) as raised:
            await seconds_to_body(backend, timedelta(seconds=0.2))
        assert (await backend.get_state()).holds == ()
    assert raised.value.seconds == 0.2
    [left] = raised.value.workers
    assert (left.process_id, left.requests, left.oldest_route) == (os.getpid(), 2, "GET /work/{name}")
    assert re.search(r"2 requests in progress, the oldest GET /work/\{name} for \d+ s", str(raised.value))


@pytest.mark.parametrize(
    ("make", "drain", "seconds"), [(MemoryBackend, 60, 2), (MemoryBackend, 1, 1), (DrainableStore, 60, 2)]
)
async def test_drain_without_workers_raises_after_two_seconds_or_its_time(
    make: type[MemoryBackend | DrainableStore], drain: float, seconds: float
) -> None:
    backend, began = make(), anyio.current_time()
    text = await refused(NoWorkersError, backend, drain)
    assert anyio.current_time() - began == pytest.approx(seconds, abs=0.2)
    assert f"no worker has signed in behind {make.__name__}" in text
    assert "the lifespan of the app" in text


async def test_drain_after_the_lifespan_of_its_app_finds_no_worker() -> None:
    backend = MemoryBackend()
    async with served(Service(backend)):
        assert len(await get_workers(backend)) == 1
    await refused(NoWorkersError, backend, 60)


async def test_drain_with_workers_0_waits_for_those_that_exist() -> None:
    backend = MemoryBackend()
    service = Service(backend)
    assert await seconds_to_body(backend, workers=0) == pytest.approx(0, abs=0.2)
    assert await seconds_to_body(DrainableStore(), workers=0) == pytest.approx(2, abs=0.2)
    async with served(service) as group:
        await service.begin(group)
        assert "process" in await refused(DrainTimeoutError, backend, 5, workers=0)


async def test_drain_that_too_few_processes_confirm_reports_how_many_have() -> None:
    store = DrainableStore()
    async with served(Service(store), Service(DrainableStore(beside=store))):  # two workers, and one process
        assert len(await get_workers(store)) == 2
        text = "requests are not drained after 5 s: 1 of 2 processes have confirmed"
        assert await refused(DrainTimeoutError, store, 5, workers=2) == text
        store.after_write = Elsewhere(store).sign
        assert await seconds_to_body(store, 5, workers=2) == pytest.approx(2, abs=0.2)
    store.come_back()


# What is refused


@pytest.mark.parametrize("backend", [BareSwitch(), DetailedStore(), WatchableStore(), EnvVarBackend()])
async def test_drain_on_a_backend_that_cannot_count_workers_raises_and_changes_nothing(backend: StateBackend) -> None:
    with pytest.raises(NotSupportedError, match=r"the workers of .* cannot be counted: that needs a file, Redis, Post"):
        await seconds_to_body(backend, 1)
    assert not await backend.get_value()


@pytest.mark.parametrize(
    ("settings", "error", "text"),
    [
        ({"drain": 0}, ValueError, "drain must be a finite number of seconds above 0, got 0"),
        ({"drain": timedelta(0)}, ValueError, "drain must be a finite number of seconds above 0, got datetime."),
        ({"drain": math.inf}, ValueError, "drain must be a finite number of seconds above 0, got inf"),
        ({"drain": "30s"}, TypeError, "drain must be a number of seconds or a timedelta, got str '30s'"),
        ({"workers": 1}, ValueError, "workers needs drain: it says how many processes have to confirm"),
        ({"workers": -1, "drain": 5}, ValueError, "workers must be at least 0, got -1"),
        ({"workers": True, "drain": 5}, TypeError, "workers must be an int, got bool True"),
        ({"workers": 1.0, "drain": 5}, TypeError, "workers must be an int, got float 1.0"),
        ({"drain": 1.9, "backend": DrainableStore()}, ValueError, "drain must be at least 2 seconds on DrainableStore"),
        ({"drain": 1.9, "backend": LocalFileBackend("switch")}, ValueError, "drain must be at least 2 seconds on "),
    ],
)
def test_block_with_an_invalid_drain_raises_at_once(
    settings: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=re.escape(text)):
        maintenance_mode_on(**{"backend": MemoryBackend(), **settings})


async def test_block_with_a_drain_too_short_for_the_default_backend_raises_when_it_is_entered() -> None:
    store = DrainableStore()
    configure_backend(store)
    block = maintenance_mode_on(drain=1.9)
    with pytest.raises(ValueError, match=r"drain must be at least 2 seconds on DrainableStore, got 1\.9"):
        await block.__aenter__()
    assert ((await store.get_state()).holds, store.workers.reported) == ((), {})


async def test_app_without_a_lifespan_logs_one_hint_that_no_drain_waits(caplog: pytest.LogCaptureFixture) -> None:
    backend = MemoryBackend(state=True)
    service, other = Service(backend), Service(backend)
    assert [await service.get("/work/a") for _ in range(2)] == [503, 503]
    async with served(other):
        assert await other.get("/work/a") == 503
    assert await other.get("/work/a") == 503
    [text] = [record.getMessage() for record in caplog.records if record.name == "fastapi_maintenance.hints.lifespan"]
    assert text.startswith("no lifespan runs for this app, so a drain does not wait for its requests")
