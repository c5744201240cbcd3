"""What backends share: an abstract class for those who want one, and the check of what claims to be one."""

from __future__ import annotations

from abc import ABC, abstractmethod

from fastapi_maintenance._checks import reject
from fastapi_maintenance.codec import bool_to_str, str_to_bool
from fastapi_maintenance.typing import StateBackend

__all__ = ["BaseStateBackend", "check_backend"]


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


def check_backend(name: str, value: object) -> StateBackend:
    """Return the value if it has the two methods of a backend and is no class."""
    if isinstance(value, type) or not isinstance(value, StateBackend):
        reject(name, "an object with the async methods get_value() and set_value(value)", value)
    return value
