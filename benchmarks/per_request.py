"""What does a request cost, off and on? In process, without a server or a client: the app itself is called.

The variants take turns, block by block, for many rounds. Each is compared with its base within a round, and the median
of the rounds counts. Times are of the processor, in microseconds a request.
"""

from __future__ import annotations

import itertools
import json
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from typing import Any, NamedTuple

from tables import print_table
from variants import OURS, PEER_OF, PEERS, VARIANTS, base_of
from workers import run_worker, stores

_ROUTES = (10, 100, 1000)
_ROUNDS, _QUICK_ROUNDS = 11, 5
_BLOCK = 1e7  # nanoseconds, about
_SETTLED_AFTER = 3.0  # seconds; then this library trusts a file's time to tell that nothing was written since

_PEERS = tuple(itertools.chain(*PEERS.values()))
_OPEN = ("plain", "nothing", *(f"plain of {peer}" for peer in PEERS))
_LIMITS = ("bare 503", "response 503", *(f"bare 503 of {peer}" for peer in PEERS))
_PASSING = ("exempt", "forced off", "404")
_TABLES = {
    "Off, a middleware that does nothing for comparison": (False, ("nothing", *OURS), ("alone",), ("more",)),
    "Off, the plain app for comparison": (False, (*_OPEN, *OURS, *_PEERS), ("first", "last"), ("us", "more")),
    "Blocked, a bare 503 for comparison": (True, (*_LIMITS, *OURS, *_PEERS), ("first", "last"), ("us", "times")),
    "Passing during maintenance": (True, ("memory", *_PEERS), _PASSING, ("us", "more")),
}
"""Each title, whether maintenance is on, the variants, the scenarios, and which figures are shown."""

_FORMS = {"us": "{:.2f}", "more": "{:+.2f}", "times": "{:.2f}x"}


class Cell(NamedTuple):
    """One thing to be measured."""

    variant: str
    routes: int
    scenario: str
    on: bool

    @property
    def expected(self) -> int:
        """The status that is right."""
        if self.scenario == "404":
            return 404
        return 503 if self.on and self.scenario in {"first", "last"} else 200

    @property
    def base(self) -> Cell:
        """What it is compared with, in the same environment."""
        if self.scenario == "alone":
            return self._replace(variant="nothing")
        blocked = self.expected == 503  # noqa: PLR2004 -- a status
        return self._replace(variant=base_of(self.variant, on=blocked), on=blocked)


def row_of(name: str, scenarios: Iterable[str], *, on: bool) -> list[Cell]:
    """Return the cells of a variant in a table."""
    return [Cell(name, routes, scenario, on) for routes, scenario in itertools.product(_ROUTES, scenarios)]


class Workers:
    """A worker for each peer, and the nanoseconds that it found for each cell, one number for each round."""

    def __init__(self, pythons: Mapping[str, str], stack: ExitStack) -> None:
        self._processes = {}
        env, pipes = stack.enter_context(stores()), {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        for peer, python in pythons.items():
            self._processes[peer] = stack.enter_context(run_worker(python, env=env, **pipes))
        self.times: dict[Cell, list[float]] = defaultdict(list)
        self.wrong: dict[Cell, int] = {}

    def ask(self, cell: Cell) -> None:
        """Measure a cell once more."""
        known = self.times[cell][-1] if self.times[cell] else None
        requests = 50 if known is None else round(min(4000, max(20, _BLOCK / known)))
        process = self._processes[PEER_OF[cell.variant]]
        assert process.stdout is not None
        print(json.dumps({**cell._asdict(), "requests": requests}), file=process.stdin, flush=True)
        answer = json.loads(process.stdout.readline())
        if answer["status"] != cell.expected:
            self.wrong[cell] = answer["status"]
        self.times[cell].append(answer["ns"] or 1e6)

    def figures(self, cell: Cell) -> dict[str, float]:
        """Return microseconds a request, how many more and how many times as many as its base takes; medians."""
        if cell in self.wrong or cell not in self.times:
            return {}
        pairs = list(zip(self.times[cell], self.times[cell.base], strict=True))
        return {
            "us": statistics.median(self.times[cell]) / 1000,
            "more": statistics.median(one - base for one, base in pairs) / 1000,
            "times": statistics.median(one / base for one, base in pairs),
        }


def measure(pythons: Mapping[str, str], *, quick: bool) -> list[dict[str, Any]]:
    """Measure all cells, print tables, and return the figures; if `quick`, of this library the memory alone."""
    left_out = set(OURS) - {"memory"} if quick else set()
    measured = {name for peer in pythons for name in VARIANTS[peer]} - left_out
    chosen = [
        cell
        for on, names, scenarios, _ in _TABLES.values()
        for name in names
        if name in measured
        for cell in row_of(name, scenarios, on=on)
    ]
    with ExitStack() as stack:
        workers = Workers(pythons, stack)
        every = list(dict.fromkeys([*chosen, *(cell.base for cell in chosen)]))
        for number in range((_QUICK_ROUNDS if quick else _ROUNDS) + 1):
            for cell in every:
                workers.ask(cell)
            print(f"round {number}", flush=True, file=sys.stderr)
            if number == 0:  # which warms up
                time.sleep(_SETTLED_AFTER)
    for times in workers.times.values():
        del times[0]
    print_tables(workers)
    return [{**cell._asdict(), **workers.figures(cell)} for cell in chosen]


def print_tables(workers: Workers) -> None:
    """Print what was measured, and what answered wrong, of which no figure is shown."""
    for title, (on, names, scenarios, figures) in _TABLES.items():
        columns = [f"{cell.routes} {cell.scenario}" for cell in row_of("", scenarios, on=on)]
        for figure in figures:
            rows = []
            for name in names:
                values = [workers.figures(cell).get(figure) for cell in row_of(name, scenarios, on=on)]
                if any(value is not None for value in values):
                    rows.append((name, ["-" if value is None else _FORMS[figure].format(value) for value in values]))
            print_table(f"{title}: {figure}", ["variant", *columns], rows)
    for cell, status in sorted(workers.wrong.items()):
        print(f"wrong: {cell} answered {status} instead of {cell.expected}")
