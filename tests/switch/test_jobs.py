"""Blocks of overlapping jobs that are killed: none lifts another's maintenance, none outlives its lease."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import textwrap
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

pytestmark = [pytest.mark.servers, pytest.mark.no_cover]  # the jobs are other processes

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
    """A process that holds maintenance again and again, and its output so far."""

    process: subprocess.Popen[bytes]
    output: bytes = b""

    def read(self) -> None:
        """Read the output up to now."""
        assert self.process.stdout is not None
        os.set_blocking(self.process.stdout.fileno(), False)
        self.output += self.process.stdout.read() or b""


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
    """Return which of the living jobs print that they hold maintenance, and how much each has printed."""
    living = {number: job for number, job in enumerate(jobs) if job.process.poll() is None}
    for job in living.values():
        job.read()
    return {number: len(job.output) for number, job in living.items() if job.output.endswith(b"in\n")}


async def check(backend: StateBackend, jobs: list[Job]) -> bool:
    """Return whether some job held maintenance all the time while the state was read. If so, it must be on."""
    before = holding(jobs)
    is_on = await get_maintenance_mode(backend)
    after = holding(jobs)
    is_held = any(after.get(number) == printed for number, printed in before.items())
    assert is_on or not is_held
    return is_held


async def check_until_all_are_killed(url: str, jobs: list[Job]) -> None:
    """Check the state often enough, then kill the jobs one after the other, at random moments."""
    moments = random.Random(0)  # noqa: S311 -- no secret
    checks = 0
    async with opened(url) as backend:
        while checks < 60:
            assert any(job.process.poll() is None for job in jobs)
            checks += await check(backend, jobs)
        for job in jobs:
            await anyio.sleep(moments.uniform(0, 0.2))
            await check(backend, jobs)
            job.process.kill()
    for job in jobs:
        await anyio.to_thread.run_sync(job.process.wait)
    latest = datetime.now(UTC) + timedelta(seconds=LEASE)
    state = await get_maintenance_state(url)
    assert [hold for hold in state.holds if hold.expires_at is None or hold.expires_at > latest] == []
    with moved_clock() as clock:
        clock.move(seconds=LEASE)
        assert not await get_maintenance_mode(url)


@pytest.mark.parametrize("kind", ["redis", "asyncpg", "file", "sqlite"])
def test_overlapping_jobs_that_are_killed_hold_maintenance_on_no_longer_than_their_leases(
    kind: str, url_of: Callable[[str], str], tmp_path: Path
) -> None:
    urls = {"file": f"file:{tmp_path}/switch", "sqlite": f"sqlite+aiosqlite:///{tmp_path}/switch.db"}
    url = urls[kind] if kind in urls else url_of(kind)
    with jobs_on(url) as jobs:
        anyio.run(check_until_all_are_killed, url, jobs)
