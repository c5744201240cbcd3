"""What an ASGI scope says, read the way that the router reads it."""

import re
import unicodedata
from collections.abc import Callable
from urllib.parse import unquote

from starlette import routing
from starlette.types import Scope

HIDDEN_APP = "fastapi_maintenance.hidden_app"  # in the scope where the app, and a `root_path` of its own, is unknown
TEMPLATE = "fastapi_maintenance.template"  # the path of the route that will answer, with parameters in braces
_PLAIN = re.compile(r"(?:/[a-z0-9_-]+)*/?")  # Python before 3.11.5 is wrong about a group that is possessive
_SEVERAL_READINGS = re.compile(r"[\\?#\x00-\x1f\x7f-\x9f]|(?:^|/)\.\. *+(?:[;/]|$)")
_MOST_DECODINGS = 3
_MOST_TO_NORMALIZE = 1024  # characters: the time that many combining marks take grows with the square of their number


def _below_root_path(scope: Scope) -> str:
    path: str = scope["path"]
    rest = path.removeprefix(scope.get("root_path", ""))
    return rest if not rest or rest.startswith("/") else path


# What is exempt must be read exactly as the installed router reads it, which differs: before Starlette 0.39 it takes
# the `root_path` for a regular expression, and below a mount with a parameter in its path a client can write that. So
# the router's own private function is asked, while it is there; tests/predicates/test_scope.py fails when it goes.
_get_route_path: Callable[[Scope], str] = getattr(routing, "get_route_path", _below_root_path)


def route_path(scope: Scope) -> str:
    """Return the path that routes are matched against: decoded once, relative to the app, empty at its `root_path`."""
    try:
        path: str = _get_route_path(scope) if scope.get("root_path") else scope["path"]
    except re.error:  # that router fails for every route of this request
        path = _below_root_path(scope)
    return path


def lenient_path(path: str) -> str | None:
    """Return the path as the most lenient reader behind the router may read it; None if that can be any other path.

    A static folder, a proxy or a route of its own kind may decode once more, merge slashes, drop `.` segments and
    parameters (`;a=b`), and ignore case or dots and spaces at the end of a name. A `..` segment, a backslash and a
    control character are read in too many ways; `$` in the pattern of a route matches before a final newline. A `?` or
    `#`, which came encoded, ends the path for whoever puts it into a URL again.
    """
    if _PLAIN.fullmatch(path):  # as nearly every path
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
    if _SEVERAL_READINGS.search(path):
        return None
    segments = (segment.partition(";")[0].rstrip(" .") for segment in path.casefold().split("/"))
    whole = "/" + "/".join(filter(None, segments))
    return whole + "/" if path.endswith("/") and whole != "/" else whole


def as_http(scope: Scope) -> Scope:
    """Return the scope as that of an HTTP request; a WebSocket handshake is a GET (RFC 6455 4.1)."""
    is_whole, whole = "query_string" in scope and "headers" in scope, scope
    if not is_whole:  # the ASGI specification lets a server leave these out
        whole = {"query_string": b"", "headers": [], **scope}
    if scope["type"] == "http":
        return whole  # in which a predicate may leave something for the app
    scheme = "https" if scope.get("scheme") == "wss" else "http"
    return {**whole, "type": "http", "method": "GET", "scheme": scheme, "extensions": {}}
