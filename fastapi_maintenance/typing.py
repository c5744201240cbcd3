"""Types to annotate with: the Protocols of backends, and the types of callbacks.

A backend is any object with the two methods of `StateBackend`; there is nothing to inherit. Further methods, found by
name, enable further features.
"""

from collections.abc import AsyncIterator, Awaitable, Mapping
from datetime import timedelta
from typing import Literal, Protocol, TypedDict, runtime_checkable

from starlette.requests import Request
from starlette.responses import Response
from typing_extensions import TypeAliasType

from fastapi_maintenance.state import MaintenanceState

__all__ = [
    "AsyncPredicate",
    "AsyncResponseCallback",
    "DetailedStateBackend",
    "DrainableStateBackend",
    "ExemptCallback",
    "MiddlewareSettings",
    "PeekableStateBackend",
    "Predicate",
    "ResponseCallback",
    "StateBackend",
    "StateChange",
    "SyncResponseCallback",
    "WatchableStateBackend",
    "WorkerRegistry",
]


@runtime_checkable
class StateBackend(Protocol):
    """A store of the switch."""

    async def get_value(self) -> bool:
        """Return whether maintenance is on; an exception, also a `CancelledError` of its own, counts as an outage."""

    async def set_value(self, value: bool, /) -> None:  # noqa: FBT001 -- the spec's own signature
        """Set the switch; return when it is stored, raise if it cannot be."""


class StateChange(Protocol):
    """A pure function from the current state to the new state."""

    def __call__(self, state: MaintenanceState, /) -> MaintenanceState:
        """Return the new state; may be called again with a newer current state."""


@runtime_checkable
class DetailedStateBackend(StateBackend, Protocol):
    """A backend that stores the whole state: messages, windows and holds."""

    async def get_state(self) -> MaintenanceState:
        """Return the stored state."""

    async def update_state(self, change: StateChange, /) -> MaintenanceState:
        """Apply `change` atomically across processes, and return the result."""


@runtime_checkable
class PeekableStateBackend(StateBackend, Protocol):
    """A backend that returns its state without waiting."""

    def peek(self) -> MaintenanceState:
        """Return the state immediately, including the last write of this process; an exception counts as an outage."""


@runtime_checkable
class WatchableStateBackend(StateBackend, Protocol):
    """A backend that pushes each change.

    It is watched once in each event loop, for all middlewares and other callers there.
    """

    def watch(self) -> AsyncIterator[MaintenanceState]:
        """Yield the current state, then the new state after each change; yielding a state twice is harmless.

        If it raises or ends, it is called again after a pause, and until then the backend is read every second.
        """


@runtime_checkable
class WorkerRegistry(Protocol):
    """The records of the workers behind a switch.

    A worker is a process behind the switch, in one event loop, while it serves an app. Its id begins with the name of
    its host and the id of its process.

    If records cannot be lost without the state being lost too, set `is_durable = True`. Otherwise a drain lasts at
    least two seconds, so that every running worker writes its record again.
    """

    async def sign(self, worker: str, report: str, /) -> None:
        """Write or replace the record of a worker; raise if it cannot be stored.

        A worker calls this when its report changes, and every second, since its record may have been lost.
        """

    async def leave(self, worker: str, /) -> None:
        """Remove the record of a worker that has stopped serving."""

    async def reports(self) -> Mapping[str, str]:
        """Return the last report of every worker that has not left and is not known to be dead.

        Include a worker that hangs, and one that this process has seen before and of which only the record is gone.
        """


@runtime_checkable
class DrainableStateBackend(DetailedStateBackend, Protocol):
    """A backend that counts the workers behind its switch, so that a drain can wait for all of them."""

    @property
    def workers(self) -> WorkerRegistry | None:
        """The records of the workers; None: this store cannot count them."""


class Predicate(Protocol):
    """A function that decides whether a request is exempt from maintenance."""

    def __call__(self, request: Request, /) -> bool | None:
        """Return True if the request is exempt, False if it is not, None if that is unknown.

        Only True exempts. `not_` of None is None: if a predicate cannot decide, the request is blocked either way.
        """


class AsyncPredicate(Protocol):
    """An async predicate."""

    def __call__(self, request: Request, /) -> Awaitable[bool | None]:
        """Return an awaitable of the result of a `Predicate`."""


class SyncResponseCallback(Protocol):
    """A function that returns the response to a blocked request."""

    def __call__(self, request: Request, /) -> Response:
        """Return the response."""


class AsyncResponseCallback(Protocol):
    """An async response callback."""

    def __call__(self, request: Request, /) -> Awaitable[Response]:
        """Return an awaitable of the response."""


ExemptCallback = TypeAliasType("ExemptCallback", "Predicate | AsyncPredicate")
ResponseCallback = TypeAliasType("ResponseCallback", "SyncResponseCallback | AsyncResponseCallback")


class MiddlewareSettings(TypedDict, total=False):
    """The keywords of `maintenance_middleware` and `MaintenanceModeMiddleware`: `**kw: Unpack[MiddlewareSettings]`.

    `enable_maintenance`, and the names ending in `_callback` and `_handler`, are aliases of `enabled`, `exempt` and
    `response`.
    """

    backend: StateBackend | str | None
    enabled: bool | None
    enable_maintenance: bool | None
    exempt: ExemptCallback | None
    exempt_callback: ExemptCallback | None
    exempt_handler: ExemptCallback | None
    response: ResponseCallback | None
    response_callback: ResponseCallback | None
    response_handler: ResponseCallback | None
    exempt_docs: bool
    unmatched: Literal["pass", "block"]
    retry_after: int | timedelta | tuple[int, int] | tuple[timedelta, timedelta]
    fail_closed: bool
    read_timeout: float | timedelta
    close_websockets: bool
