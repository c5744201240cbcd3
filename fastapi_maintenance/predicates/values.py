"""Predicates on headers, query parameters and cookies, compared in constant time, and on the host."""

import hmac
import re
from collections.abc import Callable
from functools import partial

from starlette.requests import Request, cookie_parser

from fastapi_maintenance._helpers.checks import check_name, check_str, check_token, reject_value
from fastapi_maintenance.predicates.combinators import BuiltInPredicate, Verdict

_encoded = partial(str.encode, encoding="utf-8", errors="surrogatepass")
_LABEL = r"[^\s.,*:/?#\[\]@\\%]+"  # without characters that end or begin a host in a URL (RFC 3986 3.2.2)
_HOST = rf"(?:\*\.)?{_LABEL}(?:\.{_LABEL})*|\[[0-9a-f:.]+\]"  # no trailing dot
_HOST_AND_PORT = rf"({_HOST})(?::[0-9]*)?"


def header_equals(name: str, value: str) -> BuiltInPredicate:
    """Exempt requests whose header of this name, in any case, has this value, compared in constant time.

    >>> is_admin = header_equals("X-Admin-Key", "secret-key")
    >>> is_admin(get("/", headers=[("x-admin-key", "secret-key")])), is_admin(get("/"))
    (True, False)

    A header sent twice with different values is unknown. A non-ASCII value matches in both encodings that clients use,
    ISO-8859-1 and UTF-8.

    Raises:
        TypeError: The name or the value is not a `str`.
        ValueError: The name is not a token (RFC 9110 5.1), or the value is empty.
    """
    field = check_token("name", name)
    hint = f" (use header_present({name!r}) to check that it is present)"
    on = f"header {name}"
    return _value_equals("header_equals", name, on, lambda request: request.headers.getlist(field), value, hint=hint)


def header_present(name: str) -> BuiltInPredicate:
    """Exempt requests that have a header of this name, whatever its value.

    >>> header_present("X-Canary")(get("/", headers=[("x-canary", "1")]))
    True

    Raises:
        TypeError: The name is not a `str`.
        ValueError: The name is not a token (RFC 9110 5.1).
    """
    field, on = check_token("name", name), (f"header {name}",)
    return BuiltInPredicate(lambda request: field in request.headers, "header_present", args=(name,), on=on)


def query_equals(name: str, value: str) -> BuiltInPredicate:
    """Exempt requests whose query parameter has this value, compared in constant time.

    >>> query_equals("preview", "1")(get("/", query="preview=1"))
    True

    A parameter given twice with different values is unknown.

    Raises:
        TypeError: The name or the value is not a `str`.
        ValueError: The name or the value is empty.
    """
    field = check_name("name", name)
    on = f"query parameter {name}"
    return _value_equals(
        "query_equals", name, on, lambda request: request.query_params.getlist(field), value, in_header=False
    )


def cookie_equals(name: str, value: str) -> BuiltInPredicate:
    """Exempt requests whose cookie of this name has this value, compared in constant time.

    >>> cookie_equals("preview", "1")(get("/", headers=[("cookie", "preview=1")]))
    True

    A cookie sent twice with different values is unknown.

    Raises:
        TypeError: The name or the value is not a `str`.
        ValueError: The name is not a token (RFC 6265 4.1.1), or the value is empty.
    """
    field = check_token("name", name)
    return _value_equals("cookie_equals", name, f"cookie {name}", lambda request: cookies_in(request, field), value)


def cookies_in(request: Request, name: str) -> list[str]:
    """Return the value of each cookie of this name; a browser sends one for each matching path or domain."""
    pairs = map(cookie_parser, ";".join(request.headers.getlist("cookie")).split(";"))
    return [pair[name] for pair in pairs if name in pair]


def host_is(*hosts: str) -> BuiltInPredicate:
    """Exempt requests to these hosts: the `Host` header without its port, in any case.

    >>> host_is("*.example.com")(get("/", headers=[("host", "admin.example.com")]))
    True

    `*.example.com` matches every host below `example.com`. A host that is missing, malformed, or sent twice with
    different values is unknown.

    Raises:
        TypeError: A host is not a `str`.
        ValueError: A host is empty or not a valid name, has a port, a scheme or a path, or has a `*` that is not its
            whole first label.
    """
    for host in hosts:
        if not re.fullmatch(_HOST, check_str("hosts", host).lower()):
            reject_value("hosts", "be valid names without scheme, port or path, at most with a leading '*.'", host)
    exact = frozenset(map(str.lower, hosts))
    below = tuple(host[1:] for host in exact if host.startswith("*"))

    def host_is_wanted(request: Request, /) -> Verdict:
        sent = [re.fullmatch(_HOST_AND_PORT, host.lower()) for host in request.headers.getlist("host")]
        names = {match and match[1] for match in sent}
        host = names.pop() if len(names) == 1 else None
        return None if host is None else host in exact or host.endswith(below)

    return BuiltInPredicate(host_is_wanted, "host_is", args=hosts, on=("host",))


def _value_equals(  # noqa: PLR0913 -- where the three factories differ
    factory: str,
    name: str,
    on: str,
    values_in: Callable[[Request], list[str]],
    value: str,
    *,
    in_header: bool = True,
    hint: str = "",
) -> BuiltInPredicate:
    """Return a predicate that compares in constant time; unknown if a request has several different values."""
    if not check_str("value", value):
        msg = f"value must not be empty, got '': any client that sends it empty would be exempt{hint}"
        raise ValueError(msg)
    secrets = [_encoded(value)]
    if in_header:  # decoded as ISO-8859-1, although browsers send UTF-8
        secrets.append(_encoded(secrets[0].decode("latin-1")))

    def value_is_equal(request: Request, /) -> Verdict:
        values = values_in(request)
        if not values:
            return False
        sent = set(values)
        equal = {any(hmac.compare_digest(_encoded(value), secret) for secret in secrets) for value in sent}
        return equal == {True} or (None if len(sent) > 1 else False)

    return BuiltInPredicate(value_is_equal, factory, args=(name, ...), on=(on,))
