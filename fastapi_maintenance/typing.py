"""What users annotate with: the Protocols of backends and the types of callbacks.

A backend is anything with the two methods of `StateBackend`; there is nothing to inherit. Having more methods offers
more, and is found by their names.
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
    """Where the switch is kept."""

    async def get_value(self) -> bool:
        """Return whether maintenance is on; an exception, also a `CancelledError` of its own, counts as an outage."""

    async def set_value(self, value: bool, /) -> None:  # noqa: FBT001 -- the spec's own signature
        """Set the switch; return when it is kept, raise when it could not be."""


class StateChange(Protocol):
    """A pure function from the current state to the new state."""

    def __call__(self, state: MaintenanceState, /) -> MaintenanceState:
        """Return the new state; it may be called again with a newer current state."""


@runtime_checkable
class DetailedStateBackend(StateBackend, Protocol):
    """A backend that keeps the whole state: messages, windows and holds."""

    async def get_state(self) -> MaintenanceState:
        """Return the state as it is kept."""

    async def update_state(self, change: StateChange, /) -> MaintenanceState:
        """Apply `change` so that no other change, by any process, is lost, and return the result."""


@runtime_checkable
class PeekableStateBackend(StateBackend, Protocol):
    """A backend that knows its state without waiting."""

    def peek(self) -> MaintenanceState:
        """Return the state at once; an exception counts as an outage of the store."""


@runtime_checkable
class WatchableStateBackend(StateBackend, Protocol):
    """A backend that pushes each change.

    It is watched once in each event loop, however many middlewares and other callers use it there.
    """

    def watch(self) -> AsyncIterator[MaintenanceState]:
        """Yield the state at once, then again after each change; to yield a state twice does no harm.

        If it raises or ends, it is called again after a pause, and until then the backend is read each second.
        """


@runtime_checkable
class WorkerRegistry(Protocol):
    """The records of the workers behind a switch.

    A worker is a process behind the switch, in one event loop, while it serves an app. Its id begins with the name of
    its host and the id of its process.

    A registry whose records cannot be lost before the state itself is may say so: `is_durable = True`. Drains of any
    other last two seconds at least, in which each worker that runs signs again.
    """

    async def sign(self, worker: str, report: str, /) -> None:
        """Write the record of a worker, or replace it; raise if it cannot be kept.

        A worker calls this whenever its report changes, and each second: to show that it lives, and since its record
        may have been lost.
        """

    async def leave(self, worker: str, /) -> None:
        """Remove the record of a worker, which serves no longer."""

    async def reports(self) -> Mapping[str, str]:
        """Return the last report of every worker that has not left and is not known to be dead.

        One that hangs stays in it, and so does one that this process has seen before if nothing but its record is gone.
        """


@runtime_checkable
class DrainableStateBackend(DetailedStateBackend, Protocol):
    """A backend that knows who serves behind its switch, so that a drain can wait for all of them."""

    @property
    def workers(self) -> WorkerRegistry | None:
        """The records of the workers; None: this store cannot count them."""


class Predicate(Protocol):
    """A function that tells whether a request is exempt from maintenance; one that returns a `bool` is one."""

    def __call__(self, request: Request, /) -> bool | None:
        """Return True for a request that is exempt, False for one that is not, None where that is unknown.

        Only True exempts. The negation of unknown is unknown, so a request in doubt is blocked under either sign.
        """


class AsyncPredicate(Protocol):
    """A predicate that has to wait for its answer."""

    def __call__(self, request: Request, /) -> Awaitable[bool | None]:
        """Return an awaitable of what a `Predicate` returns."""


class SyncResponseCallback(Protocol):
    """A function that makes the response to a blocked request."""

    def __call__(self, request: Request, /) -> Response:
        """Return the response."""


class AsyncResponseCallback(Protocol):
    """A response callback that has to wait for what it says."""

    def __call__(self, request: Request, /) -> Awaitable[Response]:
        """Return an awaitable of the response."""


ExemptCallback = TypeAliasType("ExemptCallback", "Predicate | AsyncPredicate")
ResponseCallback = TypeAliasType("ResponseCallback", "SyncResponseCallback | AsyncResponseCallback")


class MiddlewareSettings(TypedDict, total=False):
    """What `maintenance_middleware` and `MaintenanceModeMiddleware` take: `**settings: Unpack[MiddlewareSettings]`.

    `enable_maintenance`, and the names that end in `_callback` and `_handler`, are other names of `enabled`, `exempt`
    and `response`.
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
