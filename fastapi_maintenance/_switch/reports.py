"""The reports of workers: what each writes into its record, and how a drain and `get_workers` read it."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from urllib.parse import quote

from fastapi_maintenance._helpers.waiting import guarded
from fastapi_maintenance._switch.requests import Blocked, RequestInProgress
from fastapi_maintenance.backends.base import read_state
from fastapi_maintenance.backends.last_known import uncached
from fastapi_maintenance.codec import text_of_any_size
from fastapi_maintenance.errors import NotSupportedError, WorkerStatus
from fastapi_maintenance.state import Hold, MaintenanceState
from fastapi_maintenance.typing import DrainableStateBackend, StateBackend, WorkerRegistry

MARK = "mark."  # the prefix of the ids under which drains, not workers, write


@dataclass(frozen=True)
class Applied:
    """The state that a worker applies."""

    state: MaintenanceState | None = None  # as stored; None: not known yet
    is_on: bool = False  # by its own clock, and with the holds of its own process
    confirmed: Sequence[Hold] = ()  # the open holds that it confirms; none until all verdicts are known
    ahead: float | None = None  # seconds by which its clock is ahead of the store's, if the store has one


def report_of(applied: Applied, requests: Sequence[tuple[RequestInProgress, Blocked]]) -> str:
    """Return the report of a worker with these requests in progress, which maintenance blocks."""
    report: dict[str, object] = {
        "holds": [confirmation_of(hold) for hold in applied.confirmed] if applied.is_on else [],
        "requests": len(requests),
        "on": applied.is_on,
        "state": None if applied.state is None else _fingerprint(applied.state),
        "ahead": applied.ahead,
    }
    if requests:
        oldest, blocked = min(requests, key=lambda pair: pair[0].began)
        report["since"] = datetime.fromtimestamp(oldest.began, UTC).isoformat()
        path = blocked.route or quote(oldest.scope.get("path", ""), errors="replace")  # it may have ended since
        report["route"] = f"{oldest.scope.get('method', 'WebSocket')} {path}"
    return json.dumps(report)


def confirmation_of(hold: Hold) -> str:
    """Return the text by which a worker confirms a hold. It changes when the drain of the hold begins anew."""
    return f"{hold.id} {'' if hold.since is None else hold.since.isoformat()}"


def workers_of(reports: Mapping[str, str], state: MaintenanceState) -> dict[str, WorkerStatus]:
    """Return the status of each worker by its id, without the marks of drains."""
    stored = _fingerprint(state)
    return {id_: _read(id_, text, stored) for id_, text in sorted(reports.items()) if not id_.startswith(MARK)}


async def get_workers(backend: StateBackend) -> tuple[WorkerStatus, ...]:
    """Return what the workers behind a switch have reported; raises as `registry_of`, and what the store raises."""
    registry, behind = registry_of(backend), uncached(backend)
    state = await guarded(read_state(behind))
    return tuple(workers_of(await guarded(registry.reports()), state).values())


def find_registry(backend: StateBackend) -> WorkerRegistry | None:
    """Return the registry of the workers behind a switch, None if the backend cannot count workers."""
    behind = uncached(backend)
    return behind.workers if isinstance(behind, DrainableStateBackend) else None


def registry_of(backend: StateBackend) -> WorkerRegistry:
    """Return the registry of the workers behind a switch.

    Raises:
        NotSupportedError: The backend cannot count workers.
    """
    registry = find_registry(backend)
    if registry is not None:
        return registry
    msg = (
        f"the workers of {uncached(backend)!r} cannot be counted: that needs a file, Redis, PostgreSQL through asyncpg "
        "or psycopg, or a backend of your own whose attribute workers is a WorkerRegistry"
    )
    raise NotSupportedError(msg)


def _read(worker: str, text: str, stored: str) -> WorkerStatus:
    host, _, process = worker.rpartition(".")[0].rpartition(".")
    status = WorkerStatus(host=host, process_id=int(process) if process.isdecimal() else 0)
    try:
        report = json.loads(text)
        since = report.get("since")
        return replace(
            status,
            holds=frozenset(report["holds"]),
            requests=report["requests"],
            is_on=report["on"],
            is_current=report["state"] == stored,
            clock_ahead=report["ahead"],
            oldest_since=None if since is None else datetime.fromisoformat(since),
            oldest_route=report.get("route"),
        )
    except (ValueError, LookupError, TypeError, AttributeError):  # of another version: it confirms nothing
        return status


def _fingerprint(state: MaintenanceState) -> str:
    """Return a hash of a state without its leases: the renewal of a lease is not a change."""
    holds = tuple(replace(hold, expires_at=None) for hold in state.holds)
    return hashlib.sha256(text_of_any_size(replace(state, holds=holds)).encode()).hexdigest()[:16]
