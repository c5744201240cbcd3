"""Evaluate a predicate without a request: for a method and path, or for all requests to a route.

The OpenAPI document, the hints and `fastapi-maintenance routes` use it; `exemption.py` evaluates it for a request.
"""

import inspect
import re
from collections.abc import Awaitable, Iterator
from itertools import zip_longest
from typing import Any, NamedTuple, NoReturn, TypeAlias

from starlette.datastructures import URL
from starlette.requests import Request

from fastapi_maintenance._helpers.scope import HIDDEN_APP, lenient_path
from fastapi_maintenance.predicates.combinators import (
    AsyncBuiltInPredicate,
    Composable,
    Verdict,
    any_of,
    function_name,
    is_async,
    not_,
    verdict_of,
)
from fastapi_maintenance.predicates.request_body import reads_body

_Possible: TypeAlias = frozenset[Verdict | str]
_RAISES = "raises"  # no further part is evaluated, and the request is not exempt
_ANY: _Possible = frozenset({True, False, None, _RAISES})


class Outlook(NamedTuple):
    """The possible verdicts of a predicate for the requests to a route."""

    possible: _Possible  # verdicts, and whether it may raise
    by: str  # the predicate, or the part of it that decides for all these requests
    on: tuple[str, ...]  # what the verdict depends on; empty if all requests get the same one


def verdict_on(predicate: Any, method: str, path: str) -> Verdict:  # noqa: ANN401 -- sync or async
    """Return the verdict for every request with this method and path; None if it depends on more."""
    if isinstance(predicate, Composable) and predicate.combine is not None:
        verdicts = [verdict_on(part, method, path) for part in predicate.flat]
        predicate = predicate.combine(*(lambda _, verdict=verdict: verdict for verdict in verdicts))
    if _is_dependency(predicate):
        return None
    request = _PartialRequest(method, path)
    try:
        result = predicate(request)
        verdict = verdict_of(_result_without_waiting(result) if inspect.isawaitable(result) else result)
    except Exception:  # noqa: BLE001 -- it reads more of the request, or fails
        return None
    return None if request.partial.was_missed else verdict


def outlook_on(
    predicate: Any,  # noqa: ANN401 -- sync or async
    method: str | None,
    template: str,
    *,
    hidden: bool = False,
) -> Outlook:
    """Return the possible verdicts for the requests to a route, except those with an ambiguous path.

    Args:
        predicate: The predicate.
        method: The method of the requests; None: any.
        template: Their path, with parameters in braces.
        hidden: Whether the app is hidden, so that its own `root_path` is unknown.
    """
    by = repr(predicate) if isinstance(predicate, Composable) else function_name(predicate)
    if not isinstance(predicate, Composable) or (predicate.combine is None and predicate.on is None):
        of_body = ["the body"] if is_async(predicate) and reads_body(predicate) else []
        return Outlook(_ANY, by, (f"function {by}", *of_body))
    if _is_dependency(predicate):
        return Outlook(_ANY, by, predicate.on or ())
    if predicate.combine is None:
        verdicts = _possible_verdicts(predicate, method, template, hidden=hidden)
        return Outlook(verdicts, by, () if len(verdicts) == 1 else predicate.on or ())
    parts = [outlook_on(part, method, template, hidden=hidden) for part in predicate.flat]
    if predicate.combine is not_:
        possible = frozenset(not each if isinstance(each, bool) else each for each in parts[0].possible)
    else:
        decisive = predicate.combine is any_of
        possible = frozenset({not decisive})
        for part in parts:
            possible = frozenset(_joined(first, then, decisive) for first in possible for then in part.possible)
        deciding = [part.by for part in parts if part.possible == {True}]
        by = deciding[0] if deciding and (decisive or len(parts) == 1) else by
    conditions = dict.fromkeys(each for part in parts for each in part.on)
    return Outlook(possible, by, () if len(possible) == 1 else tuple(conditions))


def _is_dependency(predicate: object) -> bool:
    """Return whether this is a `dependency(...)`: the only async built-in predicate that is not a combination."""
    return isinstance(predicate, AsyncBuiltInPredicate) and predicate.combine is None


def _joined(first: Verdict | str, then: Verdict | str, decisive: bool) -> Verdict | str:  # noqa: FBT001 -- a verdict
    """Return the result of a combinator from that of the parts so far, and that of the next part."""
    if first is decisive or first == _RAISES:
        return first
    if then is decisive or then == _RAISES:
        return then
    return None if first is None or then is None else not decisive


def _possible_verdicts(predicate: Composable, method: str | None, template: str, *, hidden: bool) -> _Possible:
    """Return the possible verdicts of a built-in predicate that is not a combination; none of these raises."""
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
    except KeyError:  # it reads more of the request
        return frozenset({True, False, None})


def paths_in(predicate: object) -> Iterator[tuple[str, bool]]:
    """Yield each path that a predicate or its parts name, and whether paths below it are included."""
    if isinstance(predicate, Composable):
        yield from ((path, predicate.below) for path in sorted(predicate.paths))
        for part in predicate.flat:
            yield from paths_in(part)


def _result_without_waiting(verdict: Awaitable[object]) -> object:
    try:
        next(iter(verdict.__await__()))
    except StopIteration as end:
        return end.value
    return None


class _PartialScope(dict[str, Any]):
    """A scope whose lookups raise `KeyError` for unknown keys instead of returning a default."""

    was_missed = False
    """Whether an unknown key was looked up."""

    def __missing__(self, key: str) -> NoReturn:
        self.was_missed = True
        raise KeyError(key)

    def get(self, key: str, default: object = None) -> Any:  # noqa: ANN401, ARG002 -- the signature of `dict.get`
        return self[key]

    setdefault = get

    def __contains__(self, key: object) -> bool:
        self.get(str(key))
        return True


class _PartialRequest(Request):
    """A request with at most a method and a path."""

    def __init__(self, method: str | None, path: str | None, *, hidden: bool = False) -> None:
        known = {"type": "http", "method": method, "path": path, "root_path": "", HIDDEN_APP: hidden}
        self.partial = _PartialScope({key: value for key, value in known.items() if value is not None})
        super().__init__(self.partial, self._receive_nothing)

    async def _receive_nothing(self) -> Any:  # noqa: ANN401 -- nothing
        return self.partial["body"]  # unknown

    @property
    def url(self) -> URL:
        """The path only."""
        return _PartialURL(self.partial)


class _PartialURL(URL):
    """A URL of which at most the path is known; anything else is looked up in the scope, which lacks it."""

    def __init__(self, scope: _PartialScope) -> None:
        self._scope = scope

    @property
    def path(self) -> str:
        """The path of the request."""
        return str(self._scope["path"])

    @property
    def components(self) -> Any:  # noqa: ANN401 -- nothing
        """Unknown."""
        return self._scope["headers"]

    def __str__(self) -> str:
        return str(self.components)


def template_matches(template: str, path: str, *, below: bool) -> bool:
    """Return whether a route with this path template can match a path or, with `below`, one below it."""
    if below and path == "/":
        return True
    for segment, other in zip_longest(template.strip("/").split("/"), path.strip("/").split("/")):
        if segment is None:
            return False
        if re.search(r"\{\w+:(?!(?:str|int|float|uuid)\})", segment):  # `path`, or the user's own convertor
            return True
        if other is None:
            return below
        if segment != other and not re.search(r"\{[^{}]*\}", segment):
            return False
    return not below or not path.endswith("/") or template.endswith("/")
