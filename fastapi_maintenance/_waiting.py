"""Waiting for a store, within bounds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import anyio

__all__ = ["ANSWER_TIMEOUT", "WRITE_TIMEOUT", "in_time"]

ANSWER_TIMEOUT = 2.0
"""Seconds that a follower waits for an answer before it counts the store as away."""

WRITE_TIMEOUT = 10.0
"""Seconds that a write may take."""


@contextmanager
def in_time(seconds: float) -> Iterator[None]:
    """Cancel the block, and raise a `TimeoutError` that says so, when it takes longer."""
    with anyio.move_on_after(seconds) as scope:
        yield
    if scope.cancelled_caught:
        msg = f"no answer within {seconds:g} seconds"
        raise TimeoutError(msg)
