"""The workers behind a file: each has a report in the folder `<file>.workers`, and a lock beside it.

The operating system lifts the lock when the process dies, so a report whose lock is free is that of a dead worker.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from filelock import BaseFileLock

__all__ = ["FileWorkers"]

_user: Callable[[], int] = getattr(os, "geteuid", lambda: 1)  # Windows has no owners of this kind, nor root


class FileWorkers:
    """The workers behind one file. Each method waits for the file system, and raises its errors.

    Args:
        path: The file.
    """

    def __init__(self, path: str) -> None:
        self._folder = Path(path + ".workers")
        self._locks: dict[str, BaseFileLock] = {}

    def add(self, worker: str) -> None:
        """Count a worker of this process. Its lock is taken before its report is there, so that none seems dead."""
        if not self._folder.exists():
            self._folder.mkdir(exist_ok=True)
            shutil.copymode(self._folder.parent, self._folder)  # whoever may write the file may be counted
            if _user() == 0:
                like = self._folder.parent.stat()
                os.chown(self._folder, like.st_uid, like.st_gid)
        if worker not in self._locks:  # else it could not be removed when it was counted before
            lock = self._lock(worker)
            lock.acquire(timeout=0)
            self._locks[worker] = lock
        try:
            self.report(worker, "")
        except BaseException:
            self.remove(worker)
            raise
        with suppress(OSError):  # it removes what dead workers of this user left, which who drains may not be able to
            self.reports()

    def remove(self, worker: str) -> None:
        """Stop counting a worker of this process; if its report cannot be removed, it counts as dead."""
        lock = self._locks.pop(worker, None)
        if lock is not None:
            self._forget(worker, lock)

    def report(self, worker: str, text: str) -> None:
        """Replace the report of a worker of this process that is counted."""
        if worker in self._locks:
            new = self._folder / f"{worker}.new"
            new.write_text(text, encoding="utf-8")
            new.replace(self._report(worker))

    def reports(self) -> dict[str, str]:
        """Return the report of each living worker, and take away what dead ones have left."""
        reports = {}
        for path in self._folder.glob("*.json"):
            worker = path.stem
            if self._is_alive(worker):
                with suppress(FileNotFoundError):  # it has just ended
                    reports[worker] = path.read_text(encoding="utf-8")
        return reports

    def _is_alive(self, worker: str) -> bool:
        lock = self._lock(worker)
        try:
            lock.acquire(timeout=0)
        except OSError:  # it is taken, or belongs to another user and cannot be tried
            return True
        self._forget(worker, lock)
        return False

    def _forget(self, worker: str, lock: BaseFileLock) -> None:
        try:
            self._report(worker).unlink(missing_ok=True)
        finally:
            lock.release()
        with suppress(OSError):  # Windows lets go of it by itself
            Path(lock.lock_file).unlink()

    def _report(self, worker: str) -> Path:
        return self._folder / f"{worker}.json"

    def _lock(self, worker: str) -> BaseFileLock:
        from filelock import FileLock  # noqa: PLC0415 -- much to import for those who only read

        return FileLock(self._folder / f"{worker}.lock", thread_local=False)
