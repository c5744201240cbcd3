"""The holds that are open in this process, for every kind of backend.

A detailed backend (one with `update_state`) stores them too, in one order for all processes; those that it lacks count
as the newest in this process (`with_local`). A bare switch (a backend that only stores on or off) is set to the value
of the newest hold, and back to the operator's value when the last hold is released. A read-only backend is left alone.
"""

import os
import threading
from collections.abc import AsyncGenerator, Callable, Collection
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from typing import cast

import anyio

from fastapi_maintenance._helpers import clock
from fastapi_maintenance._helpers.process import ThreadLock, remembered
from fastapi_maintenance._helpers.waiting import current_loop, end_of, guarded
from fastapi_maintenance.backends.base import read_state, read_value
from fastapi_maintenance.backends.last_known import key_of, known_of, set_value, uncached, update_state
from fastapi_maintenance.errors import (
    MaintenanceError,
    MissingTableError,
    NoSuchHoldError,
    NotSupportedError,
    ReadOnlyBackendError,
)
from fastapi_maintenance.state import Hold, MaintenanceState, Switch, add_hold, release_hold
from fastapi_maintenance.typing import DetailedStateBackend, StateBackend

_LOCK_POLL = 0.001  # seconds
_PUT_BACK_WITHIN = 2.0  # seconds in which a job that still runs notices that its hold has vanished
_PUT_BACK_POLL = 0.1  # seconds


class _Ledger:
    """The holds of this process on one backend; for a bare switch, also the operator's value."""

    def __init__(self) -> None:
        self.holds: tuple[Hold, ...] = ()
        self.operator = False
        self.ours: frozenset[bool] = frozenset()  # values this process wrote, or may have written before an error
        self.waiting = 0  # tasks that hold the lock, or wait for it
        self.lock = threading.Lock()
        self.lock_is_stale: Callable[[], bool] = end_of(None)

    def observe(self, observed: bool) -> None:  # noqa: FBT001 -- the stored value
        """Treat the stored value as the operator's, unless this process wrote it."""
        if observed not in self.ours:
            self.operator = observed
        self.ours &= {observed}  # keep only the value that is still stored


ledgers: dict[object, _Ledger] = remembered({})
"""The ledger of each switch that this process holds; usually empty."""
_ledgers_lock = ThreadLock(threading.RLock)  # reentrant: the garbage collector may end a block while it is held
with suppress(AttributeError):  # Windows has no forks
    os.register_at_fork(after_in_child=ledgers.clear)  # a block goes on in the parent alone


def local_holds(backend: StateBackend) -> tuple[Hold, ...]:
    """Return the holds of this process on a backend, the newest last."""
    ledger = ledgers.get(key_of(backend)) if ledgers else None
    return () if ledger is None else ledger.holds


def with_local(backend: StateBackend, state: MaintenanceState) -> MaintenanceState:
    """Return the state with the holds of this process, which do not expire in it.

    Those that the store has keep their place in its order; those that it lacks count as the newest.
    """
    local = {hold.id: hold for hold in local_holds(backend)}
    if not local:
        return state
    stored = [local.pop(hold.id, hold) for hold in state.holds]
    return replace(state, holds=(*stored, *local.values()))


def check_keeps(backend: StateBackend, **details: object) -> None:
    """Raise if details such as a message are given for a bare switch."""
    given = [name for name, detail in details.items() if detail is not None]
    if given and not isinstance(backend, DetailedStateBackend):
        msg = f"{given[0]} needs a backend with the method update_state(change), which {backend!r} lacks"
        raise NotSupportedError(msg)


def check_detailed(backend: StateBackend, what: str) -> DetailedStateBackend:
    """Return the backend if it keeps whole states; the error says that `what` needs it."""
    check_keeps(backend, **{what: True})
    return cast("DetailedStateBackend", backend)


def the_one_id(
    wanted: str, ids: Collection[str], *, shortest: int | None, kind: str, error: type[MaintenanceError]
) -> str:
    """Return the wanted id, or the only one that begins with it; raise the error if there is none.

    `shortest` is the least number of characters for the beginning of an id; None: only whole ids are accepted.
    """
    matches = [one for one in ids if shortest and wanted and one.startswith(wanted)]
    if wanted in ids:
        return wanted
    if len(matches) == 1 and len(wanted) >= (shortest or 0):
        return matches[0]
    msg = f"no {kind} has the id {wanted!r}"
    if matches:
        rule = f"give at least {shortest} characters of an id, and more if several begin with them"
        msg = f"{wanted!r} does not name one {kind}: {rule}; it matches {', '.join(sorted(matches))}"
    raise error(msg)


async def acquire(backend: StateBackend, hold: Hold, lease: timedelta | None) -> Hold | None:
    """Open a hold in this process and in the store; raise what the store raises.

    Return it with its expiry, None if the store can only be read. The lease begins when the hold is written, not when
    this is called.
    """
    stored: Hold | None = hold

    def add(state: MaintenanceState) -> MaintenanceState:
        nonlocal stored
        stored = leased(hold, lease)
        return add_hold(state, stored, clock.now())

    async with _locked(backend) as ledger:
        try:
            if isinstance(backend, DetailedStateBackend):
                await update_state(backend, add)
        except ReadOnlyBackendError:
            stored = None
        with _ledgers_lock.current:  # `release` changes them without `ledger.lock`
            ledger.holds = (*ledger.holds, hold)  # without an expiry: it is open while its block runs
        if not isinstance(backend, DetailedStateBackend) and not await _write_wanted(backend, ledger):
            stored = None
    known_of(backend).notify()
    return stored


def leased(hold: Hold, lease: timedelta | None) -> Hold:
    """Return the hold with a lease that begins now; unchanged if it has no lease."""
    return hold if lease is None else replace(hold, expires_at=clock.now() + lease)


async def release(backend: StateBackend, hold: Hold) -> None:
    """Release a hold in this process at once, then in the store; raise what the store raises."""
    with _ledgers_lock.current:
        ledger = ledgers.get(key_of(backend), _Ledger())
        ledger.holds = tuple(other for other in ledger.holds if other.id != hold.id)
    known_of(backend).notify()
    async with _locked(backend) as ledger:
        if isinstance(backend, DetailedStateBackend):
            with suppress(MissingTableError, ReadOnlyBackendError):  # it was never stored
                await update_state(backend, lambda state: release_hold(state, hold.id))
        else:
            await _write_wanted(backend, ledger)


async def set_operator_value(backend: StateBackend, value: bool) -> None:  # noqa: FBT001 -- the operator's value
    """Set the operator's value of a bare switch; while holds are open, it is kept until the last one is released."""
    async with _locked(backend) as ledger:
        if ledger.holds:
            await _write(backend, ledger, ledger.holds[-1].on)
        else:
            await set_value(backend, value)
            ledger.ours = frozenset({value})
        ledger.operator = value


async def bare_state(backend: StateBackend) -> MaintenanceState:
    """Read a bare switch; return a state of the operator's value and the holds of this process."""
    if key_of(backend) not in ledgers:
        value = await guarded(read_value(backend))
        if key_of(backend) not in ledgers:  # else a block has begun since, and may have written the value
            return MaintenanceState(switch=Switch(on=value))
    async with _locked(backend) as ledger:
        ledger.observe(await guarded(read_value(uncached(backend))))
        return MaintenanceState(switch=Switch(on=ledger.operator), holds=ledger.holds)


async def _write_wanted(backend: StateBackend, ledger: _Ledger) -> bool:
    """Set a bare switch to the newest hold's value, else the operator's; return False if it can only be read."""
    observed = await guarded(read_value(uncached(backend)))
    ledger.observe(observed)
    wanted = ledger.holds[-1].on if ledger.holds else ledger.operator
    with suppress(ReadOnlyBackendError):
        if wanted is not observed:
            await _write(backend, ledger, wanted)
        return True
    return False


async def _write(backend: StateBackend, ledger: _Ledger, value: bool) -> None:  # noqa: FBT001 -- as in `set_value`
    before, ledger.ours = ledger.ours, ledger.ours | {value}
    try:
        await set_value(backend, value)
    except ReadOnlyBackendError:
        ledger.ours = before
        raise
    ledger.ours = frozenset({value})


@asynccontextmanager
async def _locked(backend: StateBackend) -> AsyncGenerator[_Ledger]:
    """Lock the ledger of a backend, across threads and event loops."""
    key = key_of(backend)
    with _ledgers_lock.current:
        ledger = ledgers.setdefault(key, _Ledger())
        ledger.waiting += 1
    try:
        while not (lock := ledger.lock).acquire(blocking=False):
            with _ledgers_lock.current:
                if ledger.lock is lock and ledger.lock_is_stale():  # its event loop was closed: nobody will release it
                    ledger.lock, ledger.lock_is_stale = threading.Lock(), end_of(None)
            await anyio.sleep(_LOCK_POLL)  # an event would belong to one event loop
        ledger.lock_is_stale = end_of(current_loop())
        try:
            yield ledger
        finally:
            if ledger.lock is lock:  # else it was replaced, since this event loop was closed
                ledger.lock_is_stale = end_of(None)
            lock.release()
    finally:
        with _ledgers_lock.current:
            ledger.waiting -= 1
            if not ledger.waiting and not ledger.holds and ledger.ours <= {ledger.operator}:  # nothing to restore later
                ledgers.pop(key, None)


async def remove_hold(hold_id: str, backend: StateBackend, *, shortest: int | None = None) -> str:
    """Remove a hold from the store, such as that of a job that died, and return its id.

    A job that still runs puts its hold back (`is_put_back`); in its own process, the hold counts until the block ends.

    Args:
        hold_id: The hold's id.
        backend: The backend to write to.
        shortest: The least number of characters for the beginning of an id; None: only whole ids are accepted.

    Raises:
        NoSuchHoldError: No hold, or more than one, has that id.
        NotSupportedError: The backend is a bare switch.
        ReadOnlyBackendError: The backend cannot be written.
        Exception: Whatever the store raises.
    """
    found = ""

    def change(state: MaintenanceState) -> MaintenanceState:
        nonlocal found
        ids = [hold.id for hold in state.holds]
        # If the reply to an earlier attempt was lost, that one may have removed it.
        found = found or the_one_id(hold_id, ids, shortest=shortest, kind="hold", error=NoSuchHoldError)
        return release_hold(state, found)

    await update_state(check_detailed(backend, "hold_id"), change)
    return found


async def is_put_back(hold_id: str, backend: StateBackend) -> bool:
    """Return whether a job that still runs puts a removed hold back within two seconds."""
    with anyio.move_on_after(_PUT_BACK_WITHIN):
        while True:
            await anyio.sleep(_PUT_BACK_POLL)
            with suppress(Exception):  # the store may answer the next read
                state = await guarded(read_state(uncached(backend)))
                if hold_id in [hold.id for hold in state.holds]:
                    return True
    return False
