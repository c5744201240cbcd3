"""The floor and the limit: what does nothing, and what answers a blocked request in the least number of steps."""

from __future__ import annotations

import json

from apps import DETAIL
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

__all__ = ["Answering", "Nothing", "Shortcut", "bare_503", "empty", "response_503"]

BODY = json.dumps({"detail": DETAIL}, separators=(",", ":")).encode()
HEADERS = [
    (b"content-length", str(len(BODY)).encode()),
    (b"content-type", b"application/json"),
    (b"retry-after", b"3600"),
    (b"cache-control", b"no-store"),
]
"""What a blocked request is answered with by this library."""


class Nothing:
    """A middleware that does nothing."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on."""
        await self.app(scope, receive, send)


class Shortcut:
    """The innermost middleware of an app whose routes are there and are not asked: what is around it stands out."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 200 at once; only the lifespan reaches the app."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})


async def bare_503(scope: Scope, _receive: Receive, send: Send) -> None:
    """Answer what a blocked request is answered with, in the least number of steps."""
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 503, "headers": HEADERS})
    await send({"type": "http.response.body", "body": BODY})


async def response_503(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer it with a response of Starlette, as somebody would who writes it by hand."""
    headers = {"Retry-After": "3600", "Cache-Control": "no-store"}
    await JSONResponse({"detail": DETAIL}, status_code=503, headers=headers)(scope, receive, send)


class Answering:
    """A middleware that answers every request with a fixed app."""

    def __init__(self, app: ASGIApp, answer: ASGIApp) -> None:
        self.app = app
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer; only the lifespan reaches the app."""
        await (self.app if scope["type"] == "lifespan" else self._answer)(scope, receive, send)


async def empty(_scope: Scope, _receive: Receive, _send: Send) -> None:
    """Do nothing at all: what is measured of it is the driver."""
