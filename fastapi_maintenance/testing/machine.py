"""A state machine of Hypothesis: its rules are the steps of a check, what operators and jobs do to a backend."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import replace
from datetime import datetime, timezone
from functools import partial, wraps
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from fastapi_maintenance._helpers import clock
from fastapi_maintenance._switch import holds
from fastapi_maintenance.control import maintenance_mode_off, maintenance_mode_on, set_maintenance_mode
from fastapi_maintenance.state import Hold, MaintenanceState, add_hold, release_hold, switch
from fastapi_maintenance.testing.backends import BackendUnderTest, ChangeFailedError, Watch, write_at_once
from fastapi_maintenance.testing.model import OFF, Model, Promise, Violation, shown
from fastapi_maintenance.typing import StateChange

__all__ = ["Conformance", "EnoughError"]

_PLACES = 10  # in a write, where it is cancelled
_MESSAGES = (None, "Back at ten", " Zurück 🚧\num „zehn“ \\ ✓ ", "", "Back at ten." * 25)
_PAST, _NEXT = datetime(2000, 1, 1, tzinfo=timezone.utc), datetime(2001, 1, 1, tzinfo=timezone.utc)
_FAR = datetime(9000, 1, 1, 0, 0, 0, 1, tzinfo=timezone.utc)
_WINDOWS = ((None, None), (None, _FAR), (_FAR, None), (_PAST, _FAR), (_PAST, _NEXT))  # none is close to now
_HOLDS = (
    Hold(id="1", active=True),
    Hold(id="2", active=False),
    Hold(id="3", active=True, message=_MESSAGES[2], expires_at=_FAR),
    Hold(id="4", active=True, expires_at=_PAST),
)
Write = tuple[str, str, Any, StateChange]
"""A method that writes, its argument as text, its argument, and what it makes of a state."""


def _update(text: str, change: StateChange) -> Write:
    return "update_state", text, change, change


def _setting(active: bool, message: str | None, window: tuple[datetime | None, datetime | None]) -> Write:  # noqa: FBT001 -- as drawn
    wanted = MaintenanceState(active=active, message=message, starts_at=window[0], ends_at=window[1])
    text = shown(wanted).removeprefix("MaintenanceState(").removesuffix(")")
    return _update(text, lambda state: replace(wanted, holds=state.holds))


def _adding(hold: Hold) -> Write:
    return _update(f"add {shown(hold)}", lambda state: add_hold(state, hold, clock.now()))


def _releasing(hold: Hold) -> Write:
    return _update(f"release hold {hold.id!r}", lambda state: release_hold(state, hold.id))


def _switching(value: bool) -> Write:  # noqa: FBT001 -- as drawn
    return "set_value", str(value), value, lambda state: replace(state, active=value)


# What stands first is the simplest to Hypothesis.
_names, _values, _messages = st.sampled_from("ab"), st.sampled_from([True, False]), st.sampled_from(_MESSAGES)
_holds, _places = st.sampled_from(_HOLDS), st.integers(0, _PLACES - 1)
_settings = st.builds(_setting, _values, _messages, st.sampled_from(_WINDOWS))
_updates = st.one_of(_settings, _settings, _holds.map(_adding), _holds.map(_releasing))
_writes = st.lists(st.tuples(_names, _values), min_size=2, max_size=4)


class EnoughError(BaseException):
    """Simpler steps were looked for long enough; Hypothesis lets it through."""


def _kept(make: Callable[..., None]) -> Callable[..., None]:
    """Keep what breaks in a step."""

    @wraps(make)
    def step(machine: Conformance, **drawn: object) -> None:
        began = time.monotonic()
        try:
            make(machine, **drawn)
        except Violation as violation:
            machine.tested.keep(violation, machine.made, time.monotonic() - began)
            raise

    return step


def _step(**drawn: st.SearchStrategy[Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    return lambda make: rule(**drawn)(_kept(make))  # type: ignore[call-overload]  # none of them is a target


class Conformance(RuleBasedStateMachine):
    """The steps that are made, and the model that says what has to be seen; what is not seen raises a `Violation`.

    Which step can be made depends on nothing that a store says or takes its time for, so that the same choices are the
    same steps.
    """

    def __init__(self, tested: BackendUnderTest) -> None:
        super().__init__()
        self.tested = tested
        self.made: list[str] = []
        self.jobs: list[tuple[str, Hold, AbstractAsyncContextManager[None]]] = []
        self.watches: list[tuple[str, Watch]] = []
        self.model = Model(is_detailed=tested.is_detailed)
        self.count = 0

    def call(self, name: str, method: str, *args: object, text: str = "") -> Any:  # noqa: ANN401 -- what it returns
        """Call a method, as a step."""
        self.made.append(f"{name}: {method}({text})")
        return self.tested.portal.call(self.tested[name].call, method, *args)

    def set_off(self, name: str) -> None:
        if self.tested.is_full:
            self.call(name, "update_state", lambda _: OFF, text="active=False, and no holds")
        elif self.tested.is_writable:
            self.call(name, "set_value", False, text="False")  # noqa: FBT003 -- as the Protocol has it

    @_kept
    def look(self) -> None:
        """See what kind of backend it is, what it says, and how long a write takes."""
        self.made = ["make_backend()"]
        self.tested.a.check_kind()
        self.made = ["a: set_value(False)"]
        self.tested.is_writable = not self.tested.portal.call(partial(self.tested.a.refuses, value=False))
        if self.tested.is_writable:
            write = partial(self.tested.a.call, "set_value", False)  # noqa: FBT003 -- as above
            _, self.tested.write_turns = self.tested.portal.call(write_at_once, write)
        for method in ("get_value", "get_state", "peek"):
            if self.tested.a.has(method):
                self.call("a", method)

    @initialize()
    @_kept
    def the_switch_is_off(self) -> None:
        if time.monotonic() > self.tested.ends_at:
            raise EnoughError
        self.set_off("a")
        if not self.tested.is_writable:
            value = self.call("a", self.tested.reading)
            self.model.state = value if self.tested.is_detailed else MaintenanceState(active=value)

    def teardown(self) -> None:
        """End what is open, and leave the switch off."""
        for name, _, block in self.jobs:
            with suppress(Violation):
                self.leave(name, block)
        for watch in self.watches:
            with suppress(Violation):
                self.end_watch(*watch)
        for name in ("a", "b"):  # two that share nothing begin alike too
            holds.forget(self.tested[name].backend)
            with suppress(Violation):
                self.set_off(name)

    @_step()
    def a_moment_passes(self) -> None:
        """Do nothing: it is the first of all rules, with which Hypothesis replaces a step that it cannot leave out."""

    def read(self, name: str, method: str, *others: MaintenanceState, promise: Promise | None = None) -> None:
        seen = self.call(name, method)
        self.model.see(seen, *others, promise=promise)
        self.made[-1] += f" -> {shown(seen)}"

    @_step(name=_names)
    def somebody_reads_the_switch(self, name: str) -> None:
        self.read(name, "get_value")

    @precondition(lambda self: self.tested.is_detailed)
    @_step(name=_names)
    def somebody_reads_the_state(self, name: str) -> None:
        self.read(name, "get_state")

    @precondition(lambda self: self.tested.a.has("peek"))
    @_step(name=_names)
    def somebody_peeks_at_the_state(self, name: str) -> None:
        self.read(name, "peek")

    def write(self, name: str, write: Write, reader: str, *others: MaintenanceState) -> None:
        """Write, check what a change is given and what comes of it, and read."""
        method, text, argument, change = write
        given: list[MaintenanceState] = []

        def apply(state: MaintenanceState) -> MaintenanceState:
            given[:] = [state]
            return change(state)

        seen = self.call(name, method, argument if method == "set_value" else apply, text=text)
        for state in given:
            self.model.see(state, *others, promise=Promise.CANCELLED if others else None, verb="finds")
        before, self.model.state = self.model.state, change(self.model.state)
        if method == "set_value":  # whether message and window go is left to the backend
            self.read(reader, self.tested.reading, switch(before, active=argument))
        else:
            self.model.see(seen, promise=Promise.RESULT)
            self.read(reader, "get_state")

    def read_after(self, write: Write, name: str, *others: MaintenanceState, promise: Promise) -> None:
        """Read what came of a write; the promise is not the one that is broken if the plain write goes wrong too."""
        try:
            self.read(name, self.tested.reading, *others, promise=promise)
        except Violation:
            self.write_plainly(name, write)
            raise

    def write_plainly(self, name: str, write: Write) -> None:
        """Make a write alone and to its end, to find out whether that breaks a promise too."""
        made = self.made[:]
        self.set_off(name)
        self.model.state = OFF
        self.write("a", write, name)
        self.made = made

    @precondition(lambda self: self.tested.is_writable)
    @_step(name=_names, reader=_names, value=_values)
    def an_operator_sets_the_switch(self, *, name: str, reader: str, value: bool) -> None:
        if self.tested.is_full or not self.jobs:
            self.write(name, _switching(value), reader)
        else:  # an operator of the process in which the jobs are
            self.made.append(f"a: set_maintenance_mode({value})")
            self.tested.portal.call(self.tested.a.answer, partial(set_maintenance_mode, value, self.tested.a.backend))
            self.model.state = replace(self.model.state, active=value)

    @precondition(lambda self: self.tested.is_full)
    @_step(name=_names, reader=_names, update=_updates)
    def an_operator_updates_the_state(self, name: str, reader: str, update: Write) -> None:
        self.write(name, update, reader)

    @precondition(lambda self: not self.tested.is_writable)
    @_step(name=_names, value=_values)
    def an_operator_is_refused(self, *, name: str, value: bool) -> None:
        self.made.append(f"{name}: set_value({value})")
        if not self.tested.portal.call(partial(self.tested[name].refuses, value=value)):
            raise Violation(Promise.REFUSES, " does not raise ReadOnlyBackendError")

    @precondition(lambda self: self.tested.is_full)
    @_step(name=_names)
    def a_change_raises(self, name: str) -> None:
        def fail(_state: MaintenanceState) -> MaintenanceState:
            raise ChangeFailedError

        self.read(name, "get_state")
        self.tested.last_disturbance = f"{name}: update_state(a change that raises)"
        try:
            self.call(name, "update_state", fail, text="a change that raises")
        except ChangeFailedError:
            self.read(name, "get_state", promise=Promise.RAISES)
        except Violation as violation:
            raise Violation(Promise.RAISES, violation.seen) from violation.__cause__
        else:
            raise Violation(Promise.RAISES, " does not raise it")

    def write_at_once(self, writes: list[tuple[str, Write]]) -> None:
        self.made.append("at once: " + ", ".join(f"{name}: {method}({text})" for name, (method, text, *_) in writes))
        calls = [partial(self.tested[name].call, method, argument) for name, (method, _, argument, _) in writes]
        self.tested.portal.call(write_at_once, *calls)

    @precondition(lambda self: self.tested.is_full)
    @_step(drawn=_writes)
    def jobs_add_holds_at_once(self, drawn: list[tuple[str, bool]]) -> None:
        new = [Hold(id=f"new {self.count + place}", active=active) for place, (_, active) in enumerate(drawn)]
        self.count += len(new)
        self.write_at_once([(name, _adding(hold)) for (name, _), hold in zip(drawn, new, strict=True)])
        name = drawn[0][0]
        seen = self.call(name, "get_state")
        lost = [hold for hold in new if hold not in seen.holds]
        if lost:
            self.write_plainly(name, _adding(lost[0]))
            raise Violation(Promise.CONCURRENT, f" -> {shown(seen)}, without {' and '.join(map(shown, lost))}")
        for hold in filter(new.__contains__, seen.holds):  # in the order in which they were added
            self.model.state = add_hold(self.model.state, hold, clock.now())
        self.model.see(seen)

    @precondition(lambda self: self.tested.is_bare and not self.jobs)
    @_step(drawn=_writes)
    def operators_set_the_switch_at_once(self, drawn: list[tuple[str, bool]]) -> None:
        writes = [(name, _switching(value)) for name, value in drawn]
        self.write_at_once(writes)
        self.model.state, *others = (MaintenanceState(active=value) for _, value in drawn)  # one of them is the last
        for reader in ("a", "b"):
            self.read_after(writes[0][1], reader, *others, promise=Promise.CONCURRENT)
            others = []

    @precondition(lambda self: self.tested.is_full or (self.tested.is_bare and not self.jobs))
    @_step(name=_names, reader=_names, place=_places, update=_updates, value=_values)
    def writing_is_cancelled(self, *, name: str, reader: str, place: int, update: Write, value: bool) -> None:
        write = method, text, argument, change = update if self.tested.is_full else _switching(value)
        turns = 1 + place * self.tested.write_turns // _PLACES
        self.made.append(f"{name}: {method}({text})")
        call = partial(self.tested[name].call, method, argument)
        is_done, _ = self.tested.portal.call(partial(write_at_once, call, turns=turns))
        before, after = self.model.state, change(self.model.state)
        self.model.state = after
        if is_done:  # before it was cancelled
            self.read(reader, self.tested.reading)
            return
        self.made[-1] += f", cancelled after {turns} turn{'s' * (turns > 1)} of the event loop"
        self.tested.last_disturbance = self.made[-1]
        self.read_after(write, reader, before, promise=Promise.CANCELLED)
        if self.model.state is before:  # the other may still come, but not after another write
            nothing = _update("no change", lambda state: state) if self.tested.is_full else _switching(before.active)
            self.write(reader, nothing, reader, after)

    @precondition(lambda self: self.tested.is_writable and len(self.jobs) < 2)  # noqa: PLR2004 -- enough to overlap
    @_step(name=_names, active=_values, message=_messages)
    def some_job_begins(self, *, name: str, active: bool, message: str | None) -> None:
        if self.tested.is_bare:  # two instances know nothing of each other's jobs, so all of them are of one
            name, message = "a", None
        self.count += 1
        hold = Hold(id=f"job {self.count}", active=active, message=message if active else None)
        text = "" if hold.message is None else f"message={hold.message!r}"
        self.made.append(f"{name}: {hold.id} enters maintenance_mode_{'on' if active else 'off'}({text})")
        enter = partial(maintenance_mode_on, message=hold.message) if active else maintenance_mode_off
        block = enter(self.tested[name].backend)
        self.tested.portal.call(self.tested[name].answer, block.__aenter__)
        self.jobs.append((name, hold, block))
        self.model.state = add_hold(self.model.state, hold, clock.now())

    @precondition(lambda self: self.jobs)
    @_step(place=_places)
    def some_job_ends(self, place: int) -> None:
        name, hold, block = self.jobs.pop(place % len(self.jobs))
        self.made.append(f"{name}: {hold.id} leaves its block")
        self.leave(name, block)
        self.model.state = release_hold(self.model.state, hold.id)

    def leave(self, name: str, block: AbstractAsyncContextManager[None]) -> None:
        self.tested.portal.call(self.tested[name].answer, partial(block.__aexit__, None, None, None))

    def begin_watch(self, name: str, called: str, *, is_busy: bool) -> Watch:
        self.made.append(f"{name}: {called}")
        watch = self.tested.portal.call(partial(Watch, self.tested[name], is_busy=is_busy))
        self.tested.portal.start_task_soon(watch.run)
        return watch

    def learn(self, watch: Watch) -> None:
        began = time.monotonic()
        self.made[-1] += self.tested.portal.call(watch.learn, self.model, self.tested.news_patience())
        self.tested.slowest_news = max(self.tested.slowest_news or 0.0, time.monotonic() - began)

    def end_watch(self, name: str, watch: Watch, called: str = "watch()") -> None:
        self.made.append(f"{name}: {called} is cancelled")
        self.tested.portal.call(watch.end, self.tested.news_patience())

    @precondition(lambda self: self.tested.a.has("watch") and not self.watches)
    @_step(name=_names, is_busy=st.booleans())
    def somebody_begins_to_watch(self, *, name: str, is_busy: bool) -> None:
        watch = self.begin_watch(name, "watch()", is_busy=is_busy)
        self.watches.append((name, watch))
        self.learn(watch)

    @precondition(lambda self: self.watches)
    @_step()
    def the_watch_goes_on(self) -> None:
        name, watch = self.watches[0]
        self.made.append(f"{name}: watch() goes on")
        self.learn(watch)

    @precondition(lambda self: self.watches)
    @_step()
    def the_watch_is_cancelled(self) -> None:
        self.end_watch(*self.watches.pop())

    @precondition(lambda self: self.watches)
    @_step(name=_names)
    def somebody_watches_for_a_moment(self, name: str) -> None:
        watch = self.begin_watch(name, "another watch()", is_busy=False)
        try:
            self.learn(watch)
        finally:
            self.end_watch(name, watch, "the other watch()")
