"""The keeper of a hold: while its block runs, it renews the lease, and puts the hold back if it vanishes."""

import math
from datetime import datetime, timedelta
from typing import NoReturn

import anyio

from fastapi_maintenance._helpers import background, clock
from fastapi_maintenance._helpers.logs import get_logger
from fastapi_maintenance._helpers.waiting import ANSWER_TIMEOUT, in_time
from fastapi_maintenance._switch import holds
from fastapi_maintenance.backends.base import name_of
from fastapi_maintenance.backends.known import known_of, uncached, update_state
from fastapi_maintenance.state import Hold, MaintenanceState, renew_hold
from fastapi_maintenance.typing import DetailedStateBackend

_LOOK = 1.0  # seconds between two looks for the hold
_RENEWALS_PER_LEASE = 3
_logger = get_logger()


class Keeper:
    """Keep a hold that was written to a backend until `stop`.

    Args:
        backend: The backend.
        hold: The hold, without an expiry.
        lease: Its lease, None if it has none.
        began: When its writing began, by the clock of the event loop.
        expires_at: When it expires as it was written, None if it has no lease.
    """

    def __init__(
        self,
        backend: DetailedStateBackend,
        hold: Hold,
        lease: timedelta | None,
        began: float,
        expires_at: datetime | None,
    ) -> None:
        self.lapsed_for: timedelta = timedelta()
        """For how long its lease had run out, in all."""
        self._backend = backend
        self._hold = hold
        self._lease = lease
        self._began = began
        self._expires_at = expires_at
        self._took = anyio.current_time() - began
        self._is_failing = False
        self._task = background.start(self._keep)

    def stop(self) -> None:
        """Keep it no longer. What is in progress cannot put it back once it is released in this process."""
        self._check_lapse(clock.now())
        self._task.stop()

    async def ended(self) -> None:
        """Wait for the end of what is in progress."""
        await background.all_ended([self._task])

    async def _keep(self) -> NoReturn:
        """Look for the hold, and renew its lease in time for what the last renewals took."""
        while True:
            now = anyio.current_time()
            renewal = self._renewal_at()
            look = now + _LOOK if now + _LOOK + self._took < renewal else math.inf  # else a renewal would be late
            await anyio.sleep(max(min(renewal, look) - now, 0))
            try:
                if look > renewal:
                    await self._renew()
                elif not await self._is_stored():
                    await self.put()
            except Exception:
                if not self._is_failing:
                    text = "A hold could not be renewed in %s; it is tried again until it can"
                    _logger.exception(text, name_of(self._backend))
                self._is_failing = True
                await anyio.sleep(min(self._period / 4, 1.0))
                continue
            if self._is_failing:
                _logger.warning("A hold has been renewed again in %s", name_of(self._backend))
            self._is_failing = False

    @property
    def _period(self) -> float:
        return _LOOK if self._lease is None else self._lease.total_seconds() / _RENEWALS_PER_LEASE

    def _renewal_at(self) -> float:
        if self._lease is None:
            return math.inf
        return self._began + min(self._period, self._lease.total_seconds() - 2 * self._took)

    async def _renew(self) -> None:
        """Write the hold with a new lease, within what is left of the old one, or twice the time that it took last."""
        expires = self._began + (self._lease or timedelta()).total_seconds()
        began = anyio.current_time()
        with in_time(max(expires - began, 2 * self._took, self._period)):
            await self.put()
        self._began, self._took = began, max(anyio.current_time() - began, self._took / 2)

    async def _is_stored(self) -> bool:
        """Return whether the store has the hold; True while it is unavailable."""
        known = known_of(self._backend)
        state = known.state if known.is_followed else await known.read(uncached(self._backend), 0, ANSWER_TIMEOUT)
        return state is None or not known.is_available or any(hold.id == self._hold.id for hold in state.holds)

    async def put(self) -> None:
        """Write the hold to where it was, or if it has vanished to where it belongs, unless it has been released."""
        written: list[tuple[Hold, datetime]] = []
        vanished: list[bool] = []

        def put(state: MaintenanceState) -> MaintenanceState:
            if not holds.is_open(self._backend, self._hold):
                return state
            stored = next((other for other in state.holds if other.id == self._hold.id), self._hold)
            hold = holds.leased(stored, self._lease)
            written[:] = [(hold, clock.now())]
            vanished[:] = [all(other.id != hold.id for other in state.holds)]
            return renew_hold(state, hold)

        await update_state(self._backend, put)
        ended_at = clock.now()
        for hold, written_at in written:
            # A store that is always slow may have written it at once; after a delay that is new it may not.
            is_usual = ended_at - written_at <= timedelta(seconds=2 * self._took)
            self._check_lapse(written_at if is_usual else ended_at)
            self._expires_at = hold.expires_at
        if any(vanished):
            _logger.warning("A hold had vanished from %s while its block runs; it was put back", name_of(self._backend))

    def _check_lapse(self, at: datetime) -> None:
        """Log it if the lease had run out at that moment."""
        late = timedelta() if self._expires_at is None else at - self._expires_at
        if late <= timedelta():
            return
        self.lapsed_for += late
        _logger.warning(
            "A hold in %s had lapsed for %.1f s before it was renewed or released, and did not count elsewhere in that "
            "time: this process or its event loop was blocked, or the store was unavailable",
            name_of(self._backend),
            late.total_seconds(),
        )
