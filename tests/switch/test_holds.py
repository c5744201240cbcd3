"""Blocks of `maintenance_mode_on()` and `maintenance_mode_off()`: what holds, for how long, and what comes after."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Coroutine, Iterator
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path
from typing import Any, cast

import anyio
import pytest
from anyio import CancelScope, fail_after, from_thread
from anyio.lowlevel import checkpoint
from fastapi import FastAPI
from filelock import FileLock

from fastapi_maintenance import (
    DetailedStateBackend,
    EnvVarBackend,
    Hold,
    InvalidStateError,
    LocalFileBackend,
    MaintenanceState,
    MemoryBackend,
    NotSupportedError,
    StateBackend,
    get_maintenance_mode,
    get_maintenance_state,
    is_active,
    maintenance_middleware,
    maintenance_mode_off,
    maintenance_mode_on,
    set_maintenance_mode,
)
from fastapi_maintenance._switch import block, holds
from fastapi_maintenance.state import add_hold
from fastapi_maintenance.testing import moved_clock
from tests.stores import BareSwitch, DetailedStore, ReadOnlySwitch, be_down
from tests.support import ROOT, client, eventually

pytestmark = pytest.mark.anyio

ONLY_ASYNCIO = pytest.mark.parametrize("anyio_backend", ["asyncio"])
"""For what asyncio has and trio has not: a cancellation of a task that knows no scopes."""

LOGGER = "fastapi_maintenance"


class BodyError(Exception):
    """What goes wrong in a block."""


def memory(_folder: Path) -> StateBackend:
    return MemoryBackend()


def file(folder: Path) -> StateBackend:
    return LocalFileBackend(folder / "mode")


def environment(_folder: Path) -> StateBackend:
    return EnvVarBackend("HOLDS_MODE")


def bare(_folder: Path) -> StateBackend:
    return BareSwitch()


def read_only(_folder: Path) -> StateBackend:
    return ReadOnlySwitch()


def detailed(_folder: Path) -> StateBackend:
    return DetailedStore()


Make = Callable[[Path], StateBackend]
any_backend = pytest.mark.parametrize("make", [memory, file, environment, bare, read_only, detailed])
any_hooked = pytest.mark.parametrize("make", [bare, detailed])


async def kept_by(store: StateBackend) -> MaintenanceState:
    """Return what the store itself keeps, without the help of this process."""
    if isinstance(store, DetailedStateBackend):
        return await store.get_state()
    return MaintenanceState(active=await store.get_value())


def messages_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == LOGGER]


# Overlapping and nested


@any_backend
async def test_a_block_holds_maintenance_on_and_then_off_again(make: Make, tmp_path: Path) -> None:
    store = make(tmp_path)
    before = await kept_by(store)
    async with maintenance_mode_on(store):
        during = await get_maintenance_mode(store)
    assert (False, True, False) == (before.active, during, await get_maintenance_mode(store))
    assert before == await kept_by(store)


@any_backend
async def test_a_block_that_ends_first_does_not_lift_the_maintenance_of_another(make: Make, tmp_path: Path) -> None:
    store = make(tmp_path)
    first, second = maintenance_mode_on(store), maintenance_mode_on(store)
    await first.__aenter__()
    await second.__aenter__()
    await first.__aexit__(None, None, None)
    between = await get_maintenance_mode(store)
    await second.__aexit__(None, None, None)
    assert (True, False) == (between, await get_maintenance_mode(store))


@any_backend
async def test_the_newest_open_block_decides(make: Make, tmp_path: Path) -> None:
    store = make(tmp_path)
    seen = []
    async with maintenance_mode_on(store):
        async with maintenance_mode_off(store):
            seen.append(await get_maintenance_mode(store))
            async with maintenance_mode_on(store):
                seen.append(await get_maintenance_mode(store))
            seen.append(await get_maintenance_mode(store))
        seen.append(await get_maintenance_mode(store))
    assert [False, True, False, True] == seen


@any_backend
async def test_the_state_shows_the_open_blocks_with_the_newest_last(make: Make, tmp_path: Path) -> None:
    store = make(tmp_path)
    async with maintenance_mode_on(store), maintenance_mode_off(store):
        state = await get_maintenance_state(store)
    assert [True, False] == [hold.active for hold in state.holds]
    assert () == (await get_maintenance_state(store)).holds


async def test_a_block_of_another_process_is_seen_through_the_store(tmp_path: Path) -> None:
    here, there = LocalFileBackend(tmp_path / "mode"), LocalFileBackend(tmp_path / "mode")
    async with maintenance_mode_on(here, message="Copying"):
        seen = await get_maintenance_state(there)
        assert await get_maintenance_mode(there)
    assert ["Copying"] == [hold.message for hold in seen.holds]
    assert not await get_maintenance_mode(there)


async def test_requests_are_blocked_while_a_block_runs_although_the_store_says_off() -> None:
    store = ReadOnlySwitch()
    app = FastAPI()
    app.add_api_route("/", lambda: "open")
    async with client(maintenance_middleware(backend=store)(app)) as http:
        async with maintenance_mode_on(store):
            during = await http.get("/")
        after = await http.get("/")
    assert (503, 200) == (during.status_code, after.status_code)


async def test_requests_pass_while_a_block_holds_off_although_the_store_says_on() -> None:
    store = ReadOnlySwitch(value=True)
    app = FastAPI()
    app.add_api_route("/", lambda: "open")
    async with client(maintenance_middleware(backend=store)(app)) as http:
        async with maintenance_mode_off(store):
            during = await http.get("/")
        after = await http.get("/")
    assert (200, 503) == (during.status_code, after.status_code)


async def test_a_block_that_is_open_cannot_be_entered_again_and_stays_open() -> None:
    store = MemoryBackend()
    block = maintenance_mode_on(store)
    async with block:
        with pytest.raises(RuntimeError, match="open already"):
            await block.__aenter__()
        assert await get_maintenance_mode(store)
    assert not await get_maintenance_mode(store)


async def test_a_block_that_is_closed_can_be_used_again() -> None:
    store = MemoryBackend()
    block = maintenance_mode_on(store)
    seen = []
    for _ in range(2):
        async with block:
            seen.append([hold.id for hold in (await store.get_state()).holds])
    assert [1, 1] == [len(ids) for ids in seen]
    assert seen[0] != seen[1]


async def test_a_backend_that_cannot_be_hashed_is_told_apart_by_its_identity() -> None:
    class Unhashable(ReadOnlySwitch):
        __hash__ = None  # type: ignore[assignment]  # as a dataclass with equality has it

    one, other = Unhashable(), Unhashable()
    async with maintenance_mode_on(one):
        assert (True, False) == (await get_maintenance_mode(one), await get_maintenance_mode(other))


async def test_a_block_without_a_backend_acts_on_the_one_that_is_meant_where_it_begins(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    block = maintenance_mode_on()
    async with block:
        assert await get_maintenance_mode(EnvVarBackend())
    monkeypatch.setenv("FASTAPI_MAINTENANCE_MODE", "1")
    async with maintenance_mode_off():
        assert not await get_maintenance_mode(EnvVarBackend())


def test_what_is_no_backend_is_refused_when_the_block_is_made() -> None:
    with pytest.raises(TypeError, match="backend must be an object"):
        maintenance_mode_on(1)  # type: ignore[arg-type]  # what is refused
    with pytest.raises(ValueError, match=r"backend must begin with one of env: file: .*, got 'mode.txt'"):
        maintenance_mode_on("mode.txt")


# Exceptions and cancellation


@any_backend
async def test_an_exception_comes_out_as_it_is_and_lifts_the_maintenance(make: Make, tmp_path: Path) -> None:
    store = make(tmp_path)
    raised = BodyError()
    with pytest.raises(BodyError) as caught:
        async with maintenance_mode_on(store):
            raise raised
    assert raised is caught.value
    assert MaintenanceState() == await get_maintenance_state(store)


@any_backend
async def test_a_cancelled_block_lifts_its_maintenance(make: Make, tmp_path: Path) -> None:
    store = make(tmp_path)
    with CancelScope() as scope:
        async with maintenance_mode_on(store):
            scope.cancel()
            await anyio.sleep_forever()
    assert scope.cancelled_caught
    assert MaintenanceState() == await kept_by(store)


@any_backend
async def test_a_block_that_is_cancelled_before_it_begins_never_runs_and_holds_nothing(
    make: Make, tmp_path: Path
) -> None:
    store = make(tmp_path)
    with CancelScope() as scope:
        scope.cancel()
        async with maintenance_mode_on(store):
            await checkpoint()
            pytest.fail("a cancelled block went on")
    assert scope.cancelled_caught
    assert MaintenanceState() == await kept_by(store)


@any_hooked
@pytest.mark.parametrize("moment", ["before_write", "after_write"])
async def test_a_block_that_is_cancelled_while_it_is_entered_holds_nothing(make: Make, moment: str) -> None:
    store = make(Path())
    with CancelScope() as scope:

        async def cancel() -> None:
            setattr(store, moment, checkpoint)
            scope.cancel()
            await checkpoint()

        setattr(store, moment, cancel)
        async with maintenance_mode_on(store):
            pytest.fail("a block was entered after all")
    assert scope.cancelled_caught
    assert MaintenanceState() == await kept_by(store)


@any_hooked
@pytest.mark.parametrize("moment", ["before_write", "after_write"])
async def test_a_block_that_is_cancelled_while_it_ends_lifts_its_maintenance(make: Make, moment: str) -> None:
    store = make(Path())
    with CancelScope() as scope:
        async with maintenance_mode_on(store):

            async def cancel() -> None:
                setattr(store, moment, checkpoint)
                scope.cancel()
                await checkpoint()

            setattr(store, moment, cancel)
    assert MaintenanceState() == await kept_by(store)


async def test_a_block_that_is_cancelled_while_it_waits_for_its_turn_holds_nothing() -> None:
    store = DetailedStore()
    writing, go_on, scope = anyio.Event(), anyio.Event(), CancelScope()
    entered = []

    async def wait() -> None:
        store.before_write = checkpoint
        writing.set()
        await go_on.wait()

    async def hold(name: str) -> None:
        async with maintenance_mode_on(store):
            entered.append(name)

    async def hold_in_scope() -> None:
        with scope:
            await hold("second")

    store.before_write = wait
    with fail_after(5):
        async with anyio.create_task_group() as group:
            group.start_soon(hold, "first")
            await writing.wait()
            group.start_soon(hold_in_scope)
            await anyio.sleep(0.01)
            scope.cancel()
            go_on.set()
    assert (["first"], True) == (entered, scope.cancelled_caught)
    assert MaintenanceState() == await store.get_state()


@ONLY_ASYNCIO
@any_backend
async def test_a_task_that_is_cancelled_in_its_block_lifts_its_maintenance(make: Make, tmp_path: Path) -> None:
    store = make(tmp_path)
    begun = asyncio.Event()

    async def job() -> None:
        async with maintenance_mode_on(store):
            begun.set()
            await asyncio.sleep(60)

    task = asyncio.create_task(job())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert MaintenanceState() == await get_maintenance_state(store)


@ONLY_ASYNCIO
@any_hooked
async def test_a_task_that_is_cancelled_while_its_block_ends_lifts_its_maintenance_first(make: Make) -> None:
    store = make(Path())
    ending = asyncio.Event()

    async def hang_once() -> None:
        setattr(store, "before_write", checkpoint)  # noqa: B010 -- a hook that not every backend has
        ending.set()
        await asyncio.sleep(60)

    async def job() -> None:
        async with maintenance_mode_on(store):
            setattr(store, "before_write", hang_once)  # noqa: B010 -- as above

    task = asyncio.create_task(job())
    await asyncio.wait_for(ending.wait(), 5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 5)
    assert MaintenanceState() == await kept_by(store)


@ONLY_ASYNCIO
async def test_a_write_to_a_file_that_a_cancelled_task_has_left_behind_does_not_come_after_its_release(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting, overtaken, over = threading.Event(), threading.Event(), threading.Event()

    class FirstComesLast(FileLock):
        def acquire(self, *args: object, **settings: object) -> object:  # type: ignore[override]  # passed on as it is
            self.is_first = not waiting.is_set()
            waiting.set()
            if self.is_first:
                overtaken.wait(5)
            return super().acquire(*args, **settings)  # type: ignore[arg-type]  # as above

        def release(self, force: bool = False) -> None:
            super().release(force)
            if self.is_first:
                over.set()

    monkeypatch.setattr("filelock.FileLock", FirstComesLast)
    store = LocalFileBackend(tmp_path / "mode")

    async def job() -> None:
        async with maintenance_mode_on(store):
            pytest.fail("the block was entered")

    task = asyncio.create_task(job())
    assert await asyncio.to_thread(waiting.wait, 5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    overtaken.set()
    assert await asyncio.to_thread(over.wait, 5)
    assert MaintenanceState() == store.peek()


@ONLY_ASYNCIO
async def test_a_task_is_not_left_cancelled_by_a_block_that_a_scope_cancelled() -> None:
    with anyio.move_on_after(0.01) as scope:
        async with maintenance_mode_on(DetailedStore(), lease=60):
            await anyio.sleep_forever()
    await asyncio.sleep(0)
    task = asyncio.current_task()
    assert (True, 0) == (scope.cancelled_caught, task.cancelling() if sys.version_info >= (3, 11) and task else 0)


# As a decorator


async def test_a_decorated_function_holds_maintenance_while_a_call_of_it_runs() -> None:
    store = MemoryBackend()

    @maintenance_mode_on(store, message="Copying")
    async def job() -> str | None:
        return (await get_maintenance_state(store)).holds[0].message

    assert ("Copying", False) == (await job(), await get_maintenance_mode(store))


async def test_each_call_of_a_decorated_function_is_a_block_of_its_own() -> None:
    store = MemoryBackend()
    both, counts = anyio.Event(), []

    @maintenance_mode_on(store)
    async def job() -> None:
        counts.append(len(store.peek().holds))
        if len(counts) == 2:
            both.set()
        await both.wait()

    with fail_after(5):
        async with anyio.create_task_group() as group:
            group.start_soon(job)
            group.start_soon(job)
    assert [1, 2] == counts
    assert () == store.peek().holds


async def test_a_decorated_function_keeps_its_signature_and_name_and_what_it_returns() -> None:
    async def add(first: int, *, second: int = 2) -> int:
        """Add."""
        return first + second

    held = maintenance_mode_off(MemoryBackend())(add)
    assert inspect.signature(add) == inspect.signature(held)
    assert ("add", "Add.", True) == (held.__name__, held.__doc__, inspect.iscoroutinefunction(held))
    assert 5 == await held(3)


async def test_an_exception_of_a_decorated_function_comes_out_and_its_maintenance_is_lifted() -> None:
    store = MemoryBackend()

    @maintenance_mode_on(store, lease=60)
    async def job() -> None:
        raise BodyError

    with pytest.raises(BodyError):
        await job()
    assert MaintenanceState() == store.peek()


async def test_a_decorated_endpoint_receives_its_parameters() -> None:
    store = MemoryBackend()
    app = FastAPI()

    @app.get("/jobs/{number}")
    @maintenance_mode_on(store)
    async def job(number: int, step: int = 1) -> list[int]:
        return [number, step, len(store.peek().holds)]

    async with client(app) as http:
        response = await http.get("/jobs/7?step=2")
    assert [7, 2, 1] == response.json()


def test_a_function_that_is_not_async_is_refused_when_it_is_decorated() -> None:
    def job() -> None: ...

    with pytest.raises(TypeError, match=r"the decorated function must be an async function, got function .*job"):
        maintenance_mode_on(MemoryBackend())(job)  # type: ignore[arg-type]  # what is refused


def test_a_decorator_without_its_parentheses_is_refused() -> None:
    async def job() -> None: ...

    with pytest.raises(TypeError, match="backend must be an object"):
        maintenance_mode_on(job)  # type: ignore[arg-type]  # what is refused


# Leases


@pytest.mark.parametrize("lease", [60, 60.0, timedelta(minutes=1)])
async def test_a_lease_is_kept_as_the_time_at_which_the_hold_expires(lease: float | timedelta) -> None:
    store = MemoryBackend()
    before = datetime.now(timezone.utc)
    async with maintenance_mode_on(store, lease=lease):
        (hold,) = store.peek().holds
    assert hold.expires_at is not None
    assert before <= hold.expires_at - timedelta(minutes=1) <= datetime.now(timezone.utc)


async def test_a_hold_without_a_lease_does_not_expire() -> None:
    store = MemoryBackend()
    async with maintenance_mode_off(store):
        assert [None] == [hold.expires_at for hold in store.peek().holds]


def after_next_write(store: DetailedStore) -> anyio.Event:
    """Return an event that comes when the store has been written."""
    written = anyio.Event()

    async def tell() -> None:
        written.set()
        await checkpoint()

    store.after_write = tell
    return written


async def test_a_lease_is_renewed_while_the_block_runs_and_not_after() -> None:
    store = DetailedStore()
    async with maintenance_mode_off(store, lease=0.03):
        (first,) = (await store.get_state()).holds
        with fail_after(5):
            await after_next_write(store).wait()
        (second,) = (await store.get_state()).holds
    late = after_next_write(store)
    await anyio.sleep(0.04)
    assert (first.id, first.active) == (second.id, second.active)
    assert first.expires_at is not None
    assert second.expires_at is not None
    assert first.expires_at < second.expires_at
    assert not late.is_set()


async def test_a_hold_that_others_dropped_comes_back_as_the_oldest_when_it_is_renewed() -> None:
    store = DetailedStore()
    async with maintenance_mode_on(store, message="old", lease=0.03):
        await store.update_state(lambda _: MaintenanceState())
        async with maintenance_mode_off(store):
            with fail_after(5):
                await after_next_write(store).wait()
            assert [True, False] == [hold.active for hold in (await store.get_state()).holds]


async def test_the_hold_of_a_process_that_died_runs_out_and_is_dropped_by_a_block_an_hour_later(tmp_path: Path) -> None:
    program = """
        import sys
        import anyio
        from fastapi_maintenance import LocalFileBackend, maintenance_mode_on

        async def job():
            async with maintenance_mode_on(LocalFileBackend(sys.argv[1]), lease=1.5):
                print("held", flush=True)
                await anyio.sleep_forever()

        anyio.run(job)
    """
    store = LocalFileBackend(tmp_path / "mode")
    process = subprocess.Popen(  # noqa: ASYNC220 -- nothing else runs meanwhile
        [sys.executable, "-c", textwrap.dedent(program), store.file_path], cwd=ROOT, stdout=subprocess.PIPE
    )
    with process:
        assert process.stdout is not None
        assert b"held" == process.stdout.readline().strip()
        held = await get_maintenance_mode(store)
        os.kill(process.pid, signal.SIGKILL)
    (hold,) = store.peek().holds
    assert hold.expires_at is not None
    assert held
    assert is_active(store.peek(), hold.expires_at - timedelta.resolution)
    with fail_after(10):
        while await get_maintenance_mode(store):  # noqa: ASYNC110 -- the clock is waited for
            await anyio.sleep(0.02)
    async with maintenance_mode_off(store):
        assert hold.id in [other.id for other in store.peek().holds]
    with moved_clock() as clock:
        clock.move(hours=1, seconds=2)
        async with maintenance_mode_on(store):
            assert hold.id not in [other.id for other in store.peek().holds]


class SlowStore(DetailedStore):
    """A store that is far away: what is written takes as long to get there as the answer takes to come back."""

    def __init__(self, one_way: float) -> None:
        super().__init__()
        self.one_way = one_way

    async def update_state(self, change: Callable[[MaintenanceState], MaintenanceState]) -> MaintenanceState:
        await anyio.sleep(self.one_way)
        state = await super().update_state(change)
        await anyio.sleep(self.one_way)
        return state


@pytest.mark.parametrize("share", [0.02, 0.2, 0.35])
async def test_a_lease_on_a_slow_store_never_runs_out_while_the_block_runs(
    share: float, caplog: pytest.LogCaptureFixture
) -> None:
    """A renewal takes twice this share of the lease."""
    lease = 2.0
    store = SlowStore(share * lease)
    async with maintenance_mode_on(store, lease=lease):
        end = anyio.current_time() + 2 * lease
        while anyio.current_time() < end:
            assert await store.get_value()
            await anyio.sleep(0.002)
    assert [] == messages_of(caplog)


async def test_a_lease_begins_when_the_hold_is_written_however_long_that_took() -> None:
    store = SlowStore(1.0)
    async with maintenance_mode_on(store, lease=1.9):
        assert await store.get_value()


async def test_a_host_whose_clock_is_ahead_leaves_the_holds_of_others_in_their_place() -> None:
    store = MemoryBackend()
    async with maintenance_mode_on(store, message="first", lease=0.5):
        there = datetime.now(timezone.utc) + timedelta(minutes=30)
        await store.update_state(lambda state: add_hold(state, Hold(id="second", active=True), there))
        (before, _) = store.peek().holds
        await eventually(lambda: is_renewed(store, before))
        assert ["first", None] == [hold.message for hold in store.peek().holds]


async def is_renewed(store: MemoryBackend, before: Hold) -> bool:
    return store.peek().holds[0] not in (before, None) and store.peek().holds[0].id == before.id


class ClockedStore(DetailedStore):
    """A store with a clock of its own."""

    def __init__(self, behind_by: timedelta) -> None:
        super().__init__()
        self.behind_by = behind_by
        self.asked = anyio.Event()

    async def now(self) -> datetime:
        self.asked.set()
        await checkpoint()
        return datetime.now(timezone.utc) - self.behind_by


@pytest.mark.parametrize(
    ("behind_by", "expected"),
    [
        (0, None),
        (15, None),
        (-15, None),
        (25, "The clock of this host is 25.0 seconds ahead of that of"),
        (-25, "The clock of this host is 25.0 seconds behind that of"),
    ],
)
async def test_a_clock_that_differs_by_more_than_a_lease_bears_is_warned_of_once(
    behind_by: int, expected: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    store = ClockedStore(timedelta(seconds=behind_by))
    for _ in range(2):
        async with maintenance_mode_on(store, lease=60):
            with fail_after(5):
                await store.asked.wait()
            await anyio.sleep(0.01)
        store.asked = anyio.Event()
    messages = messages_of(caplog)
    assert ([] if expected is None else [expected]) == [message[: len(expected or "")] for message in messages]


async def test_a_clock_that_cannot_be_read_is_nothing_to_complain_of(caplog: pytest.LogCaptureFixture) -> None:
    class Clockless(ClockedStore):
        async def now(self) -> datetime:
            self.asked.set()
            raise ConnectionError

    store = Clockless(timedelta())
    async with maintenance_mode_on(store, lease=60):
        await store.asked.wait()
        await anyio.sleep(0.01)
    assert [] == messages_of(caplog)


async def test_a_renewal_that_fails_is_logged_and_the_block_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    store = DetailedStore()
    async with maintenance_mode_on(store, lease=0.9):
        failed = anyio.Event()

        async def fail_once() -> None:
            store.before_write = checkpoint
            failed.set()
            await be_down()

        store.before_write = fail_once
        with fail_after(5):
            await failed.wait()
            await after_next_write(store).wait()
        assert 1 == len((await store.get_state()).holds)
        await anyio.sleep(0.05)
    record, *later = [record for record in caplog.records if record.name == LOGGER]
    assert f"A hold could not be renewed in {store!r}; it is tried again until it can" == record.getMessage()
    assert [f"A hold has been renewed again in {store!r}"] == [one.getMessage() for one in later]
    assert record.exc_info is not None
    assert ConnectionError is record.exc_info[0]


async def test_a_block_counts_in_its_own_process_although_its_lease_ran_out_in_the_store() -> None:
    store = DetailedStore()
    async with maintenance_mode_on(store, lease=0.02):
        store.before_write = be_down
        (hold,) = (await store.get_state()).holds
        assert hold.expires_at is not None
        while datetime.now(timezone.utc) < hold.expires_at:  # noqa: ASYNC110 -- the clock is waited for
            await anyio.sleep(0.005)
        assert not await store.get_value()
        assert await get_maintenance_mode(store)
        store.come_back()


async def test_a_block_ends_although_a_renewal_hangs() -> None:
    store = DetailedStore()
    hanging = anyio.Event()

    async def hang_once() -> None:
        store.before_write = checkpoint
        hanging.set()
        await anyio.sleep_forever()

    with fail_after(5):
        async with maintenance_mode_on(store, lease=0.03):
            store.before_write = hang_once
            await hanging.wait()
    assert MaintenanceState() == await store.get_state()


async def test_a_renewal_that_hangs_is_logged_and_the_next_one_is_made(caplog: pytest.LogCaptureFixture) -> None:
    store = DetailedStore()

    async def hang_once() -> None:
        store.before_write = checkpoint
        await anyio.sleep_forever()

    async with maintenance_mode_on(store, lease=0.9):
        store.before_write = hang_once
        with fail_after(5):
            await after_next_write(store).wait()
        await anyio.sleep(0.05)
    record, *later = [record for record in caplog.records if record.name == LOGGER]
    assert f"A hold could not be renewed in {store!r}; it is tried again until it can" == record.getMessage()
    assert [f"A hold has been renewed again in {store!r}"] == [one.getMessage() for one in later]
    assert record.exc_info is not None
    assert TimeoutError is record.exc_info[0]


async def test_a_renewal_that_failed_is_tried_again_soon() -> None:
    """The second try is not a third of the lease later, where the third one would come when it is over."""
    store = DetailedStore()

    async def fail_once() -> None:
        store.before_write = checkpoint
        await be_down()

    async with maintenance_mode_on(store, lease=3):
        (first,) = (await store.get_state()).holds
        store.before_write = fail_once
        with fail_after(10):
            await after_next_write(store).wait()
        (second,) = (await store.get_state()).holds
    assert first.expires_at is not None
    assert second.expires_at is not None
    assert second.expires_at - first.expires_at < timedelta(seconds=1.9)


async def test_a_lease_on_a_store_that_cannot_be_written_is_nothing_to_complain_of(
    caplog: pytest.LogCaptureFixture,
) -> None:
    renewed = anyio.Event()

    class Noticing(EnvVarBackend):
        async def update_state(self, change: Callable[[MaintenanceState], MaintenanceState]) -> MaintenanceState:
            if holds.newest(self):
                renewed.set()
            return await super().update_state(change)

    store = Noticing("HOLDS_MODE")
    async with maintenance_mode_on(store, lease=0.03):
        with fail_after(5):
            await renewed.wait()
        (hold,) = (await get_maintenance_state(store)).holds
    assert ([], None) == (messages_of(caplog), hold.expires_at)


async def test_an_exception_of_a_leased_block_comes_out_as_it_is_and_in_no_group() -> None:
    store = DetailedStore()
    raised = BodyError()
    with pytest.raises(BodyError) as caught:
        async with maintenance_mode_on(store, lease=60):
            await checkpoint()
            raise raised
    assert raised is caught.value
    assert MaintenanceState() == await store.get_state()


async def test_a_leased_block_that_is_cancelled_lifts_its_maintenance() -> None:
    store = DetailedStore()
    with anyio.move_on_after(0.01) as scope:
        async with maintenance_mode_on(store, lease=60):
            await anyio.sleep_forever()
    assert scope.cancelled_caught
    assert MaintenanceState() == await store.get_state()


async def test_a_leased_block_that_is_cancelled_as_it_ends_lifts_its_maintenance() -> None:
    store = DetailedStore()
    with CancelScope() as scope:
        async with maintenance_mode_on(store, lease=60):
            scope.cancel()
        await checkpoint()
    assert scope.cancelled_caught
    assert MaintenanceState() == await store.get_state()


async def test_an_exception_of_a_leased_block_comes_out_although_the_block_is_cancelled_too() -> None:
    store = DetailedStore()
    with pytest.raises(BodyError), CancelScope() as scope:
        async with maintenance_mode_on(store, lease=60):
            scope.cancel()
            raise BodyError
    assert MaintenanceState() == await store.get_state()


@pytest.mark.parametrize("lease", [True, "60", [60]])
def test_a_lease_that_is_no_duration_is_refused(lease: object) -> None:
    with pytest.raises(TypeError, match="lease must be a number of seconds"):
        maintenance_mode_on(MemoryBackend(), lease=lease)  # type: ignore[arg-type]  # what is refused


@pytest.mark.parametrize("lease", [0, -1, float("nan"), float("inf"), timedelta(0), timedelta(seconds=-1)])
def test_a_lease_that_is_not_above_zero_or_not_finite_is_refused(lease: float | timedelta) -> None:
    with pytest.raises(ValueError, match="lease must be a finite number of seconds above 0"):
        maintenance_mode_off(MemoryBackend(), lease=lease)


@pytest.mark.parametrize("lease", [1e300, 1e12, timedelta.max])
def test_a_lease_that_would_end_after_the_last_year_is_refused(lease: float | timedelta) -> None:
    with pytest.raises(ValueError, match="lease must end before the year 10000"):
        maintenance_mode_on(MemoryBackend(), lease=lease)


# A store that fails


@any_hooked
async def test_an_error_of_the_store_reaches_who_opens_the_block_and_then_nothing_is_held(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    store = make(Path())
    assert isinstance(store, (BareSwitch, DetailedStore))
    store.go_down()
    with pytest.raises(ConnectionError):
        async with maintenance_mode_on(store):
            pytest.fail("a block that nobody else can see was entered")
    store.come_back()
    assert [f"A hold could not be taken out of {store!r}"] == messages_of(caplog)
    assert MaintenanceState() == await get_maintenance_state(store)
    assert MaintenanceState() == await kept_by(store)


@any_hooked
async def test_what_was_written_before_the_store_failed_is_taken_back(make: Make) -> None:
    store = make(Path())
    assert isinstance(store, (BareSwitch, DetailedStore))

    async def fail_once() -> None:
        store.come_back()
        await be_down()

    store.after_write = fail_once
    with pytest.raises(ConnectionError):
        async with maintenance_mode_on(store):
            pytest.fail("a block that may not be kept was entered")
    assert MaintenanceState() == await kept_by(store)


@any_hooked
async def test_an_error_of_the_store_reaches_who_ends_the_block_and_the_block_no_longer_counts_here(
    make: Make,
) -> None:
    store = make(Path())
    assert isinstance(store, (BareSwitch, DetailedStore))
    with pytest.raises(ConnectionError):
        async with maintenance_mode_on(store):
            store.go_down()
    assert holds.newest(store) is None
    store.come_back()
    await set_maintenance_mode(False, store)


@any_hooked
async def test_the_error_of_the_block_comes_before_that_of_the_store_which_is_logged(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    store = make(Path())
    assert isinstance(store, (BareSwitch, DetailedStore))
    with pytest.raises(BodyError):
        async with maintenance_mode_on(store):
            store.go_down()
            raise BodyError
    (record,) = [record for record in caplog.records if record.name == LOGGER]
    assert f"A hold could not be taken out of {store!r}" == record.getMessage()
    assert record.exc_info is not None
    assert ConnectionError is record.exc_info[0]
    store.come_back()
    await set_maintenance_mode(False, store)


@any_hooked
async def test_a_store_that_hangs_does_not_keep_a_block_from_ending(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(block, "_CLOSE_TIMEOUT", 0.02)
    store = make(Path())
    assert isinstance(store, (BareSwitch, DetailedStore))
    with fail_after(5), pytest.raises(TimeoutError):
        async with maintenance_mode_on(store):
            store.before_write = anyio.sleep_forever
    store.come_back()
    await set_maintenance_mode(False, store)


@pytest.mark.parametrize("nonsense", ["on", None, 2, 1.0])
async def test_a_backend_that_returns_nonsense_is_not_held(nonsense: Any) -> None:  # noqa: ANN401 -- the nonsense
    with pytest.raises(InvalidStateError, match=rf"must return True or False, got {type(nonsense).__name__} "):
        async with maintenance_mode_on(BareSwitch(nonsense)):
            pytest.fail("a block was entered on a store that says nothing sensible")


# A backend with nothing but a switch


@pytest.mark.parametrize("operator", [True, False])
async def test_a_bare_switch_is_set_for_the_block_and_back_to_the_value_of_the_operator(
    operator: bool,
) -> None:
    store = BareSwitch(operator)
    seen = []
    async with maintenance_mode_on(store):
        seen.append(store.value)
        async with maintenance_mode_off(store):
            seen.append(store.value)
        seen.append(store.value)
    assert [True, False, True, operator] == [*seen, store.value]


async def test_a_database_that_has_no_booleans_is_a_switch_too() -> None:
    store = BareSwitch(0)  # type: ignore[arg-type]  # what some databases return
    async with maintenance_mode_on(store):
        assert store.value is True
    assert store.value is False


@pytest.mark.parametrize("changed", [True, False])
async def test_a_change_by_the_operator_of_another_process_during_a_block_is_kept(
    changed: bool,
) -> None:
    store = BareSwitch(not changed)
    async with maintenance_mode_off(store) if changed else maintenance_mode_on(store):
        store.value = changed
    assert changed is store.value


@pytest.mark.parametrize("changed", [True, False])
async def test_a_change_by_the_operator_of_this_process_during_a_block_counts_after_it(
    changed: bool,
) -> None:
    store = BareSwitch(not changed)
    async with maintenance_mode_off(store) if changed else maintenance_mode_on(store):
        await set_maintenance_mode(changed, store)
        during = await get_maintenance_state(store)
        held = store.value
    assert (not changed, changed, changed) == (held, during.active, store.value)


async def test_the_second_change_by_the_operator_of_another_process_is_kept_too() -> None:
    store = BareSwitch()
    async with maintenance_mode_on(store):
        store.value = False
        async with maintenance_mode_off(store):
            store.value = True
    assert store.value


async def test_what_could_not_be_set_back_is_made_good_when_the_next_block_ends() -> None:
    store = BareSwitch()
    with pytest.raises(ConnectionError):
        async with maintenance_mode_on(store):
            store.go_down()
    store.come_back()
    left_behind = store.value
    async with maintenance_mode_on(store):
        pass
    assert (True, False, {}) == (left_behind, store.value, holds.ledgers)


async def test_what_could_not_be_set_back_is_made_good_when_the_operator_sets_the_switch() -> None:
    store = BareSwitch()
    with pytest.raises(ConnectionError):
        async with maintenance_mode_on(store):
            store.go_down()
    store.come_back()
    await set_maintenance_mode(True, store)
    async with maintenance_mode_on(store):
        pass
    assert store.value


async def test_a_write_that_was_not_made_is_not_taken_for_one_of_this_process_later() -> None:
    store = BareSwitch()
    store.before_write = be_down
    with pytest.raises(ConnectionError):
        async with maintenance_mode_on(store):
            pytest.fail("a block that nobody else can see was entered")
    store.come_back()
    store.value = True
    async with maintenance_mode_on(store):
        pass
    assert store.value


async def test_a_switch_that_cannot_be_written_is_left_alone() -> None:
    store = ReadOnlySwitch()
    async with maintenance_mode_on(store):
        assert (True, False) == (await get_maintenance_mode(store), store.value)
        store.value = True
        async with maintenance_mode_off(store):
            assert (False, True) == (await get_maintenance_mode(store), store.value)
    assert (True, True) == (await get_maintenance_mode(store), store.value)


@pytest.mark.parametrize(
    ("block", "named"),
    [
        (partial(maintenance_mode_on, message="Copying"), "message"),
        (partial(maintenance_mode_on, lease=60), "lease"),
        (partial(maintenance_mode_off, lease=60), "lease"),
    ],
)
async def test_what_a_bare_switch_cannot_keep_is_refused_with_the_name_of_the_missing_method(
    block: Callable[[StateBackend], block.Block], named: str
) -> None:
    store = BareSwitch()
    with pytest.raises(NotSupportedError, match=rf"{named} needs .* update_state\(change\)"):
        async with block(store):
            pytest.fail("a block was entered without what it was told to keep")
    assert not store.value


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
        thread.join(30)
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
                assert (await kept_by(store)).active or is_active(await kept_by(store), datetime.now(timezone.utc))

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
    store = EnvVarBackend("HOLDS_MODE")  # which keeps nothing, so that this process has to

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
                looked_at.wait(10)
            return await super().update_state(change)

    class Holds(tuple[Hold, ...]):
        __slots__ = ()

        def __iter__(self) -> Iterator[Hold]:
            if not looked_at.is_set():
                looked_at.set()
                begun.wait(0.2)  # in vain, as long as nobody changes what is just being changed
            return super().__iter__()

    store = Meeting("HOLDS_MODE")

    async def other_job() -> None:
        async with maintenance_mode_on(store):
            begun.set()
            end.wait(10)

    async def job() -> bool:
        async with maintenance_mode_on(store):
            other.start()
            assert at_its_turn.wait(10)
            ledger = holds.ledgers[store]
            ledger.holds = Holds(ledger.holds)
        assert begun.wait(10)
        return await get_maintenance_mode(store)

    other = threading.Thread(target=anyio.run, args=(other_job,))
    try:
        assert anyio.run(job)
    finally:
        end.set()
        other.join(10)


def test_a_block_of_a_worker_thread_runs_on_the_event_loop_that_it_belongs_to() -> None:
    store = MemoryBackend()

    async def hold() -> bool:
        async with maintenance_mode_on(store):
            return await get_maintenance_mode(store)

    async def main() -> bool:
        return await anyio.to_thread.run_sync(from_thread.run, hold)

    assert anyio.run(main)


# What cannot be read


async def test_a_block_on_garbage_does_not_begin_and_leaves_it_alone(tmp_path: Path) -> None:
    """A slip of the pen in the file would else be taken for off, and the operator's switch would be gone."""
    (tmp_path / "mode").write_text("1x")
    with pytest.raises(InvalidStateError, match="got '1x"):
        async with maintenance_mode_on(file(tmp_path), message="Never begun"):
            pytest.fail("the block must not begin")
    assert "1x" == (tmp_path / "mode").read_text()


async def test_a_block_during_which_the_state_becomes_garbage_says_so_and_leaves_it_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    backend = file(tmp_path)
    with pytest.raises(InvalidStateError, match="got '1x"):
        async with maintenance_mode_on(backend, lease=0.3):
            (tmp_path / "mode").write_text("1x")
            await eventually_logged(caplog, "A hold could not be renewed")
    assert "1x" == (tmp_path / "mode").read_text()
    await set_maintenance_mode(True, backend)
    assert MaintenanceState(active=True) == await kept_by(backend)


async def eventually_logged(caplog: pytest.LogCaptureFixture, text: str) -> None:
    async def is_logged() -> bool:
        return any(text in message for message in messages_of(caplog))

    await eventually(is_logged)


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
        with fail_after(5):
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


async def test_a_hold_that_took_longer_to_write_than_its_lease_is_renewed_before_the_block_begins() -> None:
    store = DetailedStore()
    update, slow = store.update_state, True

    async def update_late(change: Callable[[MaintenanceState], MaintenanceState], /) -> MaintenanceState:
        nonlocal slow
        state = await update(change)
        if slow:
            slow = False
            await anyio.sleep(0.3)
        return state

    store.update_state = update_late  # type: ignore[method-assign]  # for this test
    async with maintenance_mode_on(store, lease=0.25):
        [hold] = (await store.get_state()).holds
        assert hold.expires_at is not None
        assert hold.expires_at > datetime.now(timezone.utc)
