"""Predicates on the method."""

from functools import partial

from starlette.requests import Request

from fastapi_maintenance._helpers.checks import check_token
from fastapi_maintenance.predicates.combinators import BuiltInPredicate, Verdict

_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "QUERY", "TRACE"})


@partial(BuiltInPredicate, on=("method",))
def safe_method(request: Request, /) -> bool:
    """Exempt requests that only read: GET, HEAD, OPTIONS and TRACE (RFC 9110 9.2.1), and QUERY (its IETF draft).

    >>> safe_method(get("/items")), safe_method(get("/items", method="POST"))
    (True, False)
    """
    return request.method in _SAFE_METHODS


def method_in(*methods: str) -> BuiltInPredicate:
    """Exempt these HTTP methods, given in any case.

    >>> method_in("get")(get("/")), method_in("POST", "PUT")(get("/"))
    (True, False)

    A request with one of them in another case is unknown: methods are case-sensitive (RFC 9110 9.1), but not every
    application treats them so.

    Raises:
        TypeError: A method is not a `str`.
        ValueError: A method is not a token (RFC 9110 9.1).
    """
    wanted = frozenset(check_token("methods", method).upper() for method in methods)

    def method_is_wanted(request: Request, /) -> Verdict:
        return request.method in wanted or (None if request.method.upper() in wanted else False)

    return BuiltInPredicate(method_is_wanted, "method_in", args=methods, on=("method",))
