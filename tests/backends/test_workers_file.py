"""The workers behind a file whose records are removed while they live."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from fastapi_maintenance.backends.file_workers import FileWorkers

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(sys.platform == "win32", reason="Windows removes no file that is open"),
]
WORKER = "host.1.process-1"


@pytest.fixture(params=["*", "*.json", "*.lock"])
def lost(request: pytest.FixtureRequest) -> str:
    """Give the files that are removed."""
    return str(request.param)


async def test_file_worker_whose_files_are_removed_stays_until_its_end(tmp_path: Path, lost: str) -> None:
    path = str(tmp_path / "switch")
    workers, watcher = FileWorkers(path), FileWorkers(path)
    await workers.sign(WORKER, "{}")
    assert await watcher.reports() == {WORKER: "{}"}
    for file in Path(f"{path}.workers").glob(lost):
        file.unlink()
    assert await watcher.reports() == {WORKER: "{}"}
    await workers.leave(WORKER)
    assert await watcher.reports() == {}


async def test_file_worker_whose_folder_is_removed_is_seen_with_its_new_record(tmp_path: Path) -> None:
    path = str(tmp_path / "switch")
    workers, watcher = FileWorkers(path), FileWorkers(path)
    await workers.sign(WORKER, "{}")
    assert await watcher.reports() == {WORKER: "{}"}
    shutil.rmtree(f"{path}.workers")
    await workers.sign(WORKER, "[]")
    assert await watcher.reports() == {WORKER: "[]"}
    await workers.leave(WORKER)
    assert await watcher.reports() == {}
