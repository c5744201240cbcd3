"""Backends that break one promise each."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

import anyio
from anyio.lowlevel import checkpoint

from fastapi_maintenance import MaintenanceState, MemoryBackend, NotSupportedError, ReadOnlyBackendError, Switch
from fastapi_maintenance.backends.base import set_to
from fastapi_maintenance.typing import StateChange
from tests.stores import BareSwitch, DetailedStore, TextSwitch, WatchableStore

# --- with nothing but a switch ----------------------------------------------------------------------------------------


class Forgets(BareSwitch):
    async def set_value(self, value: bool, /) -> None:  # noqa: ARG002 -- that is it
        await checkpoint()


class SaysText(BareSwitch):
    async def get_value(self) -> Any:  # noqa: ANN401 -- wrong on purpose
        await checkpoint()
        return "1" if self.value else "0"


class ReadsAtOnce(BareSwitch):
    def get_value(self) -> Any:  # noqa: ANN401 -- wrong on purpose
        return self.value


class WritesAtOnce(BareSwitch):
    def set_value(self, value: bool, /) -> Any:  # noqa: ANN401 -- wrong on purpose
        self.value = value


class CannotBeWritten:
    async def get_value(self) -> bool:
        return False


class MissesWhatIsNotThere(TextSwitch):
    async def get_value(self) -> bool:
        return self._str_to_bool(self.store["mode"])

    async def set_value(self, value: bool) -> None:
        if value:
            self.store["mode"] = "1"
        else:
            self.store.clear()


class DeletesBeforeItWrites(TextSwitch):
    async def set_value(self, value: bool) -> None:
        self.store.clear()
        await super().set_value(value)


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


class BreaksWhenCutOff(BareSwitch):
    broken = False

    async def get_value(self) -> bool:
        if self.broken:
            message = "the connection is in use"
            raise ConnectionError(message)
        return await super().get_value()

    async def set_value(self, value: bool, /) -> None:
        self.broken = True
        await super().set_value(value)
        self.broken = False


class RefusesNowAndThen(BareSwitch):
    async def set_value(self, value: bool, /) -> None:
        if not value:
            message = "this switch is set by someone else"
            raise ReadOnlyBackendError(message)


class KeepsItsLockWhenCutOff(BareSwitch):
    def __init__(self) -> None:
        super().__init__()
        self.lock = anyio.Semaphore(1)

    async def set_value(self, value: bool, /) -> None:
        await self.lock.acquire()
        await super().set_value(value)
        self.lock.release()


# --- with whole states ------------------------------------------------------------------------------------------------


class LosesUpdates(DetailedStore):
    async def update_state(self, change: StateChange, /) -> MaintenanceState:
        state = change(await self.get_state())
        await checkpoint()
        return await self.memory.update_state(lambda _: state)


class TearsWrites(DetailedStore):
    async def update_state(self, change: StateChange, /) -> MaintenanceState:
        before = await self.memory.get_state()
        await self.memory.update_state(lambda _: replace(change(before), switch=before.switch))
        await checkpoint()
        return await self.memory.update_state(lambda state: replace(state, switch=change(before).switch))


class ReturnsTheOldState(DetailedStore):
    async def update_state(self, change: StateChange, /) -> MaintenanceState:
        before = await self.get_state()
        await super().update_state(change)
        return before


class DropsHolds(DetailedStore):
    async def update_state(self, change: StateChange, /) -> MaintenanceState:
        after = await super().update_state(change)
        await self.memory.update_state(lambda state: replace(state, holds=()))
        return after


class KeepsHolds(DetailedStore):
    async def update_state(self, change: StateChange, /) -> MaintenanceState:
        before = await self.get_state()
        after = await super().update_state(change)
        if after.holds == before.holds[1:] != ():
            await self.memory.update_state(lambda state: replace(state, holds=before.holds))
        return after


class DropsWindows(DetailedStore):
    async def get_state(self) -> MaintenanceState:
        return replace(await super().get_state(), windows=())


class DropsExpectedEnds(DetailedStore):
    async def get_state(self) -> MaintenanceState:
        state = await super().get_state()
        return replace(state, holds=tuple(replace(hold, ends_at=None) for hold in state.holds))


class DropsMessages(DetailedStore):
    async def get_state(self) -> MaintenanceState:
        state = await super().get_state()
        message = state.switch.message
        return replace(state, switch=replace(state.switch, message=message and self.changed(message)))

    def changed(self, _message: str) -> str | None:
        return None


class ShortensMessages(DropsMessages):
    def changed(self, message: str) -> str:
        return message[:255]


class TrimsMessages(DropsMessages):
    def changed(self, message: str) -> str:
        return message.strip(" ")


class LosesEmoji(DropsMessages):
    def changed(self, message: str) -> str:
        return re.sub("[^\0-\uffff]", "?", message)


class RoundsTimes(DetailedStore):
    async def get_state(self) -> MaintenanceState:
        state = await super().get_state()
        ends_at = state.switch.ends_at
        return replace(state, switch=replace(state.switch, ends_at=ends_at and ends_at.replace(microsecond=0)))


class LooksAtTheSwitchAlone(DetailedStore):
    async def get_value(self) -> bool:
        return (await self.get_state()).switch.on


class Hangs(DetailedStore):
    async def get_value(self) -> bool:
        if await super().get_value():
            await anyio.sleep_forever()
        return False


class SaysDict(DetailedStore):
    async def get_state(self) -> Any:  # noqa: ANN401 -- wrong on purpose
        return {"active": (await super().get_state()).switch.on}


class SwallowsWhatChangesRaise(DetailedStore):
    async def update_state(self, change: StateChange, /) -> MaintenanceState:
        with suppress(Exception):
            return await super().update_state(change)
        return await self.get_state()


class WrapsWhatChangesRaise(DetailedStore):
    async def update_state(self, change: StateChange, /) -> MaintenanceState:
        try:
            return await super().update_state(change)
        except Exception as error:
            message = "wrapped"
            raise RuntimeError(message) from error


class TurnsOffWhenChangesRaise(DetailedStore):
    async def update_state(self, change: StateChange, /) -> MaintenanceState:
        before = await self.get_state()
        await self.memory.set_value(False)
        return await self.memory.update_state(lambda _: change(before))


class OnlyReadsStates(BareSwitch):
    async def get_state(self) -> MaintenanceState:
        return MaintenanceState(switch=Switch(on=self.value))


class OnlyWritesStates(BareSwitch):
    async def update_state(self, change: StateChange, /) -> MaintenanceState:
        return change(MaintenanceState(switch=Switch(on=self.value)))


class ForgetsHoldsWhenSet(DetailedStore):
    async def set_value(self, value: bool, /) -> None:
        await self.memory.update_state(lambda _: MaintenanceState(switch=Switch(on=value)))


# --- that can be peeked at --------------------------------------------------------------------------------------------


class PeeksAtThePast(DetailedStore):
    def peek(self) -> MaintenanceState:
        return MaintenanceState()


class PeeksAsync(DetailedStore):
    async def peek(self) -> MaintenanceState:
        return await self.get_state()


class FailsToPeek(MemoryBackend):
    def peek(self) -> MaintenanceState:
        message = "nothing has been read yet"
        raise LookupError(message)


# --- that can be watched ----------------------------------------------------------------------------------------------


class Watchable(WatchableStore):
    """One that keeps its promises, as a base: a write that is cancelled after it was made is told of too."""

    async def update_state(self, change: StateChange, /) -> MaintenanceState:
        await checkpoint()
        state = await self.memory.update_state(change)
        self.ring()
        return state

    async def set_value(self, value: bool, /) -> None:
        await self.update_state(set_to(value))


class WatchesTooLate(Watchable):
    async def watch(self) -> AsyncIterator[MaintenanceState]:
        while True:
            yield await self.get_state()
            await self._changed.wait()


class MissesTheLast(Watchable):
    async def watch(self) -> AsyncIterator[MaintenanceState]:
        before = None
        while True:
            changed = self._changed
            after = await self.get_state()
            yield before or after
            before = after
            await changed.wait()


class BeginsWithAChange(Watchable):
    async def watch(self) -> AsyncIterator[MaintenanceState]:
        while True:
            await self._changed.wait()
            yield await self.get_state()


class EndsItsWatch(Watchable):
    async def watch(self) -> AsyncIterator[MaintenanceState]:
        changed = self._changed
        yield await self.get_state()
        await changed.wait()


class FailsToWatch(Watchable):
    async def watch(self) -> AsyncIterator[MaintenanceState]:
        changed = self._changed
        yield await self.get_state()
        await changed.wait()
        message = "the connection is closed"
        raise ConnectionError(message)


class WatchesOnce(Watchable):
    async def watch(self) -> Any:  # type: ignore[override]  # noqa: ANN401 -- as in an `async def` without a `yield`
        return await self.get_state()


class TellsText(Watchable):
    async def watch(self) -> AsyncIterator[Any]:
        yield "1"
        await anyio.sleep_forever()


class TellsTheNewestWatcherAlone(Watchable):
    async def watch(self) -> AsyncIterator[MaintenanceState]:
        self.mine = mine = object()
        while mine is self.mine:
            changed = self._changed
            yield await self.get_state()
            await changed.wait()
        await anyio.sleep_forever()


class WatchesOnWhenCancelled(Watchable):
    async def watch(self) -> AsyncIterator[MaintenanceState]:
        told = None
        while True:
            changed, state = self._changed, self.memory.peek()
            if state != told:
                told = state
                yield state
            with suppress(BaseException):
                await changed.wait()


class TellsOnWhenCancelled(Watchable):
    async def watch(self) -> AsyncIterator[MaintenanceState]:
        while True:
            yield self.memory.peek()
            with suppress(BaseException):
                await anyio.sleep(0.005)


# --- that know their workers -----------------------------------------------------------------------------------------


class Registry:
    """One that keeps its promises, as a base."""

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
    """One that keeps its promises, as far as its registry does."""

    def __init__(self, workers: Any = None, memory: MemoryBackend | None = None) -> None:  # noqa: ANN401 -- also a wrong one
        super().__init__()
        self.workers = workers
        self.memory = memory or self.memory


class CountsWithoutStates(BareSwitch):
    workers = Registry()


class HasTheNumberOfItsWorkers(DetailedStore):
    workers = 4


class CannotLeave(DetailedStore):
    class Records:
        sign, reports = Registry.sign, Registry.reports

    workers = Records()


class SignsInVain(Registry):
    async def sign(self, worker: str, report: str, /) -> None:
        """Do nothing."""


class KeepsTheNewestAlone(Registry):
    async def sign(self, worker: str, report: str, /) -> None:
        self.kept.clear()
        await super().sign(worker, report)


class KeepsTheFirstReport(Registry):
    async def sign(self, worker: str, report: str, /) -> None:
        await super().sign(worker, self.kept.get(worker, report))


class KeepsTheReportBefore(Registry):
    def __init__(self) -> None:
        super().__init__()
        self.newest: dict[str, str] = {}

    async def sign(self, worker: str, report: str, /) -> None:
        await super().sign(worker, self.newest.get(worker, report))
        self.newest[worker] = report


class MixesReportsUp(Registry):
    async def sign(self, worker: str, report: str, /) -> None:
        await super().sign(worker, report)
        self.kept[min(self.kept)] = report


class ShortensReports(Registry):
    async def sign(self, worker: str, report: str, /) -> None:
        await super().sign(worker, report[:255])


class ShortensIds(Registry):
    async def sign(self, worker: str, report: str, /) -> None:
        await super().sign(worker[:64], report)


class KeepsThoseThatLeft(Registry):
    async def leave(self, worker: str, /) -> None:
        """Do nothing."""


class ForgetsAllWhenOneLeaves(Registry):
    async def leave(self, worker: str, /) -> None:
        await super().leave(worker)
        self.kept.clear()


class FailsToRemoveWhatIsNotThere(Registry):
    async def leave(self, worker: str, /) -> None:
        await checkpoint()
        del self.kept[worker]


class RemovesAnotherInItsPlace(Registry):
    async def leave(self, worker: str, /) -> None:
        await checkpoint()
        self.kept.pop(worker if worker in self.kept else min(self.kept, default=worker), None)


class LosesConcurrentSigns(Registry):
    async def sign(self, worker: str, report: str, /) -> None:
        kept = await self.reports()
        await checkpoint()
        self.kept = {**kept, worker: report}


class LosesSignsWhileOneLeaves(Registry):
    async def leave(self, worker: str, /) -> None:
        kept = await self.reports()
        await checkpoint()
        self.kept = {each: report for each, report in kept.items() if each != worker}


class RemovesBeforeItWrites(Registry):
    async def sign(self, worker: str, report: str, /) -> None:
        await self.leave(worker)
        await super().sign(worker, report)


class KeepsItsConnectionWhenCutOff(Registry):
    def __init__(self) -> None:
        super().__init__()
        self.lock = anyio.Semaphore(1)

    async def sign(self, worker: str, report: str, /) -> None:
        await self.lock.acquire()
        await super().sign(worker, report)
        self.lock.release()


class SignsAtOnce(Registry):
    def sign(self, worker: str, report: str, /) -> Any:  # noqa: ANN401 -- wrong on purpose
        self.kept[worker] = report


class ReportsAtOnce(Registry):
    def reports(self) -> Any:  # noqa: ANN401 -- wrong on purpose
        return self.kept


class ListsReports(Registry):
    async def reports(self) -> Any:  # noqa: ANN401 -- wrong on purpose
        return list((await super().reports()).items())


class ReportsBytes(Registry):
    async def reports(self) -> Any:  # noqa: ANN401 -- wrong on purpose
        return {worker.encode(): report.encode() for worker, report in (await super().reports()).items()}


class CannotSignNowAndThen(Registry):
    async def sign(self, worker: str, report: str, /) -> None:
        if self.kept.keys() - {worker}:
            message = "this store counts one worker at most"
            raise NotSupportedError(message)
        await super().sign(worker, report)
