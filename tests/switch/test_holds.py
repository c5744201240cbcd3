"""Blocks of `maintenance_mode_on()` and `maintenance_mode_off()`: nested, as decorators, in threads and processes."""

from __future__ import annotations

import asyncio
import inspect
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import anyio
import pytest
from anyio.lowlevel import checkpoint
from fastapi import FastAPI

from fastapi_maintenance import (
    EnvVarBackend,
    Hold,
    LocalFileBackend,
    MaintenanceState,
    MemoryBackend,
    get_maintenance_mode,
    maintenance_mode_off,
    maintenance_mode_on,
    status_of,
)
from fastapi_maintenance._helpers import clock
from fastapi_maintenance._switch import holds
from fastapi_maintenance.state import add_hold
from tests.middleware.test_failures import app_on, status
from tests.middleware.test_open_websockets import Client, Talk, service
from tests.stores import DetailedStore, DrainableStore, ReadOnlySwitch, be_down
from tests.support import ROOT, client, eventually
from tests.switch.blocks import ONLY_ASYNCIO, Make, bare, file, kept_by, memory, messages_of, served
from tests.switch.lifespans import Abandoned, cancel, living, once

pytestmark = pytest.mark.anyio


async def test_block_with_holds_of_another_process_keeps_its_place_in_their_order() -> None:
    store, other = MemoryBackend(), Hold(id="other", on=True)
    apps = [app_on(store, enabled=enabled) for enabled in (None, True, False)]

    async def seen() -> list[object]:
        return [await get_maintenance_mode(store), *[await status(app) for app in apps]]

    async with maintenance_mode_off(store):
        await store.update_state(lambda state: add_hold(state, other, clock.now()))
        with_both = await seen()
        (own, _) = store.peek().holds
        lapsed = replace(own, expires_at=clock.now())
        await store.update_state(lambda _: MaintenanceState(holds=(other, lapsed)))
        with_own_newest_and_lapsed = await seen()
        await store.update_state(lambda _: MaintenanceState(holds=(other,)))
        with_own_lost = await seen()
    assert with_both == [True, 503, 503, 503]
    assert with_own_newest_and_lapsed == with_own_lost == [False, 200, 200, 200]
    assert await seen() == [True, 503, 503, 200]


async def test_websocket_in_a_block_that_a_newer_block_blocks_is_closed() -> None:
    switch, talk, visitor = ReadOnlySwitch(), Talk(), Client()
    app = service(switch, talk)
    async with living(app), maintenance_mode_off(switch), anyio.create_task_group() as group:
        group.start_soon(visitor.connect, app)
        await talk.begun.wait()
        await anyio.sleep(0.05)
        async with maintenance_mode_on(switch):
            await visitor.is_closed()
    assert talk.received == [1001, "cleaned up"]
    visitor.close()


async def test_block_can_be_used_again_but_not_while_it_is_open() -> None:
    store = MemoryBackend()
    block = maintenance_mode_on(store)
    ids = []
    for _ in range(2):
        async with block:
            with pytest.raises(RuntimeError, match="already open"):
                await block.__aenter__()
            ids += [hold.id for hold in (await store.get_state()).holds]
        assert not await get_maintenance_mode(store)
    assert len(set(ids)) == len(ids) == 2


async def test_block_that_another_task_is_entering_refuses_to_be_entered() -> None:
    store = DrainableStore()
    block, results = maintenance_mode_on(store, drain=2, workers=0), list[str]()

    async def enter() -> None:
        try:
            async with block:
                results.append("entered")
        except RuntimeError as error:
            results.append(str(error)[:26])

    async with anyio.create_task_group() as group:
        group.start_soon(enter)
        group.start_soon(enter)
    assert (results, (await store.get_state()).holds) == (["this block is already open", "entered"], ())


async def test_function_that_an_open_block_decorates_opens_another_block() -> None:
    store = MemoryBackend()
    block = maintenance_mode_on(store)

    @block
    async def count_holds() -> int:
        return len((await store.get_state()).holds)

    async with block:
        assert await count_holds() == 2


@ONLY_ASYNCIO
async def test_block_whose_task_is_cancelled_while_it_ends_says_that_its_hold_was_released() -> None:
    store = DetailedStore()
    block = maintenance_mode_on(store)

    async def job() -> None:
        async with block:
            once(store, "before_write", cancel_task)

    async def cancel_task() -> None:
        task.cancel()
        await checkpoint()

    task = asyncio.create_task(job())
    with pytest.raises(asyncio.CancelledError):
        await task
    assert block.is_released


@ONLY_ASYNCIO
async def test_block_of_a_cancelled_task_ends_although_its_store_raises_cancelled_errors_of_its_own(
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = DetailedStore()

    async def job() -> None:
        async with maintenance_mode_on(store):
            store.before_write = cancel  # as where Ctrl-C has cancelled the task of its client too
            await asyncio.sleep(60)

    task = asyncio.create_task(job())
    await eventually(lambda: store.before_write is cancel)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert messages_of(caplog)[-1] == "A hold could not be removed from DetailedStore"
    store.come_back()
    holds.ledgers.clear()


async def test_block_used_again_whose_hold_cannot_be_released_does_not_say_that_it_was() -> None:
    store = DetailedStore()
    block = maintenance_mode_on(store)
    async with block:
        pass
    assert block.is_released
    with pytest.raises(ConnectionError):
        async with block:
            store.before_write = be_down
    assert not block.is_released


async def test_backend_that_cannot_be_hashed_is_one_switch_by_its_identity() -> None:
    class Unhashable(ReadOnlySwitch):
        __hash__ = None  # type: ignore[assignment]  # as in a dataclass with equality

    one, other = served(Unhashable()), Unhashable()
    async with maintenance_mode_on(one):
        assert (await get_maintenance_mode(one), await get_maintenance_mode(other)) == (True, False)


async def test_block_without_a_backend_acts_on_the_current_one_when_it_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    block = maintenance_mode_on()
    served(EnvVarBackend())
    async with block:
        assert await get_maintenance_mode(EnvVarBackend())
    monkeypatch.setenv("FASTAPI_MAINTENANCE_MODE", "1")
    async with maintenance_mode_off():
        assert not await get_maintenance_mode(EnvVarBackend())


def test_block_with_an_invalid_backend_or_function_is_refused_at_once() -> None:
    def job() -> None: ...

    with pytest.raises(TypeError, match="backend must be an object"):
        maintenance_mode_on(1)  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises(ValueError, match=r"backend must begin with one of env: file: .*, got 'mode.txt'"):
        maintenance_mode_on("mode.txt")
    with pytest.raises(TypeError, match=r"the decorated function must be an async function, got function .*job"):
        maintenance_mode_on(MemoryBackend())(job)  # type: ignore[arg-type]  # wrong on purpose


# As a decorator


async def test_each_call_of_a_decorated_function_is_a_block_of_its_own() -> None:
    store = MemoryBackend()
    both, messages = anyio.Event(), []

    @maintenance_mode_on(store, message="Copying")
    async def job() -> None:
        messages.append([hold.message for hold in store.peek().holds])
        if len(messages) == 2:
            both.set()
        await both.wait()

    with anyio.fail_after(30):
        async with anyio.create_task_group() as group:
            group.start_soon(job)
            group.start_soon(job)
    assert messages == [["Copying"], ["Copying", "Copying"]]
    assert store.peek() == MaintenanceState()


async def test_decorated_function_keeps_its_signature_and_result() -> None:
    store = MemoryBackend()

    async def add(first: int, step: int = 1) -> list[int]:
        """Add."""
        return [first + step, len(store.peek().holds)]

    held = maintenance_mode_on(store)(add)
    app = FastAPI()
    app.get("/jobs/{first}")(held)
    async with client(app) as http:
        response = await http.get("/jobs/7?step=2")
    assert (response.json(), await held(7)) == ([9, 1], [8, 1])
    assert inspect.signature(held) == inspect.signature(add)
    assert (held.__name__, held.__doc__, inspect.iscoroutinefunction(held)) == ("add", "Add.", True)


# In several threads, event loops and processes


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


def test_block_begins_although_another_was_left_half_entered_in_a_closed_loop() -> None:
    store = DetailedStore()

    async def enter() -> bool:
        with anyio.fail_after(30):
            async with maintenance_mode_on(store):
                return await get_maintenance_mode(store)

    store.before_write = lambda: asyncio.sleep(60)
    first, second = Abandoned(enter()), Abandoned(enter())
    first.let_go()  # which must not look as if the lock were free of the second
    store.before_write = checkpoint
    assert anyio.run(enter)
    second.let_go()
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
