"""Predicates on headers, query parameters and cookies, compared in constant time, and on the host."""

import hmac
import re
from collections.abc import Callable

from starlette.requests import Request, cookie_parser

from fastapi_maintenance._helpers.checks import check_name, check_str, check_token
from fastapi_maintenance.predicates.verdicts import Verdict
from fastapi_maintenance.typing import Predicate

_HOST = r"(?:\*\.)?[^\s/*:\[\]]+|\[[0-9a-f:.]+\]"
_HOST_AND_PORT = rf"({_HOST})(?<!\.)(?::[0-9]*)?"  # a dot at the end is left out by some


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
    wanted = _as_read(_checked_value(value, f" (header_present({name!r}) asks whether it is there)"))
    return _value_equals(lambda request: request.headers.getlist(field), *wanted)


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
    return _value_equals(lambda request: request.query_params.getlist(field), _checked_value(value))


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

    def values_in(request: Request) -> list[str]:
        pairs = (cookie_parser(pair) for line in request.headers.getlist("cookie") for pair in line.split(";"))
        return [pair[field] for pair in pairs if field in pair]

    return _value_equals(values_in, *_as_read(_checked_value(value)))


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


def _as_read(value: str) -> tuple[str, str]:
    """Return how a value is read in a header, as ISO-8859-1: sent in that, as by browsers, and sent in UTF-8."""
    return value, _encoded(value).decode("latin-1")


def _encoded(value: str) -> bytes:
    return value.encode("utf-8", "surrogatepass")


def _value_equals(values_in: Callable[[Request], list[str]], *wanted: str) -> Predicate:
    """Return a predicate that tells whether a request has a wanted value; unknown where it has several different ones.

    The time of the comparison does not depend on how much of a value is right.
    """
    secrets = [_encoded(value) for value in wanted]

    def value_is_equal(request: Request, /) -> Verdict:
        sent = set(values_in(request))
        equal = {any(hmac.compare_digest(_encoded(value), secret) for secret in secrets) for value in sent}
        if equal == {True}:
            return True
        return None if len(sent) > 1 else False

    return value_is_equal
