"""For tests: does a backend do what backends promise? An app forced on or off, and a clock to move.

`check_backend` needs the package hypothesis; the rest needs nothing.
"""

from fastapi_maintenance.errors import PromiseBrokenError
from fastapi_maintenance.testing.backends import MakeBackend
from fastapi_maintenance.testing.check import check_backend
from fastapi_maintenance.testing.doubles import MovedClock, maintenance_forced, moved_clock

__all__ = ["MakeBackend", "MovedClock", "PromiseBrokenError", "check_backend", "maintenance_forced", "moved_clock"]
