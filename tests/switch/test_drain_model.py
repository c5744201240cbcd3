"""Several processes behind one store that take their steps in any order: no request is inside of a drained block.

Each operation on the store takes its steps only when it is let, so every order of them can come: a worker that is
counted late, an answer from before a change that arrives after it, a process that dies between two steps. What runs is
the middleware itself, a process being an app with a lifespan of its own, on a clock that jumps.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from functools import partial
from itertools import count

import trio
import trio.testing
from fastapi import FastAPI
from hypothesis import event, given
from hypothesis import strategies as st
from starlette.types import Message

from fastapi_maintenance import MaintenanceState, maintenance_middleware
from fastapi_maintenance._helpers import clock
from fastapi_maintenance._switch.drain import wait_until_drained
from fastapi_maintenance.errors import DrainTimeoutError
from fastapi_maintenance.state import Hold, add_hold, release_hold
from fastapi_maintenance.typing import StateChange


class SteppedStore:
    """A store whose operations wait before and after they take effect, until they are let go on."""

    def __init__(self, *, counts_late: bool = False) -> None:
        self.waiting: list[trio.Event] = []
        self._counts_late = counts_late
        self._state = MaintenanceState()
        self._reports: dict[str, str] = {}
        self._changed = trio.Event()

    async def _step(self) -> None:
        let = trio.Event()
        self.waiting.append(let)
        try:
            await let.wait()
        finally:
            self.waiting.remove(let)

    async def get_value(self) -> bool:
        raise NotImplementedError

    async def set_value(self, value: bool, /) -> None:
        raise NotImplementedError

    async def get_state(self) -> MaintenanceState:
        await self._step()
        state = self._state
        await self._step()
        return state

    async def update_state(self, change: StateChange, /) -> MaintenanceState:
        await self._step()
        self._state = change(self._state)
        changed, self._changed = self._changed, trio.Event()
        changed.set()
        await self._step()
        return self._state

    async def watch(self, worker: str | None = None) -> AsyncIterator[MaintenanceState]:
        assert worker is not None
        try:
            await self._step()
            if not self._counts_late:
                self._reports[worker] = ""
            while True:
                changed = self._changed
                state = await self.get_state()
                self._reports.setdefault(worker, "")
                yield state
                await changed.wait()
        finally:
            self._reports.pop(worker, None)

    async def report(self, worker: str, text: str, /) -> None:
        await self._step()
        if worker in self._reports:
            self._reports[worker] = text
        await self._step()

    async def get_reports(self) -> Mapping[str, str]:
        await self._step()
        reports = self._reports.copy()
        await self._step()
        return reports


class Process:
    """An app that is served until it ends or dies, with its requests in progress."""

    def __init__(self, store: SteppedStore, world: World) -> None:
        self._world = world
        self._scope = trio.CancelScope()
        self._nursery: trio.Nursery | None = None
        self.is_serving = False
        self.running: dict[int, trio.Event] = {}
        self.app = FastAPI()
        self.app.add_middleware(maintenance_middleware(backend=store, read_timeout=3600.0))
        self.app.add_api_route("/work/{number}", self.work)

    async def work(self, number: int) -> None:
        self._world.begins(number)
        self.running[number] = trio.Event()
        try:
            await self.running[number].wait()
        finally:
            del self.running[number]

    async def live(self) -> None:
        messages = [{"type": "lifespan.startup"}]

        async def receive() -> Message:
            if messages:
                return messages.pop()
            await trio.sleep_forever()
            raise AssertionError

        async def send(_message: Message) -> None:
            self.is_serving = True
            await trio.lowlevel.checkpoint()

        with self._scope:
            async with trio.open_nursery() as self._nursery:
                await self.app({"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}, receive, send)

    def begin_request(self, number: int) -> None:
        assert self._nursery is not None
        self._nursery.start_soon(self._answer, number)

    async def _answer(self, number: int) -> None:
        async def receive() -> Message:
            await trio.sleep_forever()
            raise AssertionError

        async def send(_message: Message) -> None:
            await trio.lowlevel.checkpoint()

        scope = {"type": "http", "method": "GET", "path": f"/work/{number}", "headers": [], "query_string": b""}
        await self.app(scope, receive, send)

    def die(self) -> None:
        self.is_serving = False
        self._scope.cancel()


class World:
    """All processes, the jobs that drain, and what must not be."""

    def __init__(
        self, store: SteppedStore, choose: Callable[[int], int], nursery: trio.Nursery, *, processes: int, jobs: int
    ) -> None:
        self.store = store
        self._choose = choose
        self._nursery = nursery
        self._numbers = count()
        self._processes_left = processes
        self._jobs_left = jobs
        self.inside = 0
        self.bodies = 0
        self.violations: list[str] = []
        self.processes: list[Process] = []

    def begins(self, number: int) -> None:
        if self.inside:
            self.violations.append(f"request {number} began in a block")

    async def drain(self) -> None:
        hold = Hold(id=f"job {next(self._numbers)}", on=True)
        await self.store.update_state(lambda state: add_hold(state, hold, clock.now()))
        try:
            await wait_until_drained(self.store, hold.id, 3600, None)
            running = [number for process in self.processes for number in process.running]
            self.violations += [f"request {number} is in progress in a block" for number in running]
            self.inside += 1
            self.bodies += 1
            await trio.sleep(0.1)
            await self.store._step()
            self.inside -= 1
        except DrainTimeoutError:
            pass
        await self.store.update_state(lambda state: release_hold(state, hold.id))

    def actions(self) -> list[Callable[[], object]]:
        """Return what can happen next."""
        possible: list[Callable[[], object]] = [step.set for step in self.store.waiting]
        if self._processes_left:
            possible.append(self.start)
        for process in self.processes:
            possible += [end.set for end in process.running.values()]
            if process.is_serving:
                possible.append(partial(process.begin_request, next(self._numbers)))
                if self._processes_left:
                    possible.append(partial(self.kill, process))
        if self._jobs_left:
            possible.append(self.begin_job)
        return possible

    def begin_job(self) -> None:
        self._jobs_left -= 1
        self._nursery.start_soon(self.drain)

    def start(self) -> None:
        self._processes_left -= 1
        process = Process(self.store, self)
        self.processes.append(process)
        self._nursery.start_soon(process.live)

    def kill(self, process: Process) -> None:
        process.die()
        self.processes.remove(process)

    async def run(self, steps: int) -> None:
        for _ in range(steps):
            await trio.testing.wait_all_tasks_blocked()
            possible = self.actions()
            possible[self._choose(len(possible))]()
            if self._choose(4) == 0:
                await trio.sleep(0.05)
        self._nursery.cancel_scope.cancel()


def play(choices: Sequence[int], *, processes: int = 4, jobs: int = 3, counts_late: bool = False) -> World:
    """Take these steps, and return the world as it is then."""
    remaining = iter(choices)

    def choose(options: int) -> int:
        return next(remaining, 0) % options

    async def main() -> World:
        async with trio.open_nursery() as nursery:
            store = SteppedStore(counts_late=counts_late)
            world = World(store, choose, nursery, processes=processes, jobs=jobs)
            await world.run(len(choices) // 2)
        return world

    return trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


@given(st.lists(st.integers(0, 1000), min_size=100, max_size=400))
def test_no_request_is_inside_of_a_block(choices: list[int]) -> None:
    world = play(choices)
    event(f"{world.bodies} blocks")
    assert [] == world.violations


def test_an_order_that_is_wrong_is_found() -> None:
    def violations(seed: int) -> list[str]:
        choices = random.Random(seed).choices(range(1000), k=200)  # noqa: S311 -- no secret
        return play(choices, processes=1, jobs=1, counts_late=True).violations

    assert any(map(violations, range(1000)))
