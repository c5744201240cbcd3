"""How long does a drained block wait longer than it has to, and does it keep its promise?

Two uvicorn processes serve short and long requests to eight clients without pause, while one drained block after the
other is entered. What is counted is the requests that were in progress while a body ran, of which there must be none,
and the time from the end of the last request to the beginning of the body.
"""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import workers  # noqa: F401 -- from here on the clone can be imported
from tables import print_table

from tests.switch.scenes import STORES, drained_under_load, staged, violations, waits


def measure(_pythons: Mapping[str, str], *, quick: bool, blocks: int = 50) -> dict[str, dict[str, float]]:
    """Measure so many blocks on each store, print a table, and return the figures; if `quick`, of a tenth of them."""
    found, rows = {}, []
    for store in STORES:
        with TemporaryDirectory() as folder, staged(store, Path(folder)) as scene:
            bodies = asyncio.run(drained_under_load(scene, blocks // (10 if quick else 1)))
            seconds, inside = waits(scene, bodies), len(violations(scene, bodies))
            shown = {"median": statistics.median(seconds), "slowest": max(seconds)}
            found[store] = {"blocks": len(bodies), "requests": len(scene.work()), "violations": inside, **shown}
        counts = [str(found[store][name]) for name in ("blocks", "requests", "violations")]
        rows.append((store, [*counts, *(f"{value * 1000:.1f} ms" for value in shown.values())]))
    columns = ["store", "blocks", "requests", "violations", "median", "slowest"]
    print_table("From the end of the last request to the body of a drained block", columns, rows)
    return found
