"""Blocks in several threads and event loops, in forked processes, and where a link changes its target."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import anyio
import pytest
from anyio import from_thread
from anyio.lowlevel import checkpoint

from fastapi_maintenance import (
    EnvVarBackend,
    Hold,
    LocalFileBackend,
    MaintenanceState,
    MemoryBackend,
    get_maintenance_mode,
    get_maintenance_state,
    maintenance_mode_on,
    status_of,
)
from fastapi_maintenance._switch import holds
from tests.stores import DetailedStore
from tests.support import ROOT
from tests.switch.blocks import Make, bare, file, kept_by, memory, served
from tests.switch.lifespans import Abandoned

pytestmark = pytest.mark.anyio


def run_in_threads(job: Callable[[int], None], count: int) -> None:
    """Run a job in this many threads."""
    with ThreadPoolExecutor(count) as pool:
        list(pool.map(job, range(count)))


def loop_for(number: int) -> str:
    return ("asyncio", "trio")[number % 2]


@pytest.mark.parametrize(("make", "times"), [(memory, 50), (file, 8), (bare, 8)])
def test_blocks_of_several_threads_and_event_loops_add_up(make: Make, times: int, tmp_path: Path) -> None:
    store = make(tmp_path)

    async def job() -> None:
        for _ in range(times):
            async with maintenance_mode_on(store):
                assert await get_maintenance_mode(store)
                assert status_of(await kept_by(store), datetime.now(UTC)).active

    run_in_threads(lambda number: anyio.run(job, backend=loop_for(number)), 6)
    assert anyio.run(kept_by, store) == MaintenanceState()


@pytest.fixture
def _hasty_threads() -> Iterator[None]:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("_hasty_threads")
def test_block_is_kept_while_those_of_other_threads_begin_and_end() -> None:
    store = served(EnvVarBackend("HOLDS_MODE"))  # which keeps nothing, so this process has to

    async def job(name: str) -> None:
        for _ in range(200):
            async with maintenance_mode_on(store, message=name):
                assert name in [hold.message for hold in (await get_maintenance_state(store)).holds]

    run_in_threads(lambda number: anyio.run(job, str(number), backend=loop_for(number)), 8)


def test_block_that_begins_while_that_of_another_thread_ends_is_kept() -> None:
    waiting, looked_at, begun, end = (threading.Event() for _ in range(4))

    class Meeting(EnvVarBackend):
        async def update_state(self, change: Callable[[MaintenanceState], MaintenanceState]) -> MaintenanceState:
            if threading.current_thread() is other:
                waiting.set()
                looked_at.wait(30)
            return await super().update_state(change)

    class Holds(tuple[Hold, ...]):
        __slots__ = ()

        def __iter__(self) -> Iterator[Hold]:
            if not looked_at.is_set():
                looked_at.set()
                begun.wait(0.2)  # in vain, if a lock keeps the other thread out
            return super().__iter__()

    store = served(Meeting("HOLDS_MODE"))

    async def other_job() -> None:
        async with maintenance_mode_on(store):
            begun.set()
            end.wait(30)

    async def job() -> bool:
        async with maintenance_mode_on(store):
            other.start()
            assert waiting.wait(30)
            ledger = holds.ledgers[store]
            ledger.holds = Holds(ledger.holds)
        assert begun.wait(30)
        return await get_maintenance_mode(store)

    other = threading.Thread(target=anyio.run, args=(other_job,))
    try:
        assert anyio.run(job)
    finally:
        end.set()
        other.join(30)


async def test_block_in_a_worker_thread_runs_on_the_event_loop_of_the_thread() -> None:
    store = MemoryBackend()

    async def hold() -> bool:
        async with maintenance_mode_on(store):
            return await get_maintenance_mode(store)

    assert await anyio.to_thread.run_sync(from_thread.run, hold)


def test_block_begins_although_another_was_left_half_entered_in_a_closed_loop() -> None:
    store = DetailedStore()

    async def enter() -> bool:
        with anyio.fail_after(30):
            async with maintenance_mode_on(store):
                return await get_maintenance_mode(store)

    store.before_write = lambda: asyncio.sleep(60)
    left = Abandoned(enter())
    store.before_write = checkpoint
    assert anyio.run(enter)
    left.let_go()
    holds.ledgers.clear()


async def test_block_ends_in_its_own_process_although_a_link_to_its_file_has_changed(tmp_path: Path) -> None:
    for release in ("1", "2"):
        (tmp_path / release).mkdir()
    current = tmp_path / "current"
    current.symlink_to(tmp_path / "1")
    backend = LocalFileBackend(current / "switch")
    async with maintenance_mode_on(backend):
        current.unlink()
        current.symlink_to(tmp_path / "2")
        assert await get_maintenance_mode(backend)
    assert not await get_maintenance_mode(backend)
    assert not holds.ledgers


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no forks")
def test_forked_process_has_no_block_of_its_parent(tmp_path: Path) -> None:
    script = """
        import asyncio, os, sys
        from fastapi_maintenance import LocalFileBackend, get_maintenance_mode, maintenance_mode_on

        backend = LocalFileBackend(sys.argv[1])
        reader, writer = os.pipe()

        async def main():
            async with maintenance_mode_on(backend):
                child = os.fork()
                if child == 0:
                    os.read(reader, 1)  # until the block of the parent has ended
                    asyncio.events._set_running_loop(None)
                    os._exit(asyncio.new_event_loop().run_until_complete(get_maintenance_mode(backend)))
            os.write(writer, b"1")
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

        sys.exit(asyncio.run(main()))
    """
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(script), str(tmp_path / "switch")],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0
