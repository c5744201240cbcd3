"""What the tests of the backends share: marks, times, changes, and the records that were logged."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from fastapi_maintenance import Hold, MaintenanceState
from fastapi_maintenance.state import add_hold

LONG_AGO, IN_A_CENTURY = (datetime(year, 1, 1, tzinfo=UTC) for year in (2000, 2100))
LIMIT = 65_536
only_posix = pytest.mark.skipif(sys.platform == "win32", reason="what POSIX has and Windows has not")
as_root = pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can give files away")


@pytest.fixture(name="anyio_backend")
def on_asyncio() -> str:
    """Run on asyncio, as the clients do, where a module imports this."""
    return "asyncio"


def messages_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "fastapi_maintenance"]


def adding(hold_id: str) -> Callable[[MaintenanceState], MaintenanceState]:
    """Return a change that is lost where two writers overwrite each other."""
    return lambda state: add_hold(state, Hold(id=hold_id, on=True), LONG_AGO)
