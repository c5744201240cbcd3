"""Jobs in many processes that overlap and are killed: none lifts another's maintenance, none outlives its lease."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import anyio
import pytest

from fastapi_maintenance import StateBackend, get_maintenance_mode, get_maintenance_state
from fastapi_maintenance.backends.url import opened
from fastapi_maintenance.testing import moved_clock
from tests.support import ROOT

pytestmark = [pytest.mark.servers, pytest.mark.no_cover]  # it happens in other processes

LEASE = 30.0  # seconds: longer than a busy machine lets a process wait
JOBS = 4
PROGRAM = """
    import random
    import sys
    import anyio
    from fastapi_maintenance import maintenance_mode_on

    async def work(url, lease, seed):
        moments = random.Random(seed)
        while True:
            async with maintenance_mode_on(url, lease=lease):
                print("in", flush=True)
                await anyio.sleep(moments.uniform(0, 0.3))
                print("leaving", flush=True)
            await anyio.sleep(moments.uniform(0, 0.1))

    anyio.run(work, sys.argv[1], float(sys.argv[2]), sys.argv[3])
"""


@dataclass
class Job:
    """A process that holds maintenance again and again, and what it has said so far."""

    process: subprocess.Popen[bytes]
    said: bytes = b""

    def hear(self) -> None:
        """Note all that it has said by now: what it did after it said something cannot be seen before that."""
        assert self.process.stdout is not None
        os.set_blocking(self.process.stdout.fileno(), False)
        self.said += self.process.stdout.read() or b""


@contextmanager
def jobs_on(url: str) -> Iterator[list[Job]]:
    """Run jobs, each as a process of its own."""
    command = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(PROGRAM), url, str(LEASE)]
    jobs = [Job(subprocess.Popen([*command, str(seed)], cwd=ROOT, stdout=subprocess.PIPE)) for seed in range(JOBS)]
    try:
        yield jobs
    finally:
        for job in jobs:
            with job.process:
                job.process.kill()


def holding(jobs: list[Job]) -> dict[int, int]:
    """Return which of the living jobs say that they hold it, and how much each had said by then."""
    living = {number: job for number, job in enumerate(jobs) if job.process.poll() is None}
    for job in living.values():
        job.hear()
    return {number: len(job.said) for number, job in living.items() if job.said.endswith(b"in\n")}


async def follow_to_the_end(url: str, jobs: list[Job]) -> None:
    """Look at the state until enough was seen, then kill the jobs one after the other, at random moments."""
    moments = random.Random(0)  # noqa: S311 -- no secret
    end = time.monotonic() + 120
    seen = 0
    async with opened(url) as backend:
        while seen < 60:
            assert time.monotonic() < end, "the jobs hold nothing"
            seen += await look(backend, jobs)
        for job in jobs:
            await anyio.sleep(moments.uniform(0, 0.2))
            await look(backend, jobs)
            job.process.kill()
    for job in jobs:
        await anyio.to_thread.run_sync(job.process.wait)
    dead = datetime.now(UTC)
    state = await get_maintenance_state(url)
    assert [] == [hold for hold in state.holds if hold.expires_at is None]
    assert [] == [hold for hold in state.holds if hold.expires_at and hold.expires_at > dead + timedelta(seconds=LEASE)]
    with moved_clock() as clock:
        clock.move(seconds=LEASE)
        assert not await get_maintenance_mode(url)


async def look(backend: StateBackend, jobs: list[Job]) -> bool:
    """Assert that it is on if some job held it all the while; tell whether one did."""
    before = holding(jobs)
    on = await get_maintenance_mode(backend)
    after = holding(jobs)
    held = any(after.get(number) == said for number, said in before.items())
    assert on or not held
    return held


@pytest.mark.parametrize("kind", ["redis", "asyncpg", "file", "sqlite"])
def test_jobs_that_overlap_and_are_killed_hold_maintenance_on_and_no_longer_than_their_leases(
    kind: str, url_of: Callable[[str], str], tmp_path: Path
) -> None:
    urls = {"file": f"file:{tmp_path}/switch", "sqlite": f"sqlite+aiosqlite:///{tmp_path}/switch.db"}
    url = urls[kind] if kind in urls else url_of(kind)
    with jobs_on(url) as jobs:
        anyio.run(follow_to_the_end, url, jobs)
