"""What backends share: base classes, checks and reads of any backend, and how a change is applied."""

import random
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from typing import TypeVar

import anyio

from fastapi_maintenance._helpers import clock
from fastapi_maintenance._helpers.checks import check_bool, check_name, check_seconds, reject_kind
from fastapi_maintenance._helpers.logs import get_logger
from fastapi_maintenance._helpers.waiting import ANSWER_TIMEOUT, WRITE_TIMEOUT, in_time
from fastapi_maintenance.codec import bool_to_str, str_to_bool
from fastapi_maintenance.errors import InvalidStateError
from fastapi_maintenance.state import MaintenanceState, Switch, set_switch, status_of
from fastapi_maintenance.typing import DetailedStateBackend, StateBackend, StateChange

DEFAULT_KEY = "fastapi_maintenance_mode"
_MAX_PAUSE = 0.02  # seconds before a change is retried because another process wrote first
Read = Callable[[], Awaitable[MaintenanceState]]
Wait = Callable[[float], Awaitable[object]]
"""Return after a notification, or after so many seconds."""
_logger = get_logger()
_Change = TypeVar("_Change", bound=StateChange)


class BaseStateBackend(ABC):
    """An optional base class for backends, with conversions between text and booleans.

    Any object with the two methods is a backend.
    """

    @abstractmethod
    async def get_value(self) -> bool:
        """Return whether maintenance is on; an exception counts as an outage of the store."""

    @abstractmethod
    async def set_value(self, value: bool) -> None:  # noqa: FBT001 -- the spec's own signature
        """Set the switch; return when it is stored, raise if it cannot be."""

    @staticmethod
    def _str_to_bool(value: str) -> bool:
        return str_to_bool(value)

    @staticmethod
    def _bool_to_str(value: bool) -> str:  # noqa: FBT001 -- the spec's own signature
        return bool_to_str(value)


class DetailedBackend:
    """Derive the two methods of `StateBackend` from `get_state` and `update_state`."""

    async def get_value(self: DetailedStateBackend) -> bool:
        """Return whether maintenance is on now; raise what `get_state` raises."""
        return status_of(await self.get_state(), clock.now()).active

    async def set_value(self: DetailedStateBackend, value: bool) -> None:  # noqa: FBT001 -- the spec's own signature
        """Set the operator's switch without details, keeping open holds; raise what `update_state` raises."""
        await self.update_state(set_to(value))


class StoreBackend(DetailedBackend, ABC):
    """The base of the built-in backends that store the state under a key of a shared store."""

    close_client: Callable[[], Awaitable[object]] | None = None
    """Closes a client that was created from a URL; None: the user created the client."""

    def __init__(self, key: str, poll_interval: float | timedelta, *, longest_key: int | None = None) -> None:
        self.key: str = check_name("key", key, at_most=longest_key)
        self.poll_interval: float = check_seconds("poll_interval", poll_interval)

    async def get_state(self) -> MaintenanceState:
        """Return the stored state.

        Raises:
            InvalidStateError: The stored value is not a valid state.
            Exception: The store cannot be read; an error of its client.
        """
        return await self._read()

    async def update_state(self, change: StateChange) -> MaintenanceState:
        """Apply a change atomically across processes, and return the result.

        Raises:
            InvalidStateError: The stored value is not a valid state, and the change does not set the switch. A change
                that sets the switch overwrites it, as if it had been off, and a warning is logged.
            TimeoutError: The store did not answer within ten seconds, or other writers came first for that long.
            Exception: The store cannot be written; an error of its client.
        """
        with in_time(WRITE_TIMEOUT):
            while True:
                after = await self._try(change)
                if after is not None:
                    return after
                await anyio.sleep(random.uniform(0, _MAX_PAUSE))  # noqa: S311 -- no secret

    async def watch(self) -> AsyncIterator[MaintenanceState]:
        """Yield the state now, after each change, and every `poll_interval`; raise what `get_state` raises.

        Raises:
            TimeoutError: The store did not answer within two seconds.
        """
        async with self._listening() as (read, wait):
            missed = 0
            while missed <= 1:  # one miss may be due to this process, if it was stopped or busy
                with in_time(ANSWER_TIMEOUT):
                    state = await read()
                yield state
                with anyio.move_on_after(self.poll_interval + ANSWER_TIMEOUT) as limit:
                    await wait(self.poll_interval)
                missed = missed + 1 if limit.cancelled_caught else 0
            msg = "waiting for a notification did not end in time, twice in a row"
            raise TimeoutError(msg)

    @abstractmethod
    async def _read(self) -> MaintenanceState:
        """Return the stored state."""

    @abstractmethod
    async def _try(self, change: StateChange) -> MaintenanceState | None:
        """Apply a change and return the result; None if the stored value has changed since it was read."""

    @abstractmethod
    def _listening(self) -> AbstractAsyncContextManager[tuple[Read, Wait]]:
        """Subscribe to changes; yield a function that reads the state, and one that waits for a change."""


def check_backend(name: str, value: object) -> StateBackend:
    """Return the value if it has the two methods of a backend; else raise a `TypeError`."""
    if isinstance(value, type) or not isinstance(value, StateBackend):
        reject_kind(name, "an object with the async methods get_value() and set_value(value)", value)
    return value


def name_of(backend: StateBackend) -> str:
    """Return a stable name for logs and labels: the repr of the backend, or its class if that is the default repr."""
    kind = type(backend)
    return kind.__name__ if kind.__repr__ is object.__repr__ else repr(backend)


def set_to(value: object) -> StateChange:
    """Return a change that sets the operator's switch without details; off also ends the windows in force."""
    switch = Switch(on=check_bool("value", value))
    return replacing(lambda state: set_switch(state, switch, clock.now()))


def replacing(change: _Change) -> _Change:
    """Mark a change as one that also overwrites an invalid state, as if it had been off; return it."""
    vars(change)["overwrites_invalid"] = True
    return change


def apply(change: StateChange, read: Callable[[], MaintenanceState], place: object) -> MaintenanceState:
    """Apply a change to the state that `read` returns.

    If that raises `InvalidStateError` and the change is marked by `replacing`, the change receives the state "off",
    and a warning names the place; any other change lets the error pass.
    """
    try:
        before = read()
    except InvalidStateError as error:
        if not getattr(change, "overwrites_invalid", False):
            raise
        _logger.warning("%s is being replaced, as if it had been off: %s", place, error)
        before = MaintenanceState()
    return change(before)


def check_state(value: object) -> MaintenanceState:
    """Return the value if it is a state; else raise an `InvalidStateError`."""
    if isinstance(value, MaintenanceState):
        return value
    msg = f"a backend must return a MaintenanceState, got {type(value).__name__} {value!r:.200}"
    raise InvalidStateError(msg)


async def read_value(backend: StateBackend) -> bool:
    """Return the result of `get_value` as a boolean; 0 and 1, which some databases return, are accepted."""
    value: object = await backend.get_value()
    if isinstance(value, int) and value in (0, 1):
        return bool(value)
    msg = f"get_value() must return True or False, got {type(value).__name__} {value!r:.200}"
    raise InvalidStateError(msg)


async def read_state(backend: StateBackend) -> MaintenanceState:
    """Return the state of a backend; of a bare switch, a state without details."""
    if isinstance(backend, DetailedStateBackend):
        return check_state(await backend.get_state())
    return MaintenanceState(switch=Switch(on=await read_value(backend)))
