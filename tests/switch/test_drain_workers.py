"""Workers of a drain: how they are counted, what they report, and what becomes of those that cannot be counted."""

from __future__ import annotations

import os
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import cast

import anyio
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from fastapi_maintenance import (
    DrainTimeoutError,
    LocalFileBackend,
    MaintenanceState,
    MemoryBackend,
    NotSupportedError,
    configure_backend,
    maintenance_mode_on,
    set_maintenance_mode,
)
from fastapi_maintenance._switch.block import Block
from fastapi_maintenance._switch.drain import get_workers, report_of
from fastapi_maintenance.backends.file_workers import FileWorkers
from fastapi_maintenance.backends.redis import RedisBackend
from fastapi_maintenance.backends.sqlalchemy import SQLAlchemyBackend
from fastapi_maintenance.backends.url import opened
from fastapi_maintenance.errors import WorkerStatus
from tests.middleware.test_failures import app_on, records, status
from tests.servers import running
from tests.support import eventually
from tests.switch.blocks import ONLY_ASYNCIO
from tests.switch.lifespans import living
from tests.switch.test_drain import Service, served, until_drained

pytestmark = pytest.mark.anyio

WORKER = "host.1.0"
QUIET = report_of(MaintenanceState(), [])


def generator(states: AsyncIterator[MaintenanceState]) -> AsyncGenerator[MaintenanceState, None]:
    """Return what watches as what it is, a generator."""
    return cast("AsyncGenerator[MaintenanceState, None]", states)


async def test_a_report_that_failed_is_made_again() -> None:
    class Failing(MemoryBackend):
        failures = 0

        async def report(self, worker: str, text: str, /) -> None:
            if self._state.holds and self.failures == 0:
                self.failures += 1
                raise OSError(worker)
            await super().report(worker, text)

    backend = Failing()
    service = Service(backend)
    async with served(service):
        await until_drained(backend, service)
    assert (1, ["body"]) == (backend.failures, service.events)


async def test_a_request_that_ends_in_another_event_loop_is_waited_for() -> None:
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
        assert [] == service.events
        let_go.set()
    thread.join()
    assert ["body"] == service.events


async def test_who_watches_without_a_name_is_not_counted_and_reports_of_others_are_dropped() -> None:
    backend = MemoryBackend()
    async with aclosing(generator(backend.watch())) as states:
        assert MaintenanceState() == await anext(states)
        await backend.report(WORKER, QUIET)
        assert {} == await backend.get_reports()


async def test_an_app_that_goes_to_another_default_backend_is_counted_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first, second = MemoryBackend(), MemoryBackend()
    monkeypatch.setattr("fastapi_maintenance._switch.current_backend._default", [first])
    service = Service(None)  # type: ignore[arg-type]  # the default one
    async with served(service):
        assert [1, 0] == [len(await get_workers(backend)) for backend in (first, second)]
        configure_backend(second)
        assert 404 == await service.get("/nothing")

        async def is_counted() -> bool:
            return [0, 1] == [len(await get_workers(backend)) for backend in (first, second)]

        await eventually(is_counted)
        await until_drained(second, service)


async def test_who_drains_is_told_who_is_waited_for_and_how_long_still() -> None:
    backend = MemoryBackend()
    service = Service(backend)
    told: list[tuple[int | None, float]] = []

    def progress(left: Sequence[WorkerStatus], seconds: float) -> None:
        told.append((left[0].requests, seconds))
        if left[0].requests == 1:
            service.let_go.set()

    async with served(service) as group:
        group.start_soon(service.get, "/work/a")
        await service.begun("a")
        async with Block(backend, on=True, drain=60, progress=progress):
            assert ["a begins", "a ends"] == service.events
    assert {1} == {requests for requests, _ in told if requests}
    assert all(0 < seconds <= 60 for _, seconds in told)


# Workers behind a file


async def test_what_a_dead_worker_left_is_taken_away_by_the_next_worker_and_by_a_drain(tmp_path: Path) -> None:
    file = tmp_path / "switch"
    folder = tmp_path / "switch.workers"
    for look in (lambda: FileWorkers(str(file)).add("host.2.0"), lambda: FileWorkers(str(file)).reports()):
        folder.mkdir(exist_ok=True)
        (folder / f"{WORKER}.json").write_text(QUIET, encoding="utf-8")
        (folder / f"{WORKER}.lock").touch()
        look()
        assert [] == list(folder.glob(f"{WORKER}*"))


async def test_workers_of_one_file_are_counted_by_each_other_and_through_a_link(tmp_path: Path) -> None:
    file, link = tmp_path / "switch ä", tmp_path / "link"
    link.symlink_to(file)
    services = [Service(LocalFileBackend(path)) for path in (file, link)]
    async with served(*services):
        for path in (file, link):
            assert [os.getpid()] == [worker.process_id for worker in await get_workers(LocalFileBackend(path))]
        await until_drained(LocalFileBackend(link), *services)
    assert [] == list((tmp_path / "switch ä.workers").iterdir())


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can give folders away")
def test_the_folder_of_the_workers_belongs_to_whoever_the_folder_of_the_file_belongs_to(tmp_path: Path) -> None:
    os.chown(tmp_path, 1234, 1235)
    workers = FileWorkers(str(tmp_path / "switch"))
    workers.add(WORKER)
    status = (tmp_path / "switch.workers").stat()
    assert (1234, 1235, tmp_path.stat().st_mode) == (status.st_uid, status.st_gid, status.st_mode)
    workers.remove(WORKER)


async def test_another_user_leaves_the_folder_to_itself_and_only_who_is_counted_reports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastapi_maintenance.backends.file_workers._user", lambda: 1234)
    monkeypatch.setattr(os, "chown", None)
    workers = FileWorkers(str(tmp_path / "switch"))
    workers.report(WORKER, QUIET)
    assert {} == workers.reports()
    workers.add(WORKER)
    workers.report(WORKER, QUIET)
    assert {WORKER: QUIET} == FileWorkers(str(tmp_path / "switch")).reports()
    workers.remove(WORKER)


async def test_a_file_that_cannot_count_workers_is_followed_all_the_same_and_that_is_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "switch.workers").touch()  # no folder can be made here
    backend = LocalFileBackend(tmp_path / "switch")
    app = app_on(backend)
    async with living(app):
        assert 200 == await status(app)
        await set_maintenance_mode(True, backend)
        assert 503 == await status(app)
    [record] = records(caplog)
    assert "No drain waits for the requests of this process, as it cannot be registered" in record


async def test_a_lock_that_is_not_free_yet_is_an_outage_and_no_refusal(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    backend, other = LocalFileBackend(tmp_path / "switch"), FileWorkers(str(tmp_path / "switch"))
    other.add(WORKER)
    async with aclosing(generator(backend.watch(WORKER))) as states:
        with pytest.raises(TimeoutError):
            await anext(states)
    other.remove(WORKER)
    async with aclosing(generator(backend.watch(WORKER))) as states:
        await anext(states)
        assert {WORKER: ""} == await backend.get_reports()
    assert [] == records(caplog)


# Workers behind servers


STORES = ["redis", "asyncpg", "psycopg"]


@pytest.fixture(params=STORES)
def store_url(request: pytest.FixtureRequest, url_of: Callable[[str], str]) -> str:
    """Return the URL of an empty store of each kind."""
    return url_of(request.param)


@ONLY_ASYNCIO
@pytest.mark.servers
async def test_a_worker_that_was_cut_off_is_counted_again_while_its_old_connection_seems_to_live(
    store_url: str,
) -> None:
    async with opened(store_url) as backend:
        assert isinstance(backend, (RedisBackend, SQLAlchemyBackend))
        await set_maintenance_mode(False, backend)
        with anyio.fail_after(60):
            async with (
                aclosing(generator(backend.watch(WORKER))) as before,
                aclosing(generator(backend.watch(WORKER))) as after,
            ):
                await anext(before)
                await anext(after)
                await before.aclose()
                await backend.report(WORKER, QUIET)
                await anext(after)

            async def is_counted_no_longer() -> bool:
                return {} == await backend.get_reports()

            await eventually(is_counted_no_longer)


@ONLY_ASYNCIO
@pytest.mark.servers
async def test_a_long_odd_key_counts_its_own_workers_alone(store_url: str) -> None:
    async with opened(store_url) as backend:
        keys = ["%_ä '\"\\:" + "k" * 246, "%_ä '\"\\:" + "k" * 245 + "l"]
        if isinstance(backend, RedisBackend):
            switches = [RedisBackend(backend.client, key) for key in keys]
        else:
            assert isinstance(backend, SQLAlchemyBackend)
            switches = [SQLAlchemyBackend(backend.engine, key) for key in keys]  # type: ignore[misc]  # of one kind
        services = [Service(switch) for switch in switches]
        async with served(*services) as group:
            group.start_soon(services[1].get, "/work/a")
            await services[1].begun("a")
            assert [1, 1] == [len(await get_workers(switch)) for switch in switches]
            await until_drained(switches[0], services[0])


@ONLY_ASYNCIO
@pytest.mark.servers
async def test_a_store_that_refuses_to_count_workers_is_followed_all_the_same_and_that_is_logged_once(
    store_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(store_url) as backend:
        await set_maintenance_mode(False, backend)
        if isinstance(backend, RedisBackend):
            await backend.client.execute_command(
                "ACL", "SETUSER", "reader", "on", ">x", "~*", "&*", "+@all", "-eval", "-evalsha"
            )
            url = store_url.replace("//", "//reader:x@")
        else:
            assert isinstance(backend, SQLAlchemyBackend)
            async with backend.engine.begin() as connection:
                await connection.execute(text("CREATE ROLE reader LOGIN"))
                await connection.execute(text("GRANT SELECT ON fastapi_maintenance TO reader"))
            url = store_url.replace("postgres@", "reader@")
        async with opened(url) as refused:
            app = app_on(refused)
            async with living(app):
                await set_maintenance_mode(True, backend)

                async def is_closed() -> bool:
                    return 503 == await status(app)

                await eventually(is_closed)
            await set_maintenance_mode(False, backend)
    [record] = records(caplog)
    assert "No drain waits for the requests of this process, as it cannot be registered" in record


@ONLY_ASYNCIO
@pytest.mark.servers
@pytest.mark.parametrize("kind", STORES)
async def test_workers_are_counted_again_after_their_store_was_restarted(kind: str) -> None:
    with running(kind) as store:
        async with opened(store.url) as backend:
            service = Service(backend)
            async with served(service) as group:
                await set_maintenance_mode(False, backend)
                store.kill()
                store.start()

                async def is_counted() -> bool:
                    try:
                        workers = await get_workers(backend)
                    except Exception:  # noqa: BLE001 -- whatever the client of the store raises
                        return False
                    return [0] == [worker.requests for worker in workers]

                await eventually(is_counted)
                group.start_soon(service.get, "/work/a")
                await service.begun("a")
                async with opened(store.url) as fresh:  # with no connection from before the restart
                    with pytest.raises(DrainTimeoutError):
                        async with maintenance_mode_on(fresh, drain=0.5):
                            pytest.fail("the body ran")


@ONLY_ASYNCIO
async def test_sqlite_refuses_before_anything_changes(tmp_path: Path) -> None:
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'switch.db'}")
    backend = SQLAlchemyBackend(engine)
    with pytest.raises(NotSupportedError, match="a drain needs PostgreSQL"):
        async with maintenance_mode_on(backend, drain=1):
            pytest.fail("the body ran")
    assert MaintenanceState() == await backend.get_state()
    await engine.dispose()


async def test_worker_that_is_counted_anew_reports_anew() -> None:
    class Failing(MemoryBackend):
        fails = False

        async def watch(self, worker: str | None = None) -> AsyncIterator[MaintenanceState]:
            async with aclosing(super().watch(worker)) as states:  # type: ignore[type-var]  # it is a generator
                async for state in states:
                    if self.fails:
                        self.fails = False
                        raise ConnectionError
                    yield state

    backend = Failing()
    service = Service(backend)
    async with served(service):
        await until_drained(backend, service)
        backend.fails = True
        await backend.set_value(True)
        await backend.set_value(False)

        async def has_failed() -> bool:
            return not backend.fails and [0] == [worker.requests for worker in await get_workers(backend)]

        await eventually(has_failed)
        await until_drained(backend, service)
