"""`StoreBackend`: how the backends on a shared store watch it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import anyio
import pytest

from fastapi_maintenance import MaintenanceState
from fastapi_maintenance.backends.base import Read, StoreBackend, Wait
from fastapi_maintenance.typing import StateChange
from tests.support import RunJumping


class Silent(StoreBackend):
    """A store without notifications, in which some waits never end."""

    def __init__(self, endless: list[bool]) -> None:
        super().__init__("key", 0.01)
        self.endless = endless
        self.reads = 0

    async def _read(self) -> MaintenanceState:
        self.reads += 1
        return MaintenanceState()

    async def _try(self, change: StateChange) -> MaintenanceState | None:
        return change(await self._read())

    async def _wait(self, seconds: float) -> None:
        await anyio.sleep(60 if self.endless.pop(0) else seconds)

    @asynccontextmanager
    async def _listening(self) -> AsyncGenerator[tuple[Read, Wait]]:
        yield self._read, self._wait


@pytest.mark.parametrize(("endless", "reads"), [([True, True], 2), ([True, False, True, False, True, True], 6)])
def test_store_watch_raises_after_two_endless_waits(endless: list[bool], reads: int, run_jumping: RunJumping) -> None:
    """One may be due to this process, if it was stopped or busy."""
    backend = Silent(endless.copy())

    async def watch() -> None:
        with pytest.raises(TimeoutError, match="did not end in time, twice in a row"):
            async for _ in backend.watch():
                pass

    run_jumping(watch)
    assert backend.reads == reads
