"""The workers behind each store: refused at first, killed while a child lives, and forgotten once they have left."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path

import pytest

from fastapi_maintenance import maintenance_mode_on
from fastapi_maintenance.backends import file_workers, redis_workers
from fastapi_maintenance.backends.redis import RedisBackend
from tests.backends.helpers import (  # noqa: F401 -- a fixture
    DRIVERS,
    check_drain,
    connected,
    execute,
    forking,
    messages_of,
    on_asyncio,
    wait_for_workers,
)
from tests.middleware.test_failures import app_on
from tests.support import eventually
from tests.switch.lifespans import living

pytestmark = [pytest.mark.anyio, pytest.mark.servers, pytest.mark.usefixtures("_patient")]
READ_ONLY = "ALTER SYSTEM SET default_transaction_read_only = {}; SELECT pg_reload_conf()"


@pytest.mark.parametrize(
    ("kind", "user", "refuse", "mend"),
    [
        ("redis", "", "CONFIG SET maxmemory 1", "CONFIG SET maxmemory 0"),
        ("redis", "", "REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE"),
        ("redis", "", "CONFIG SET min-replicas-to-write 1", "CONFIG SET min-replicas-to-write 0"),
        *((driver, "postgres", READ_ONLY.format("on"), READ_ONLY.format("off")) for driver in DRIVERS),
        *(
            (driver, "reader", "CREATE ROLE reader LOGIN", "GRANT CREATE ON SCHEMA public TO reader")
            for driver in DRIVERS
        ),
    ],
)
async def test_app_whose_first_record_is_refused_signs_later_and_logs_both_once(
    kind: str, user: str, refuse: str, mend: str, url_of: Callable[[str], str], caplog: pytest.LogCaptureFixture
) -> None:
    url = url_of(kind)
    async with connected(url) as operator, connected(url.replace("postgres@", f"{user}@")) as backend:
        await execute(operator, refuse)
        try:
            app = app_on(backend)
            async with living(app):
                await eventually(lambda: len(messages_of(caplog)) == 1)
                await wait_for_workers(operator)
                await execute(operator, mend)
                await wait_for_workers(operator, os.getpid())
                await check_drain(app, backend)
        finally:
            await execute(operator, f"{mend}; DROP OWNED BY reader" if user == "reader" else mend)
    refused, accepted = messages_of(caplog)
    assert refused.startswith("No drain waits for the requests of this process until it can be registered in ")
    assert accepted.startswith("Drains wait again for the requests of this process, in ")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows has no fork")
@pytest.mark.parametrize("kind", ["file", "redis", *DRIVERS])
async def test_worker_that_has_forked_confirms_and_is_gone_when_it_is_killed_and_its_child_lives(
    kind: str, url_of: Callable[[str], str], tmp_path: Path
) -> None:
    url = f"file:{tmp_path}/switch" if kind == "file" else url_of(kind)
    async with connected(url) as backend:

        async def is_subscribed() -> bool:
            return not isinstance(backend, RedisBackend) or len(await backend.client.pubsub_channels("*:worker:*")) == 1

        with forking(url) as (worker, fork):
            await wait_for_workers(backend, worker.pid)
            await eventually(is_subscribed)
            child = fork()
            async with maintenance_mode_on(backend, drain=60):
                pass
            worker.kill()
            await wait_for_workers(backend)
            assert child.is_running()


@pytest.mark.parametrize("kind", ["file", "redis"])
@pytest.mark.parametrize("kept_for", [60.0, -1.0])
async def test_worker_that_has_left_is_forgotten_however_long_nobody_reads(
    kind: str, kept_for: float, url_of: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"file:{tmp_path}/switch" if kind == "file" else url_of(kind)
    async with connected(url) as a, connected(url) as b, connected(url) as c, aclosing(a.watch()) as states:
        await anext(states)
        one, other, reader = a.workers, b.workers, c.workers
        await one.sign("host.1.one", "{}")
        assert await reader.reports() == {"host.1.one": "{}"}
        await one.leave("host.1.one")
        for module in (file_workers, redis_workers):
            monkeypatch.setattr(module, "_KEPT_FOR", kept_for)
        await other.sign("host.2.two", "{}")
        assert [await each.reports() for each in (other, reader)] == [{"host.2.two": "{}"}] * 2
        await other.leave("host.2.two")
