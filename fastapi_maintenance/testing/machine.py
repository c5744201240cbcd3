"""A state machine that makes steps at random."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from fastapi_maintenance.state import Hold
from fastapi_maintenance.testing.backends import PLACES, BackendUnderTest
from fastapi_maintenance.testing.model import (
    HOLDS,
    MESSAGES,
    WINDOWS,
    Change,
    Violation,
    added,
    drawn,
    released,
    switched,
)
from fastapi_maintenance.testing.search import Call, Search, Step, to
from fastapi_maintenance.testing.steps import Steps

__all__ = ["MOST_STEPS", "Conformance"]

MOST_STEPS = 20
_JOBS = 2
_PLAIN = switched(active=True)
_PLAIN_WRITES = [("a", True), ("a", True)], [("a", True), ("b", True)]

_names = st.sampled_from(["a", "b"])
_values = st.sampled_from([True, False])
_writes = st.lists(st.tuples(_names, _values), min_size=2, max_size=4)
_messages = st.sampled_from(MESSAGES)
_settings_of_switch = st.builds(drawn, _values, _messages, st.sampled_from(WINDOWS), st.just(None))
_changes = st.one_of(
    _settings_of_switch,
    _settings_of_switch,  # as often as the others together
    st.sampled_from(HOLDS).map(lambda hold: drawn(True, None, WINDOWS[0], hold)),  # noqa: FBT003 -- it does not count
    st.sampled_from(HOLDS).map(released),
)
_places = st.integers(0, PLACES - 1)
"""One of as many as there are, whatever they are."""


class Conformance(RuleBasedStateMachine):
    """The rules: which step can be made when.

    That depends on nothing that a store says or takes its time for, so that the same choices are the same steps.
    """

    search: Search

    def __init__(self) -> None:
        super().__init__()
        self.steps: Steps = Steps(self.tested)
        self.calls: list[Call] = []

    @property
    def tested(self) -> BackendUnderTest:
        """What is under check."""
        return self.search.tested

    @property
    def is_bare(self) -> bool:
        """Whether there is nothing but a switch that can be written."""
        return self.tested.is_writable and not self.tested.is_detailed

    @property
    def is_full(self) -> bool:
        """Whether whole states can be written."""
        return self.tested.is_writable and self.tested.is_detailed

    def make(self, step: Step, *instead: tuple[Step, ...]) -> None:
        """Make a step on the event loop."""
        self.calls.append(Call(step, instead))
        self._take(step)

    def teardown(self) -> None:
        """Leave."""
        self._take(Steps.leave)

    def _take(self, step: Step) -> None:
        try:
            self.search.portal.call(step, self.steps)
        except Violation as violation:
            self.search.broke(violation, self.steps.made, self.calls)

    @initialize()
    def begins(self) -> None:
        self.make(Steps.begin)

    @precondition(lambda self: self.is_full)
    @rule(name=_names, value=_values)
    def sets_value(self, *, name: str, value: bool) -> None:
        update = to(Steps.update, "a", switched(active=value))
        tries = [(to(Steps.set_value, "a", value=tried),) for tried in (True, value)]
        self.make(to(Steps.set_value, name, value=value), (update,), *tries)

    @precondition(lambda self: self.is_bare)
    @rule(name=_names, value=_values, reader=_names, place=_places)
    def sets_bare_value(self, *, name: str, value: bool, reader: str, place: int) -> None:
        tries = [(to(Steps.set_value, "a", value=tried),) for tried in (True, value)]
        self.make(to(Steps.set_value, name, value=value), (to(Steps.read, name, "get_value"),), *tries)
        self.perhaps_read(reader, place)

    @precondition(lambda self: not self.tested.is_writable)
    @rule(name=_names, value=_values)
    def is_refused(self, *, name: str, value: bool) -> None:
        self.make(to(Steps.be_refused, name, value=value), (to(Steps.be_refused, "a", value=True),))

    @precondition(lambda self: self.is_full)
    @rule(name=_names, change=_changes, reader=_names, place=_places)
    def updates(self, name: str, change: Change, reader: str, place: int) -> None:
        tries = [("a", plain) for plain in (*change.plainer, change)]
        self.make(to(Steps.update, name, change), *((to(Steps.update, *each),) for each in tries))
        self.perhaps_read(reader, place)

    @precondition(lambda self: self.is_full)
    @rule(name=_names)
    def fails_to_change(self, name: str) -> None:
        read = to(Steps.read, "a", "get_state")
        self.make(to(Steps.fail_to_change, name), (read,), (to(Steps.fail_to_change, "a"),))

    @rule(name=_names, place=_places)
    def perhaps_reads(self, name: str, place: int) -> None:
        self.perhaps_read(name, place)

    def perhaps_read(self, name: str, place: int) -> None:
        """Read in one of the ways that there are, or do not."""
        readings = [*self.tested.readings(), None]
        method = readings[place % len(readings)]
        if method is not None:
            tries = ("a", "get_value"), ("a", method), (name, "get_value")
            self.make(to(Steps.read, name, method), *((to(Steps.read, *each),) for each in tries))

    @precondition(lambda self: self.is_full)
    @rule(writes=_writes)
    def update_at_once(self, writes: list[tuple[str, bool]]) -> None:
        holds = [Hold(id=str(number), active=active) for number, (_, active) in enumerate(writes, start=1)]
        read = to(Steps.read, "a", "get_state")
        self.make(
            to(Steps.update_at_once, writes),
            (to(Steps.update, "a", _PLAIN), read),
            (to(Steps.update, "a", added(HOLDS[0])), read),
            (*(to(Steps.update, "a", added(replace(hold, active=True))) for hold in holds), read),
            (*(to(Steps.update, "a", added(hold)) for hold in holds), read),
            (
                *(to(Steps.update, name, added(hold)) for (name, _), hold in zip(writes, holds, strict=True)),
                *(to(Steps.read, name, "get_state") for name in ("a", "b")),
            ),
            *((to(Steps.update_at_once, tried),) for tried in _PLAIN_WRITES),
        )

    @precondition(lambda self: self.is_bare and not self.steps.jobs)
    @rule(writes=_writes)
    def set_at_once(self, writes: list[tuple[str, bool]]) -> None:
        self.make(
            to(Steps.set_at_once, writes),
            (to(Steps.set_value, "a", value=True), to(Steps.read, "a", "get_value")),
            (to(Steps.set_value, "a", value=True), to(Steps.read, "b", "get_value")),
            (
                *(to(Steps.set_value, name, value=value) for name, value in writes),
                *(to(Steps.read, name, "get_value") for name in ("a", "b")),
            ),
            *((to(Steps.set_at_once, tried),) for tried in _PLAIN_WRITES),
        )

    @precondition(lambda self: self.is_full)
    @rule(name=_names, reader=_names, place=_places, change=_changes)
    def cancels_update(self, name: str, reader: str, place: int, change: Change) -> None:
        read = to(Steps.read, "a", "get_state")
        tries = [("a", "a", where, plain) for plain in (*change.plainer, change) for where in (0, place)]
        self.make(
            to(Steps.cancel_update, name, reader, place, change),
            *((to(Steps.update, "a", plain), read) for plain in (*change.plainer, change)),
            (to(Steps.update, name, change), to(Steps.read, reader, "get_state")),
            *((to(Steps.cancel_update, *each),) for each in tries),
        )

    @precondition(lambda self: self.is_bare and not self.steps.jobs)
    @rule(name=_names, reader=_names, place=_places, value=_values)
    def cancels_set(self, *, name: str, reader: str, place: int, value: bool) -> None:
        tries = [(tried, where) for tried in (True, value) for where in (0, place)]
        self.make(
            to(Steps.cancel_set, name, reader, place, value=value),
            (to(Steps.read, name, "get_value"),),
            (to(Steps.set_value, "a", value=value), to(Steps.read, "a", "get_value")),
            (to(Steps.set_value, name, value=value), to(Steps.read, reader, "get_value")),
            *((to(Steps.cancel_set, "a", "a", where, value=tried),) for tried, where in tries),
        )

    @precondition(lambda self: self.is_full and len(self.steps.jobs) < _JOBS)
    @rule(name=_names, active=_values, message=_messages)
    def job_begins(self, *, name: str, active: bool, message: str | None) -> None:
        self.make(
            to(Steps.begin_job, name, active=active, message=message),
            (to(Steps.update, "a", _PLAIN),),
            (to(Steps.update, "a", added(HOLDS[0])),),
            (to(Steps.update, "a", added(Hold(id="1", active=active))),),
            (to(Steps.begin_job, "a", active=active, message=None),),
        )

    @precondition(lambda self: self.is_bare and len(self.steps.jobs) < _JOBS)
    @rule(active=_values)
    def bare_job_begins(self, *, active: bool) -> None:
        """Two instances with nothing but a switch know nothing of each other's jobs, so all of them are of one."""
        set_value = to(Steps.set_value, "a", value=active)
        self.make(to(Steps.begin_job, "a", active=active, message=None), (set_value,))

    @precondition(lambda self: self.steps.jobs)
    @rule(place=_places)
    def job_ends(self, place: int) -> None:
        plain = to(Steps.update, "a", _PLAIN) if self.is_full else to(Steps.set_value, "a", value=True)
        self.make(to(Steps.end_job, place), (plain,), (to(Steps.end_job, 0),))

    @precondition(lambda self: self.tested.has("watch") and self.steps.watcher is None)
    @rule(name=_names, is_busy=st.booleans())
    def watch_begins(self, *, name: str, is_busy: bool) -> None:
        tries = [(to(Steps.watch, "a", is_busy=tried),) for tried in (False, is_busy)]
        self.make(to(Steps.watch, name, is_busy=is_busy), *tries)

    @precondition(lambda self: self.steps.watcher is not None)
    @rule(name=_names, place=_places)
    def watch_goes_on(self, *, name: str, place: int) -> None:
        self.make(Steps.watch_on)
        if place == PLACES - 1:  # now and then
            self.make(to(Steps.watch_beside, name), (to(Steps.watch_beside, "a"),))
