"""Each change of the status of a switch."""

from collections.abc import AsyncGenerator
from dataclasses import replace

import anyio

from fastapi_maintenance._helpers import clock
from fastapi_maintenance._switch import holds
from fastapi_maintenance._switch.follower import following
from fastapi_maintenance.state import Hold, MaintenanceStatus, status_of
from fastapi_maintenance.typing import StateBackend


async def changes(backend: StateBackend) -> AsyncGenerator[MaintenanceStatus]:
    """Yield the status as soon as it is known, then each time that it changes; never raise what the store raises."""
    changed = anyio.Event()
    compared: MaintenanceStatus | None = None
    with following(backend, lambda: changed.set()) as known:  # noqa: PLW0108 -- each time another event
        while True:
            changed = anyio.Event()
            state = known.state if known.is_followed else None
            if state is not None:
                status = status_of(holds.with_local(backend, state), clock.now())
                if without_lease(status) != compared:
                    compared = without_lease(status)
                    yield status
                    continue
            await changed.wait()


def without_lease(status: MaintenanceStatus) -> MaintenanceStatus:
    """Return the status for a comparison: the renewal of a lease is not a change."""
    hold = status.decided_by
    return replace(status, decided_by=replace(hold, expires_at=None)) if isinstance(hold, Hold) else status
