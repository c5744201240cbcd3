"""What does a request cost, off and on? In process, without a server or a client: what is called is the app itself.

The variants take turns, block by block, for many rounds. What is compared is the medians, and where a difference is
small, the median of the differences within a round. Times are of the processor, in microseconds a request.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

from variants import BACKENDS, VARIANTS
from workers import Worker, parse_peers, workers

ROUTES = (10, 100, 1000)
OURS = tuple(f"{kind} {form}" for kind in BACKENDS for form in ("factory", "class"))
PEERS = ("0.0.5 env", "0.0.5 file", "waygate")
LIMITS = ("bare 503", "bare 503 in app", "response 503", "response 503 in app")
FLOOR = ("plain", "bare 503 in app", "response 503 in app")
"""What is measured in the environment of each peer, since its FastAPI may be another."""

SHOWN = ("plain", "nothing", *OURS[2:4], *(f"plain of {peer}" for peer in ("0.0.5", "waygate")), *PEERS)
_SETTLED_AFTER = 3.0
"""Seconds after which this library trusts a file's time to tell that nothing was written since."""

_EXPECTED = {"exempt": 200, "forced off": 200, "404": 404}


class Cell(NamedTuple):
    """One thing to be measured."""

    variant: str
    routes: int
    scenario: str
    on: bool
    shortcut: bool = False

    @property
    def expected(self) -> int:
        """The status that is right."""
        kind = self.variant.split(" of ", maxsplit=1)[0]
        if kind == "driver":
            return 0
        if kind in LIMITS:
            return 503
        blocked = self.on and kind not in {"plain", "nothing"}
        return 200 if self.shortcut else _EXPECTED.get(self.scenario, 503 if blocked else 200)


def base_of(floor: str, variant: str) -> str:
    """Return the floor that a variant is compared with: the one in its own environment."""
    peer = variant.rpartition(" of ")[2].split(" ", maxsplit=1)[0]
    return f"{floor} of {peer}" if peer in VARIANTS else floor


def cells() -> list[Cell]:
    """Return all that is measured."""
    of_peers = [name for peer, names in VARIANTS.items() if peer != "ours" for name in names]
    limits = [name for name in (*LIMITS, *of_peers) if "503" in name]
    open_apps = [name for name in ("plain", "nothing", *of_peers) if name.startswith(("plain", "nothing"))]
    found = [Cell("driver", 10, "first", on=False)]
    for routes in ROUTES:
        found += [Cell(name, routes, "first", on=False, shortcut=True) for name in ("plain", "nothing", *OURS)]
        found += [Cell(name, routes, "first", on=False) for name in (*open_apps, *OURS, *PEERS)]
        found += [Cell(name, routes, "last", on=False) for name in (*open_apps, *OURS[2:4], *PEERS)]
        for scenario in ("first", "last"):
            found += [Cell(name, routes, scenario, on=True) for name in (*OURS, *PEERS, *limits)]
        for scenario in _EXPECTED:
            found += [Cell(name, routes, scenario, on=False) for name in open_apps]
            found += [Cell(name, routes, scenario, on=True) for name in (*OURS[2:4], *PEERS)]
    return found


class Results:
    """The times of each cell, in nanoseconds a request, one of each round."""

    def __init__(self) -> None:
        self.times: dict[Cell, list[float]] = defaultdict(list)
        self.wrong: dict[Cell, int] = {}

    def median(self, cell: Cell) -> float | None:
        """Return microseconds a request, None where the variant does not answer as it should."""
        return statistics.median(self.times[cell]) / 1000 if self.times.get(cell) and cell not in self.wrong else None

    def above(self, cell: Cell, floor: Cell) -> float | None:
        """Return how many microseconds more it is than another, the median of the rounds."""
        if self.median(cell) is None or self.median(floor) is None:
            return None
        pairs = zip(self.times[cell], self.times[floor], strict=True)
        return statistics.median(one - other for one, other in pairs) / 1000


def measure(asked: dict[str, Worker], chosen: list[Cell], rounds: int, block: float) -> Results:
    """Measure the cells, each `rounds` times for about `block` seconds."""
    results = Results()
    peer_of = {name: peer for peer, names in VARIANTS.items() for name in names}
    begin = time.monotonic()
    waiting = _SETTLED_AFTER if any("file" in cell.variant for cell in chosen) else 0.0
    for number, on in itertools.product(range(-1, rounds), (False, True)):  # the first round warms up
        for worker in asked.values():
            worker.ask(on=on)
        time.sleep(waiting)
        for cell in chosen:
            if cell.on is not on:
                continue
            known = results.times[cell][-1] if results.times[cell] else None
            requests = 50 if known is None else round(min(4000, max(20, block * 1e9 / known)))
            answer = asked[peer_of[cell.variant]].ask(**cell._asdict(), requests=requests, expected=cell.expected)
            if answer["status"] != cell.expected:
                results.wrong[cell] = answer["status"]
            results.times[cell].append(answer["ns"] or 1e6)
        if on:
            print(f"round {number + 1} of {rounds}, {time.monotonic() - begin:.0f} s", flush=True, file=sys.stderr)
    for times in results.times.values():
        del times[0]
    return results


def main() -> None:
    """Measure, print tables, and write the figures."""
    from tables import print_tables  # noqa: PLC0415 -- it knows this module

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer", action="append", default=[], help="name=path of its Python; as often as wanted")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--block", type=float, default=0.01, help="seconds of a block")
    parser.add_argument("--quick", action="store_true", help="a minute, for this library with a memory alone")
    parser.add_argument("--only", default="", help="part of the names of the variants besides the floor")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    options = parser.parse_args()
    pythons = parse_peers(options.peer)
    measured = {name for peer in pythons for name in VARIANTS[peer]}
    only = options.only or ("memory" if options.quick else "")
    chosen = [
        cell
        for cell in cells()
        if cell.variant in measured and (only in cell.variant or cell.variant not in {*OURS, *PEERS})
    ]
    with workers(pythons) as asked:
        results = measure(asked, chosen, 5 if options.quick else options.rounds, options.block)
    print_tables(results)
    if options.json:
        medians = [{**cell._asdict(), "us": results.median(cell)} for cell in chosen]
        options.json.write_text(json.dumps(medians, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
