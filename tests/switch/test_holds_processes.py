"""Blocks of several threads and event loops, and of processes that fork or change where a link points."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Coroutine, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import anyio
import pytest
from anyio import fail_after, from_thread
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

pytestmark = pytest.mark.anyio


# Threads


def run_in_threads(job: Callable[[int], None], count: int) -> None:
    """Run a job in as many threads and raise the first of their errors."""
    errors: list[BaseException] = []

    def run(number: int) -> None:
        try:
            job(number)
        except BaseException as error:  # noqa: BLE001 -- it is raised below
            errors.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert [False] * count == [thread.is_alive() for thread in threads]
    if errors:
        raise errors[0]


def loop_for(number: int) -> str:
    return ("asyncio", "trio")[number % 2]


@pytest.mark.parametrize(("make", "times"), [(memory, 50), (file, 8), (bare, 8)])
def test_blocks_of_several_threads_with_their_own_event_loops_add_up(make: Make, times: int, tmp_path: Path) -> None:
    store = make(tmp_path)

    async def job() -> None:
        for _ in range(times):
            async with maintenance_mode_on(store):
                assert await get_maintenance_mode(store)
                assert status_of(await kept_by(store), datetime.now(UTC)).active

    run_in_threads(lambda number: anyio.run(job, backend=loop_for(number)), 6)
    assert MaintenanceState() == anyio.run(kept_by, store)


@pytest.fixture
def _hasty_threads() -> Iterator[None]:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("_hasty_threads")
def test_no_block_is_forgotten_while_those_of_other_threads_begin_and_end() -> None:
    store = served(EnvVarBackend("HOLDS_MODE"))  # which keeps nothing, so that this process has to

    async def job(name: str) -> None:
        for _ in range(200):
            async with maintenance_mode_on(store, message=name):
                assert name in [hold.message for hold in (await get_maintenance_state(store)).holds]

    run_in_threads(lambda number: anyio.run(job, str(number), backend=loop_for(number)), 8)


def test_a_block_that_begins_at_the_moment_when_that_of_another_thread_ends_is_not_forgotten() -> None:
    at_its_turn, looked_at, begun, end = (threading.Event() for _ in range(4))

    class Meeting(EnvVarBackend):
        async def update_state(self, change: Callable[[MaintenanceState], MaintenanceState]) -> MaintenanceState:
            if threading.current_thread() is other:
                at_its_turn.set()
                looked_at.wait(30)
            return await super().update_state(change)

    class Holds(tuple[Hold, ...]):
        __slots__ = ()

        def __iter__(self) -> Iterator[Hold]:
            if not looked_at.is_set():
                looked_at.set()
                begun.wait(0.2)  # in vain, as long as nobody changes what is just being changed
            return super().__iter__()

    store = served(Meeting("HOLDS_MODE"))

    async def other_job() -> None:
        async with maintenance_mode_on(store):
            begun.set()
            end.wait(30)

    async def job() -> bool:
        async with maintenance_mode_on(store):
            other.start()
            assert at_its_turn.wait(30)
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


def test_a_block_of_a_worker_thread_runs_on_the_event_loop_that_it_belongs_to() -> None:
    store = MemoryBackend()

    async def hold() -> bool:
        async with maintenance_mode_on(store):
            return await get_maintenance_mode(store)

    async def main() -> bool:
        return await anyio.to_thread.run_sync(from_thread.run, hold)

    assert anyio.run(main)


# Event loops that were closed


def test_a_block_begins_although_another_was_left_in_a_loop_that_was_closed_while_it_was_entered() -> None:
    store = DetailedStore()

    async def hang() -> None:
        await asyncio.sleep(60)

    async def enter() -> None:
        async with maintenance_mode_on(store):
            pytest.fail("the store hangs")

    store.before_write = hang
    loop = asyncio.new_event_loop()
    left = loop.create_task(enter())
    loop.run_until_complete(asyncio.sleep(0.01))
    loop.close()
    store.before_write = checkpoint

    async def work() -> bool:
        with fail_after(30):
            async with maintenance_mode_on(store):
                return await get_maintenance_mode(store)

    assert anyio.run(work)
    abandon(left)


def abandon(task: asyncio.Task[None]) -> None:
    """Let go of a task whose loop is closed, without the word that Python has to say to that."""
    task._log_destroy_pending = False  # type: ignore[attr-defined]  # asyncio's own
    coroutine = cast("Coroutine[Any, Any, None]", task.get_coro())
    with contextlib.suppress(Exception):  # what awaits on its way out cannot
        coroutine.close()
    holds.ledgers.clear()


async def test_a_link_that_is_pointed_elsewhere_within_a_block_opens_nothing_in_its_process(tmp_path: Path) -> None:
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


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system knows no forks")
def test_a_process_that_is_forked_within_a_block_has_none_of_its_own(tmp_path: Path) -> None:
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
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(script), str(tmp_path / "switch")],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=60,
        check=False,
    )
    assert 0 == done.returncode
