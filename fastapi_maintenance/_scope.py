"""What an ASGI scope says, read the way that the router reads it."""

from __future__ import annotations

import re
from collections.abc import Callable

from starlette import routing
from starlette.types import Scope

__all__ = ["as_http", "is_preflight", "route_path"]


def _below_root_path(scope: Scope) -> str:
    path: str = scope["path"]
    root_path: str = scope.get("root_path", "")
    if not root_path or not path.startswith(root_path):
        return path
    rest = path[len(root_path) :]
    return rest if not rest or rest.startswith("/") else path


# What is exempt must be read exactly as the installed router reads it, which differs: before Starlette 0.39 it takes
# the `root_path` for a regular expression, and below a mount with a parameter in its path a client can write that. So
# the router's own private function is asked, while it is there; tests/test_scope.py fails when it goes.
_get_route_path: Callable[[Scope], str] = getattr(routing, "get_route_path", _below_root_path)


def route_path(scope: Scope) -> str:
    """Return the path that routes are matched against: decoded once by the server, relative to the app.

    It is empty where the path is just the app's `root_path`, as the ASGI specification and Starlette have it.
    """
    try:
        return _get_route_path(scope)
    except re.error:  # that router fails for every route of this request
        return _below_root_path(scope)


def as_http(scope: Scope) -> Scope:
    """Return the scope as that of an HTTP request, with what the ASGI specification lets a server leave out.

    A WebSocket handshake is a GET (RFC 6455 4.1).
    """
    whole = "query_string" in scope and "headers" in scope
    if scope["type"] == "http":
        return scope if whole else {"query_string": b"", "headers": [], **scope}
    scheme = "https" if scope.get("scheme") == "wss" else "http"
    http = {"type": "http", "method": "GET", "scheme": scheme, "extensions": {}}
    return {"query_string": b"", "headers": [], **scope, **http}


def is_preflight(scope: Scope) -> bool:
    """Tell whether a browser asks by this request what it may send, a CORS preflight (Fetch 4.8)."""
    if scope.get("method") != "OPTIONS":
        return False
    names = {name.lower() for name, _ in scope.get("headers", ())}
    return {b"origin", b"access-control-request-method"} <= names
