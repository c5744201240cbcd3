"""What a predicate says: of a request, of all requests of one method and path, or of all requests to a route."""

import inspect
import re
from asyncio import CancelledError
from collections.abc import Awaitable, Iterator
from itertools import zip_longest
from types import SimpleNamespace
from typing import Any, NamedTuple, NoReturn, TypeAlias, cast

from starlette.datastructures import URL
from starlette.requests import Request

from fastapi_maintenance._helpers.logs import get_logger
from fastapi_maintenance._helpers.process import remembered
from fastapi_maintenance._helpers.scope import HIDDEN_APP, lenient_path
from fastapi_maintenance._helpers.waiting import is_cancelled
from fastapi_maintenance.predicates.combinators import (
    AsyncBuiltInPredicate,
    Composable,
    UnusablePredicateError,
    Verdict,
    any_of,
    function_name,
    is_async,
    not_,
    verdict_of,
)
from fastapi_maintenance.predicates.request import PredicateRequest, reads_body
from fastapi_maintenance.typing import ExemptCallback

_Possible: TypeAlias = frozenset[Verdict | str]
_RAISES = "raises"  # after which no other part is asked, and nothing is exempt
_ANY: _Possible = frozenset({True, False, None, _RAISES})
_logger = get_logger()
_logged: set[tuple[str, str]] = remembered(set())
"""The predicates that were logged as failing for each request, and why: that is logged once."""


class Outlook(NamedTuple):
    """What a predicate may say of the requests to a route."""

    possible: _Possible  # verdicts, and whether it may raise
    by: str  # the predicate, or the part of it that decides for all of them
    on: tuple[str, ...]  # what it depends on; empty if all of them get one verdict


async def exempts(predicate: ExemptCallback, request: PredicateRequest) -> bool:
    """Return whether a predicate exempts a request; one that raises does not, and is logged with its traceback.

    What it will raise for each request alike is logged once.
    """
    try:
        said: Any = predicate(request)  # anybody's, so it may be anything
        if not isinstance(said, bool) and inspect.isawaitable(said):
            try:
                said = await said
            finally:
                await request.close()  # the files of a form
        return verdict_of(said) is True and not request.missed
    except (Exception, CancelledError) as error:
        if isinstance(error, CancelledError) and is_cancelled():
            raise
        if not request.missed:
            _log_failure(predicate, error)
        return False


def _log_failure(predicate: ExemptCallback, error: BaseException) -> None:
    missing = re.fullmatch(r"(\w+Middleware) must be installed to access (request\.\w+)", str(error))
    why = str(error) if isinstance(error, UnusablePredicateError) else ""
    if missing is not None:
        why = (
            f"{missing[1]} is missing, or was added inside the maintenance middleware, so {missing[2]} does not exist "
            "yet; add it after the maintenance middleware, which puts it outside"
        )
    if (repr(predicate), why) in _logged:
        return
    if why:
        _logged.add((repr(predicate), why))
        _logger.error("The predicate %r failed; the request is not exempt: %s", predicate, why, exc_info=error)
    else:
        _logger.error("The predicate %r failed; the request is not exempt", predicate, exc_info=error)


def verdict_on(predicate: Any, method: str, path: str) -> Verdict:  # noqa: ANN401 -- sync or async
    """Return what a predicate says to all requests of this method and path; None where it depends on more."""
    if isinstance(predicate, Composable) and predicate.combine is not None:
        verdicts = [verdict_on(part, method, path) for part in predicate.parts]
        predicate = predicate.combine(*(lambda _, verdict=verdict: verdict for verdict in verdicts))
    if _is_dependency(predicate):
        return None
    request = _PartialRequest(method, path)
    try:
        said = predicate(request)
        verdict = verdict_of(_result_without_waiting(said) if inspect.isawaitable(said) else said)
    except Exception:  # noqa: BLE001 -- it looks at more than these, or fails
        return None
    return None if request.partial.was_missed else verdict


def outlook_on(
    predicate: Any,  # noqa: ANN401 -- sync or async
    method: str | None,
    template: str,
    *,
    hidden: bool = False,
) -> Outlook:
    """Return what a predicate may say of the requests to a route, those with an ambiguous path apart.

    Args:
        predicate: The predicate.
        method: The method of the requests; None: any.
        template: Their path, with parameters in braces.
        hidden: Whether the app is hidden, so that a `root_path` of its own is not known.
    """
    by = repr(predicate) if isinstance(predicate, Composable) else function_name(predicate)
    if not isinstance(predicate, Composable) or (predicate.combine is None and predicate.on is None):
        of_body = ["the body"] if is_async(predicate) and reads_body(predicate) else []
        return Outlook(_ANY, by, (f"function {by}", *of_body))
    if _is_dependency(predicate):
        return Outlook(_ANY, by, predicate.on or ())
    if predicate.combine is None:
        verdicts = _verdicts(predicate, method, template, hidden=hidden)
        return Outlook(verdicts, by, () if len(verdicts) == 1 else predicate.on or ())
    parts = [outlook_on(part, method, template, hidden=hidden) for part in predicate.parts]
    if predicate.combine is not_:
        possible = frozenset(not said if isinstance(said, bool) else said for said in parts[0].possible)
    else:
        decisive = predicate.combine is any_of
        possible = frozenset({not decisive})
        for part in parts:
            possible = frozenset(_joined(said, then, decisive) for said in possible for then in part.possible)
        deciding = [part.by for part in parts if part.possible == {True}]
        by = deciding[0] if deciding and (decisive or len(parts) == 1) else by
    conditions = dict.fromkeys(each for part in parts for each in part.on)
    return Outlook(possible, by, () if len(possible) == 1 else tuple(conditions))


def _is_dependency(predicate: object) -> bool:
    """Return whether this is a `dependency(...)`, the one async predicate of this library that is no combination."""
    return isinstance(predicate, AsyncBuiltInPredicate) and predicate.combine is None


def _joined(said: Verdict | str, then: Verdict | str, decisive: bool) -> Verdict | str:  # noqa: FBT001 -- a verdict
    """Return what a combinator says if a part says this, after those before it."""
    if said is decisive or said == _RAISES:
        return said
    if then is decisive or then == _RAISES:
        return then
    return None if said is None or then is None else not decisive


def _verdicts(predicate: Composable, method: str | None, template: str, *, hidden: bool) -> _Possible:
    """Return what a predicate that is no combination may say; it raises nothing."""
    path = None if "{" in template else template
    if path is None and predicate.paths:
        head = template.partition("{")[0]
        starts = tuple(each.removesuffix("/") + "/" for each in predicate.paths) if predicate.below else ()
        if head.startswith(starts):
            return frozenset({True})
        wanted = [lenient_path(each) or "" for each in predicate.paths]
        may_be = any(template_matches(template.casefold(), each, below=predicate.below) for each in wanted)
        return frozenset({True, False, None} if may_be or hidden else {False})
    try:
        return frozenset({verdict_of(predicate.ask(_PartialRequest(method, path, hidden=hidden)))})
    except KeyError:  # it looks at more than what is known
        return frozenset({True, False, None})


def paths_in(predicate: object) -> Iterator[tuple[str, bool]]:
    """Yield each path that was given to a predicate or its parts, and whether what lies under it is meant too."""
    if isinstance(predicate, Composable):
        yield from ((path, predicate.below) for path in sorted(predicate.paths))
        for part in predicate.parts:
            yield from paths_in(part)


def _result_without_waiting(verdict: Awaitable[object]) -> object:
    try:
        next(iter(verdict.__await__()))
    except StopIteration as end:
        return end.value
    return None


class _PartialScope(dict[str, Any]):
    """A scope that raises `KeyError` for what is not known, where others give a default."""

    was_missed = False
    """Whether something was looked for that is not known."""

    def __missing__(self, key: str) -> NoReturn:
        self.was_missed = True
        raise KeyError(key)

    def get(self, key: str, default: object = None) -> Any:  # noqa: ANN401, ARG002 -- as of any scope
        return self[key]

    setdefault = get

    def __contains__(self, key: object) -> bool:
        self.get(str(key))
        return True


class _PartialRequest(Request):
    """A request of which at most the method and the path are known."""

    def __init__(self, method: str | None, path: str | None, *, hidden: bool = False) -> None:
        known = {"type": "http", "method": method, "path": path, "root_path": "", HIDDEN_APP: hidden}
        self.partial = _PartialScope({key: value for key, value in known.items() if value is not None})
        super().__init__(self.partial, self._receive_nothing)

    async def _receive_nothing(self) -> Any:  # noqa: ANN401 -- nothing
        return self.partial["body"]  # which is not known

    @property
    def url(self) -> URL:
        """The path and nothing else."""
        return cast("URL", SimpleNamespace(path=self.scope["path"]))


def template_matches(template: str, path: str, *, below: bool) -> bool:
    """Return whether a route with this path template can match a path or, with `below`, one below it."""
    if below and path == "/":
        return True
    for segment, other in zip_longest(template.strip("/").split("/"), path.strip("/").split("/")):
        if segment is None:
            return False
        if re.search(r"\{\w+:(?!(?:str|int|float|uuid)\})", segment):  # `path`, or a convertor of the user's
            return True
        if other is None:
            return below
        if segment != other and not re.search(r"\{[^{}]*\}", segment):
            return False
    return not below or not path.endswith("/") or template.endswith("/")
