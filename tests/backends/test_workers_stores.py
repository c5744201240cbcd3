"""The workers behind each store: refused at first, killed while a child lives on, and forgotten once they have left."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from sqlalchemy import text

from fastapi_maintenance import maintenance_mode_on
from fastapi_maintenance.backends import file_workers, redis_workers
from fastapi_maintenance.backends.redis import RedisBackend
from fastapi_maintenance.backends.url import opened
from tests.backends.helpers import messages_of, on_asyncio  # noqa: F401 -- a fixture
from tests.backends.places import Place
from tests.backends.workers import counted, forking, is_drained
from tests.middleware.test_failures import app_on
from tests.support import eventually
from tests.switch.lifespans import living

pytestmark = [pytest.mark.anyio, pytest.mark.servers, pytest.mark.usefixtures("_patient")]


class Refusal(NamedTuple):
    """Why a store keeps no record of a worker: what brings that about, and what ends it."""

    refuse: str
    mend: str
    user: str = ""
    clean_up: str = ""


REFUSALS = {
    "redis that is full": Refusal("CONFIG SET maxmemory 1", "CONFIG SET maxmemory 0"),
    "redis that is a replica": Refusal("REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE"),
    "redis with few replicas": Refusal("CONFIG SET min-replicas-to-write 1", "CONFIG SET min-replicas-to-write 0"),
    **{
        f"{driver} {why}": refusal
        for driver in ("asyncpg", "psycopg")
        for why, refusal in {
            "that is read-only": Refusal(
                "ALTER SYSTEM SET default_transaction_read_only = on",
                "ALTER SYSTEM SET default_transaction_read_only = off",
            ),
            "without a table": Refusal(
                "CREATE ROLE reader LOGIN", "GRANT CREATE ON SCHEMA public TO reader", "reader", "DROP OWNED BY reader"
            ),
        }.items()
    },
}


async def execute(backend: Any, command: str) -> None:  # noqa: ANN401 -- either of the backends
    if isinstance(backend, RedisBackend):
        await backend.client.execute_command(*command.split())
        return
    async with backend.engine.connect() as connection:
        plain = await connection.execution_options(isolation_level="AUTOCOMMIT")
        await plain.execute(text(command))
        await plain.execute(text("SELECT pg_reload_conf()"))


@pytest.mark.parametrize("kind", REFUSALS)
async def test_app_whose_first_record_is_refused_signs_when_that_is_mended_and_logs_both_once(
    kind: str, url_of: Callable[[str], str], caplog: pytest.LogCaptureFixture
) -> None:
    refusal, url = REFUSALS[kind], url_of(kind.partition(" ")[0])
    async with opened(url) as operator, opened(url.replace("postgres@", f"{refusal.user or 'postgres'}@")) as backend:
        await execute(operator, refusal.refuse)
        try:
            app = app_on(backend)
            async with living(app):
                await eventually(lambda: len(messages_of(caplog)) == 1)
                await counted(operator)
                await execute(operator, refusal.mend)
                await counted(operator, os.getpid())
                await is_drained(app, backend)
        finally:
            await execute(operator, refusal.mend)
            if refusal.clean_up:
                await execute(operator, refusal.clean_up)
    refused, taken = messages_of(caplog)
    assert refused.startswith("No drain waits for the requests of this process until it can be registered in ")
    assert taken.startswith("Drains wait again for the requests of this process, in ")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows knows no forks")
@pytest.mark.parametrize("kind", ["file", "redis", "asyncpg", "psycopg"])
async def test_worker_that_has_forked_confirms_and_is_gone_when_it_is_killed_and_its_child_lives(
    kind: str, url_of: Callable[[str], str], tmp_path: Path
) -> None:
    url = f"file:{tmp_path}/switch" if kind == "file" else url_of(kind)
    async with opened(url) as backend:

        async def is_subscribed() -> bool:
            return not isinstance(backend, RedisBackend) or len(await backend.client.pubsub_channels("*:worker:*")) == 1

        with forking(url) as (worker, fork):
            await counted(backend, worker.pid)
            await eventually(is_subscribed)
            child = fork()
            async with maintenance_mode_on(backend, drain=60):
                pass
            worker.kill()
            await counted(backend)
            assert child.is_running()


@pytest.fixture(params=["file", "redis"])
def place(request: pytest.FixtureRequest, tmp_path: Path, url_of: Callable[[str], str]) -> Place:
    """Give a store in which the end of a worker is known for a minute."""
    return Place(request.param, f"file:{tmp_path}/switch" if request.param == "file" else url_of("redis"))


@pytest.mark.parametrize("seconds", [60.0, -1.0])
async def test_registry_worker_that_left_is_forgotten_however_long_nobody_looked(
    place: Place, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    async with (
        place.opened() as one,
        place.opened() as other,
        place.opened() as watcher,
        aclosing(one.watch()) as states,
    ):
        await anext(states)
        await one.workers.sign("host.1.one", "{}")
        assert await watcher.workers.reports() == {"host.1.one": "{}"}
        await one.workers.leave("host.1.one")
        for module in (file_workers, redis_workers):
            monkeypatch.setattr(module, "_KEPT_FOR", seconds)
        await other.workers.sign("host.2.two", "{}")
        assert await other.workers.reports() == {"host.2.two": "{}"}
        assert await watcher.workers.reports() == {"host.2.two": "{}"}
        await other.workers.leave("host.2.two")
