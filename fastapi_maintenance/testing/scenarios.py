"""What backends promise: each scenario is named for a promise, which its docstring states.

A scenario gets two instances of a backend on one switch, as two processes have them, switched off. `check_backend` runs
each one for which the backend has the methods.
"""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeVar

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
_MESSAGES = ("Back at ten", " Zurück 🚧\num „zehn“ \\ ✓ ", "", "Back at ten." * 25)
_HOLD = Hold(id="1", on=True)
_WINDOW = Window(id="1", starts_at=_PAST, ends_at=_FUTURE)


def _switched(**details: Any) -> MaintenanceState:  # noqa: ANN401 -- of a Switch
    return MaintenanceState(switch=Switch(on=True, **details))


_STATES = (
    *(_switched(message=message) for message in _MESSAGES),
    _switched(ends_at=_FUTURE),
    _switched(by="alice", since=_PAST),
    replace(OFF, windows=(_WINDOW,)),
    replace(
        OFF,
        windows=(replace(_WINDOW, message=_MESSAGES[1], by="alice", since=_PAST), Window(id="2", starts_at=_FUTURE)),
    ),
    replace(OFF, holds=(_HOLD, Hold(id="2", on=False))),
    replace(ON, windows=(_WINDOW,), holds=(_HOLD, Hold(id="2", on=False, message=_MESSAGES[1], ends_at=_FUTURE))),
    replace(ON, holds=(Hold(id="3", on=False, expires_at=_PAST),)),
)
_TURNS = (1, 2, 3, 4, 5, 10, 30, 100)  # of the event loop, after which a write is cancelled
_BEGINNINGS = range(10)  # turns of the event loop after which somebody drains while a worker begins


def needs(*methods: str) -> Callable[[_Scenario], _Scenario]:
    """Mark a scenario as one for backends with these methods."""

    def mark(scenario: _Scenario) -> _Scenario:
        vars(scenario)["methods"] = methods
        return scenario

    return mark


def methods_of(scenario: Scenario) -> tuple[str, ...]:
    """Return the methods that a backend needs for a scenario, besides `get_value`."""
    return getattr(scenario, "methods", ())


# --- every backend ----------------------------------------------------------------------------------------------------


async def reads_agree(a: Instance, b: Instance) -> None:
    """What is read is the same by every method and every instance."""
    state = await a.get_state()
    for instance in (a, b):
        expect(await instance.get_value(), status_of(state, clock.now()).active)
        if instance.has("get_state"):
            expect(await instance.get_state(), state)
        if instance.has("peek"):
            expect(await instance.peek(), state)


async def a_refusal_is_repeated(a: Instance, b: Instance) -> None:
    """A backend that refuses to be written refuses each time."""
    is_read_only = await a.is_read_only()
    for instance in (a, b):
        for value in (True, False):
            if await instance.refuses(ReadOnlyBackendError, "set_value", value) is not is_read_only:
                raise Broken(None, "raised no ReadOnlyBackendError" if is_read_only else "raised ReadOnlyBackendError")


@needs("set_value")
async def a_written_switch_is_read(a: Instance, b: Instance) -> None:
    """What is read is what was written, by another instance too."""
    for writer in (a, b, a):
        for value in (True, True, False, False):
            await writer.set_value(value)
            for reader in (a, b):
                expect(await reader.get_value(), value)


@needs("set_value")
async def one_of_concurrent_writes_is_the_last(a: Instance, b: Instance) -> None:
    """Of concurrent writes each succeeds, and one is the last."""
    for writers in ((a, a), (a, b), (b, b)):
        for values in ((True, True), (True, False)):
            await _at_once(*(partial(writer.set_value, value) for writer, value in zip(writers, values, strict=True)))
            value = await a.get_value()
            expect(value, *values)
            expect(await b.get_value(), value)


@needs("set_value")
async def a_cancelled_write_is_whole_or_not_made(a: Instance, b: Instance) -> None:
    """A write that is cancelled leaves the switch as before it or as after it, and the backend usable."""
    for turns in _TURNS:
        for before, after in ((False, True), (True, False), (True, True)):
            await a.set_value(before)
            await _at_once(partial(a.set_value, after), turns=turns)
            expect(await a.get_value(), before, after)
            expect(await b.get_value(), before, after)  # the write may still come, as from a thread
            await a.set_value(before)
    await a.set_value(False)


# --- whole states -----------------------------------------------------------------------------------------------------


@needs("update_state")
async def a_written_state_is_read_to_the_letter(a: Instance, b: Instance) -> None:
    """A state is read as it was written: every character, microsecond and hold, by every method and instance."""
    for state in (*_STATES, OFF):
        await a.set_state(state)
        for reader in (a, b):
            await _expect_reads(reader, state)


@needs("update_state")
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


@needs("update_state")
async def holds_are_kept_until_they_are_released(a: Instance, b: Instance) -> None:
    """Holds are kept until they are released, whoever sets the switch, and the newest one decides."""
    first, second = _HOLD, Hold(id="2", on=False)
    for hold, expected in ((first, (first,)), (second, (first, second))):
        await b.update_state(partial(_with_hold, hold=hold), f"add {shown(hold)}")
        expect((await a.get_state()).holds, expected)
        expect(await a.get_value(), hold.on)
    for value in (True, False):
        await a.set_value(value)
        expect((await b.get_state()).holds, (first, second))
        expect(await b.get_value(), False)  # noqa: FBT003 -- what the newest hold says
    for kept in ((second,), ()):
        await a.set_state(replace(ON, holds=kept))
        expect((await b.get_state()).holds, kept)


@needs("update_state")
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


@needs("update_state")
async def no_concurrent_update_is_lost(a: Instance, b: Instance) -> None:
    """Concurrent updates are not lost."""
    for writers in ((a, a), (a, b), (b, a, b, a)):
        holds = [Hold(id=f"new {number}", on=True) for number in range(len(writers))]
        changes = [partial(_with_hold, hold=hold) for hold in holds]
        await _at_once(*(partial(writer.update_state, change) for writer, change in zip(writers, changes, strict=True)))
        expect(sorted(hold.id for hold in (await b.get_state()).holds), [hold.id for hold in holds])
        await a.set_state(OFF)


@needs("update_state")
async def a_cancelled_update_is_whole_or_not_made(a: Instance, b: Instance) -> None:
    """An update that is cancelled leaves the state before it or the one after it, and the backend usable."""
    before, after = _switched(message="before"), MaintenanceState(switch=Switch(on=False, by="alice"), holds=(_HOLD,))
    for turns in _TURNS:
        await a.set_state(before)
        await _at_once(partial(a.update_state, lambda _: after, shown(after)), turns=turns)
        for reader in (a, b):
            expect(await reader.get_state(), before, after)  # the write may still come, as from a thread


# --- watches ----------------------------------------------------------------------------------------------------------


@needs("watch", "set_value")
async def a_watch_begins_with_the_state(a: Instance, b: Instance) -> None:
    """watch() yields the state at once, and goes on until it is closed."""
    for state in (OFF, ON):
        await a.set_state(state)
        async with watching(b) as watch:
            await watch.expect(state)


@needs("watch", "set_value")
async def a_watch_yields_the_last_state(a: Instance, b: Instance) -> None:
    """watch() yields the last state, to every watcher, however busy that is."""
    async with watching(a) as one, watching(b) as another, watching(b, is_busy=True) as busy:
        for states in ((OFF,), (ON,), (OFF, ON, OFF), (ON, OFF, ON)):
            for state in states:
                await a.set_state(state)
            for watch in (one, another, busy):
                await watch.expect(states[-1])


@needs("watch", "set_value")
async def a_cancelled_watch_ends(a: Instance, b: Instance) -> None:
    """watch() ends when it is cancelled."""
    for instance in (a, b):
        async with watching(instance) as watch:
            await watch.expect(OFF)
            if not await watch.cancel():
                raise Broken(None, "watch() goes on")


# --- workers ----------------------------------------------------------------------------------------------------------


@needs("get_reports")
async def a_worker_is_counted_while_it_watches(a: Instance, b: Instance) -> None:
    """watch(worker) counts the worker from before its first state is read until it ends, for all instances."""
    one, two = "host.1.one", "host.2.two"
    async with watching(a, one, is_busy=True) as watch:
        await watch.expect(OFF)
        await _expect_reports(a, {one: ""})
        await _expect_reports(b, {one: ""})
        async with watching(b, two) as other:
            await other.expect(OFF)
            await _expect_reports(b, {one: "", two: ""})
            await a.report(one, "busy")
        await _expect_reports(b, {one: "busy"})
    await _expect_reports(b, {})
    async with watching(b, one) as again:
        await again.expect(OFF)
        await _expect_reports(a, {one: ""})


@needs("get_reports")
async def the_last_report_of_each_worker_is_kept(a: Instance, b: Instance) -> None:
    """get_reports() has the last report of each worker that is counted, and no other."""
    one, two = "host.1.one", "host.2.two"
    await a.report(one, "busy")
    await _expect_reports(b, {})
    async with watching(a, one) as watch, watching(b, two) as other:
        await watch.expect(OFF)
        await other.expect(OFF)
        reports = {one: "", two: ""}
        for worker, text in ((two, "busy"), (one, "drained"), (two, "drained"), (one, "busy")):
            reports[worker] = text
            writer, reader = (a, b) if worker == one else (b, a)
            await writer.report(worker, text)
            await _expect_reports(reader, reports)


@needs("get_reports")
async def a_worker_that_is_not_counted_yet_reads_the_newest_state(a: Instance, b: Instance) -> None:
    """A worker that get_reports() does not have begins with a state that is no older than that answer."""
    for turns in _BEGINNINGS:
        worker = f"host.3.{turns}"
        async with watching(a, worker) as watch:
            for _ in range(turns):
                await checkpoint()
            await b.set_state(ON)
            reports = await b.get_reports()
            await watch.expect(ON)
            if worker not in reports:
                expect(watch.first, ON)
        await a.set_state(OFF)


SCENARIOS: tuple[Scenario, ...] = (
    reads_agree,
    a_refusal_is_repeated,
    a_written_switch_is_read,
    one_of_concurrent_writes_is_the_last,
    a_cancelled_write_is_whole_or_not_made,
    a_written_state_is_read_to_the_letter,
    an_update_returns_what_it_has_written,
    holds_are_kept_until_they_are_released,
    a_failed_change_leaves_the_state,
    no_concurrent_update_is_lost,
    a_cancelled_update_is_whole_or_not_made,
    a_watch_begins_with_the_state,
    a_watch_yields_the_last_state,
    a_cancelled_watch_ends,
    a_worker_is_counted_while_it_watches,
    the_last_report_of_each_worker_is_kept,
    a_worker_that_is_not_counted_yet_reads_the_newest_state,
)


def _with_hold(state: MaintenanceState, hold: Hold) -> MaintenanceState:
    return add_hold(state, hold, clock.now())


async def _expect_reads(reader: Instance, state: MaintenanceState) -> None:
    expect(await reader.get_state(), state)
    expect(await reader.get_value(), status_of(state, clock.now()).active)
    if reader.has("peek"):
        expect(await reader.peek(), state)


async def _expect_reports(reader: Instance, expected: dict[str, str]) -> None:
    """Compare the reports; one that is too many is given time to go, as a store may notice an end later."""
    with anyio.move_on_after(reader.patience):
        while (reports := await reader.get_reports()).items() > expected.items():  # noqa: ASYNC110 -- a store has no event
            await anyio.sleep(0.01)
    expect(reports, expected)


async def _at_once(*writes: Callable[[], Awaitable[object]], turns: int | None = None) -> None:
    """Make writes at once, and cancel them after so many turns of the event loop; None: wait for them."""
    errors: list[Broken] = []
    ended = 0

    async def make(write: Callable[[], Awaitable[object]]) -> None:
        nonlocal ended
        try:
            await write()
        except Broken as broken:
            if not group.cancel_scope.cancel_called:  # else it ends as it likes
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
