"""What this process remembers at module level: each module registers it here, and tests reset all of it at once."""

from collections.abc import Callable
from typing import Any, TypeVar
from weakref import WeakSet

__all__ = ["remembered", "reset"]

_Container = TypeVar("_Container", bound="list[Any] | dict[Any, Any] | set[Any] | WeakSet[Any]")
_resets: list[Callable[[], None]] = []


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
