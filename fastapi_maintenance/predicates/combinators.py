"""`any_of`, `all_of` and `not_`, sync while all their parts are; and their units, `never` and `always`."""

import inspect
from collections.abc import Awaitable, Generator, Iterable
from functools import partial
from typing import Any, cast, overload

from starlette.requests import Request

from fastapi_maintenance._helpers.checks import check_callable
from fastapi_maintenance.predicates.verdicts import Verdict, verdict_of
from fastapi_maintenance.typing import AsyncPredicate, Predicate


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

    They are asked in their order until one says yes; else, where one says unknown, so does the result. It is async if
    one of them is.

    Raises:
        TypeError: A predicate is not callable.
    """
    return _composed("any_of", predicates, decisive=True)


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

    They are asked in their order until one says no; else, where one says unknown, so does the result. It is async if
    one of them is.

    Raises:
        TypeError: A predicate is not callable.
    """
    return _composed("all_of", predicates, decisive=False)


@overload
def not_(predicate: Predicate) -> Predicate: ...
@overload
def not_(predicate: AsyncPredicate) -> AsyncPredicate: ...
def not_(predicate: Predicate | AsyncPredicate) -> Predicate | AsyncPredicate:
    """Exempt what the predicate does not, so that maintenance closes only what it names.

    >>> from fastapi_maintenance import path_prefix
    >>> exempt = not_(path_prefix("/billing"))
    >>> exempt(get("/billing/7")), exempt(get("/items"))
    (False, True)

    Where the predicate says unknown, so does the result: a request in doubt is blocked.

    Raises:
        TypeError: The predicate is not callable.
    """
    check_callable("predicate", predicate)
    return _composed("not_", (predicate,), decisive=True, negate=True)


def _composed(
    name: str, parts: tuple[Predicate | AsyncPredicate, ...], *, decisive: bool, negate: bool = False
) -> Predicate | AsyncPredicate:
    """Join predicates by Kleene's three-valued logic: `or` where True is decisive, `and` where False is."""
    for part in parts:
        check_callable("predicates", part)

    def combine(verdicts: Iterable[Verdict]) -> Verdict:
        said = set(verdicts)
        verdict = decisive if decisive in said else None if None in said else not decisive
        return not verdict if negate and verdict is not None else verdict

    def ask(request: Request) -> Generator[Awaitable[Verdict], Verdict, Verdict]:
        verdicts: list[Verdict] = []
        for part in parts:
            said = part(request)
            verdicts.append(verdict_of((yield said) if inspect.isawaitable(said) else said))
            if verdicts[-1] is decisive:
                break
        return combine(verdicts)

    def combination(request: Request, /) -> Verdict | Awaitable[Verdict]:
        asking = ask(request)
        try:
            return _awaited(asking, next(asking))
        except StopIteration as end:
            return cast("Verdict", end.value)

    async def async_combination(request: Request, /) -> Verdict:
        verdict = combination(request)
        return await verdict if inspect.isawaitable(verdict) else verdict

    # A part that is not known to be async may return an awaitable, as a lambda can; `combination` then does so too.
    result: Any = async_combination if any(map(_is_async, parts)) else combination
    result.__name__ = result.__qualname__ = name
    result.composed = combine, parts
    return cast("Predicate | AsyncPredicate", result)


async def _awaited(asking: Generator[Awaitable[Verdict], Verdict, Verdict], said: Awaitable[Verdict]) -> Verdict:
    """Wait for a part, and each later one that has to be waited for."""
    try:
        while True:
            said = asking.send(await said)
    except StopIteration as end:
        return cast("Verdict", end.value)


def _is_async(part: object) -> bool:
    while isinstance(part, partial):
        part = part.func
    return inspect.iscoroutinefunction(part) or inspect.iscoroutinefunction(getattr(part, "__call__", None))  # noqa: B004 -- not whether it can be called, but how
