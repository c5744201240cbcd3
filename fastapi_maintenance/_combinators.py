"""`any_of`, `all_of` and `not_`: predicates made of predicates, sync while all their parts are."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, cast, overload

from starlette.requests import Request

from fastapi_maintenance._anatomy import Composition, composed
from fastapi_maintenance._checks import check_callable
from fastapi_maintenance.typing import AsyncPredicate, Predicate

__all__ = ["all_of", "any_of", "not_"]

_Part = Callable[[Request], bool | Awaitable[bool]]


@overload
def any_of(*predicates: Predicate) -> Predicate: ...  # type: ignore[overload-overlap]  # nothing but sync parts, or none: sync
@overload
def any_of(*predicates: Predicate | AsyncPredicate) -> AsyncPredicate: ...
def any_of(*predicates: Predicate | AsyncPredicate) -> Predicate | AsyncPredicate:
    """Exempt what at least one of the predicates exempts; `any_of()` is `never`.

    >>> from fastapi_maintenance import header_present, path_prefix
    >>> exempt = any_of(path_prefix("/health"), header_present("X-Admin"))
    >>> exempt(get("/health")), exempt(get("/items"))
    (True, False)

    They are asked in their order until one says yes. The result is async if one of them is.

    Raises:
        TypeError: A predicate is not callable.

    """
    return _combined("any_of", predicates, until=True)


@overload
def all_of(*predicates: Predicate) -> Predicate: ...  # type: ignore[overload-overlap]  # nothing but sync parts, or none: sync
@overload
def all_of(*predicates: Predicate | AsyncPredicate) -> AsyncPredicate: ...
def all_of(*predicates: Predicate | AsyncPredicate) -> Predicate | AsyncPredicate:
    """Exempt what every one of the predicates exempts; `all_of()` is `always`.

    >>> from fastapi_maintenance import path_prefix, safe_method
    >>> exempt = all_of(safe_method, not_(path_prefix("/ws")))
    >>> exempt(get("/items")), exempt(get("/ws/prices"))
    (True, False)

    They are asked in their order until one says no. The result is async if one of them is.

    Raises:
        TypeError: A predicate is not callable.

    """
    return _combined("all_of", predicates, until=False)


@overload
def not_(predicate: Predicate) -> Predicate: ...
@overload
def not_(predicate: AsyncPredicate) -> AsyncPredicate: ...
def not_(predicate: Predicate | AsyncPredicate) -> Predicate | AsyncPredicate:
    """Exempt what the predicate does not: `exempt=not_(path_prefix("/billing"))` closes only `/billing`.

    >>> from fastapi_maintenance import path_prefix
    >>> exempt = not_(path_prefix("/billing"))
    >>> exempt(get("/billing/7")), exempt(get("/items"))
    (False, True)

    Raises:
        TypeError: The predicate is not callable.

    """
    part: _Part = check_callable("predicate", predicate)

    def negation(request: Request, /) -> bool | Awaitable[bool]:
        verdict = part(request)
        return _negated(verdict) if inspect.isawaitable(verdict) else not verdict

    return _as_declared("not_", negation, (part,))


def _combined(name: Composition, parts: tuple[_Part, ...], *, until: bool) -> Predicate | AsyncPredicate:
    for part in parts:
        check_callable("predicates", part)

    def combination(request: Request, /) -> bool | Awaitable[bool]:
        for asked, part in enumerate(parts, start=1):
            verdict = part(request)
            if inspect.isawaitable(verdict):
                return _awaited(verdict, parts[asked:], request)
            if bool(verdict) is until:
                return until
        return not until

    async def _awaited(verdict: Awaitable[bool], rest: tuple[_Part, ...], request: Request) -> bool:
        if bool(await verdict) is until:
            return until
        for part in rest:
            answer = part(request)
            if bool(await answer if inspect.isawaitable(answer) else answer) is until:
                return until
        return not until

    return _as_declared(name, combination, parts)


async def _negated(verdict: Awaitable[bool]) -> bool:
    return not await verdict


def _as_declared(name: Composition, combination: _Part, parts: tuple[_Part, ...]) -> Predicate | AsyncPredicate:
    """Make the combination a coroutine function where a part is known to be one.

    A part that is not known to be one and still returns an awaitable, as a lambda can, makes the combination return
    an awaitable for that request.
    """

    async def async_combination(request: Request, /) -> bool:
        verdict = combination(request)
        return await verdict if inspect.isawaitable(verdict) else verdict

    result: Any = async_combination if any(map(_is_async, parts)) else combination
    result.__name__ = result.__qualname__ = name
    return cast("Predicate | AsyncPredicate", composed(name, parts, result))


def _is_async(part: object) -> bool:
    while isinstance(part, partial):
        part = part.func
    return inspect.iscoroutinefunction(part) or inspect.iscoroutinefunction(getattr(part, "__call__", None))  # noqa: B004 -- not whether it can be called, but how
