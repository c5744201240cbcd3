"""Draw the plots that the README shows, of the figures that the other modules have written."""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from svg import bars, lines, steps
from variants import BACKENDS
from workers import HERE

_OURS, _LIMIT, _OLD, _OTHER = range(4)
"""The colours: this library, what it is held against, version 0.0.5, and waygate."""


def off(figures: Any) -> str:  # noqa: ANN401 -- as they were read
    """Draw what a request costs more while it is off, the median of what it is with each number of routes."""
    alone, in_app = _times(figures, alone=True), _times(figures)
    rows = [(f"this library, {kind}", _more(alone, f"{kind} factory", "nothing"), _OURS) for kind in BACKENDS]
    for variant, floor, colour in (("0.0.5 env", "plain of 0.0.5", _OLD), ("waygate", "plain of waygate", _OTHER)):
        if (variant, 10, "first", False) in in_app:
            rows.append((variant, _more(in_app, variant, floor), colour))
    return bars("Off: microseconds that a request costs more than without it", rows, "{:.1f}")


def blocked(figures: Any) -> str:  # noqa: ANN401 -- as above
    """Draw what a request to the last route costs, by the number of routes."""
    times = _times(figures)
    names = [
        ("plain", "what it replaces", False, _LIMIT),
        ("bare 503 in app", "a bare ASGI 503", True, _LIMIT),
        ("memory factory", "this library", True, _OURS),
        ("0.0.5 env", "0.0.5", True, _OLD),
        ("waygate", "waygate", True, _OTHER),
    ]
    series = []
    for variant, name, on, colour in names:
        points = {key[1]: value for key, value in times.items() if key[0] == variant and key[2:] == ("last", on)}
        if points:
            series.append((name, points, colour))
    return lines("Blocked: microseconds for a request to the last route, each to a new path", series, "us")


def served(figures: Any) -> str:  # noqa: ANN401 -- as above
    """Draw how many requests a server answers."""
    rates = {
        (run["variant"], run["on"]): statistics.median(one["rate"] for one in run["runs"]) / 1000 for run in figures
    }
    names = [
        ("plain", "off: the plain app", False, _LIMIT),
        ("memory factory", "off: this library", False, _OURS),
        ("0.0.5 env", "off: 0.0.5", False, _OLD),
        ("waygate", "off: waygate", False, _OTHER),
        ("bare 503 in app", "on: a bare ASGI 503", True, _LIMIT),
        ("response 503 in app", "on: a JSONResponse", True, _LIMIT),
        ("memory factory", "on: this library", True, _OURS),
        ("0.0.5 env", "on: 0.0.5", True, _OLD),
        ("waygate", "on: waygate", True, _OTHER),
    ]
    rows = [(name, rates[key, on], colour) for key, name, on, colour in names if (key, on) in rates]
    return bars("Thousands of requests a second, one worker of uvicorn", rows, "{:.1f}")


def storm(figures: Any) -> str:  # noqa: ANN401 -- as above
    """Draw when clients come back that were told how long the maintenance takes."""
    told = {"retry_after=60": "end known, 60", "retry_after=(60, 180)": "end known, (60, 180)"}
    series = [
        (name, {int(second): count for second, count in figures["returns"][key].items()}, colour)
        for (name, key), colour in zip(told.items(), (_LIMIT, _OURS), strict=True)
    ]
    return steps("10,000 clients come back after a maintenance of five minutes", series)


_PLOTS: dict[str, tuple[str, Callable[[Any], str]]] = {
    "off": ("requests", off),
    "blocked": ("requests", blocked),
    "server": ("server", served),
    "storm": ("storm", storm),
}


_Times = dict[tuple[str, int, str, bool], float]


def _more(times: _Times, variant: str, floor: str) -> float:
    wanted = [
        (routes, took) for (name, routes, *rest), took in times.items() if (name, *rest) == (variant, "first", False)
    ]
    return statistics.median(took - times[floor, routes, "first", False] for routes, took in wanted)


def _times(figures: Any, *, alone: bool = False) -> _Times:  # noqa: ANN401 -- as above
    return {
        (cell["variant"], cell["routes"], cell["scenario"], cell["on"]): cell["us"]
        for cell in figures
        if cell["shortcut"] is alone and cell["us"] is not None
    }


def main() -> None:
    """Draw each plot whose figures are there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path, help="the folder with the figures")
    parser.add_argument("--into", type=Path, default=HERE / "plots")
    options = parser.parse_args()
    options.into.mkdir(exist_ok=True)
    for name, (part, draw) in _PLOTS.items():
        file = options.results / f"{part}.json"
        if file.exists():
            target = options.into / f"{name}.svg"
            target.write_text(draw(json.loads(file.read_text(encoding="utf-8"))), encoding="utf-8")
            print(f"{target}: {target.stat().st_size} bytes")


if __name__ == "__main__":
    main()
