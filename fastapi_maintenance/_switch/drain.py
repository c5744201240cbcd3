"""Waiting until no worker runs a request that a hold blocks.

Why no worker is missing: each that runs writes its record again within two seconds if that is lost, and a drain lasts
as long. So a worker that has no record then does not run, or is cut off from the store. A worker whose record was found
is waited for until it confirms the hold, or has been gone for two seconds; the registry keeps it if nothing but its
record is gone. If the drain's own mark is lost, if the hold vanishes, or if another block opens the service in between,
the two seconds begin anew, and each worker has to confirm again, also one that has stalled since it confirmed.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import cast
from uuid import uuid4

import anyio

from fastapi_maintenance._helpers import background, clock
from fastapi_maintenance._helpers.waiting import ANSWER_TIMEOUT, guarded, in_time
from fastapi_maintenance._switch import holds
from fastapi_maintenance._switch.follower import following
from fastapi_maintenance._switch.reports import MARK, confirmation_of, registry_of, workers_of
from fastapi_maintenance._switch.worker import Worker, end_orphans, leave
from fastapi_maintenance.backends.base import name_of, read_state
from fastapi_maintenance.backends.known import known_of, uncached, update_state
from fastapi_maintenance.errors import DrainTimeoutError, NoWorkersError, WorkerStatus
from fastapi_maintenance.state import Hold, MaintenanceState, renew_hold, status_of
from fastapi_maintenance.typing import DetailedStateBackend, StateBackend

SHORTEST = 2.0  # seconds that a drain lasts where records can be lost
_POLL = 0.1  # seconds
_LEAST_POLL = 0.001  # seconds, so that time passes even if less than that is left
_SIGN_EACH = 1.0  # seconds
Progress = Callable[[Sequence[WorkerStatus], float], None]
"""Called with the workers that are waited for, and the seconds that are left."""


class Drain:
    """A drain of a switch, which may take so many seconds and needs so many processes to confirm.

    Raises:
        NotSupportedError: The workers behind the switch cannot be counted.
        ValueError: The time is too short to prove anything.
    """

    def __init__(self, backend: StateBackend, seconds: float, wanted: int, progress: Progress | None = None) -> None:
        self._backend = backend
        self._registry = registry_of(backend)
        self._seconds = seconds
        self._wanted = wanted
        self._progress = progress
        self._mark = ""
        self._hold: Hold | None = None
        self._shortest = 0.0 if getattr(self._registry, "is_durable", False) else SHORTEST
        self._not_before = 0.0
        self._seen: dict[str, tuple[WorkerStatus, float]] = {}
        self._confirmed: set[str] = set()
        self._sign_mark_at = 0.0
        self._reason = ""
        self._asks_anew = False
        self.workers: int = 0
        """How many processes have confirmed."""
        if seconds < self._shortest:
            msg = f"drain must be at least {self._shortest:g} seconds on {name_of(backend)}, got {seconds:g}"
            raise ValueError(msg)

    @asynccontextmanager
    async def begun(self, own: Sequence[Worker] = ()) -> AsyncGenerator[None]:
        """Follow the switch, and write the mark of this drain, while a block runs; raises what the store raises.

        `own` are the workers for middlewares of this process that only this drain waits for.
        """
        await background.all_ended(end_orphans())
        async with following(self._backend, self._observe):
            try:
                for worker in own:
                    with anyio.move_on_after(ANSWER_TIMEOUT):
                        await worker.ready.wait()
                await self._write_mark()
                yield
            finally:  # in the background, since a cancellation of asyncio's own knows no shield
                ending = [task for worker in own for task in worker.end()]
                ending.append(background.start(partial(leave, self._registry, self._mark)))
                await background.all_ended(ending)

    async def wait(self, hold: Hold) -> None:
        """Return when each worker confirms this hold, which is in the store, and runs no request that it blocks.

        Raises:
            DrainTimeoutError: That is not so when the time is over.
            NoWorkersError: There has been no worker for two seconds.
        """
        began = alone_since = anyio.current_time()
        self._hold, self._not_before = hold, began + self._shortest
        while True:
            now = anyio.current_time()
            try:
                with in_time(ANSWER_TIMEOUT):
                    is_done = await self._look()
            except Exception as error:  # noqa: BLE001 -- the store may answer again in time
                is_done, self._reason = False, f"the store does not answer: {type(error).__name__}: {error}"
            if is_done and now >= self._not_before:
                return
            left = tuple(status for worker, (status, _) in self._seen.items() if worker not in self._confirmed)
            alone_since = now if self._seen else alone_since
            if self._wanted and not self._reason and now - alone_since >= min(SHORTEST, self._seconds):
                msg = (
                    f"no worker has signed in behind {name_of(self._backend)}: is this the switch of the service, and "
                    "does its server run the lifespan of the app? workers=0 says that none has to be there"
                )
                raise NoWorkersError(msg)
            if now >= began + self._seconds:
                raise DrainTimeoutError(self._seconds, left, self._reason)
            if self._progress is not None:
                self._progress(left, began + self._seconds - now)
            await anyio.sleep(min(_POLL, began + self._seconds - now) + _LEAST_POLL)

    def _observe(self) -> None:
        """Notice each state that becomes known, also between two looks."""
        state = known_of(self._backend).state
        problem = None if state is None else self._problem_of(state)
        if problem is not None:
            self._begin_anew(problem)

    async def _look(self) -> bool:
        """Return whether each worker has confirmed, and nothing is in doubt."""
        reports = await guarded(self._registry.reports())
        state = await guarded(read_state(uncached(self._backend)))
        self._reason = self._reason if anyio.current_time() < self._not_before else ""
        if self._mark not in reports:
            self._begin_anew("the records of the workers were lost")
            await self._write_mark()
        elif anyio.current_time() >= self._sign_mark_at:
            await self._sign_mark()
        self._update(reports, state)
        problem = self._problem_of(state)
        if problem is not None:
            self._begin_anew(problem)
        elif self._asks_anew:
            self._asks_anew = False
            await update_state(cast("DetailedStateBackend", self._backend), self._renewed)
        else:
            return self._is_confirmed()
        return False

    def _is_confirmed(self) -> bool:
        if max(self.workers, 1) < self._wanted and self._seen:
            self._reason = f"{self.workers} of {self._wanted} processes have confirmed"
            return False
        return self._seen.keys() == self._confirmed and (bool(self._seen) or not self._wanted)

    def _update(self, reports: Mapping[str, str], state: MaintenanceState) -> None:
        """Compare the reports with what this drain has seen."""
        now, workers = anyio.current_time(), workers_of(reports, state)
        recent = {worker: seen for worker, seen in self._seen.items() if now - seen[1] < self._shortest}
        self._seen = recent | {worker: (status, now) for worker, status in workers.items()}
        own = {confirmation_of(hold) for hold in state.holds if self._hold is not None and hold.id == self._hold.id}
        self._confirmed = {one for one, status in workers.items() if own & status.holds and status.requests == 0}
        self.workers = len({worker.rpartition(".")[2].partition("-")[0] for worker in self._confirmed})

    def _problem_of(self, state: MaintenanceState) -> str | None:
        """Return why maintenance is not on by the hold that is waited with, None if it is."""
        if self._hold is None:
            return None
        if all(stored.id != self._hold.id for stored in state.holds):
            return "the hold of this block is not in the store"
        status = status_of(holds.with_local(self._backend, state), clock.now())
        if status.active:
            return None
        other = cast("Hold", status.decided_by)  # a newer one, since that of this block does not expire here
        return f"the block {other.id[:8]}{f' by {other.by}' if other.by else ''} keeps maintenance off"

    def _begin_anew(self, reason: str) -> None:
        """Wait long enough for each worker that runs to report again."""
        self._not_before = anyio.current_time() + SHORTEST
        self._reason = reason
        self._asks_anew = True

    def _renewed(self, state: MaintenanceState) -> MaintenanceState:
        """Let the hold count since now: a worker that has confirmed it and then stalled has to confirm it again."""
        own = next((hold for hold in state.holds if self._hold is not None and hold.id == self._hold.id), None)
        if own is None:
            return state
        since = clock.now() if own.since is None else max(clock.now(), own.since + timedelta(microseconds=1))
        return renew_hold(state, replace(own, since=since))

    async def _write_mark(self) -> None:
        lost, self._mark = self._mark, MARK + uuid4().hex
        await self._sign_mark()
        if lost:
            await leave(self._registry, lost)

    async def _sign_mark(self) -> None:
        with in_time(2 * ANSWER_TIMEOUT):
            await guarded(self._registry.sign(self._mark, "{}"))
        self._sign_mark_at = anyio.current_time() + _SIGN_EACH
