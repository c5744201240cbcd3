"""The backend under test: two instances of it on one switch, called as the library calls them."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import anyio
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint

from fastapi_maintenance._helpers.waiting import in_time
from fastapi_maintenance.backends.url import close_if_made_here
from fastapi_maintenance.control import set_maintenance_mode
from fastapi_maintenance.errors import ReadOnlyBackendError
from fastapi_maintenance.state import MaintenanceState
from fastapi_maintenance.testing.model import Promise, Violation, raised, shown
from fastapi_maintenance.typing import StateBackend, StateChange

__all__ = ["PLACES", "BackendUnderTest", "ChangeFailedError", "Instance", "MakeBackend", "hosted"]

PLACES = 10
"""In so many places a write is cancelled."""
_LEAST_NEWS_PATIENCE = 0.25  # seconds
MakeBackend = Callable[[], StateBackend | Awaitable[StateBackend] | AbstractAsyncContextManager[StateBackend]]


class ChangeFailedError(Exception):
    """What a change raises that is to change nothing."""


class Instance:
    """A backend, called as the library calls it.

    Args:
        name: What it is called in the steps.
        backend: The backend.
        patience: Seconds that one call may take.

    """

    def __init__(self, name: str, backend: Any, *, patience: float) -> None:  # noqa: ANN401 -- it has to prove what it is
        self.name = name
        self.backend = backend
        self._patience = patience

    def has(self, *methods: str) -> bool:
        """Tell whether it has these methods."""
        return all(hasattr(self.backend, method) for method in methods)

    def check_kind(self) -> None:
        """See whether it has the methods of a backend."""
        name = type(self.backend).__name__
        if isinstance(self.backend, type):
            raise Violation(Promise.KIND, f" -> the class {self.backend.__name__}, no object of it")
        for method in ("get_value", "set_value"):
            if not self.has(method):
                raise Violation(Promise.KIND, f" -> {name}, which has no {method}()")
        pair = ("get_state", "update_state")
        if self.has(pair[0]) != self.has(pair[1]):
            there, missing = pair if self.has(pair[0]) else reversed(pair)
            raise Violation(Promise.TOGETHER, f" -> {name}, which has {there}() but no {missing}()")

    async def get_value(self) -> bool:
        """Read the switch."""
        value = await self._answer(self.backend.get_value)
        if isinstance(value, int) and value in (0, 1):  # the 0 or 1 that some databases have for it is read too
            return bool(value)
        raise Violation(Promise.TYPES, f" -> {shown(value)}")

    async def read(self, method: str) -> MaintenanceState | bool:
        """Read in the way of this name."""
        if method == "peek":
            return self.peek()
        return await (self.get_state() if method == "get_state" else self.get_value())

    async def set_value(self, value: bool) -> None:  # noqa: FBT001 -- as the Protocol has it
        """Write the switch."""
        await self._answer(lambda: self.backend.set_value(value))

    async def refuses(self, value: bool) -> bool:  # noqa: FBT001 -- as above
        """Write the switch; tell whether it says that it can only be read."""
        try:
            await self.set_value(value)
        except Violation as violation:
            if isinstance(violation.__cause__, ReadOnlyBackendError):
                return True
            raise
        return False

    async def set_mode(self, value: bool) -> None:  # noqa: FBT001 -- as above
        """Write the switch as an operator of this process does."""
        await self._answer(lambda: set_maintenance_mode(value, self.backend))

    async def get_state(self) -> MaintenanceState:
        """Read the state."""
        return _state(await self._answer(self.backend.get_state))

    async def update_state(self, change: StateChange) -> MaintenanceState:
        """Change the state."""
        return _state(await self._answer(lambda: self.backend.update_state(change)))

    def peek(self) -> MaintenanceState:
        """Peek at the state."""
        try:
            seen = self.backend.peek()
        except Exception as error:
            raise Violation(Promise.WORKS, raised(error)) from error
        if inspect.iscoroutine(seen):
            seen.close()
            raise Violation(Promise.ASYNC, " is async")
        return _state(seen)

    async def _answer(self, call: Callable[[], Any]) -> object:
        try:
            with in_time(self._patience):
                answer = call()
                if inspect.isawaitable(answer):
                    return await answer
        except ChangeFailedError:
            raise
        except Exception as error:
            raise Violation(Promise.WORKS, raised(error)) from error
        raise Violation(Promise.ASYNC, f" -> {shown(answer)} at once: it is not async")


def _state(value: object) -> MaintenanceState:
    if isinstance(value, MaintenanceState):
        return value
    raise Violation(Promise.TYPES, f" -> {shown(value)}")


@asynccontextmanager
async def _made(make_backend: MakeBackend) -> AsyncIterator[Any]:
    """Give what a call makes, which has yet to prove that it is a backend; in the end close what came with it."""
    called: Any = make_backend()
    backend = await called if inspect.isawaitable(called) else called
    async with AsyncExitStack() as stack:
        if isinstance(backend, AbstractAsyncContextManager):
            backend = await stack.enter_async_context(backend)
        stack.push_async_callback(close_if_made_here, backend)
        yield backend


@dataclass
class BackendUnderTest:
    """Two instances that live on one event loop, and a group for tasks that use them."""

    a: Instance
    b: Instance
    group: TaskGroup
    patience: float
    is_writable: bool = True
    write_turns: int = 0
    write_seconds: float = 0.0
    slowest_news: float | None = None
    is_in_hurry: bool = False
    last_disturbance: str | None = None
    """The last step that was one which a careless backend does not get over."""

    def __getitem__(self, name: str) -> Instance:
        return self.a if name == "a" else self.b

    def has(self, *methods: str) -> bool:
        """Tell whether the backend has these methods."""
        return self.a.has(*methods)

    @property
    def is_detailed(self) -> bool:
        """Whether the backend keeps whole states."""
        return self.has("get_state", "update_state")

    def news_patience(self) -> float:
        """Return the seconds that a watcher is given; while steps are simplified, four times what was enough so far."""
        if not self.is_in_hurry or self.slowest_news is None:
            return self.patience
        return min(self.patience, max(_LEAST_NEWS_PATIENCE, 4 * self.slowest_news))

    async def look(self, steps: list[str]) -> None:
        """See what kind of backend it is, what it says, and how long a write takes."""
        steps[:] = ["make_backend()"]
        self.a.check_kind()
        steps[:] = ["a: set_value(False)"]
        self.is_writable = not await self.a.refuses(value=False)
        if self.is_writable:
            await self._measure()
        for method in self.readings():
            steps.append(f"a: {method}()")
            await self.a.read(method)

    def readings(self) -> list[str]:
        """Return the methods that read."""
        return [method for method in ("get_value", "get_state", "peek") if self.has(method)]

    def moment(self, place: int) -> tuple[int, float]:
        """Return when a write is cancelled, one of so many places in it: after turns of the event loop, and seconds."""
        if self.write_turns < PLACES:
            return 1 + place % max(1, self.write_turns), 0.0
        return 0, self.write_seconds * (place + 1) / (PLACES + 1)

    async def _measure(self) -> None:
        """See how long a write takes."""
        began, turns = anyio.current_time(), 0
        async with anyio.create_task_group() as group:
            write = anyio.Event()

            async def make() -> None:
                await self.a.set_value(value=False)
                write.set()

            group.start_soon(make)
            while not write.is_set() and turns < PLACES:
                await checkpoint()
                turns += 1
        self.write_turns, self.write_seconds = turns, anyio.current_time() - began


@asynccontextmanager
async def hosted(make_backend: MakeBackend, *, patience: float) -> AsyncIterator[BackendUnderTest]:
    """Make two instances, and in the end cancel the tasks that use them and close what they came with.

    What making them raises comes out.
    """
    async with _made(make_backend) as a, _made(make_backend) as b, anyio.create_task_group() as group:
        instances = Instance("a", a, patience=patience), Instance("b", b, patience=patience)
        yield BackendUnderTest(*instances, group, patience)
        group.cancel_scope.cancel()
