"""`MemoryBackend`, `BaseStateBackend` of the spec, and how stores are watched."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from fastapi_maintenance import BaseStateBackend, MaintenanceState, MemoryBackend, Switch
from fastapi_maintenance._helpers import process
from fastapi_maintenance.backends.base import Read, StoreBackend, Wait
from fastapi_maintenance.typing import StateChange
from tests.backends.helpers import OFF, ON
from tests.stores import TextSwitch
from tests.support import RunJumping

pytestmark = pytest.mark.anyio
SOON = MaintenanceState(switch=Switch(message="Soon"))


@pytest.mark.parametrize(("given", "expected"), [(True, ON), (False, OFF), (SOON, SOON)])
async def test_memory_backend_begins_with_the_given_state(given: Any, expected: MaintenanceState) -> None:  # noqa: ANN401
    backend = MemoryBackend(given)
    assert [backend.peek(), await backend.get_state()] == [expected, expected]
    assert repr(backend) == "MemoryBackend()"


@pytest.mark.parametrize("given", [1, "on", None])
def test_memory_backend_with_invalid_state_raises(given: Any) -> None:  # noqa: ANN401 -- what is refused
    rule = rf"^state must be a MaintenanceState, True or False, got {type(given).__name__} {given!r}$"
    with pytest.raises(TypeError, match=rule):
        MemoryBackend(given)


async def test_memory_workers_in_a_forked_child_are_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    workers = MemoryBackend().workers
    await workers.sign("parent", "{}")
    monkeypatch.setattr(process, "_identity", ["child"])
    await workers.leave("parent")
    await workers.sign("child", "{}")
    assert await workers.reports() == {"child": "{}"}
    monkeypatch.undo()
    assert await workers.reports() == {"parent": "{}"}


async def test_base_state_backend_converts_between_words_and_booleans() -> None:
    backend = TextSwitch({})
    values: list[object] = [await backend.get_value()]
    for value in (True, False):
        await backend.set_value(value)
        values += [await backend.get_value(), backend.store["mode"]]
    assert values == [False, True, "1", False, "0"]
    assert backend._str_to_bool(" Yes ")
    with pytest.raises(ValueError, match="'perhaps'"):
        backend._str_to_bool("perhaps")


def test_base_state_backend_without_its_two_methods_is_abstract() -> None:
    with pytest.raises(TypeError, match="abstract"):
        BaseStateBackend()  # type: ignore[abstract]  # what is refused


# `StoreBackend`


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
