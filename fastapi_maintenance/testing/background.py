"""Tasks that use the backend under test for a while: a job that holds maintenance, and a watcher."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable

import anyio
from anyio.abc import TaskGroup

from fastapi_maintenance._helpers.waiting import ANSWER_TIMEOUT, in_time
from fastapi_maintenance.control import maintenance_mode_off, maintenance_mode_on
from fastapi_maintenance.state import Hold, MaintenanceState
from fastapi_maintenance.testing.backends import Instance
from fastapi_maintenance.testing.model import Promise, Violation, raised, shown

__all__ = ["Job", "Watcher"]

_MOST_TOLD_ON = 3  # states


class _BackgroundTask(ABC):
    """A task that goes on until it is told to end."""

    def __init__(self, instance: Instance) -> None:
        self.instance = instance
        self.error: Exception | None = None
        self._news = anyio.Event()
        self._ended = anyio.Event()

    @abstractmethod
    async def _live(self) -> None:
        """Do what it is there for."""

    async def run(self) -> None:
        """Live, and keep what is raised."""
        try:
            await self._live()
        except Exception as error:  # noqa: BLE001 -- told by whoever waits
            self.error = error
        finally:
            self._tell()
            self._ended.set()

    def _tell(self) -> None:
        news, self._news = self._news, anyio.Event()
        news.set()


class Job(_BackgroundTask):
    """A block of `maintenance_mode_on()` or `_off()`, open until it is told to end."""

    def __init__(self, instance: Instance, hold: Hold) -> None:
        super().__init__(instance)
        self.hold = hold
        self._end = anyio.Event()

    async def begin(self, group: TaskGroup, *, patience: float) -> None:
        """Open the block."""
        news = self._news
        group.start_soon(self.run)
        await self._wait(news, patience)

    async def end(self, *, patience: float) -> None:
        """Leave the block."""
        self._end.set()
        await self._wait(self._ended, patience)

    async def _live(self) -> None:
        backend, hold = self.instance.backend, self.hold
        held = maintenance_mode_on(backend, message=hold.message) if hold.active else maintenance_mode_off(backend)
        async with held:
            self._tell()
            await self._end.wait()

    async def _wait(self, event: anyio.Event, patience: float) -> None:
        failure: Exception | None = None
        try:
            with in_time(patience):
                await event.wait()
        except TimeoutError as timeout:
            failure = timeout
        failure = self.error or failure
        if failure is not None:
            raise Violation(Promise.WORKS, raised(failure)) from failure


class Watcher(_BackgroundTask):
    """A watch, open until it is told to end.

    Args:
        instance: What it watches.
        is_busy: Whether it asks for the next state only when somebody wants to know it, and not as soon as it can.

    """

    def __init__(self, instance: Instance, *, is_busy: bool) -> None:
        super().__init__(instance)
        self._is_busy = is_busy
        self._go_on = anyio.Event()
        self._told: tuple[object, ...] = ()  # the last one
        self._told_on = 0
        self._scope = anyio.CancelScope()

    async def learn(self, is_right: Callable[[MaintenanceState], bool], *, patience: float) -> bool:
        """Wait until what it was told last is right; tell whether that was so in time."""
        with anyio.move_on_after(patience):
            while not (self._told and is_right(self._state())):
                if isinstance(self.error, Violation):
                    raise self.error
                if self.error is not None:
                    raise Violation(Promise.WATCH_BEGINS, f", but{raised(self.error)}") from self.error
                if self._ended.is_set():
                    raise Violation(Promise.WATCH_BEGINS, ", but ends by itself")
                news = self._news
                if self._told:
                    self._go_on.set()
                await news.wait()
            return True
        return False

    @property
    def was_told(self) -> bool:
        """Whether it was told anything."""
        return bool(self._told)

    def last(self) -> str:
        """Show what it was told last."""
        return shown(self._told[-1]) if self._told else "nothing"

    async def end(self, *, patience: float) -> bool:
        """Cancel the watch; tell whether it ends by that."""
        self._scope.cancel()
        return await self.has_ended(patience=patience) and self._told_on < _MOST_TOLD_ON

    async def has_ended(self, *, patience: float) -> bool:
        """Tell whether the watch is over, now or in a while."""
        with anyio.move_on_after(patience):
            await self._ended.wait()
        return self._ended.is_set()

    def _state(self) -> MaintenanceState:
        if isinstance(self._told[-1], MaintenanceState):
            return self._told[-1]
        raise Violation(Promise.TYPES, f" tells {self.last()}")

    async def _live(self) -> None:
        with self._scope:
            states = self.instance.backend.watch()
            if inspect.iscoroutine(states):
                states.close()
                raise Violation(Promise.ASYNC, " is a coroutine, no async iterator")
            try:
                async for state in states:
                    if self._scope.cancel_called:  # it may be told of what came just before
                        self._told_on += 1
                        if self._told_on == _MOST_TOLD_ON:
                            break
                    self._told = (state,)
                    self._tell()
                    if self._is_busy:
                        await self._go_on.wait()
                        self._go_on = anyio.Event()
            finally:
                aclose = getattr(states, "aclose", None)  # generators have it
                if aclose is not None:
                    with anyio.move_on_after(ANSWER_TIMEOUT, shield=True):
                        await aclose()
