"""Two workers under traffic while their store dies, hangs, loses its data, refuses and comes back.

Each answer is counted. A worker may hold a request for a minute, and a client waits half of that, so a request that
waited for the store would show. The workers wait some seconds for an answer of the store, so that a slow machine is not
an outage.
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
import httpx
import pytest
import redis
import sqlalchemy
from sqlalchemy.exc import DBAPIError

from fastapi_maintenance import set_maintenance_mode
from fastapi_maintenance.backends.redis import RedisBackend
from tests.backends.helpers import DRIVERS, connected, execute, on_asyncio  # noqa: F401 -- a fixture
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
KILL = "CLIENT KILL TYPE normal SKIPME yes; CLIENT KILL TYPE pubsub SKIPME yes"
TERMINATE = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
)


@dataclass
class Worker:
    """A process that serves the app."""

    url: str
    log: Path
    answers: Counter[str] = field(default_factory=Counter)

    def outages(self) -> tuple[int, int]:
        """Return how many outages have begun and have ended by its log, in which they alternate."""
        logged = re.findall("cannot be read from|can be read again from", self.log.read_text())
        assert {*logged[::2]} <= {"cannot be read from"}
        assert {*logged[1::2]} <= {"can be read again from"}
        return len(logged[::2]), len(logged[1::2])


@dataclass
class Scene:
    """A store and two workers under traffic."""

    server: Server
    workers: list[Worker]
    begun: int = 0

    def answers(self) -> list[Counter[str]]:
        return [Counter(worker.answers) for worker in self.workers]

    def answers_since(self, before: list[Counter[str]]) -> list[Counter[str]]:
        return [now - then for now, then in zip(self.answers(), before, strict=True)]

    def outages(self) -> list[tuple[int, int]]:
        return [worker.outages() for worker in self.workers]

    async def switch(self, value: bool) -> None:
        """Set the switch in this process, and wait until both workers follow."""
        await set_maintenance_mode(value, self.server.url)
        await self.wait_for("closed" if value else "open")

    async def wait_for(self, expected: str) -> None:
        """Wait until both workers give this answer and no other."""

        async def answer_alike() -> bool:
            before = self.answers()
            await anyio.sleep(0.05)
            return all({*count} == {expected} for count in self.answers_since(before))

        await eventually(answer_alike, within=60)

    @asynccontextmanager
    async def only(self, expected: str) -> AsyncGenerator[None]:
        """Check that both workers give this answer often, and no other, while the block runs."""
        before = self.answers()
        yield
        await eventually(lambda: all(each.total() >= ENOUGH for each in self.answers_since(before)), within=60)
        assert [{*count} for count in self.answers_since(before)] == [{expected}, {expected}]

    @asynccontextmanager
    async def outage(self, expected: str) -> AsyncGenerator[None]:
        """Check that an outage begins by both logs, and that no answer changes."""
        self.begun += 1
        async with self.only(expected):
            yield
            await self.wait_for_outages(in_progress=1)

    async def wait_for_outages(self, *, in_progress: int) -> None:
        """Wait until both logs have the outages; a worker that was stopped itself may have logged more."""

        def have_them() -> bool:
            return all(begun >= self.begun and begun - ended == in_progress for begun, ended in self.outages())

        await eventually(have_them, within=60)


@pytest.fixture(scope="module", params=["redis", *DRIVERS])
def scene(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """Start a store and two workers on it."""
    folder = tmp_path_factory.mktemp("scene")
    (folder / "main.py").write_text(APP)
    with running(request.param) as server, ExitStack() as stack:
        env = {"STORE": f"{server.url}?socket_timeout=60" if request.param == "redis" else server.url}
        workers = []
        for name in ("one", "two"):
            log, words = folder / f"{name}.log", ["--no-access-log", "--timeout-keep-alive", "60"]
            url = stack.enter_context(uvicorn_process("main:app", *words, folder=folder, env=env, log=log))
            workers.append(Worker(url, log))
        yield Scene(server, workers)


@asynccontextmanager
async def traffic(scene: Scene) -> AsyncGenerator[None]:
    """Send requests to each worker, one after the other, and count the answers."""

    async def visit(worker: Worker) -> None:
        async with httpx.AsyncClient(timeout=30) as client:
            while True:
                try:
                    text = (await client.get(worker.url)).text
                except httpx.HTTPError as error:
                    text = repr(error)
                worker.answers[BODIES.get(text, text)] += 1
                await anyio.sleep(0.02)

    async with anyio.create_task_group() as group:
        for worker in scene.workers:
            group.start_soon(visit, worker)
        yield
        group.cancel_scope.cancel()


async def test_app_store_dies_hangs_and_comes_back_no_request_notices(scene: Scene) -> None:
    server = scene.server
    async with traffic(scene):
        for closed, answer in ((True, "closed"), (False, "open")):
            await scene.switch(closed)
            async with scene.outage(answer):
                server.kill()
            async with scene.only(answer):
                server.start()
                await scene.wait_for_outages(in_progress=0)
            await scene.switch(not closed)

        async with scene.outage("closed"):
            server.freeze()
        async with scene.only("closed"):
            server.thaw()
            await scene.wait_for_outages(in_progress=0)

        async with scene.outage("closed"):
            server.kill()
        server.lose_everything()  # so it is off when it comes back
        server.start()
        await scene.wait_for_outages(in_progress=0)
        await scene.wait_for("open")
        await scene.switch(True)


async def test_app_store_refuses_no_request_notices(scene: Scene) -> None:
    async with traffic(scene), connected(scene.server.url) as operator:
        await scene.switch(True)

        # It asks for a password.
        async with passwords(scene.server, operator), scene.outage("closed"):
            pass
        async with scene.only("closed"):
            await scene.wait_for_outages(in_progress=0)
        await scene.switch(False)  # both workers follow it again
        await scene.switch(True)

        # It can be read but not written, which is not an outage.
        async with scene.only("closed"):
            before = scene.outages()
            await be_full(operator, is_full=True)
            with pytest.raises((redis.RedisError, DBAPIError)):
                await set_maintenance_mode(False, operator)
            await anyio.sleep(1.2)  # each worker tries to write its record
            await be_full(operator, is_full=False)
            assert scene.outages() == before

        # It closes the connections, several times.
        for closed in (False, True, False):
            await execute(operator, KILL if isinstance(operator, RedisBackend) else TERMINATE)
            await scene.switch(closed)

        # Its value is not valid. (Under load, a connection that was closed above may fail only now.)
        await scene.wait_for_outages(in_progress=0)
        async with scene.only("open"):
            garbage = "SET fastapi_maintenance_mode perhaps"
            update = "UPDATE fastapi_maintenance SET state = 'perhaps'"
            await execute(operator, garbage if isinstance(operator, RedisBackend) else update)
            await scene.wait_for_outages(in_progress=1)
        await set_maintenance_mode(True, operator)
        await scene.wait_for_outages(in_progress=0)
        await scene.wait_for("closed")


@asynccontextmanager
async def passwords(server: Server, operator: Any) -> AsyncGenerator[None]:  # noqa: ANN401 -- on Redis or PostgreSQL
    """Close all connections but the operator's, and refuse new ones, while the block runs."""
    if isinstance(operator, RedisBackend):
        await operator.client.config_set("requirepass", "secret")
        await execute(operator, KILL)
        yield
        await operator.client.config_set("requirepass", "")
        return
    assert isinstance(server, Postgres)
    async with operator.engine.connect() as connection:
        server.ask_for_passwords(ask=True)
        await eventually(lambda: is_refused(server.url), within=60)  # when the server has read its rules
        await connection.execute(sqlalchemy.text(TERMINATE))
    yield
    server.ask_for_passwords(ask=False)


async def is_refused(url: str) -> bool:
    """Return whether a new connection is refused."""
    async with connected(url) as newcomer:
        try:
            await newcomer.get_value()
        except Exception as error:  # noqa: BLE001 -- whatever the driver raises
            return "password" in str(error)
    return False


async def be_full(operator: Any, *, is_full: bool) -> None:  # noqa: ANN401 -- on Redis or PostgreSQL
    """Refuse writes, or accept them again."""
    if isinstance(operator, RedisBackend):
        await operator.client.config_set("maxmemory", "1" if is_full else "0")
        return
    setting = "on" if is_full else "off"
    await execute(operator, f"ALTER SYSTEM SET default_transaction_read_only = {setting}; SELECT pg_reload_conf()")

    async def has_setting() -> bool:  # when the server has read its rules
        await operator.engine.dispose()
        async with operator.engine.connect() as connection:
            return bool(setting == await connection.scalar(sqlalchemy.text("SHOW default_transaction_read_only")))

    await eventually(has_setting, within=60)
