"""How many requests does a server answer, off and on, and how fast?

Each variant is served by a uvicorn of its own, with httptools, uvloop and one worker. This process loads one server
after the other for a moment, in another order each round, and just before or after it the server of its base, so that
other load on the machine affects both. The medians of these ratios are printed; the ratio of a server and itself shows
how far they can be trusted.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from collections.abc import Mapping

import uvloop
from load import close, connect
from tables import print_medians
from variants import OURS, PEER_OF, base_of, path_of
from workers import Served, serving, stores

_ROUNDS, _QUICK_ROUNDS = 41, 21
_SECONDS = 0.25  # at one server, each round
_CONNECTIONS = 32
_BASES = {False: "nothing", True: "response 503"}  # an empty middleware, and a JSONResponse by hand in its place


async def load(port: int, served: Served) -> dict[str, float]:
    """Return how many requests a server answered a second, and the milliseconds that half and 99 % of them took."""
    connections = await connect(port, path_of("first", 10), _CONNECTIONS)
    begin = time.perf_counter()
    await asyncio.gather(*(each.ask(lambda _: time.perf_counter() >= begin + _SECONDS) for each in connections))
    took = time.perf_counter() - begin
    close(connections, served, 503 if served.on else 200)
    latencies = [latency for connection in connections for latency in connection.latencies]
    cuts = statistics.quantiles(latencies, n=100)
    return {"requests/s": len(latencies) / took, "p50 ms": cuts[49] * 1000, "p99 ms": cuts[98] * 1000}


async def load_all(ports: Mapping[Served, int], rounds: int) -> dict[Served, list[dict[str, float]]]:
    """Return what was found of each server, round by round, and its rate as a share of that of its base."""
    found: dict[Served, list[dict[str, float]]] = {served: [] for served in ports}
    for _ in range(rounds + 1):
        for served in random.sample(list(ports), len(ports)):
            pair = (served, served._replace(variant=base_of(served.variant, _BASES[served.on])))
            results = {place: await load(ports[pair[place]], pair[place]) for place in random.sample(range(2), 2)}
            found[served].append({**results[0], "of base": results[0]["requests/s"] / results[1]["requests/s"]})
    return {served: results[1:] for served, results in found.items()}  # the first round warms up


def measure(pythons: Mapping[str, str], *, quick: bool) -> dict[str, dict[str, list[dict[str, float]]]]:
    """Measure, print two tables, and return the figures; if `quick`, of this library the memory alone."""
    left_out = {"cached", *(set(OURS) - {"memory"} if quick else ())}
    names = [name for name, peer in PEER_OF.items() if peer in pythons and name not in left_out]
    off = [Served(name, on=False) for name in names if "503" not in name]
    on = [Served(name, on=True) for name in names if not name.startswith(("plain", "nothing"))]
    with stores() as env, serving(pythons, [*off, *on], env) as processes:
        ports = {served: port for served, (port, _) in processes.items()}
        found = uvloop.run(load_all(ports, _QUICK_ROUNDS if quick else _ROUNDS))
    figures = {}
    for switch, some in (("off", off), ("on", on)):
        figures[switch] = {served.variant: found[served] for served in some}
        columns = {"requests/s": "{:.0f}", "p50 ms": "{:.2f}", "p99 ms": "{:.2f}", "of base": "{:.3f}"}
        print_medians(f"Through uvicorn, {switch}; base: {_BASES[switch == 'on']}", columns, figures[switch])
    return figures
