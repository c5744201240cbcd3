"""A load generator: connections that are kept alive, each asking again as soon as it has its answer.

It runs as a process of its own, on another core than the servers, and asks for a new path each time. It asks one
server after the other, in another order each round, a moment each, and just before or after it the one that it is
compared with: what else the machine does falls on both. The answers are looked into as little as can be, so that it is
the server that is measured.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import random
import statistics
import time
from collections import Counter
from typing import Any

import uvloop

_numbers = itertools.count()
_HEADERS = (
    "host: shop.example\r\nuser-agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n"
    "accept: application/json, text/plain, */*\r\naccept-language: en-US,en;q=0.5\r\n"
    "accept-encoding: gzip, deflate, br, zstd\r\nreferer: https://shop.example/basket\r\n"
    "cookie: session=3f2b8c1e; theme=dark\r\n\r\n"
)


class Client(asyncio.Protocol):
    """One connection."""

    def __init__(self, path: str, until: float) -> None:
        self._before, self._after = path.split("{}")
        self._until = until
        self._received = b""
        self._asked = 0.0
        self.latencies: list[float] = []
        self.statuses: Counter[bytes] = Counter()
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:  # noqa: ANN401 -- uvloop's
        """Ask for the first time."""
        self._transport = transport
        self._ask()

    def data_received(self, data: bytes) -> None:
        """Ask again if this was the whole answer."""
        received = self._received + data if self._received else data
        head = received.find(b"\r\n\r\n")
        if head < 0:
            self._received = received
            return
        begin = received.find(b"content-length: ") + 16
        if len(received) < head + 4 + int(received[begin : received.find(b"\r\n", begin)]):
            self._received = received
            return
        self._received = b""
        self.statuses[received[9:12]] += 1
        self._answered()

    def connection_lost(self, exc: Exception | None) -> None:
        """Note that it is over."""
        if exc is not None:
            self.statuses[b"lost"] += 1
        if not self.over.done():
            self.over.set_result(None)

    def _answered(self) -> None:
        now = time.perf_counter()
        self.latencies.append(now - self._asked)
        if now < self._until:
            self._ask()
        else:
            self._transport.close()

    def _ask(self) -> None:
        self._asked = time.perf_counter()
        self._transport.write(
            f"GET {self._before}{next(_numbers)}{self._after} HTTP/1.1\r\n{_HEADERS}".encode("latin-1")
        )


async def load(port: int, path: str, connections: int, seconds: float) -> dict[str, Any]:
    """Return how many requests were answered a second, and the milliseconds that half and 99 % of them took."""
    loop = asyncio.get_running_loop()
    begin = time.perf_counter()
    clients = [Client(path, begin + seconds) for _ in range(connections)]
    for client in clients:
        await loop.create_connection(lambda client=client: client, "127.0.0.1", port)  # type: ignore[misc]
    await asyncio.gather(*(client.over for client in clients))
    took = time.perf_counter() - begin
    latencies = [latency for client in clients for latency in client.latencies]
    cuts = statistics.quantiles(latencies, n=100)
    statuses = sum((client.statuses for client in clients), Counter[bytes]())
    return {
        "rate": len(latencies) / took,
        "p50": cuts[49] * 1000,
        "p99": cuts[98] * 1000,
        "statuses": {status.decode(): number for status, number in statuses.items()},
    }


async def rounds(
    pairs: list[tuple[int, int]], path: str, connections: int, seconds: float, number: int
) -> list[list[dict[str, Any]]]:
    """Return what was found of the first server of each pair, round by round, and the rate of the second as `base`.

    One round before the first warms up.
    """
    found: dict[tuple[int, int], list[dict[str, Any]]] = {pair: [] for pair in pairs}
    for _ in range(number + 1):
        for pair in random.sample(pairs, len(pairs)):
            results = {}
            for place in random.sample(range(2), 2):
                results[place] = await load(pair[place], path, connections, seconds)
            found[pair].append({**results[0], "base": results[1]["rate"]})
    return [results[1:] for results in found.values()]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", help="with {} where the number stands")
    parser.add_argument("pairs", nargs="+", help="the port of a server, a colon, and that of what it is compared with")
    parser.add_argument("--connections", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True, help="at one server, each round")
    parser.add_argument("--rounds", type=int, required=True)
    options = parser.parse_args()
    asked = [(int(port), int(base)) for port, base in (pair.split(":") for pair in options.pairs)]
    found = rounds(asked, options.path, options.connections, options.seconds, options.rounds)
    print(json.dumps(uvloop.run(found)))
