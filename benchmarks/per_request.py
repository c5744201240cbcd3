"""What does a request cost, off and on? In process, without a server or a client: the app itself is called.

The variants take turns, block by block, for many rounds. Each is compared with a base within a round, and the median of
the rounds counts. Times are of the processor, in microseconds a request.
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
_SETTLED_AFTER = 3.0  # seconds after which this library trusts the modification time of a file

_PEERS = tuple(itertools.chain(*PEERS.values()))
_PASSING = ("exempt", "forced off", "404")


class Table(NamedTuple):
    """What is compared with one base."""

    title: str
    base: str
    variants: tuple[str, ...]
    scenarios: tuple[str, ...]
    figures: tuple[str, ...]  # those that are shown
    on: bool  # whether maintenance is on

    def row(self, variant: str) -> list[Cell]:
        """Return the cells of a variant."""
        return [Cell(variant, routes, scenario, self.on) for routes, scenario in self._columns()]

    def columns(self) -> list[str]:
        """Return the name of each column."""
        return [f"{routes} {scenario}" for routes, scenario in self._columns()]

    def base_of(self, cell: Cell) -> Cell:
        """Return what a cell is compared with."""
        return cell._replace(variant=base_of(cell.variant, self.base), on=self.base in _ANSWERS)

    def _columns(self) -> Iterable[tuple[int, str]]:
        return itertools.product(_ROUTES, self.scenarios)


_ANSWERS = ("bare 503", "response 503")
_ENDS = ("first", "last")
_TABLES = (
    Table("Off, no route is reached", "nothing", ("nothing", *OURS), ("alone",), ("more",), on=False),
    Table("Off", "nothing", ("plain", "nothing", *OURS, *_PEERS), _ENDS, ("us", "times"), on=False),
    Table("Blocked", "bare 503", (*_ANSWERS, *OURS, *_PEERS), _ENDS, ("us", "times"), on=True),
    Table("Blocked", "response 503", (*OURS, *_PEERS), _ENDS, ("times",), on=True),
    Table("Passing during maintenance", "nothing", ("memory", *_PEERS), _PASSING, ("us", "more"), on=True),
)
_FORMS = {"us": "{:.2f}", "more": "{:+.2f}", "times": "{:.2f}x"}


class Cell(NamedTuple):
    """One thing to measure."""

    variant: str
    routes: int
    scenario: str
    on: bool

    @property
    def expected(self) -> int:
        """The right status."""
        if self.scenario == "404":
            return 404
        return 503 if self.on and self.scenario in {"first", "last"} else 200


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

    def figures(self, cell: Cell, base: Cell) -> dict[str, float]:
        """Return microseconds a request, how many more and how many times as many as the base takes; medians."""
        if cell in self.wrong or cell not in self.times:
            return {}
        pairs = list(zip(self.times[cell], self.times[base], strict=True))
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
        (table, cell) for table in _TABLES for name in table.variants if name in measured for cell in table.row(name)
    ]
    with ExitStack() as stack:
        workers = Workers(pythons, stack)
        every = list(dict.fromkeys(each for table, cell in chosen for each in (cell, table.base_of(cell))))
        for number in range((_QUICK_ROUNDS if quick else _ROUNDS) + 1):
            for cell in every:
                workers.ask(cell)
            print(f"round {number}", flush=True, file=sys.stderr)
            if number == 0:  # which warms up
                time.sleep(_SETTLED_AFTER)
    for times in workers.times.values():
        del times[0]
    print_tables(workers)
    return [
        {**cell._asdict(), "base": table.base, **workers.figures(cell, table.base_of(cell))} for table, cell in chosen
    ]


def print_tables(workers: Workers) -> None:
    """Print what was measured, and what answered wrong, of which no figure is shown."""
    for table in _TABLES:
        for figure in table.figures:
            rows = []
            for name in table.variants:
                values = [workers.figures(cell, table.base_of(cell)).get(figure) for cell in table.row(name)]
                if any(value is not None for value in values):
                    rows.append((name, ["-" if value is None else _FORMS[figure].format(value) for value in values]))
            print_table(f"{table.title}; base: {table.base}; {figure}", ["variant", *table.columns()], rows)
    for cell, status in sorted(workers.wrong.items()):
        print(f"wrong: {cell} answered {status} instead of {cell.expected}")
