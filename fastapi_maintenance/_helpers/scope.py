"""Read an ASGI scope as the router reads it, and its path as lenient readers may read it."""

import os
import re
import unicodedata
from collections.abc import Callable
from urllib.parse import unquote

from starlette import routing
from starlette.types import Scope

HIDDEN_APP = "fastapi_maintenance.hidden_app"  # key of a scope: the app, and so its own `root_path`, is unknown
TEMPLATE = "fastapi_maintenance.template"  # key: the path of the route that will answer, with parameters in braces
_PLAIN = re.compile(r"(?:/[a-z0-9_-]+)*/?")  # not possessive: Python before 3.11.5 has a bug in possessive groups
_SEVERAL_READINGS = re.compile(r"[\\?#\x00-\x1f\x7f-\x9f]|(?:^|/)\.\. *+(?:[;/]|$)|:[^/:]*:\$")
_HAS_SHORT_NAMES = os.name == "nt"
_SHORT_NAME = re.compile(r"(?:^|/)[^/]{1,6}~[0-9]")
_MOST_DECODINGS = 3
_MOST_TO_NORMALIZE = 1024  # characters: normalizing many combining marks takes quadratic time


def _below_root_path(scope: Scope) -> str:
    path: str = scope["path"]
    rest = path.removeprefix(scope.get("root_path", ""))
    return rest if not rest or rest.startswith("/") else path


# A path must be read exactly as the installed router reads it, which differs: before Starlette 0.39 the `root_path` is
# used as a regular expression, which a client controls below a mount with a path parameter. So use the router's own
# private function if it exists; tests/predicates/test_scope.py fails if it is removed.
_get_route_path: Callable[[Scope], str] = getattr(routing, "get_route_path", _below_root_path)


def route_path(scope: Scope) -> str:
    """Return the path that routes match: decoded once, relative to the app, empty at its `root_path`."""
    try:
        path: str = _get_route_path(scope) if scope.get("root_path") else scope["path"]
    except re.error:  # matching any route fails too
        path = _below_root_path(scope)
    return path


def lenient_path(path: str) -> str | None:
    """Return the path as the most lenient reader behind the router may read it; None if it may be any other path.

    A static folder, a proxy or a custom route may decode it again, merge slashes, drop `.` segments and parameters
    (`;a=b`), and ignore case or trailing dots and spaces of a name. A `..` segment, a backslash and a control character
    are read in too many ways (`$` in the pattern of a route matches before a final newline). An encoded `?` or `#` ends
    the path once it is part of a URL again. Windows has other names for `/administration`, such as
    `/administration::$INDEX_ALLOCATION`, and short ones, such as `/ADMINI~1`; elsewhere, the latter are usual.
    """
    if _PLAIN.fullmatch(path):  # the usual case
        return path
    for _ in range(_MOST_DECODINGS):
        before, path = path, unquote(path)
        if not path.isascii():
            if len(path) > _MOST_TO_NORMALIZE:
                return None
            path = unicodedata.normalize("NFKC", path)
        if path == before:
            break
    else:
        return None
    if _SEVERAL_READINGS.search(path) or (_HAS_SHORT_NAMES and _SHORT_NAME.search(path)):
        return None
    segments = (segment.partition(";")[0].rstrip(" .") for segment in path.casefold().split("/"))
    whole = "/" + "/".join(filter(None, segments))
    return whole + "/" if path.endswith("/") and whole != "/" else whole


def as_http(scope: Scope) -> Scope:
    """Return the scope of an HTTP request; a WebSocket handshake becomes a GET (RFC 6455 4.1)."""
    whole = scope
    if "query_string" not in scope or "headers" not in scope:  # the ASGI specification lets a server omit these
        whole = {"query_string": b"", "headers": [], **scope}
    if scope["type"] == "http":
        # So that the app sees what a predicate adds; if the app is hidden or replaces the `root_path`, this is a copy
        # (`Answer.as_read`), and the app does not see it.
        return whole
    scheme = "https" if scope.get("scheme") == "wss" else "http"
    return {**whole, "type": "http", "method": "GET", "scheme": scheme, "extensions": {}}
