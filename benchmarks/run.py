"""Run the parts of the benchmarks, write their figures to the folder `results`, and draw the plots from them.

Nothing in them passes or fails. Each peer is measured in an environment of its own, this library in the current one.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from typing import Any

import imports
import per_request
import plots
import propagation
import server
import storm
from workers import HERE

PARTS: dict[str, Callable[..., Any]] = {
    "requests": per_request.measure,
    "server": server.measure,
    "imports": imports.measure,
    "storm": storm.measure,
    "propagation": propagation.measure,
}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="part", help=f"of {', '.join(PARTS)}; all by default")
    parser.add_argument("--peer", action="append", default=[], help="name=path of its Python; as often as wanted")
    parser.add_argument("--quick", action="store_true", help="fewer rounds, and of this library the memory alone")
    options = parser.parse_args()
    if unknown := set(options.parts) - PARTS.keys():
        parser.error(f"there is no part {', '.join(sorted(unknown))}")
    (results := HERE / "results").mkdir(exist_ok=True)
    os.environ.pop("PYTHONPATH", None)  # each environment has its own library
    pythons = {"ours": sys.executable, **dict(peer.split("=", 1) for peer in options.peer)}
    for part in options.parts or PARTS:
        figures = PARTS[part](pythons, quick=options.quick)
        results.joinpath(f"{part}.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    plots.draw(results, HERE.parent / "docs" / "plots")
