"""Recognize CORS preflights, and send a blocked response through the app's CORS middleware (Fetch 3.3)."""

from copy import copy
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

EXPOSED = "Retry-After, X-Maintenance-Mode"
"""The headers of a blocked response that scripts of other origins may read."""
_EXPOSE = "Access-Control-Expose-Headers"


def is_preflight(scope: Scope) -> bool:
    """Return whether this is a CORS preflight request (Fetch 3.3.2)."""
    if scope.get("method") != "OPTIONS":
        return False
    names = {name for name, _ in scope.get("headers", ())}
    return {b"origin", b"access-control-request-method"} <= names


def through_cors(cors: Any, app: ASGIApp) -> ASGIApp:  # noqa: ANN401 -- the middleware, or what it will be built from
    """Return `app` wrapped in a copy of the CORS middleware, which answers preflights.

    The headers that it exposes are added to `EXPOSED`.
    """
    if isinstance(cors, Middleware):
        layer = cors.cls(app, *cors.args, **cors.kwargs)
    else:
        layer = copy(cors)
        layer.app = app

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_exposing(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(raw=list(message["headers"]))
                own = headers.get(_EXPOSE, EXPOSED)
                if "X-Maintenance-Mode" in headers and EXPOSED not in own:  # with credentials, `*` is not a wildcard
                    headers[_EXPOSE] = f"{own}, {EXPOSED}"
                message = {**message, "headers": headers.raw}
            await send(message)

        await layer(scope, receive, send_exposing)

    return answer
