"""An app whose requests last until they are let go, and drains of its switch on a clock that jumps."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from typing import Any

import anyio
import pytest
from fastapi import BackgroundTasks, FastAPI

from fastapi_maintenance import (
    DetailedStateBackend,
    StateBackend,
    force_maintenance_mode_off,
    maintenance_middleware,
    maintenance_mode_on,
)
from fastapi_maintenance._switch.reports import Applied, report_of
from tests.stores import DrainableStore
from tests.support import client, eventually
from tests.switch.lifespans import living


class Service:
    """An app whose requests wait until they are let go, and its events in order."""

    def __init__(self, backend: StateBackend, **settings: Any) -> None:  # noqa: ANN401 -- those of the middleware
        self.backend = backend
        self.app = FastAPI()
        self.app.add_middleware(maintenance_middleware(backend=backend, **{"read_timeout": 60, **settings}))
        self.events: list[str] = []
        self.let_go = anyio.Event()
        self.app.add_api_route("/work/{name}", self.work)
        self.app.add_api_route("/health/{name}", self.work)
        self.app.add_api_route("/open/{name}", force_maintenance_mode_off(self.work_on))
        self.app.add_api_route("/later/{name}", self.work_later)

    async def work(self, name: str) -> str:
        self.events.append(f"{name} begins")
        await self.let_go.wait()
        self.events.append(f"{name} ends")
        return name

    async def work_on(self, name: str) -> str:
        return await self.work(name)

    async def work_later(self, name: str, tasks: BackgroundTasks) -> str:
        tasks.add_task(self.work, name)
        return name

    async def get(self, path: str) -> int:
        async with client(self.app) as http:
            return (await http.get(path)).status_code

    async def begun(self, *names: str) -> None:
        await eventually(lambda: all(f"{name} begins" in self.events for name in names))

    async def begin(self, group: anyio.abc.TaskGroup, path: str = "/work/a") -> None:
        """Begin a request, and return when it is in progress."""
        group.start_soon(self.get, path)
        await self.begun(path.rpartition("/")[2])


@asynccontextmanager
async def served(*services: Service) -> AsyncGenerator[anyio.abc.TaskGroup]:
    """Run the lifespan of each app; let its requests go at the end."""
    async with AsyncExitStack() as stack:
        for service in services:
            await stack.enter_async_context(living(service.app))
        group = await stack.enter_async_context(anyio.create_task_group())
        yield group
        for service in services:
            service.let_go.set()


async def until_drained(backend: StateBackend, *services: Service, workers: int | None = None) -> None:
    """Enter and leave a drained block, and add its body to the events."""
    async with maintenance_mode_on(backend, drain=60, workers=workers):
        for service in services:
            service.events.append("body")
            assert await service.get("/work/late") == 503


async def seconds_to_body(backend: StateBackend, drain: float | timedelta = 60, **settings: Any) -> float:  # noqa: ANN401 -- the block's
    """Enter and leave a drained block, and return after how many seconds its body began."""
    began = anyio.current_time()
    async with maintenance_mode_on(backend, drain=drain, **settings):
        return anyio.current_time() - began


async def refused(
    error: type[Exception],
    backend: DetailedStateBackend,
    drain: float,
    **settings: Any,  # noqa: ANN401 -- the block's
) -> str:
    """Return why a drained block raises; its hold is released."""
    before = (await backend.get_state()).holds
    with pytest.raises(error) as raised:
        await seconds_to_body(backend, drain, **settings)
    assert (await backend.get_state()).holds == before
    return str(raised.value)


class Elsewhere:
    """A worker of another process, of which only the record exists.

    Args:
        store: The store.
        number: The id of its process.
    """

    def __init__(self, store: DrainableStore, number: int = 7) -> None:
        self._store = store
        self.id = f"elsewhere.{number}.{number}-1"

    async def sign(self, *, confirms: bool = True) -> None:
        """Report that it goes by the stored state, or that it has read none yet."""
        state = await self._store.memory.get_state()
        goes = Applied(state, is_on=True, confirmed=state.holds) if confirms else Applied()
        self._store.workers.reported[self.id] = report_of(goes, ())
