"""A backend under test: called as the library calls it, with each call recorded and checked."""

import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import fields
from datetime import datetime
from operator import attrgetter
from typing import Any

import anyio

from fastapi_maintenance._helpers.waiting import ANSWER_TIMEOUT, in_time
from fastapi_maintenance.backends.url import close_if_made_here
from fastapi_maintenance.errors import ReadOnlyBackendError
from fastapi_maintenance.state import Hold, MaintenanceState, Switch, Window
from fastapi_maintenance.typing import StateBackend, StateChange

__all__ = ["Broken", "ChangeFailedError", "Instance", "MakeBackend", "expect", "made", "shown", "watching"]

MakeBackend = Callable[[], StateBackend | Awaitable[StateBackend] | AbstractAsyncContextManager[StateBackend]]
KIND = "a backend has the async methods get_value() and set_value(value)"
TOGETHER = "get_state() and update_state(change) come together"
DRAINABLE = "a backend with workers has get_state() and update_state(change) too"
ASYNC = "every method but peek() and watch() is async"
REGISTRY = "workers is None, or has the async methods sign(worker, report), leave(worker) and reports()"
TYPES = "get_value() returns True or False, a state is a MaintenanceState, and reports() a Mapping of str to str"
WORKS = "a call succeeds, and returns, while the store is available"
_TYPES = {
    "set_value": object,
    "get_value": bool,
    "workers.sign": object,
    "workers.leave": object,
    "workers.reports": Mapping,
}
_POLL = 0.001  # seconds
_MOST_AFTER_CANCELLATION = 3  # states that a watch may yield after it was cancelled: they came just before


class Broken(Exception):  # noqa: N818 -- becomes a PromiseBrokenError
    """A promise that is broken, None for that of the scenario, and what was seen instead."""

    def __init__(self, promise: str | None, seen: str) -> None:
        super().__init__(promise, seen)
        self.seen = seen
        self.promise = promise


class ChangeFailedError(Exception):
    """Raised by a change that fails on purpose."""


def shown(value: object) -> str:
    """Show a value, a state without the fields that have their defaults."""
    if isinstance(value, (MaintenanceState, Switch, Window, Hold)):
        given = [(field.name, getattr(value, field.name), field.default) for field in fields(value)]
        text = ", ".join(
            f"{name}={shown(it)}" for name, it, default in given if name in ("on", "switch") or it != default
        )
        return f"{type(value).__name__}({text})"
    if isinstance(value, datetime):
        return value.isoformat()
    return f"({', '.join(map(shown, value))})" if isinstance(value, tuple) else repr(value)


def expect(actual: object, *expected: object) -> None:
    """Compare what was seen with what is right.

    Raises:
        Broken: It is none of these.
    """
    if actual not in expected:
        raise Broken(None, f"got {shown(actual)}, expected {' or '.join(dict.fromkeys(map(shown, expected)))}")


class Instance:
    """A backend, with the methods that it has.

    Args:
        backend: The backend.
        name: How it is called in the calls that are shown.
        calls: Where calls are recorded.
        patience: Seconds that one call may take.
    """

    def __init__(self, backend: Any, name: str, calls: list[str], *, patience: float) -> None:  # noqa: ANN401 -- it has to prove what it is
        self.backend = backend
        self.name = name
        self.calls = calls
        self.patience = patience

    def has(self, *names: str) -> bool:
        """Return whether it has these methods, or attributes."""
        return all(getattr(self.backend, name, None) is not None for name in names)

    def check_kind(self) -> None:
        """Check that it has the methods of a backend, and those of a registry if it has one."""
        name = type(self.backend).__name__
        if isinstance(self.backend, type):
            raise Broken(KIND, f"make_backend() returned the class {self.backend.__name__}, not an object of it")
        for method in ("get_value", "set_value"):
            if not self.has(method):
                raise Broken(KIND, f"make_backend() returned {name}, which lacks {method}()")
        if self.has("get_state") is not self.has("update_state"):
            there, missing = ("get_state", "update_state") if self.has("get_state") else ("update_state", "get_state")
            raise Broken(TOGETHER, f"make_backend() returned {name}, which has {there}() but lacks {missing}()")
        if not self.has("workers"):
            return
        if not self.has("get_state"):
            raise Broken(DRAINABLE, f"make_backend() returned {name}, which has workers but lacks get_state()")
        for method in ("sign", "leave", "reports"):
            if not callable(getattr(self.backend.workers, method, None)):
                kind = type(self.backend.workers).__name__
                raise Broken(REGISTRY, f"make_backend() returned {name}, whose workers ({kind}) lack {method}()")

    async def get_value(self) -> bool:
        """Return whether maintenance is on."""
        return bool(await self._call("get_value"))

    async def set_value(self, value: bool) -> None:  # noqa: FBT001 -- as the Protocol has it
        """Set the switch."""
        await self._call("set_value", value)

    async def get_state(self) -> MaintenanceState:
        """Return the state; of a backend with a bare switch, the one that the switch stands for."""
        if not self.has("get_state"):
            return MaintenanceState(switch=Switch(on=await self.get_value()))
        state: MaintenanceState = await self._call("get_state")
        return state

    async def update_state(self, change: StateChange, text: str = "a change") -> MaintenanceState:
        """Apply a change, shown as this text."""
        state: MaintenanceState = await self._call("update_state", change, text=text)
        return state

    async def set_state(self, wanted: MaintenanceState) -> MaintenanceState:
        """Replace the state; the switch alone where there is nothing else."""
        if self.has("update_state"):
            return await self.update_state(lambda _: wanted, shown(wanted))
        await self.set_value(wanted.switch.on)
        return wanted

    async def peek(self) -> MaintenanceState:
        """Return the state at once."""
        state: MaintenanceState = await self._call("peek")
        return state

    async def sign(self, worker: str, report: str) -> None:
        """Write the record of a worker."""
        await self._call("workers.sign", worker, report)

    async def leave(self, worker: str) -> None:
        """Remove the record of a worker."""
        await self._call("workers.leave", worker)

    async def reports(self) -> Mapping[str, str]:
        """Return the last report of each worker."""
        reports: Mapping[str, str] = await self._call("workers.reports")
        if not all(isinstance(each, str) for pair in reports.items() for each in pair):
            raise Broken(TYPES, f"got {shown(reports)}")
        return reports

    async def refuses(self, refusal: type[Exception], method: str, *args: object) -> bool:
        """Call a method; return whether it raises this refusal."""
        try:
            await self._call(method, *args)
        except Broken as broken:
            if isinstance(broken.__cause__, refusal):
                return True
            raise
        return False

    async def is_read_only(self) -> bool:
        """Return whether it refuses to be written."""
        return await self.refuses(ReadOnlyBackendError, "set_value", False)  # noqa: FBT003 -- as the Protocol has it

    async def _call(self, method: str, *args: object, text: str | None = None) -> Any:  # noqa: ANN401 -- what the method returns
        """Call a method, and check that it returns in time, and what."""
        self.calls.append(f"{self.name}: {method}({', '.join(map(repr, args)) if text is None else text})")
        try:
            with in_time(self.patience):
                answer = attrgetter(method)(self.backend)(*args)
                is_async = inspect.isawaitable(answer)
                if is_async:
                    answer = await answer
        except ChangeFailedError:
            raise
        except Exception as error:
            raise Broken(WORKS, f"raised {type(error).__name__}: {error}") from error
        if is_async is (method == "peek"):
            raise Broken(ASYNC, f"{method}() is {'async' if is_async else 'not async'}")
        if method == "get_value" and isinstance(answer, int) and answer in (0, 1):
            return bool(answer)  # the 0 or 1 that some databases have for it is read too
        if not isinstance(answer, _TYPES.get(method, MaintenanceState)):
            raise Broken(TYPES, f"got {shown(answer)}")
        return answer


class Watch:
    """A watch that runs as a task until it is cancelled.

    Args:
        instance: The backend to watch.
        is_busy: Whether it asks for the next state only when that is wanted, and not as soon as it can.
    """

    def __init__(self, instance: Instance, *, is_busy: bool = False) -> None:
        self.instance = instance
        self.last: MaintenanceState | None = None
        self._is_busy = is_busy
        self._is_wanted = False
        self._after_cancellation = 0
        self._error: Exception | None = None
        self._scope = anyio.CancelScope()
        self._ended = anyio.Event()

    async def run(self) -> None:
        """Watch, and keep what it yields or raises."""
        self.instance.calls.append(f"{self.instance.name}: watch()")
        try:
            with self._scope:
                states = self.instance.backend.watch()
                if inspect.iscoroutine(states):
                    states.close()
                    raise Broken(ASYNC, "watch() is a coroutine, not an async iterator")  # noqa: TRY301 -- kept too
                try:
                    await self._follow(states)
                finally:
                    if hasattr(states, "aclose"):  # generators have it
                        with anyio.move_on_after(ANSWER_TIMEOUT, shield=True):
                            await states.aclose()
        except Exception as error:  # noqa: BLE001 -- raised by who waits for a state
            self._error = error
        self._ended.set()

    async def _follow(self, states: AsyncIterator[object]) -> None:
        async for state in states:
            if not isinstance(state, MaintenanceState):
                raise Broken(TYPES, f"watch() yields {shown(state)}")
            self._after_cancellation += self._scope.cancel_called
            if self._after_cancellation == _MOST_AFTER_CANCELLATION:
                return
            self.last = state
            self._is_wanted = not self._is_busy
            while not self._is_wanted:  # noqa: ASYNC110 -- plainer than an event for each state
                await anyio.sleep(_POLL)

    async def expect(self, expected: MaintenanceState) -> None:
        """Wait until the state that it yielded last is this one.

        Raises:
            Broken: That does not happen in time, or the watch ends.
        """
        with anyio.move_on_after(self.instance.patience):
            while self.last != expected:
                if isinstance(self._error, Broken):
                    raise self._error
                if self._ended.is_set():
                    how = "ends by itself" if self._error is None else f"raises {self._error!r}"
                    raise Broken(None, f"watch() {how}") from self._error
                self._is_wanted = self.last is not None
                await anyio.sleep(_POLL)
            return
        last = "nothing" if self.last is None else shown(self.last)
        raise Broken(None, f"watch() yielded {last} last, expected {shown(expected)}")

    async def cancel(self) -> bool:
        """Cancel the watch; return whether that ended it."""
        self._scope.cancel()
        with anyio.move_on_after(self.instance.patience):
            await self._ended.wait()
        has_ended, value = self._ended.is_set() and self._after_cancellation < _MOST_AFTER_CANCELLATION, False
        while not self._ended.is_set():  # it can only be left where it yields, and else the event loop would not end
            value = not value
            await self.instance.set_value(value)
            await anyio.sleep(_POLL)
        return has_ended


@asynccontextmanager
async def watching(instance: Instance, *, is_busy: bool = False) -> AsyncGenerator[Watch]:
    """Run a watch for a while."""
    raised: Broken | None = None
    async with anyio.create_task_group() as group:
        watch = Watch(instance, is_busy=is_busy)
        group.start_soon(watch.run)
        try:
            yield watch
        except Broken as broken:  # raised again outside of the group, which would wrap it
            raised = broken
        await watch.cancel()
    if raised is not None:
        raise raised


@asynccontextmanager
async def made(make_backend: MakeBackend, name: str, calls: list[str], *, patience: float) -> AsyncGenerator[Instance]:
    """Give what a call makes, which has yet to prove that it is a backend; in the end close what came with it."""
    called: Any = make_backend()
    backend = await called if inspect.isawaitable(called) else called
    async with AsyncExitStack() as stack:
        if isinstance(backend, AbstractAsyncContextManager):
            backend = await stack.enter_async_context(backend)
        stack.push_async_callback(close_if_made_here, backend)
        yield Instance(backend, name, calls, patience=patience)
