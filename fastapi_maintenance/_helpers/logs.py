"""Logging that cannot fail what it reports on: whatever a filter or a handler raises is dropped."""

import logging
from collections.abc import MutableMapping
from contextlib import suppress
from typing import Any

__all__ = ["HINT", "get_logger"]

HINT = "%s (to silence it: logging.getLogger(%r).setLevel('ERROR'))"
"""The message of a hint, with its text and the name of its logger."""


class _SafeLogger(logging.LoggerAdapter[logging.Logger]):
    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:  # noqa: ANN401 -- as logging has it
        """Log a record with the caller's file and line; all other methods call this one."""
        with suppress(Exception):
            super().log(level, msg, *args, **{"stacklevel": 2, **kwargs})

    def process(self, msg: object, kwargs: MutableMapping[str, Any]) -> tuple[object, MutableMapping[str, Any]]:
        """Leave `extra` of each record as the caller gave it."""
        return msg, kwargs


def get_logger(name: str = "fastapi_maintenance") -> logging.LoggerAdapter[logging.Logger]:
    """Return the logger of that name, with methods that never raise.

    Python catches what the `emit` of its own handlers raises, but not what a filter does.
    """
    return _SafeLogger(logging.getLogger(name))
