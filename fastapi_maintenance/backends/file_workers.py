"""The workers behind a file: each has a report in the folder `<file>.workers`, and a lock beside it.

The operating system lifts the lock when the process dies. So a worker whose lock is free is dead, or has left; if its
lock file is missing, its record was lost, and only who has opened that file before knows more. Lock files are kept for
a minute after the end of their workers, as the evidence of that end.
"""

from __future__ import annotations

import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import anyio

from fastapi_maintenance._helpers.waiting import in_thread

if sys.platform != "win32":
    import fcntl
if TYPE_CHECKING:
    from filelock import BaseFileLock

__all__ = ["FileWorkers"]

_KEPT_FOR = 60.0  # seconds
_PAUSE = 0.1  # seconds
_user: Callable[[], int] = getattr(os, "geteuid", lambda: 1)  # Windows has no owners of this kind, nor root


class _Record(NamedTuple):
    """The record that a worker of this process has."""

    folder: Path
    lock: BaseFileLock
    inode: int


class _LockFile:
    """The lock file of another worker, which is kept open: its lock can be tried after the file was removed.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self._number = os.open(path, os.O_RDONLY)
        self.inode: int = os.fstat(self._number).st_ino

    def __del__(self) -> None:
        with suppress(AttributeError):  # it could not be opened
            os.close(self._number)

    def is_free(self) -> bool:
        """Return whether no process holds the lock."""
        if sys.platform != "win32":  # which removes no file that is open, so this is not needed there
            with suppress(BlockingIOError):
                fcntl.flock(self._number, fcntl.LOCK_EX | fcntl.LOCK_NB)
                fcntl.flock(self._number, fcntl.LOCK_UN)
                return True
        return False


class _Seen(NamedTuple):
    """What was found of a worker."""

    report: str
    lock_file: _LockFile | None


class FileWorkers:
    """The records of the workers behind a file. Each method raises `OSError` if the file system refuses it.

    Args:
        path: The file.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._records: dict[str, _Record] = {}
        self._left: set[str] = set()
        self._seen: dict[str, _Seen] = {}
        self._is_busy = threading.Lock()

    async def sign(self, worker: str, report: str, /) -> None:
        """Write the report of a worker of this process, unless it is there already."""
        await in_thread(self._is_busy, partial(self._sign, worker, report))

    async def leave(self, worker: str, /) -> None:
        """Remove the record of a worker of this process; if that fails, the worker counts as dead."""
        self._left.add(worker)  # a thread that signs may still be busy when its caller was cancelled
        while True:
            try:
                return await in_thread(self._is_busy, partial(self._leave, worker))
            except RuntimeError:  # no thread can be started now
                await anyio.sleep(_PAUSE)

    async def reports(self) -> Mapping[str, str]:
        """Return the last report of each worker that has not left and is not known to be dead."""
        return await in_thread(self._is_busy, self._reports)

    def _folder(self) -> Path:
        """Return the folder of the records, beside the file where the links on its path lead now."""
        return Path(os.path.realpath(self._path) + ".workers")

    def _sign(self, worker: str, report: str) -> None:
        if worker in self._left:
            return
        folder, before = self._folder(), self._records.get(worker)
        if before is None or before.folder != folder or not _is_in_place(before):
            self._records[worker] = self._add(folder, worker)
        path = folder / f"{worker}.json"
        with suppress(FileNotFoundError):
            if path.read_text(encoding="utf-8") == report:
                report = ""
        if report:
            new = folder / f"{worker}.new"
            new.write_text(report, encoding="utf-8")
            new.replace(path)
        if before is not None and before is not self._records[worker]:
            _end(before, worker, is_moved=before.folder != folder)

    def _add(self, folder: Path, worker: str) -> _Record:
        """Take the lock of a worker, before its report is there, so that it never seems to be dead."""
        if not folder.exists():
            folder.mkdir(exist_ok=True)
            shutil.copymode(folder.parent, folder)  # whoever may write the file may be counted
            if _user() == 0:
                like = folder.parent.stat()
                os.chown(folder, like.st_uid, like.st_gid)
        lock = _lock(folder, worker)
        lock.acquire(timeout=1)  # another process may be trying it
        with suppress(OSError):  # whoever drains may not be able to
            _clean(folder)
        return _Record(folder, lock, Path(lock.lock_file).stat().st_ino)

    def _leave(self, worker: str) -> None:
        record = self._records.pop(worker, None)
        if record is not None:
            _end(record, worker)

    def _reports(self) -> dict[str, str]:
        folder = self._folder()
        found = {path.stem: path for path in folder.glob("*.json")}
        for worker in found.keys() | self._seen.keys():
            if not self._is_alive(folder, worker, has_record=worker in found):
                self._seen.pop(worker, None)
                if worker in found:
                    with suppress(PermissionError):
                        found[worker].unlink(missing_ok=True)
                continue
            if worker in found:
                with suppress(FileNotFoundError):  # it has just been lost, or has left
                    report = found[worker].read_text(encoding="utf-8")
                    self._seen[worker] = _Seen(report, self._opened(folder / f"{worker}.lock", worker))
        return {worker: seen.report for worker, seen in self._seen.items()}

    def _opened(self, path: Path, worker: str) -> _LockFile | None:
        """Return the lock file of a worker; None: it could not be opened."""
        before = self._seen[worker].lock_file if worker in self._seen else None
        with suppress(OSError):  # it has just been lost, or belongs to another user
            if sys.platform != "win32" and (before is None or before.inode != path.stat().st_ino):
                return _LockFile(path)
        return before

    def _is_alive(self, folder: Path, worker: str, *, has_record: bool) -> bool:
        """Return whether a worker is not known to be dead."""
        if worker in self._records:
            return True
        lock, seen = _lock(folder, worker), self._seen.get(worker)
        lock_file = None if seen is None else seen.lock_file
        if lock_file is not None and not lock_file.is_free():
            return True
        if not has_record and not Path(lock.lock_file).exists():
            return lock_file is None  # its record was lost, and with it what would show its end
        try:
            lock.acquire(timeout=0)
        except OSError:  # it is taken, or belongs to another user and cannot be tried
            return True
        lock.release()
        return False


def _is_in_place(record: _Record) -> bool:
    with suppress(FileNotFoundError):
        return Path(record.lock.lock_file).stat().st_ino == record.inode
    return False


def _end(record: _Record, worker: str, *, is_moved: bool = True) -> None:
    """Remove a record and let go of its lock; the file of that is kept as evidence."""
    try:
        if is_moved:
            (record.folder / f"{worker}.json").unlink(missing_ok=True)
            with suppress(FileNotFoundError):
                os.utime(record.lock.lock_file)
    finally:
        record.lock.release()


def _clean(folder: Path) -> None:
    """Remove the lock files of workers that ended more than a minute ago, and records that nobody else removed."""
    for path in folder.glob("*.lock"):
        if path.stat().st_mtime > time.time() - _KEPT_FOR:
            continue
        lock = _lock(folder, path.stem)
        with suppress(OSError):
            lock.acquire(timeout=0)
            try:
                path.with_suffix(".json").unlink(missing_ok=True)
                path.unlink()
            finally:
                lock.release()


def _lock(folder: Path, worker: str) -> BaseFileLock:
    from filelock import FileLock  # noqa: PLC0415 -- much to import for those who only read

    return FileLock(folder / f"{worker}.lock", thread_local=False)
