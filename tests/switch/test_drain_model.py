"""Drains as a model: several processes behind one store take their steps in any order, and no request is in a block.

Each operation on the store waits before and after it takes effect, at most half a second unless its process is stalled.
So any order can occur: a record that is written late, an answer from before a change that arrives after it, a process
that dies or stalls between two steps. Records are lost, first registrations are refused, blocks open the service,
holds vanish, and clocks differ. The middleware is the real one; a process is an app with a lifespan and a client of its
own, on a clock that jumps.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from functools import partial
from itertools import count
from typing import Any

import pytest
import trio
import trio.testing
from fastapi import FastAPI
from hypothesis import event, given, settings
from hypothesis import strategies as st
from starlette.types import Message

from fastapi_maintenance import DrainTimeoutError, MaintenanceState, NoWorkersError, maintenance_middleware
from fastapi_maintenance._helpers import clock
from fastapi_maintenance._switch import drain as drain_module
from fastapi_maintenance._switch.drain import Drain
from fastapi_maintenance._switch.reports import Applied, report_of
from fastapi_maintenance._switch.requests import Blocked, RequestInProgress
from fastapi_maintenance.state import Hold, add_hold, release_hold
from fastapi_maintenance.typing import StateChange

TICK = 0.25  # seconds
LONG = 5.0  # seconds that a long request takes at least
SKEW = timedelta(seconds=60)  # by which the clocks of jobs are behind

EVENTS = {
    "process": 3,  # starts
    "refused process": 1,  # starts, and its first two registrations are refused
    "job": 2,  # drains while a request is in progress
    "early job": 2,  # drains while none is
    "skewed job": 1,  # drains with a hold that has expired by the clocks of the workers
    "long request": 2,
    "loss": 3,  # of records
    "stall": 2,
    "opening": 2,  # of the service, by a block
    "vanishing": 2,  # of a hold
}
"""How often each event can occur."""

Action = tuple[str, Callable[[], object]]
"""The event that it uses up, if any, and its effect."""
Step = tuple[trio.Event, "Client", float]
"""A step of an operation that waits: what resumes it, of which client, and since when."""


class Store:
    """The part that all clients share."""

    def __init__(self) -> None:
        self.state = MaintenanceState()
        self.records: dict[str, str] = {}
        self.owners: dict[str, Client] = {}
        self.waiting: list[Step] = []
        self.changed = trio.Event()

    def change(self, change: StateChange) -> None:
        """Apply a change at once."""
        self.state = change(self.state)
        changed, self.changed = self.changed, trio.Event()
        changed.set()


class Client:
    """The client of one process. Each operation waits before and after it takes effect, until the world resumes it."""

    def __init__(self, store: Store, *, fault: str = "") -> None:
        self.store = store
        self.workers = self
        self.is_dead = self.is_stalled = False
        self.refusals = 0
        self.read: MaintenanceState | None = None
        self._fault = fault
        self._has_signed = False
        self._seen: dict[str, str] = {}
        self._left: set[str] = set()

    async def _step(self) -> None:
        entry = trio.Event(), self, trio.current_time()
        self.store.waiting.append(entry)
        try:
            await entry[0].wait()
        finally:
            self.store.waiting.remove(entry)

    async def get_value(self) -> bool:
        raise NotImplementedError

    async def set_value(self, value: bool, /) -> None:
        raise NotImplementedError

    async def get_state(self) -> MaintenanceState:
        await self._step()
        state = self.store.state
        await self._step()
        self.read = state
        return state

    async def update_state(self, change: StateChange, /) -> MaintenanceState:
        await self._step()
        self.store.change(change)
        state = self.store.state
        await self._step()
        return state

    async def watch(self) -> AsyncIterator[MaintenanceState]:
        while True:
            changed = self.store.changed
            yield await self.get_state()
            await changed.wait()

    async def sign(self, worker: str, report: str, /) -> None:
        await self._step()
        if self.refusals:
            self.refusals -= 1
            msg = "full"
            raise ConnectionError(msg)
        is_lost = self._has_signed and worker not in self.store.records and not worker.startswith("mark")
        if not self.is_dead and not (is_lost and self._fault == "a report needs a record"):
            self.store.records[worker] = report
            self.store.owners[worker] = self
            self._has_signed = True
        await self._step()

    async def leave(self, worker: str, /) -> None:
        await self._step()
        self.store.records.pop(worker, None)
        self._left.add(worker)
        await self._step()

    async def reports(self) -> Mapping[str, str]:
        await self._step()
        known = self._seen | self.store.records
        self._seen = {worker: text for worker, text in known.items() if self._is_alive(worker)}
        reports = self._seen.copy()
        await self._step()
        return reports

    def _is_alive(self, worker: str) -> bool:
        owner = self.store.owners[worker]
        is_forgotten = owner.is_stalled and self._fault == "a stalled worker counts as dead"
        return not owner.is_dead and worker not in owner._left and not is_forgotten


class Process:
    """An app that is served until it ends or dies, with its requests in progress."""

    def __init__(self, world: World, *, refusals: int) -> None:
        self._world = world
        self._scope = trio.CancelScope()
        self._ends = trio.Event()
        self._nursery: trio.Nursery | None = None
        self.client = world.new_client()
        self.client.refusals = refusals
        self.is_serving = False
        self.stalled_at = 0.0
        self.running: dict[int, tuple[trio.Event, float]] = {}
        """The requests: what ends each, and the earliest time for that."""
        self.app = FastAPI()
        self.app.add_middleware(maintenance_middleware(backend=self.client, read_timeout=3600.0))
        self.app.add_api_route("/work/{number}/{seconds}", self.work)

    async def work(self, number: int, seconds: float) -> None:
        self._world.check_begin(number)
        self.running[number] = trio.Event(), trio.current_time() + seconds
        try:
            await self.running[number][0].wait()
        finally:
            del self.running[number]

    async def live(self) -> None:
        messages = [{"type": "lifespan.startup"}]

        async def receive() -> Message:
            if messages:
                return messages.pop()
            await self._ends.wait()
            return {"type": "lifespan.shutdown"}

        async def send(message: Message) -> None:
            self.is_serving = message["type"] == "lifespan.startup.complete"
            await trio.lowlevel.checkpoint()

        with self._scope:
            async with trio.open_nursery() as self._nursery:
                await self.app({"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}, receive, send)

    def begin_request(self, number: int, seconds: float = 0) -> None:
        async def send(_message: Message) -> None:
            await trio.lowlevel.checkpoint()

        async def answer() -> None:
            path = f"/work/{number}/{seconds}"
            scope = {"type": "http", "method": "GET", "path": path, "headers": [], "query_string": b""}
            await self.app(scope, trio.sleep_forever, send)

        assert self._nursery is not None
        self._nursery.start_soon(answer)

    def stall(self) -> None:
        self.client.is_stalled, self.stalled_at = True, trio.current_time()

    def resume(self) -> None:
        self.client.is_stalled = False

    def end(self) -> None:
        self.is_serving = False
        self._ends.set()

    def die(self) -> None:
        self.is_serving, self.client.is_dead = False, True
        self._scope.cancel()


class World:
    """All processes, the jobs that drain, and the violations found."""

    def __init__(self, choose: Callable[[int], int], nursery: trio.Nursery, *, fault: str) -> None:
        self.store = Store()
        self.processes: list[Process] = []
        self.violations: list[str] = []
        self.bodies = 0
        self._fault = fault
        self._choose = choose
        self._nursery = nursery
        self._numbers = count()
        self._left = EVENTS | (dict.fromkeys(EVENTS, 0) | BROKEN[fault][0] if fault else {})
        self._lost_at = -100.0
        self._jobs = 0
        self._draining: dict[str, tuple[Client, Hold]] = {}
        self._opened: Hold | None = None
        self._vanished: set[str] = set()
        self._open_bodies: dict[str, bool] = {}
        """The open blocks, and whether another block has opened the service in each."""

    def new_client(self) -> Client:
        return Client(self.store, fault=self._fault)

    def check_begin(self, number: int) -> None:
        if not all(self._open_bodies.values()):
            self.violations.append(f"request {number} began in a block")

    # Jobs

    async def drain(self, *, is_behind: bool) -> None:
        client, now = self.new_client(), clock.now()
        expires_at = now - SKEW / 2 if is_behind else None  # by the clocks of the workers
        hold = Hold(id=f"job {next(self._numbers)}", on=True, expires_at=expires_at, since=now)
        drain = Drain(client, 30, 1)
        async with drain.begun():
            await client.update_state(lambda state: add_hold(state, hold, clock.now() - SKEW))
            self._draining[hold.id] = client, hold
            try:
                await drain.wait(hold)
            except (DrainTimeoutError, NoWorkersError):
                del self._draining[hold.id]
            else:
                del self._draining[hold.id]
                await self.run_body(hold)
        await client.update_state(lambda state: release_hold(state, hold.id))
        self._jobs -= 1

    async def run_body(self, hold: Hold) -> None:
        is_excused = self._opened is not None or hold.id in self._vanished  # since the drain has looked
        if not is_excused:
            running = [number for process in self.processes for number in process.running]
            self.violations += [f"request {number} is in progress in a block" for number in running]
        self._open_bodies[hold.id] = is_excused
        self.bodies += 1
        await trio.sleep(3 * TICK)
        del self._open_bodies[hold.id]

    # Possible actions; one that is listed twice is twice as likely

    def actions(self) -> list[Action]:
        steps = [entry for entry in self.store.waiting if not (entry[1].is_dead or entry[1].is_stalled)]
        possible: list[Action] = [("", entry[0].set) for entry in steps]
        if len(steps) > 1:
            possible += [("", partial(self.resume, steps))] * 2
        possible += [("process", self.start), ("refused process", partial(self.start, refusals=2))]
        for process in self.processes:
            possible += self.actions_of(process)
        is_busy = any(process.running for process in self.processes)
        possible += [("job" if is_busy else "early job", self.begin_job)] * 2
        possible += [("skewed job", partial(self.begin_job, is_behind=True))]
        return [action for action in [*possible, *self.faults()] if not action[0] or self._left[action[0]] > 0]

    def actions_of(self, process: Process) -> list[Action]:
        now = trio.current_time()
        if process.client.is_stalled:
            return [("", process.resume)] if now - process.stalled_at > 5 else []
        ends = [end.set for end, earliest in process.running.values() if now >= earliest]
        possible: list[Action] = [("", end) for end in ends[:1]]
        if process.is_serving:
            possible += [("", partial(process.begin_request, next(self._numbers)))] * 2
            possible += [("long request", partial(process.begin_request, next(self._numbers), LONG))]
            if self._left["process"]:
                possible += [("", process.end), ("", partial(self.kill, process))]
            has_record = process.client in [self.store.owners[worker] for worker in self.store.records]
            if has_record and now - self._lost_at > 3:
                possible += [("stall", process.stall)]
        return possible

    def faults(self) -> list[Action]:
        """Return what can go wrong. It is set right only when each drain has had a look at it."""
        possible: list[Action] = []
        if not any(process.client.is_stalled for process in self.processes):
            records = list(self.store.records)
            possible += [("loss", partial(self.lose, lost)) for lost in [records, *([worker] for worker in records)]]
        reads = [client.read for client, _ in self._draining.values()]
        if self._opened is None:
            possible += [("opening", self.open)]
        elif all(read is not None and self._opened in read.holds for read in reads):
            possible += [("", self.close)]
        for client, hold in self._draining.values():
            if hold.id not in self._vanished:
                possible += [("vanishing", partial(self.vanish, hold))]
            elif client.read and hold.id not in [one.id for one in client.read.holds]:
                possible += [("", partial(self.put_back, hold))]
        return possible

    # Their effects

    def resume(self, steps: Sequence[Step]) -> None:
        for resumed, _, _ in steps:
            resumed.set()

    def begin_job(self, *, is_behind: bool = False) -> None:
        self._jobs += 1
        self._nursery.start_soon(partial(self.drain, is_behind=is_behind))

    def start(self, refusals: int = 0) -> None:
        self.processes.append(Process(self, refusals=refusals))
        self._nursery.start_soon(self.processes[-1].live)

    def kill(self, process: Process) -> None:
        process.die()
        self.processes.remove(process)

    def lose(self, workers: Sequence[str]) -> None:
        self._lost_at = trio.current_time()
        for worker in workers:
            del self.store.records[worker]

    def open(self) -> None:
        self._open_bodies = dict.fromkeys(self._open_bodies, True)
        self._opened = opened = Hold(id="off", on=False, since=clock.now())
        self.store.change(lambda state: replace(state, holds=(*state.holds, opened)))

    def close(self) -> None:
        self._opened = None
        self.store.change(lambda state: release_hold(state, "off"))

    def vanish(self, hold: Hold) -> None:
        self._vanished.add(hold.id)
        self.store.change(lambda state: release_hold(state, hold.id))

    def put_back(self, hold: Hold) -> None:
        self._vanished.discard(hold.id)
        self.store.change(lambda state: add_hold(state, hold, clock.now() - SKEW))

    async def run(self, steps: int) -> None:
        """Take so many steps, or fewer if no job is left."""
        for _ in range(steps):
            await trio.testing.wait_all_tasks_blocked()
            if not self._jobs and not any(self._left[job] for job in ("job", "early job", "skewed job")):
                break
            possible = self.actions()
            chosen = self._choose(len(possible) + 3)
            if chosen < len(possible):
                used_up, act = possible[chosen]
                if used_up:
                    self._left[used_up] -= 1
                act()
                continue
            now = trio.current_time()
            late = [one for one in self.store.waiting if now - one[2] >= TICK and not one[1].is_stalled]
            self.resume(late)
            if not late:
                await trio.sleep(TICK / 2)

    async def run_without_choices(self, seconds: float) -> None:
        end = trio.current_time() + seconds
        while trio.current_time() < end:
            await trio.testing.wait_all_tasks_blocked()
            self.resume(list(self.store.waiting))
            await trio.sleep(TICK / 2)


class Behind:
    """The clock of the jobs."""

    @staticmethod
    def now() -> object:
        """Return the time by that clock."""
        return clock.now() - SKEW


async def lose_one_of_two(world: World) -> None:
    """Lose the record of a worker with a request in progress, and drain beside another worker."""
    for _ in range(2):
        world.start()
    await world.run_without_choices(2)
    world.processes[0].begin_request(0)
    await world.run_without_choices(1)
    (lost,) = [name for name in world.store.records if world.store.owners[name] is world.processes[0].client]
    world.lose([lost])
    world.begin_job()
    await world.run_without_choices(10)


def play(choices: Sequence[int], *, fault: str = "", script: Callable[[World], Awaitable[None]] | None = None) -> World:
    """Take the steps that are chosen, or those of a script, and return the world after them."""
    remaining = iter(choices)

    async def main() -> World:
        async with trio.open_nursery() as nursery:
            world = World(lambda options: next(remaining, 0) % options, nursery, fault=fault)
            await (world.run(len(choices)) if script is None else script(world))
            nursery.cancel_scope.cancel()
        return world

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drain_module, "clock", Behind)
        return trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


@settings(deadline=None)
@given(st.randoms(use_true_random=False), st.integers(100, 600))
def test_drain_in_any_order_of_steps_leaves_no_request_in_a_block(numbers: random.Random, length: int) -> None:
    world = play(numbers.choices(range(10_000), k=length))
    event(f"{world.bodies} blocks")
    assert world.violations == []


def test_drain_with_a_record_lost_beside_another_worker_waits() -> None:
    world = play((), script=lose_one_of_two)
    assert (world.violations, world.bodies) == ([], 0)  # the request is still in progress


def confirm_what_was_read(goes: Applied, requests: Sequence[tuple[RequestInProgress, Blocked]]) -> str:
    """Report as a worker would that confirms each hold that it has read."""
    holds = () if goes.state is None else goes.state.holds
    return report_of(replace(goes, is_on=True, confirmed=holds), requests)


BROKEN: dict[str, tuple[dict[str, int], dict[str, Any]]] = {
    "a report needs a record": ({}, {}),  # found by the script alone
    "a refused registration is not tried again": (
        {"process": 1, "refused process": 1, "job": 2, "long request": 9},
        {"worker._SIGN_AGAIN": 1000.0},
    ),
    "a hold is confirmed when it is read": (
        {"process": 1, "skewed job": 1, "opening": 1},
        {"worker.report_of": confirm_what_was_read},
    ),
    "the state is not checked": (
        {"process": 1, "early job": 2, "job": 1, "vanishing": 3, "opening": 6},
        {"drain.Drain._problem_of": lambda *_: None},
    ),
    "a stalled worker counts as dead": ({"process": 2, "job": 1, "stall": 1}, {}),
}
"""The events, and what is broken: in the client, or in a module."""


@pytest.mark.parametrize("fault", BROKEN)
def test_model_with_a_drain_broken_on_purpose_finds_a_violation(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in BROKEN[fault][1].items():
        monkeypatch.setattr(f"fastapi_maintenance._switch.{name}", value)

    def has_violations(seed: int) -> bool:
        choices = random.Random(seed).choices(range(10_000), k=300)  # noqa: S311 -- no secret
        return bool(play(choices, fault=fault).violations)

    assert play((), fault=fault, script=lose_one_of_two).violations or any(map(has_violations, range(1000)))
