"""`any_of`, `all_of` and `not_`: predicates made of predicates, sync while all their parts are."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, cast, overload

from starlette.requests import Request

from fastapi_maintenance._helpers.checks import check_callable
from fastapi_maintenance.predicates.verdicts import Composition, Verdict, composed, joined, negated, verdict_of
from fastapi_maintenance.typing import AsyncPredicate, Predicate

__all__ = ["all_of", "any_of", "not_"]

_Part = Callable[[Request], Verdict | Awaitable[Verdict]]


@overload
def any_of(*predicates: Predicate) -> Predicate: ...  # type: ignore[overload-overlap]  # nothing but sync parts, or none: sync
@overload
def any_of(*predicates: Predicate | AsyncPredicate) -> AsyncPredicate: ...
def any_of(*predicates: Predicate | AsyncPredicate) -> Predicate | AsyncPredicate:
    """Exempt what at least one of the predicates exempts; `any_of()` is `never`.

    Where none does and one says unknown, the result is unknown.

    >>> from fastapi_maintenance import header_present, path_prefix
    >>> exempt = any_of(path_prefix("/health"), header_present("X-Admin"))
    >>> exempt(get("/health")), exempt(get("/items"))
    (True, False)

    They are asked in their order until one says yes. The result is async if one of them is.

    Raises:
        TypeError: A predicate is not callable.

    """
    return _combined("any_of", predicates, decisive=True)


@overload
def all_of(*predicates: Predicate) -> Predicate: ...  # type: ignore[overload-overlap]  # nothing but sync parts, or none: sync
@overload
def all_of(*predicates: Predicate | AsyncPredicate) -> AsyncPredicate: ...
def all_of(*predicates: Predicate | AsyncPredicate) -> Predicate | AsyncPredicate:
    """Exempt what every one of the predicates exempts; `all_of()` is `always`.

    Where none says no and one says unknown, the result is unknown.

    >>> from fastapi_maintenance import path_prefix, safe_method
    >>> exempt = all_of(safe_method, not_(path_prefix("/ws")))
    >>> exempt(get("/items")), exempt(get("/ws/prices"))
    (True, False)

    They are asked in their order until one says no. The result is async if one of them is.

    Raises:
        TypeError: A predicate is not callable.

    """
    return _combined("all_of", predicates, decisive=False)


@overload
def not_(predicate: Predicate) -> Predicate: ...
@overload
def not_(predicate: AsyncPredicate) -> AsyncPredicate: ...
def not_(predicate: Predicate | AsyncPredicate) -> Predicate | AsyncPredicate:
    """Exempt what the predicate does not: `exempt=not_(path_prefix("/billing"))` closes only `/billing`.

    Where the predicate says unknown, so does the result: a request in doubt is blocked.

    >>> from fastapi_maintenance import path_prefix
    >>> exempt = not_(path_prefix("/billing"))
    >>> exempt(get("/billing/7")), exempt(get("/items"))
    (False, True)

    Raises:
        TypeError: The predicate is not callable.

    """
    part: _Part = check_callable("predicate", predicate)

    def negation(request: Request, /) -> Verdict | Awaitable[Verdict]:
        said = part(request)
        return _negated(said) if inspect.isawaitable(said) else negated(verdict_of(said))

    return _as_declared("not_", negation, (part,))


def _combined(name: Composition, parts: tuple[_Part, ...], *, decisive: bool) -> Predicate | AsyncPredicate:
    for part in parts:
        check_callable("predicates", part)

    def combination(request: Request, /) -> Verdict | Awaitable[Verdict]:
        verdict: Verdict = not decisive
        for asked, part in enumerate(parts, start=1):
            said = part(request)
            if inspect.isawaitable(said):
                return _awaited(verdict, said, parts[asked:], request)
            verdict = joined(verdict, verdict_of(said), decisive=decisive)
            if verdict is decisive:
                break
        return verdict

    async def _awaited(
        verdict: Verdict, said: Awaitable[Verdict], rest: tuple[_Part, ...], request: Request
    ) -> Verdict:
        verdict = joined(verdict, verdict_of(await said), decisive=decisive)
        for part in rest:
            if verdict is decisive:
                break
            answer = part(request)
            answer = await answer if inspect.isawaitable(answer) else answer
            verdict = joined(verdict, verdict_of(answer), decisive=decisive)
        return verdict

    return _as_declared(name, combination, parts)


async def _negated(said: Awaitable[Verdict]) -> Verdict:
    return negated(verdict_of(await said))


def _as_declared(name: Composition, combination: _Part, parts: tuple[_Part, ...]) -> Predicate | AsyncPredicate:
    """Make the combination a coroutine function where a part is known to be one.

    A part that is not known to be one and still returns an awaitable, as a lambda can, makes the combination return
    an awaitable for that request.
    """

    async def async_combination(request: Request, /) -> Verdict:
        verdict = combination(request)
        return await verdict if inspect.isawaitable(verdict) else verdict

    result: Any = async_combination if any(map(_is_async, parts)) else combination
    result.__name__ = result.__qualname__ = name
    return cast("Predicate | AsyncPredicate", composed(name, parts, result))


def _is_async(part: object) -> bool:
    while isinstance(part, partial):
        part = part.func
    return inspect.iscoroutinefunction(part) or inspect.iscoroutinefunction(getattr(part, "__call__", None))  # noqa: B004 -- not whether it can be called, but how
