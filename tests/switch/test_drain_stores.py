"""Workers on other event loops, behind files and behind servers: they are counted, or a drain is refused."""

from __future__ import annotations

import os
import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from pathlib import Path
from typing import cast

import anyio
import pytest

from fastapi_maintenance import (
    DrainTimeoutError,
    LocalFileBackend,
    MaintenanceState,
    MemoryBackend,
    get_workers,
    maintenance_mode_on,
    set_maintenance_mode,
)
from fastapi_maintenance._switch import drain
from fastapi_maintenance.backends.file_workers import FileWorkers
from fastapi_maintenance.backends.redis import RedisBackend
from fastapi_maintenance.backends.sqlalchemy import SQLAlchemyBackend
from fastapi_maintenance.backends.url import opened
from tests.servers import running
from tests.support import eventually
from tests.switch.blocks import ONLY_ASYNCIO
from tests.switch.services import Service, served, until_drained

pytestmark = pytest.mark.anyio

STORES = ["redis", "asyncpg", "psycopg"]
WORKER = "host.1.0"


@pytest.fixture(params=STORES)
def store_url(request: pytest.FixtureRequest, url_of: Callable[[str], str]) -> str:
    """Return the URL of an empty store of each kind."""
    return url_of(request.param)


async def test_drain_waits_for_a_request_in_another_event_loop() -> None:
    backend = MemoryBackend()
    service = Service(backend)
    begun, let_go = threading.Event(), threading.Event()

    @service.app.get("/wait")
    def wait() -> None:
        begun.set()
        let_go.wait(60)

    async with served(service) as group:
        thread = threading.Thread(target=anyio.run, args=(service.get, "/wait"))
        thread.start()
        assert await anyio.to_thread.run_sync(begun.wait, 30)
        group.start_soon(until_drained, backend, service)
        await anyio.sleep(0.3)
        assert service.events == []
        let_go.set()
    thread.join()
    assert service.events == ["body"]


async def test_file_workers_are_counted_by_each_other_and_through_a_link(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drain, "SHORTEST", 0.1)
    file, link = tmp_path / "switch ä", tmp_path / "link"
    link.symlink_to(file)
    services = [Service(LocalFileBackend(path)) for path in (file, link)]
    async with served(*services):
        for path in (file, link):
            workers = await get_workers(LocalFileBackend(path))
            assert [worker.process_id for worker in workers] == [os.getpid()] * 2
        await until_drained(LocalFileBackend(link), *services)
    assert list((tmp_path / "switch ä.workers").glob("*.json")) == []


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can change owners")
@pytest.mark.parametrize("is_root", [True, False])
async def test_file_folder_of_workers_gets_the_owner_of_the_parent_if_root_creates_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_root: bool
) -> None:
    os.chown(tmp_path, 1234, 1235)
    if not is_root:
        monkeypatch.setattr("fastapi_maintenance.backends.file_workers._user", lambda: 4321)
    workers = FileWorkers(str(tmp_path / "switch"))
    await workers.sign(WORKER, "quiet")
    assert await FileWorkers(str(tmp_path / "switch")).reports() == {WORKER: "quiet"}
    folder = (tmp_path / "switch.workers").stat()
    assert (folder.st_uid, folder.st_gid) == ((1234, 1235) if is_root else (os.geteuid(), os.getegid()))
    assert folder.st_mode == tmp_path.stat().st_mode or not is_root
    await workers.leave(WORKER)


@ONLY_ASYNCIO
@pytest.mark.servers
async def test_worker_that_watches_through_a_new_connection_is_counted_until_that_ends(store_url: str) -> None:
    async with opened(store_url) as backend:
        assert isinstance(backend, (RedisBackend, SQLAlchemyBackend))
        registry = backend.workers
        assert registry is not None
        await set_maintenance_mode(False, backend)
        watches = [cast("AsyncGenerator[MaintenanceState, None]", backend.watch()) for _ in range(2)]
        with anyio.fail_after(60):
            async with aclosing(watches[0]), aclosing(watches[1]):
                for watch in watches:
                    await anext(watch)
                await registry.sign(WORKER, "quiet")
                await watches[0].aclose()
                await anyio.sleep(0.2)
                assert await registry.reports() == {WORKER: "quiet"}

            async def is_gone() -> bool:
                return await registry.reports() == {}

            await eventually(is_gone)


@ONLY_ASYNCIO
@pytest.mark.servers
async def test_workers_of_a_switch_with_a_long_odd_key_are_counted_apart_from_those_of_others(store_url: str) -> None:
    async with opened(store_url) as backend:
        keys = ["%_ä '\"\\:" + "k" * 246, "%_ä '\"\\:" + "k" * 245 + "l"]
        if isinstance(backend, RedisBackend):
            switches = [RedisBackend(backend.client, key) for key in keys]
        else:
            assert isinstance(backend, SQLAlchemyBackend)
            switches = [SQLAlchemyBackend(backend.engine, key) for key in keys]  # type: ignore[misc]  # of one kind
        services = [Service(switch) for switch in switches]
        async with served(*services) as group:
            await services[1].begin(group)
            assert [len(await get_workers(switch)) for switch in switches] == [1, 1]
            await until_drained(switches[0], services[0])


@ONLY_ASYNCIO
@pytest.mark.servers
@pytest.mark.parametrize("kind", STORES)
async def test_workers_are_counted_again_after_a_restart_of_their_store(kind: str) -> None:
    with running(kind) as store:
        async with opened(store.url) as backend:
            service = Service(backend)

            async def is_counted() -> bool:
                try:
                    workers = await get_workers(backend)
                except Exception:  # noqa: BLE001 -- whatever the client of the store raises
                    return False
                return [worker.requests for worker in workers] == [0]

            async with served(service) as group:
                await set_maintenance_mode(False, backend)
                store.kill()
                store.start()
                await eventually(is_counted)
                await service.begin(group)
                async with opened(store.url) as fresh:  # with no connection from before the restart
                    with pytest.raises(DrainTimeoutError):
                        async with maintenance_mode_on(fresh, drain=3):
                            pytest.fail("the body ran")
