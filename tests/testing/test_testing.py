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
from fastapi_maintenance.testing import SCENARIOS, MakeBackend, PromiseBrokenError, check_backend, scenarios
from tests.stores import BareSwitch, DetailedStore, ReadOnlySwitch, TextSwitch
from tests.testing import broken

pytestmark = [pytest.mark.anyio, pytest.mark.servers]
each_loop = pytest.mark.parametrize("event_loop", ["asyncio", "trio"])
EventLoop = Literal["asyncio", "trio"]
A_MINUTE = 60
"""Patience where nothing hangs, for a slow machine."""


class WatchableSwitch(BareSwitch):
    async def watch(self) -> AsyncIterator[MaintenanceState]:
        last = None
        while True:
            if self.value is not last:
                last = self.value
                yield MaintenanceState(switch=Switch(on=last))
            await anyio.sleep(0.001)


class SwitchWithAnIterator(WatchableSwitch):
    """One whose `watch` returns an object without `aclose`."""

    def watch(self) -> Any:  # noqa: ANN401 -- an async iterator
        states = super().watch()

        class Iterator:
            def __aiter__(self) -> Iterator:
                return self

            async def __anext__(self) -> MaintenanceState:
                return await anext(states)

        return Iterator()


class KeepsMessages(DetailedStore):
    """One whose `set_value` leaves the message and the end unchanged."""

    async def set_value(self, value: bool, /) -> None:
        await self.memory.update_state(lambda state: replace(state, switch=replace(state.switch, on=value)))


class RaisesWhenCancelled(BareSwitch):
    """One whose client turns a cancellation into its own error."""

    async def set_value(self, value: bool, /) -> None:
        try:
            await checkpoint()
        except BaseException as error:
            message = "cut off"
            raise ConnectionError(message) from error
        self.value = value


def but(base: type[Any], **members: object) -> Callable[[], object]:
    """Return a class that differs from its base in these members."""
    return type(f"Other{base.__name__}", (base,), members)


GOOD: dict[str, Callable[[], object]] = {
    "memory": MemoryBackend,
    "two methods": BareSwitch,
    "two methods of the base class": lambda: TextSwitch({}),
    "0 and 1, as in some databases": but(BareSwitch, get_value=broken.later(lambda self: int(self.value))),
    "two methods that raise when cancelled": RaisesWhenCancelled,
    "two methods and peek": but(BareSwitch, peek=lambda self: MaintenanceState(switch=Switch(on=self.value))),
    "two methods and watch": WatchableSwitch,
    "two methods and watch that is not a generator": SwitchWithAnIterator,
    "detailed": DetailedStore,
    "detailed with a set_value that keeps messages": KeepsMessages,
    "watchable": broken.Watchable,
    "drainable": lambda: broken.Drainable(broken.Registry()),
    "drainable that cannot be watched": but(DetailedStore, workers=broken.Registry()),
    "with workers that it cannot count": broken.Drainable,
    "cached": lambda: cached(DetailedStore(), ttl=60),
    "read-only with two methods": ReadOnlySwitch,
    "environment variable": EnvVarBackend,
}


@each_loop
@pytest.mark.parametrize("kind", GOOD)
def test_check_backend_good_backend_passes(kind: str, event_loop: EventLoop) -> None:
    backend = cast("StateBackend", GOOD[kind]())
    check_backend(lambda: backend, patience=A_MINUTE, event_loop=event_loop)


def test_check_backend_class_or_async_function_passes() -> None:
    store: dict[str, str] = {}

    class OnOneStore(TextSwitch):
        def __init__(self) -> None:
            super().__init__(store)

    async def make_backend() -> StateBackend:
        await checkpoint()
        return OnOneStore()

    for make in (OnOneStore, make_backend):
        check_backend(make)
        assert store.pop("mode") == "0"


@pytest.mark.usefixtures("_patient")
@each_loop
def test_check_backend_file_passes(tmp_path: Path, event_loop: EventLoop) -> None:
    switch = tmp_path / "switch"
    check_backend(lambda: LocalFileBackend(switch), patience=A_MINUTE, event_loop=event_loop)
    assert switch.read_text(encoding="utf-8") == "0\n"


@pytest.mark.usefixtures("_patient")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of psycopg, see below
@pytest.mark.parametrize("kind", ["redis", "cluster", "asyncpg", "psycopg"])
def test_check_backend_server_url_passes(kind: str, url_of: Callable[[str], str]) -> None:
    url = f"{url_of(kind)}?key={uuid.uuid4()}"
    check_backend(lambda: backend_from_url(url), patience=A_MINUTE)
    gc.collect()  # closes, with a warning, a connection of psycopg whose opening was cancelled


@pytest.mark.usefixtures("_patient")
@pytest.mark.parametrize("kind", ["redis", "sqlite"])
def test_check_backend_context_manager_makes_clients_on_its_event_loop_and_passes(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    clients: list[object] = []

    @asynccontextmanager
    async def make_redis() -> AsyncGenerator[StateBackend]:
        async with Redis.from_url(request.getfixturevalue("redis_url")) as client:
            clients.append(client)
            yield RedisBackend(client)

    @asynccontextmanager
    async def make_sqlite() -> AsyncGenerator[StateBackend]:
        engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/switch.db")
        clients.append(engine)
        yield SQLAlchemyBackend(engine, poll_interval=0.01)
        await engine.dispose()

    check_backend(make_redis if kind == "redis" else make_sqlite, patience=A_MINUTE)
    assert len(clients) == 2


@pytest.mark.parametrize("wrap", [lambda backend: backend, cached])
def test_check_backend_closes_clients_of_urls(wrap: Callable[[Any], StateBackend], tmp_path: Path) -> None:
    closed: list[object] = []

    def make_backend() -> StateBackend:
        backend: Any = backend_from_url(f"sqlite+aiosqlite:///{tmp_path}/switch.db")
        close = backend.close_client

        async def close_client() -> None:
            closed.append(backend)
            await close()

        backend.close_client = close_client
        return wrap(backend)

    check_backend(make_backend, scenarios=())
    assert len(closed) == 2


# What it finds

PROMISE = "A read returns what was written, through another instance too."


def broken_promise(make_backend: MakeBackend, **settings: Any) -> PromiseBrokenError:  # noqa: ANN401 -- of the check
    """Return what the check finds."""
    with pytest.raises(PromiseBrokenError) as caught:
        check_backend(make_backend, **{"patience": A_MINUTE, **settings})
    return caught.value


def one(name: str) -> MakeBackend:
    """Return a function that returns the same broken backend each time."""
    kind, _, _ = broken.BROKEN[name]
    backend = kind({}) if issubclass(kind, TextSwitch) else kind()
    if isinstance(backend, broken.Registry):
        backend = broken.Drainable(backend)
    return lambda: cast("StateBackend", backend)


@pytest.mark.parametrize("name", broken.BROKEN)
def test_check_backend_broken_backend_names_the_promise(name: str) -> None:
    _, promise, seen = broken.BROKEN[name]
    error = broken_promise(one(name), patience=1)
    shown = re.sub(r"(?<=host\.\d\.)\w{12}", "*", error.seen)
    assert (error.promise, seen in shown, str(error).count(error.seen)) == (promise, True, 1), error


def test_check_backend_scenario_alone_finds_only_its_promise() -> None:
    chosen = scenarios.a_written_state_is_read_to_the_letter
    assert broken_promise(one("DropsMessages"), scenarios=[chosen]).scenario == chosen.__name__
    check_backend(one("DropsMessages"), scenarios=[scenarios.reads_agree])


@each_loop
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


def test_check_backend_registry_of_one_instance_is_reported() -> None:
    first = broken.Drainable(broken.Registry())
    pair = iter((first, broken.Drainable(broken.Registry(), first.memory)))
    error = broken_promise(lambda: next(pair), scenarios=[scenarios.no_concurrent_sign_is_lost])
    assert (error.calls[-1], error.seen[:26]) == ("b: workers.reports()", "got {}, expected {'host.0.")


def test_check_backend_class_instead_of_object_is_reported() -> None:
    error = broken_promise(lambda: cast("StateBackend", MemoryBackend))
    assert error.seen == "make_backend() returned the class MemoryBackend, not an object of it"


def test_promise_broken_error_shows_the_last_calls_and_keeps_the_cause() -> None:
    error = broken_promise(one("DeletesBeforeItWrites"))
    assert isinstance(error, AssertionError)
    assert isinstance(error, MaintenanceError)
    earlier = f"  ... {len(error.calls) - 8} calls"
    assert str(error).splitlines()[2:-1] == [earlier, *(f"  {call}" for call in error.calls[-8:])]
    assert isinstance(broken_promise(one("FailsWithoutAValue")).__cause__, KeyError)


def test_check_backend_error_of_make_backend_reaches_the_caller() -> None:
    with pytest.raises(ZeroDivisionError):
        check_backend(lambda: cast("StateBackend", 1 / 0))


def test_check_backend_logs_nothing_of_its_own(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("fastapi_maintenance")

    class Logs(BareSwitch):
        async def get_value(self) -> bool:
            logger.warning("of its own")
            await to_thread.run_sync(logger.warning, "of another thread")
            return self.value

    check_backend(Logs, scenarios=[scenarios.reads_agree])
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
    lines = [line for line in ran.stdout.splitlines() if not line.strip().startswith("^")]
    first = lines.index("test_mine.py:11: in test_my_backend")
    assert lines[first + 1 : first + 3] == [
        "    check_backend(Forgets, scenarios=[scenario])",
        f"E   fastapi_maintenance.errors.PromiseBrokenError: promise broken: {PROMISE}",
    ]
    assert f"3 failed, {len(SCENARIOS) - 3} passed" in lines[-1]


@pytest.mark.parametrize(
    ("given", "kind", "message"),
    [
        (
            {"make_backend": MemoryBackend()},
            TypeError,
            r"make_backend must be a function .*: backend`, got MemoryBackend",
        ),
        ({"scenarios": ["reads_agree"]}, TypeError, "scenarios must be callable, got str 'reads_agree'"),
        ({"patience": 0}, ValueError, "patience must be a finite number of seconds above 0, got 0"),
        ({"event_loop": "uvloop"}, ValueError, "event_loop must be 'asyncio' or 'trio', got 'uvloop'"),
    ],
)
def test_check_backend_wrong_argument_is_refused(given: dict[str, Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        check_backend(**{"make_backend": MemoryBackend, **given})
