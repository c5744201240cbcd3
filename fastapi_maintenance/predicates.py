"""Which requests are exempt: pure predicates, and the combinators that compose them.

A predicate is a function from a request to True, False or None, which is unknown. The ones here are made by functions,
`path_prefix("/health")`, and composed by `any_of`, `all_of` and `not_`. They return None where the request is ambiguous
or where the application may read it in another way. Only True exempts. None of them raises for any request. A WebSocket
handshake is seen as the HTTP `GET` that it is. In the examples `get(...)` makes a request.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable, Iterable

from starlette.requests import Request, cookie_parser

from fastapi_maintenance._anatomy import Verdict, on_paths
from fastapi_maintenance._checks import check_name, check_str, check_token
from fastapi_maintenance._clients import client_address, lies_in, networks_of
from fastapi_maintenance._combinators import all_of, any_of, not_
from fastapi_maintenance._scope import lenient_path, route_path
from fastapi_maintenance.typing import Predicate

__all__ = [
    "all_of",
    "always",
    "any_of",
    "client_in",
    "cookie_equals",
    "header_equals",
    "header_present",
    "host_is",
    "method_in",
    "never",
    "not_",
    "path_is",
    "path_matches",
    "path_prefix",
    "query_equals",
    "safe_method",
]

_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
_HOST = r"(?:\*\.)?[^\s/*:\[\]]+|\[[0-9a-f:.]+\]"
_HOST_AND_PORT = rf"({_HOST})(?<!\.)(?::[0-9]*)?"  # a dot at the end is left out by some


def always(request: Request, /) -> bool:  # noqa: ARG001 -- a predicate is given the request, used or not
    """Exempt every request: the unit of `all_of`.

    >>> always(get("/"))
    True
    """
    return True


def never(request: Request, /) -> bool:  # noqa: ARG001 -- a predicate is given the request, used or not
    """Exempt no request: the unit of `any_of`.

    >>> never(get("/"))
    False
    """
    return False


def safe_method(request: Request, /) -> bool:
    """Exempt requests that only read: GET, HEAD, OPTIONS and TRACE (RFC 9110 9.2.1).

    >>> safe_method(get("/items")), safe_method(get("/items", method="POST"))
    (True, False)
    """
    return request.method in _SAFE_METHODS


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
    wanted = frozenset(_checked_paths("paths", paths))
    widened = frozenset(map(lenient_path, wanted))

    def path_is_wanted(request: Request, /) -> Verdict:
        return _as_all_read_it(request, wanted.__contains__, widened.__contains__)

    return on_paths(wanted, path_is_wanted, prefixes=False)


def path_prefix(*prefixes: str) -> Predicate:
    """Exempt these paths and all that lies under them, compared as the router sees them.

    >>> is_health = path_prefix("/health")
    >>> is_health(get("/health")), is_health(get("/health/live")), is_health(get("/healthy"))
    (True, True, False)

    `path_prefix("/health")` covers `/health` and `/health/live`, never `/healthy`; `path_prefix("/health/")` covers
    only what lies under it.

    Unknown is a path with a `..` segment, a backslash or a control character: what is behind the route may take it for
    any other path. Unknown is also a path on which lenient readers come to another verdict: those who decode it once
    more, merge slashes, drop `.` segments and parameters (`;a=b`), or ignore case, or dots and spaces after a name.
    So `not_(path_prefix("/billing"))` exempts neither `//billing` nor `/Billing`.

    Raises:
        TypeError: A prefix is not a `str`.
        ValueError: A prefix does not start with `/`.

    """
    exact = frozenset(_checked_paths("prefixes", prefixes))
    lies_under = _under(exact)
    may_lie_under = _under({lenient_path(prefix) or prefix for prefix in prefixes})

    def path_has_prefix(request: Request, /) -> Verdict:
        return _as_all_read_it(request, lies_under, may_lie_under)

    return on_paths(exact, path_has_prefix, prefixes=True)


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

    def path_matches_pattern(request: Request, /) -> Verdict:
        return _as_all_read_it(
            request, lambda path: bool(compiled.fullmatch(path)), lambda path: bool(widened.fullmatch(path))
        )

    return path_matches_pattern


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

    def method_is_wanted(request: Request, /) -> Verdict:
        if request.method in wanted:
            return True
        return None if request.method.upper() in wanted else False

    return method_is_wanted


def header_equals(name: str, value: str) -> Predicate:
    """Exempt requests whose header of this name, in any case, has this value, compared in constant time.

    >>> is_admin = header_equals("X-Admin-Key", "secret-key")
    >>> is_admin(get("/", headers=[("x-admin-key", "secret-key")])), is_admin(get("/"))
    (True, False)

    Unknown is a header that is sent twice with different values. A value beyond ASCII matches in either of the
    encodings that clients send, ISO-8859-1 and UTF-8.

    Raises:
        TypeError: The name or the value is not a `str`.
        ValueError: The name is not a token (RFC 9110 5.1), or the value is empty.

    """
    field = check_token("name", name)
    wanted = _encodings(_checked_value(value, f" (header_present({name!r}) asks whether it is there)"))

    def header_is_equal(request: Request, /) -> Verdict:
        return _all_equal(request.headers.getlist(field), wanted)

    return header_is_equal


def header_present(name: str) -> Predicate:
    """Exempt requests that carry a header of this name, whatever its value.

    >>> header_present("X-Canary")(get("/", headers=[("x-canary", "1")]))
    True

    Raises:
        TypeError: The name is not a `str`.
        ValueError: The name is not a token (RFC 9110 5.1).

    """
    field = check_token("name", name)

    def header_is_present(request: Request, /) -> bool:
        return field in request.headers

    return header_is_present


def query_equals(name: str, value: str) -> Predicate:
    """Exempt requests whose query parameter has this value, compared in constant time.

    >>> query_equals("preview", "1")(get("/", query="preview=1"))
    True

    Unknown is a parameter that is given twice with different values.

    Raises:
        TypeError: The name or the value is not a `str`.
        ValueError: The name or the value is empty.

    """
    field = check_name("name", name)
    wanted = (_checked_value(value).encode("utf-8", "surrogatepass"),)

    def query_is_equal(request: Request, /) -> Verdict:
        return _all_equal(request.query_params.getlist(field), wanted, encoding="utf-8")

    return query_is_equal


def cookie_equals(name: str, value: str) -> Predicate:
    """Exempt requests whose cookie of this name has this value, compared in constant time.

    >>> cookie_equals("preview", "1")(get("/", headers=[("cookie", "preview=1")]))
    True

    Unknown is a cookie that is sent twice with different values.

    Raises:
        TypeError: The name or the value is not a `str`.
        ValueError: The name is not a token (RFC 6265 4.1.1), or the value is empty.

    """
    field = check_token("name", name)
    wanted = _encodings(_checked_value(value))

    def cookie_is_equal(request: Request, /) -> Verdict:
        pairs = (cookie_parser(pair) for line in request.headers.getlist("cookie") for pair in line.split(";"))
        return _all_equal([pair[field] for pair in pairs if field in pair], wanted)

    return cookie_is_equal


def host_is(*hosts: str) -> Predicate:
    """Exempt requests to these hosts: the `Host` header without its port, in any case.

    >>> host_is("*.example.com")(get("/", headers=[("host", "admin.example.com")]))
    True

    `*.example.com` stands for every host below `example.com`. Unknown is a host that is missing, malformed, or sent
    twice with different values.

    Raises:
        TypeError: A host is not a `str`.
        ValueError: A host is empty, or has a port, a scheme, a path or a `*` that is not its whole first label.

    """
    wanted = frozenset(_checked_host(host) for host in hosts)
    exact = frozenset(host for host in wanted if not host.startswith("*"))
    below = tuple(host[1:] for host in wanted - exact)

    def host_is_wanted(request: Request, /) -> Verdict:
        sent = [re.fullmatch(_HOST_AND_PORT, host.lower()) for host in request.headers.getlist("host")]
        names = {match and match[1] for match in sent}
        host = names.pop() if len(names) == 1 else None
        return None if host is None else host in exact or host.endswith(below)

    return host_is_wanted


def client_in(*networks: str, trusted_proxies: Iterable[str] = ()) -> Predicate:
    """Exempt clients by address: `client_in("10.0.0.0/8", "2001:db8::7")`.

    >>> is_internal = client_in("10.0.0.0/8")
    >>> is_internal(get("/", peer=("10.1.2.3", 50_000))), is_internal(get("/", peer=("192.0.2.1", 50_000)))
    (True, False)

    The client is the peer that the server reports. Where that is one of `trusted_proxies`, `X-Forwarded-For` is
    walked from the right, and the first address that is not a trusted proxy is the client; an entry that is no
    address ends the walk. Unknown is a client whose address is then not known.

    A server that rewrites the peer by that header itself is believed: `uvicorn --forwarded-allow-ips='*'` takes the
    first address, which every client can make up. Give it the addresses of the proxies, or `--no-proxy-headers` and
    name them here.

    Args:
        networks: IPv4 or IPv6 addresses, and networks in CIDR notation.
        trusted_proxies: The same, for the proxies whose word is taken.

    Raises:
        TypeError: A network is not a `str`, or `trusted_proxies` is a single `str`.
        ValueError: A network is no address or network; the host bits of a network must be zero.

    """
    wanted = networks_of("networks", networks)
    trusted = networks_of("trusted_proxies", trusted_proxies)

    def client_is_in(request: Request, /) -> Verdict:
        client = client_address(request, trusted)
        return None if client is None else lies_in(client, wanted)

    return client_is_in


def _checked_paths(name: str, paths: tuple[str, ...]) -> tuple[str, ...]:
    for path in paths:
        if not check_str(name, path).startswith("/"):
            msg = f"{name} must start with '/', got {path!r}"
            raise ValueError(msg)
    return paths


def _under(prefixes: Iterable[str]) -> Callable[[str], bool]:
    """Return a function that tells whether a path is one of the prefixes, or lies under one."""
    exact = frozenset(prefixes)
    below = tuple(prefix if prefix.endswith("/") else prefix + "/" for prefix in exact)
    return lambda path: path in exact or path.startswith(below)


def _as_all_read_it(request: Request, matches: Callable[[str], bool], may_match: Callable[[str], bool]) -> Verdict:
    """Return whether the request's path matches; None where a lenient reader comes to another verdict."""
    path = route_path(request.scope) or "/"
    read_leniently = lenient_path(path)
    matched = matches(path)
    return matched if read_leniently is not None and may_match(read_leniently) is matched else None


def _checked_value(value: str, hint: str = "") -> str:
    if check_str("value", value):
        return value
    msg = f"value must not be empty, got '': whoever sends it empty would be exempt{hint}"
    raise ValueError(msg)


def _checked_host(host: str) -> str:
    lowered = check_str("hosts", host).lower()
    if re.fullmatch(_HOST, lowered):
        return lowered
    msg = f"hosts must be names without scheme, port or path, at most with a leading '*.', got {host!r}"
    raise ValueError(msg)


def _encodings(value: str) -> tuple[bytes, ...]:
    """Return the bytes that clients send for a value: browsers encode as ISO-8859-1, curl as the terminal does."""
    utf_8 = value.encode("utf-8", "surrogatepass")
    try:
        return value.encode("latin-1"), utf_8
    except UnicodeEncodeError:
        return (utf_8,)


def _all_equal(sent: list[str], wanted: tuple[bytes, ...], encoding: str = "latin-1") -> Verdict:
    """Return whether a value was sent, and is wanted; None where different ones were sent.

    It compares without leaking how much of a value is right.
    """
    equal = {any(hmac.compare_digest(value.encode(encoding), one) for one in wanted) for value in sent}
    if equal == {True}:
        return True
    return None if len(set(sent)) > 1 else False
