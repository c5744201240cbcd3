"""The search for steps that break a promise: Hypothesis chooses them; what breaks is made again with simpler ones."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import chain

from hypothesis import HealthCheck, Phase, Verbosity, settings
from hypothesis.errors import Flaky
from hypothesis.stateful import run_state_machine_as_test

from fastapi_maintenance.errors import PromiseBrokenError
from fastapi_maintenance.testing.backends import BackendUnderTest
from fastapi_maintenance.testing.machine import NAMES, READINGS, STEPS, SWITCH, MadeStep
from fastapi_maintenance.testing.model import UPDATES, Promise, Violation
from fastapi_maintenance.testing.watching import WatchedConformance

__all__ = ["search"]

_ENOUGH = 8.0  # seconds for which simpler steps are looked for
_RANK = list(Promise)


def search(tested: BackendUnderTest, max_examples: int) -> PromiseBrokenError | None:
    """Make steps, the same ones each time, and return what broke by the simplest of them."""

    def make(steps: Sequence[MadeStep]) -> Violation | None:
        before, machine = tested.broken, WatchedConformance(tested)
        with suppress(Violation):
            machine.the_switch_is_off()
            for name, drawn in steps:
                machine.run(name, drawn)
        machine.teardown()
        return None if tested.broken is before else tested.broken

    first = WatchedConformance(tested)
    try:
        first.look()
    except Violation as violation:
        violation.made = tuple(first.made)
        return violation.error()
    if not any(map(make, _plain_series(tested))):
        _make_at_random(tested, max_examples)
    if tested.broken is None:
        return None
    is_flaky = make(tested.broken.steps) is None
    found = _simplify(tested.broken, make)
    error = found.error()
    if isinstance(error.__cause__, TimeoutError) and tested.disturbance not in (None, *error.steps):
        error = error.but(f"A step of an earlier series may have left it so: {tested.disturbance}")
    elif is_flaky:
        error = error.but("It did not break when these steps were made again.")
    if any("b: " in step for step in error.steps):
        error = error.but("a and b are the two backends that make_backend() returned; they have to be on one switch.")
    return error


def _plain_series(tested: BackendUnderTest) -> Iterator[Sequence[MadeStep]]:
    """Yield each write, followed by each way to read; then what watchers do, and workers."""
    reads = [_simplest("somebody_reads", name=name, method=method) for name in NAMES for method in READINGS]
    switches = [_simplest("an_operator_sets_the_switch", reader="b", value=value) for value in SWITCH]
    updates = [_simplest("an_operator_updates_the_state", reader="b", update=update) for update in UPDATES]
    for write in switches + updates * tested.is_full:
        yield [write, *reads]
    yield updates  # one after the other
    begin = [_simplest("somebody_begins_to_watch", is_busy=is_busy) for is_busy in (True, False)]
    learn = [_simplest("some_watch_goes_on", place=place) for place in (0, 1)]
    end = _simplest("some_watch_is_cancelled", reader="b")
    yield [*begin, switches[0], *learn, end, switches[1], *learn]
    counted = _simplest("somebody_begins_to_watch", is_counted=True, reader="b")
    reports = [
        _simplest("some_worker_reports", place=place, text=text, reader="b")
        for place, text in ((1, "busy"), (0, "busy"), (0, "drained"))
    ]
    yield [counted, counted, *reports, end, counted]


def _simplest(name: str, /, **drawn: object) -> MadeStep:
    """Return a step with the simplest arguments but for these."""
    return name, {argument: options[0] for argument, options in STEPS[name][2].items()} | drawn


def _make_at_random(tested: BackendUnderTest, max_examples: int) -> None:
    chosen = settings(
        max_examples=max_examples,
        stateful_step_count=20,
        deadline=None,  # a store takes its time
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        print_blob=False,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
        verbosity=Verbosity.quiet,
    )
    with suppress(Flaky, Violation):
        run_state_machine_as_test(lambda: WatchedConformance(tested), settings=chosen)  # type: ignore[arg-type]  # no class


def _simplify(found: Violation, make: Callable[[Sequence[MadeStep]], Violation | None]) -> Violation:
    """Make ever simpler steps, for some seconds; keep those with which this promise breaks, or a more basic one."""
    ends_at = time.monotonic() + _ENOUGH

    def now() -> tuple[MadeStep, ...]:
        return found.steps

    for steps in chain(_fewer(now), _simpler(now), _fewer(now)):
        broken = make(steps) if time.monotonic() < ends_at else None
        if broken is not None and _RANK.index(broken.promise) <= _RANK.index(found.promise):
            found = broken
    return found


def _fewer(now: Callable[[], tuple[MadeStep, ...]]) -> Iterator[Sequence[MadeStep]]:
    """Leave out some of the steps as they are now: all, half of them, and so on down to each alone."""
    size = len(now())
    while size > 0:
        for end in range(len(now()), 0, -size):
            yield now()[: max(0, end - size)] + now()[end:]
        size //= 2


def _simpler(now: Callable[[], tuple[MadeStep, ...]]) -> Iterator[Sequence[MadeStep]]:
    """Replace each argument of the steps as they are now with simpler ones, the simplest first."""
    for place in reversed(range(len(now()))):
        for argument, options in STEPS[now()[place][0]][2].items() if place < len(now()) else ():
            for option in options:
                name, drawn = now()[place] if place < len(now()) else ("", {})
                if options.index(option) < options.index(drawn.get(argument, options[0])):
                    yield (*now()[:place], (name, {**drawn, argument: option}), *now()[place + 1 :])
