"""Whether a predicate exempts a request, and the log record if it fails."""

import inspect
import re
from asyncio import CancelledError
from traceback import format_exception_only
from typing import Any

from fastapi_maintenance._helpers.logs import get_logger
from fastapi_maintenance._helpers.process import remembered
from fastapi_maintenance._helpers.waiting import is_cancelled
from fastapi_maintenance.predicates.combinators import UnusablePredicateError, verdict_of
from fastapi_maintenance.predicates.request_body import PredicateRequest
from fastapi_maintenance.typing import ExemptCallback

_logger = get_logger()
_logged: set[tuple[str, str]] = remembered(set())
"""The predicates that were logged as failing for every request, and the reason: each is logged once."""


async def exempts(predicate: ExemptCallback, request: PredicateRequest) -> bool:
    """Return whether a predicate exempts a request. If it raises, log the traceback and return False.

    An error that every request would cause is logged once.
    """
    try:
        result: Any = predicate(request)  # user code may return anything
        if not isinstance(result, bool) and inspect.isawaitable(result):
            try:
                result = await result
            finally:
                await request.close()  # the files of a form
        return verdict_of(result) is True and not request.missed
    except (Exception, CancelledError) as error:
        if isinstance(error, CancelledError) and is_cancelled():
            raise
        if not request.missed:
            _log_failure(predicate, error)
        return False


def _log_failure(predicate: ExemptCallback, error: BaseException) -> None:
    text = "".join(format_exception_only(error))  # unlike `str`, it never raises
    missing = re.match(r"AssertionError: (\w+Middleware) must be installed to access (request\.\w+)$", text)
    reason = str(error) if isinstance(error, UnusablePredicateError) else ""
    if missing is not None:
        reason = (
            f"{missing[1]} is missing, or was added inside the maintenance middleware, so {missing[2]} does not exist "
            "yet; add it after the maintenance middleware, which puts it outside"
        )
    if not reason:
        _logger.error("The predicate %r failed; the request is not exempt", predicate, exc_info=error)
    elif (repr(predicate), reason) not in _logged:
        _logged.add((repr(predicate), reason))
        _logger.error("The predicate %r failed; the request is not exempt: %s", predicate, reason, exc_info=error)
