"""A user's backend under check: it is called as the library would call it, and anything else than it may do is told."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any

from fastapi_maintenance._conformance.promises import Breach, Promise, raised, shown
from fastapi_maintenance._helpers.waiting import in_time
from fastapi_maintenance.backends.url import close_if_made_here
from fastapi_maintenance.control import set_maintenance_mode
from fastapi_maintenance.errors import ReadOnlyBackendError
from fastapi_maintenance.state import MaintenanceState
from fastapi_maintenance.typing import StateBackend, StateChange

__all__ = ["ChangeFailedError", "Instance", "MakeBackend", "made"]

MakeBackend = Callable[[], StateBackend | Awaitable[StateBackend] | AbstractAsyncContextManager[StateBackend]]


class ChangeFailedError(Exception):
    """What a change raises that is to change nothing."""


class Instance:
    """A backend, and whoever calls it.

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
            raise Breach(Promise.KIND, f" -> the class {self.backend.__name__}, no object of it")
        for method in ("get_value", "set_value"):
            if not self.has(method):
                raise Breach(Promise.KIND, f" -> {name}, which has no {method}()")
        pair = ("get_state", "update_state")
        if self.has(pair[0]) != self.has(pair[1]):
            there, missing = pair if self.has(pair[0]) else reversed(pair)
            raise Breach(Promise.TOGETHER, f" -> {name}, which has {there}() but no {missing}()")

    async def get_value(self) -> bool:
        """Read the switch."""
        value = await self._answer(self.backend.get_value)
        if isinstance(value, int) and value in (0, 1):  # the 0 or 1 that some databases have for it is read too
            return bool(value)
        raise Breach(Promise.TYPES, f" -> {shown(value)}")

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
        except Breach as breach:
            if isinstance(breach.__cause__, ReadOnlyBackendError):
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
            raise Breach(Promise.WORKS, raised(error)) from error
        if inspect.iscoroutine(seen):
            seen.close()
            raise Breach(Promise.ASYNC, " is async")
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
            raise Breach(Promise.WORKS, raised(error)) from error
        raise Breach(Promise.ASYNC, f" -> {shown(answer)} at once: it is not async")


def _state(value: object) -> MaintenanceState:
    if isinstance(value, MaintenanceState):
        return value
    raise Breach(Promise.TYPES, f" -> {shown(value)}")


@asynccontextmanager
async def made(make_backend: MakeBackend) -> AsyncIterator[Any]:
    """Give what a call makes, which has yet to prove that it is a backend; in the end close what came with it."""
    called: Any = make_backend()
    backend = await called if inspect.isawaitable(called) else called
    async with AsyncExitStack() as stack:
        if isinstance(backend, AbstractAsyncContextManager):
            backend = await stack.enter_async_context(backend)
        stack.push_async_callback(close_if_made_here, backend)
        yield backend
