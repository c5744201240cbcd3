"""What a response callback knows of the maintenance, and the statuses and media types that it answers with."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeVar

from starlette.requests import Request
from starlette.responses import Response

from fastapi_maintenance._helpers import clock
from fastapi_maintenance.state import MaintenanceState, current_message
from fastapi_maintenance.typing import ResponseCallback, SyncResponseCallback

__all__ = ["STATE_KEY", "answers_of", "current_state", "offering", "telling"]

STATE_KEY = "fastapi_maintenance.state"
"""The key of the ASGI scope under which the middleware leaves the state behind a block."""

_Callback = TypeVar("_Callback", bound=ResponseCallback)


def current_state(request: Request) -> MaintenanceState:
    """Return the state behind the block, for a response callback to tell of.

    >>> current_state(blocked(message="Back at ten")).message
    'Back at ten'

    Raises:
        LookupError: The request was not blocked by the middleware of this package.

    """
    state = request.scope.get(STATE_KEY)
    if isinstance(state, MaintenanceState):
        return state
    msg = "request has no maintenance state: only a request that the middleware blocked has one"
    raise LookupError(msg)


def offering(media_type: str, callback: _Callback, *, status: int = 503) -> _Callback:
    """Return the response callback, which now declares the media type and the status that it answers with."""
    vars(callback).update(media_type=media_type, answers=((status, media_type),))
    return callback


def answers_of(callback: object) -> tuple[tuple[int, str], ...]:
    """Return each status and media type that a response callback is known to answer with."""
    answers: tuple[tuple[int, str], ...] = getattr(callback, "answers", ())
    return answers


class Telling(NamedTuple):
    """What a response says that depends on the state alone, so that it can be rendered once for many requests."""

    default: str
    make: Callable[[str], Response]

    def text_in(self, state: MaintenanceState) -> str:
        """Return the operator's message for the block, or the default."""
        return (current_message(state, clock.now()) if state.holds else state.message) or self.default


def telling(media_type: str, default: str, make: Callable[[str], Response]) -> SyncResponseCallback:
    """Return a response callback that tells the operator's message, or `default`, and nothing of the request."""
    told = Telling(default, make)

    def response(request: Request, /) -> Response:
        return make(told.text_in(current_state(request)))

    vars(response)["telling"] = told
    response.__name__ = response.__qualname__ = make.__qualname__
    return offering(media_type, response)
