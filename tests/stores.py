"""Backends as users write them, with hooks that make them fail, hang, or do something at a certain moment."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

import anyio
from anyio.lowlevel import checkpoint

from fastapi_maintenance.backends import BaseStateBackend, MemoryBackend
from fastapi_maintenance.errors import ReadOnlyBackendError
from fastapi_maintenance.state import MaintenanceState
from fastapi_maintenance.typing import StateChange

Hook = Callable[[], Awaitable[object]]


async def be_down() -> None:
    """Fail like a store that cannot be reached."""
    message = "the store is down"
    raise ConnectionError(message)


class Hooked:
    """Three hooks; by default each is a checkpoint, like waiting for the network."""

    def __init__(self) -> None:
        self.before_read: Hook = checkpoint
        self.before_write: Hook = checkpoint
        self.after_write: Hook = checkpoint

    def go_down(self) -> None:
        """Make reads and writes fail."""
        self.before_read = self.before_write = be_down

    def come_back(self) -> None:
        """Make everything work again."""
        self.before_read = self.before_write = self.after_write = checkpoint


class BareSwitch(Hooked):
    """A backend that has only the two methods."""

    def __init__(self, value: bool = False) -> None:
        super().__init__()
        self.value = value

    async def get_value(self) -> bool:
        await self.before_read()
        return self.value

    async def set_value(self, value: bool, /) -> None:
        await self.before_write()
        self.value = value
        await self.after_write()


class ReadOnlySwitch(BareSwitch):
    """A backend that refuses writes."""

    async def set_value(self, value: bool, /) -> None:  # noqa: ARG002 -- the signature of the Protocol
        await self.before_write()
        message = "this switch is set by someone else"
        raise ReadOnlyBackendError(message)


class TextSwitch(BaseStateBackend):
    """A backend as in the spec: derived from the base class, with text in its store."""

    def __init__(self, store: dict[str, str]) -> None:
        self.store = store

    async def get_value(self) -> bool:
        await checkpoint()
        return self._str_to_bool(self.store.get("mode", ""))

    async def set_value(self, value: bool) -> None:
        await checkpoint()
        self.store["mode"] = self._bool_to_str(value)


class DetailedStore(Hooked):
    """A backend that stores whole states."""

    def __init__(self, state: MaintenanceState | bool = False) -> None:
        super().__init__()
        self.memory = MemoryBackend(state)

    async def get_value(self) -> bool:
        await self.before_read()
        return await self.memory.get_value()

    async def set_value(self, value: bool, /) -> None:
        await self.before_write()
        await self.memory.set_value(value)
        await self.after_write()

    async def get_state(self) -> MaintenanceState:
        await self.before_read()
        return await self.memory.get_state()

    async def update_state(self, change: StateChange, /) -> MaintenanceState:
        await self.before_write()
        state = await self.memory.update_state(change)
        await self.after_write()
        return state


class WatchableStore(DetailedStore):
    """A detailed store that pushes each change, after `before_tell`."""

    def __init__(self, state: MaintenanceState | bool = False) -> None:
        super().__init__(state)
        self.before_tell: Hook = checkpoint
        self.watchers = 0
        self.ended = 0
        self._changed = anyio.Event()

    async def set_value(self, value: bool, /) -> None:
        await super().set_value(value)
        self.ring()

    async def update_state(self, change: StateChange, /) -> MaintenanceState:
        state = await super().update_state(change)
        self.ring()
        return state

    def ring(self) -> None:
        """Notify the watchers."""
        changed, self._changed = self._changed, anyio.Event()
        changed.set()

    def cut_off(self) -> None:
        """Make each watch fail."""
        self.before_tell = be_down
        self.ring()

    async def watch(self) -> AsyncIterator[MaintenanceState]:
        self.watchers += 1
        try:
            while True:
                changed = self._changed
                state = await self.get_state()
                await self.before_tell()
                yield state
                await changed.wait()
        finally:
            self.watchers -= 1
            self.ended += 1


class Records(Hooked):
    """The records of workers in a store that may lose them, so that its drains last at least two seconds."""

    def __init__(self) -> None:
        super().__init__()
        self.reported: dict[str, str] = {}

    async def sign(self, worker: str, report: str, /) -> None:
        await self.before_write()
        self.reported[worker] = report
        await self.after_write()

    async def leave(self, worker: str, /) -> None:
        await self.before_write()
        self.reported.pop(worker, None)

    async def reports(self) -> Mapping[str, str]:
        await self.before_read()
        return self.reported.copy()


class DrainableStore(DetailedStore):
    """A detailed store that counts workers; with `beside`, the same store as in another process."""

    def __init__(self, beside: DrainableStore | None = None) -> None:
        super().__init__()
        self.workers = Records()
        if beside is not None:
            self.memory, self.workers = beside.memory, beside.workers

    async def watch(self) -> AsyncIterator[MaintenanceState]:
        async for state in self.memory.watch():
            yield state
