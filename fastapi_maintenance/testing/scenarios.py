"""What backends promise: each scenario is named for a promise, and its docstring states it.

A scenario gets two instances of a backend on one switch, as two processes have them, switched off. `check_backend` runs
each one for which the backend has the methods.
"""

import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeVar
from uuid import uuid4

import anyio
from anyio.lowlevel import checkpoint

from fastapi_maintenance._helpers import clock
from fastapi_maintenance.errors import ReadOnlyBackendError
from fastapi_maintenance.state import Hold, MaintenanceState, Switch, Window, add_hold, status_of
from fastapi_maintenance.testing.instances import Broken, ChangeFailedError, Instance, expect, shown, watching

__all__ = ["SCENARIOS", "Scenario", "methods_of"]

Scenario = Callable[[Instance, Instance], Awaitable[None]]
_Scenario = TypeVar("_Scenario", bound=Scenario)

OFF, ON = MaintenanceState(), MaintenanceState(switch=Switch(on=True))
_PAST, _FUTURE = datetime(2000, 1, 1, tzinfo=UTC), datetime(9000, 1, 1, 0, 0, 0, 1, tzinfo=UTC)
MESSAGES = ("Back at ten", " Zurück 🚧\num „zehn“ \\ ✓ ", "", "Back at ten." * 25)
_HOLD, _OFF_HOLD = Hold(id="1", on=True), Hold(id="2", on=False)
_WINDOW = Window(id="1", starts_at=_PAST, ends_at=_FUTURE)
_DETAILED_WINDOW = replace(_WINDOW, message=MESSAGES[1], by="alice", since=_PAST)


def _switched(**details: Any) -> MaintenanceState:  # noqa: ANN401 -- of a Switch
    return MaintenanceState(switch=Switch(on=True, **details))


_STATES = (
    *(_switched(message=message) for message in MESSAGES),
    _switched(ends_at=_FUTURE),
    _switched(by="alice", since=_PAST),
    replace(OFF, windows=(_WINDOW,)),
    replace(OFF, windows=(_DETAILED_WINDOW, Window(id="2", starts_at=_FUTURE))),
    replace(OFF, holds=(_HOLD, _OFF_HOLD)),
    replace(ON, windows=(_WINDOW,), holds=(_HOLD, replace(_OFF_HOLD, message=MESSAGES[1], ends_at=_FUTURE))),
    replace(ON, holds=(Hold(id="3", on=False, expires_at=_PAST),)),
)
_TURNS = (1, 2, 3, 4, 5, 10, 30, 100)  # of the event loop, after which a write is cancelled
IDLE, BUSY = '{"holds": [], "requests": 0}', '{"holds": ["1"], "requests": 1, "route": "POST /orders/{id}"}'
_REPORTS = (IDLE, BUSY, IDLE, IDLE, "{}", json.dumps({"holds": [f"hold {each}" for each in range(100)]}), BUSY)
_scenarios: list[Scenario] = []


def _promise(*methods: str) -> Callable[[_Scenario], _Scenario]:
    """Add a scenario, which needs these methods or attributes besides `get_value`."""

    def add(scenario: _Scenario) -> _Scenario:
        vars(scenario)["methods"] = methods
        _scenarios.append(scenario)
        return scenario

    return add


def methods_of(scenario: Scenario) -> tuple[str, ...]:
    """Return the methods and attributes that a scenario needs, besides `get_value`."""
    return getattr(scenario, "methods", ())


# --- every backend ----------------------------------------------------------------------------------------------------


@_promise()
async def reads_agree(a: Instance, b: Instance) -> None:
    """Every method and every instance read the same state."""
    state = await a.get_state()
    for instance in (a, b):
        await _expect_reads(instance, state)


@_promise()
async def a_refusal_is_repeated(a: Instance, b: Instance) -> None:
    """A backend that refuses to be written refuses each time."""
    is_read_only = await a.is_read_only()
    for instance in (a, b):
        for value in (True, False):
            if await instance.refuses(ReadOnlyBackendError, "set_value", value) is not is_read_only:
                raise Broken(None, "raised no ReadOnlyBackendError" if is_read_only else "raised ReadOnlyBackendError")


@_promise("set_value")
async def a_written_switch_is_read(a: Instance, b: Instance) -> None:
    """A read returns what was written, through another instance too."""
    for writer in (a, b, a):
        for value in (True, True, False, False):
            await writer.set_value(value)
            for reader in (a, b):
                expect(await reader.get_value(), value)


@_promise("set_value")
async def one_of_concurrent_writes_is_the_last(a: Instance, b: Instance) -> None:
    """Of concurrent writes, each succeeds and one is the last."""
    for writers in ((a, a), (a, b), (b, b)):
        for values in ((True, True), (True, False)):
            await _at_once(*(partial(writer.set_value, value) for writer, value in zip(writers, values, strict=True)))
            value = await a.get_value()
            expect(value, *values)
            expect(await b.get_value(), value)


@_promise("set_value")
async def a_cancelled_write_is_whole_or_not_made(a: Instance, b: Instance) -> None:
    """A cancelled write leaves the switch as it was before or after it, and the backend usable."""
    for turns in _TURNS:
        for before, after in ((False, True), (True, False), (True, True)):
            await a.set_value(before)
            await _at_once(partial(a.set_value, after), turns=turns)
            expect(await a.get_value(), before, after)
            expect(await b.get_value(), before, after)  # a thread may still complete the write
            await a.set_value(before)
    await a.set_value(False)


# --- whole states -----------------------------------------------------------------------------------------------------


@_promise("update_state")
async def a_written_state_is_read_to_the_letter(a: Instance, b: Instance) -> None:
    """A state is read as it was written: every character, microsecond and hold, by every method and instance."""
    for state in (*_STATES, OFF):
        await a.set_state(state)
        for reader in (a, b):
            await _expect_reads(reader, state)


@_promise("update_state")
async def an_update_returns_what_it_has_written(a: Instance, b: Instance) -> None:
    """update_state(change) passes the current state to the change, and returns the state that it has written."""
    before = OFF
    for state in _STATES:
        given: list[MaintenanceState] = []

        def change(current: MaintenanceState, after: MaintenanceState = state) -> MaintenanceState:
            given[:] = [current]  # noqa: B023 -- it is called before the next state
            return after

        expect(await b.update_state(change), state)
        expect(given[0], before)
        before = state
    expect(await a.get_state(), before)


@_promise("update_state")
async def holds_are_kept_until_they_are_released(a: Instance, b: Instance) -> None:
    """Holds are kept until they are released, whoever sets the switch, and the newest one decides."""
    for hold, expected in ((_HOLD, (_HOLD,)), (_OFF_HOLD, (_HOLD, _OFF_HOLD))):
        await b.update_state(partial(_with_hold, hold=hold), f"add {shown(hold)}")
        expect((await a.get_state()).holds, expected)
        expect(await a.get_value(), hold.on)
    for value in (True, False):
        await a.set_value(value)
        expect((await b.get_state()).holds, (_HOLD, _OFF_HOLD))
        expect(await b.get_value(), _OFF_HOLD.on)
    for kept in ((_OFF_HOLD,), ()):
        await a.set_state(replace(ON, holds=kept))
        expect((await b.get_state()).holds, kept)


@_promise("update_state")
async def a_failed_change_leaves_the_state(a: Instance, b: Instance) -> None:
    """A change that raises leaves the state as it was, and its exception reaches the caller."""

    def fail(_state: MaintenanceState) -> MaintenanceState:
        raise ChangeFailedError

    for state in (OFF, _switched(message="Back at ten")):
        await a.set_state(state)
        try:
            await a.update_state(fail, "a change that raises")
        except ChangeFailedError:
            await _expect_reads(b, state)
        except Broken as broken:
            raise Broken(None, broken.seen) from broken.__cause__
        else:
            raise Broken(None, "raised nothing")


@_promise("update_state")
async def no_concurrent_update_is_lost(a: Instance, b: Instance) -> None:
    """Concurrent updates are not lost."""
    for writers in ((a, a), (a, b), (b, a, b, a)):
        holds = [Hold(id=f"new {number}", on=True) for number in range(len(writers))]
        changes = [partial(_with_hold, hold=hold) for hold in holds]
        await _at_once(*(partial(writer.update_state, change) for writer, change in zip(writers, changes, strict=True)))
        expect(sorted(hold.id for hold in (await b.get_state()).holds), [hold.id for hold in holds])
        await a.set_state(OFF)


@_promise("update_state")
async def a_cancelled_update_is_whole_or_not_made(a: Instance, b: Instance) -> None:
    """A cancelled update leaves the state before it or the one after it, and the backend usable."""
    before, after = _switched(message="before"), MaintenanceState(switch=Switch(on=False, by="alice"), holds=(_HOLD,))
    for turns in _TURNS:
        await a.set_state(before)
        await _at_once(partial(a.update_state, lambda _: after, shown(after)), turns=turns)
        for reader in (a, b):
            expect(await reader.get_state(), before, after)  # a thread may still complete the write


# --- watches ----------------------------------------------------------------------------------------------------------


@_promise("watch", "set_value")
async def a_watch_begins_with_the_state(a: Instance, b: Instance) -> None:
    """watch() yields the state at once, and goes on until it is closed."""
    for state in (OFF, ON):
        await a.set_state(state)
        async with watching(b) as watch:
            await watch.expect(state)


@_promise("watch", "set_value")
async def a_watch_yields_the_last_state(a: Instance, b: Instance) -> None:
    """watch() yields the last state to every watcher, even a slow one."""
    async with watching(a) as one, watching(b) as another, watching(b, is_busy=True) as busy:
        for states in ((OFF,), (ON,), (OFF, ON, OFF), (ON, OFF, ON)):
            for state in states:
                await a.set_state(state)
            for watch in (one, another, busy):
                await watch.expect(states[-1])


@_promise("watch", "set_value")
async def a_cancelled_watch_ends(a: Instance, b: Instance) -> None:
    """watch() ends when it is cancelled."""
    for instance in (a, b):
        async with watching(instance) as watch:
            await watch.expect(OFF)
            if not await watch.cancel():
                raise Broken(None, "watch() goes on")


# --- workers ----------------------------------------------------------------------------------------------------------


@_promise("workers", "update_state")
async def a_worker_that_has_signed_is_known_until_it_leaves(a: Instance, b: Instance) -> None:
    """reports() has every worker from the end of its first sign() until leave(), whichever instance it uses."""
    one, two = _new_workers(2)
    async with _followed(a, b):
        await a.sign(one, IDLE)
        await _expect_reports((b, a), {one: IDLE})
        await b.sign(two, BUSY)
        await _expect_reports((a, b), {one: IDLE, two: BUSY})
        await a.leave(one)
        await _expect_reports((a, b), {two: BUSY}, one)
        await b.leave(two)
        await _expect_reports((a, b), {}, one, two)


@_promise("workers", "update_state")
async def the_last_report_of_each_worker_is_kept(a: Instance, b: Instance) -> None:
    """reports() has the last report of each worker, to the letter."""
    one, two = _new_workers(2, host="host" * 20)  # some names are that long
    reports: dict[str, str] = {}
    async with _followed(a, b):
        for text in _REPORTS:
            for instance, worker in ((a, one), (b, two)):
                reports[worker] = text
                await instance.sign(worker, text)
                await _expect_reports((b, a), reports)
        await a.leave(one)
        await b.leave(two)


@_promise("workers", "update_state")
async def a_worker_that_leaves_removes_no_other(a: Instance, b: Instance) -> None:
    """leave() removes that worker alone, and does no harm if it has no record."""
    one, two, three, stranger = _new_workers(4)
    async with _followed(a, b):
        for worker in (one, two, three):
            await a.sign(worker, IDLE)
        for instance, worker in ((b, stranger), (a, two), (a, two)):
            await instance.leave(worker)
        await _expect_reports((a, b), {one: IDLE, three: IDLE}, two, stranger)
        await a.sign(one, BUSY)
        await _expect_reports((a, b), {one: BUSY, three: IDLE}, two, stranger)
        await a.leave(one)
        await a.leave(three)


@_promise("workers", "update_state")
async def no_concurrent_sign_is_lost(a: Instance, b: Instance) -> None:
    """No worker is lost that signs at the same time as others, or while another one leaves."""
    async with _followed(a, b):
        for instances in ((a, a), (a, b), (b, a, b, a)):
            signed = dict(zip(_new_workers(len(instances)), instances, strict=True))
            await _at_once(*(partial(instance.sign, worker, IDLE) for worker, instance in signed.items()))
            await _expect_reports((a, b), dict.fromkeys(signed, IDLE))
            first, *others = signed
            late = _new_workers(1)[0]
            await _at_once(
                partial(signed[first].leave, first),
                partial(b.sign, late, BUSY),
                *(partial(signed[worker].sign, worker, BUSY) for worker in others),
            )
            await _expect_reports((a, b), dict.fromkeys([late, *others], BUSY), first)
            await b.leave(late)
            for worker in others:
                await signed[worker].leave(worker)


@_promise("workers", "update_state")
async def a_cancelled_sign_is_whole_or_not_made(a: Instance, b: Instance) -> None:
    """A cancelled sign() leaves the report before it or the one after it, and the registry usable."""
    one, two = _new_workers(2)
    async with _followed(a, b):
        await b.sign(two, IDLE)
        for turns in _TURNS:
            await a.sign(one, IDLE)
            await _at_once(partial(a.sign, one, BUSY), turns=turns)
            for reader in (a, b):
                reports = await reader.reports()
                expect(reports.get(one), IDLE, BUSY)  # a thread may still complete the write
                expect(reports.get(two), IDLE)
        await a.leave(one)
        await b.leave(two)


SCENARIOS: tuple[Scenario, ...] = tuple(_scenarios)
"""All of them, in this order."""


def _with_hold(state: MaintenanceState, hold: Hold) -> MaintenanceState:
    return add_hold(state, hold, clock.now())


async def _expect_reads(reader: Instance, state: MaintenanceState) -> None:
    if reader.has("get_state"):
        expect(await reader.get_state(), state)
    expect(await reader.get_value(), status_of(state, clock.now()).active)
    if reader.has("peek"):
        expect(await reader.peek(), state)


def _new_workers(number: int, host: str = "host") -> list[str]:
    """Return ids that no worker has had before: none signs again after it has left."""
    return [f"{host}.{each}.{uuid4().hex[:12]}" for each in range(number)]


@asynccontextmanager
async def _followed(*instances: Instance) -> AsyncGenerator[None]:
    """Watch the instances that can be watched, as every process that signs does."""
    async with AsyncExitStack() as stack:
        for instance in instances:
            if instance.has("watch"):
                watch = await stack.enter_async_context(watching(instance))
                await watch.expect(OFF)
        yield


async def _expect_reports(readers: Iterable[Instance], expected: Mapping[str, str], *left: str) -> None:
    """Compare the reports of these workers; a slow store has time to remove those that have left."""
    for reader in readers:
        reports = await reader.reports()
        with anyio.move_on_after(reader.patience):
            while not reports.keys().isdisjoint(left):
                await anyio.sleep(0.01)
                reports = await reader.reports()
        expect({worker: text for worker, text in reports.items() if worker in (*expected, *left)}, dict(expected))


async def _at_once(*writes: Callable[[], Awaitable[object]], turns: int | None = None) -> None:
    """Make writes at once, and cancel them after this many turns of the event loop; None: wait for their end."""
    errors: list[Broken] = []
    ended = 0

    async def make(write: Callable[[], Awaitable[object]]) -> None:
        nonlocal ended
        try:
            await write()
        except Broken as broken:
            if not group.cancel_scope.cancel_called:  # a cancelled write may raise anything
                errors.append(broken)
        ended += 1

    async with anyio.create_task_group() as group:
        for write in writes:
            group.start_soon(make, write)
        while turns != 0 and ended < len(writes):
            await checkpoint()
            turns = None if turns is None else turns - 1
        group.cancel_scope.cancel()
    for error in errors:
        raise error
