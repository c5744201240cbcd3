"""Two workers under traffic while their store dies, hangs, forgets, refuses and comes back.

Each answer is counted. The workers may hold a request for the store as long as a minute, the clients wait half of it:
where a request waited for a store that is away, it would be seen. The workers wait some seconds for the store before
they count it as away, so that an outage is none of the machine, which may stop a process as long.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import AsyncGenerator, Iterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import httpx
import pytest
import redis
import sqlalchemy
from sqlalchemy.exc import DBAPIError

from fastapi_maintenance import backend_from_url, set_maintenance_mode
from fastapi_maintenance.backends.redis import RedisBackend
from fastapi_maintenance.backends.sqlalchemy import SQLAlchemyBackend
from fastapi_maintenance.backends.url import close_if_made_here
from tests.backends.helpers import on_asyncio  # noqa: F401 -- a fixture
from tests.servers import Postgres, Server, running
from tests.support import eventually, uvicorn_process

pytestmark = [pytest.mark.anyio, pytest.mark.servers, pytest.mark.no_cover]  # it happens in other processes

APP = """
import os
import sys
from fastapi import FastAPI
from fastapi_maintenance import maintenance_middleware

app = FastAPI()
app.add_middleware(maintenance_middleware(backend=os.environ["STORE"], read_timeout=60))
for name, module in list(sys.modules.items()):
    if name.startswith("fastapi_maintenance.") and hasattr(module, "ANSWER_TIMEOUT"):
        module.ANSWER_TIMEOUT = 6

@app.get("/")
async def root():
    return "open"
"""
BODIES = {'"open"': "open", '{"detail":"Service temporarily unavailable due to maintenance"}': "closed"}
ENOUGH = 20
CUT = sqlalchemy.text(
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
)


@dataclass
class Worker:
    """A process that serves the app."""

    url: str
    log: Path
    outcomes: Counter[str] = field(default_factory=Counter)

    def records(self) -> tuple[int, int]:
        """Return how many outages were logged to have begun, and to have ended: each once, in turn."""
        told = re.findall("cannot be read from|can be read again from", self.log.read_text())
        begins, ends = told[::2], told[1::2]
        assert {"cannot be read from"} >= set(begins)
        assert {"can be read again from"} >= set(ends)
        return len(begins), len(ends)


@dataclass
class Scene:
    """A store and two workers under traffic."""

    server: Server
    workers: list[Worker]
    outages: int = 0

    async def switch(self, value: bool) -> None:
        """Set the switch, as an operator does from another process, and see both workers follow."""
        await set_maintenance_mode(value, self.server.url)
        await self.see("closed" if value else "open")

    async def see(self, expected: str) -> None:
        """Wait until both workers have answered so since now, and go on with no other answer."""

        async def answer_alike() -> bool:
            before = [Counter(worker.outcomes) for worker in self.workers]
            await anyio.sleep(0.05)
            since = [worker.outcomes - count for worker, count in zip(self.workers, before, strict=True)]
            return all(set(count) == {expected} for count in since)

        await eventually(answer_alike, within=60)

    @asynccontextmanager
    async def only(self, expected: str) -> AsyncGenerator[None]:
        """See nothing but this answer, and many of it, while the block runs."""
        before = [Counter(worker.outcomes) for worker in self.workers]

        def since() -> list[Counter[str]]:
            return [worker.outcomes - count for worker, count in zip(self.workers, before, strict=True)]

        yield
        await eventually(lambda: all(count.total() >= ENOUGH for count in since()), within=60)
        assert [{expected}, {expected}] == [set(count) for count in since()]

    @asynccontextmanager
    async def outage(self, expected: str) -> AsyncGenerator[None]:
        """See an outage begin, in the log of each worker, and much traffic that does not notice it."""
        self.outages += 1
        async with self.only(expected):
            yield
            await self.see_records(self.outages, self.outages - 1)

    async def see_records(self, begun: int, ended: int) -> None:
        """Wait until both logs tell of so many outages, or of more: a worker that is stopped logs one, too."""

        def told() -> list[tuple[bool, int]]:
            records = [worker.records() for worker in self.workers]
            return [(begun <= begins, begins - ends) for begins, ends in records]

        try:
            await eventually(lambda: [(True, begun - ended)] * 2 == told(), within=60)
        finally:
            assert [(True, begun - ended)] * 2 == told()


@pytest.fixture(scope="module", params=["redis", "asyncpg", "psycopg"])
def stage(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """Start a store and two workers on it."""
    tmp_path = tmp_path_factory.mktemp("stage")
    (tmp_path / "main.py").write_text(APP)
    with running(request.param) as server, ExitStack() as stack:
        workers = []
        for name in ("one", "two"):
            log = tmp_path / f"{name}.log"
            store = f"{server.url}?socket_timeout=60" if request.param == "redis" else server.url
            words = ["--no-access-log", "--timeout-keep-alive", "60"]
            url = stack.enter_context(
                uvicorn_process("main:app", *words, folder=tmp_path, env={"STORE": store}, log=log)
            )
            workers.append(Worker(url, log))
        yield Scene(server, workers)


@asynccontextmanager
async def traffic(scene: Scene) -> AsyncGenerator[None]:
    """Send requests to each worker, one after the other, and count what they are answered with."""

    async def visit(worker: Worker) -> None:
        async with httpx.AsyncClient(timeout=30) as client:
            while True:
                try:
                    response = await client.get(worker.url)
                except httpx.HTTPError as error:
                    worker.outcomes[repr(error)] += 1
                else:
                    worker.outcomes[BODIES.get(response.text, response.text)] += 1
                await anyio.sleep(0.02)

    async with anyio.create_task_group() as group:
        for worker in scene.workers:
            group.start_soon(visit, worker)
        yield
        group.cancel_scope.cancel()


async def test_no_fault_of_the_store_is_noticed_by_a_request(stage: Scene) -> None:
    server = stage.server
    async with traffic(stage):
        for closed in (True, False):
            answer = "closed" if closed else "open"
            await stage.switch(closed)

            # killed, and back with its data
            async with stage.outage(answer):
                server.kill()
            async with stage.only(answer):
                server.start()
                await stage.see_records(stage.outages, stage.outages)
            await stage.switch(not closed)

        # stopped, and continued
        async with stage.outage("closed"):
            server.freeze()
        async with stage.only("closed"):
            server.thaw()
            await stage.see_records(stage.outages, stage.outages)

        # killed, and back without its data: what it says then is that there is no maintenance
        async with stage.outage("closed"):
            server.kill()
        server.lose_everything()
        server.start()
        await stage.see_records(stage.outages, stage.outages)
        await stage.see("open")
        await stage.switch(True)


async def test_no_refusal_of_the_store_is_noticed_by_a_request(stage: Scene) -> None:
    server = stage.server
    operator: Any = backend_from_url(server.url)
    async with traffic(stage):
        await stage.switch(True)

        # refuses the password
        async with refused(server, operator), stage.outage("closed"):
            pass
        async with stage.only("closed"):
            await stage.see_records(stage.outages, stage.outages)

        # is full, or whatever else keeps it from being written: it can be read, so this is no outage
        async with stage.only("closed"):
            before = [worker.records() for worker in stage.workers]
            await be_full(operator, full=True)
            with pytest.raises((redis.RedisError, DBAPIError)):
                await set_maintenance_mode(False, operator)
            await anyio.sleep(1.2)  # each worker has to show that it lives
            await be_full(operator, full=False)
            assert [worker.records() for worker in stage.workers] == before

        # cuts the connections, again and again; one that is made anew at once is no outage
        for closed in (False, True, False):
            await cut_connections(operator)
            await stage.switch(closed)

        # says what is no state
        await eventually(lambda: all(len({*worker.records()}) == 1 for worker in stage.workers), within=60)
        before = [worker.records() for worker in stage.workers]
        async with stage.only("open"):
            await write_garbage(operator)
            await eventually(lambda: has_logged(stage, before, 1, 0), within=60)
        await set_maintenance_mode(True, operator)
        await eventually(lambda: has_logged(stage, before, 1, 1), within=60)
        await stage.see("closed")
    await close_if_made_here(operator)


def has_logged(scene: Scene, before: list[tuple[int, int]], begun: int, ended: int) -> bool:
    """Return whether each worker has logged so many more beginnings and ends of outages than before."""
    return [(begins + begun, ends + ended) for begins, ends in before] == [worker.records() for worker in scene.workers]


@asynccontextmanager
async def refused(server: Server, operator: RedisBackend | SQLAlchemyBackend) -> AsyncGenerator[None]:
    """Let nobody in for a while, and nobody stay, except the operator."""
    if isinstance(operator, RedisBackend):
        client = operator.client
        await client.config_set("requirepass", "secret")
        for kind in ("normal", "pubsub"):
            await client.execute_command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")
        yield
        await client.config_set("requirepass", "")
        return
    assert isinstance(server, Postgres)
    async with operator.engine.connect() as connection:
        server.ask_for_passwords(ask=True)
        await eventually(lambda: is_refused(server.url), within=60)  # when the server has read its rules
        await connection.execute(CUT)
    yield
    server.ask_for_passwords(ask=False)


async def is_refused(url: str) -> bool:
    """Tell whether a newcomer is refused."""
    newcomer = backend_from_url(url)
    try:
        await newcomer.get_value()
    except Exception as error:  # noqa: BLE001 -- whatever the driver raises
        return "password" in str(error)
    finally:
        await close_if_made_here(newcomer)
    return False


async def be_full(operator: RedisBackend | SQLAlchemyBackend, *, full: bool) -> None:
    """Refuse what is written, or take it again."""
    if isinstance(operator, RedisBackend):
        await operator.client.config_set("maxmemory", "1" if full else "0")
        return
    setting = "on" if full else "off"
    rule = f"ALTER SYSTEM SET default_transaction_read_only = {setting}"
    async with operator.engine.connect() as connection:
        plain = await connection.execution_options(isolation_level="AUTOCOMMIT")
        await plain.execute(sqlalchemy.text(rule))
        await plain.execute(sqlalchemy.text("SELECT pg_reload_conf()"))

    async def is_so() -> bool:  # when the server has read its rules
        await operator.engine.dispose()
        async with operator.engine.connect() as connection:
            shown: object = await connection.scalar(sqlalchemy.text("SHOW default_transaction_read_only"))
        return setting == shown

    await eventually(is_so, within=60)


async def cut_connections(operator: RedisBackend | SQLAlchemyBackend) -> None:
    """Cut every connection to the store but the operator's."""
    if isinstance(operator, RedisBackend):
        for kind in ("normal", "pubsub"):
            await operator.client.execute_command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")
        return
    async with operator.engine.connect() as connection:
        await connection.execute(CUT)


async def write_garbage(operator: RedisBackend | SQLAlchemyBackend) -> None:
    """Write what is no state, and tell the followers."""
    if isinstance(operator, RedisBackend):
        await operator.client.set(operator.key, "perhaps")
        return
    async with operator.engine.begin() as connection:
        await connection.execute(sqlalchemy.text("UPDATE fastapi_maintenance SET state = 'perhaps'"))
