"""`check_backend` passes backends that keep their promises, and names the promise that others break."""

from __future__ import annotations

import gc
import logging
import re
import subprocess
import sys
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, cast

import anyio
import pytest
from anyio import to_thread
from anyio.lowlevel import checkpoint
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import create_async_engine

from fastapi_maintenance import (
    EnvVarBackend,
    LocalFileBackend,
    MaintenanceError,
    MaintenanceState,
    MemoryBackend,
    StateBackend,
    Switch,
    backend_from_url,
    cached,
)
from fastapi_maintenance.backends.redis import RedisBackend
from fastapi_maintenance.backends.sqlalchemy import SQLAlchemyBackend
from fastapi_maintenance.testing import SCENARIOS, MakeBackend, PromiseBrokenError, Scenario, check_backend, scenarios
from fastapi_maintenance.testing.instances import ASYNC, DRAINABLE, KIND, REGISTRY, TOGETHER, TYPES, WORKS
from tests.stores import BareSwitch, DetailedStore, ReadOnlySwitch, TextSwitch
from tests.testing import broken

pytestmark = [pytest.mark.anyio, pytest.mark.servers]

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
        return MaintenanceState(switch=Switch(on=self.value))


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
            yield MaintenanceState(switch=Switch(on=self.value))
            await changed.wait()


class KeepsMessages(DetailedStore):
    """One whose `set_value` leaves the message and the end where they are."""

    async def set_value(self, value: bool, /) -> None:
        await self.memory.update_state(lambda state: replace(state, switch=replace(state.switch, on=value)))


class DrainableStore(DetailedStore):
    """One that knows its workers, and that cannot be watched."""

    def __init__(self) -> None:
        super().__init__()
        self.workers = broken.Registry()


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
        return MaintenanceState(switch=Switch(on=self._told))


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
    "drainable": lambda: broken.Drainable(broken.Registry()),
    "drainable that cannot be watched": DrainableStore,
    "with workers that it cannot count": broken.Drainable,
    "cached": lambda: cached(DetailedStore(), ttl=60),
    "read-only with two methods": ReadOnlySwitch,
    "environment variable": EnvVarBackend,
}


@pytest.mark.parametrize("event_loop", ["asyncio", "trio"])
@pytest.mark.parametrize("kind", GOOD)
def test_check_backend_good_backend_passes(kind: str, event_loop: Literal["asyncio", "trio"]) -> None:
    backend = cast("StateBackend", GOOD[kind]())
    check_backend(lambda: backend, patience=A_MINUTE, event_loop=event_loop)


def test_check_backend_class_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OnOneStore, "store", {}, raising=False)
    check_backend(OnOneStore)
    assert OnOneStore.store == {"mode": "0"}


@pytest.mark.usefixtures("_patient")
@pytest.mark.parametrize("event_loop", ["asyncio", "trio"])
def test_check_backend_file_passes(tmp_path: Path, event_loop: Literal["asyncio", "trio"]) -> None:
    switch = tmp_path / "switch"
    check_backend(lambda: LocalFileBackend(switch), patience=A_MINUTE, event_loop=event_loop)
    assert switch.read_text(encoding="utf-8") == "0\n"


@pytest.mark.servers
@pytest.mark.usefixtures("_patient")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of psycopg, see below
@pytest.mark.parametrize("kind", ["redis", "cluster", "asyncpg", "psycopg"])
def test_check_backend_server_url_passes(kind: str, url_of: Callable[[str], str]) -> None:
    url = f"{url_of(kind)}?key={uuid.uuid4()}"
    check_backend(lambda: backend_from_url(url), patience=A_MINUTE)
    gc.collect()  # a connection of psycopg that is cut off while it is opened is closed only here, with a warning


@pytest.mark.servers
@pytest.mark.usefixtures("_patient")
def test_check_backend_client_of_its_event_loop_passes(redis_url: str) -> None:
    clients: list[Redis] = []

    @asynccontextmanager
    async def make_backend() -> AsyncGenerator[StateBackend]:
        async with Redis.from_url(redis_url) as client:
            clients.append(client)
            yield RedisBackend(client)

    check_backend(make_backend, patience=A_MINUTE)
    assert len(clients) == 2


@pytest.mark.usefixtures("_patient")
def test_check_backend_sqlite_passes(tmp_path: Path) -> None:
    @asynccontextmanager
    async def make_backend() -> AsyncGenerator[StateBackend]:
        engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/switch.db")
        yield SQLAlchemyBackend(engine, poll_interval=0.01)
        await engine.dispose()

    check_backend(make_backend, patience=A_MINUTE)


def test_check_backend_async_function_passes() -> None:
    store = MemoryBackend()

    async def make_backend() -> StateBackend:
        await checkpoint()
        return store

    check_backend(make_backend)


# --- what it finds ----------------------------------------------------------------------------------------------------

PROMISE = "What is read is what was written, by another instance too."
IS_OFF = "MaintenanceState(switch=Switch(on=False))"
IS_ON = "MaintenanceState(switch=Switch(on=True))"
MESSAGE = " Zurück 🚧\num „zehn“ \\ ✓ "

FINDS: dict[type[object], tuple[Scenario | str, str]] = {
    broken.Forgets: (scenarios.a_written_switch_is_read, "got False, expected True"),
    broken.SaysText: (TYPES, "got '0'"),
    broken.ReadsAtOnce: (ASYNC, "get_value() is not async"),
    broken.WritesAtOnce: (ASYNC, "set_value() is not async"),
    broken.CannotBeWritten: (KIND, "make_backend() returned CannotBeWritten, which lacks set_value()"),
    broken.MissesWhatIsNotThere: (WORKS, "raised KeyError: 'mode'"),
    broken.DeletesBeforeItWrites: (scenarios.a_cancelled_write_is_whole_or_not_made, "got False, expected True"),
    broken.RefusesToWait: (WORKS, "raised BlockingIOError: another write is under way"),
    broken.BreaksWhenCutOff: (WORKS, "raised ConnectionError: the connection is in use"),
    broken.RefusesNowAndThen: (scenarios.a_refusal_is_repeated, "raised no ReadOnlyBackendError"),
    broken.KeepsItsLockWhenCutOff: (WORKS, "raised TimeoutError: no answer within 1 seconds"),
    broken.LosesUpdates: (scenarios.no_concurrent_update_is_lost, "got ['new 1'], expected ['new 0', 'new 1']"),
    broken.TearsWrites: (scenarios.a_cancelled_update_is_whole_or_not_made, "got MaintenanceState("),
    broken.ReturnsTheOldState: (scenarios.an_update_returns_what_it_has_written, f"got {IS_OFF}, expected "),
    broken.DropsHolds: (scenarios.a_written_state_is_read_to_the_letter, f"got {IS_OFF}, expected "),
    broken.KeepsHolds: (scenarios.holds_are_kept_until_they_are_released, ", expected (Hold(id='2', on=False))"),
    broken.DropsWindows: (scenarios.a_written_state_is_read_to_the_letter, f"got {IS_OFF}, expected "),
    broken.DropsExpectedEnds: (
        scenarios.a_written_state_is_read_to_the_letter,
        "ends_at=9000-01-01T00:00:00.000001+00:00)))",
    ),
    broken.DropsMessages: (scenarios.a_written_state_is_read_to_the_letter, f"got {IS_ON}, expected "),
    broken.ShortensMessages: (scenarios.a_written_state_is_read_to_the_letter, ", expected MaintenanceState("),
    broken.TrimsMessages: (scenarios.a_written_state_is_read_to_the_letter, f"(on=True, message={MESSAGE!r})"),
    broken.LosesEmoji: (scenarios.a_written_state_is_read_to_the_letter, f"(on=True, message={MESSAGE!r})"),
    broken.RoundsTimes: (
        scenarios.a_written_state_is_read_to_the_letter,
        "00:00:00+00:00)), expected MaintenanceState(switch=Switch(on=True, ends_at=9000-01-01T00:00:00.000001+00:00))",
    ),
    broken.LooksAtTheSwitchAlone: (scenarios.a_written_state_is_read_to_the_letter, "got False, expected True"),
    broken.Hangs: (WORKS, "raised TimeoutError: no answer within 1 seconds"),
    broken.SaysDict: (TYPES, "got {'active': False}"),
    broken.SwallowsWhatChangesRaise: (scenarios.a_failed_change_leaves_the_state, "raised nothing"),
    broken.WrapsWhatChangesRaise: (scenarios.a_failed_change_leaves_the_state, "raised RuntimeError: wrapped"),
    broken.TurnsOffWhenChangesRaise: (scenarios.a_failed_change_leaves_the_state, f"got {IS_OFF}, expected "),
    broken.OnlyReadsStates: (TOGETHER, "returned OnlyReadsStates, which has get_state() but lacks update_state()"),
    broken.OnlyWritesStates: (TOGETHER, "returned OnlyWritesStates, which has update_state() but lacks get_state()"),
    broken.ForgetsHoldsWhenSet: (scenarios.holds_are_kept_until_they_are_released, "got (), expected (Hold(id='1'"),
    broken.PeeksAtThePast: (scenarios.a_written_state_is_read_to_the_letter, f"got {IS_OFF}, expected "),
    broken.PeeksAsync: (ASYNC, "peek() is async"),
    broken.FailsToPeek: (WORKS, "raised LookupError: nothing has been read yet"),
    broken.WatchesTooLate: (scenarios.a_watch_yields_the_last_state, f"yielded {IS_OFF} last, expected {IS_ON}"),
    broken.MissesTheLast: (scenarios.a_watch_yields_the_last_state, f"yielded {IS_OFF} last, expected {IS_ON}"),
    broken.BeginsWithAChange: (scenarios.a_watch_begins_with_the_state, f"yielded nothing last, expected {IS_OFF}"),
    broken.EndsItsWatch: (scenarios.a_watch_yields_the_last_state, "watch() ends by itself"),
    broken.FailsToWatch: (scenarios.a_watch_yields_the_last_state, "ConnectionError('the connection is closed')"),
    broken.WatchesOnce: (ASYNC, "watch() is a coroutine, not an async iterator"),
    broken.TellsText: (TYPES, "watch() yields '1'"),
    broken.TellsTheNewestWatcherAlone: (scenarios.a_watch_yields_the_last_state, f"yielded {IS_OFF} last"),
    broken.WatchesOnWhenCancelled: (scenarios.a_cancelled_watch_ends, "watch() goes on"),
    broken.TellsOnWhenCancelled: (scenarios.a_cancelled_watch_ends, "watch() goes on"),
    broken.CountsWithoutStates: (DRAINABLE, "CountsWithoutStates, which has workers but lacks get_state()"),
    broken.HasTheNumberOfItsWorkers: (REGISTRY, "HasTheNumberOfItsWorkers, whose workers (int) lack sign()"),
    broken.CannotLeave: (REGISTRY, "returned CannotLeave, whose workers (Records) lack leave()"),
    broken.SignsInVain: (scenarios.a_worker_that_has_signed_is_known_until_it_leaves, "got {}, expected {'host.0."),
    broken.KeepsTheNewestAlone: (
        scenarios.a_worker_that_has_signed_is_known_until_it_leaves,
        f"got {{'host.1.*': {scenarios.BUSY!r}}}, expected {{'host.0.*': ",
    ),
    broken.KeepsTheFirstReport: (
        scenarios.the_last_report_of_each_worker_is_kept,
        f": {scenarios.IDLE!r}}}, expected {{",
    ),
    broken.KeepsTheReportBefore: (
        scenarios.the_last_report_of_each_worker_is_kept,
        f": {scenarios.IDLE!r}}}, expected {{",
    ),
    broken.MixesReportsUp: (
        scenarios.a_worker_that_has_signed_is_known_until_it_leaves,
        f"got {{'host.0.*': {scenarios.BUSY!r}, 'host.1.*': {scenarios.BUSY!r}}}, ",
    ),
    broken.ShortensReports: (scenarios.the_last_report_of_each_worker_is_kept, '"hold 22", "\', \'hosthost'),
    broken.ShortensIds: (scenarios.the_last_report_of_each_worker_is_kept, "got {}, expected {'hosthost"),
    broken.KeepsThoseThatLeft: (
        scenarios.a_worker_that_has_signed_is_known_until_it_leaves,
        f"got {{'host.0.*': {scenarios.IDLE!r}, 'host.1.*': {scenarios.BUSY!r}}}, expected {{'host.1.*': ",
    ),
    broken.ForgetsAllWhenOneLeaves: (
        scenarios.a_worker_that_has_signed_is_known_until_it_leaves,
        "got {}, expected {'host.1.*': ",
    ),
    broken.FailsToRemoveWhatIsNotThere: (WORKS, "raised KeyError: 'host.3.*'"),
    broken.RemovesAnotherInItsPlace: (
        scenarios.a_worker_that_leaves_removes_no_other,
        "got {}, expected {'host.0.*': ",
    ),
    broken.LosesConcurrentSigns: (scenarios.no_concurrent_sign_is_lost, f"got {{'host.1.*': {scenarios.IDLE!r}}}, exp"),
    broken.LosesSignsWhileOneLeaves: (scenarios.no_concurrent_sign_is_lost, f": {scenarios.IDLE!r}}}, expected {{"),
    broken.RemovesBeforeItWrites: (scenarios.a_cancelled_sign_is_whole_or_not_made, "got None, expected "),
    broken.KeepsItsConnectionWhenCutOff: (WORKS, "raised TimeoutError: no answer within 1 seconds"),
    broken.SignsAtOnce: (ASYNC, "workers.sign() is not async"),
    broken.ReportsAtOnce: (ASYNC, "workers.reports() is not async"),
    broken.ListsReports: (TYPES, "got [('host.0.*', "),
    broken.ReportsBytes: (TYPES, "got {b'host.0.*': b'"),
    broken.CannotSignNowAndThen: (WORKS, "raised NotSupportedError: this store counts one worker at most"),
}
"""The promise that each breaks, by its scenario or in words, and what is seen."""


def broken_promise(make_backend: MakeBackend, **settings: Any) -> PromiseBrokenError:  # noqa: ANN401 -- of the check
    """Return what the check finds."""
    with pytest.raises(PromiseBrokenError) as caught:
        check_backend(make_backend, **{"patience": A_MINUTE, **settings})
    return caught.value


def one(kind: type[Any]) -> MakeBackend:
    """Return what makes the same backend of this kind each time."""
    backend = kind({}) if issubclass(kind, TextSwitch) else kind()
    if isinstance(backend, broken.Registry):
        backend = broken.Drainable(backend)
    return lambda: cast("StateBackend", backend)


@pytest.mark.parametrize("kind", FINDS)
def test_check_backend_broken_backend_names_the_promise(kind: type[object]) -> None:
    promise, seen = FINDS[kind]
    error = broken_promise(one(kind), patience=1)
    expected = promise if isinstance(promise, str) else promise.__doc__
    shown = re.sub(r"(?<=host\.\d\.)\w{12}", "*", error.seen)
    assert (error.promise, seen in shown, str(error).count(error.seen)) == (expected, True, 1), error


def test_check_backend_scenario_alone_finds_what_it_is_about() -> None:
    chosen = [scenarios.a_written_state_is_read_to_the_letter]
    assert broken_promise(one(broken.DropsMessages), scenarios=chosen).scenario == chosen[0].__name__
    check_backend(one(broken.DropsMessages), scenarios=[scenarios.reads_agree])


@pytest.mark.parametrize("event_loop", ["asyncio", "trio"])
def test_check_backend_two_switches_are_reported(event_loop: str) -> None:
    error = broken_promise(BareSwitch, event_loop=event_loop)
    assert str(error).splitlines() == [
        f"promise broken: {PROMISE}",
        "in a_written_switch_is_read:",
        "  a: set_value(True)",
        "  a: get_value()",
        "  b: get_value()",
        "  got False, expected True",
    ]


def test_check_backend_worker_of_another_instance_is_missed() -> None:
    first = broken.Drainable(broken.Registry())
    pair = iter((first, broken.Drainable(broken.Registry(), first.memory)))
    error = broken_promise(lambda: next(pair), scenarios=[scenarios.no_concurrent_sign_is_lost])
    assert (error.calls[-1], error.seen[:26]) == ("b: workers.reports()", "got {}, expected {'host.0.")


def test_promise_broken_error_many_calls_shows_the_last() -> None:
    error = broken_promise(one(broken.DeletesBeforeItWrites))
    assert isinstance(error, AssertionError)
    assert isinstance(error, MaintenanceError)
    lines = str(error).splitlines()
    assert lines[2] == f"  ... {len(error.calls) - 8} calls"
    assert lines[3:-1] == [f"  {call}" for call in error.calls[-8:]]


def test_promise_broken_error_keeps_the_cause() -> None:
    assert isinstance(broken_promise(one(broken.MissesWhatIsNotThere)).__cause__, KeyError)
    assert isinstance(broken_promise(one(broken.RefusesToWait)).__cause__, BlockingIOError)


def test_check_backend_class_in_place_of_object_is_refused() -> None:
    error = broken_promise(lambda: cast("StateBackend", MemoryBackend))
    assert error.seen == "make_backend() returned the class MemoryBackend, not an object of it"


def test_check_backend_make_backend_raises_reaches_the_caller() -> None:
    def make_backend() -> StateBackend:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        check_backend(make_backend)


def test_check_backend_logs_nothing_of_its_own(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("fastapi_maintenance")

    class Logs(BareSwitch):
        async def get_value(self) -> bool:
            logger.warning("of its own")
            await to_thread.run_sync(logger.warning, "of another thread")
            return self.value

    check_backend(one(Logs), scenarios=[scenarios.reads_agree])
    logger.warning("afterwards")
    assert {record.message for record in caplog.records} == {"of another thread", "afterwards"}


def test_check_backend_failure_in_pytest_shows_the_calling_line(tmp_path: Path) -> None:
    tmp_path.joinpath("test_mine.py").write_text(
        """if True:
            import pytest
            from fastapi_maintenance.testing import SCENARIOS, check_backend

            class Forgets:
                async def get_value(self): return False
                async def set_value(self, value): pass

            @pytest.mark.parametrize("scenario", SCENARIOS)
            def test_my_backend(scenario):
                check_backend(Forgets, scenarios=[scenario])
        """,
        encoding="utf-8",
    )
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--tb=short"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120)
    lines = [line.rstrip() for line in ran.stdout.splitlines() if not line.strip().startswith("^")]
    first = lines.index("test_mine.py:11: in test_my_backend")
    assert lines[first : first + 7] == [
        "test_mine.py:11: in test_my_backend",
        "    check_backend(Forgets, scenarios=[scenario])",
        f"E   fastapi_maintenance.errors.PromiseBrokenError: promise broken: {PROMISE}",
        "E   in a_written_switch_is_read:",
        "E     a: set_value(True)",
        "E     a: get_value()",
        "E     got False, expected True",
    ]
    assert lines[-1].startswith("=") is True
    assert f"3 failed, {len(SCENARIOS) - 3} passed" in lines[-1]


@pytest.mark.parametrize(
    ("make_backend", "settings", "kind", "message"),
    [
        (
            MemoryBackend(),
            {},
            TypeError,
            r"make_backend must be a function .* `lambda: backend`, got MemoryBackend Mem",
        ),
        (MemoryBackend, {"scenarios": ["reads_agree"]}, TypeError, "scenarios must be callable, got str 'reads_agree'"),
        (MemoryBackend, {"patience": 0}, ValueError, "patience must be a finite number of seconds above 0, got 0"),
        (MemoryBackend, {"event_loop": "uvloop"}, ValueError, "event_loop must be 'asyncio' or 'trio', got 'uvloop'"),
    ],
)
def test_check_backend_wrong_argument_is_refused(
    make_backend: MakeBackend, settings: dict[str, Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        check_backend(make_backend, **settings)
