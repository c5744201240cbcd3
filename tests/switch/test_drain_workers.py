"""Workers of a drain: how they are counted, what they report, and what becomes of those that cannot be counted."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import cast

import anyio
import pytest
from anyio.lowlevel import checkpoint
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from fastapi_maintenance import (
    DrainTimeoutError,
    LocalFileBackend,
    MaintenanceState,
    MemoryBackend,
    NotSupportedError,
    NoWorkersError,
    WorkerStatus,
    configure_backend,
    get_workers,
    maintenance_mode_on,
    set_maintenance_mode,
)
from fastapi_maintenance._helpers import clock
from fastapi_maintenance._switch import drain
from fastapi_maintenance._switch.block import MaintenanceBlock
from fastapi_maintenance._switch.reports import Goes, report_of
from fastapi_maintenance.backends.file_workers import FileWorkers
from fastapi_maintenance.backends.redis import RedisBackend
from fastapi_maintenance.backends.sqlalchemy import SQLAlchemyBackend
from fastapi_maintenance.backends.url import opened
from fastapi_maintenance.state import Hold
from tests.middleware.test_failures import app_on, records, status
from tests.servers import running
from tests.stores import DrainableStore, be_down
from tests.support import RunJumping, eventually
from tests.switch.blocks import ONLY_ASYNCIO
from tests.switch.lifespans import Abandoned, left_behind, living
from tests.switch.services import Service, refused, served, until_drained

pytestmark = pytest.mark.anyio

WORKER = "host.1.0"
QUIET = report_of(Goes(MaintenanceState()), [])
REFUSED = (
    "No drain waits for the requests of this process until it can be registered in DrainableStore: "
    "ConnectionError: the store is down"
)


def generator(states: AsyncIterator[MaintenanceState]) -> AsyncGenerator[MaintenanceState, None]:
    """Return what watches as what it is, a generator."""
    return cast("AsyncGenerator[MaintenanceState, None]", states)


# What is reported


class Clocked(DrainableStore):
    """A store whose clock is a minute behind."""

    async def now(self) -> datetime:
        await checkpoint()
        return clock.now() - timedelta(seconds=60)


def expiring(hold: Hold) -> Hold:
    """Return a hold whose lease has just been renewed."""
    return replace(hold, expires_at=clock.now() + timedelta(seconds=30))


def test_get_workers_returns_what_each_goes_by_and_runs(run_jumping: RunJumping) -> None:
    async def main() -> None:
        store = Clocked()
        service = Service(DrainableStore(beside=store))
        service.backend.now = store.now  # type: ignore[attr-defined]  # as the same store
        async with served(service) as group:
            [worker] = await get_workers(store)
            assert (worker.process_id, worker.requests, worker.is_on, worker.is_current) == (
                os.getpid(),
                0,
                False,
                True,
            )
            group.start_soon(service.get, "/work/a")
            await service.begun("a")
            await set_maintenance_mode(True, store)
            [worker] = await get_workers(store)
            assert (worker.is_on, worker.is_current) == (False, False)
            await anyio.sleep(41)
            [worker] = await get_workers(store)
            assert (worker.is_on, worker.is_current, worker.requests) == (True, True, 1)
            assert worker.oldest_route == "GET /work/{name}"
            assert worker.oldest_for == pytest.approx(41, abs=5)
            assert worker.clock_ahead == pytest.approx(60, abs=1)
            async with maintenance_mode_on(store, lease=30):
                await anyio.sleep(1)
                await store.memory.update_state(lambda state: replace(state, holds=(expiring(state.holds[0]),)))
                assert [worker.is_current for worker in await get_workers(store)] == [True]
        assert await get_workers(store) == ()

    run_jumping(main)


def test_worker_that_is_refused_at_first_is_registered_later_and_logs_both_once(
    run_jumping: RunJumping, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        store = DrainableStore()
        store.workers.before_write = be_down
        async with served(Service(store)):
            await anyio.sleep(5)
            assert (await get_workers(store), records(caplog)) == ((), [REFUSED])
            store.workers.come_back()

            async def is_registered() -> bool:
                return len(await get_workers(store)) == 1

            await eventually(is_registered)
            await anyio.sleep(5)
        assert records(caplog) == ["Drains wait again for the requests of this process, in DrainableStore"]

    run_jumping(main)


@pytest.mark.parametrize("is_unsupported", [True, False])
def test_worker_without_its_store_or_that_cannot_be_counted_logs_nothing_of_its_own(
    run_jumping: RunJumping, caplog: pytest.LogCaptureFixture, is_unsupported: bool
) -> None:
    async def refuse() -> None:
        await checkpoint()
        raise NotSupportedError

    async def main() -> None:
        store = DrainableStore()
        async with served(Service(store)):
            store.workers.before_write = refuse if is_unsupported else be_down
            if not is_unsupported:
                store.go_down()
                store.memory.watch = be_down  # type: ignore[assignment,method-assign]
            await anyio.sleep(5)
        assert [one for one in records(caplog) if "drain" in one] == []

    run_jumping(main)


def test_worker_that_is_replaced_in_a_drain_leaves_two_seconds_to_the_next(run_jumping: RunJumping) -> None:
    async def main() -> None:
        backend = MemoryBackend()
        services = [Service(backend), Service(backend)]
        async with anyio.create_task_group() as group:
            async with living(services[0].app):
                group.start_soon(services[0].get, "/work/a")
                await services[0].begun("a")
                group.start_soon(until_drained, backend, services[1])
                await anyio.sleep(5)
            services[0].let_go.set()
            await anyio.sleep(1)
            assert await get_workers(backend) == ()
            async with living(services[1].app):
                await anyio.sleep(1)
        assert services[1].events == ["body"]

    run_jumping(main)


def test_worker_whose_record_is_lost_signs_again_within_a_second(run_jumping: RunJumping) -> None:
    async def main() -> None:
        store = DrainableStore()
        async with served(Service(store)):
            for pause in (0.3, 0.6, 5):
                await anyio.sleep(pause)
                store.workers.reported.clear()
                await anyio.sleep(1.01)
                assert len(await get_workers(store)) == 1

    run_jumping(main)


@left_behind
def test_event_loop_that_was_closed_around_a_worker_leaves_none_and_its_app_is_looked_at_in_the_next() -> None:
    backend = MemoryBackend()
    service = Service(backend)

    async def live() -> None:
        async with living(service.app):
            await asyncio.sleep(60)

    async def drain_twice() -> None:
        service.let_go = anyio.Event()
        await until_drained(backend, service)
        assert await get_workers(backend) == ()
        async with anyio.create_task_group() as group:
            group.start_soon(service.get, "/work/a")
            await service.begun("a")
            assert "1 request in progress" in await refused(DrainTimeoutError, backend, 0.5)
            service.let_go.set()

    left = Abandoned(live())
    asyncio.run(drain_twice())
    left.let_go()


@left_behind
def test_event_loop_that_was_closed_around_a_worker_of_another_switch_since_leaves_none() -> None:
    first, second = MemoryBackend(), MemoryBackend()
    configure_backend(first)
    app = app_on(None)

    async def live() -> None:
        async with living(app):
            await asyncio.sleep(60)

    async def drain_first() -> None:
        await refused(NoWorkersError, first, 0.5)
        assert await get_workers(first) == ()

    left = Abandoned(live())
    configure_backend(second)
    asyncio.run(drain_first())
    left.let_go()


def test_app_beside_another_one_on_its_switch_is_shut_down_at_once_and_in_silence(
    run_jumping: RunJumping, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        backend = MemoryBackend()
        async with served(Service(backend)):
            began = anyio.current_time()
            async with served(Service(backend)):
                assert len(await get_workers(backend)) == 2
            assert len(await get_workers(backend)) == 1
            assert anyio.current_time() - began < 1
            await anyio.sleep(5)
        assert await get_workers(backend) == ()

    run_jumping(main)
    assert records(caplog) == []


def test_app_that_is_shut_down_while_a_request_runs_is_signed_until_that_has_ended(run_jumping: RunJumping) -> None:
    async def main() -> None:
        backend = MemoryBackend()
        service = Service(backend)
        async with anyio.create_task_group() as group:
            async with living(service.app):
                group.start_soon(service.get, "/later/a")
                await service.begun("a")
            group.start_soon(partial(until_drained, backend, service, workers=0))
            await anyio.sleep(5)
            assert (len(await get_workers(backend)), service.events) == (1, ["a begins"])
            service.let_go.set()
        assert (service.events, await get_workers(backend)) == (["a begins", "a ends", "body"], ())

    run_jumping(main)


async def test_request_that_ends_in_another_event_loop_is_waited_for() -> None:
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


async def test_an_app_that_goes_to_another_default_backend_is_counted_there(monkeypatch: pytest.MonkeyPatch) -> None:
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


async def test_progress_is_called_with_the_workers_and_the_seconds_that_are_left() -> None:
    backend = MemoryBackend()
    service = Service(backend)
    calls: list[tuple[int | None, float]] = []

    def progress(left: Sequence[WorkerStatus], seconds: float) -> None:
        calls.append((left[0].requests, seconds))
        if left[0].requests == 1:
            service.let_go.set()

    async with served(service) as group:
        group.start_soon(service.get, "/work/a")
        await service.begun("a")
        async with MaintenanceBlock(backend, on=True, drain=60, progress=progress):
            assert ["a begins", "a ends"] == service.events
    assert {1} == {requests for requests, _ in calls if requests}
    assert all(0 < seconds <= 60 for _, seconds in calls)


# Workers behind a file


async def test_dead_worker_behind_a_file_is_not_counted_and_what_it_left_goes(tmp_path: Path) -> None:
    file, folder = tmp_path / "switch", tmp_path / "switch.workers"
    folder.mkdir()
    left = [folder / f"{WORKER}.json", folder / f"{WORKER}.lock"]
    for one in left:
        one.write_text(QUIET, encoding="utf-8")
    assert await FileWorkers(str(file)).reports() == {}
    assert [one.exists() for one in left] == [False, True]
    os.utime(left[1], (0, 0))  # after more than a minute
    workers = FileWorkers(str(file))
    await workers.sign("host.2.0", QUIET)
    assert [one.exists() for one in left] == [False, False]
    await workers.leave("host.2.0")


async def test_workers_of_one_file_are_counted_by_each_other_and_through_a_link(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drain, "SHORTEST", 0.1)
    file, link = tmp_path / "switch ä", tmp_path / "link"
    link.symlink_to(file)
    services = [Service(LocalFileBackend(path)) for path in (file, link)]
    async with served(*services):
        for path in (file, link):
            assert [os.getpid()] * 2 == [worker.process_id for worker in await get_workers(LocalFileBackend(path))]
        await until_drained(LocalFileBackend(link), *services)
    assert [] == list((tmp_path / "switch ä.workers").glob("*.json"))


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can give folders away")
async def test_folder_of_the_workers_belongs_to_whoever_the_folder_of_the_file_belongs_to(tmp_path: Path) -> None:
    os.chown(tmp_path, 1234, 1235)
    workers = FileWorkers(str(tmp_path / "switch"))
    await workers.sign(WORKER, QUIET)
    status = (tmp_path / "switch.workers").stat()
    assert (1234, 1235, tmp_path.stat().st_mode) == (status.st_uid, status.st_gid, status.st_mode)
    await workers.leave(WORKER)


async def test_folder_of_the_workers_is_left_to_itself_by_another_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastapi_maintenance.backends.file_workers._user", lambda: 1234)
    monkeypatch.setattr(os, "chown", None)
    workers = FileWorkers(str(tmp_path / "switch"))
    await workers.sign(WORKER, QUIET)
    assert await FileWorkers(str(tmp_path / "switch")).reports() == {WORKER: QUIET}
    await workers.leave(WORKER)


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
    assert "No drain waits for the requests of this process until it can be registered" in record


# Workers behind servers


STORES = ["redis", "asyncpg", "psycopg"]


@pytest.fixture(params=STORES)
def store_url(request: pytest.FixtureRequest, url_of: Callable[[str], str]) -> str:
    """Return the URL of an empty store of each kind."""
    return url_of(request.param)


@ONLY_ASYNCIO
@pytest.mark.servers
async def test_worker_that_was_cut_off_is_counted_while_it_watches_again_and_its_old_connection_seems_to_live(
    store_url: str,
) -> None:
    async with opened(store_url) as backend:
        assert isinstance(backend, (RedisBackend, SQLAlchemyBackend))
        registry = backend.workers
        assert registry is not None
        await set_maintenance_mode(False, backend)
        with anyio.fail_after(60):
            async with aclosing(generator(backend.watch())) as before, aclosing(generator(backend.watch())) as after:
                await anext(before)
                await anext(after)
                await registry.sign(WORKER, QUIET)
                await before.aclose()
                await anyio.sleep(0.2)
                assert await registry.reports() == {WORKER: QUIET}

            async def is_counted_no_longer() -> bool:
                return await registry.reports() == {}

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
    assert "No drain waits for the requests of this process until it can be registered" in record


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
                        async with maintenance_mode_on(fresh, drain=3):
                            pytest.fail("the body ran")


@ONLY_ASYNCIO
async def test_sqlite_refuses_before_anything_changes(tmp_path: Path) -> None:
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'switch.db'}")
    backend = SQLAlchemyBackend(engine)
    with pytest.raises(NotSupportedError, match=r"the workers of .* cannot be counted"):
        async with maintenance_mode_on(backend, drain=2):
            pytest.fail("the body ran")
    assert MaintenanceState() == await backend.get_state()
    await engine.dispose()


@pytest.mark.parametrize("enabled", [True, False])
def test_worker_whose_settings_overrule_the_switch_is_known_to_drains_of_its_own_process_alone(
    run_jumping: RunJumping, enabled: bool
) -> None:
    async def main() -> None:
        store = MemoryBackend()
        async with living(app := app_on(store, enabled=enabled)):
            assert await get_workers(store) == ()
            async with maintenance_mode_on(store, drain=5):  # and finds a worker
                assert 503 == await status(app)
        assert await get_workers(store) == ()

    run_jumping(main)
