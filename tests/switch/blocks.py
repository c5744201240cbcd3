"""What the tests of blocks share: each kind of backend, what a store keeps by itself, and what was logged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import anyio
import pytest
from anyio.lowlevel import checkpoint

from fastapi_maintenance import (
    DetailedStateBackend,
    EnvVarBackend,
    LocalFileBackend,
    MaintenanceState,
    MemoryBackend,
    StateBackend,
    Switch,
    maintenance_middleware,
)
from tests.stores import BareSwitch, DetailedStore, ReadOnlySwitch

ONLY_ASYNCIO = pytest.mark.parametrize("anyio_backend", ["asyncio"])
"""For what asyncio has and trio has not: a cancellation of a task that knows no scopes."""

LOGGER = "fastapi_maintenance"


_middlewares: list[object] = []
_Backend = TypeVar("_Backend", bound=StateBackend)


class BodyError(Exception):
    """What goes wrong in a block."""


def served(backend: _Backend) -> _Backend:
    """Return a backend that a middleware of this process is on: one that cannot be written is held nowhere else."""
    _middlewares.append(maintenance_middleware(backend=backend))
    del _middlewares[:-10]
    return backend


def memory(_folder: Path) -> StateBackend:
    return MemoryBackend()


def file(folder: Path) -> StateBackend:
    return LocalFileBackend(folder / "mode")


def environment(_folder: Path) -> StateBackend:
    return served(EnvVarBackend("HOLDS_MODE"))


def bare(_folder: Path) -> StateBackend:
    return BareSwitch()


def read_only(_folder: Path) -> StateBackend:
    return served(ReadOnlySwitch())


def detailed(_folder: Path) -> StateBackend:
    return DetailedStore()


Make = Callable[[Path], StateBackend]
any_backend = pytest.mark.parametrize("make", [memory, file, environment, bare, read_only, detailed])
any_hooked = pytest.mark.parametrize("make", [bare, detailed])


async def kept_by(store: StateBackend) -> MaintenanceState:
    """Return what the store itself keeps, without the help of this process."""
    if isinstance(store, DetailedStateBackend):
        return await store.get_state()
    return MaintenanceState(switch=Switch(on=await store.get_value()))


def messages_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == LOGGER]


def after_next_write(store: DetailedStore) -> anyio.Event:
    """Return an event that comes when the store has been written."""
    written = anyio.Event()

    async def tell() -> None:
        written.set()
        await checkpoint()

    store.after_write = tell
    return written
