"""Predicates on the path, as the router reads it and as lenient readers behind it may read it.

`_helpers/scope.py` has both ways to read a path.
"""

import re

from starlette.requests import Request

from fastapi_maintenance._helpers.checks import check_name, check_str, reject_value
from fastapi_maintenance._helpers.scope import HIDDEN_APP, lenient_path, route_path
from fastapi_maintenance.predicates.combinators import BuiltInPredicate, Verdict

_MOST_READINGS = 64  # of one path, if the app may remove its own `root_path`
_FLAGS = re.compile(r"(?:\(\?[a-zA-Z]+\))*")
_CASE_KEPT = re.compile(r"\(\?([a-zA-Z]*)-([a-zA-Z]*i[a-zA-Z]*):")  # a group whose case cannot be ignored
_LOOKAROUND = re.compile(r"\(\?<?[=!]|\$|\\[zZ]")  # with these, a trailing slash can change the result
_EXCLUDED_LETTER = re.compile(r"\[\^\]?(?:\\.|[^\]\\])*?[^\W\d_]")  # excludes more letters if case is ignored
_AT_END = re.compile(r"(?<!\\)/*\$?\Z")


def path_is(*paths: str) -> BuiltInPredicate:
    """Exempt exactly these paths, compared as the router sees them: relative to the app and decoded once.

    >>> is_probe = path_is("/livez", "/readyz")
    >>> is_probe(get("/livez")), is_probe(get("/livez/db"))
    (True, False)

    A path for which lenient readers may reach another verdict is unknown (see `path_prefix`). So is a path that differs
    only by trailing slashes, since a static folder serves `/report.pdf/` as the file.

    Raises:
        TypeError: A path is not a `str`.
        ValueError: A path does not start with `/`, or would always be unknown.
    """
    return _named_paths("path_is", "paths", paths, below=False)


def path_prefix(*prefixes: str) -> BuiltInPredicate:
    """Exempt these paths and everything below them, compared as the router sees them.

    >>> is_health = path_prefix("/health")
    >>> is_health(get("/health")), is_health(get("/health/live")), is_health(get("/healthy"))
    (True, True, False)

    `path_prefix("/health/")` covers `/health/` and everything below it, but not `/health`.

    A path is unknown if it has a `..` segment, a backslash, a control character, an encoded `?` or `#`, or what Windows
    reads as another name, such as `health::$DATA` (and `HEALTH~1`, if the app runs on Windows), since code behind the
    route may read it as any other path. It is also unknown if lenient readers reach another verdict: readers that
    decode it again, merge slashes, drop `.` segments and parameters (`;a=b`), or ignore case and trailing dots or
    spaces of a name. So `not_(path_prefix("/billing"))` exempts neither `//billing` nor `/Billing`. Behind a layer that
    hides the app, a path is also unknown if some `root_path` of the app would turn it into one of these, or if it has
    more than 64 segments.

    Raises:
        TypeError: A prefix is not a `str`.
        ValueError: A prefix does not start with `/`, or would always be unknown.
    """
    return _named_paths("path_prefix", "prefixes", prefixes, below=True)


def path_matches(pattern: str | re.Pattern[str]) -> BuiltInPredicate:
    r"""Exempt paths that a regular expression matches in full: `path_matches(r"/v\d+/status")`.

    >>> is_status = path_matches(r"/v\d+/status")
    >>> is_status(get("/v2/status")), is_status(get("/v2/status/all"))
    (True, False)

    A path that lenient readers may read differently (see `path_prefix`) is unknown if the pattern gives another verdict
    on that reading. So is a path that does not match, but would with or without a trailing slash, or in another case.
    If the pattern has a lookaround, such as `(?!/admin)`, a path is exempt only if it also matches when case is
    ignored. Behind a layer that hides the app, a path that does not match is unknown, and so is one that matches if the
    pattern has a lookaround or excludes letters, as `[^a-z]` does.

    Raises:
        TypeError: The pattern is neither a `str` nor a compiled pattern for `str`.
        ValueError: The pattern is empty or not a valid regular expression.
    """
    check_name("pattern", pattern.pattern if isinstance(pattern, re.Pattern) else pattern)
    try:
        compiled = re.compile(pattern)
        lenient = _lenient(compiled)
    except (re.error, OverflowError) as error:  # OverflowError: a number in it is too large
        msg = f"pattern must be a regular expression, got {pattern!r}: {error}"
        raise ValueError(msg) from None
    has_lookaround = _LOOKAROUND.search(_AT_END.sub("", compiled.pattern)) is not None
    excludes_letters = _EXCLUDED_LETTER.search(compiled.pattern) is not None

    def path_matches_pattern(request: Request, /) -> Verdict:
        path = route_path(request.scope) or "/"
        as_read = lenient_path(path)
        if as_read is None:
            return None
        is_hidden, is_plain, is_whole = request.scope.get(HIDDEN_APP), as_read == path, not path.endswith("/")
        if compiled.fullmatch(path):
            if has_lookaround:  # which may exclude another reading of this path
                return True if is_plain and is_whole and not is_hidden and lenient.fullmatch(path) else None
            is_clean = as_read == path.casefold()
            return True if (is_clean or lenient.fullmatch(as_read)) and not (excludes_letters and is_hidden) else None
        is_doubtful = (has_lookaround and not is_whole) or ((has_lookaround or excludes_letters) and not is_plain)
        return None if is_hidden or is_doubtful or lenient.fullmatch(as_read.removesuffix("/") + "/") else False

    return BuiltInPredicate(path_matches_pattern, "path_matches", args=(compiled.pattern,), on=("path",))


def _without_case(group: re.Match[str]) -> str:
    others = group[2].replace("i", "")
    return f"(?{group[1]}-{others}:" if others else f"(?{group[1]}:"


def _lenient(pattern: re.Pattern[str]) -> re.Pattern[str]:
    """Return the pattern ignoring case, with an optional trailing slash."""
    source = _AT_END.sub("", _FLAGS.sub("", pattern.pattern, count=1))  # `pattern.flags` has these flags too
    source = _CASE_KEPT.sub(_without_case, source)
    end = "\n" if pattern.flags & re.VERBOSE else ""  # ends a comment
    return re.compile(f"(?:{source}{end})/?", pattern.flags | re.IGNORECASE)


def _named_paths(factory: str, name: str, paths: tuple[str, ...], *, below: bool) -> BuiltInPredicate:
    """Return the predicate on these paths and, with `below`, on everything below them."""
    exact, lenient = set[str](), set[str]()
    for path in paths:
        if not check_str(name, path).startswith("/"):
            reject_value(name, "start with '/'", path)
        as_read = lenient_path(path)
        if as_read is None:
            rule = "have no '..' segment, backslash, control character, '?', '#', or Windows name such as 'a::$DATA'"
            reject_value(name, rule, path)
        exact.add(path)
        lenient.add(as_read if below else as_read.removesuffix("/") or "/")
    starts, lenient_starts = (
        tuple(path.removesuffix("/") + "/" for path in each) if below else () for each in (exact, lenient)
    )

    def path_is_named(request: Request, /) -> Verdict:
        path = route_path(request.scope) or "/"
        as_read = lenient_path(path)
        if as_read is None:
            return None
        if not below:
            as_read = as_read.removesuffix("/") or "/"
        matched = path in exact or path.startswith(starts)
        if matched is not (as_read in lenient or as_read.startswith(lenient_starts)):
            return None
        if matched or not request.scope.get(HIDDEN_APP):
            return matched
        rests = _rests_of(as_read)
        is_unknown = rests is None or any(rest in lenient or rest.startswith(lenient_starts) for rest in rests)
        return None if is_unknown else False

    return BuiltInPredicate(path_is_named, factory, args=paths, on=("path",), paths=frozenset(exact), below=below)


def _rests_of(path: str) -> list[str] | None:
    """Return the paths that may remain if a hidden app removes its own `root_path`; None if there are too many."""
    segments = path.split("/")
    if len(segments) > _MOST_READINGS:
        return None
    return ["/" + "/".join(segments[place:]) for place in range(2, len(segments) + 1)]
