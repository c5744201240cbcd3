"""The workers behind a file: each has a report and a lock in the folder `<file>.workers`.

The operating system releases the lock when the process dies, so a worker whose lock is free is dead or has left. If its
lock file is missing, its record was lost, and it may be alive. Lock files are kept for a minute after the end of their
workers, to show that they have ended.
"""

from __future__ import annotations

import errno
import os
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import anyio

from fastapi_maintenance._helpers.process import ThreadLock
from fastapi_maintenance._helpers.waiting import in_thread

if TYPE_CHECKING:
    from filelock import BaseFileLock

_KEPT_FOR = 60.0  # seconds
_PAUSE = 0.1  # seconds
_user: Callable[[], int] = getattr(os, "geteuid", lambda: 1)  # Windows has no such users


class _Record(NamedTuple):
    """The record of a worker of this process."""

    folder: Path
    lock: BaseFileLock
    inode: int


class FileWorkers:
    """The records of the workers behind the file at `path`; each method raises `OSError` if the file system refuses."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._records: dict[str, _Record] = {}
        self._left: set[str] = set()
        self._seen: dict[str, str] = {}
        self._looked_at = 0.0
        self._is_busy = ThreadLock()

    async def sign(self, worker: str, report: str, /) -> None:
        """Write the report of a worker of this process, unless it has not changed."""
        await in_thread(self._is_busy.current, partial(self._sign, worker, report))

    async def leave(self, worker: str, /) -> None:
        """Remove the record of a worker of this process; if that fails, the worker counts as dead."""
        self._left.add(worker)  # a cancelled `sign` may still be running in its thread
        while True:
            try:
                return await in_thread(self._is_busy.current, partial(self._leave, worker))
            except RuntimeError:  # no thread can be started at the moment
                await anyio.sleep(_PAUSE)

    async def reports(self) -> Mapping[str, str]:
        """Return the last report of each worker that has not left and is not known to be dead."""
        return await in_thread(self._is_busy.current, self._reports)

    def _folder(self) -> Path:
        """Return the folder of the records, beside the file to which links in its path lead now."""
        return Path(os.path.realpath(self._path) + ".workers")

    def _sign(self, worker: str, report: str) -> None:
        if worker in self._left:
            return
        folder, before = self._folder(), self._records.get(worker)
        if before is None or before.folder != folder or not _is_in_place(before):
            self._records[worker] = self._add(folder, worker)
            if before is not None:
                before.lock.release()  # if the folder was moved, the worker counts as dead there
        path = folder / f"{worker}.json"
        with suppress(FileNotFoundError):
            if path.read_text(encoding="utf-8") == report:
                return
        new = folder / f"{worker}.new"
        new.write_text(report, encoding="utf-8")
        new.replace(path)

    def _add(self, folder: Path, worker: str) -> _Record:
        """Take the lock of a worker. The report is written later, so the worker never seems to be dead."""
        if not folder.exists():
            if not folder.parent.is_dir():
                raise FileNotFoundError(errno.ENOENT, "The folder of the switch is missing", str(folder.parent))
            folder.mkdir(exist_ok=True)
            shutil.copymode(folder.parent, folder)  # users who may write the file may be counted
            if _user() == 0:
                like = folder.parent.stat()
                os.chown(folder, like.st_uid, like.st_gid)
        lock = _lock(folder, worker)
        lock.acquire(timeout=1)  # another process may be checking it
        with suppress(OSError):  # this user may not be permitted to
            _remove_old(folder)
        return _Record(folder, lock, Path(lock.lock_file).stat().st_ino)

    def _leave(self, worker: str) -> None:
        """Remove a record and release its lock, but keep the lock file."""
        record = self._records.pop(worker, None)
        if record is not None:
            try:
                _remove_ended(record.folder / f"{worker}.json")
            finally:
                record.lock.release()

    def _reports(self) -> dict[str, str]:
        folder, before, self._looked_at = self._folder(), self._looked_at, time.monotonic()
        if self._looked_at > before + _KEPT_FOR / 2:  # the lock file of an ended worker may have been removed
            self._seen.clear()
        found = {path.stem: path for path in folder.glob("*.json")}
        for worker in found.keys() | self._seen.keys():
            if self._is_alive(folder, worker):
                with suppress(KeyError, FileNotFoundError):  # lost, or just removed
                    self._seen[worker] = found[worker].read_text(encoding="utf-8")
            else:
                self._seen.pop(worker, None)
                with suppress(KeyError, OSError):  # this user may not be permitted to write
                    _remove_ended(found[worker])
        return self._seen.copy()

    def _is_alive(self, folder: Path, worker: str) -> bool:
        """Return whether a worker is not known to be dead."""
        if worker in self._records:
            return True
        lock = _lock(folder, worker)
        if not Path(lock.lock_file).exists():
            return True  # lost, so nothing would show its end
        try:
            lock.acquire(timeout=0)
        except OSError:  # taken, or owned by another user
            return True
        lock.release()
        return False


def _is_in_place(record: _Record) -> bool:
    with suppress(FileNotFoundError):
        return Path(record.lock.lock_file).stat().st_ino == record.inode
    return False


def _remove_ended(path: Path) -> None:
    """Remove the report of a worker that has ended; its lock file shows that it has."""
    with suppress(OSError):  # missing, or owned by another user
        os.utime(path.with_suffix(".lock"))
    path.unlink(missing_ok=True)


def _remove_old(folder: Path) -> None:
    """Remove the lock files of workers that ended more than a minute ago, and the reports that they left."""
    for path in folder.glob("*.lock"):
        if path.stat().st_mtime > time.time() - _KEPT_FOR:
            continue
        lock, record = _lock(folder, path.stem), path.with_suffix(".json")
        with suppress(OSError):
            lock.acquire(timeout=0)
            try:
                if record.exists():
                    _remove_ended(record)
                else:
                    path.unlink()
            finally:
                lock.release()


def _lock(folder: Path, worker: str) -> BaseFileLock:
    from filelock import FileLock  # noqa: PLC0415 -- a slow import, which readers do not need

    return FileLock(folder / f"{worker}.lock", thread_local=False)
