"""A backend under test: called as the library calls it, with each call recorded and each result checked."""

import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import fields
from datetime import datetime
from operator import attrgetter
from typing import Any

import anyio

from fastapi_maintenance._helpers.waiting import ANSWER_TIMEOUT, guarded, in_time
from fastapi_maintenance.backends.last_known import uncached
from fastapi_maintenance.backends.url import close_if_made_here
from fastapi_maintenance.errors import ReadOnlyBackendError
from fastapi_maintenance.state import Hold, MaintenanceState, Switch, Window
from fastapi_maintenance.typing import StateBackend, StateChange

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
_MOST_AFTER_CANCELLATION = 3  # states that a cancelled watch may still yield: they came just before


class Broken(Exception):  # noqa: N818 -- becomes a PromiseBrokenError
    """A broken promise, None for that of the scenario, and what was seen."""

    def __init__(self, promise: str | None, seen: str) -> None:
        super().__init__(promise, seen)
        self.promise = promise
        self.seen = seen


class ChangeFailedError(Exception):
    """Raised by a change that fails on purpose."""


def shown(value: object) -> str:
    """Return a value as text, a state without the fields that have their default."""
    if isinstance(value, (MaintenanceState, Switch, Window, Hold)):
        given = [(field.name, getattr(value, field.name), field.default) for field in fields(value)]
        text = [f"{name}={shown(it)}" for name, it, default in given if name in ("on", "switch") or it != default]
        return f"{type(value).__name__}({', '.join(text)})"
    if isinstance(value, datetime):
        return value.isoformat()
    return f"({', '.join(map(shown, value))})" if isinstance(value, tuple) else repr(value)


def expect(actual: object, *expected: object) -> None:
    """Compare an actual value with those that are right.

    Raises:
        Broken: It is none of them.
    """
    if actual not in expected:
        raise Broken(None, f"got {shown(actual)}, expected {' or '.join(dict.fromkeys(map(shown, expected)))}")


class Instance:
    """A backend under test.

    Args:
        backend: The backend.
        name: Its name in the recorded calls.
        calls: Where to record calls.
        patience: Seconds that one call may take.
    """

    def __init__(self, backend: Any, name: str, calls: list[str], *, patience: float) -> None:  # noqa: ANN401 -- not checked yet
        self.backend = backend
        self.name = name
        self.calls = calls
        self.patience = patience

    def has(self, *names: str) -> bool:
        """Return whether it has these methods, or attributes."""
        return all(getattr(self.backend, name, None) is not None for name in names)

    def check_kind(self) -> None:
        """Check that it has the methods of a backend, and of a registry if it has one.

        Raises:
            Broken: One is missing.
        """
        name = f"make_backend() returned {type(self.backend).__name__}"
        if isinstance(self.backend, type):
            raise Broken(KIND, f"make_backend() returned the class {self.backend.__name__}, not an object of it")
        for method in ("get_value", "set_value"):
            if not self.has(method):
                raise Broken(KIND, f"{name}, which lacks {method}()")
        for method, other in (("get_state", "update_state"), ("update_state", "get_state")):
            if self.has(method) and not self.has(other):
                raise Broken(TOGETHER, f"{name}, which has {method}() but lacks {other}()")
        if not self.has("workers"):
            return
        if not self.has("get_state"):
            raise Broken(DRAINABLE, f"{name}, which has workers but lacks get_state()")
        for method in ("sign", "leave", "reports"):
            if not callable(getattr(self.backend.workers, method, None)):
                raise Broken(REGISTRY, f"{name}, whose workers ({type(self.backend.workers).__name__}) lack {method}()")

    async def get_value(self) -> bool:
        """Return whether maintenance is on."""
        return bool(await self._call("get_value"))

    async def set_value(self, value: bool) -> None:  # noqa: FBT001 -- as in the Protocol
        """Set the switch."""
        await self._call("set_value", value)

    async def get_state(self) -> MaintenanceState:
        """Return the state; for a bare switch, one without details."""
        if not self.has("get_state"):
            return MaintenanceState(switch=Switch(on=await self.get_value()))
        state: MaintenanceState = await self._call("get_state")
        return state

    async def update_state(self, change: StateChange, text: str = "a change") -> MaintenanceState:
        """Apply a change, recorded as this text."""
        state: MaintenanceState = await self._call("update_state", change, text=text)
        return state

    async def set_state(self, wanted: MaintenanceState) -> MaintenanceState:
        """Replace the state; of a bare switch, its value."""
        if self.has("update_state"):
            return await self.update_state(lambda _: wanted, shown(wanted))
        await self.set_value(wanted.switch.on)
        return wanted

    async def peek(self) -> MaintenanceState:
        """Return the result of `peek`."""
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
        """Call a method; return whether it raises this error."""
        try:
            await self._call(method, *args)
        except Broken as broken:
            if isinstance(broken.__cause__, refusal):
                return True
            raise
        return False

    async def is_read_only(self) -> bool:
        """Return whether it refuses writes."""
        return await self.refuses(ReadOnlyBackendError, "set_value", False)  # noqa: FBT003 -- as in the Protocol

    async def _call(self, method: str, *args: object, text: str | None = None) -> Any:  # noqa: ANN401 -- the method's result
        """Call a method; check that it is async, returns in time, and what it returns."""
        self.calls.append(f"{self.name}: {method}({', '.join(map(repr, args)) if text is None else text})")
        try:
            with in_time(self.patience):
                result = attrgetter(method)(self.backend)(*args)
                is_async = inspect.isawaitable(result)
                if is_async:
                    result = await guarded(result)
        except ChangeFailedError:
            raise
        except Exception as error:
            raise Broken(WORKS, f"raised {type(error).__name__}: {error}") from error
        if is_async is (method == "peek"):
            raise Broken(ASYNC, f"{method}() is {'async' if is_async else 'not async'}")
        if method == "get_value" and isinstance(result, int) and result in (0, 1):
            return bool(result)  # some databases return 0 or 1
        if not isinstance(result, _TYPES.get(method, MaintenanceState)):
            raise Broken(TYPES, f"got {shown(result)}")
        return result


class Watch:
    """A watch that runs as a task until it is cancelled.

    Args:
        instance: The backend to watch.
        is_busy: Whether it asks for the next state only when one is expected, instead of as soon as it can.
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
        """Watch; keep the last state, or what is raised."""
        self.instance.calls.append(f"{self.instance.name}: watch()")
        try:
            with self._scope:
                states = self.instance.backend.watch()
                if inspect.iscoroutine(states):
                    states.close()
                    raise Broken(ASYNC, "watch() is a coroutine, not an async iterator")  # noqa: TRY301 -- kept too
                try:
                    await guarded(self._follow(states))
                finally:
                    if hasattr(states, "aclose"):  # as generators do
                        with anyio.move_on_after(ANSWER_TIMEOUT, shield=True):
                            await states.aclose()
        except Exception as error:  # noqa: BLE001 -- raised by `expect`
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
            while not self._is_wanted:  # noqa: ASYNC110 -- simpler than an event for each state
                await anyio.sleep(_POLL)

    async def expect(self, expected: MaintenanceState) -> None:
        """Wait until the last state that it yielded is this one.

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
        while not self._ended.is_set():  # it can be ended only where it yields, or the event loop would never end
            value = not value
            await self.instance.set_value(value)
            await anyio.sleep(_POLL)
        return has_ended


@asynccontextmanager
async def watching(instance: Instance, *, is_busy: bool = False) -> AsyncGenerator[Watch]:
    """Watch a backend while a block runs."""
    raised: Broken | None = None
    async with anyio.create_task_group() as group:
        watch = Watch(instance, is_busy=is_busy)
        group.start_soon(watch.run)
        try:
            yield watch
        except Broken as broken:  # the group would wrap it, so it is raised outside of that
            raised = broken
        await watch.cancel()
    if raised is not None:
        raise raised


@asynccontextmanager
async def opened_instance(
    make_backend: MakeBackend, name: str, calls: list[str], *, patience: float
) -> AsyncGenerator[Instance]:
    """Call `make_backend`, yield the result as an instance, and close its resources at the end."""
    called: Any = make_backend()
    backend = await called if inspect.isawaitable(called) else called
    async with AsyncExitStack() as stack:
        if isinstance(backend, AbstractAsyncContextManager):
            backend = await stack.enter_async_context(backend)
        stack.push_async_callback(close_if_made_here, uncached(backend))
        yield Instance(backend, name, calls, patience=patience)
