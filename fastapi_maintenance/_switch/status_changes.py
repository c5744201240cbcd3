"""Changes of the status of a switch: a generator of them, and their log records."""

from collections.abc import AsyncGenerator
from dataclasses import replace

import anyio

from fastapi_maintenance._helpers import clock
from fastapi_maintenance._helpers.logs import get_logger
from fastapi_maintenance._switch import holds
from fastapi_maintenance._switch.follower import following
from fastapi_maintenance.backends.last_known import Known
from fastapi_maintenance.state import Hold, MaintenanceStatus, status_of
from fastapi_maintenance.typing import StateBackend

_logger = get_logger()


async def changes(backend: StateBackend) -> AsyncGenerator[MaintenanceStatus]:
    """Yield the status as soon as it is known, then after each change. Errors of the store are not raised."""
    changed = anyio.Event()
    compared: MaintenanceStatus | None = None
    async with following(backend, lambda: changed.set()) as follower:  # noqa: PLW0108 -- the current event
        known = follower.known
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
    """Return the status to compare: the renewal of a lease is not a change."""
    hold = status.decided_by
    return replace(status, decided_by=replace(hold, expires_at=None)) if isinstance(hold, Hold) else status


def log_change(known: Known, status: MaintenanceStatus) -> None:
    """Log that maintenance has begun or ended, once in this process."""
    now, logged = clock.now(), known.logged
    was_active, logged_at = (None, now) if logged is None else logged
    if was_active is status.active:
        return
    known.logged = status.active, now
    if was_active is None and not status.active:
        return
    # If a hold ended, nobody has set the switch off since the last record.
    is_release = not status.active and status.since is not None and status.since <= logged_at
    by, since = (None, None) if is_release else (status.by, status.since)
    times = {name: time and time.isoformat() for name, time in (("since", since), ("ends_at", status.ends_at))}
    details = {"active": status.active, "message": status.message, "by": by, **times}
    shown = [f"set by {by!r}"] * (by is not None) + [repr(status.message)] * (status.message is not None)
    _logger.info(
        "Maintenance is %s by %s%s",
        "on" if status.active else "off",
        known.name,
        "".join(f", {one}" for one in shown),
        extra={f"maintenance_{name}": value for name, value in details.items() if value is not None},
    )
