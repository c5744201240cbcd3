"""Helpers for tests: check a backend, force an app into maintenance or out of it, move the clock."""

from fastapi_maintenance.errors import PromiseBrokenError
from fastapi_maintenance.testing.check import check_backend
from fastapi_maintenance.testing.doubles import MovedClock, maintenance_forced, moved_clock
from fastapi_maintenance.testing.instances import Instance, MakeBackend
from fastapi_maintenance.testing.scenarios import SCENARIOS, Scenario

__all__ = [
    "SCENARIOS",
    "Instance",
    "MakeBackend",
    "MovedClock",
    "PromiseBrokenError",
    "Scenario",
    "check_backend",
    "maintenance_forced",
    "moved_clock",
]
