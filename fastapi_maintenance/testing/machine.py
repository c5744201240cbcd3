"""A state machine of Hypothesis: its rules are the steps of a check, what operators do to a backend."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial, wraps
from typing import Any

from anyio.from_thread import BlockingPortal
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from fastapi_maintenance._helpers import clock
from fastapi_maintenance.errors import NotSupportedError, ReadOnlyBackendError
from fastapi_maintenance.state import Hold, MaintenanceState, add_hold, switch
from fastapi_maintenance.testing.backends import BackendUnderTest, ChangeFailedError, write_at_once
from fastapi_maintenance.testing.model import KEEP, UPDATES, Model, Promise, Violation, Write, adding, shown, switching
from fastapi_maintenance.typing import DrainableStateBackend

__all__ = ["NAMES", "READINGS", "STEPS", "SWITCH", "Conformance", "MadeStep", "step"]

NAMES, SWITCH = ("a", "b"), (True, False)
READINGS = ("get_value", "get_state", "peek")
_AT_ONCE = ("aa", "ab", "ba", "bb", "aaa", "abab")  # who writes
_TURNS = (1, 2, 3, 4, 5, 10, 30, 100, 300, 1000)  # of the event loop, after which a write is cancelled

MadeStep = tuple[str, Mapping[str, Any]]
"""The name of a step that was made, and its arguments."""


STEPS: dict[str, tuple[Callable[..., None], Callable[[Any], object], Mapping[str, Sequence[Any]]]] = {}
"""Methods, whether each can be called now, and the options for each of its arguments, the simplest first."""


def step(
    is_possible: Callable[[Any], object] = lambda _: True, /, **options: Sequence[Any]
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make a rule of a method."""

    def decorate(make: Callable[..., None]) -> Callable[..., None]:
        name = make.__name__
        STEPS[name] = make, is_possible, options

        @wraps(make)
        def run(machine: Conformance, **drawn: object) -> None:
            machine.run(name, drawn)

        strategies = {argument: st.sampled_from(values) for argument, values in options.items()}
        return precondition(is_possible)(rule(**strategies)(run))  # type: ignore[arg-type, call-overload, no-any-return]  # no target

    return decorate


class Conformance(RuleBasedStateMachine):
    """The steps that are made, and the model that says what has to be seen; what is not seen raises a `Violation`.

    Which step can be made depends on nothing that a store says or takes its time for, so that the same choices are the
    same steps.
    """

    def __init__(self, tested: BackendUnderTest) -> None:
        super().__init__()
        self.tested = tested
        self.portal: BlockingPortal = tested.portal
        self.made: list[str] = []
        self.steps: list[MadeStep] = []
        self.reading = "get_state" if tested.is_detailed else "get_value"
        self.model: Model = Model(is_detailed=tested.is_detailed)
        self.count: int = 0

    @contextmanager
    def keeping(self) -> Iterator[None]:
        """Keep what breaks."""
        try:
            yield
        except Violation as violation:
            violation.made, violation.steps = tuple(self.made), tuple(self.steps)
            self.tested.broken = violation
            raise

    def run(self, name: str, drawn: Mapping[str, Any]) -> None:
        """Make a step, if it is possible."""
        make, is_possible, _ = STEPS[name]
        if is_possible(self):
            self.steps.append((name, drawn))
            with self.keeping():
                make(self, **drawn)

    def call(self, name: str, method: str, *args: object, text: str = "") -> Any:  # noqa: ANN401 -- what it returns
        """Call a method, as a step."""
        self.made.append(f"{name}: {method}({text})")
        return self.portal.call(self.tested[name].call, method, *args)

    def set_off(self, name: str) -> None:
        if self.tested.is_full:
            self.call(name, "update_state", lambda _: MaintenanceState(), text="active=False, and no holds")
        elif self.tested.is_writable:
            self.call(name, "set_value", False, text="False")  # noqa: FBT003 -- as the Protocol has it

    def look(self) -> None:
        """See what kind of backend it is, and what it says."""
        tested, a = self.tested, self.tested.a
        self.made = ["make_backend()"]
        a.check_kind()
        tested.is_detailed = a.has("get_state")
        self.made = ["a: set_value(False)"]
        tested.is_writable = not self.portal.call(a.refuses, ReadOnlyBackendError, "set_value", False)  # noqa: FBT003 -- as above
        tested.is_full = tested.is_writable and tested.is_detailed
        tested.is_bare = tested.is_writable and not tested.is_detailed
        for method in filter(a.has, READINGS):
            self.call("a", method)
        if tested.is_full and isinstance(a.backend, DrainableStateBackend):
            self.made.append("a: get_reports()")
            tested.is_drainable = not self.portal.call(a.refuses, NotSupportedError, "get_reports")

    @initialize()
    def the_switch_is_off(self) -> None:
        with self.keeping():
            self.set_off("a")
            if not self.tested.is_writable:
                value = self.call("a", self.reading)
                self.model.state = value if self.tested.is_detailed else MaintenanceState(active=value)

    def teardown(self) -> None:
        """Leave the switch off."""
        for name in NAMES:  # two that share nothing begin alike too
            with suppress(Violation):
                self.set_off(name)

    def read(self, name: str, method: str, *others: MaintenanceState, promise: Promise | None = None) -> None:
        seen = self.call(name, method)
        self.model.see(seen, *others, promise=promise)
        self.made[-1] += f" -> {shown(seen)}"

    @step(name=NAMES, method=READINGS)
    def somebody_reads(self, name: str, method: str) -> None:
        if self.tested.a.has(method):
            self.read(name, method)

    def write(self, name: str, write: Write, reader: str, *others: MaintenanceState) -> None:
        """Write, check what a change is given and what comes of it, and read."""
        given: list[MaintenanceState] = []

        def apply(state: MaintenanceState) -> MaintenanceState:
            given[:] = [state]
            return write.change(state)

        is_switch = write.method == "set_value"
        seen = self.call(name, write.method, write.argument if is_switch else apply, text=write.text)
        for state in given:
            self.model.see(state, *others, promise=Promise.CANCELLED if others else None, verb="finds")
        before, self.model.state = self.model.state, write.change(self.model.state)
        if is_switch:  # whether message and window go is left to the backend
            self.read(reader, self.reading, switch(before, active=write.argument))
        else:
            self.model.see(seen, promise=Promise.RESULT)
            self.read(reader, "get_state")

    @step(lambda machine: machine.tested.is_writable, name=NAMES, reader=NAMES, value=SWITCH)
    def an_operator_sets_the_switch(self, *, name: str, reader: str, value: bool) -> None:
        self.write(name, switching(value), reader)

    @step(lambda machine: machine.tested.is_full, name=NAMES, reader=NAMES, update=UPDATES)
    def an_operator_updates_the_state(self, name: str, reader: str, update: Write) -> None:
        self.write(name, update, reader)

    @step(lambda machine: not machine.tested.is_writable, name=NAMES, value=SWITCH)
    def an_operator_is_refused(self, *, name: str, value: bool) -> None:
        self.made.append(f"{name}: set_value({value})")
        if not self.portal.call(self.tested[name].refuses, ReadOnlyBackendError, "set_value", value):
            raise Violation(Promise.REFUSES, " does not raise ReadOnlyBackendError")

    @step(lambda machine: machine.tested.is_full, name=NAMES)
    def a_change_raises(self, name: str) -> None:
        def fail(_state: MaintenanceState) -> MaintenanceState:
            raise ChangeFailedError

        self.read(name, "get_state")
        self.tested.disturb(f"{name}: update_state(a change that raises)")
        try:
            self.call(name, "update_state", fail, text="a change that raises")
        except ChangeFailedError:
            self.read(name, "get_state", promise=Promise.RAISES)
        except Violation as violation:
            raise Violation(Promise.RAISES, violation.seen) from violation.__cause__
        else:
            raise Violation(Promise.RAISES, " does not raise it")

    def write_at_once(self, names: str, writes: Sequence[Write]) -> None:
        self.made.append("at once: " + ", ".join(f"{name}: {write}" for name, write in zip(names, writes, strict=True)))
        calls = [
            partial(self.tested[name].call, it.method, it.argument) for name, it in zip(names, writes, strict=True)
        ]
        self.portal.call(write_at_once, *calls)

    def new_hold(self) -> Hold:
        self.count += 1
        return Hold(id=f"new {self.count - 1}", active=True)

    @step(lambda machine: machine.tested.is_full, names=_AT_ONCE)
    def jobs_add_holds_at_once(self, names: str) -> None:
        new = [self.new_hold() for _ in names]
        self.write_at_once(names, [adding(hold) for hold in new])
        seen = self.call(names[0], "get_state")
        lost = [hold for hold in new if hold not in seen.holds]
        if lost:
            raise Violation(Promise.CONCURRENT, f" -> {shown(seen)}, without {' and '.join(map(shown, lost))}")
        for hold in filter(new.__contains__, seen.holds):  # in the order in which they were added
            self.model.state = add_hold(self.model.state, hold, clock.now())
        self.model.see(seen)

    @step(lambda machine: machine.tested.is_bare, names=_AT_ONCE, first=SWITCH, then=SWITCH)
    def operators_set_the_switch_at_once(self, *, names: str, first: bool, then: bool) -> None:
        self.write_at_once(names, [switching(then if place else first) for place in range(len(names))])
        self.model.state = MaintenanceState(active=first)
        self.read("a", "get_value", MaintenanceState(active=then), promise=Promise.CONCURRENT)  # either is the last
        self.read("b", "get_value", promise=Promise.CONCURRENT)

    @step(lambda machine: machine.tested.is_full, name=NAMES, reader=NAMES, turns=_TURNS, update=UPDATES)
    def an_update_is_cancelled(self, name: str, reader: str, turns: int, update: Write) -> None:
        self.cancel(name, reader, turns, update, KEEP)

    @step(lambda machine: machine.tested.is_bare, name=NAMES, reader=NAMES, turns=_TURNS, value=SWITCH)
    def setting_the_switch_is_cancelled(self, *, name: str, reader: str, turns: int, value: bool) -> None:
        self.cancel(name, reader, turns, switching(value), switching(self.model.state.active))

    def cancel(self, name: str, reader: str, turns: int, write: Write, nothing: Write) -> None:
        """Cancel a write after so many turns of the event loop, unless it has ended by then."""
        self.made.append(f"{name}: {write}")
        call = partial(self.tested[name].call, write.method, write.argument)
        is_done = self.portal.call(partial(write_at_once, call, turns=turns))
        before, after = self.model.state, write.change(self.model.state)
        self.model.state = after
        if is_done:  # before it was cancelled
            self.read(reader, self.reading)
            return
        self.made[-1] += f", cancelled after {turns} turn{'s' * (turns > 1)} of the event loop"
        self.tested.disturb(self.made[-1])
        self.read(reader, self.reading, before, promise=Promise.CANCELLED)
        if self.model.state is before:  # the other may still come, but not after another write
            self.write(reader, nothing, reader, after)
