"""`any_of`, `all_of` and `not_`, their identity elements, and the predicate classes with these operators."""

import inspect
from collections.abc import Awaitable, Callable, Iterable, Iterator
from functools import partial, update_wrapper
from itertools import chain
from typing import Any, NoReturn, TypeAlias, cast, overload

from starlette.requests import Request

from fastapi_maintenance._helpers.checks import check_callable, reject
from fastapi_maintenance.predicates.request_body import PredicateRequest
from fastapi_maintenance.typing import AsyncPredicate, Predicate

Verdict: TypeAlias = bool | None  # whether a request is exempt; None: unknown
_Part: TypeAlias = Predicate | AsyncPredicate
_Verdicts: TypeAlias = Verdict | Awaitable[Verdict]


class UnusablePredicateError(TypeError):
    """A predicate that cannot give a verdict for any request; logged once."""


def verdict_of(result: object) -> Verdict:
    """Return the result of a predicate if it is a verdict. Raise `TypeError` for any other value, even if truthy."""
    if result is None or isinstance(result, bool):
        return result
    if inspect.iscoroutine(result):
        result.close()  # prevents the warning that it was never awaited
    return reject("the result of a predicate", "True, False or None", result)


def function_name(part: object) -> str:
    """Return the name of a function, without its arguments, or of the class of a callable object."""
    while isinstance(part, partial):
        part = part.func
    return str(getattr(part, "__name__", type(part).__name__))


def _shown(part: object) -> str:
    if part is ...:
        return "..."
    return repr(part) if isinstance(part, (str, Composable)) else function_name(part)


class Composable:
    """A predicate that knows its parts.

    Args:
        ask: The wrapped function.
        name: The name of the factory that created it; None: the name of the function.
        args: The arguments of the factory as `repr` shows them; `...` for a secret.
        on: What it depends on in a request, such as `"header X-Admin-Key"`; None: not known.
        paths: The paths that it names.
        below: Whether it also covers paths below them.
        combine: The combinator that composed it, if it is a combination.
        parts: The composed predicates.
        flat: `parts`, with those of the same combinator expanded: `(a, b, c)` for `a | b | c`.
    """

    def __init__(  # noqa: PLR0913 -- one keyword for each property
        self,
        ask: Callable[[Request], Any],
        name: str | None = None,
        *,
        args: tuple[object, ...] = (),
        on: tuple[str, ...] | None = None,
        paths: frozenset[str] = frozenset(),
        below: bool = False,
        combine: Callable[..., Any] | None = None,
        parts: tuple[_Part, ...] = (),
        flat: tuple[_Part, ...] = (),
    ) -> None:
        update_wrapper(cast("Any", self), ask)
        self.__name__: str = name or cast("Any", ask).__name__
        self.__qualname__ = self.__name__
        self.ask: Callable[[Request], Any] = ask
        self.on: tuple[str, ...] | None = on
        self.paths: frozenset[str] = paths
        self.below: bool = below
        self.combine: Callable[..., Any] | None = combine
        self.parts: tuple[_Part, ...] = parts
        self.flat: tuple[_Part, ...] = flat or parts
        self._shown = f"{name}({', '.join(map(_shown, args or parts))})" if name else self.__name__

    def __repr__(self) -> str:
        return self._shown

    def __reduce__(self) -> str:  # copied and pickled by its name, like a function
        return self.__qualname__

    def __bool__(self) -> NoReturn:
        msg = (
            f"{self!r} has no truth value, since `or`, `and` and `not` would drop a part of it: use any_of(a, b) or "
            "a | b, all_of(a, b) or a & b, not_(a) or ~a"
        )
        raise TypeError(msg)


class BuiltInPredicate(Composable):
    """A predicate of this library: `a | b` is `any_of(a, b)`, `a & b` is `all_of(a, b)`, and `~a` is `not_(a)`.

    >>> from fastapi_maintenance import header_present, path_prefix
    >>> exempt = path_prefix("/health") | header_present("X-Admin")
    >>> exempt(get("/health")), exempt(get("/items"))
    (True, False)

    It has no truth value: `a or b` raises a `TypeError`, since it would be just `a`.
    """

    def __call__(self, request: Request, /) -> Verdict:
        """Return whether the request is exempt; None if that is unknown."""
        return self.ask(request)  # type: ignore[no-any-return]  # an awaitable if a sync part unexpectedly returns one

    @overload
    def __or__(self, other: Predicate, /) -> "BuiltInPredicate": ...
    @overload
    def __or__(self, other: AsyncPredicate, /) -> "AsyncBuiltInPredicate": ...
    def __or__(self, other: _Part, /) -> "BuiltInPredicate | AsyncBuiltInPredicate":
        return any_of(self, other)

    @overload
    def __ror__(self, other: Predicate, /) -> "BuiltInPredicate": ...
    @overload
    def __ror__(self, other: AsyncPredicate, /) -> "AsyncBuiltInPredicate": ...
    def __ror__(self, other: _Part, /) -> "BuiltInPredicate | AsyncBuiltInPredicate":
        return any_of(other, self)

    @overload
    def __and__(self, other: Predicate, /) -> "BuiltInPredicate": ...
    @overload
    def __and__(self, other: AsyncPredicate, /) -> "AsyncBuiltInPredicate": ...
    def __and__(self, other: _Part, /) -> "BuiltInPredicate | AsyncBuiltInPredicate":
        return all_of(self, other)

    @overload
    def __rand__(self, other: Predicate, /) -> "BuiltInPredicate": ...
    @overload
    def __rand__(self, other: AsyncPredicate, /) -> "AsyncBuiltInPredicate": ...
    def __rand__(self, other: _Part, /) -> "BuiltInPredicate | AsyncBuiltInPredicate":
        return all_of(other, self)

    def __invert__(self) -> "BuiltInPredicate":
        return not_(self)


class AsyncBuiltInPredicate(Composable):
    """A `BuiltInPredicate` with an async part: its result must be awaited."""

    async def __call__(self, request: Request, /) -> Verdict:
        """Return whether the request is exempt; None if that is unknown."""
        result: _Verdicts = self.ask(request)
        return result if result is None or isinstance(result, bool) else await _awaited(request, result)

    def __or__(self, other: _Part, /) -> "AsyncBuiltInPredicate":
        return any_of(self, other)

    def __ror__(self, other: _Part, /) -> "AsyncBuiltInPredicate":
        return any_of(other, self)

    def __and__(self, other: _Part, /) -> "AsyncBuiltInPredicate":
        return all_of(self, other)

    def __rand__(self, other: _Part, /) -> "AsyncBuiltInPredicate":
        return all_of(other, self)

    def __invert__(self) -> "AsyncBuiltInPredicate":
        return not_(self)


@partial(BuiltInPredicate, on=())
def always(request: Request, /) -> bool:  # noqa: ARG001 -- the signature of predicates
    """Exempt every request: the identity element of `all_of`.

    >>> always(get("/"))
    True
    """
    return True


@partial(BuiltInPredicate, on=())
def never(request: Request, /) -> bool:  # noqa: ARG001 -- the signature of predicates
    """Exempt no request: the identity element of `any_of`.

    >>> never(get("/"))
    False
    """
    return False


@overload
def any_of(*predicates: Predicate) -> BuiltInPredicate: ...  # type: ignore[overload-overlap]  # sync if all parts are, or there are none
@overload
def any_of(*predicates: Predicate | AsyncPredicate) -> AsyncBuiltInPredicate: ...
def any_of(*predicates: Predicate | AsyncPredicate) -> BuiltInPredicate | AsyncBuiltInPredicate:
    """Exempt requests that at least one predicate exempts; `any_of()` is `never`, and `any_of(a, b)` is `a | b`.

    >>> from fastapi_maintenance import header_present, path_prefix
    >>> exempt = any_of(path_prefix("/health"), header_present("X-Admin"))
    >>> exempt(get("/health")), exempt(get("/items"))
    (True, False)

    The predicates are evaluated in order until one returns True. If none does and one is unknown, so is the result. The
    result is async if one of the predicates is.

    Raises:
        TypeError: A predicate is not callable.
    """
    return _composed(any_of, predicates, decisive=True)


@overload
def all_of(*predicates: Predicate) -> BuiltInPredicate: ...  # type: ignore[overload-overlap]  # sync if all parts are, or there are none
@overload
def all_of(*predicates: Predicate | AsyncPredicate) -> AsyncBuiltInPredicate: ...
def all_of(*predicates: Predicate | AsyncPredicate) -> BuiltInPredicate | AsyncBuiltInPredicate:
    """Exempt requests that every predicate exempts; `all_of()` is `always`, and `all_of(a, b)` is `a & b`.

    >>> from fastapi_maintenance import path_prefix, safe_method
    >>> exempt = all_of(safe_method, not_(path_prefix("/ws")))
    >>> exempt(get("/items")), exempt(get("/ws/prices"))
    (True, False)

    The predicates are evaluated in order until one returns False. If none does and one is unknown, so is the result.
    The result is async if one of the predicates is.

    Raises:
        TypeError: A predicate is not callable.
    """
    return _composed(all_of, predicates, decisive=False)


@overload
def not_(predicate: Predicate) -> BuiltInPredicate: ...
@overload
def not_(predicate: AsyncPredicate) -> AsyncBuiltInPredicate: ...
def not_(predicate: Predicate | AsyncPredicate) -> BuiltInPredicate | AsyncBuiltInPredicate:
    """Exempt requests that the predicate does not, so that maintenance blocks only what it matches; `not_(a)` is `~a`.

    >>> from fastapi_maintenance import path_prefix
    >>> exempt = not_(path_prefix("/billing"))
    >>> exempt(get("/billing/7")), exempt(get("/items"))
    (False, True)

    If the predicate is unknown, so is the result: a request in doubt is blocked.

    Raises:
        TypeError: The predicate is not callable.
    """
    check_callable("predicate", predicate)

    async def opposite_of(request: Request, result: Awaitable[object]) -> Verdict:
        verdict = await _awaited(request, result)
        return None if verdict is None else not verdict

    def ask(request: Request) -> _Verdicts:
        result: object = predicate(request)
        if result is None or isinstance(result, bool):
            return None if result is None else not result
        return opposite_of(request, result) if inspect.isawaitable(result) else verdict_of(result)

    return _kind_of((predicate,))(ask, "not_", combine=not_, parts=(predicate,))


def _composed(
    combine: Callable[..., Any], parts: tuple[_Part, ...], *, decisive: bool
) -> BuiltInPredicate | AsyncBuiltInPredicate:
    """Combine predicates by Kleene's three-valued logic: `or` if True is decisive, `and` if False is."""
    for part in parts:
        check_callable("predicates", part)
    # A thousand predicates that `|` has joined would exceed the depth of Python's stack.
    composed = [part.flat if isinstance(part, Composable) and part.combine is combine else (part,) for part in parts]
    flat = tuple(chain.from_iterable(composed))

    def ask(request: Request, rest: Iterator[_Part] | None = None, verdict: Verdict = not decisive) -> _Verdicts:
        rest = iter(flat) if rest is None else rest
        for part in rest:
            result: object = part(request)
            if result is decisive:
                return decisive
            if result is None:
                verdict = None
            elif not isinstance(result, bool):
                return go_on(request, rest, verdict, result) if inspect.isawaitable(result) else verdict_of(result)
        return verdict

    async def go_on(request: Request, rest: Iterator[_Part], verdict: Verdict, awaited: Awaitable[object]) -> Verdict:
        """Await a part, then evaluate the rest."""
        result = await _awaited(request, awaited)
        if result is decisive:
            return decisive
        later = ask(request, rest, None if result is None else verdict)
        return later if later is None or isinstance(later, bool) else await later

    return _kind_of(parts)(ask, combine.__name__, combine=combine, parts=parts, flat=flat)


async def _awaited(request: Request, result: Awaitable[object]) -> Verdict:
    """Return the verdict of an async part; None if it needed something that this request cannot provide."""
    if not isinstance(request, PredicateRequest):  # in a unit test, or created by another predicate
        return verdict_of(await result)
    outer, request.missed, request.position = (request.missed, request.position), False, 0
    try:
        verdict = verdict_of(await result)
    except Exception:
        if request.missed:
            return None
        raise
    else:
        return None if request.missed else verdict
    finally:
        request.missed, request.position = outer  # the outer part may go on


def _kind_of(parts: Iterable[_Part]) -> type[BuiltInPredicate | AsyncBuiltInPredicate]:
    return AsyncBuiltInPredicate if any(map(is_async, parts)) else BuiltInPredicate


def is_async(part: object) -> bool:
    """Return whether a predicate is known to return an awaitable."""
    while isinstance(part, partial):
        part = part.func
    return inspect.iscoroutinefunction(part) or inspect.iscoroutinefunction(getattr(part, "__call__", None))  # noqa: B004 -- whether calling it is async
