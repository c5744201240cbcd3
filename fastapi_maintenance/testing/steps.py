"""The steps of a check: what operators and jobs do to a backend, and what has to be seen after each of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial

import anyio
from anyio.lowlevel import checkpoint

from fastapi_maintenance._switch import holds
from fastapi_maintenance.state import Hold, MaintenanceState, switch
from fastapi_maintenance.testing.backends import BackendUnderTest, ChangeFailedError, Instance
from fastapi_maintenance.testing.background import Job, Watcher
from fastapi_maintenance.testing.model import OFF, Change, Model, Promise, Violation, added, released, shown

__all__ = ["Steps"]

_A_MOMENT = 0.05  # seconds


class Steps:
    """The steps that were made, and the model that says what has to be seen; what is not seen raises a `Violation`."""

    def __init__(self, tested: BackendUnderTest) -> None:
        self.made: list[str] = []
        self.jobs: list[Job] = []
        self.watcher: Watcher | None = None
        self._watch_goes_on = False
        self._tested = tested
        self._model = Model(OFF, detailed=tested.is_detailed)
        self._count = 0

    async def begin(self) -> None:
        """Set the switch to off."""
        a = self._tested.a
        if not self._tested.is_writable:
            detailed = self._tested.is_detailed
            self._model.become(await a.get_state() if detailed else MaintenanceState(active=await a.get_value()))
        elif self._tested.is_detailed:
            self.made.append("a: update_state(active=False, and no holds)")
            await a.update_state(lambda _: OFF)
        else:
            await self.set_value("a", value=False)

    async def leave(self) -> None:
        """End what is open, and leave the switch off."""
        for job in self.jobs:
            with suppress(Violation):
                await job.end(patience=self._tested.patience)
        if self.watcher is not None:
            await self._end(self.watcher)
        for instance in (self._tested.a, self._tested.b):
            holds.forget(instance.backend)
            with suppress(Violation):  # two that share nothing begin alike too
                await self._turn_off(instance)
        if self._watch_goes_on:
            raise Violation(Promise.WATCH_ENDS, ", but goes on")

    async def _end(self, watcher: Watcher, called: str = "watch()") -> None:
        """Cancel a watch; if that does not end it, give it states to tell, since only then it can be left."""
        self.made.append(f"{watcher.instance.name}: {called} is cancelled")
        if await watcher.end(patience=self._tested.news_patience()):
            return
        self._watch_goes_on = True
        value = True
        while not await watcher.has_ended(patience=_A_MOMENT):  # else the event loop would not end either
            with suppress(Violation):
                await watcher.instance.set_value(value=value)
            value = not value

    async def _turn_off(self, instance: Instance) -> None:
        if self._tested.is_writable and self._tested.is_detailed:
            await instance.update_state(lambda _: OFF)
        elif self._tested.is_writable:
            await instance.set_value(value=False)

    # --- reading ------------------------------------------------------------------------------------------------------

    async def read(self, name: str, method: str) -> None:
        """Read the switch, read the state or peek at it."""
        self.made.append(f"{name}: {method}()")
        self._see(await self._tested[name].read(method))

    def _see(self, seen: MaintenanceState | bool, broken: Promise | None = None) -> None:  # noqa: FBT001 -- what was read
        if not self._model.see(seen):
            promise = self._model.broken_by(seen) if broken is None else broken
            raise Violation(promise, f" -> {shown(seen)}, expected {self._model.expected(seen)}")
        self.made[-1] += f" -> {shown(seen)}"

    # --- writing ------------------------------------------------------------------------------------------------------

    async def set_value(self, name: str, *, value: bool) -> None:
        """Set the switch; while a job holds a backend that has nothing else, as an operator of the same process."""
        if self.jobs and not self._tested.is_detailed:
            self.made.append(f"a: set_maintenance_mode({value})")
            await self._tested.a.set_mode(value=value)
        else:
            self.made.append(f"{name}: set_value({value})")
            await self._tested[name].set_value(value=value)
        before = self._model.possible
        self._model.apply(lambda state: replace(state, active=value))
        if self._tested.is_detailed:
            self.made.append(f"{name}: get_state()")
            seen = await self._tested[name].get_state()
            if not self._model.is_right(seen):  # whether message and window go is left to the backend
                self._model.become(*(switch(state, active=value) for state in before))
            self._see(seen)

    async def be_refused(self, name: str, *, value: bool) -> None:
        """Write to a backend that cannot be written."""
        self.made.append(f"{name}: set_value({value})")
        if not await self._tested[name].refuses(value=value):
            raise Violation(Promise.REFUSES, " does not raise ReadOnlyBackendError")

    async def update(self, name: str, change: Change) -> None:
        """Change the state."""
        self.made.append(f"{name}: update_state({change.text})")
        given: list[MaintenanceState] = []

        def apply(state: MaintenanceState) -> MaintenanceState:
            given[:] = [state]
            return change.apply(state)

        seen = await self._tested[name].update_state(apply)
        for state in given:
            if not self._model.settle(state):
                expected = self._model.expected(state)
                raise Violation(self._model.broken_by(state), f" finds {shown(state)}, expected {expected}")
        self._model.apply(change.apply)
        if not self._model.settle(seen):
            raise Violation(Promise.RESULT, f" -> {shown(seen)}, expected {self._model.expected(seen)}")

    async def fail_to_change(self, name: str) -> None:
        """Make a change that raises."""

        def fail(_state: MaintenanceState) -> MaintenanceState:
            raise ChangeFailedError

        self.made.append(f"{name}: update_state(a change that raises)")
        self._tested.last_disturbance = self.made[-1]
        try:
            await self._tested[name].update_state(fail)
        except ChangeFailedError:
            self.made.append(f"{name}: get_state()")
            self._see(await self._tested[name].get_state(), Promise.RAISES)
        except Violation as violation:
            raise Violation(Promise.RAISES, violation.seen) from violation.__cause__
        else:
            raise Violation(Promise.RAISES, " does not raise it")

    async def update_at_once(self, writes: list[tuple[str, bool]]) -> None:
        """Let each of these add a hold."""
        holds = [Hold(id=f"new {self._count + n}", active=active) for n, (_, active) in enumerate(writes)]
        self._count += len(writes)
        changes = [(name, added(hold)) for (name, _), hold in zip(writes, holds, strict=True)]
        await self._at_once(
            [f"{name}: update_state({change.text})" for name, change in changes],
            [partial(self._tested[name].update_state, change.apply) for name, change in changes],
        )
        name = writes[0][0]
        self.made.append(f"{name}: get_state()")
        seen = await self._tested[name].get_state()
        lost = [hold for hold in holds if hold not in seen.holds]
        if lost:
            raise Violation(Promise.CONCURRENT, f" -> {shown(seen)}, without {' and '.join(map(shown, lost))}")
        for hold in seen.holds:
            if hold in holds:
                self._model.apply(added(hold).apply)
        self._see(seen)

    async def set_at_once(self, writes: list[tuple[str, bool]]) -> None:
        """Let each of these set the switch: one of them is the last."""
        if self.jobs:
            return
        await self._at_once(
            [f"{name}: set_value({value})" for name, value in writes],
            [partial(self._tested[name].set_value, value=value) for name, value in writes],
        )
        self._model.become(*(MaintenanceState(active=value) for _, value in writes))
        for name in ("a", "b"):
            self.made.append(f"{name}: get_value()")
            seen = await self._tested[name].get_value()
            self._see(seen, Promise.CONCURRENT)
            self._model.settle(seen)

    async def _at_once(self, texts: list[str], writes: list[Callable[[], Awaitable[object]]]) -> None:
        violations: list[Violation] = []

        async def make(write: Callable[[], Awaitable[object]]) -> None:
            try:
                await write()
            except Violation as violation:
                violations.append(violation)

        self.made.append(f"at once: {', '.join(texts)}")
        async with anyio.create_task_group() as group:
            for write in writes:
                group.start_soon(make, write)
        if violations:
            raise violations[0]

    async def cancel_set(self, name: str, reader: str, place: int, *, value: bool) -> None:
        """Set the switch, cancel it on the way, and read."""
        if self.jobs:
            return
        change = Change(str(value), lambda state: replace(state, active=value))
        write = partial(self._tested[name].set_value, value=value)
        await self._cancel(f"{name}: set_value({value})", change, write, place)
        await self.read(reader, "get_value")

    async def cancel_update(self, name: str, reader: str, place: int, change: Change) -> None:
        """Change the state, cancel it on the way, and read."""
        write = partial(self._tested[name].update_state, change.apply)
        await self._cancel(f"{name}: update_state({change.text})", change, write, place)
        await self.read(reader, "get_state")

    async def _cancel(self, text: str, change: Change, write: Callable[[], Awaitable[object]], place: int) -> None:
        turns, seconds = self._tested.moment(place)
        when = f"{turns} turn{'s' if turns > 1 else ''} of the event loop" if turns else f"{seconds * 1000:.2g} ms"
        self.made.append(f"{text}, cancelled after {when}")
        self._tested.last_disturbance = self.made[-1]
        violations: list[Violation] = []
        is_done = False
        ended = anyio.Event()

        async def make() -> None:
            nonlocal is_done
            try:
                await write()
                is_done = True
            except Violation as violation:
                if not group.cancel_scope.cancel_called:  # else it may end as it likes
                    violations.append(violation)
            ended.set()

        async with anyio.create_task_group() as group:
            group.start_soon(make)
            for _ in range(turns):
                await checkpoint()
            if not turns:
                with anyio.move_on_after(seconds):
                    await ended.wait()
            group.cancel_scope.cancel()
        if violations:
            raise violations[0]
        if is_done:
            self._model.apply(change.apply)
        else:
            self._model.apply_perhaps(change.apply)

    # --- jobs and watchers --------------------------------------------------------------------------------------------

    async def begin_job(self, name: str, *, active: bool, message: str | None) -> None:
        """Let a job hold maintenance on or off."""
        self._count += 1
        hold = Hold(id=f"job {self._count}", active=active, message=message if active else None)
        given = "" if hold.message is None else f"message={hold.message!r}"
        self.made.append(f"{name}: {hold.id} enters maintenance_mode_{'on' if active else 'off'}({given})")
        job = Job(self._tested[name], hold)
        self.jobs.append(job)
        await job.begin(self._tested.group, patience=self._tested.patience)
        self._model.apply(added(hold).apply)

    async def end_job(self, place: int) -> None:
        """Let one of the jobs leave its block."""
        if not self.jobs:
            return
        job = self.jobs.pop(place % len(self.jobs))
        self.made.append(f"{job.instance.name}: {job.hold.id} leaves its block")
        await job.end(patience=self._tested.patience)
        self._model.apply(released(job.hold).apply)

    async def watch(self, name: str, *, is_busy: bool) -> None:
        """Begin to watch."""
        if self.watcher is not None:
            return
        self.made.append(f"{name}: watch()")
        self.watcher = Watcher(self._tested[name], is_busy=is_busy)
        self._tested.group.start_soon(self.watcher.run)
        await self._learn(self.watcher)

    async def watch_beside(self, name: str) -> None:
        """Watch once more, for a moment."""
        if self.watcher is None:
            return
        self.made.append(f"{name}: another watch()")
        other = Watcher(self._tested[name], is_busy=False)
        self._tested.group.start_soon(other.run)
        try:
            await self._learn(other)
        finally:
            await self._end(other, "the other watch()")

    async def watch_on(self) -> None:
        """Let the watcher learn the last state."""
        if self.watcher is None:
            return
        self.made.append(f"{self.watcher.instance.name}: watch() goes on")
        await self._learn(self.watcher)

    async def _learn(self, watcher: Watcher) -> None:
        began = anyio.current_time()
        patience = self._tested.news_patience()
        if await watcher.learn(self._model.is_right, patience=patience):
            self._tested.slowest_news = max(self._tested.slowest_news or 0.0, anyio.current_time() - began)
            self.made[-1] += f" -> {watcher.last()}"
        else:
            promise = Promise.WATCH if watcher.was_told else Promise.WATCH_BEGINS
            raise Violation(promise, f" -> {watcher.last()}, expected {self._model.expected(OFF)}")
