"""Backends that break one promise each, the promise, and what `check_backend` sees instead."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

import anyio
from anyio.lowlevel import checkpoint

from fastapi_maintenance import MaintenanceState, MemoryBackend, NotSupportedError, ReadOnlyBackendError, Switch
from fastapi_maintenance.backends.base import set_to
from fastapi_maintenance.testing import Scenario, scenarios
from fastapi_maintenance.testing.instances import ASYNC, DRAINABLE, KIND, REGISTRY, TOGETHER, TYPES, WORKS
from fastapi_maintenance.typing import StateChange
from tests.stores import BareSwitch, DetailedStore, TextSwitch, WatchableStore

BROKEN: dict[str, tuple[type[Any], str, str]] = {}
"""By name: the class, the promise, and a part of what is seen. The end of a worker's id is shown as `*`."""
IS_OFF, IS_ON = "MaintenanceState(switch=Switch(on=False))", "MaintenanceState(switch=Switch(on=True))"
IDLE, BUSY = scenarios.IDLE, scenarios.BUSY
TO_THE_LETTER = scenarios.a_written_state_is_read_to_the_letter
LAST_STATE = scenarios.a_watch_yields_the_last_state
KNOWN = scenarios.a_worker_that_has_signed_is_known_until_it_leaves
LAST_REPORT = scenarios.the_last_report_of_each_worker_is_kept
CANCELLED = "it raised CancelledError, although its task was not cancelled"
HANGS = "raised TimeoutError: no answer within 1 seconds"


def breaks(promise: Scenario | str, seen: str) -> Callable[[type[Any]], type[Any]]:
    """Add a class that breaks a promise, given in words or by its scenario."""

    def add(kind: type[Any]) -> type[Any]:
        BROKEN[kind.__name__] = kind, promise if isinstance(promise, str) else promise.__doc__ or "", seen
        return kind

    return add


def broken(name: str, base: type[Any], promise: Scenario | str, seen: str, **methods: object) -> None:
    """Add a class with these methods."""
    breaks(promise, seen)(type(name, (base,), methods))


def later(function: Callable[..., object]) -> object:
    """Return an async method that returns what a function returns."""

    async def method(*args: object) -> object:
        await checkpoint()
        return function(*args)

    return method


def fail(error: Exception) -> object:
    """Raise an error, in a lambda."""
    raise error


# --- a bare switch ----------------------------------------------------------------------------------------------------

WRITTEN = scenarios.a_written_switch_is_read
broken("Forgets", BareSwitch, WRITTEN, "got False, expected True", set_value=later(lambda _self, _value: None))
broken("ReadsText", BareSwitch, TYPES, "got '0'", get_value=later(lambda self: "1" if self.value else "0"))
broken("ReadsInSync", BareSwitch, ASYNC, "get_value() is not async", get_value=lambda self: self.value)
broken("WritesInSync", BareSwitch, ASYNC, "set_value() is not async", set_value=lambda *_: None)
broken("CannotBeWritten", object, KIND, "returned CannotBeWritten, which lacks set_value()", get_value=later(bool))


@breaks(WORKS, f"raised RuntimeError: {CANCELLED}")
class RaisesCancelledError(BareSwitch):
    async def get_value(self) -> bool:
        raise asyncio.CancelledError


@breaks(WORKS, "raised KeyError: 'mode'")
class FailsWithoutAValue(TextSwitch):
    async def get_value(self) -> bool:
        return self._str_to_bool(self.store["mode"])

    async def set_value(self, value: bool) -> None:
        self.store.clear()
        self.store |= {"mode": "1"} if value else {}


@breaks(scenarios.a_cancelled_write_is_whole_or_not_made, "got False, expected True")
class DeletesBeforeItWrites(TextSwitch):
    async def set_value(self, value: bool) -> None:
        self.store.clear()
        await super().set_value(value)


@breaks(WORKS, "raised BlockingIOError: another write is under way")
class RefusesToWait(BareSwitch):
    busy = False

    async def set_value(self, value: bool, /) -> None:
        if self.busy:
            message = "another write is under way"
            raise BlockingIOError(message)
        self.busy = True
        try:
            await super().set_value(value)
        finally:
            self.busy = False


@breaks(scenarios.a_refusal_is_repeated, "raised no ReadOnlyBackendError")
class RefusesSometimes(BareSwitch):
    async def set_value(self, value: bool, /) -> None:
        if not value:
            message = "this switch is set by someone else"
            raise ReadOnlyBackendError(message)


@breaks(WORKS, HANGS)
class KeepsItsLockWhenCancelled(BareSwitch):
    def __init__(self) -> None:
        super().__init__()
        self.lock = anyio.Semaphore(1)

    async def set_value(self, value: bool, /) -> None:
        await self.lock.acquire()
        await super().set_value(value)
        self.lock.release()


# --- whole states -----------------------------------------------------------------------------------------------------


def reads(name: str, seen: str, change: Callable[[MaintenanceState], MaintenanceState]) -> None:
    """Add a class that reads another state than was written."""

    async def get_state(self: DetailedStore) -> MaintenanceState:
        return change(await self.memory.get_state())

    broken(name, DetailedStore, TO_THE_LETTER, seen, get_state=get_state)


def with_message(state: MaintenanceState, change: Callable[[str], str | None]) -> MaintenanceState:
    message = state.switch.message
    return replace(state, switch=replace(state.switch, message=message and change(message)))


def rounded(state: MaintenanceState) -> MaintenanceState:
    ends_at = state.switch.ends_at
    return replace(state, switch=replace(state.switch, ends_at=ends_at and ends_at.replace(microsecond=0)))


SPECIAL = f"(on=True, message={scenarios.MESSAGES[1]!r})"
reads("DropsHolds", f"got {IS_OFF}, expected ", lambda state: replace(state, holds=()))
reads("DropsWindows", f"got {IS_OFF}, expected ", lambda state: replace(state, windows=()))
reads(
    "DropsExpectedEnds",
    "ends_at=9000-01-01T00:00:00.000001+00:00)))",
    lambda state: replace(state, holds=tuple(replace(hold, ends_at=None) for hold in state.holds)),
)
reads("DropsMessages", f"got {IS_ON}, expected ", lambda state: with_message(state, lambda _: None))
reads("ShortensMessages", ", expected MaintenanceState(", lambda state: with_message(state, lambda text: text[:255]))
reads("TrimsMessages", SPECIAL, lambda state: with_message(state, lambda text: text.strip(" ")))
reads("LosesEmoji", SPECIAL, lambda state: with_message(state, lambda text: re.sub("[^\0-\uffff]", "?", text)))
reads("RoundsTimes", "(switch=Switch(on=True, ends_at=9000-01-01T00:00:00.000001+00:00))", rounded)
broken("PeeksAtThePast", DetailedStore, TO_THE_LETTER, f"got {IS_OFF}", peek=lambda _self: MaintenanceState())
broken("PeeksAsync", DetailedStore, ASYNC, "peek() is async", peek=DetailedStore.get_state)
broken(
    "FailsToPeek",
    MemoryBackend,
    WORKS,
    "raised LookupError: nothing has been read yet",
    peek=lambda _self: fail(LookupError("nothing has been read yet")),
)
broken("ReadsDict", DetailedStore, TYPES, "got {'active': False}", get_state=later(lambda _self: {"active": False}))
broken("OnlyReadsStates", BareSwitch, TOGETHER, "has get_state() but lacks update_state()", get_state=later(bool))
broken("OnlyWritesStates", BareSwitch, TOGETHER, "has update_state() but lacks get_state()", update_state=later(bool))


@breaks(scenarios.no_concurrent_update_is_lost, "got ['new 1'], expected ['new 0', 'new 1']")
class LosesUpdates(DetailedStore):
    async def update_state(self, change: StateChange, /) -> MaintenanceState:
        state = change(await self.get_state())
        await checkpoint()
        return await self.memory.update_state(lambda _: state)


@breaks(scenarios.a_cancelled_update_is_whole_or_not_made, "got MaintenanceState(")
class TearsWrites(DetailedStore):
    async def update_state(self, change: StateChange, /) -> MaintenanceState:
        before = await self.memory.get_state()
        await self.memory.update_state(lambda _: replace(change(before), switch=before.switch))
        await checkpoint()
        return await self.memory.update_state(lambda state: replace(state, switch=change(before).switch))


@breaks(scenarios.an_update_returns_what_it_has_written, f"got {IS_OFF}, expected ")
class ReturnsTheOldState(DetailedStore):
    async def update_state(self, change: StateChange, /) -> MaintenanceState:
        before = await self.get_state()
        await super().update_state(change)
        return before


@breaks(scenarios.holds_are_kept_until_they_are_released, ", expected (Hold(id='2', on=False))")
class KeepsHolds(DetailedStore):
    async def update_state(self, change: StateChange, /) -> MaintenanceState:
        before = await self.get_state()
        after = await super().update_state(change)
        if after.holds == before.holds[1:] != ():
            await self.memory.update_state(lambda state: replace(state, holds=before.holds))
        return after


@breaks(scenarios.holds_are_kept_until_they_are_released, "got (), expected (Hold(id='1'")
class ForgetsHoldsWhenSet(DetailedStore):
    async def set_value(self, value: bool, /) -> None:
        await self.memory.update_state(lambda _: MaintenanceState(switch=Switch(on=value)))


@breaks(TO_THE_LETTER, "got False, expected True")
class ReadsTheSwitchAlone(DetailedStore):
    async def get_value(self) -> bool:
        return (await self.get_state()).switch.on


@breaks(scenarios.a_failed_change_leaves_the_state, "raised nothing")
class SwallowsErrorsOfChanges(DetailedStore):
    async def update_state(self, change: StateChange, /) -> MaintenanceState:
        with suppress(Exception):
            return await super().update_state(change)
        return await self.get_state()


@breaks(scenarios.a_failed_change_leaves_the_state, "raised RuntimeError: wrapped")
class WrapsErrorsOfChanges(DetailedStore):
    async def update_state(self, change: StateChange, /) -> MaintenanceState:
        try:
            return await super().update_state(change)
        except Exception as error:
            message = "wrapped"
            raise RuntimeError(message) from error


@breaks(scenarios.a_failed_change_leaves_the_state, f"got {IS_OFF}, expected ")
class TurnsOffWhenChangesRaise(DetailedStore):
    async def update_state(self, change: StateChange, /) -> MaintenanceState:
        before = await self.get_state()
        await self.memory.set_value(False)
        return await self.memory.update_state(lambda _: change(before))


# --- watches ----------------------------------------------------------------------------------------------------------


class Watchable(WatchableStore):
    """A base that keeps its promises: a write that is cancelled after it was made is pushed too."""

    async def update_state(self, change: StateChange, /) -> MaintenanceState:
        await checkpoint()
        state = await self.memory.update_state(change)
        self.ring()
        return state

    async def set_value(self, value: bool, /) -> None:
        await self.update_state(set_to(value))


@breaks(LAST_STATE, f"yielded {IS_OFF} last, expected {IS_ON}")
class WatchesTooLate(Watchable):
    async def watch(self) -> AsyncIterator[MaintenanceState]:
        while True:
            yield await self.get_state()
            await self._changed.wait()


@breaks(LAST_STATE, f"yielded {IS_OFF} last, expected {IS_ON}")
class MissesTheLast(Watchable):
    async def watch(self) -> AsyncIterator[MaintenanceState]:
        before = None
        async for state in super().watch():
            yield before or state
            before = state


@breaks(scenarios.a_watch_begins_with_the_state, f"yielded nothing last, expected {IS_OFF}")
class BeginsWithAChange(Watchable):
    async def watch(self) -> AsyncIterator[MaintenanceState]:
        while True:
            await self._changed.wait()
            yield await self.get_state()


@breaks(scenarios.a_watch_begins_with_the_state, f"watch() raises RuntimeError('{CANCELLED}')")
class WatchRaisesCancelledError(Watchable):
    async def watch(self) -> AsyncIterator[MaintenanceState]:
        yield MaintenanceState()
        raise asyncio.CancelledError


@breaks(LAST_STATE, "watch() ends by itself")
class EndsItsWatch(Watchable):
    async def watch(self) -> AsyncIterator[MaintenanceState]:
        changed = self._changed
        yield await self.get_state()
        await changed.wait()


@breaks(LAST_STATE, "ConnectionError('the connection is closed')")
class FailsToWatch(EndsItsWatch):
    async def watch(self) -> AsyncIterator[MaintenanceState]:
        async for state in super().watch():
            yield state
        message = "the connection is closed"
        raise ConnectionError(message)


broken("WatchesOnce", Watchable, ASYNC, "watch() is a coroutine, not an async iterator", watch=Watchable.get_state)


@breaks(TYPES, "watch() yields '1'")
class YieldsText(Watchable):
    async def watch(self) -> AsyncIterator[Any]:
        yield "1"
        await anyio.sleep_forever()


@breaks(LAST_STATE, f"yielded {IS_OFF} last")
class NotifiesTheNewestWatcherAlone(Watchable):
    async def watch(self) -> AsyncIterator[MaintenanceState]:
        self.newest = own = object()
        async for state in super().watch():
            yield state
            if own is not self.newest:
                await anyio.sleep_forever()


@breaks(scenarios.a_cancelled_watch_ends, "watch() goes on")
class WatchesOnWhenCancelled(Watchable):
    async def watch(self) -> AsyncIterator[MaintenanceState]:
        last = None
        while True:
            changed, state = self._changed, self.memory.peek()
            if state != last:
                last = state
                yield state
            with suppress(BaseException):
                await changed.wait()


@breaks(scenarios.a_cancelled_watch_ends, "watch() goes on")
class YieldsOnWhenCancelled(Watchable):
    async def watch(self) -> AsyncIterator[MaintenanceState]:
        while True:
            yield self.memory.peek()
            with suppress(BaseException):
                await anyio.sleep(0.005)


# --- workers ----------------------------------------------------------------------------------------------------------


class Registry:
    """A base that keeps its promises."""

    def __init__(self) -> None:
        self.kept: dict[str, str] = {}

    async def sign(self, worker: str, report: str, /) -> None:
        await checkpoint()
        self.kept[worker] = report

    async def leave(self, worker: str, /) -> None:
        await checkpoint()
        self.kept.pop(worker, None)

    async def reports(self) -> Mapping[str, str]:
        await checkpoint()
        return dict(self.kept)


class Drainable(Watchable):
    """A backend that keeps its promises, as far as its registry does."""

    def __init__(self, workers: Any = None, memory: MemoryBackend | None = None) -> None:  # noqa: ANN401 -- also a wrong one
        super().__init__()
        self.workers = workers
        self.memory = memory or self.memory


class CannotLeave:
    sign, reports = Registry.sign, Registry.reports


broken("CountsWithoutStates", BareSwitch, DRAINABLE, "which has workers but lacks get_state()", workers=Registry())
broken("HasTheNumberOfItsWorkers", DetailedStore, REGISTRY, "whose workers (int) lack sign()", workers=4)
broken("HasWorkersThatStay", DetailedStore, REGISTRY, "(CannotLeave) lack leave()", workers=CannotLeave())


def registry(name: str, promise: Scenario | str, seen: str, **methods: Callable[..., object]) -> None:
    """Add a registry whose methods are these functions, made async."""
    broken(name, Registry, promise, seen, **{method: later(function) for method, function in methods.items()})


def keep(registry: Registry, worker: str, report: str) -> None:
    registry.kept[worker] = report


def both(first: str) -> str:
    return f"got {{'host.0.*': {first!r}, 'host.1.*': {BUSY!r}}}"


registry("SignsInVain", KNOWN, "got {}, expected {'host.0.", sign=lambda *_: None)
registry(
    "KeepsTheNewestAlone",
    KNOWN,
    f"got {{'host.1.*': {BUSY!r}}}, expected {{'host.0.*': ",
    sign=lambda self, worker, report: setattr(self, "kept", {worker: report}),
)
registry(
    "KeepsTheFirstReport",
    LAST_REPORT,
    f": {IDLE!r}}}, expected {{",
    sign=lambda self, worker, report: self.kept.setdefault(worker, report),
)
registry(
    "MixesReportsUp",
    KNOWN,
    both(BUSY),
    sign=lambda self, worker, report: self.kept.update({worker: report, min([worker, *self.kept]): report}),
)
registry(
    "ShortensReports",
    LAST_REPORT,
    '"hold 22", "\', \'hosthost',
    sign=lambda self, worker, report: keep(self, worker, report[:255]),
)
registry(
    "ShortensIds",
    LAST_REPORT,
    "got {}, expected {'hosthost",
    sign=lambda self, worker, report: keep(self, worker[:64], report),
)
registry("KeepsThoseThatLeft", KNOWN, f"{both(IDLE)}, expected {{'host.1.*': ", leave=lambda *_: None)
registry(
    "ForgetsAllWhenOneLeaves", KNOWN, "got {}, expected {'host.1.*': ", leave=lambda self, _worker: self.kept.clear()
)
registry(
    "FailsToRemoveWhatIsMissing", WORKS, "raised KeyError: 'host.3.*'", leave=lambda self, worker: self.kept.pop(worker)
)
registry(
    "RemovesAnother",
    scenarios.a_worker_that_leaves_removes_no_other,
    "got {}, expected {'host.0.*': ",
    leave=lambda self, worker: self.kept.pop(worker if worker in self.kept else min(self.kept, default=""), None),
)
registry("ListsReports", TYPES, "got [('host.0.*', ", reports=lambda self: list(self.kept.items()))
registry(
    "ReportsBytes",
    TYPES,
    "got {b'host.0.*': b'",
    reports=lambda self: {worker.encode(): report.encode() for worker, report in self.kept.items()},
)
registry(
    "SignsOneAlone",
    WORKS,
    "raised NotSupportedError: one worker at most",
    sign=lambda self, worker, report: (
        fail(NotSupportedError("one worker at most")) if self.kept.keys() - {worker} else keep(self, worker, report)
    ),
)
broken("SignsInSync", Registry, ASYNC, "workers.sign() is not async", sign=lambda *_: None)


@breaks(scenarios.no_concurrent_sign_is_lost, f"got {{'host.1.*': {IDLE!r}}}, exp")
class LosesConcurrentSigns(Registry):
    async def sign(self, worker: str, report: str, /) -> None:
        kept = await self.reports()
        await checkpoint()
        self.kept = {**kept, worker: report}


@breaks(scenarios.no_concurrent_sign_is_lost, f": {IDLE!r}}}, expected {{")
class LosesSignsWhileOneLeaves(Registry):
    async def leave(self, worker: str, /) -> None:
        kept = await self.reports()
        await checkpoint()
        self.kept = {each: report for each, report in kept.items() if each != worker}


@breaks(scenarios.a_cancelled_sign_is_whole_or_not_made, "got None, expected ")
class RemovesBeforeItWrites(Registry):
    async def sign(self, worker: str, report: str, /) -> None:
        await self.leave(worker)
        await super().sign(worker, report)
