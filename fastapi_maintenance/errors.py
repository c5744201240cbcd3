"""What can go wrong, as exceptions: every one that the package raises by itself is a `MaintenanceError`."""

from __future__ import annotations

__all__ = [
    "InvalidStateError",
    "MaintenanceError",
    "NotSupportedError",
    "ReadOnlyBackendError",
]


class MaintenanceError(Exception):
    """The base of the errors that this package raises by itself."""


class InvalidStateError(MaintenanceError, ValueError):
    """A text, or a value that a backend returned, is not a maintenance state."""


class NotSupportedError(MaintenanceError):
    """The backend lacks a method that the call needs; the message names the method."""


class ReadOnlyBackendError(MaintenanceError):
    """The backend can be read but not written; the message says what to do instead."""
