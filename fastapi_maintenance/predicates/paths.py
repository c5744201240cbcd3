"""Predicates on the method, and on the path, read as the router reads it and as lenient readers behind it may."""

import re
from collections.abc import Callable

from starlette.requests import Request

from fastapi_maintenance._helpers.checks import check_name, check_str, check_token, reject_value
from fastapi_maintenance._helpers.scope import HIDDEN_APP, lenient_path, route_path
from fastapi_maintenance.predicates.verdicts import Verdict
from fastapi_maintenance.typing import Predicate

_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})


def safe_method(request: Request, /) -> bool:
    """Exempt requests that only read: GET, HEAD, OPTIONS and TRACE (RFC 9110 9.2.1).

    >>> safe_method(get("/items")), safe_method(get("/items", method="POST"))
    (True, False)
    """
    return request.method in _SAFE_METHODS


def method_in(*methods: str) -> Predicate:
    """Exempt these HTTP methods, given in any case.

    >>> method_in("get")(get("/")), method_in("POST", "PUT")(get("/"))
    (True, False)

    Unknown is one of them that is sent in another case: methods are case-sensitive (RFC 9110 9.1), but not everybody
    takes them so.

    Raises:
        TypeError: A method is not a `str`.
        ValueError: A method is not a token (RFC 9110 9.1).
    """
    wanted = frozenset(check_token("methods", method).upper() for method in methods)
    return lambda request: request.method in wanted or (None if request.method.upper() in wanted else False)


def path_is(*paths: str) -> Predicate:
    """Exempt exactly these paths, compared as the router sees them: relative to the app and decoded once.

    >>> is_probe = path_is("/livez", "/readyz")
    >>> is_probe(get("/livez")), is_probe(get("/livez/db"))
    (True, False)

    Unknown is a path that lenient readers may take for one of these, or for another one than these: `path_prefix` tells
    which.

    Raises:
        TypeError: A path is not a `str`.
        ValueError: A path does not start with `/`.
    """
    return _named_paths("paths", paths, below=False)


def path_prefix(*prefixes: str) -> Predicate:
    """Exempt these paths and all that lies under them, compared as the router sees them.

    >>> is_health = path_prefix("/health")
    >>> is_health(get("/health")), is_health(get("/health/live")), is_health(get("/healthy"))
    (True, True, False)

    `path_prefix("/health/")` covers only what lies under it.

    Unknown is a path with a `..` segment, a backslash or a control character: what is behind the route may take it for
    any other path. Unknown is also a path on which lenient readers come to another verdict: those who decode it once
    more, merge slashes, drop `.` segments and parameters (`;a=b`), or ignore case, or dots and spaces after a name; and
    behind a layer that hides the app, one that some `root_path` of the app would make one of these. So
    `not_(path_prefix("/billing"))` exempts neither `//billing` nor `/Billing`.

    Raises:
        TypeError: A prefix is not a `str`.
        ValueError: A prefix does not start with `/`.
    """
    return _named_paths("prefixes", prefixes, below=True)


def path_matches(pattern: str | re.Pattern[str]) -> Predicate:
    r"""Exempt paths that the whole of a regular expression matches: `path_matches(r"/v\d+/status")`.

    >>> is_status = path_matches(r"/v\d+/status")
    >>> is_status(get("/v2/status")), is_status(get("/v2/status/all"))
    (True, False)

    Unknown is a path that lenient readers may read in another way, as `path_prefix` tells, where the pattern, without
    regard to case, says something else of that.

    Raises:
        TypeError: The pattern is neither a `str` nor a compiled pattern for `str`.
        ValueError: The pattern is empty, or no regular expression.
    """
    check_name("pattern", pattern.pattern if isinstance(pattern, re.Pattern) else pattern)
    try:
        compiled = re.compile(pattern)
        widened = re.compile(compiled.pattern, compiled.flags | re.IGNORECASE)
    except (re.error, OverflowError) as error:  # OverflowError: a number in it is too large
        msg = f"pattern must be a regular expression, got {pattern!r}: {error}"
        raise ValueError(msg) from None
    return _path_predicate(lambda path: bool(compiled.fullmatch(path)), lambda path: bool(widened.fullmatch(path)))


def _named_paths(name: str, paths: tuple[str, ...], *, below: bool) -> Predicate:
    """Return the predicate on these paths and, with `below`, on all that lies under them."""
    for path in paths:
        if not check_str(name, path).startswith("/"):
            reject_value(name, "start with '/'", path)
    exact = frozenset(paths)
    lenient = frozenset(lenient_path(path) or path for path in paths)
    predicate = _path_predicate(_is_one_of(exact, below=below), _is_one_of(lenient, below=below))
    vars(predicate)["paths"] = exact, below
    return predicate


def _is_one_of(paths: frozenset[str], *, below: bool) -> Callable[[str], bool]:
    starts = tuple(path.removesuffix("/") + "/" for path in paths) if below else ()
    return lambda path: path in paths or path.startswith(starts)


def _path_predicate(matches: Callable[[str], bool], may_match: Callable[[str], bool]) -> Predicate:
    """Return a predicate on the path as the router reads it; unknown where lenient readers come to another verdict."""

    def path_matches(request: Request, /) -> Verdict:
        path = route_path(request.scope) or "/"
        read_leniently = lenient_path(path)
        matched = matches(path)
        if read_leniently is None or may_match(read_leniently) is not matched:
            return None
        if not matched and request.scope.get(HIDDEN_APP):  # it may take its own `root_path` off, as FastAPI does
            below = (read_leniently[place:] for place, sign in enumerate(read_leniently) if sign == "/")
            return None if any(map(may_match, below)) else matched
        return matched

    return path_matches
