"""How many requests does a server answer, off and on, and how soon?

Each variant is served by a uvicorn of its own, with httptools and uvloop and one worker. The load generator runs on
another core; it asks one server after the other, a moment each, round after round, and beside each the one that it is
compared with. What is told is the medians of the ratios of such neighbours; that of a server and itself tells how far
they can be trusted.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from apps import path_of
from per_request import base_of
from tables import print_table
from variants import VARIANTS
from workers import HERE, parse_peers, stores

from tests.support import free_port, wait_for_port

_OURS = ("env factory", "memory factory", "memory class", "file factory", "redis factory", "postgresql factory")
_OFF = ("plain", "nothing", *_OURS, "plain of 0.0.5", "0.0.5 env", "plain of waygate", "waygate")
_ON = (
    *("bare 503", "bare 503 in app", "response 503 in app", *_OURS),
    *("bare 503 in app of 0.0.5", "0.0.5 env", "bare 503 in app of waygate", "waygate"),
)


class Served(NamedTuple):
    """A variant, and whether it is in maintenance."""

    variant: str
    on: bool


@contextmanager
def serving(python: str, served: Served, routes: int, env: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """Serve a variant, and give its process; its port is the last argument of it."""
    port = free_port()
    command = [python, str(HERE / "served.py"), served.variant, "--routes", str(routes), *["--on"] * served.on]
    process = subprocess.Popen([*command, "--port", str(port)], env={**os.environ, **env})
    try:
        wait_for_port(port, process)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def port_of(process: subprocess.Popen[bytes]) -> int:
    """Return the port of a server."""
    assert isinstance(process.args, list)
    return int(str(process.args[-1]))


def base_for(served: Served) -> Served:
    """Return what a variant is compared with: the plain app, or the bare 503 in the app."""
    return Served(base_of("bare 503 in app" if served.on else "plain", served.variant), on=served.on)


def measure(
    ports: Mapping[Served, int], path: str, rounds: int, connections: int, seconds: float
) -> dict[Served, list[dict[str, Any]]]:
    """Load each server in turn, and return what was found of each, round by round."""
    options = {"--rounds": rounds, "--connections": connections, "--seconds": seconds}
    flags = [word for option, value in options.items() for word in (option, str(value))]
    pairs = [f"{port}:{ports[base_for(served)]}" for served, port in ports.items()]
    command = [sys.executable, str(HERE / "load.py"), path, *pairs, *flags]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return dict(zip(ports, found, strict=True))


def rows(found: Mapping[Served, list[dict[str, Any]]], *, on: bool) -> list[tuple[str, list[str]]]:
    """Return a row for each variant."""
    made = []
    for served, results in found.items():
        if served.on is not on:
            continue
        cells = [f"{statistics.median(result[key] for result in results):.{digits}f}" for key, digits in _COLUMNS]
        cells.append(f"{statistics.median(result['rate'] / result['base'] for result in results):.3f}")
        expected = "503" if on else "200"
        wrong = sum(number for result in results for status, number in result["statuses"].items() if status != expected)
        made.append((served.variant, [*cells, str(wrong)]))
    return made


_COLUMNS = (("rate", 0), ("p50", 2), ("p99", 2))
_NAMED = ["variant", "requests/s", "p50 ms", "p99 ms"]


def main() -> None:
    """Measure, print two tables, and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer", action="append", default=[], help="name=path of its Python; as often as wanted")
    parser.add_argument("--rounds", type=int, default=41)
    parser.add_argument("--seconds", type=float, default=0.25, help="at one server, each round")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--routes", type=int, default=10)
    parser.add_argument("--scenario", default="first", help="first or last")
    parser.add_argument("--quick", action="store_true", help="short runs of this library with a memory alone")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    options = parser.parse_args()
    pythons = parse_peers(options.peer)
    peer_of = {name: peer for peer in pythons for name in VARIANTS[peer]}
    left_out = set(_OURS) - {"memory factory"} if options.quick else set()
    rounds, seconds = (21, 0.25) if options.quick else (options.rounds, options.seconds)
    wanted = [*(Served(name, on=False) for name in _OFF), *(Served(name, on=True) for name in _ON)]
    chosen = [served for served in wanted if served.variant in peer_of and served.variant not in left_out]
    with ExitStack() as stack:
        env = stack.enter_context(stores())
        ports = {
            served: port_of(stack.enter_context(serving(pythons[peer_of[served.variant]], served, options.routes, env)))
            for served in chosen
        }
        path = path_of(options.scenario, options.routes)
        found = measure(ports, path, rounds, options.connections, seconds)
    print_table("Off, through uvicorn", [*_NAMED, "of plain", "wrong"], rows(found, on=False))
    columns = [*_NAMED, "of bare 503 in app", "wrong"]
    print_table("On, through uvicorn", columns, rows(found, on=True))
    if options.json:
        figures = [{**served._asdict(), "runs": results} for served, results in found.items()]
        options.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
