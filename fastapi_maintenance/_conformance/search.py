"""The search for a breach of a promise, and then for fewer and plainer steps to it."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Concatenate, NoReturn

from anyio.from_thread import BlockingPortal
from typing_extensions import ParamSpec

from fastapi_maintenance._conformance.promises import Breach
from fastapi_maintenance._conformance.steps import Steps
from fastapi_maintenance._conformance.subject import Subject
from fastapi_maintenance.errors import PromiseBrokenError

__all__ = ["Call", "EnoughError", "Search", "Step", "to"]

_ENOUGH = 10.0  # seconds for which simpler steps are looked for, and as many again for fewer
_LEGEND = "a and b are the two backends that make_backend() returned."
_NOT_EACH_TIME = "It did not break when these steps were made again."

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


class EnoughError(BaseException):
    """A breach has been found, and simpler steps to it have been looked for long enough. Nothing else catches this."""


class Search:
    """What broke so far, by the simplest steps."""

    def __init__(self, portal: BlockingPortal, subject: Subject) -> None:
        self.portal = portal
        self.subject = subject
        self._found: tuple[PromiseBrokenError, Sequence[Call]] | None = None
        self._ends_at = float("inf")

    def stop_in_time(self) -> None:
        """Raise `EnoughError` when something has been found, and the time for simpler steps is over."""
        if time.monotonic() > self._ends_at:
            raise EnoughError

    def broke(self, breach: Breach, steps: Sequence[str], calls: Sequence[Call]) -> NoReturn:
        """Keep what broke, if there was nothing simpler, and raise it."""
        error = breach.after(steps)
        if self._found is None:
            self._ends_at = time.monotonic() + _ENOUGH
            self.subject.is_in_hurry = True
        if self._found is None or _size(error) < _size(self._found[0]):
            self._found = error, tuple(calls)
        raise error

    def look(self) -> None:
        """See what kind of backend it is; raises `PromiseBrokenError` where that is none."""
        steps: list[str] = []
        try:
            self.portal.call(self.subject.look, steps)
        except Breach as breach:
            raise breach.after(steps) from breach.__cause__

    def result(self) -> PromiseBrokenError | None:
        """Return what broke, after the fewest and plainest steps, None if nothing did."""
        if self._found is None:
            return None
        self._ends_at = time.monotonic() + _ENOUGH
        first, calls = self._found
        again = self._play(calls)
        error = first.but(_NOT_EACH_TIME) if again is None else self._simplified(again, calls)
        return error.but(_LEGEND) if any("b: " in step for step in error.steps) else error

    def _simplified(self, error: PromiseBrokenError, calls: Sequence[Call]) -> PromiseBrokenError:
        while True:
            before = calls
            error, calls = self._made_plainer(error, calls)
            error, calls = self._made_fewer(error, calls)
            if calls == before:
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
        for place in reversed(range(1, len(calls))):  # the first one is the beginning
            fewer = [*calls[:place], *calls[place + 1 :]]
            broken = self._play(fewer)
            if broken is not None and broken.promise == error.promise:
                error, calls = broken, fewer
        return error, calls

    def _play(self, calls: Sequence[Call]) -> PromiseBrokenError | None:
        """Make these steps, and return what broke; None also when the time is over."""
        if time.monotonic() > self._ends_at:
            return None
        steps = Steps(self.subject)
        try:
            for call in calls:
                self.portal.call(call.step, steps)
        except Breach as breach:
            return breach.after(steps.made)
        finally:
            self.portal.call(steps.leave)
        return None


def _size(error: PromiseBrokenError) -> tuple[int, int]:
    return len(error.steps), len(str(error))
