"""Drains: what workers report of their requests in progress, and waiting until there are none."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from urllib.parse import quote

import anyio

from fastapi_maintenance._helpers.waiting import guarded
from fastapi_maintenance._switch.requests import Blocked, RequestInProgress
from fastapi_maintenance.backends.known import uncached
from fastapi_maintenance.errors import DrainTimeoutError, NotSupportedError, WorkerStatus
from fastapi_maintenance.state import MaintenanceState
from fastapi_maintenance.typing import DrainableStateBackend, StateBackend

_POLL = 0.02  # seconds
Progress = Callable[[Sequence[WorkerStatus], float], None]
"""Called with the workers that are waited for, and the seconds that are left."""


def report_of(state: MaintenanceState, requests: Sequence[tuple[RequestInProgress, Blocked]]) -> str:
    """Return what a worker reports that goes by this state, and runs these requests that it blocks."""
    report: dict[str, object] = {"holds": [hold.id for hold in state.holds], "requests": len(requests)}
    if requests:
        oldest, blocked = min(requests, key=lambda pair: pair[0].began)
        began = datetime.fromtimestamp(oldest.began, UTC)
        method = oldest.get("method", "WebSocket")
        path = blocked.route or quote(oldest["path"])
        report |= {"since": began.isoformat(), "route": f"{method} {path}"}
    return json.dumps(report)


def _status_of(worker: str, text: str) -> WorkerStatus:
    host, process_id, *_ = worker.rsplit(".", 2)
    who = WorkerStatus(host=host, process_id=int(process_id))
    if not text:
        return who
    report = json.loads(text)
    since = report.get("since")
    return replace(
        who,
        holds=frozenset(report["holds"]),
        requests=report["requests"],
        oldest_since=None if since is None else datetime.fromisoformat(since),
        oldest_route=report.get("route"),
    )


async def get_workers(backend: StateBackend) -> tuple[WorkerStatus, ...]:
    """Return what the workers behind a switch have reported; raises as `check_drains`, and what the store raises."""
    reports = await guarded(check_drains(backend).get_reports())
    return tuple(_status_of(worker, text) for worker, text in sorted(reports.items()))


def check_drains(backend: StateBackend) -> DrainableStateBackend:
    """Return the backend if it has what a drain needs.

    Raises:
        NotSupportedError: It has not.
    """
    behind = uncached(backend)
    if isinstance(behind, DrainableStateBackend):
        return behind
    msg = f"drain needs a backend with the methods watch(worker), report() and get_reports(), which {backend!r} has not"
    raise NotSupportedError(msg)


async def wait_until_drained(backend: StateBackend, hold_id: str, seconds: float, progress: Progress | None) -> None:
    """Return when each worker has read this hold, and none of its requests in progress is one that it blocks.

    Raises:
        DrainTimeoutError: That is not so when the seconds are over.
        Exception: Whatever the store raises.
    """
    left: tuple[WorkerStatus, ...] = ()
    ends_at = anyio.current_time() + seconds
    with anyio.move_on_after(seconds):
        while True:
            left = tuple(one for one in await get_workers(backend) if one.requests != 0 or hold_id not in one.holds)
            if not left:
                return
            if progress is not None:
                progress(left, ends_at - anyio.current_time())
            await anyio.sleep(_POLL)
    raise DrainTimeoutError(seconds, left)
