"""Block or pass: the order of the decision, as one pure function."""

from __future__ import annotations

from enum import Enum
from typing import Literal

__all__ = ["Unmatched", "Verdict", "decide"]

Unmatched = Literal["pass", "block"]


class Verdict(Enum):
    """What to do with a request."""

    PASS = "pass"  # noqa: S105 -- not a password
    BLOCK = "block"
    ASK = "ask"
    """The predicate alone decides now: pass if it says so, else block."""


def decide(  # noqa: PLR0913 -- one keyword for each fact
    *,
    mark: bool | None,
    active: bool,
    answered: bool,
    documentation: bool,
    unmatched: Unmatched,
    exempt_docs: bool,
) -> Verdict:
    """Decide on an HTTP request or a WebSocket handshake; the first rule that applies counts.

    Args:
        mark: What the endpoint that will answer is forced to: True on, False off, None nothing.
        active: Whether there is maintenance.
        answered: Whether a route will answer, and not with 404 or 405.
        documentation: Whether that route is the app's own documentation.
        unmatched: What to do with a request that no route answers.
        exempt_docs: Whether the documentation stays open.

    """
    if mark is True:
        return Verdict.BLOCK
    if mark is False:
        return Verdict.PASS
    if not active:
        return Verdict.PASS
    if not answered and unmatched == "pass":
        return Verdict.PASS
    if documentation and exempt_docs:
        return Verdict.PASS
    return Verdict.ASK
