"""A drained block that is cancelled at any of its checkpoints leaves no hold, no mark, no task and nobody excused."""

from __future__ import annotations

import asyncio
import types
from collections.abc import Awaitable, Callable, Coroutine, Generator, Mapping
from contextlib import suppress
from functools import partial
from itertools import count
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from fastapi_maintenance import (
    DrainTimeoutError,
    MaintenanceState,
    MemoryBackend,
    StateBackend,
    StateChange,
    get_maintenance_state,
    maintenance_mode_on,
)
from fastapi_maintenance._switch import holds, requests
from fastapi_maintenance._switch.reports import registry_of
from fastapi_maintenance.backends.memory import MemoryWorkers
from tests.support import RunJumping
from tests.switch.services import Service, served


class PausingBackend(MemoryBackend):
    """One that waits before and after all that it does, as a store does."""

    def __init__(self) -> None:
        super().__init__()
        self.workers = PausingWorkers()

    async def update_state(self, change: StateChange) -> MaintenanceState:
        await checkpoint()
        state = await super().update_state(change)
        await checkpoint()
        return state


class PausingWorkers(MemoryWorkers):
    """The records of such a one."""

    async def sign(self, worker: str, report: str, /) -> None:
        await checkpoint()
        await super().sign(worker, report)
        await checkpoint()

    async def leave(self, worker: str, /) -> None:
        await checkpoint()
        await super().leave(worker)

    async def reports(self) -> Mapping[str, str]:
        await checkpoint()
        return await super().reports()


DRAIN = 0.06  # seconds: some looks at what is left
MOST = 500  # checkpoints


@types.coroutine
def at_checkpoint(number: int, act: Callable[[], object], job: Coroutine[Any, Any, None]) -> Generator[Any, Any, None]:
    """Run a job, and act when it waits for the so-manieth time."""
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
        except BaseException as error:  # noqa: BLE001 -- the job is told
            send, value = job.throw, error


async def drain(backend: StateBackend) -> None:
    with suppress(DrainTimeoutError):
        async with maintenance_mode_on(backend, lease=10, drain=DRAIN):
            await anyio.sleep(0.01)


async def cancelled_everywhere(service: Service, run: Callable[[int, list[int]], Awaitable[None]]) -> int:
    """Run the job again and again, cancelled one checkpoint later each time, until it ends before; return how often."""
    before = len(anyio.get_running_tasks())
    for number in range(1, MOST):
        acted: list[int] = []
        await run(number, acted)
        await anyio.sleep(1)
        assert 1 == len(await registry_of(service.backend).reports()), number
        assert () == (await get_maintenance_state(service.backend)).holds
        assert {} == holds.ledgers
        assert [] == requests._in_block
        assert before == len(anyio.get_running_tasks()), number
        if not acted:
            return number
    pytest.fail("it never came to its end")


Run = Callable[[Service, int, list[int]], Awaitable[None]]


@pytest.fixture(params=[False, True], ids=["quiet", "busy"])
def check(request: pytest.FixtureRequest, run_jumping: RunJumping) -> Callable[[Run], None]:
    """Cancel a job everywhere, on a service that has a request in progress or none."""

    def run_check(run: Run) -> None:
        async def main() -> None:
            service = Service(PausingBackend())
            service.app.add_api_route("/migrate", partial(drain, service.backend))
            async with served(service) as group:
                if request.param:
                    group.start_soon(service.get, "/work/a")
                    await service.begun("a")
                assert await cancelled_everywhere(service, partial(run, service)) > 8

        run_jumping(main)

    return run_check


@pytest.mark.parametrize("in_request", [False, True])
def test_drain_cancelled_by_a_scope_leaves_nothing(check: Callable[[Run], None], in_request: bool) -> None:
    async def ask(service: Service) -> None:
        await service.get("/migrate")

    async def run(service: Service, number: int, acted: list[int]) -> None:
        with anyio.CancelScope() as scope:

            def cancel() -> None:
                acted.append(number)
                scope.cancel()

            await at_checkpoint(number, cancel, ask(service) if in_request else drain(service.backend))

    check(run)


@pytest.mark.parametrize("jumping_loop", ["asyncio"], indirect=True)
def test_drain_cancelled_with_its_task_leaves_nothing(check: Callable[[Run], None]) -> None:
    async def run(service: Service, number: int, acted: list[int]) -> None:
        async def job() -> None:
            await at_checkpoint(number, cancel, drain(service.backend))

        def cancel() -> None:
            acted.append(number)
            task.cancel()

        task = asyncio.create_task(job())
        with suppress(asyncio.CancelledError):
            await task

    check(run)
