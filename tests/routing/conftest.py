"""Fixtures of the tests about routes."""

from __future__ import annotations

import pytest

from fastapi_maintenance import force_maintenance_mode_on
from tests.routing.apps import on


@pytest.fixture
def marks_of_apps_are_known() -> None:
    """The endpoints of `apps` were marked before the test began, whose process is as new."""
    force_maintenance_mode_on(on)
