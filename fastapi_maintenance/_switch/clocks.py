"""How far the clock of this host is from that of a store."""

from datetime import datetime, timedelta
from typing import NamedTuple, Protocol, runtime_checkable

from fastapi_maintenance._helpers import clock
from fastapi_maintenance._helpers.waiting import guarded, in_time
from fastapi_maintenance.backends.known import uncached
from fastapi_maintenance.typing import StateBackend


class Difference(NamedTuple):
    """How far this clock is ahead of the store's, and by how much that may be wrong."""

    ahead: timedelta
    uncertainty: timedelta


@runtime_checkable
class _ClockedBackend(Protocol):
    """A backend whose store has a clock."""

    async def now(self) -> datetime:
        """Return the store's time, aware."""


async def difference_to(backend: StateBackend, seconds: float) -> Difference | None:
    """Compare the clocks, within so many seconds; None: the store has none, or does not answer."""
    clocked = uncached(backend)
    if not isinstance(clocked, _ClockedBackend):
        return None
    before = clock.now()
    try:
        with in_time(seconds):
            there: datetime = await guarded(clocked.now())
    except Exception:  # noqa: BLE001 -- it is a hint, and whoever reads the state logs what is wrong
        return None
    halfway = (clock.now() - before) / 2
    return Difference(before + halfway - there, halfway)
