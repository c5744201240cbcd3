"""Those who watch the backend under test, and the workers that are counted meanwhile, as further rules."""

import inspect
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from functools import partial

import anyio
from anyio.lowlevel import checkpoint

from fastapi_maintenance._helpers.waiting import ANSWER_TIMEOUT
from fastapi_maintenance.state import MaintenanceState
from fastapi_maintenance.testing.backends import POLL, BackendUnderTest, Instance
from fastapi_maintenance.testing.machine import NAMES, Conformance, step
from fastapi_maintenance.testing.model import OFF, Model, Promise, Violation, adding, raised, shown

__all__ = ["WatchedConformance"]

_MOST = 2  # watches at a time: enough to overlap
_MOST_TOLD_ON = 3  # states that a watch may tell after it was cancelled: they came just before


class Watch:
    """A watch, which runs as a task until it is told to end.

    Args:
        instance: What it watches.
        called: What it is called in the steps.
        worker: The worker to count meanwhile.
        is_busy: Whether it asks for the next state only when somebody wants to know it, and not as soon as it can.
    """

    def __init__(self, instance: Instance, called: str, worker: str | None, *, is_busy: bool) -> None:
        self.instance = instance
        self.called = called
        self.worker = worker
        self.begun: anyio.Event = anyio.Event()
        self.first: MaintenanceState | None = None
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
                self.begun.set()
                states = self.instance.backend.watch(*filter(None, [self.worker]))
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
            self.first = self.first or state
            self._last = state
            self._is_wanted = not self._is_busy
            while not self._is_wanted:  # noqa: ASYNC110 -- plainer than an event for each state
                await anyio.sleep(POLL)

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
                await anyio.sleep(POLL)
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
                await self.instance.call("set_value", value)
            await anyio.sleep(POLL)
        if goes_on:
            raise Violation(Promise.WATCH_ENDS, ", but goes on")


class WatchedConformance(Conformance):
    """The steps of those who watch, and of workers, beside those of operators."""

    def __init__(self, tested: BackendUnderTest) -> None:
        super().__init__(tested)
        tested.series += 1
        self.workers: list[str] = [
            f"host.{tested.series}.{one}" for one in ("one", "two")
        ]  # no other series knows them
        self.watches: list[Watch] = []
        self.reports: dict[str, str] = {}

    def teardown(self) -> None:
        """End what is watched, and leave the switch off."""
        for watch in self.watches:
            with suppress(Violation):
                self.end_watch(watch)
        super().teardown()

    def can_watch(self) -> bool:
        """Tell whether another watch can begin."""
        return self.tested.a.has("watch") and len(self.watches) < _MOST

    def new_watch(self, name: str, *, is_busy: bool = False, is_counted: bool = False) -> Watch:
        """Make a watch, which has yet to be run."""
        worker = next(free for free in self.workers if free not in self.reports) if is_counted else None
        is_other = None in [watch.worker for watch in self.watches]
        called = f"watch({worker!r})" if worker else "another watch()" if is_other else "watch()"
        self.made.append(f"{name}: {called}")
        self.watches.append(self.portal.call(partial(Watch, self.tested[name], called, worker, is_busy=is_busy)))
        self.reports |= {worker: ""} if worker else {}
        return self.watches[-1]

    def learn(self, watch: Watch) -> None:
        """Wait until the watch has told the state."""
        began = time.monotonic()
        self.made[-1] += self.portal.call(watch.learn, self.model, self.tested.news_patience())
        self.tested.slowest_news = max(self.tested.slowest_news or 0.0, time.monotonic() - began)

    def end_watch(self, watch: Watch) -> None:
        """Cancel a watch."""
        self.made.append(f"{watch.instance.name}: {watch.called} is cancelled")
        self.reports.pop(watch.worker or "", None)
        self.portal.call(watch.end, self.tested.news_patience())

    def read_reports(self, name: str, promise: Promise) -> None:
        """Compare the reports; only one that is too many is given time to go, as a store may notice an end later."""
        self.made.append(f"{name}: get_reports()")
        ends_at = time.monotonic() + self.tested.news_patience()
        while True:
            told = self.portal.call(self.tested[name].call, "get_reports")
            seen = {worker: told[worker] for worker in self.workers if worker in told}
            if not self.reports.items() < seen.items() or time.monotonic() > ends_at:
                break
            time.sleep(POLL)
        if seen != self.reports:
            promise = promise if self.reports.keys() <= seen.keys() else Promise.COUNTED
            raise Violation(promise, f" -> {seen}, expected {self.reports}")
        self.made[-1] += f" -> {seen}"

    @step(
        lambda machine: machine.can_watch(), name=NAMES, is_busy=(False, True), is_counted=(False, True), reader=NAMES
    )
    def somebody_begins_to_watch(self, *, name: str, is_busy: bool, is_counted: bool, reader: str) -> None:
        """Watch, and learn the state; a worker is counted by then."""
        watch = self.new_watch(name, is_busy=is_busy, is_counted=is_counted and self.tested.is_drainable)
        self.portal.start_task_soon(watch.run)
        self.learn(watch)
        if watch.worker is not None:
            self.read_reports(reader, Promise.COUNTED)

    @step(lambda machine: machine.watches, place=range(_MOST))
    def some_watch_goes_on(self, place: int) -> None:
        """Learn the state from a watch."""
        watch = self.watches[place % len(self.watches)]
        self.made.append(f"{watch.instance.name}: {watch.called} goes on")
        self.learn(watch)

    @step(lambda machine: machine.watches, place=range(_MOST), reader=NAMES)
    def some_watch_is_cancelled(self, place: int, reader: str) -> None:
        """Cancel a watch; its worker is not counted any more."""
        watch = self.watches.pop(place % len(self.watches))
        self.end_watch(watch)
        if watch.worker is not None:
            self.read_reports(reader, Promise.COUNTED)

    @step(lambda machine: machine.tested.is_drainable, place=range(_MOST), text=("busy", "drained"), reader=NAMES)
    def some_worker_reports(self, place: int, text: str, reader: str) -> None:
        """Report for a worker, by its own process where it is counted."""
        worker = self.workers[place]
        names = {watch.worker: watch.instance.name for watch in self.watches}
        self.call(names.get(worker, reader), "report", worker, text, text=f"{worker!r}, {text!r}")
        self.reports |= {worker: text} if worker in self.reports else {}
        self.read_reports(reader, Promise.REPORTS)

    @step(
        lambda machine: machine.can_watch() and machine.tested.is_drainable, name=NAMES, reader=NAMES, turns=range(10)
    )
    def a_job_drains_while_a_worker_begins(self, name: str, reader: str, turns: int) -> None:
        """Add a hold, then ask for the workers: one that is not among them has to read the hold before all else."""
        hold = self.new_hold()
        write = adding(hold)
        watch = self.new_watch(name, is_counted=True)
        self.made[-1] += f", and after {turns} turns of the event loop {reader}: {write}, {reader}: get_reports()"

        async def drain() -> Mapping[str, str]:
            await watch.begun.wait()
            for _ in range(turns):
                await checkpoint()
            await self.tested[reader].call(write.method, write.argument)
            reports: Mapping[str, str] = await self.tested[reader].call("get_reports")
            return reports

        draining = self.portal.start_task_soon(drain)
        self.portal.start_task_soon(watch.run)
        reports = draining.result()
        self.made[-1] += f" -> {dict(reports)}"
        self.model.state = write.change(self.model.state)
        self.made.append(f"{name}: {watch.called} goes on")
        self.learn(watch)
        if watch.worker not in reports and watch.first is not None and hold not in watch.first.holds:
            raise Violation(Promise.COUNTED, f", but began with {shown(watch.first)}")
