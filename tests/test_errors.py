"""`errors`: their texts."""

from copy import copy
from datetime import UTC, datetime, timedelta

from fastapi_maintenance import DrainTimeoutError, WorkerStatus
from fastapi_maintenance.testing import moved_clock


def test_drain_timeout_error_after_time_has_passed_has_the_same_text() -> None:
    with moved_clock() as moved:
        since = datetime.now(UTC) - timedelta(seconds=41)
        worker = WorkerStatus(host="web", process_id=7, requests=1, oldest_since=since, oldest_route="POST /orders")
        error = DrainTimeoutError(30, (worker,))
        moved.move(minutes=5)
        left = "process 7 on web has 1 request in progress, POST /orders for 41 s"
        expected = f"requests are not drained after 30 s: {left}"
        assert (str(error), str(error), str(copy(error))) == (expected, expected, expected)
