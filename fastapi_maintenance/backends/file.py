"""A backend in a file on this host."""

import codecs
import errno
import os
import stat
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from functools import partial
from operator import attrgetter
from pathlib import Path

import anyio

from fastapi_maintenance._helpers.checks import reject, reject_value
from fastapi_maintenance._helpers.process import ThreadLock
from fastapi_maintenance._helpers.waiting import ANSWER_TIMEOUT, WRITE_TIMEOUT, in_thread, in_time
from fastapi_maintenance.backends.base import DetailedBackend, apply
from fastapi_maintenance.backends.file_workers import FileWorkers
from fastapi_maintenance.codec import SIZE_LIMIT, state_to_text, text_to_state
from fastapi_maintenance.errors import InvalidStateError
from fastapi_maintenance.state import MaintenanceState
from fastapi_maintenance.typing import StateChange

_OFF = MaintenanceState()
_PAUSE = 0.1  # seconds
_POLLS = 10  # in one thread
_SETTLED_AFTER = 2_500_000_000  # nanoseconds: the coarsest clock of a file system, FAT's, ticks every two seconds
_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)  # written by PowerShell 5
_SIZE_LIMIT = SIZE_LIMIT + 1  # bytes; a newline ends the text

_Signature = tuple[int, int, int, int, int]
_signature: Callable[[os.stat_result], _Signature] = attrgetter(
    "st_mtime_ns", "st_ctime_ns", "st_size", "st_ino", "st_dev"
)
_user: Callable[[], int] = getattr(os, "geteuid", lambda: 1)  # Windows has no such users


class LocalFileBackend(DetailedBackend):
    """Keep the state in a file, which people can read and write too: `1`, `0`, or a JSON object.

    >>> LocalFileBackend("maintenance.txt").peek().switch.on
    False

    A missing or empty file is off, and reading never creates it; a missing folder, such as an unmounted volume, is an
    outage. A change by any process, or by hand, is seen on the next request. A write replaces the file atomically,
    keeps its owner, group and mode, and returns when it is on disk. Writers take turns by a lock on `<file>.lock`,
    which the operating system releases when its holder dies.

    `peek`, which each request calls, waits for the file system. On a volume that may hang, use `cached(...)`: all other
    methods read and write in a thread, so no request waits.

    Args:
        file_path: The file; a relative path is resolved now, from the current directory. Its folder must exist.

    Raises:
        TypeError: `file_path` is not a path.
        ValueError: `file_path` is empty, or contains a null character.
    """

    def __init__(self, file_path: str | os.PathLike[str]) -> None:
        path: object = os.fspath(file_path) if isinstance(file_path, os.PathLike) else file_path
        self.file_path: str = path if isinstance(path, str) else reject("file_path", "a path", path)
        if not self.file_path or "\0" in self.file_path:
            reject_value("file_path", "name a file", self.file_path)
        self._path = os.path.abspath(self.file_path)  # noqa: PTH100 -- stays the same if the current directory changes
        self.switch_identity: tuple[str, str] = "file", os.path.realpath(self._path)
        """Identifies the file; it stays the same if a link in its path is changed."""
        self._seen: tuple[_Signature, MaintenanceState] | None = None
        self.workers: FileWorkers = FileWorkers(self._path)
        """The workers behind this switch."""
        self._is_reading = ThreadLock()
        self._is_writing = ThreadLock()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.file_path!r})"

    def peek(self) -> MaintenanceState:
        """Return the state in the file, which is read only if it has changed.

        Raises:
            InvalidStateError: The path is not a regular file, or its content is not a valid state in UTF-8.
            OSError: The file cannot be read, or its folder is missing.
        """
        try:
            status = os.stat(self._path)  # noqa: PTH116 -- a Path costs more than the call
        except FileNotFoundError:
            return self._off_if_folder_exists()
        seen = self._seen
        if seen is not None and seen[0] == _signature(status):
            return seen[1]
        return self._read()

    async def get_state(self) -> MaintenanceState:
        """Return the state in the file; raise what `peek` raises.

        Raises:
            TimeoutError: The file system did not answer within ten seconds.
        """
        with in_time(WRITE_TIMEOUT):
            return await in_thread(self._is_reading.current, self.peek)

    async def update_state(self, change: StateChange) -> MaintenanceState:
        """Apply a change atomically across processes, and return the result when it is on disk.

        Raises:
            InvalidStateError: The content is not a valid state, and the change does not set the switch. A change that
                sets the switch overwrites it, as if it had been off, and a warning is logged.
            OSError: The file cannot be written with its owner, group and mode, or its folder is missing.
            TimeoutError: Another writer held the lock for ten seconds, or the file system did not answer within twelve.
        """
        was_cancelled = threading.Event()
        try:
            with in_time(WRITE_TIMEOUT + ANSWER_TIMEOUT):  # a lock that is taken raises its own error before that
                return await in_thread(self._is_writing.current, partial(self._update, change, was_cancelled))
        except BaseException:  # the thread is still running
            was_cancelled.set()
            raise

    async def watch(self) -> AsyncIterator[MaintenanceState]:
        """Yield the state now, and within a tenth of a second after each change; raise what `get_state` raises."""
        is_polling, has_ended = threading.Lock(), threading.Event()
        try:
            yielded = await self.get_state()
            yield yielded
            missed = 0
            while missed <= 1:  # one miss may be due to this process, if it was stopped or busy
                state = yielded
                with anyio.move_on_after(WRITE_TIMEOUT) as limit:
                    state = await in_thread(is_polling, partial(self._poll, yielded, has_ended))
                missed = missed + 1 if limit.cancelled_caught else 0
                if state != yielded:
                    yielded = state
                    yield state
            msg = f"the file system has not answered within {2 * WRITE_TIMEOUT:g} seconds"
            raise TimeoutError(msg)
        finally:
            has_ended.set()

    def _poll(self, yielded: MaintenanceState, has_ended: threading.Event) -> MaintenanceState:
        """Return the state when it has changed, or after a second, which saves starting a thread for each look."""
        for _ in range(_POLLS):
            state = self.peek()
            if state != yielded or has_ended.wait(_PAUSE):
                break
        return state

    def _off_if_folder_exists(self) -> MaintenanceState:
        path = self._path
        folder = os.path.dirname(os.path.realpath(path) if os.path.islink(path) else path)  # noqa: PTH114, PTH120
        if not os.path.isdir(folder):  # noqa: PTH112 -- as above
            raise FileNotFoundError(errno.ENOENT, "The folder of the switch is missing", folder)
        return _OFF

    def _read(self) -> MaintenanceState:
        now = time.time_ns()
        try:
            if not stat.S_ISREG(os.stat(self._path).st_mode):  # noqa: PTH116 -- to open a pipe would wait for its writer
                msg = f"{self.file_path} must be a regular file"
                raise InvalidStateError(msg)
            with open(self._path, "rb") as file:  # noqa: PTH123 -- as above
                signature = _signature(os.fstat(file.fileno()))
                content = file.read(_SIZE_LIMIT + 1)
        except FileNotFoundError:
            return self._off_if_folder_exists()
        if len(content) > _SIZE_LIMIT:
            msg = f"{self.file_path} must be at most {_SIZE_LIMIT} bytes long"
            raise InvalidStateError(msg)
        state = _state_of(content)
        # Two changes within one tick of the file system's clock may leave the same signature, so a file that has just
        # changed is read each time.
        settled = now - max(signature[:2]) > _SETTLED_AFTER
        self._seen = (signature, state) if settled else None
        return state

    def _update(self, change: StateChange, was_cancelled: threading.Event) -> MaintenanceState:
        from filelock import FileLock  # noqa: PLC0415 -- a slow import, which readers do not need

        target = Path(self._path).resolve()  # replace the file, not a link to it
        self._off_if_folder_exists()  # the lock would create the folder, so a mistyped path would seem to work
        lock = target.with_name(target.name + ".lock")
        with suppress(FileExistsError):  # users who may write the switch may take the lock too
            os.close(_new_file(lock, target, least_mode=stat.S_IRUSR | stat.S_IWUSR))
        with FileLock(lock).acquire(timeout=WRITE_TIMEOUT, poll_interval=0.005):
            after = apply(change, self._read, self.file_path)
            text = state_to_text(after)
            if not was_cancelled.is_set():  # else this might undo a later write, such as the release of a hold
                _replace_durably(target, text)
        return after


def _state_of(content: bytes) -> MaintenanceState:
    try:
        return text_to_state(content.decode("utf-16" if content.startswith(_UTF_16) else "utf-8"))
    except UnicodeDecodeError as error:
        msg = f"text must be UTF-8, got {content[:200]!r}: {error}"
        raise InvalidStateError(msg) from None


def _new_file(path: Path, target: Path, *, least_mode: int = 0) -> int:
    """Create a file with the owner, group and mode of the switch, and return its descriptor.

    If there is no switch yet and root creates it, it gets the owner of the folder.
    """
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    try:
        with suppress(FileNotFoundError):
            like = target.stat()
            _set_owner(descriptor, path, like)
            named = descriptor if os.chmod in os.supports_fd else path
            os.chmod(named, stat.S_IMODE(like.st_mode) | least_mode)  # noqa: PTH101 -- a descriptor
            return descriptor
        if _user() == 0:
            _set_owner(descriptor, path, target.parent.stat())
    except BaseException:
        os.close(descriptor)
        path.unlink()
        raise
    return descriptor


def _set_owner(descriptor: int, path: Path, like: os.stat_result) -> None:
    mine = os.fstat(descriptor)
    if (mine.st_uid, mine.st_gid) == (like.st_uid, like.st_gid):
        return
    try:
        os.fchown(descriptor, like.st_uid, like.st_gid)
    except PermissionError:
        rule = f"The switch belongs to user {like.st_uid} and group {like.st_gid}, and must be written by them or root"
        raise PermissionError(errno.EPERM, rule, str(path)) from None


def _replace_durably(target: Path, text: str) -> None:
    """Replace the file atomically, and return when both its content and its name are on disk."""
    new = target.with_name(target.name + ".tmp")  # one name for all writers: those that die leave at most one file
    new.unlink(missing_ok=True)
    descriptor = _new_file(new, target)
    try:
        with open(descriptor, "w", encoding="utf-8") as file:  # noqa: PTH123 -- a descriptor
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
        new.replace(target)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    with suppress(PermissionError):  # on Windows, which opens no folders, and needs no sync of names
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
