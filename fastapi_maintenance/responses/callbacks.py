"""What a response to a blocked request knows, and which media type a response callback answers with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response

from fastapi_maintenance._helpers import clock
from fastapi_maintenance._helpers.checks import reject
from fastapi_maintenance.responses.rendered import Rendered
from fastapi_maintenance.state import MaintenanceState, current_message
from fastapi_maintenance.typing import ResponseCallback, SyncResponseCallback

__all__ = ["STATE_KEY", "answers_of", "current_state", "media_type_of", "offering", "telling"]

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


def _message_in(state: MaintenanceState) -> str | None:
    """Return the operator's message for the block, if there is one."""
    return current_message(state, clock.now()) if state.holds else state.message


def offering(media_type: str, callback: _Callback, *, status: int = 503) -> _Callback:
    """Return the function, which now says what it answers with."""
    vars(callback).update(media_type=media_type, answers=((status, media_type),))
    return callback


def media_type_of(name: str, response: Any) -> str:  # noqa: ANN401 -- whatever somebody takes for one
    """Return what a response callback says that it answers with."""
    media_type = getattr(response, "media_type", None)
    if callable(response) and isinstance(media_type, str):
        return media_type
    return reject(name, "made by as_html, as_json, as_problem, as_redirect or with_media_type", response)


def answers_of(response: object) -> tuple[tuple[int, str], ...]:
    """Return each status and media type that a response callback is known to answer with."""
    several: tuple[tuple[int, str], ...] = getattr(response, "answers", ())
    return several


def telling(media_type: str, default: str, make: Callable[[str], Response]) -> SyncResponseCallback:
    """Return a response callback that tells the operator's message, and nothing of the request.

    It is rendered only when the text is another than before, and can be had of the state alone, by `of_state`.
    """
    last: tuple[str, Rendered] | None = None

    def of_state(state: MaintenanceState) -> Rendered:
        nonlocal last
        text, known = _message_in(state) or default, last
        if known is None or known[0] != text:
            last = known = text, Rendered(make(text))
        return known[1]

    def response(request: Request, /) -> Response:
        return _alike(of_state(current_state(request)).response)

    vars(response)["of_state"] = of_state
    response.__name__ = response.__qualname__ = make.__qualname__
    return offering(media_type, response)


def _alike(response: Response) -> Response:
    """Return a response that says the same and can be changed by itself."""
    another = object.__new__(type(response))
    vars(another).update(vars(response))
    another.raw_headers = list(response.raw_headers)
    return another
