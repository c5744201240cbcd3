"""The holds that are open in this process, for every kind of backend.

They decide in this process whatever the store says. A detailed backend keeps them too, so that other processes count
them. A backend with a bare switch is set to what the newest hold says, and back to the operator's value when the last
one is gone; a read-only backend is left alone.
"""

import os
import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from typing import cast

import anyio

from fastapi_maintenance._helpers import clock
from fastapi_maintenance._helpers.waiting import current_loop, end_of
from fastapi_maintenance._switch.writes import key_of, set_value, update_state
from fastapi_maintenance.backends.base import read_value
from fastapi_maintenance.backends.cached import uncached
from fastapi_maintenance.errors import NoSuchHoldError, NotSupportedError, ReadOnlyBackendError
from fastapi_maintenance.state import Hold, MaintenanceState, add_hold, release_hold, renew_hold
from fastapi_maintenance.typing import DetailedStateBackend, StateBackend

_LOCK_POLL = 0.001  # seconds


class _Ledger:
    """The open holds on one backend, and what is known of the switch of a backend that has nothing else."""

    def __init__(self) -> None:
        self.holds: tuple[Hold, ...] = ()
        self.operator = False
        self.ours: frozenset[bool] = frozenset()  # written by this process; after a failure, all that it may have
        self.users = 0
        self.lock = threading.Lock()
        self.lock_is_stale: Callable[[], bool] = end_of(None)

    def see(self, observed: bool) -> None:  # noqa: FBT001 -- the value is what the method is about
        """Take what the store says for the operator's will, unless it was written here."""
        if observed not in self.ours:
            self.operator = observed
        self.ours &= {observed}  # what the store no longer says, someone else has replaced

    def wanted(self) -> bool:
        """Return what the store shall say."""
        return self.holds[-1].active if self.holds else self.operator

    def is_done(self) -> bool:
        """Tell whether nothing is left to be remembered; what could not be written back is made good later."""
        return not self.users and not self.holds and self.ours <= {self.operator}


ledgers: dict[object, _Ledger] = {}
"""Those of all backends that this process holds; empty nearly always."""
# A process that is forked within a block has none open: the block goes on in its parent.
with suppress(AttributeError):  # Windows knows no forks
    os.register_at_fork(after_in_child=ledgers.clear)
_ledgers_lock = threading.RLock()  # the collector may run the end of an abandoned block while it is held


def newest(backend: StateBackend) -> Hold | None:
    """Return the newest hold that is open in this process on this backend."""
    if not ledgers:  # as it is nearly always
        return None
    ledger = ledgers.get(key_of(backend))
    return next(reversed(ledger.holds), None) if ledger is not None else None


def with_local(backend: StateBackend, state: MaintenanceState) -> MaintenanceState:
    """Return the state with the holds of this process that the store does not have."""
    ledger = ledgers.get(key_of(backend))
    if ledger is None:
        return state
    kept = {hold.id for hold in state.holds}
    return replace(state, holds=(*state.holds, *(hold for hold in ledger.holds if hold.id not in kept)))


def check_keeps(backend: StateBackend, **details: object) -> None:
    """Refuse details, such as a message, for a backend that keeps nothing but a switch."""
    given = [name for name, detail in details.items() if detail is not None]
    if given and not isinstance(backend, DetailedStateBackend):
        msg = f"{given[0]} needs a backend with the method update_state(change), which {backend!r} has not"
        raise NotSupportedError(msg)


async def acquire(backend: StateBackend, hold: Hold, lease: timedelta | None) -> None:
    """Open a hold in this process, and in the store where it can be written; raises what the store raises.

    The lease begins when the hold is written, however long the store was waited for.
    """
    async with _locked(backend) as ledger:
        if isinstance(backend, DetailedStateBackend):
            with suppress(ReadOnlyBackendError):
                await update_state(backend, lambda state: add_hold(state, _leased(hold, lease), clock.now()))
        with _ledgers_lock:  # a release takes no lock for its first step
            ledger.holds = (*ledger.holds, hold)  # without an expiry: it is open for as long as its block runs
        if not isinstance(backend, DetailedStateBackend):
            await _follow(backend, ledger)


async def renew(backend: DetailedStateBackend, hold: Hold, lease: timedelta) -> None:
    """Let the lease of the hold in the store begin anew; raises what the store raises."""
    with suppress(ReadOnlyBackendError):
        await update_state(backend, lambda state: renew_hold(state, _leased(hold, lease)))


def _leased(hold: Hold, lease: timedelta | None) -> Hold:
    return hold if lease is None else replace(hold, expires_at=clock.now() + lease)


async def release(backend: StateBackend, hold: Hold) -> None:
    """Close a hold in this process at once, then in the store; raises what the store raises."""
    with _ledgers_lock:
        ledger = ledgers.get(key_of(backend), _Ledger())
        ledger.holds = tuple(other for other in ledger.holds if other.id != hold.id)
    async with _locked(backend) as ledger:
        if isinstance(backend, DetailedStateBackend):
            with suppress(ReadOnlyBackendError):
                await update_state(backend, lambda state: release_hold(state, hold.id))
        else:
            await _follow(backend, ledger)


def forget(backend: StateBackend) -> None:
    """Forget the holds of this process on a backend, and what it wrote there."""
    with _ledgers_lock:
        ledgers.pop(key_of(backend), None)


async def set_operator_value(backend: StateBackend, value: bool) -> None:  # noqa: FBT001 -- the operator's switch
    """Set the switch of a backend that has nothing else; open holds go on, and leave it at this value."""
    async with _locked(backend) as ledger:
        if ledger.holds:
            await _write(backend, ledger, ledger.holds[-1].active)
        else:
            await set_value(backend, value)
            ledger.ours = frozenset({value})
        ledger.operator = value


async def bare_state(backend: StateBackend) -> MaintenanceState:
    """Return the state of a backend that has nothing but a switch: the operator's value and this process's holds."""
    async with _locked(backend) as ledger:
        ledger.see(await read_value(uncached(backend)))
        return MaintenanceState(active=ledger.operator, holds=ledger.holds)


async def _follow(backend: StateBackend, ledger: _Ledger) -> None:
    """Set a bare switch to what the ledger wants, where it is not."""
    observed = await read_value(uncached(backend))
    ledger.see(observed)
    if ledger.wanted() is not observed:
        with suppress(ReadOnlyBackendError):
            await _write(backend, ledger, ledger.wanted())


async def _write(backend: StateBackend, ledger: _Ledger, value: bool) -> None:  # noqa: FBT001 -- as set_value has it
    before, ledger.ours = ledger.ours, ledger.ours | {value}
    try:
        await set_value(backend, value)
    except ReadOnlyBackendError:
        ledger.ours = before
        raise
    ledger.ours = frozenset({value})


@asynccontextmanager
async def _locked(backend: StateBackend) -> AsyncGenerator[_Ledger]:
    """Let one task at a time change the ledger of a backend, in whatever thread and event loop it runs."""
    key = key_of(backend)
    with _ledgers_lock:
        ledger = ledgers.setdefault(key, _Ledger())
        ledger.users += 1
    try:
        while not (lock := ledger.lock).acquire(blocking=False):
            if ledger.lock_is_stale():  # its event loop was closed, and nobody will release it
                ledger.lock = threading.Lock()
            await anyio.sleep(_LOCK_POLL)  # an event would belong to one event loop
        ledger.lock_is_stale = end_of(current_loop())
        try:
            yield ledger
        finally:
            lock.release()
    finally:
        with _ledgers_lock:
            ledger.users -= 1
            if ledger.is_done():
                ledgers.pop(key, None)


async def remove_hold(hold_id: str, backend: StateBackend, *, prefix: bool = False) -> MaintenanceState:
    """Take a hold out of the store, such as that of a job that died, and return the state without it.

    A job that still runs and renews its hold puts it back; and in its own process it counts until the block ends.

    Args:
        hold_id: The hold's id.
        backend: The backend to write to.
        prefix: Whether the beginning of an id will do, where no other begins so.

    Raises:
        NoSuchHoldError: There is no such hold, or more than one.
        NotSupportedError: The backend has nothing but a switch.
        ReadOnlyBackendError: The backend cannot be written.
        Exception: Whatever the store raises.
    """

    def change(state: MaintenanceState) -> MaintenanceState:
        ids = {hold.id for hold in state.holds}
        found = ids & {hold_id} or {one for one in ids if prefix and one.startswith(hold_id)}
        if len(found) != 1:
            problem = f"{len(found)} holds have ids that begin with" if found else "no hold has the id"
            msg = f"{problem} {hold_id!r}"
            raise NoSuchHoldError(msg)
        return release_hold(state, found.pop())

    check_keeps(backend, hold_id=hold_id)
    return await update_state(cast("DetailedStateBackend", backend), change)
