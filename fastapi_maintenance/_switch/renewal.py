"""Renewing a hold while its block runs: its lease, and the hold itself if it has vanished from the store."""

import math
from datetime import timedelta
from typing import NoReturn

import anyio

from fastapi_maintenance._helpers import background, clock
from fastapi_maintenance._helpers.logs import get_logger
from fastapi_maintenance._helpers.waiting import ANSWER_TIMEOUT, WRITE_TIMEOUT, in_time
from fastapi_maintenance._switch import holds
from fastapi_maintenance.backends.base import name_of
from fastapi_maintenance.backends.last_known import known_of, uncached, update_state
from fastapi_maintenance.state import Hold, MaintenanceState, renew_hold
from fastapi_maintenance.typing import DetailedStateBackend

_LOOK = 1.0  # seconds between two checks that the hold is still stored
_RENEWALS_PER_LEASE = 3
_logger = get_logger()


class Renewal:
    """Keep a hold in the store until `stop`.

    Args:
        backend: The backend that stores it.
        hold: The hold as it was written.
        lease: Its lease, if it has one.
    """

    def __init__(self, backend: DetailedStateBackend, hold: Hold, lease: timedelta | None) -> None:
        self.lapsed_for: timedelta = timedelta()
        """How long its lease had run out, in total."""
        self._backend = backend
        self._hold = hold
        self._lease = lease
        self._period = _LOOK if lease is None else lease.total_seconds() / _RENEWALS_PER_LEASE
        self._renew_at = math.inf if lease is None else anyio.current_time() + self._period
        self._expires_at = hold.expires_at
        self._is_failing = False
        self.task = background.start(self._keep)

    def stop(self) -> None:
        """Stop. A write in progress cannot put the hold back once it is released in this process."""
        self._log_lapse()
        self.task.stop()

    async def _keep(self) -> NoReturn:
        """Check every second that the hold is stored, and renew its lease three times before it ends."""
        while True:
            await anyio.sleep(max(min(_LOOK, self._renew_at - anyio.current_time()), 0))
            try:
                began = anyio.current_time()
                if began >= self._renew_at or self._is_failing or not await self._is_stored():
                    rest = math.inf if self._lease is None else 2 * self._period  # of the old lease
                    with in_time(min(rest, WRITE_TIMEOUT)):
                        await self.put()
                    self._renew_at = math.inf if self._lease is None else began + self._period
            except Exception:
                if not self._is_failing:
                    text = "A hold could not be renewed in %s; retrying until it succeeds"
                    _logger.exception(text, name_of(self._backend))
                self._is_failing = True
                await anyio.sleep(min(self._period / 4, 1.0))
                continue
            if self._is_failing:
                _logger.warning("A hold has been renewed again in %s", name_of(self._backend))
            self._is_failing = False

    async def _is_stored(self) -> bool:
        """Return whether the store has the hold; True while it is unavailable."""
        known = known_of(self._backend)
        state = known.state if known.is_followed else await known.read(uncached(self._backend), 0, ANSWER_TIMEOUT)
        return state is None or not known.is_available or self._hold.id in [hold.id for hold in state.holds]

    async def put(self) -> None:
        """Renew the hold in the store, or put it back in its order if it has vanished, unless it was released."""
        written: Hold | None = None
        has_vanished = False

        def put(state: MaintenanceState) -> MaintenanceState:
            nonlocal written, has_vanished
            if self._hold.id not in [hold.id for hold in holds.local_holds(self._backend)]:
                return state
            stored = [hold for hold in state.holds if hold.id == self._hold.id]
            has_vanished = not stored
            written = holds.leased([*stored, self._hold][0], self._lease)
            return renew_hold(state, written)

        await update_state(self._backend, put)
        if written is not None:
            self._log_lapse()
            self._expires_at = written.expires_at
        if has_vanished:
            _logger.warning("A hold had vanished from %s during its block; it was put back", name_of(self._backend))

    def _log_lapse(self) -> None:
        """Log a warning if the lease has run out."""
        late = timedelta() if self._expires_at is None else clock.now() - self._expires_at
        if late <= timedelta():
            return
        self.lapsed_for += late
        _logger.warning(
            "A hold in %s had lapsed for %.1f s before it was renewed or released, and did not count elsewhere in that "
            "time: this process or its event loop was blocked, or the store was unavailable",
            name_of(self._backend),
            late.total_seconds(),
        )
