"""This process: the installed version, its id, and its module-level state, which tests reset all at once.

A forked child is another process: it gets an id and locks of its own, and closes the registered connections of its
parent.
"""

import os
import stat
import threading
import uuid
from collections.abc import Callable
from contextlib import suppress
from importlib import metadata
from typing import Any, TypeVar
from weakref import WeakSet, WeakValueDictionary

__version__: str = metadata.version("fastapi-maintenance")

_Container = TypeVar("_Container", bound=list[Any] | dict[Any, Any] | set[Any] | WeakValueDictionary[Any, Any])
_K = TypeVar("_K")
_V = TypeVar("_V")
_resets: list[Callable[[], None]] = []
_identity = [uuid.uuid4().hex[:12]]
_descriptors: WeakSet[Callable[[], int]] = WeakSet()
_locks: WeakSet["ThreadLock"] = WeakSet()


def remembered(container: _Container) -> _Container:
    """Register a container that belongs to the whole process, and return it; `reset` restores its current content."""
    default: Any = container.copy()

    def restore() -> None:
        container.clear()
        if isinstance(container, list):
            container.extend(default)
        else:
            container.update(default)

    _resets.append(restore)
    return container


def alive(values: WeakValueDictionary[_K, _V]) -> list[tuple[_K, _V]]:
    """Return the items whose values are alive; another thread may add and remove some at the same time."""
    return [(each.key, value) for each in values.valuerefs() if (value := each()) is not None]


def reset() -> None:
    """Restore all registered containers, as in a new process; for tests."""
    for restore in _resets:
        restore()


def identity() -> str:
    """Return an id of this process that is unique across hosts; process ids repeat in containers."""
    return _identity[0]


def let_go_in_children(fileno: Callable[[], int]) -> None:
    """Close a connection's socket in each forked child, for as long as `fileno`, which returns its number, is alive.

    Otherwise the peer would consider this process alive as long as a child keeps the connection open. The child must
    not shut the connection down, nor free the number for another file, as the parent's object may still close it.
    """
    _descriptors.add(fileno)


class ThreadLock:
    """A lock that a forked child replaces, since the thread that holds it does not run there.

    Args:
        create: Creates the lock.
    """

    def __init__(self, create: Callable[[], Any] = threading.Lock) -> None:
        self._create = create
        _locks.add(self)
        self.replace()

    def replace(self) -> None:
        """Create a new lock."""
        self.current = self._create()
        """The lock of this process."""


def _begin_as_child() -> None:
    _identity[0] = uuid.uuid4().hex[:12]
    for fileno in list(_descriptors):
        with suppress(Exception):  # a closed connection: what its driver raises is its own affair
            descriptor = fileno()
            if stat.S_ISSOCK(os.fstat(descriptor).st_mode):
                nothing = os.open(os.devnull, os.O_RDONLY)
                os.dup2(nothing, descriptor, inheritable=False)
                os.close(nothing)
    _descriptors.clear()
    for lock in list(_locks):
        lock.replace()


with suppress(AttributeError):  # Windows has no forks
    os.register_at_fork(after_in_child=_begin_as_child)
