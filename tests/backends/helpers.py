"""Helpers for the tests of the backends: marks, states, programs in other processes, and workers."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from typing import Any

import anyio
import psutil
import pytest
import sqlalchemy
from fastapi import FastAPI

from fastapi_maintenance import Hold, MaintenanceState, StateBackend, Switch, get_workers, maintenance_mode_on
from fastapi_maintenance.backends.redis import RedisBackend
from fastapi_maintenance.backends.url import opened
from fastapi_maintenance.state import add_hold
from fastapi_maintenance.typing import WatchableStateBackend
from tests.middleware.test_failures import status
from tests.support import ROOT, eventually
from tests.switch.lifespans import answers

ON, OFF = MaintenanceState(switch=Switch(on=True)), MaintenanceState()
LONG_AGO, IN_A_CENTURY = (datetime(year, 1, 1, tzinfo=UTC) for year in (2000, 2100))
LIMIT = 65_536
WORKER = "host.1.process-1"
DRIVERS = ["asyncpg", "psycopg"]
only_posix = pytest.mark.skipif(sys.platform == "win32", reason="POSIX only")
as_root = pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can change owners")


@pytest.fixture(name="anyio_backend")
def on_asyncio() -> str:
    """Run on asyncio only, as the clients do, in a module that imports this."""
    return "asyncio"


def messages_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "fastapi_maintenance"]


def adding(hold_id: str) -> Callable[[MaintenanceState], MaintenanceState]:
    """Return a change that would be lost if two writers overwrote each other."""
    return lambda state: add_hold(state, Hold(id=hold_id, on=True), LONG_AGO)


def holds_of(state: MaintenanceState) -> list[str]:
    return [hold.id for hold in state.holds]


def start_python(program: str, *arguments: object) -> subprocess.Popen[str]:
    """Start a program in another process, with pipes."""
    command = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(program), *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def run_python(program: str, *arguments: object) -> str:
    """Run a program in another process, and return what it printed."""
    with start_python(program, *arguments) as process:
        printed, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    return printed


@asynccontextmanager
async def connected(url: str) -> AsyncGenerator[Any]:
    """Yield a backend with its own client, as in another process."""
    async with opened(url) as backend:
        yield backend


async def execute(backend: Any, commands: str) -> None:  # noqa: ANN401 -- on Redis or PostgreSQL
    """Execute commands, separated by `; `, on the server of a backend."""
    if isinstance(backend, RedisBackend):
        for command in commands.split("; "):
            await backend.client.execute_command(*command.split())
        return
    async with backend.engine.connect() as connection:
        plain = await connection.execution_options(isolation_level="AUTOCOMMIT")
        for command in commands.split("; "):
            await plain.execute(sqlalchemy.text(command))


@asynccontextmanager
async def watched(backend: WatchableStateBackend) -> AsyncGenerator[list[MaintenanceState]]:
    """Watch a backend, and yield the list of the states that it yields, of which the first is there."""
    states: list[MaintenanceState] = []

    async def watch() -> None:
        async for state in backend.watch():
            states.append(state)  # noqa: PERF401 -- each at once

    async with anyio.create_task_group() as group:
        group.start_soon(watch)
        await eventually(lambda: bool(states))
        yield states
        group.cancel_scope.cancel()


async def wait_for_workers(backend: StateBackend, *process_ids: int) -> None:
    """Wait until the workers of these processes are counted, and no others."""

    async def are_counted() -> bool:
        return sorted(worker.process_id for worker in await get_workers(backend)) == sorted(process_ids)

    await eventually(are_counted)


async def check_drain(app: FastAPI, backend: StateBackend) -> None:
    """Drain an app that is being served: the block is entered, and maintenance is on in it."""
    async with maintenance_mode_on(backend, drain=60, workers=1):
        assert await status(app) == 503
    await answers(app, 200)


@contextmanager
def forking(url: str) -> Iterator[tuple[subprocess.Popen[str], Callable[[], psutil.Process]]]:
    """Run a worker; yield it, and a function that makes it fork a child, which sleeps."""
    program = """
        import os, sys, time
        import anyio
        from tests.middleware.test_failures import app_on
        from tests.switch.lifespans import living

        async def main():
            async with living(app_on(sys.argv[1])):
                await anyio.to_thread.run_sync(sys.stdin.readline)
                child = os.fork()
                if child == 0:
                    time.sleep(600)
                    os._exit(0)
                print(child, flush=True)
                await anyio.sleep_forever()

        anyio.run(main)
    """
    children: list[psutil.Process] = []
    with start_python(program, url) as process:

        def fork() -> psutil.Process:
            print(file=process.stdin, flush=True)
            assert process.stdout is not None
            children.append(psutil.Process(int(process.stdout.readline())))
            return children[-1]

        try:
            yield process, fork
        finally:
            process.kill()
            for child in children:
                child.kill()
