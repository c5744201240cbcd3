"""A drained block: when its body begins, no request that it blocks is in progress, and none begins until it ends."""

from __future__ import annotations

import math
import os
import re
from datetime import timedelta
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
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
    set_maintenance_mode,
)
from fastapi_maintenance._helpers import clock
from fastapi_maintenance._switch import requests
from fastapi_maintenance._switch.drain import Drain
from fastapi_maintenance.state import Hold, add_hold
from tests.stores import BareSwitch, DetailedStore, DrainableStore, WatchableStore
from tests.support import client, eventually
from tests.switch.lifespans import living
from tests.switch.services import Elsewhere, Service, refused, seconds_to_body, served, until_drained

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend(jumping_loop: tuple[str, dict[str, Any]]) -> tuple[str, dict[str, Any]]:
    """Wait for nothing in vain."""
    return jumping_loop


async def test_the_body_begins_when_requests_in_every_app_have_ended_and_none_begins_in_it() -> None:
    backend = MemoryBackend()
    services = [Service(backend), Service(backend)]
    async with served(*services) as group:
        for service in services:
            group.start_soon(service.get, "/work/a")
            await service.begun("a")
        group.start_soon(until_drained, backend, *services)
        for service in services:
            await anyio.sleep(0.2)
            assert ["a begins"] == service.events
            service.let_go.set()
    for service in services:
        assert ["a begins", "a ends", "body"] == service.events
        assert not await get_maintenance_mode(backend)


async def test_a_background_task_is_a_part_of_its_request() -> None:
    backend = MemoryBackend()
    service = Service(backend)
    async with served(service) as group:
        group.start_soon(service.get, "/later/a")
        await service.begun("a")
        group.start_soon(until_drained, backend, service)
        await anyio.sleep(0.2)
        assert ["a begins"] == service.events
        service.let_go.set()
    assert ["a begins", "a ends", "body"] == service.events


@pytest.mark.parametrize("path", ["/health/a", "/open/a"])
async def test_what_is_exempt_is_not_waited_for(path: str) -> None:
    backend = MemoryBackend()
    service = Service(backend, exempt=path_prefix("/health"))
    async with served(service) as group:
        group.start_soon(service.get, path)
        await service.begun("a")
        await until_drained(backend, service)
        assert ["a begins", "body"] == service.events


async def test_a_middleware_that_the_switch_does_not_decide_about_is_not_waited_for() -> None:
    backend = MemoryBackend()
    service = Service(backend, enabled=False)
    async with served(service) as group:
        group.start_soon(service.get, "/work/a")
        await service.begun("a")
        hold = Hold(id="of another process", on=True)
        await backend.update_state(lambda state: add_hold(state, hold, clock.now()))
        drain = Drain(backend, 60, 0)
        async with drain.begun():
            await drain.wait(hold)
        assert ["a begins"] == service.events


async def test_the_request_that_opens_the_block_is_not_waited_for_in_any_of_its_middlewares() -> None:
    backend = MemoryBackend()
    inner, outer = FastAPI(), FastAPI()
    for app in (inner, outer):
        app.add_middleware(maintenance_middleware(backend=backend))
    outer.mount("/inner", inner)
    drained: list[str] = []

    @inner.get("/migrate")
    async def migrate() -> None:
        async with maintenance_mode_on(drain=60):
            drained.append("body")

    async with living(outer), living(inner), client(outer) as http:
        assert 200 == (await http.get("/inner/migrate")).status_code
    assert ["body"] == drained
    assert [] == requests._in_block


async def test_two_requests_that_drain_at_once_both_get_through() -> None:
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
            assert 200 == (await http.get("/migrate/1")).status_code


async def test_drain_after_its_time_names_what_is_left_and_releases_its_hold() -> None:
    backend = MemoryBackend()
    service = Service(backend)
    async with served(service) as group:
        for name in ("a", "b"):
            group.start_soon(service.get, f"/work/{name}")
            await service.begun(name)

        async def is_reported() -> bool:
            return [2] == [worker.requests for worker in await get_workers(backend)]

        async with maintenance_mode_on(backend):
            await eventually(is_reported)
            with pytest.raises(DrainTimeoutError) as raised:
                async with maintenance_mode_on(backend, drain=timedelta(seconds=0.2)):
                    service.events.append("body")
            assert 1 == len((await backend.get_state()).holds)
        assert 0.2 == raised.value.seconds
        [left] = raised.value.workers
        assert (os.getpid(), 2, "GET /work/{name}") == (left.process_id, left.requests, left.oldest_route)
        assert left.oldest_since is not None
        assert re.search(r"2 requests in progress, the oldest GET /work/\{name} for \d+ s", str(raised.value))
    assert "body" not in service.events


@pytest.mark.parametrize("backend", [BareSwitch(), DetailedStore(), WatchableStore(), EnvVarBackend()])
async def test_drain_on_a_backend_that_cannot_count_workers_raises_and_changes_nothing(
    backend: StateBackend,
) -> None:
    with pytest.raises(
        NotSupportedError, match=r"the workers of .* cannot be counted: that needs a file, Redis, PostgreSQL"
    ):
        async with maintenance_mode_on(backend, drain=1):
            pytest.fail("the body ran")
    assert not await backend.get_value()


async def test_the_client_of_a_block_that_is_refused_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[object] = []

    async def close(backend: object) -> None:
        await checkpoint()
        closed.append(backend)

    monkeypatch.setattr("fastapi_maintenance._switch.block.close_if_made_here", close)
    with pytest.raises(NotSupportedError):
        async with maintenance_mode_on("env:SWITCH", drain=1):
            pytest.fail("the body ran")
    assert [EnvVarBackend("SWITCH")] == closed


async def test_a_decorated_function_is_drained_in_each_call() -> None:
    backend = MemoryBackend()
    service = Service(backend)

    @maintenance_mode_on(backend, drain=60)
    async def migrate() -> None:
        service.events.append("body")

    async with served(service) as group:
        await migrate()
        group.start_soon(service.get, "/work/a")
        await service.begun("a")
        group.start_soon(migrate)
        await anyio.sleep(0.2)
        service.let_go.set()
    assert ["body", "a begins", "a ends", "body"] == service.events


async def test_a_cache_is_drained_as_what_is_behind_it() -> None:
    backend = MemoryBackend()
    service = Service(cached(backend, ttl=60))
    async with served(service) as group:
        assert 200 == await service.get("/openapi.json")
        group.start_soon(service.get, "/work/a")
        await service.begun("a")
        group.start_soon(until_drained, cached(backend), service)
        await anyio.sleep(0.2)
        service.let_go.set()
    assert ["a begins", "a ends", "body"] == service.events


async def test_a_request_that_begins_as_maintenance_does_is_waited_for_until_it_is_answered() -> None:
    backend = MemoryBackend()
    waiting, go_on = anyio.Event(), anyio.Event()

    async def slow(_request: Request) -> bool:
        waiting.set()
        await go_on.wait()
        return True

    service = Service(backend, exempt=slow)
    async with served(service) as group:
        await set_maintenance_mode(True, backend)
        group.start_soon(service.get, "/work/a")
        await waiting.wait()
        drained = anyio.Event()

        async def drain() -> None:
            async with maintenance_mode_on(backend, drain=60):
                drained.set()

        group.start_soon(drain)
        await anyio.sleep(0.2)
        assert not drained.is_set()
        go_on.set()
        with anyio.fail_after(30):
            await drained.wait()


async def test_where_no_lifespan_runs_a_hint_says_once_that_no_drain_waits(caplog: pytest.LogCaptureFixture) -> None:
    backend = MemoryBackend(state=True)
    service, other = Service(backend), Service(backend)
    assert [503, 503] == [await service.get("/work/a") for _ in range(2)]
    async with served(other):
        assert 503 == await other.get("/work/a")
    assert 503 == await other.get("/work/a")
    [text] = [record.getMessage() for record in caplog.records if record.name == "fastapi_maintenance.hints.lifespan"]
    assert text.startswith("no lifespan runs for this app, so a drain does not wait for its requests")


# How many have confirmed


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


async def test_drain_after_the_lifespan_of_its_app_has_ended_finds_no_worker() -> None:
    backend = MemoryBackend()
    async with served(Service(backend)):
        assert len(await get_workers(backend)) == 1
    await refused(NoWorkersError, backend, 60)
    assert await get_workers(backend) == ()


async def test_drain_that_wants_no_worker_waits_for_those_that_are_there() -> None:
    backend, service = MemoryBackend(), Service(MemoryBackend())
    service = Service(backend)
    assert await seconds_to_body(backend, workers=0) == pytest.approx(0, abs=0.2)
    assert await seconds_to_body(DrainableStore(), workers=0) == pytest.approx(2, abs=0.2)
    async with served(service) as group:
        group.start_soon(service.get, "/work/a")
        await service.begun("a")
        assert "process" in await refused(DrainTimeoutError, backend, 5, workers=0)


async def test_drain_that_too_few_confirm_says_how_many_have() -> None:
    store = DrainableStore()
    other = Elsewhere(store, 7)
    async with served(Service(store), Service(DrainableStore(beside=store))):  # two workers, and one process
        assert len(await get_workers(store)) == 2
        text = "requests are not drained after 5 s: 1 of 2 processes have confirmed"
        assert await refused(DrainTimeoutError, store, 5, workers=2) == text
        store.after_write = lambda: other.sign(confirms=True)
        async with maintenance_mode_on(store, drain=5, workers=2) as block:
            assert block is None
    store.come_back()


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
def test_block_with_a_drain_that_proves_nothing_is_refused_at_once(
    settings: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=re.escape(text)):
        maintenance_mode_on(**{"backend": MemoryBackend(), **settings})


async def test_block_with_a_drain_too_short_for_the_default_backend_is_refused_when_it_is_entered() -> None:
    store = DrainableStore()
    configure_backend(store)
    block = maintenance_mode_on(drain=1.9)
    with pytest.raises(ValueError, match=r"drain must be at least 2 seconds on DrainableStore, got 1\.9"):
        async with block:
            pytest.fail("the body ran")
    assert ((await store.get_state()).holds, store.workers.reported) == ((), {})


# Middlewares without a lifespan


@pytest.mark.parametrize(
    ("path", "expected"), [("/work/a", ["a begins", "a ends", "body"]), ("/open/a", ["a begins", "body", "a ends"])]
)
async def test_drain_looks_at_a_middleware_of_its_process_without_a_lifespan(path: str, expected: list[str]) -> None:
    backend = MemoryBackend()
    service = Service(backend)
    async with anyio.create_task_group() as group:
        group.start_soon(service.get, path)
        await service.begun("a")
        group.start_soon(until_drained, backend, service)
        await anyio.sleep(5)
        service.let_go.set()
    assert service.events == expected
    assert await get_workers(backend) == ()
