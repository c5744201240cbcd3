"""What this process remembers at module level: each module registers it here, and tests reset all of it at once.

A forked child is another process, with an id of its own, and holds no connection of its parent open.
"""

import os
import stat
import uuid
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar
from weakref import WeakSet, WeakValueDictionary

__all__ = ["identity", "let_go_in_children", "remembered", "reset"]

_Kept = list[Any] | dict[Any, Any] | set[Any] | WeakSet[Any] | WeakValueDictionary[Any, Any]
_Container = TypeVar("_Container", bound=_Kept)
_resets: list[Callable[[], None]] = []
_identity = [uuid.uuid4().hex[:12]]
_descriptors: WeakSet[Callable[[], int]] = WeakSet()


def remembered(container: _Container) -> _Container:
    """Register what belongs to the whole process, and return it; its content now is its default."""
    default: Any = container.copy()

    def reset_container() -> None:
        container.clear()
        if isinstance(container, list):
            container.extend(default)
        else:
            container.update(default)

    _resets.append(reset_container)
    return container


def reset() -> None:
    """Bring everything that is registered back to its default, as in a new process; for tests."""
    for each in _resets:
        each()


def identity() -> str:
    """Return what no other process has, on whatever host: process ids repeat in containers."""
    return _identity[0]


def let_go_in_children(fileno: Callable[[], int]) -> None:
    """Close the socket of a connection in each child that is forked while the function that returns it is kept.

    The peer takes a process for alive as long as its connection is open, in whatever process. It must not be shut down
    there, nor its number become free for another file, since an object of the parent may still close that.
    """
    _descriptors.add(fileno)


def _begin_as_child() -> None:
    _identity[0] = uuid.uuid4().hex[:12]
    for fileno in list(_descriptors):
        with suppress(Exception):  # it was closed, in the way of whatever driver
            descriptor = fileno()
            if stat.S_ISSOCK(os.fstat(descriptor).st_mode):
                os.dup2(os.open(os.devnull, os.O_RDONLY), descriptor)
    _descriptors.clear()


with suppress(AttributeError):  # Windows knows no forks
    os.register_at_fork(after_in_child=_begin_as_child)
