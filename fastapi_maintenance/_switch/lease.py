"""The lease of a hold: it is renewed while the block runs, and the clocks that it goes by are compared."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from typing import Protocol, runtime_checkable

import anyio

from fastapi_maintenance._helpers import clock
from fastapi_maintenance._helpers.waiting import ANSWER_TIMEOUT, in_time
from fastapi_maintenance._switch import holds
from fastapi_maintenance._switch.writes import key_of
from fastapi_maintenance.backends.cached import uncached
from fastapi_maintenance.state import Hold
from fastapi_maintenance.typing import DetailedStateBackend, StateBackend

__all__ = ["compare_clocks", "keep_renewing"]

_RENEWALS_PER_LEASE = 3
_warned_of_clocks: set[object] = set()
_logger = logging.getLogger("fastapi_maintenance")


@runtime_checkable
class _ClockedBackend(Protocol):
    """A backend whose store has a clock."""

    async def now(self) -> datetime:
        """Return the store's time, aware."""


async def keep_renewing(backend: DetailedStateBackend, hold: Hold, lease: timedelta, began: float) -> None:
    """Renew a hold for ever, each time early enough for what the last times took, so that its lease never runs out.

    A renewal may take as long as there is lease left, and always a third of the lease or twice what the last ones took.
    """
    seconds = lease.total_seconds()
    period = seconds / _RENEWALS_PER_LEASE
    took, failed = 0.0, False
    while True:
        took = max(anyio.current_time() - began, took / 2)
        pause = began + min(period, seconds - 2 * took) - anyio.current_time()
        expires = began + seconds
        while True:
            await anyio.sleep(max(pause, 0))
            began = anyio.current_time()
            try:
                with in_time(max(expires - began, 2 * took, period)):
                    await holds.renew(backend, hold, lease)
                break
            except Exception:
                if not failed:
                    _logger.exception("A hold could not be renewed in %r; it is tried again until it can", backend)
                failed, pause = True, min(period / 4, 1.0)
        if failed:
            _logger.warning("A hold has been renewed again in %r", backend)
        failed = False


async def compare_clocks(backend: StateBackend, lease: timedelta) -> None:
    """Warn once if the clock of this host differs from that of the store by more than a third of a lease."""
    clocked = uncached(backend)
    if not isinstance(clocked, _ClockedBackend):
        return
    before = clock.now()
    try:
        with in_time(ANSWER_TIMEOUT):
            there = await clocked.now()
    except Exception:  # noqa: BLE001 -- the block goes on
        return
    halfway = (clock.now() - before) / 2
    ahead = before + halfway - there
    if abs(ahead) - halfway <= lease / _RENEWALS_PER_LEASE or key_of(backend) in _warned_of_clocks:
        return
    _warned_of_clocks.add(key_of(backend))
    _logger.warning(
        "The clock of this host is %.1f seconds %s that of %r, more than a lease of %g seconds bears: other hosts may "
        "take its holds for expired, or keep them too long. Leases and time windows go by the clock of each host: "
        "synchronize them",
        abs(ahead.total_seconds()),
        "ahead of" if ahead > timedelta() else "behind",
        clocked,
        lease.total_seconds(),
    )
