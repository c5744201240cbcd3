"""The check of anyone's backend passes those that keep their promises, and says in plain words what others break."""

from __future__ import annotations

import gc
import logging
import re
import subprocess
import sys
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Literal, cast

import anyio
import pytest
from anyio import to_thread
from anyio.from_thread import start_blocking_portal
from anyio.lowlevel import checkpoint
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import create_async_engine

from fastapi_maintenance import (
    EnvVarBackend,
    LocalFileBackend,
    MaintenanceError,
    MaintenanceState,
    MemoryBackend,
    NotSupportedError,
    StateBackend,
    backend_from_url,
    cached,
)
from fastapi_maintenance.backends.redis import RedisBackend
from fastapi_maintenance.backends.sqlalchemy import SQLAlchemyBackend
from fastapi_maintenance.testing import MakeBackend, PromiseBrokenError, check_backend, search
from fastapi_maintenance.testing.backends import BackendUnderTest, Instance
from fastapi_maintenance.testing.model import Promise, Violation
from fastapi_maintenance.testing.watching import WatchedConformance
from tests.servers import running
from tests.stores import BareSwitch, DetailedStore, ReadOnlySwitch, TextSwitch, be_down
from tests.testing import broken

pytestmark = [pytest.mark.anyio, pytest.mark.servers]

FEW = 12
"""Examples, where it is not the number of them that is tested."""
A_MINUTE = 60
"""Patience, where nothing hangs: the machine may be slow, or stop for seconds."""


class OnOneStore:
    """A backend as users write it: each object is another one on the same text."""

    store: dict[str, str]

    def __init__(self) -> None:
        self._switch = TextSwitch(self.store)

    async def get_value(self) -> bool:
        return await self._switch.get_value()

    async def set_value(self, value: bool) -> None:
        await self._switch.set_value(value)


class ZeroOrOne(BareSwitch):
    """As some databases have it."""

    async def get_value(self) -> Any:  # noqa: ANN401 -- an int in the place of a bool
        await checkpoint()
        return int(self.value)


class PeekableSwitch(BareSwitch):
    def peek(self) -> MaintenanceState:
        return MaintenanceState(active=self.value)


class WatchableSwitch(BareSwitch):
    def __init__(self) -> None:
        super().__init__()
        self._changed = anyio.Event()

    async def set_value(self, value: bool, /) -> None:
        await checkpoint()
        self.value = value
        changed, self._changed = self._changed, anyio.Event()
        changed.set()

    async def watch(self) -> AsyncIterator[MaintenanceState]:
        while True:
            changed = self._changed
            yield MaintenanceState(active=self.value)
            await changed.wait()


class KeepsMessages(DetailedStore):
    """One whose `set_value` leaves the message and the window where they are."""

    async def set_value(self, value: bool, /) -> None:
        await self.memory.update_state(
            lambda state: type(state)(
                active=value, message=state.message, starts_at=state.starts_at, ends_at=state.ends_at, holds=state.holds
            )
        )


class CannotCount(broken.Drainable):
    """One that has the methods for workers, and a store that cannot count them."""

    async def add(self, worker: str) -> None:
        """Do nothing."""

    def remove(self, worker: str) -> None:
        """Do nothing."""

    async def get_reports(self) -> Mapping[str, str]:
        await checkpoint()
        message = "this store cannot count workers"
        raise NotSupportedError(message)


class IteratesItself(WatchableSwitch):
    """One whose `watch` is an object without `aclose`."""

    def watch(self) -> AsyncIterator[MaintenanceState]:
        return _Looking(self)


class _Looking:
    def __init__(self, switch: BareSwitch) -> None:
        self._switch = switch
        self._told: bool | None = None

    def __aiter__(self) -> AsyncIterator[MaintenanceState]:
        return self

    async def __anext__(self) -> MaintenanceState:
        while self._told is self._switch.value:  # noqa: ASYNC110 -- as one does who cannot be pushed
            await anyio.sleep(0.001)
        self._told = self._switch.value
        return MaintenanceState(active=self._told)


class ComplainsWhenCutOff(BareSwitch):
    """One whose client makes an error of its own of a cancellation."""

    async def set_value(self, value: bool, /) -> None:
        try:
            await checkpoint()
        except BaseException as error:
            message = "cut off"
            raise ConnectionError(message) from error
        self.value = value


GOOD: dict[str, Callable[[], object]] = {
    "memory": MemoryBackend,
    "two methods": BareSwitch,
    "two methods of the base class": lambda: TextSwitch({}),
    "0 and 1": ZeroOrOne,
    "two methods that complain": ComplainsWhenCutOff,
    "two methods and peek": PeekableSwitch,
    "two methods and watch": WatchableSwitch,
    "two methods and watch that is no generator": IteratesItself,
    "detailed": DetailedStore,
    "detailed with a set_value that keeps messages": KeepsMessages,
    "watchable": broken.Watchable,
    "drainable": broken.Drainable,
    "with methods to drain that it does not support": CannotCount,
    "cached": lambda: cached(DetailedStore(), ttl=60),
    "read-only with two methods": ReadOnlySwitch,
    "environment variable": EnvVarBackend,
}


@pytest.mark.parametrize("event_loop", ["asyncio", "trio"])
@pytest.mark.parametrize("kind", GOOD)
def test_it_passes_backends_that_keep_their_promises(kind: str, event_loop: Literal["asyncio", "trio"]) -> None:
    backend = cast("StateBackend", GOOD[kind]())
    check_backend(lambda: backend, max_examples=FEW, patience=A_MINUTE, event_loop=event_loop)


def test_a_class_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OnOneStore, "store", {}, raising=False)
    check_backend(OnOneStore, max_examples=FEW)
    assert {"mode": "0"} == OnOneStore.store


@pytest.mark.usefixtures("_patient")
@pytest.mark.parametrize("event_loop", ["asyncio", "trio"])
def test_it_passes_a_file(tmp_path: Path, event_loop: Literal["asyncio", "trio"]) -> None:
    switch = tmp_path / "switch"
    check_backend(lambda: LocalFileBackend(switch), max_examples=FEW, patience=A_MINUTE, event_loop=event_loop)
    assert "0\n" == switch.read_text(encoding="utf-8")


@pytest.mark.servers
@pytest.mark.usefixtures("_patient")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of psycopg, see below
@pytest.mark.parametrize("kind", ["redis", "asyncpg", "psycopg"])
def test_it_passes_servers_by_their_url(kind: str) -> None:
    with running(kind) as server:
        url = f"{server.url}?key={uuid.uuid4()}"
        check_backend(lambda: backend_from_url(url), max_examples=FEW, patience=A_MINUTE)
    gc.collect()  # a connection of psycopg that is cut off while it is opened is closed only here, with a warning


@pytest.mark.servers
@pytest.mark.usefixtures("_patient")
def test_it_passes_redis_with_clients_that_are_opened_and_closed_on_its_event_loop() -> None:
    clients: list[Redis] = []

    @asynccontextmanager
    async def make_backend() -> AsyncGenerator[StateBackend]:
        async with Redis.from_url(server.url) as client:
            clients.append(client)
            yield RedisBackend(client)

    with running("redis") as server:
        check_backend(make_backend, max_examples=FEW, patience=A_MINUTE)
    assert 2 == len(clients)


@pytest.mark.usefixtures("_patient")
def test_it_passes_sqlite(tmp_path: Path) -> None:
    @asynccontextmanager
    async def make_backend() -> AsyncGenerator[StateBackend]:
        engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/switch.db")
        yield SQLAlchemyBackend(engine, poll_interval=0.01)
        await engine.dispose()

    check_backend(make_backend, max_examples=FEW, patience=A_MINUTE)


def test_it_passes_an_awaitable_and_an_async_function() -> None:
    store = MemoryBackend()

    async def make_backend() -> StateBackend:
        await checkpoint()
        return store

    check_backend(make_backend, max_examples=1)


# --- what it finds ----------------------------------------------------------------------------------------------------

READS = "what is read is what was written, by another instance too"
WORKS = "a call succeeds, and comes back, while the store is there"
ASYNC = "every method but peek() and watch() is async"
TYPES = "get_value() returns True or False, and a state is a MaintenanceState"
CANCELLED = "a write that is cancelled leaves the state before it or the one after it"
CONCURRENT = "concurrent updates are not lost"
HOLDS = "holds are kept until they are released, and the newest one decides"
RAISES = "a change that raises leaves the state as it was, and what it raised comes out"
WATCH = "watch() tells the last state"
WATCH_BEGINS = "watch() tells the state at once, and goes on until it is closed"
WATCH_ENDS = "watch() ends when it is cancelled"
COUNTED = "watch(worker) counts the worker from before its first state is read until it ends, for all instances"
REPORTS = "get_reports() has the last report of each worker that is counted, and no other"
TOGETHER = "get_state() and update_state(change) come together"
OFF = "a: update_state(active=False, and no holds)"
IS_OFF = "MaintenanceState(active=False)"
IS_ON = "MaintenanceState(active=True)"
MESSAGE = " Zurück 🚧\num „zehn“ \\ ✓ "

SIMPLEST: dict[type[object], list[str]] = {
    broken.Forgets: [READS, "a: set_value(False)", "a: set_value(True)", "a: get_value() -> False, expected True"],
    broken.SaysText: [TYPES, "a: set_value(False)", "a: get_value() -> '0'"],
    broken.ReadsAtOnce: [ASYNC, "a: set_value(False)", "a: get_value() -> False at once: it is not async"],
    broken.WritesAtOnce: [ASYNC, "a: set_value(False) -> None at once: it is not async"],
    broken.CannotBeWritten: [
        "a backend has the async methods get_value() and set_value(value)",
        "make_backend() -> CannotBeWritten, which has no set_value()",
    ],
    broken.MissesWhatIsNotThere: [WORKS, "a: set_value(False)", "a: get_value() raises KeyError: 'mode'"],
    broken.BreaksWhenCutOff: [
        WORKS,
        "a: set_value(False)",
        "a: set_value(True), cancelled after 1 turn of the event loop",
        "a: get_value() raises ConnectionError: the connection is in use",
    ],
    broken.RefusesToWait: [
        WORKS,
        "a: set_value(False)",
        "at once: a: set_value(True), a: set_value(True) raises BlockingIOError: another write is under way",
    ],
    broken.LosesUpdates: [
        CONCURRENT,
        OFF,
        (
            "at once: a: update_state(add Hold(id='new 0', active=True)), "
            "a: update_state(add Hold(id='new 1', active=True))"
        ),
        (
            "a: get_state() -> MaintenanceState(active=False, holds=(Hold(id='new 1', active=True))), "
            "without Hold(id='new 0', active=True)"
        ),
    ],
    broken.RefusesNowAndThen: [
        "a backend that refuses to be written refuses each time",
        "a: get_value()",
        "a: set_value(True) does not raise ReadOnlyBackendError",
    ],
    broken.TrimsMessages: [
        READS,
        OFF,
        f"a: update_state(active=True, message={MESSAGE!r})",
        (
            f"a: get_state() -> MaintenanceState(active=True, message={MESSAGE.strip(' ')!r}), "
            f"expected MaintenanceState(active=True, message={MESSAGE!r})"
        ),
    ],
    broken.LosesEmoji: [
        READS,
        OFF,
        f"a: update_state(active=True, message={MESSAGE!r})",
        (
            f"a: get_state() -> MaintenanceState(active=True, message={MESSAGE.replace('🚧', '?')!r}), "
            f"expected MaintenanceState(active=True, message={MESSAGE!r})"
        ),
    ],
    broken.SwallowsWhatChangesRaise: [
        RAISES,
        OFF,
        f"a: get_state() -> {IS_OFF}",
        "a: update_state(a change that raises) does not raise it",
    ],
    broken.WrapsWhatChangesRaise: [
        RAISES,
        OFF,
        f"a: get_state() -> {IS_OFF}",
        "a: update_state(a change that raises) raises RuntimeError: wrapped",
    ],
    broken.DropsMessages: [
        READS,
        OFF,
        "a: update_state(active=True, message='Back at ten')",
        f"a: get_state() -> {IS_ON}, expected MaintenanceState(active=True, message='Back at ten')",
    ],
    broken.RoundsTimes: [
        READS,
        OFF,
        "a: update_state(active=True, ends_at=9000-01-01T00:00:00.000001+00:00)",
        (
            "a: get_state() -> MaintenanceState(active=True, ends_at=9000-01-01T00:00:00+00:00), "
            "expected MaintenanceState(active=True, ends_at=9000-01-01T00:00:00.000001+00:00)"
        ),
    ],
    broken.SaysDict: [TYPES, "a: set_value(False)", "a: get_value()", "a: get_state() -> {'active': False}"],
    broken.OnlyReadsStates: [
        TOGETHER,
        "make_backend() -> OnlyReadsStates, which has get_state() but no update_state()",
    ],
    broken.OnlyWritesStates: [
        TOGETHER,
        "make_backend() -> OnlyWritesStates, which has update_state() but no get_state()",
    ],
    broken.PeeksAsync: [ASYNC, "a: set_value(False)", "a: get_value()", "a: get_state()", "a: peek() is async"],
    broken.FailsToPeek: [
        WORKS,
        "a: set_value(False)",
        "a: get_value()",
        "a: get_state()",
        "a: peek() raises LookupError: nothing has been read yet",
    ],
    broken.WatchesOnce: [ASYNC, OFF, "a: watch() is a coroutine, no async iterator"],
    broken.TellsText: [TYPES, OFF, "a: watch() tells '1'"],
}
"""The promise that each breaks, and the only simplest steps to it."""

ENDS: dict[type[object], tuple[str, str]] = {
    broken.DeletesBeforeItWrites: (CANCELLED, "get_value() -> False, expected True"),
    broken.ReturnsTheOldState: (
        "update_state(change) returns the state that it has written",
        ", expected MaintenanceState(",
    ),
    broken.TurnsOffWhenChangesRaise: (RAISES, f"get_state() -> {IS_OFF}, expected {IS_ON}"),
    broken.ForgetsHoldsWhenSet: (HOLDS, f"get_state() -> {IS_ON}, expected MaintenanceState(active=True, holds=("),
    broken.BeginsWithAChange: (WATCH_BEGINS, "watch() -> nothing, expected MaintenanceState("),
    broken.WatchesOnWhenCancelled: (WATCH_ENDS, "is cancelled, but goes on"),
    broken.TellsOnWhenCancelled: (WATCH_ENDS, "is cancelled, but goes on"),
    broken.ShortensMessages: (READS, "expected MaintenanceState(active=True, message='Back at ten.Back at ten."),
    broken.TearsWrites: (CANCELLED, "message="),
    broken.DropsHolds: (HOLDS, "expected "),
    broken.KeepsHolds: (HOLDS, "expected "),
    broken.LooksAtTheSwitchAlone: (HOLDS, "a: get_value() -> "),
    broken.PeeksAtThePast: (READS, f"a: peek() -> {IS_OFF}, expected {IS_ON}"),
    broken.Hangs: (WORKS, "raises TimeoutError: no answer within 1 seconds"),
    broken.WatchesTooLate: (WATCH, "watch() goes on -> MaintenanceState("),
    broken.MissesTheLast: (WATCH, "watch() goes on -> MaintenanceState("),
    broken.EndsItsWatch: (WATCH_BEGINS, "watch() goes on, but ends by itself"),
    broken.FailsToWatch: (WATCH_BEGINS, "watch() goes on, but raises ConnectionError: the connection is closed"),
    broken.TellsTheNewestWatcherAlone: (WATCH, "watch() goes on -> MaintenanceState("),
    broken.CountsAfterItsFirstState: (COUNTED, "a: get_reports() -> {}, expected {'host.0.one': ''}"),
    broken.CountsAfterItHasRead: (COUNTED, "began with MaintenanceState(active=False)"),
    broken.CountsTheEnded: (COUNTED, "a: get_reports() -> {'host.0.one': ''}, expected {}"),
    broken.CountsNobody: (COUNTED, "a: get_reports() -> {}, expected {'host.0.one': ''}"),
    broken.CountsTheNewestAlone: (COUNTED, "-> {'host.0.two': ''}, expected {'host.0.one': '', 'host.0.two': ''}"),
    broken.KeepsReportsOfOthers: (REPORTS, "a: get_reports() -> {'host.0.one': 'busy'}, expected {}"),
    broken.KeepsReportsOfTheEnded: (COUNTED, "-> {'host.0.one': 'busy'}, expected {'host.0.one': ''}"),
    broken.MixesReportsUp: (REPORTS, "expected {'host.0.one': '', 'host.0.two': 'busy'}"),
    broken.ReportsTheOneBefore: (
        REPORTS,
        "a: get_reports() -> {'host.0.one': ''}, expected {'host.0.one': 'busy'}",
    ),
    broken.KeepsTheFirstReport: (REPORTS, "-> {'host.0.one': 'busy'}, expected {'host.0.one': 'drained'}"),
    broken.ReportsAtOnce: (ASYNC, "a: get_reports() -> {} at once: it is not async"),
    broken.ListsReports: (TYPES, "a: get_reports() -> []"),
    broken.CannotCountNowAndThen: (WORKS, "raises NotSupportedError: this store counts one worker at most"),
}
"""The promise that each breaks, and what the last step tells, where several ways are as simple or take their time."""


def broken_promise(make_backend: MakeBackend, **settings: Any) -> PromiseBrokenError:  # noqa: ANN401 -- of the check
    """Return what the check finds."""
    with pytest.raises(PromiseBrokenError) as caught:
        check_backend(make_backend, **{"patience": A_MINUTE, **settings})
    return caught.value


def one(kind: type[Any]) -> MakeBackend:
    """Return what makes the same backend of this kind each time."""
    backend = kind({}) if issubclass(kind, TextSwitch) else kind()
    return lambda: cast("StateBackend", backend)


@pytest.mark.parametrize("kind", SIMPLEST)
def test_it_says_which_promise_breaks_after_which_steps(kind: type[object], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "_ENOUGH", 120.0)  # the machine may be slow
    promise, *steps = SIMPLEST[kind]
    numbered = [f"  {number}. {step}" for number, step in enumerate(steps, start=1)]
    assert [f"promise broken: {promise}", *numbered] == str(broken_promise(one(kind))).splitlines()


@pytest.mark.parametrize("kind", ENDS)
def test_it_finds_what_can_be_told_in_several_ways(kind: type[object]) -> None:
    promise, end = ENDS[kind]
    waits = promise in {WATCH, WATCH_BEGINS, WATCH_ENDS, COUNTED, REPORTS} or kind is broken.Hangs
    error = broken_promise(one(kind), patience=1 if waits else A_MINUTE)
    last = re.sub(r"host\.\d+", "host.0", error.steps[-1])
    assert (promise, True) == (error.promise, end in last)


@pytest.mark.parametrize("event_loop", ["asyncio", "trio"])
def test_two_that_share_nothing_are_told_of_with_who_they_are(event_loop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "_ENOUGH", 120.0)  # the machine may be slow
    error = broken_promise(BareSwitch, event_loop=event_loop)
    texts = [
        [
            f"promise broken: {READS}",
            "  1. a: set_value(False)",
            f"  2. {writer}: set_value(True)",
            f"  3. {reader}: get_value() -> False, expected True",
            "a and b are the two backends that make_backend() returned; they have to be on one switch.",
        ]
        for writer, reader in ("ab", "ba")
    ]
    assert str(error).splitlines() in texts


def test_workers_of_the_other_instance_that_are_not_counted_are_told() -> None:
    memory = MemoryBackend()
    error = broken_promise(lambda: broken.CountsItsOwnAlone(memory))
    assert COUNTED == error.promise
    assert re.fullmatch(r"[ab]: get_reports\(\) -> {}, expected {'host\.\d+\.one': ''}", error.steps[-1])


def test_the_error_is_a_failed_assertion_with_its_parts() -> None:
    error = broken_promise(one(broken.SaysText))
    assert isinstance(error, AssertionError)
    assert isinstance(error, MaintenanceError)
    assert (TYPES, ("a: set_value(False)", "a: get_value() -> '0'"), ()) == (error.promise, error.steps, error.remarks)


def test_what_the_backend_raised_is_its_cause() -> None:
    assert isinstance(broken_promise(one(broken.MissesWhatIsNotThere)).__cause__, KeyError)
    assert isinstance(broken_promise(one(broken.RefusesToWait)).__cause__, BlockingIOError)


def test_what_breaks_but_once_is_told_with_that_remark() -> None:
    class BreaksOnce(MemoryBackend):
        reads = 0

        async def get_value(self) -> bool:
            self.reads += 1
            value = await super().get_value()
            return value is not (self.reads == 20)

    assert "It did not break when these steps were made again." in broken_promise(one(BreaksOnce)).remarks


def test_what_an_earlier_series_may_have_left_behind_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "_ENOUGH", 120.0)  # the machine may be slow
    error = broken_promise(one(broken.KeepsItsLockWhenCutOff), patience=0.4)
    hangs = "a: set_value(False) raises TimeoutError: no answer within 0.4 seconds"
    assert (WORKS, hangs) == (error.promise, error.steps[-1])
    (remark,) = error.remarks
    assert re.fullmatch(
        r"A step of an earlier series may have left it so: [ab]: set_value\((True|False)\), "
        r"cancelled after \d turns? of the event loop",
        remark,
    )


def test_what_takes_too_long_is_told_with_more_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "_ENOUGH", 0.0)
    assert 3 <= len(broken_promise(one(broken.DropsMessages)).steps)


def test_a_class_in_the_place_of_an_object_is_told() -> None:
    error = broken_promise(lambda: cast("StateBackend", MemoryBackend))
    assert ("make_backend() -> the class MemoryBackend, no object of it",) == error.steps


def test_what_make_backend_raises_comes_out() -> None:
    def make_backend() -> StateBackend:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        check_backend(make_backend)


def test_it_logs_nothing_of_its_own_but_lets_others_log(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("fastapi_maintenance")

    class Logs(BareSwitch):
        async def get_value(self) -> bool:
            logger.warning("of its own")
            await to_thread.run_sync(logger.warning, "of another thread")
            return self.value

    check_backend(one(Logs), max_examples=1)
    logger.warning("afterwards")
    assert {"of another thread", "afterwards"} == {record.message for record in caplog.records}


def test_pytest_shows_the_line_that_called_it_and_the_message_and_no_more(tmp_path: Path) -> None:
    tmp_path.joinpath("test_mine.py").write_text(
        """if True:
            from fastapi_maintenance.testing import check_backend

            class Forgets:
                async def get_value(self): return False
                async def set_value(self, value): pass

            def test_my_backend():
                check_backend(Forgets)
        """,
        encoding="utf-8",
    )
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--tb=short"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120)
    lines = ran.stdout.splitlines()
    first = lines.index("test_mine.py:9: in test_my_backend")
    assert [
        "test_mine.py:9: in test_my_backend",
        "    check_backend(Forgets)",
        f"E   fastapi_maintenance.errors.PromiseBrokenError: promise broken: {READS}",
        "E     1. a: set_value(False)",
        "E     2. a: set_value(True)",
        "E     3. a: get_value() -> False, expected True",
    ] == [line.rstrip() for line in lines[first : first + 6] if not line.strip().startswith("^")]
    assert 1 == sum(line.startswith("test_mine.py:") for line in lines)


@pytest.mark.parametrize(
    ("make_backend", "settings", "kind", "message"),
    [
        (
            MemoryBackend(),
            {},
            TypeError,
            r"make_backend must be a function .* `lambda: backend`, got MemoryBackend Mem",
        ),
        (MemoryBackend, {"max_examples": 1.5}, TypeError, "max_examples must be a whole number, got float 1.5"),
        (MemoryBackend, {"max_examples": True}, TypeError, "max_examples must be a whole number, got bool True"),
        (MemoryBackend, {"max_examples": 0}, ValueError, "max_examples must be at least 1, got 0"),
        (MemoryBackend, {"patience": 0}, ValueError, "patience must be a finite number of seconds above 0, got 0"),
        (MemoryBackend, {"event_loop": "uvloop"}, ValueError, "event_loop must be 'asyncio' or 'trio', got 'uvloop'"),
    ],
)
def test_wrong_arguments_are_told_at_once(
    make_backend: MakeBackend, settings: dict[str, Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        check_backend(make_backend, **settings)


@contextmanager
def made_by_hand(backend: object, **settings: Any) -> Iterator[WatchedConformance]:  # noqa: ANN401 -- of the backend under test
    """Give a machine whose steps are made without Hypothesis."""
    with start_blocking_portal() as portal:
        a, b = (Instance(backend, patience=settings.pop("patience", A_MINUTE)) for _ in range(2))
        machine = WatchedConformance(BackendUnderTest(portal, a, b, **settings))
        yield machine
        machine.teardown()


def test_a_write_that_fails_or_hangs_is_told() -> None:
    store = DetailedStore()

    async def hang_once() -> None:
        store.come_back()
        await anyio.sleep_forever()

    with made_by_hand(store, patience=0.05) as machine:
        store.before_write = be_down
        with pytest.raises(Violation) as failed:
            machine.an_operator_sets_the_switch(name="a", reader="a", value=True)
        store.before_write = hang_once
        with pytest.raises(Violation) as hung:
            machine.an_operator_sets_the_switch(name="a", reader="a", value=True)
    assert [
        (Promise.WORKS, " raises ConnectionError: the store is down"),
        (Promise.WORKS, " raises TimeoutError: no answer within 0.05 seconds"),
    ] == [(caught.value.promise, caught.value.seen) for caught in (failed, hung)]


def test_a_write_that_fails_before_it_is_cancelled_is_told() -> None:
    switch = BareSwitch()
    switch.before_write = be_down
    with (
        made_by_hand(switch, is_bare=True) as machine,
        pytest.raises(Violation, match="succeeds") as caught,
    ):
        machine.setting_the_switch_is_cancelled(name="a", reader="a", turns=1000, value=True)
    assert " raises ConnectionError: the store is down" == caught.value.seen


def test_without_hypothesis_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "hypothesis", None)
    monkeypatch.delitem(sys.modules, "fastapi_maintenance.testing.search", raising=False)
    with pytest.raises(ImportError, match="check_backend needs hypothesis: pip install hypothesis"):
        check_backend(MemoryBackend)


def test_without_hypothesis_the_rest_works() -> None:
    script = """if True:
        import sys
        sys.modules["hypothesis"] = None
        import fastapi_maintenance
        assert "fastapi_maintenance.testing" not in sys.modules
        from fastapi import FastAPI
        from fastapi_maintenance.testing import check_backend, maintenance_forced, moved_clock
        with maintenance_forced(FastAPI()), moved_clock():
            pass
        try:
            check_backend(fastapi_maintenance.MemoryBackend)
        except ImportError as error:
            print(error)
        """
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120)
    assert "check_backend needs hypothesis: pip install hypothesis\n" == told.stdout
