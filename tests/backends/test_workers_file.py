"""`FileWorkers`: records that are lost or moved while their workers live, and dead workers."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest

from fastapi_maintenance import LocalFileBackend
from fastapi_maintenance.backends import file_workers
from fastapi_maintenance.backends.file_workers import FileWorkers
from tests.backends.helpers import WORKER, check_drain, wait_for_workers
from tests.middleware.test_failures import app_on
from tests.switch.lifespans import living

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("_patient")]


def remove(folder: Path, pattern: str) -> None:
    """Remove files of a folder, or the folder."""
    if not pattern:
        shutil.rmtree(folder.rename(f"{folder}.old"))  # nobody can write into it any more
    for path in folder.glob(pattern or "*"):
        path.unlink()


each_loss = pytest.mark.parametrize("pattern", ["", "*", "*.json", "*.lock"], ids=["folder", "all", "record", "lock"])


@each_loss
async def test_file_worker_whose_record_is_lost_is_counted_and_signs_again(tmp_path: Path, pattern: str) -> None:
    path = str(tmp_path / "switch")
    worker, reader = FileWorkers(path), FileWorkers(path)
    await worker.sign(WORKER, "busy")
    assert await reader.reports() == {WORKER: "busy"}
    remove(tmp_path / "switch.workers", pattern)
    assert await reader.reports() == {WORKER: "busy"}
    assert await FileWorkers(path).reports() == ({WORKER: "busy"} if pattern == "*.lock" else {})
    for report in ("busy", "idle"):
        await worker.sign(WORKER, report)
        assert [await each.reports() for each in (reader, FileWorkers(path))] == [{WORKER: report}] * 2
    await worker.leave(WORKER)
    assert await reader.reports() == {}


async def test_app_on_a_link_to_a_file_that_is_changed_signs_beside_the_other_file(tmp_path: Path) -> None:
    link = tmp_path / "current"
    for name in ("1", "2"):
        (tmp_path / name).mkdir()
    link.symlink_to("1")
    async with living(app := app_on(LocalFileBackend(link / "switch"))):
        reader = LocalFileBackend(link / "switch")
        await wait_for_workers(reader, os.getpid())
        (tmp_path / "new").symlink_to("2")
        (tmp_path / "new").replace(link)
        assert len(await reader.workers.reports()) == 1
        await wait_for_workers(LocalFileBackend(tmp_path / "2" / "switch"), os.getpid())
        await wait_for_workers(LocalFileBackend(tmp_path / "1" / "switch"))
        await check_drain(app, LocalFileBackend(link / "switch"))
    assert list(tmp_path.glob("*/switch.workers/*.json")) == []


async def test_file_worker_whose_lock_is_free_is_removed_by_readers_and_writers(tmp_path: Path) -> None:
    folder = tmp_path / "switch.workers"
    for look in (
        lambda: FileWorkers(str(tmp_path / "switch")).reports(),
        lambda: FileWorkers(str(tmp_path / "switch")).sign("host.2.process-1", "idle"),
    ):
        folder.mkdir(exist_ok=True)
        (folder / f"{WORKER}.json").write_text("busy", encoding="utf-8")
        (folder / f"{WORKER}.lock").touch()
        os.utime(folder / f"{WORKER}.lock", (0, 0))
        await look()
        assert not (folder / f"{WORKER}.json").exists()
        assert (folder / f"{WORKER}.lock").stat().st_mtime > time.time() - 60  # kept, as it has just been found dead


async def test_file_lock_of_worker_that_left_is_removed_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, lock = str(tmp_path / "switch"), tmp_path / "switch.workers" / f"{WORKER}.lock"
    worker, reader = FileWorkers(path), FileWorkers(path)
    await worker.sign(WORKER, "busy")
    assert await reader.reports() == {WORKER: "busy"}
    await worker.leave(WORKER)
    for is_old in (False, True):
        if is_old:
            os.utime(lock, (0, 0))
        await worker.sign(f"host.1.process-{is_old}", "idle")
        assert lock.exists() is not is_old
    monkeypatch.setattr(file_workers, "_KEPT_FOR", 0.0)
    assert WORKER not in await reader.reports()


async def test_file_worker_without_the_folder_of_the_switch_raises_naming_it(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"The folder of the switch is missing: '.*missing'"):
        await FileWorkers(str(tmp_path / "missing" / "switch")).sign(WORKER, "busy")
