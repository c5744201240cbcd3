"""Does a drained block keep its promise while workers, records and the store fail, and how long does it take?

Uvicorn workers serve requests of random length: some go on in a thread or in the background, some are exempt. Clients
send them without pause. One drained block after the other is entered; around each, workers are stopped and continued,
killed, or ended and started again, their records are removed, and the store is restarted. The requests that maintenance
blocks write to a log when they begin and end, without the library and the store; these times are compared with those of
the bodies. A stopped process goes on with its requests, a killed one does not.

The script ends with 1 if a request was in progress in a body, unless its worker had lost its record and did not run for
two seconds, which the documentation excludes. The faults are chosen by the seed; what they meet depends on the machine.

    python benchmarks/drains.py file redis postgresql --blocks 200 --seed 1
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import random
import re
import statistics
import sys
import time
from collections import Counter
from contextlib import AsyncExitStack, ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from draining import FAULTS, Service, plan
from tables import print_table

from fastapi_maintenance import get_maintenance_state, maintenance_mode_on
from fastapi_maintenance._switch.holds import remove_hold
from fastapi_maintenance.backends.url import opened
from fastapi_maintenance.errors import DrainTimeoutError, NoSuchHoldError, NoWorkersError
from tests.servers import running

_SERVERS = {"redis": "redis", "postgresql": "asyncpg"}
"""The name of each store in `tests.servers`."""

_DRAIN = 15  # seconds
_PAUSE = 0.8  # seconds between two blocks


@dataclass
class Blocks:
    """What became of the drained blocks on one service."""

    service: Service
    bodies: list[tuple[float, float]] = field(default_factory=list)
    took: list[float] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)
    """Why the body did not run."""
    undrained: list[tuple[float, float, str]] = field(default_factory=list)
    """When a drain that did not succeed began and ended, and what it said."""
    unreleased: Counter[str] = field(default_factory=Counter)
    """Why the hold could not be released after the body."""
    is_in_body: bool = False

    async def enter(self, seconds: float, backend: object) -> None:
        """Enter a drained block, and stay in it for so long."""
        asked = began = time.monotonic()
        try:
            async with maintenance_mode_on(backend, drain=_DRAIN):  # type: ignore[arg-type]  # a backend or a URL
                self.is_in_body, began = True, time.monotonic()
                await asyncio.sleep(seconds)
                self.bodies.append((began, time.monotonic()))
                self.took.append(began - asked)
        except Exception as error:  # noqa: BLE001 -- whatever a store raises is a result
            said = f"{type(error).__name__}: {error}".partition("\n")[0]
            said = re.sub(r"\b[0-9a-f]{8,}\b|\d+(\.\d+)?", "#", said)
            (self.unreleased if self.is_in_body else self.refused)[f"{said:.250}"] += 1
            if isinstance(error, (DrainTimeoutError, NoWorkersError)):
                self.undrained.append((asked, time.monotonic(), f"{type(error).__name__}: {error}"))
            self.is_in_body = False
            await self._tidy()
        finally:
            self.is_in_body = False

    async def _tidy(self) -> None:
        """Release what could not be released while the store was unavailable."""
        while True:
            with suppress(Exception):
                async with opened(self.service.url) as backend:
                    for hold in (await get_maintenance_state(backend)).holds:
                        with suppress(NoSuchHoldError):
                            await remove_hold(hold.id, backend)
                    return
            await asyncio.sleep(0.2)

    def overlaps(self) -> list[tuple[str, bool]]:
        """Return a description of each request in a body, and whether the documentation excludes it."""
        found = []
        for request in (request for worker in self.service.workers for request in worker.requests()):
            for number, (began, ended) in enumerate(self.bodies):
                if request.began < ended and began < request.ended:
                    text = (
                        f"body {number} to {ended - began:+.3f}, drained for {self.took[number]:.3f}: worker "
                        f"{request.worker} ({request.process}) from {request.began - began:+.3f} to "
                        f"{request.ended - began:+.3f}{self.faults(began, ended)}"
                    )
                    found.append((text, self.service.is_excluded(request, began)))
        return found

    def faults(self, began: float, ended: float) -> str:
        """Describe the faults of the time from 20 seconds before a beginning to an end, relative to the beginning."""
        near = [one for one in self.service.injected if began - 20 < one.ended and one.began < ended]
        lines = [f"{kind}, worker {worker}, {at - began:+.3f} to {to - began:+.3f}" for kind, worker, at, to in near]
        return "".join(f"\n    {line}" for line in lines)


async def drain(service: Service, options: argparse.Namespace) -> Blocks:
    """Enter the blocks, with faults around each; every second one makes its backend anew."""
    blocks, rng = Blocks(service), random.Random(options.seed)
    service.is_closed = lambda: blocks.is_in_body
    async with AsyncExitStack() as stack:
        backend = await stack.enter_async_context(opened(service.url))
        await service.run(stack, options.workers)
        faults: list[asyncio.Task[None]] = []
        number = 0
        while len(blocks.bodies) < options.blocks and number < 2 * options.blocks:
            number += 1
            faults += [asyncio.create_task(service.inject(one)) for one in plan(service.store, options.workers, rng)]
            seconds = rng.uniform(0.05, 0.3)
            await asyncio.sleep(_PAUSE)
            await blocks.enter(seconds, service.url if number % 2 else backend)
            if options.verbose:
                print(number, len(blocks.bodies), dict(blocks.refused), dict(service.answers), flush=True)
        await asyncio.gather(*faults)
    return blocks


def measure(store: str, options: argparse.Namespace) -> tuple[list[str], int]:
    """Drain a store, and print details; return the cells of its row, and how many overlaps are not excluded."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="maintenance-drains-")))
        server = stack.enter_context(running(_SERVERS[store])) if store in _SERVERS else None
        service = Service(store, server.url if server else f"file:{folder / 'switch'}", server, folder)
        blocks = asyncio.run(drain(service, options))
        overlaps = blocks.overlaps()
    excluded = sum(is_excluded for _, is_excluded in overlaps)
    wrong = len(overlaps) - excluded
    times = [statistics.median(blocks.took), max(blocks.took)] if blocks.took else [0.0, 0.0]
    counts = [len(blocks.bodies), blocks.refused.total(), wrong, excluded, service.answers.total()]
    injected = Counter(one.kind for one in service.injected)
    said: dict[str, Counter[str]] = {"refused": blocks.refused, "not released": blocks.unreleased, "injected": injected}
    details = [
        f"{store}, {title}: {what} ({times})"
        for title, counted in said.items()
        for what, times in counted.most_common()
    ]
    details += [f"{store}, {text}, after {to - at:.3f}{blocks.faults(at, to)}" for at, to, text in blocks.undrained]
    details.append(f"{store}, answers: {dict(service.answers)}")
    details += [f"{store}, {'excluded' if is_excluded else 'OVERLAP'}: {text}" for text, is_excluded in overlaps]
    print(*details, sep="\n", flush=True)
    return [*map(str, counts), *(f"{each:.2f} s" for each in times)], wrong


def main() -> int:
    """Drain each store, print a table with what was refused and injected, and return 1 if a request was in a body."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stores", nargs="*", metavar="store", help=f"of {', '.join(FAULTS)}; all by default")
    parser.add_argument("--blocks", type=int, default=200, help="how many drained blocks are to run on each")
    parser.add_argument("--seed", type=int, default=0, help="for the choice of the faults")
    parser.add_argument("--workers", type=int, default=2, help="how many processes serve")
    parser.add_argument("--verbose", action="store_true", help="print the figures after each block")
    options = parser.parse_args()
    if unknown := set(options.stores) - FAULTS.keys():
        parser.error(f"there is no store {', '.join(sorted(unknown))}")
    logging.disable()  # the drains see the faults
    found = {store: measure(store, options) for store in options.stores or FAULTS}
    columns = ["store", "ran", "refused", "overlaps", "excluded", "requests", "median drain", "longest"]
    rows = [(store, cells) for store, (cells, _) in found.items()]
    print_table("Drained blocks while workers, records and stores fail", columns, rows)
    return int(any(wrong for _, wrong in found.values()))


if __name__ == "__main__":
    sys.exit(main())
