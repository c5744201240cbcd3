"""Predicates on the method, and the two that look at nothing."""

from starlette.requests import Request

from fastapi_maintenance._helpers.checks import check_token
from fastapi_maintenance.predicates.verdicts import Verdict
from fastapi_maintenance.typing import Predicate

_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})


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
