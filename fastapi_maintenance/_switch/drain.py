"""A drain: waiting until no worker runs a request that a hold blocks.

Why no worker is missing: if the record of a running worker is lost, it writes it again within two seconds, and a drain
lasts at least two seconds. So a worker without a record does not run, or is cut off from the store. A worker whose
record was found must confirm the hold, or be gone for two seconds; while a registry can tell that a worker lives, it
reports one whose record alone is lost.

The drain writes a record of its own, its mark: a loss of the workers' records takes the mark too. If the mark or the
hold is lost, or another block opens the service, the two seconds begin anew. The hold then gets a new date, which each
worker has to confirm, since it may have stalled after its last report.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
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
from fastapi_maintenance.backends.last_known import known_of, uncached, update_state
from fastapi_maintenance.errors import DrainTimeoutError, NoWorkersError, WorkerStatus
from fastapi_maintenance.state import Hold, MaintenanceState, renew_hold, status_of
from fastapi_maintenance.typing import DetailedStateBackend, StateBackend

SHORTEST = 2.0  # seconds that a drain lasts where records can be lost
_POLL = 0.1  # seconds
_LEAST_POLL = 0.001  # seconds, so that time passes even if less than that is left
_SIGN_INTERVAL = 1.0  # seconds
Progress = Callable[[Sequence[WorkerStatus], float], None]
"""Called with the workers that are waited for, and the seconds that are left."""


class Drain:
    """One drain of a switch.

    Args:
        backend: The switch.
        seconds: How long it may take.
        minimum: How many processes must confirm; 0: even none.
        progress: Called about ten times a second.

    Raises:
        NotSupportedError: The backend cannot count workers.
        ValueError: The time is too short to prove anything.
    """

    def __init__(self, backend: StateBackend, seconds: float, minimum: int, progress: Progress | None = None) -> None:
        self._backend = backend
        self._registry = registry_of(backend)
        self._seconds = seconds
        self._minimum = minimum
        self._progress = progress
        self._mark = ""
        self._hold: Hold | None = None
        self._shortest = 0.0 if getattr(self._registry, "is_durable", False) else SHORTEST
        self._not_before = self._sign_mark_at = 0.0
        self._seen: dict[str, tuple[WorkerStatus, float]] = {}
        self._confirmed: set[str] = set()
        self._reason = ""
        self._is_restarting = False
        self.processes: int = 0
        """How many processes have confirmed."""
        if seconds < self._shortest:
            msg = f"drain must be at least {self._shortest:g} seconds on {name_of(backend)}, got {seconds:g}"
            raise ValueError(msg)

    @asynccontextmanager
    async def begun(self, join: Callable[[], Sequence[Worker]] = tuple) -> AsyncGenerator[None]:
        """Follow the switch, and keep the mark of this drain in the store, while a block runs.

        Args:
            join: Starts workers for the middlewares of this process without a lifespan; they end with this drain.

        Raises:
            Exception: Whatever the store raises.
        """
        await background.all_ended(end_orphans())
        async with following(self._backend, self._observe):
            own = join()
            try:
                for worker in own:
                    with anyio.move_on_after(ANSWER_TIMEOUT):
                        await worker.ready.wait()
                await self._write_mark()
                yield
            finally:  # in the background: a shield does not stop asyncio's own cancellation
                ending = [task for worker in own for task in worker.end()]
                if self._mark:
                    ending.append(background.start(partial(leave, self._registry, self._mark)))
                await background.all_ended(ending)

    async def wait(self, hold: Hold) -> None:
        """Return when each worker confirms this hold, which is in the store, and runs no request that it blocks.

        Raises:
            DrainTimeoutError: The time ran out.
            NoWorkersError: There was no worker for two seconds.
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
            if self._minimum and not self._reason and now - alone_since >= min(SHORTEST, self._seconds):
                msg = (
                    f"no worker has signed in behind {name_of(self._backend)}: is this the switch of the service, and "
                    "does its server run the lifespan of the app? workers=0 allows a drain without any"
                )
                raise NoWorkersError(msg)
            if now >= began + self._seconds:
                raise DrainTimeoutError(self._seconds, left, self._reason)
            if self._progress is not None:
                self._progress(left, began + self._seconds - now)
            await anyio.sleep(min(_POLL, began + self._seconds - now) + _LEAST_POLL)

    def _observe(self) -> None:
        """Check each state that becomes known between two looks."""
        state = known_of(self._backend).state
        problem = None if state is None else self._problem_of(state)
        if problem is not None:
            self._restart(problem)

    async def _look(self) -> bool:
        """Return whether each worker has confirmed, and nothing is in doubt."""
        reports = await guarded(self._registry.reports())
        state = await guarded(read_state(uncached(self._backend)))
        self._reason = self._reason if anyio.current_time() < self._not_before else ""
        if self._mark not in reports:
            self._restart("the records of the workers were lost")
            await self._write_mark()
        elif anyio.current_time() >= self._sign_mark_at:
            await self._sign_mark()

        now, workers, own = anyio.current_time(), workers_of(reports, state), self._own_hold(state)
        recent = {worker: seen for worker, seen in self._seen.items() if now - seen[1] < self._shortest}
        self._seen = recent | {worker: (status, now) for worker, status in workers.items()}
        confirmation = None if own is None else confirmation_of(own)
        self._confirmed = {id_ for id_, one in workers.items() if confirmation in one.holds and one.requests == 0}
        self.processes = len({worker.rpartition(".")[2].partition("-")[0] for worker in self._confirmed})

        problem = self._problem_of(state)
        if problem is not None:
            self._restart(problem)
            return False
        if self._is_restarting:
            self._is_restarting = False
            try:
                await update_state(cast("DetailedStateBackend", self._backend), self._renewed)
            except BaseException:  # also a timeout: the next look writes it again
                self._is_restarting = True
                raise
            return False
        if max(self.processes, 1) < self._minimum and self._seen:
            self._reason = f"{self.processes} of {self._minimum} processes have confirmed"
            return False
        return self._seen.keys() == self._confirmed and (bool(self._seen) or not self._minimum)

    def _own_hold(self, state: MaintenanceState) -> Hold | None:
        """Return the hold of this drain as it is stored."""
        return next((hold for hold in state.holds if self._hold is not None and hold.id == self._hold.id), None)

    def _problem_of(self, state: MaintenanceState) -> str | None:
        """Return why the hold of this drain does not keep maintenance on, None if it does."""
        if self._hold is None:
            return None
        if self._own_hold(state) is None:
            return "the hold of this block is not in the store"
        status = status_of(holds.with_local(self._backend, state), clock.now())
        if status.active:
            return None
        other = cast("Hold", status.decided_by)  # a newer one, since that of this block does not expire here
        return f"the block {other.id[:8]}{f' by {other.by}' if other.by else ''} keeps maintenance off"

    def _restart(self, reason: str) -> None:
        """Begin anew: wait until each running worker has had time to report again."""
        self._not_before = anyio.current_time() + SHORTEST
        self._reason = reason
        self._is_restarting = True

    def _renewed(self, state: MaintenanceState) -> MaintenanceState:
        """Date the hold from now, so that a worker that has stalled after it confirmed has to confirm again."""
        own = self._own_hold(state)
        if own is None:
            return state
        since = clock.now() if own.since is None else max(clock.now(), own.since + timedelta(microseconds=1))
        return renew_hold(state, replace(own, since=since))

    async def _write_mark(self) -> None:
        """Write a mark under a new id."""
        lost, self._mark = self._mark, MARK + uuid4().hex
        await self._sign_mark()
        if lost:
            await leave(self._registry, lost)

    async def _sign_mark(self) -> None:
        with in_time(2 * ANSWER_TIMEOUT):
            await guarded(self._registry.sign(self._mark, "{}"))
        self._sign_mark_at = anyio.current_time() + _SIGN_INTERVAL
