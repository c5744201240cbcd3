"""A stream that makes a browser's `EventSource` reconnect by itself (HTML 9.2)."""

import json
import random
from datetime import timedelta

from starlette.requests import Request
from starlette.responses import Response

from fastapi_maintenance._helpers import clock
from fastapi_maintenance._helpers.checks import check_seconds, reject_value
from fastapi_maintenance.responses.callbacks import as_json, current_status, offering
from fastapi_maintenance.responses.negotiation import preferred
from fastapi_maintenance.state import seconds_left
from fastapi_maintenance.typing import SyncResponseCallback

_STREAM = "text/event-stream"
_MINIMUM = 100  # milliseconds
_DAY = 86_400  # seconds


def as_event_stream(*, retry: float | timedelta = 30.0) -> SyncResponseCallback:
    r"""Send an `EventSource` a stream that says when to reconnect, and ends; respond like `as_json()` to others.

    >>> response = as_event_stream()(blocked(accept="text/event-stream", message="Back at ten"))
    >>> response.status_code, bytes(response.body).split(b"\n")[1:3]
    (200, [b'event: maintenance', b'data: {"message": "Back at ten", "ends_at": null}'])

    The status is 200, because a browser never reconnects after any other, so only a GET that accepts
    `text/event-stream` gets the stream. Pass it to `negotiate`.

    Args:
        retry: Seconds, or a timedelta. The browser reconnects when the maintenance ends, or after `retry` if that is
            sooner, plus a random time of up to `retry`. It also uses this delay for connections that it loses later,
            until a stream of the app sends its own `retry:`.

    Raises:
        TypeError: `retry` is not a number of seconds or a timedelta.
        ValueError: `retry` is not above zero, or longer than a day.
    """
    pause = check_seconds("retry", retry)
    if pause > _DAY:
        reject_value("retry", "be at most a day", retry)
    other = as_json()

    def event_stream(request: Request, /) -> Response:
        accept = ",".join(request.headers.getlist("accept"))
        is_named = _STREAM in accept.lower()  # `text/*` alone comes from browsers that display text
        if request.method != "GET" or not is_named or not preferred(accept, ["application/json", _STREAM]):
            return other(request)
        status = current_status(request)
        wait = min(seconds_left(status, clock.now()) or pause, pause) + random.uniform(0, pause)  # noqa: S311 -- not a secret
        ends_at = None if status.ends_at is None else status.ends_at.isoformat()
        data = json.dumps({"message": status.message, "ends_at": ends_at})
        body = f"retry: {max(round(wait * 1000), _MINIMUM)}\nevent: maintenance\ndata: {data}\n\n"
        return Response(body, media_type=_STREAM)

    return offering(_STREAM, event_stream, status=200)
