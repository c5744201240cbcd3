"""The search for a violation of a promise, and then for fewer and plainer steps to it."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Concatenate, NoReturn

from anyio.from_thread import BlockingPortal
from typing_extensions import ParamSpec

from fastapi_maintenance.errors import PromiseBrokenError
from fastapi_maintenance.testing.backends import BackendUnderTest
from fastapi_maintenance.testing.model import Violation
from fastapi_maintenance.testing.steps import Steps

__all__ = ["Call", "Search", "Step", "to"]

_ENOUGH = 10.0  # seconds for which fewer and plainer steps are looked for
_TRIES = 20
_LEGEND = "a and b are the two backends that make_backend() returned; they have to be on one switch."
_LEFT_SO = "A step of an earlier series may have left it so: "
_NOT_EACH_TIME = "It did not break when these steps were made again a few times."

_P = ParamSpec("_P")
Step = Callable[[Steps], Awaitable[None]]


def to(method: Callable[Concatenate[Steps, _P], Awaitable[None]], *args: _P.args, **kwargs: _P.kwargs) -> Step:
    """Return the step that this method of `Steps` makes with these arguments."""
    return lambda steps: method(steps, *args, **kwargs)


@dataclass(frozen=True, slots=True)
class Call:
    """A step, and what can be done in its place to see whether that does it too, the plainest first."""

    step: Step
    instead: tuple[tuple[Step, ...], ...] = ()


class Search:
    """What broke, and by which steps."""

    def __init__(self, portal: BlockingPortal, tested: BackendUnderTest) -> None:
        self.portal = portal
        self.tested = tested
        self._found: tuple[PromiseBrokenError, Sequence[Call]] | None = None
        self._before: str | None = None
        self._ends_at = 0.0

    def broke(self, violation: Violation, steps: Sequence[str], calls: Sequence[Call]) -> NoReturn:
        """Keep what broke first, and raise it."""
        error = violation.after(steps)
        if self._found is None:
            self._found = error, tuple(calls)
            self._before = self.tested.last_disturbance
            self.tested.is_in_hurry = True
        raise error

    def look(self) -> None:
        """See what kind of backend it is; raises `PromiseBrokenError` where that is none."""
        steps: list[str] = []
        try:
            self.portal.call(self.tested.look, steps)
        except Violation as violation:
            raise violation.after(steps) from violation.__cause__

    def result(self) -> PromiseBrokenError | None:
        """Return what broke, after the fewest and plainest steps, None if nothing did."""
        if self._found is None:
            return None
        self._ends_at = time.monotonic() + _ENOUGH
        first, calls = self._found
        again = next(filter(None, (self._play(calls) for _ in range(_TRIES))), None)
        error = first.but(_NOT_EACH_TIME) if again is None else self._simplified(again, calls)
        if isinstance(error.__cause__, TimeoutError) and self._before is not None and self._before not in error.steps:
            error = error.but(_LEFT_SO + self._before)
        return error.but(_LEGEND) if any("b: " in step for step in error.steps) else error

    def _simplified(self, error: PromiseBrokenError, calls: Sequence[Call]) -> PromiseBrokenError:
        before: Sequence[Call] = ()
        while calls != before:
            before = calls
            error, calls = self._made_fewer(error, calls)
            error, calls = self._made_plainer(error, calls)
        return error

    def _made_plainer(
        self, error: PromiseBrokenError, calls: Sequence[Call]
    ) -> tuple[PromiseBrokenError, Sequence[Call]]:
        for place in reversed(range(len(calls))):
            instead = calls[place].instead
            for rank, steps in enumerate(instead):
                others = [*calls[:place], *(Call(step, instead[:rank]) for step in steps), *calls[place + 1 :]]
                broken = self._play(others)
                if broken is not None:
                    error, calls = broken, others
                    break
        return error, calls

    def _made_fewer(
        self, error: PromiseBrokenError, calls: Sequence[Call]
    ) -> tuple[PromiseBrokenError, Sequence[Call]]:
        size = len(calls)
        while size := size // 2:
            for place in reversed(range(1, len(calls), size)):  # the first one is the beginning
                fewer = [*calls[:place], *calls[place + size :]]
                broken = self._play(fewer)
                if broken is not None and broken.promise == error.promise:
                    error, calls = broken, fewer
        return error, calls

    def _play(self, calls: Sequence[Call]) -> PromiseBrokenError | None:
        """Make these steps, and return what broke; None also when the time is over."""
        if time.monotonic() > self._ends_at:
            return None
        steps = Steps(self.tested)
        broken: PromiseBrokenError | None = None
        try:
            for call in calls:
                self.portal.call(call.step, steps)
        except Violation as violation:
            broken = violation.after(steps.made)
        try:
            self.portal.call(steps.leave)
        except Violation as violation:
            broken = broken or violation.after(steps.made)
        return broken
