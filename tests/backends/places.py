"""The stores that the tests of the backends run against, and how they are changed by hand and watched."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import anyio
import anyio.lowlevel
import sqlalchemy

from fastapi_maintenance import MaintenanceState, Switch, backend_from_url
from fastapi_maintenance.backends.redis import RedisBackend
from fastapi_maintenance.backends.sqlalchemy import SQLAlchemyBackend
from fastapi_maintenance.backends.url import close_if_made_here
from fastapi_maintenance.typing import WatchableStateBackend
from tests.support import eventually


@dataclass
class Place:
    """A running store."""

    kind: str
    url: str

    @property
    def is_redis(self) -> bool:
        """Tell whether it speaks the protocol of Redis."""
        return self.kind in {"redis", "redis-text", "cluster"}

    @asynccontextmanager
    async def opened(self) -> AsyncGenerator[Any]:
        """Give a backend with a client of its own, as another process has it."""
        backend = backend_from_url(self.url)
        try:
            yield backend
        finally:
            await close_if_made_here(backend)

    async def write_by_hand(self, text: str | bytes) -> None:
        """Set the value as a person or another program does."""
        async with self.opened() as backend:
            if isinstance(backend, RedisBackend):
                await backend.client.set(backend.key, text)
                return
            assert isinstance(backend, SQLAlchemyBackend)
            await backend.set_value(False)  # makes the table and the row
            async with backend.engine.begin() as connection:
                await connection.execute(
                    sqlalchemy.text("UPDATE fastapi_maintenance SET state = :text"), {"text": text}
                )

    async def read_by_hand(self) -> str:
        """Return the value as a person or another program reads it."""
        async with self.opened() as backend:
            if isinstance(backend, RedisBackend):
                value = await backend.client.get(backend.key)
                return value.decode() if isinstance(value, bytes) else str(value)
            assert isinstance(backend, SQLAlchemyBackend)
            async with backend.engine.connect() as connection:
                return str(await connection.scalar(sqlalchemy.text("SELECT state FROM fastapi_maintenance")))


def counted(state: MaintenanceState) -> MaintenanceState:
    """Return the state with a message that counts how often this was done."""
    return replace(state, switch=Switch(message=str(int(state.switch.message or "0") + 1)))


@asynccontextmanager
async def told(backend: WatchableStateBackend) -> AsyncGenerator[list[MaintenanceState]]:
    """Watch, and give the list of what was told."""
    states: list[MaintenanceState] = []

    async def listen() -> None:
        async for state in backend.watch():
            states.append(state)  # noqa: PERF401 -- each at once

    async with anyio.create_task_group() as group:
        group.start_soon(listen)
        yield states
        group.cancel_scope.cancel()


async def eventually_told(states: list[MaintenanceState]) -> None:
    """Wait until the first state has been told."""

    await eventually(lambda: bool(states))
