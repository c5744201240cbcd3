"""What a blocked request is answered with.

A response callback is a function from a request to a response, sync or async. The middleware adds `Retry-After` and
`Cache-Control: no-store` to what it returns, unless it set its own.
"""

from __future__ import annotations

from datetime import datetime, timezone

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from fastapi_maintenance._checks import check_str
from fastapi_maintenance.state import MaintenanceState, current_message
from fastapi_maintenance.typing import SyncResponseCallback

__all__ = ["STATE_KEY", "as_json", "current_state"]

STATE_KEY = "fastapi_maintenance.state"
"""The key of the ASGI scope under which the middleware leaves the state behind a block."""

_DETAIL = "Service temporarily unavailable due to maintenance"


def current_state(request: Request) -> MaintenanceState:
    """Return the state behind the block, for a response callback to tell of.

    Raises:
        LookupError: The request was not blocked by the middleware of this package.

    """
    state = request.scope.get(STATE_KEY)
    if isinstance(state, MaintenanceState):
        return state
    msg = "request has no maintenance state: only a request that the middleware blocked has one"
    raise LookupError(msg)


def as_json(detail: str = _DETAIL) -> SyncResponseCallback:
    """Answer `503` with `{"detail": ...}`, the shape of FastAPI's own errors.

    Args:
        detail: What to say while there is no message of an operator.

    Raises:
        TypeError: `detail` is not a `str`.

    """
    check_str("detail", detail)

    def json_response(request: Request, /) -> Response:
        message = current_message(current_state(request), datetime.now(timezone.utc))
        return JSONResponse({"detail": detail if message is None else message}, status_code=503)

    return json_response
