"""Whoever waits for a change goes on waiting when the store's watch or read is cancelled by itself."""

from __future__ import annotations

import asyncio
from typing import Any

import anyio
import pytest

from fastapi_maintenance import maintenance_changes, set_maintenance_mode, wait_until_open
from tests.support import eventually, on_jumping_clock
from tests.switch.test_harmless_cancellations import Watched, cancel, outcome

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend(monkeypatch: pytest.MonkeyPatch) -> tuple[str, dict[str, Any]]:
    """Run on asyncio, whose cancellation is an exception like others, and wait for no seconds."""
    return on_jumping_clock("asyncio", monkeypatch)


@pytest.mark.parametrize("hook", ["before_tell", "before_read"])
async def test_waiting_for_a_change_watch_is_cancelled_by_itself_goes_on(hook: str) -> None:
    store = Watched(True)
    seen: list[bool] = []

    async def listen() -> None:
        async for change in maintenance_changes(store):
            seen.append(change.active)  # noqa: PERF401 -- it never ends

    async def has_seen_both() -> bool:
        await anyio.sleep(0.1)
        return seen == [True, False]

    waiting, listening = asyncio.ensure_future(wait_until_open(store)), asyncio.ensure_future(listen())
    await anyio.sleep(1)
    setattr(store, hook, cancel)
    store.ring()
    await anyio.sleep(2)
    assert (waiting.done(), listening.done(), store.watches <= 20) == (False, False, True)
    setattr(store, hook, anyio.lowlevel.checkpoint)
    await set_maintenance_mode(False, store)
    assert await outcome(waiting) is None
    await eventually(has_seen_both)
    listening.cancel()
    assert await outcome(listening) == "cancelled"
