"""Fixtures of all tests: profiles of Hypothesis, both event loops, and a process whose state each test resets."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import HealthCheck, settings

from fastapi_maintenance._helpers import clock, process
from fastapi_maintenance._switch import holds
from tests.support import RunJumping, on_jumping_clock

settings.register_profile(
    "default",
    deadline=None,
    derandomize="CI" in os.environ,  # CI judges a change; new examples are searched elsewhere
    max_examples=50,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],  # the machine may pause for seconds
)
settings.register_profile("quick", settings.get_profile("default"), max_examples=20)
settings.register_profile("brief", settings.get_profile("default"), max_examples=10)
settings.register_profile("thorough", settings.get_profile("default"), derandomize=False, max_examples=5_000)
settings.register_profile(
    "fuzz", settings.get_profile("thorough"), max_examples=int(os.environ.get("FUZZ_REQUESTS", "100000"))
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))

# A shell that runs the tests in the background may ignore these, and every process that tests start inherits that.
for _number in signal.Signals:
    if _number.name in {"SIGINT", "SIGHUP"} and signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, signal.SIG_DFL)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Import only the modules that start servers if only those tests run: each process imports them again."""
    only_servers = config.option.markexpr == "servers" and collection_path.suffix == ".py"
    return True if only_servers and "mark.servers" not in collection_path.read_text(encoding="utf-8") else None


@pytest.fixture(params=os.environ.get("EVENT_LOOPS", "asyncio trio").split())
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Run each async test on both event loops, or on those in the environment variable."""
    name: str = request.param
    return name


@pytest.fixture(autouse=True)
def _fresh_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Start each test as a new process: nothing configured, created, held, forced or in the environment."""
    monkeypatch.delenv("FASTAPI_MAINTENANCE_MODE", raising=False)
    process.reset()
    yield
    left = dict(holds.ledgers)
    process.reset()  # otherwise each later test would fail too
    assert left == {}, "a hold outlived its test"


@pytest.fixture
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give stores a minute to answer, in a test with no unavailable store: the machine may pause for seconds."""
    for name, module in list(sys.modules.items()):
        if name.startswith("fastapi_maintenance."):
            for limit in {"ANSWER_TIMEOUT", "WRITE_TIMEOUT"} & set(vars(module)):
                monkeypatch.setattr(module, limit, 60.0)


@pytest.fixture
def stopped_at(monkeypatch: pytest.MonkeyPatch) -> datetime:
    """Stop the library's clock, and return the time."""
    now = clock.now()
    monkeypatch.setattr(clock, "now", lambda: now)
    return now


@pytest.fixture(params=os.environ.get("EVENT_LOOPS", "asyncio trio").split())
def jumping_loop(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> tuple[str, dict[str, Any]]:
    """Return an event loop whose clock jumps to the next timer, so that a slow machine does not matter.

    A module whose tests use it returns it as its `anyio_backend`. Its tests must not wait for a thread.
    """
    return on_jumping_clock(request.param, monkeypatch)


@pytest.fixture
def run_jumping(jumping_loop: tuple[str, dict[str, Any]]) -> RunJumping:
    """Run a function on such an event loop."""
    name, options = jumping_loop
    return lambda function: anyio.run(function, backend=name, backend_options=options)


@pytest.fixture(scope="session")
def _servers() -> Iterator[Callable[[str], Any]]:
    """Run one store of each kind that tests need, for the whole session."""
    from tests.servers import running  # noqa: PLC0415 -- most tests need none

    with ExitStack() as stack:
        yield cache(lambda kind: stack.enter_context(running(kind)))


@pytest.fixture
def url_of(_servers: Callable[[str], Any]) -> Callable[[str], str]:
    """Return a function that empties the store of a kind (see `running`) and returns its URL."""

    def url(kind: str) -> str:
        server = _servers("asyncpg" if kind == "psycopg" else kind)
        server.empty()
        return str(server.url).replace("asyncpg", kind)

    return url


@pytest.fixture
def redis_url(url_of: Callable[[str], str]) -> str:
    """Return the URL of an empty Redis."""
    return url_of("redis")
