"""How a file is written: replaced as a whole, durably, with the owner, group and mode that it has."""

import errno
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

_user: Callable[[], int] = getattr(os, "geteuid", lambda: 1)  # Windows has no owners of this kind, nor root


def new_file(path: Path, target: Path, *, least_mode: int = 0) -> int:
    """Create a file with the owner, group and mode of the switch, and return its descriptor.

    Where there is no switch yet and root makes it, it belongs to whoever the folder belongs to.
    """
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    try:
        with suppress(FileNotFoundError):
            like = target.stat()
            _give(descriptor, path, like)
            named = descriptor if os.chmod in os.supports_fd else path
            os.chmod(named, stat.S_IMODE(like.st_mode) | least_mode)  # noqa: PTH101 -- a descriptor is no path
            return descriptor
        if _user() == 0:
            _give(descriptor, path, target.parent.stat())
    except BaseException:
        os.close(descriptor)
        path.unlink()
        raise
    return descriptor


def _give(descriptor: int, path: Path, like: os.stat_result) -> None:
    mine = os.fstat(descriptor)
    if (mine.st_uid, mine.st_gid) == (like.st_uid, like.st_gid):
        return
    try:
        os.fchown(descriptor, like.st_uid, like.st_gid)
    except PermissionError:
        rule = f"The switch belongs to user {like.st_uid} and group {like.st_gid}, and must be written by them or root"
        raise PermissionError(errno.EPERM, rule, str(path)) from None


def replace_durably(target: Path, text: str) -> None:
    """Replace the file as a whole; its new content is on the disk before its name is, and both before this returns."""
    new = target.with_name(target.name + ".tmp")  # one name for all writers, so that dead ones leave but one behind
    new.unlink(missing_ok=True)
    descriptor = new_file(new, target)
    try:
        with open(descriptor, "w", encoding="utf-8") as file:  # noqa: PTH123 -- a descriptor is no path
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
        new.replace(target)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    with suppress(PermissionError):  # Windows opens no folders, and keeps names by itself
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
