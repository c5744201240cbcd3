"""Fixtures of the tests about routes."""

from __future__ import annotations

import pytest

from fastapi_maintenance import force_maintenance_mode_on
from tests.routing.apps import on


@pytest.fixture
def anyio_backend() -> str:
    """Run on one event loop: no code that looks for a route waits for anything."""
    return "asyncio"


@pytest.fixture
def _marks_of_apps() -> None:
    """Mark an endpoint of `apps` again: each test begins as a new process, which has seen no mark yet."""
    force_maintenance_mode_on(on)
