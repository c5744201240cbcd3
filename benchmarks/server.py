"""How many requests does a server answer, off and on, and how soon?

Each variant is served by a uvicorn of its own, with httptools and uvloop and one worker. This process asks one server
after the other, in another order each round, a moment each, and just before or after it the one that it is compared
with: what else the machine does falls on both. What is told is the medians of the ratios of such neighbours; that of a
server and itself tells how far they can be trusted.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from collections.abc import Mapping
from typing import Any

import uvloop
from load import connect, statuses_of
from tables import print_table
from variants import OURS, PEER_OF, base_of, path_of
from workers import Served, serving, stores

__all__ = ["measure"]

_ROUNDS, _QUICK_ROUNDS = 41, 21
_SECONDS = 0.25
"""How long a server is asked in each round."""

_CONNECTIONS = 32


async def load(port: int) -> dict[str, Any]:
    """Return how many requests a server answered a second, and the milliseconds that half and 99 % of them took."""
    connections = await connect(port, path_of("first", 10), _CONNECTIONS)
    begin = time.perf_counter()
    await asyncio.gather(*(each.ask(lambda _: time.perf_counter() >= begin + _SECONDS) for each in connections))
    took = time.perf_counter() - begin
    latencies = [latency for connection in connections for latency in connection.latencies]
    cuts = statistics.quantiles(latencies, n=100)
    for connection in connections:
        connection.close()
    return {
        "rate": len(latencies) / took,
        "p50": cuts[49] * 1000,
        "p99": cuts[98] * 1000,
        "statuses": statuses_of(connections),
    }


async def load_all(ports: Mapping[Served, int], rounds: int) -> dict[Served, list[dict[str, Any]]]:
    """Return what was found of each server, round by round, and with it how its base did."""
    found: dict[Served, list[dict[str, Any]]] = {served: [] for served in ports}
    for _ in range(rounds + 1):
        for served in random.sample(list(ports), len(ports)):
            pair = (ports[served], ports[served._replace(variant=base_of(served.variant, on=served.on))])
            results = {place: await load(pair[place]) for place in random.sample(range(2), 2)}
            found[served].append({**results[0], "ratio": results[0]["rate"] / results[1]["rate"]})
    return {served: results[1:] for served, results in found.items()}  # the first round warms up


def measure(pythons: Mapping[str, str], *, quick: bool) -> list[dict[str, Any]]:
    """Measure, print two tables, and return the figures; if `quick`, of this library the memory alone."""
    left_out = {"cached", *(set(OURS) - {"memory"} if quick else ())}
    names = [name for name, peer in PEER_OF.items() if peer in pythons and name not in left_out]
    off = [Served(name, on=False) for name in names if "503" not in name]
    on = [Served(name, on=True) for name in names if not name.startswith(("plain", "nothing"))]
    with stores() as env, serving(pythons, [*off, *on], env) as processes:
        ports = {served: port for served, (port, _) in processes.items()}
        found = uvloop.run(load_all(ports, _QUICK_ROUNDS if quick else _ROUNDS))
    figures = []
    for title, some, base, right in (("Off", off, "plain", "200"), ("On", on, "bare 503", "503")):
        rows = []
        for served in some:
            results = found[served]
            shown = {
                key: statistics.median(result[key] for result in results) for key in ("rate", "p50", "p99", "ratio")
            }
            wrong = sum(sum(result["statuses"].values()) - result["statuses"].get(right, 0) for result in results)
            cells = [f"{shown['rate']:.0f}", f"{shown['p50']:.2f}", f"{shown['p99']:.2f}", f"{shown['ratio']:.3f}"]
            rows.append((served.variant, [*cells, str(wrong)]))
            figures.append({**served._asdict(), **shown, "wrong": wrong})
        columns = ["variant", "requests/s", "p50 ms", "p99 ms", f"of {base}", "wrong"]
        print_table(f"{title}, through uvicorn", columns, rows)
    return figures
