"""The backend under test: two instances of it on one switch, called as the library calls them."""

from __future__ import annotations

import inspect
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from math import inf
from typing import Any

import anyio
from anyio.from_thread import BlockingPortal
from anyio.lowlevel import checkpoint

from fastapi_maintenance._helpers.waiting import ANSWER_TIMEOUT, in_time
from fastapi_maintenance.backends.url import close_if_made_here
from fastapi_maintenance.errors import ReadOnlyBackendError
from fastapi_maintenance.state import MaintenanceState
from fastapi_maintenance.testing.model import OFF, Model, Promise, Violation, raised, shown
from fastapi_maintenance.typing import StateBackend

__all__ = ["BackendUnderTest", "ChangeFailedError", "Instance", "MakeBackend", "Watch", "made", "write_at_once"]

_POLL = 0.001  # seconds
_ENOUGH = 8.0  # seconds for which simpler steps are looked for; those spent in a step that breaks count three times
_LEAST_NEWS_PATIENCE = 0.1  # seconds
_MOST_TOLD_ON = 3  # states that a watch may tell after it was cancelled: they came just before
MakeBackend = Callable[[], StateBackend | Awaitable[StateBackend] | AbstractAsyncContextManager[StateBackend]]


class ChangeFailedError(Exception):
    """What a change raises that is to change nothing."""


class Instance:
    """A backend, called as the library calls it.

    Args:
        backend: The backend.
        patience: Seconds that one call may take.

    """

    def __init__(self, backend: Any, *, patience: float) -> None:  # noqa: ANN401 -- it has to prove what it is
        self.backend = backend
        self.patience = patience

    def has(self, *methods: str) -> bool:
        """Tell whether it has these methods."""
        return all(hasattr(self.backend, method) for method in methods)

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

    async def answer(self, call: Callable[[], Any]) -> tuple[Any, bool]:
        """Return what a call returns in time, and whether that had to be awaited."""
        try:
            with in_time(self.patience):
                answer = call()
                is_async = inspect.isawaitable(answer)
                return (await answer if is_async else answer), is_async
        except ChangeFailedError:
            raise
        except Exception as error:
            raise Violation(Promise.WORKS, raised(error)) from error

    async def call(self, method: str, *args: object) -> Any:  # noqa: ANN401 -- what the method of this name returns
        """Call a method, and check what it returns."""
        answer, is_async = await self.answer(partial(getattr(self.backend, method), *args))
        if is_async is (method == "peek"):
            raise Violation(Promise.ASYNC, " is async" if is_async else f" -> {shown(answer)} at once: it is not async")
        if method == "get_value" and isinstance(answer, int) and answer in (0, 1):
            return bool(answer)  # the 0 or 1 that some databases have for it is read too
        if method == "get_value" or (method != "set_value" and not isinstance(answer, MaintenanceState)):
            raise Violation(Promise.TYPES, f" -> {shown(answer)}")
        return answer

    async def refuses(self, value: bool) -> bool:  # noqa: FBT001 -- as the Protocol has it
        """Write the switch; tell whether it says that it can only be read."""
        try:
            await self.call("set_value", value)
        except Violation as violation:
            if isinstance(violation.__cause__, ReadOnlyBackendError):
                return True
            raise
        return False


class Watch:
    """A watch, which runs as a task until it is told to end.

    Args:
        instance: What it watches.
        is_busy: Whether it asks for the next state only when somebody wants to know it, and not as soon as it can.

    """

    def __init__(self, instance: Instance, *, is_busy: bool) -> None:
        self._instance = instance
        self._is_busy = is_busy
        self._is_wanted = False
        self._last: MaintenanceState | None = None
        self._told_on = 0
        self._error: Exception | None = None
        self._scope = anyio.CancelScope()
        self._ended = anyio.Event()

    async def run(self) -> None:
        """Watch, and keep what is told or raised."""
        try:
            with self._scope:
                states = self._instance.backend.watch()
                if inspect.iscoroutine(states):
                    states.close()
                    raise Violation(Promise.ASYNC, " is a coroutine, no async iterator")  # noqa: TRY301 -- kept too
                try:
                    await self._follow(states)
                finally:
                    if hasattr(states, "aclose"):  # generators have it
                        with anyio.move_on_after(ANSWER_TIMEOUT, shield=True):
                            await states.aclose()
        except Exception as error:  # noqa: BLE001 -- told by whoever waits
            self._error = error
        self._ended.set()

    async def _follow(self, states: AsyncIterator[object]) -> None:
        async for state in states:
            if not isinstance(state, MaintenanceState):
                raise Violation(Promise.TYPES, f" tells {shown(state)}")
            self._told_on += self._scope.cancel_called
            if self._told_on == _MOST_TOLD_ON:
                break
            self._last = state
            self._is_wanted = not self._is_busy
            while not self._is_wanted:  # noqa: ASYNC110 -- plainer than an event for each state
                await anyio.sleep(_POLL)

    async def learn(self, model: Model, patience: float) -> str:
        """Wait until the state that was told last is the model's, and show it.

        Raises:
            Violation: That was not so in time, or the watch ended.

        """
        with anyio.move_on_after(patience):
            while self._last is None or not model.agrees(self._last):
                if isinstance(self._error, Violation):
                    raise self._error
                if self._ended.is_set():
                    how = raised(self._error) if self._error else " ends by itself"
                    raise Violation(Promise.WATCH_BEGINS, f", but{how}") from self._error
                self._is_wanted = self._last is not None
                await anyio.sleep(_POLL)
            return f" -> {shown(self._last)}"
        promise, last = (Promise.WATCH, shown(self._last)) if self._last else (Promise.WATCH_BEGINS, "nothing")
        raise Violation(promise, f" -> {last}, expected {model.expected(OFF)}")

    async def end(self, patience: float) -> None:
        """Cancel the watch; where that does not end it, give it states to tell, since only then it can be left.

        Raises:
            Violation: It went on.

        """
        self._scope.cancel()
        with anyio.move_on_after(patience):
            await self._ended.wait()
        goes_on, value = not self._ended.is_set() or self._told_on == _MOST_TOLD_ON, False
        while not self._ended.is_set():  # else the event loop would not end either
            value = not value
            with suppress(Violation):
                await self._instance.call("set_value", value)
            await anyio.sleep(_POLL)
        if goes_on:
            raise Violation(Promise.WATCH_ENDS, ", but goes on")


async def write_at_once(*writes: Callable[[], Awaitable[object]], turns: int | None = None) -> tuple[bool, int]:
    """Make writes at once, and cancel them after so many turns of the event loop; None: let them be.

    Returns:
        Whether all of them came to their end, and how many turns it took.

    """
    done, taken = 0, 0
    ended: list[Violation | None] = []

    async def make(write: Callable[[], Awaitable[object]]) -> None:
        nonlocal done
        try:
            await write()
            done += 1
            ended.append(None)
        except Violation as violation:
            ended.append(None if group.cancel_scope.cancel_called else violation)  # cancelled, it ends as it likes

    async with anyio.create_task_group() as group:
        for write in writes:
            group.start_soon(make, write)
        while len(ended) < len(writes) and taken != turns:
            await checkpoint()
            taken += 1
        group.cancel_scope.cancel()
    for violation in filter(None, ended):
        raise violation
    return done == len(writes), taken


@dataclass
class BackendUnderTest:
    """Two instances of a backend, the event loop on which they live, and what was found of them in all series."""

    portal: BlockingPortal
    a: Instance
    b: Instance
    is_writable: bool = True
    write_turns: int = 0
    slowest_news: float | None = None
    last_disturbance: str | None = None
    """The last step that was one which a careless backend does not get over."""
    disturbed_by: str | None = None
    """What that was when something broke for the first time."""
    broken: tuple[Violation, tuple[str, ...]] | None = None
    """What broke last, and the steps to it: they are the simplest so far."""
    ends_at: float = inf

    def __getitem__(self, name: str) -> Instance:
        return self.a if name == "a" else self.b

    @property
    def reading(self) -> str:
        """The method that says the most."""
        return "get_state" if self.is_detailed else "get_value"

    @property
    def is_detailed(self) -> bool:
        """Whether whole states can be read."""
        return self.a.has("get_state")

    @property
    def is_full(self) -> bool:
        """Whether whole states can be written."""
        return self.is_writable and self.is_detailed

    @property
    def is_bare(self) -> bool:
        """Whether there is nothing but a switch that can be written."""
        return self.is_writable and not self.is_detailed

    def keep(self, violation: Violation, steps: Sequence[str], took: float) -> None:
        """Keep what broke, in a step that took so many seconds."""
        if self.broken is None:
            self.ends_at = time.monotonic() + _ENOUGH
            self.disturbed_by = self.last_disturbance
        else:
            self.ends_at -= 2 * took
        self.broken = violation, tuple(steps)

    def news_patience(self) -> float:
        """Return the seconds that a watcher is given; while steps are simplified, four times what was enough so far."""
        if self.broken is None or self.slowest_news is None:
            return self.a.patience
        return min(self.a.patience, max(_LEAST_NEWS_PATIENCE, 4 * self.slowest_news))


@asynccontextmanager
async def made(make_backend: MakeBackend, *, patience: float) -> AsyncIterator[Instance]:
    """Give what a call makes, which has yet to prove that it is a backend; in the end close what came with it.

    What making it raises comes out.
    """
    called: Any = make_backend()
    backend = await called if inspect.isawaitable(called) else called
    async with AsyncExitStack() as stack:
        if isinstance(backend, AbstractAsyncContextManager):
            backend = await stack.enter_async_context(backend)
        stack.push_async_callback(close_if_made_here, backend)
        yield Instance(backend, patience=patience)
