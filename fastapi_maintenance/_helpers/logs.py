"""Logging that cannot fail its caller: whatever a filter or a handler raises is dropped."""

import logging
from collections.abc import MutableMapping
from contextlib import suppress
from typing import Any

HINT = "%s (to silence it: logging.getLogger(%r).setLevel('ERROR'))"
"""The message of a hint; its arguments are the text and the name of its logger."""


class _SafeLogger(logging.LoggerAdapter[logging.Logger]):
    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:  # noqa: ANN401 -- as in logging
        """Log a record with the caller's file and line; all other methods call this one."""
        with suppress(Exception):
            super().log(level, msg, *args, **{"stacklevel": 2, **kwargs})

    def process(self, msg: object, kwargs: MutableMapping[str, Any]) -> tuple[object, MutableMapping[str, Any]]:
        """Keep the `extra` of each record; by default, that of the adapter replaces it."""
        return msg, kwargs


def get_logger(name: str = "fastapi_maintenance") -> logging.LoggerAdapter[logging.Logger]:
    """Return a logger whose methods never raise.

    Python catches what the `emit` of its own handlers raises, but not what a filter raises.
    """
    return _SafeLogger(logging.getLogger(name))
