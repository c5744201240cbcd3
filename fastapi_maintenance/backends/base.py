"""What backends share: base classes, how a backend is checked and read, and how a change is applied."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TypeVar

from fastapi_maintenance._helpers import clock
from fastapi_maintenance._helpers.checks import check_bool, reject_kind
from fastapi_maintenance.codec import bool_to_str, str_to_bool
from fastapi_maintenance.errors import InvalidStateError
from fastapi_maintenance.state import MaintenanceState, is_active, switch
from fastapi_maintenance.typing import DetailedStateBackend, StateBackend, StateChange

__all__ = [
    "BaseStateBackend",
    "DetailedBackend",
    "apply",
    "check_backend",
    "check_state",
    "read_state",
    "read_value",
    "replacing",
    "set_to",
]

_logger = logging.getLogger("fastapi_maintenance")
_Change = TypeVar("_Change", bound=StateChange)


class BaseStateBackend(ABC):
    """An abstract class to build a backend on, with the conversions that most of them need.

    Nothing has to inherit it: any object with the two methods is a backend.
    """

    @abstractmethod
    async def get_value(self) -> bool:
        """Return whether there is maintenance; an exception counts as an outage of the store."""

    @abstractmethod
    async def set_value(self, value: bool) -> None:  # noqa: FBT001 -- the spec's own signature
        """Set the switch; return when it is kept, raise when it could not be."""

    @staticmethod
    def _str_to_bool(value: str) -> bool:
        return str_to_bool(value)

    @staticmethod
    def _bool_to_str(value: bool) -> str:  # noqa: FBT001 -- the spec's own signature
        return bool_to_str(value)


class DetailedBackend:
    """The two methods of `StateBackend` for a built-in backend that has `get_state` and `update_state`."""

    async def get_value(self: DetailedStateBackend) -> bool:
        """Return whether there is maintenance now; raises as `get_state` does."""
        return is_active(await self.get_state(), clock.now())

    async def set_value(self: DetailedStateBackend, value: bool) -> None:  # noqa: FBT001 -- the spec's own signature
        """Set the operator's switch, without message or window; open holds stay. Raises as `update_state` does."""
        await self.update_state(set_to(value))


def check_backend(name: str, value: object) -> StateBackend:
    """Return the value if it has the two methods of a backend and is no class."""
    if isinstance(value, type) or not isinstance(value, StateBackend):
        reject_kind(name, "an object with the async methods get_value() and set_value(value)", value)
    return value


def set_to(value: object) -> StateChange:
    """Return the change that sets the operator's switch, without message or window, and leaves holds open."""
    active = check_bool("value", value)
    return replacing(lambda state: switch(state, active=active))


def replacing(change: _Change) -> _Change:
    """Return the function as a change that also replaces what cannot be read, as if it had been off."""
    vars(change)["replaces_unreadable"] = True
    return change


def apply(change: StateChange, read: Callable[[], MaintenanceState], place: object) -> MaintenanceState:
    """Return what a change makes of the state that `read` returns.

    Where `read` raises an `InvalidStateError` and the change replaces what cannot be read, the change is given off, and
    a warning that names the place is logged; any other change lets the error pass.
    """
    try:
        before = read()
    except InvalidStateError as error:
        if not getattr(change, "replaces_unreadable", False):
            raise
        _logger.warning("%s is replaced, as if it had been off: %s", place, error)
        before = MaintenanceState()
    return change(before)


def check_state(value: object) -> MaintenanceState:
    """Return what a backend gave for a state, if it is one."""
    if isinstance(value, MaintenanceState):
        return value
    msg = f"a backend must return a MaintenanceState, got {type(value).__name__} {value!r}"
    raise InvalidStateError(msg)


async def read_value(backend: StateBackend) -> bool:
    """Return what the backend's `get_value` says, if it is a boolean, or the 0 or 1 that some databases have for it."""
    value: object = await backend.get_value()
    if isinstance(value, int) and value in (0, 1):
        return bool(value)
    msg = f"get_value() must return True or False, got {type(value).__name__} {value!r}"
    raise InvalidStateError(msg)


async def read_state(backend: StateBackend) -> MaintenanceState:
    """Return the state that a backend keeps, or the one that its bare switch stands for."""
    if isinstance(backend, DetailedStateBackend):
        return check_state(await backend.get_state())
    return MaintenanceState(active=await read_value(backend))
