"""The workers of a drain: when they are counted, what they report, and what happens when they cannot be counted."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from starlette.requests import Request

from fastapi_maintenance import (
    DrainTimeoutError,
    MemoryBackend,
    NotSupportedError,
    NoWorkersError,
    WorkerStatus,
    configure_backend,
    get_workers,
    maintenance_mode_on,
    set_maintenance_mode,
)
from fastapi_maintenance._helpers import clock
from fastapi_maintenance._switch.block import MaintenanceBlock
from fastapi_maintenance._switch.reports import Applied, report_of, workers_of
from fastapi_maintenance._switch.requests import Blocked, RequestInProgress
from fastapi_maintenance.state import Hold, MaintenanceState, MaintenanceStatus, Switch, Window
from tests.middleware.test_failures import app_on, records, status
from tests.stores import DrainableStore, be_down
from tests.support import eventually
from tests.switch.lifespans import Abandoned, left_behind, living
from tests.switch.services import Service, refused, served, until_drained

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend(jumping_loop: tuple[str, dict[str, Any]]) -> tuple[str, dict[str, Any]]:
    """Run the tests on a clock that jumps."""
    return jumping_loop


# Reports


class Clocked(DrainableStore):
    """A store whose clock is a minute behind."""

    async def now(self) -> datetime:
        await checkpoint()
        return clock.now() - timedelta(seconds=60)


def renewed(hold: Hold) -> Hold:
    return replace(hold, expires_at=clock.now() + timedelta(seconds=30))


async def test_get_workers_returns_the_state_and_the_requests_of_each() -> None:
    store = Clocked()
    service = Service(DrainableStore(beside=store))
    service.backend.now = store.now  # type: ignore[attr-defined]  # as the same store

    async def the_worker() -> WorkerStatus:
        [worker] = await get_workers(store)
        return worker

    async with served(service) as group:
        worker = await the_worker()
        assert (worker.process_id, worker.requests) == (os.getpid(), 0)
        assert (worker.is_on, worker.is_current) == (False, True)
        await service.begin(group)
        await set_maintenance_mode(True, store)
        worker = await the_worker()
        assert (worker.is_on, worker.is_current) == (False, False)
        await anyio.sleep(41)
        worker = await the_worker()
        assert (worker.is_on, worker.is_current) == (True, True)
        assert (worker.requests, worker.oldest_route) == (1, "GET /work/{name}")
        assert worker.oldest_for == pytest.approx(41, abs=5)
        assert worker.clock_ahead == pytest.approx(60, abs=1)
        async with maintenance_mode_on(store, lease=30):
            await anyio.sleep(1)
            await store.memory.update_state(lambda state: replace(state, holds=(renewed(state.holds[0]),)))
            assert (await the_worker()).is_current
    assert await get_workers(store) == ()


def test_get_workers_of_a_state_that_is_too_long_to_be_written_again() -> None:
    """A file in UTF-8 may hold one: written here, it would be ASCII, which is longer."""
    long = Switch(on=True, message="\u20ac" * 4096)
    windows = tuple(Window(id=f"{number}", starts_at=clock.now(), message=long.message) for number in range(3))
    state = MaintenanceState(switch=long, windows=windows)
    path = "/\ud800"  # which no server sends, but a test client may
    request = RequestInProgress()
    request.began, request.scope = 0, {"path": path, "method": "GET"}
    text = report_of(Applied(state, is_on=True), [(request, Blocked(MaintenanceStatus(active=True), ""))])
    (status,) = workers_of({"host.7.id-1": text}, state).values()
    assert (status.is_current, status.requests, status.oldest_route) == (True, 1, "GET /%3F")


async def test_drain_with_progress_calls_it_with_the_workers_and_the_seconds_left() -> None:
    backend = MemoryBackend()
    service = Service(backend)
    calls: list[tuple[int | None, float]] = []

    def progress(left: Sequence[WorkerStatus], seconds: float) -> None:
        calls.append((left[0].requests, seconds))
        if left[0].requests == 1:
            service.let_go.set()

    async with served(service) as group:
        await service.begin(group)
        async with MaintenanceBlock(backend, on=True, drain=60, progress=progress):
            assert service.events == ["a begins", "a ends"]
    assert {requests for requests, _ in calls if requests} == {1}
    assert all(0 < seconds <= 60 for _, seconds in calls)


# Requests that are decided on again


async def test_worker_decides_again_on_a_request_that_passed_during_maintenance_when_that_changes() -> None:
    backend = MemoryBackend(state=True)
    paths: list[str] = []

    def exempt(request: Request) -> bool:
        paths.append(request.url.path)
        return True

    async with served(service := Service(backend, exempt=exempt)) as group:
        await service.begin(group)
        await anyio.sleep(5)
        assert paths == ["/work/a"]
        await set_maintenance_mode(True, backend, message="soon")
        await anyio.sleep(5)
        assert paths == ["/work/a"] * 2


async def test_worker_ignores_the_verdict_by_a_status_that_has_changed_since() -> None:
    backend = MemoryBackend()
    answer = anyio.Event()
    calls: list[Request] = []

    async def exempt(request: Request) -> bool:
        calls.append(request)
        if len(calls) > 1:
            return False
        with anyio.CancelScope(shield=True):
            await answer.wait()
        return True

    async with served(service := Service(backend, exempt=exempt)) as group:
        await service.begin(group)
        for message in ("soon", "later"):
            await set_maintenance_mode(True, backend, message=message)
            await anyio.sleep(5)
        answer.set()
        await anyio.sleep(5)
        assert ([worker.requests for worker in await get_workers(backend)], len(calls)) == ([1], 2)


# Records


async def test_worker_whose_record_is_lost_signs_again_within_a_second() -> None:
    store = DrainableStore()
    async with served(Service(store)):
        for pause in (0.3, 0.6, 5):
            await anyio.sleep(pause)
            store.workers.reported.clear()
            await anyio.sleep(1.01)
            assert len(await get_workers(store)) == 1


async def test_worker_whose_record_is_refused_follows_signs_later_and_logs_both_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    refusal = (
        "No drain waits for the requests of this process until it can be registered in DrainableStore: "
        "ConnectionError: the store is down"
    )
    store = DrainableStore()
    store.workers.before_write = be_down
    async with served(service := Service(store)):
        await anyio.sleep(5)
        assert (await get_workers(store), records(caplog)) == ((), [refusal])
        await set_maintenance_mode(True, store)
        assert await service.get("/work/a") == 503
        store.workers.come_back()
        await anyio.sleep(5)
        assert len(await get_workers(store)) == 1
    assert [text for text in records(caplog) if not text.startswith("Maintenance is")] == [
        "Drains wait again for the requests of this process, in DrainableStore"
    ]


@pytest.mark.parametrize("is_supported", [True, False])
async def test_worker_whose_store_is_down_or_cannot_count_logs_no_refusal(
    caplog: pytest.LogCaptureFixture, is_supported: bool
) -> None:
    async def refuse() -> None:
        await checkpoint()
        raise NotSupportedError

    store = DrainableStore()
    async with served(Service(store)):
        store.workers.before_write = be_down if is_supported else refuse
        if is_supported:
            store.go_down()
            store.memory.watch = be_down  # type: ignore[assignment,method-assign]
        await anyio.sleep(5)
    assert [text for text in records(caplog) if "drain" in text] == []


# Beginning and end


async def test_worker_that_is_replaced_during_a_drain_leaves_two_seconds_to_the_next() -> None:
    backend = MemoryBackend()
    services = [Service(backend), Service(backend)]
    async with anyio.create_task_group() as group:
        async with living(services[0].app):
            await services[0].begin(group)
            group.start_soon(until_drained, backend, services[1])
            await anyio.sleep(5)
        services[0].let_go.set()
        await anyio.sleep(1)
        assert await get_workers(backend) == ()
        async with living(services[1].app):
            await anyio.sleep(1)
    assert services[1].events == ["body"]


async def test_worker_beside_another_on_its_switch_ends_at_once_and_logs_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    backend = MemoryBackend()
    async with served(Service(backend)):
        began = anyio.current_time()
        async with served(Service(backend)):
            assert len(await get_workers(backend)) == 2
        assert len(await get_workers(backend)) == 1
        assert anyio.current_time() - began < 1
        await anyio.sleep(5)
    assert (await get_workers(backend), records(caplog)) == ((), [])


async def test_worker_of_an_app_that_is_shut_down_ends_when_its_requests_have_ended() -> None:
    backend = MemoryBackend()
    service = Service(backend)
    async with anyio.create_task_group() as group:
        async with living(service.app):
            await service.begin(group, "/later/a")
        group.start_soon(partial(until_drained, backend, service, workers=0))
        await anyio.sleep(5)
        assert (len(await get_workers(backend)), service.events) == (1, ["a begins"])
        service.let_go.set()
    assert (service.events, await get_workers(backend)) == (["a begins", "a ends", "body"], ())


async def test_worker_of_an_app_without_backend_moves_to_the_one_that_is_configured_later() -> None:
    first, second = MemoryBackend(), MemoryBackend()
    configure_backend(first)
    service = Service(None)  # type: ignore[arg-type]  # the default backend

    async def counts() -> list[int]:
        return [len(await get_workers(backend)) for backend in (first, second)]

    async def is_moved() -> bool:
        return await counts() == [0, 1]

    async with served(service):
        assert await counts() == [1, 0]
        configure_backend(second)
        assert await service.get("/nothing") == 404
        await eventually(is_moved)
        await until_drained(second, service)


@pytest.mark.parametrize("enabled", [True, False])
async def test_worker_of_an_app_with_enabled_is_counted_by_drains_of_its_own_process_alone(enabled: bool) -> None:
    backend = MemoryBackend()
    async with living(app := app_on(backend, enabled=enabled)):
        assert await get_workers(backend) == ()
        async with maintenance_mode_on(backend, drain=5):  # finds a worker
            assert await status(app) == 503
    assert await get_workers(backend) == ()


# Event loops that are closed around a worker


def left_in_a_closed_loop(app: Any) -> Abandoned:  # noqa: ANN401 -- an ASGI app
    async def live() -> None:
        async with living(app):
            await asyncio.sleep(60)

    return Abandoned(live())


@left_behind
def test_worker_of_a_closed_event_loop_is_not_counted_and_its_app_is_looked_at_in_the_next() -> None:
    backend = MemoryBackend()
    service = Service(backend)

    async def drain_twice() -> None:
        service.let_go = anyio.Event()
        await until_drained(backend, service)
        assert await get_workers(backend) == ()
        async with anyio.create_task_group() as group:
            await service.begin(group)
            assert "1 request in progress" in await refused(DrainTimeoutError, backend, 0.5)
            service.let_go.set()

    left = left_in_a_closed_loop(service.app)
    asyncio.run(drain_twice())
    left.let_go()


@left_behind
def test_worker_of_a_closed_event_loop_is_not_counted_although_its_app_has_another_backend_since() -> None:
    first, second = MemoryBackend(), MemoryBackend()

    async def drain_first() -> None:
        await refused(NoWorkersError, first, 0.5)
        assert await get_workers(first) == ()

    configure_backend(first)
    left = left_in_a_closed_loop(app_on(None))
    configure_backend(second)
    asyncio.run(drain_first())
    left.let_go()
