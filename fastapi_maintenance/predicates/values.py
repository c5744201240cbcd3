"""Predicates on what a request carries: headers, query parameters and cookies, compared in constant time."""

from __future__ import annotations

import hmac
from collections.abc import Callable

from starlette.requests import Request, cookie_parser

from fastapi_maintenance._helpers.checks import check_name, check_str, check_token
from fastapi_maintenance.predicates.verdicts import Verdict
from fastapi_maintenance.typing import Predicate

__all__ = ["cookie_equals", "header_equals", "header_present", "query_equals"]


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
    wanted = _in_encodings(_checked_value(value, f" (header_present({name!r}) asks whether it is there)"))
    return _equal(lambda request: request.headers.getlist(field), *wanted)


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
    return _equal(lambda request: request.query_params.getlist(field), _checked_value(value))


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

    return _equal(values_in, *_in_encodings(_checked_value(value)))


def _checked_value(value: str, hint: str = "") -> str:
    if check_str("value", value):
        return value
    msg = f"value must not be empty, got '': whoever sends it empty would be exempt{hint}"
    raise ValueError(msg)


def _in_encodings(value: str) -> tuple[str, str]:
    """Return how a value is read, as ISO-8859-1, that browsers sent as that, and others as UTF-8."""
    return value, _encoded(value).decode("latin-1")


def _encoded(value: str) -> bytes:
    return value.encode("utf-8", "surrogatepass")


def _equal(values_in: Callable[[Request], list[str]], *wanted: str) -> Predicate:
    """Return a predicate that tells whether a request has a wanted value; unknown where it has several different ones.

    It compares in constant time, without telling by it how much of a value is right.
    """
    secrets = [_encoded(value) for value in wanted]

    def value_is_equal(request: Request, /) -> Verdict:
        sent = set(values_in(request))
        equal = {any(hmac.compare_digest(_encoded(value), secret) for secret in secrets) for value in sent}
        if equal == {True}:
            return True
        return None if len(sent) > 1 else False

    return value_is_equal
