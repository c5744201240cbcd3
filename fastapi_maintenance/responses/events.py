"""A stream with which a browser's `EventSource` comes back by itself (HTML 9.2)."""

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
_LEAST = 100  # milliseconds
_DAY = 86_400  # seconds: browsers wait no month


def as_event_stream(*, retry: float | timedelta = 30.0) -> SyncResponseCallback:
    r"""Answer an `EventSource` with a stream that says when to connect again, and ends; anything else as `as_json()`.

    >>> response = as_event_stream()(blocked(accept="text/event-stream", message="Back at ten"))
    >>> response.status_code, bytes(response.body).split(b"\n")[1:3]
    (200, [b'event: maintenance', b'data: {"message": "Back at ten", "ends_at": null}'])

    The status is 200, because a browser gives up for good at any other. So only a GET that asks for
    `text/event-stream` gets it. Put it into `negotiate`.

    Args:
        retry: Seconds, or a timedelta. The browser connects again at the end of the maintenance, but after `retry` at
            the latest, and up to `retry` later, each at another moment. It keeps this time for connections that it
            loses later, until a stream of the app has a `retry:` of its own.

    Raises:
        TypeError: `retry` is not a number of seconds or a timedelta.
        ValueError: `retry` is not above zero, or longer than a day.
    """
    pause = check_seconds("retry", retry)
    if pause > _DAY:
        reject_value("retry", "be a day at most", retry)
    other = as_json()

    def event_stream(request: Request, /) -> Response:
        accept = ",".join(request.headers.getlist("accept"))
        is_named = _STREAM in accept.lower()  # and not `text/*`, as of browsers that show texts
        if request.method != "GET" or not is_named or not preferred(accept, ["application/json", _STREAM]):
            return other(request)
        status = current_status(request)
        wait = min(seconds_left(status, clock.now()) or pause, pause) + random.uniform(0, pause)  # noqa: S311 -- no secret
        ends_at = None if status.ends_at is None else status.ends_at.isoformat()
        data = json.dumps({"message": status.message, "ends_at": ends_at})
        body = f"retry: {max(round(wait * 1000), _LEAST)}\nevent: maintenance\ndata: {data}\n\n"
        return Response(body, media_type=_STREAM)

    return offering(_STREAM, event_stream, status=200)
