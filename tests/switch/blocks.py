"""Helpers for tests of blocks: backends, what a store keeps by itself, and what was logged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import anyio
import pytest
from anyio.lowlevel import checkpoint

from fastapi_maintenance import (
    DetailedStateBackend,
    LocalFileBackend,
    MaintenanceState,
    MemoryBackend,
    StateBackend,
    Switch,
    maintenance_middleware,
)
from tests.stores import BareSwitch, DetailedStore

ONLY_ASYNCIO = pytest.mark.parametrize("anyio_backend", ["asyncio"])
"""For what trio lacks: a cancellation of a task outside of any scope."""
LOGGER = "fastapi_maintenance"
_middlewares: list[object] = []
_Backend = TypeVar("_Backend", bound=StateBackend)


class BodyError(Exception):
    """Raised in a block."""


def served(backend: _Backend) -> _Backend:
    """Return a backend that a middleware of this process is on; a read-only one cannot be held otherwise."""
    _middlewares.append(maintenance_middleware(backend=backend))
    del _middlewares[:-10]
    return backend


def memory(_folder: Path) -> StateBackend:
    return MemoryBackend()


def file(folder: Path) -> StateBackend:
    return LocalFileBackend(folder / "mode")


def bare(_folder: Path) -> StateBackend:
    return BareSwitch()


Make = Callable[[Path], StateBackend]


async def kept_by(store: StateBackend) -> MaintenanceState:
    """Return what the store itself keeps, without the holds of this process."""
    if isinstance(store, DetailedStateBackend):
        return await store.get_state()
    return MaintenanceState(switch=Switch(on=await store.get_value()))


def messages_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == LOGGER]


def after_next_write(store: DetailedStore) -> anyio.Event:
    """Return an event that is set by the next write of the store."""
    written = anyio.Event()

    async def set_event() -> None:
        written.set()
        await checkpoint()

    store.after_write = set_event
    return written
