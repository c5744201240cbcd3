"""Writes to a store, and the listeners of this process that are told of them at once."""

import threading
import weakref
from collections.abc import Hashable
from typing import Protocol, runtime_checkable

from fastapi_maintenance._helpers.shared_read import moment
from fastapi_maintenance.backends.cached import uncached
from fastapi_maintenance.state import MaintenanceState, Switch
from fastapi_maintenance.typing import DetailedStateBackend, StateBackend, StateChange


@runtime_checkable
class SharedBackend(Protocol):
    """A backend that says which switch it has, so that two on one switch are known to be that."""

    @property
    def switch_identity(self) -> Hashable:
        """What no backend on another switch has."""


class Listener(Protocol):
    """An object that is told what this process writes to a backend."""

    backend: StateBackend

    async def written(self, state: MaintenanceState, began: int, writer: StateBackend, *, alone: bool) -> None:
        """Take note of a state that `writer` began to write at that moment, and has written.

        Unless it did so alone, another write was under way meanwhile, and nobody knows which was the last.
        """


_listeners: weakref.WeakSet[Listener] = weakref.WeakSet()
_listeners_lock = threading.Lock()
_last_event = [0]


def key_of(backend: StateBackend) -> object:
    """Return what tells backends apart: what they say themselves of their switch, else equality, else identity.

    A cache is what is behind it.
    """
    backend = uncached(backend)
    if isinstance(backend, SharedBackend):
        return backend.switch_identity
    try:
        hash(backend)
    except TypeError:
        return id(backend)
    return backend


def listen(listener: Listener) -> None:
    """Tell this one, as long as it lives, of what is written to its backend."""
    with _listeners_lock:
        _listeners.add(listener)


async def update_state(backend: DetailedStateBackend, change: StateChange) -> MaintenanceState:
    """Apply a change; when this returns, the store has it and this process knows it."""
    began = _note()
    state = await backend.update_state(change)
    await _tell(backend, state, began)
    return state


async def set_value(backend: StateBackend, value: bool) -> None:  # noqa: FBT001 -- as the Protocol has it
    """Set a bare switch; when this returns, the store has it and this process knows it."""
    began = _note()
    await backend.set_value(value)
    await _tell(backend, MaintenanceState(switch=Switch(on=value)), began)


def _note() -> int:
    """Note that a write begins or ends, of whatever backend."""
    _last_event[:] = [moment()]
    return _last_event[0]


async def _tell(backend: StateBackend, state: MaintenanceState, began: int) -> None:
    alone = _last_event[0] == began
    _note()
    key = key_of(backend)
    with _listeners_lock:
        listeners = [listener for listener in _listeners if key_of(listener.backend) == key]
    for listener in listeners:
        await listener.written(state, began, backend, alone=alone)
