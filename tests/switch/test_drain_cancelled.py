"""A drained block that is cancelled at any of its checkpoints: it leaves no hold, mark, task or excused request."""

from __future__ import annotations

import asyncio
import types
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextlib import suppress
from itertools import count
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from starlette.types import Scope

from fastapi_maintenance import DrainTimeoutError, maintenance_mode_on
from fastapi_maintenance._switch import holds, requests
from fastapi_maintenance._switch.drain import Drain
from fastapi_maintenance._switch.worker import Worker
from tests.stores import DrainableStore
from tests.switch.services import Service, served

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend(jumping_loop: tuple[str, dict[str, Any]]) -> tuple[str, dict[str, Any]]:
    """Run the tests on a clock that jumps."""
    return jumping_loop


DRAIN = 0.06  # seconds, for some looks
MOST = 500  # checkpoints


@types.coroutine
def at_checkpoint(number: int, act: Callable[[], object], job: Coroutine[Any, Any, None]) -> Generator[Any, Any, None]:
    """Run a job, and act when it waits for the given time."""
    send, value = job.send, None
    for place in count(1):
        try:
            yielded = send(value)
        except StopIteration:
            return
        if place == number:
            act()
        try:
            send, value = job.send, (yield yielded)
        except BaseException as error:  # noqa: BLE001 -- passed on to the job
            send, value = job.throw, error


Job = Callable[[], Coroutine[Any, Any, None]]


async def by_a_scope(job: Job, number: int) -> bool:
    with anyio.CancelScope() as scope:
        await at_checkpoint(number, scope.cancel, job())
    return scope.cancel_called


async def with_its_task(job: Job, number: int) -> bool:
    async def run() -> None:
        await at_checkpoint(number, lambda: cancelled.append(task.cancel()), job())

    cancelled: list[bool] = []
    task = asyncio.create_task(run())
    with suppress(asyncio.CancelledError):
        await task
    return bool(cancelled)


@pytest.mark.parametrize("is_busy", [False, True])
@pytest.mark.parametrize(
    ("cancelled", "in_request", "jumping_loop"),
    [
        (by_a_scope, False, "asyncio"),
        (by_a_scope, True, "asyncio"),
        (by_a_scope, False, "trio"),
        (by_a_scope, True, "trio"),
        (with_its_task, False, "asyncio"),
    ],
    indirect=["jumping_loop"],
)
async def test_drain_cancelled_at_any_checkpoint_leaves_nothing(
    cancelled: Callable[[Job, int], Awaitable[bool]], in_request: bool, is_busy: bool
) -> None:
    backend = DrainableStore()  # which waits before and after each write
    backend.workers.is_durable = True  # type: ignore[attr-defined]  # so that a drain can be short
    service = Service(backend)

    async def drain() -> None:
        with suppress(DrainTimeoutError):
            async with maintenance_mode_on(backend, lease=10, drain=DRAIN):
                await anyio.sleep(0.01)

    async def ask() -> None:
        await service.get("/migrate")

    service.app.add_api_route("/migrate", drain)
    async with served(service) as group:
        if is_busy:
            await service.begin(group)
        before = len(anyio.get_running_tasks())
        for number in range(1, MOST):
            is_cancelled = await cancelled(ask if in_request else drain, number)
            await anyio.sleep(1)
            assert len(await backend.workers.reports()) == 1, number
            assert ((await backend.get_state()).holds, holds.ledgers, requests._in_block) == ((), {}, [])
            assert len(anyio.get_running_tasks()) == before, number
            if not is_cancelled:
                break
        assert 8 < number < MOST - 1


async def test_drain_cancelled_before_its_mark_is_written_ends_its_workers_and_removes_no_mark(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store, removed = DrainableStore(), list[str]()

    async def leave(worker: str) -> None:
        await checkpoint()
        removed.append(worker)

    monkeypatch.setattr(store.workers, "leave", leave)
    with anyio.CancelScope() as scope:

        def join() -> list[Worker]:
            scope.cancel()
            return [Worker(store, requests.Served(never_asked), is_brief=True)]

        async with Drain(store, 5, 0).begun(join):
            raise NotImplementedError
    assert scope.cancelled_caught
    assert removed != []
    assert "" not in removed


async def never_asked(request: requests.RequestInProgress, scope: Scope) -> None:
    raise NotImplementedError
