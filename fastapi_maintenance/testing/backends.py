"""The backend under test: two instances of it on one switch, called as the library calls them."""

import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import anyio
from anyio.from_thread import BlockingPortal
from anyio.lowlevel import checkpoint

from fastapi_maintenance._helpers.waiting import in_time
from fastapi_maintenance.backends.url import close_if_made_here
from fastapi_maintenance.state import MaintenanceState
from fastapi_maintenance.testing.model import Promise, Violation, raised, shown
from fastapi_maintenance.typing import StateBackend

__all__ = ["POLL", "BackendUnderTest", "ChangeFailedError", "Instance", "MakeBackend", "made", "write_at_once"]

POLL = 0.001  # seconds
MakeBackend = Callable[[], StateBackend | Awaitable[StateBackend] | AbstractAsyncContextManager[StateBackend]]
_TYPES = {"set_value": object, "get_value": bool, "report": object, "get_reports": Mapping}


class ChangeFailedError(Exception):
    """What a change raises that is to change nothing."""


class Instance:
    """A backend, called as the library calls it.

    Args:
        backend: The backend.
        name: What it is called in the steps.
        patience: Seconds that one call may take.
    """

    def __init__(self, backend: Any, name: str = "a", *, patience: float) -> None:  # noqa: ANN401 -- it has to prove what it is
        self.backend = backend
        self.name = name
        self.patience = patience

    def has(self, method: str) -> bool:
        """Tell whether it has this method."""
        return hasattr(self.backend, method)

    def check_kind(self) -> None:
        """Check that it has the methods of a backend."""
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

    async def call(self, method: str, *args: object) -> Any:  # noqa: ANN401 -- what the method of this name returns
        """Call a method, and check that it returns in time, and what."""
        try:
            with in_time(self.patience):
                answer = getattr(self.backend, method)(*args)
                is_async = inspect.isawaitable(answer)
                if is_async:
                    answer = await answer
        except ChangeFailedError:
            raise
        except Exception as error:
            raise Violation(Promise.WORKS, raised(error)) from error
        if is_async is (method == "peek"):
            raise Violation(Promise.ASYNC, " is async" if is_async else f" -> {shown(answer)} at once: it is not async")
        if method == "get_value" and isinstance(answer, int) and answer in (0, 1):
            return bool(answer)  # the 0 or 1 that some databases have for it is read too
        if not isinstance(answer, _TYPES.get(method, MaintenanceState)):
            raise Violation(Promise.TYPES, f" -> {shown(answer)}")
        return answer

    async def refuses(self, refusal: type[Exception], method: str, *args: object) -> bool:
        """Call a method; tell whether it raises this refusal."""
        try:
            await self.call(method, *args)
        except Violation as violation:
            if isinstance(violation.__cause__, refusal):
                return True
            raise
        return False


async def write_at_once(*writes: Callable[[], Awaitable[object]], turns: int = -1) -> bool:
    """Make writes at once, and cancel them after so many turns of the event loop, unless that is below zero.

    Returns:
        Whether all of them came to their end.
    """
    ended: list[Violation | None] = []

    async def make(write: Callable[[], Awaitable[object]]) -> None:
        try:
            await write()
            ended.append(None)
        except Violation as violation:
            if not group.cancel_scope.cancel_called:  # else it ends as it likes
                ended.append(violation)

    async with anyio.create_task_group() as group:
        for write in writes:
            group.start_soon(make, write)
        while len(ended) < len(writes) and turns != 0:
            await checkpoint()
            turns -= 1
        group.cancel_scope.cancel()
    for violation in filter(None, ended):
        raise violation
    return len(ended) == len(writes)


@dataclass
class BackendUnderTest:
    """Two instances of a backend, the event loop on which they live, and what was found of them in all series."""

    portal: BlockingPortal
    a: Instance
    b: Instance
    is_writable: bool = True
    is_detailed: bool = False  # whole states can be read
    is_full: bool = False  # and written
    is_bare: bool = False  # nothing but a switch can be written
    is_drainable: bool = False
    series: int = 0
    slowest_news: float | None = None
    disturbance: str | None = None  # the last step before anything broke that a careless backend does not get over
    broken: Violation | None = None  # what broke last

    def __getitem__(self, name: str) -> Instance:
        return self.a if name == "a" else self.b

    def disturb(self, step: str) -> None:
        """Note a step that a careless backend does not get over."""
        if self.broken is None:
            self.disturbance = step

    def news_patience(self) -> float:
        """Return the seconds that a watcher is given; while steps are simplified, four times what was enough so far."""
        if self.broken is None or self.slowest_news is None:
            return self.a.patience
        return min(self.a.patience, max(0.1, 4 * self.slowest_news))


@asynccontextmanager
async def made(make_backend: MakeBackend, name: str, *, patience: float) -> AsyncGenerator[Instance]:
    """Give what a call makes, which has yet to prove that it is a backend; in the end close what came with it.

    What making it raises comes out.
    """
    called: Any = make_backend()
    backend = await called if inspect.isawaitable(called) else called
    async with AsyncExitStack() as stack:
        if isinstance(backend, AbstractAsyncContextManager):
            backend = await stack.enter_async_context(backend)
        stack.push_async_callback(close_if_made_here, backend)
        yield Instance(backend, name, patience=patience)
