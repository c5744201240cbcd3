"""`any_of`, `all_of` and `not_`, their units, and the class of predicates that have them as operators."""

import inspect
from collections.abc import Awaitable, Callable, Iterable, Iterator
from functools import partial, update_wrapper
from typing import Any, NoReturn, TypeAlias, cast, overload

from starlette.requests import Request

from fastapi_maintenance._helpers.checks import check_callable, reject
from fastapi_maintenance.predicates.request import end_part
from fastapi_maintenance.typing import AsyncPredicate, Predicate

Verdict: TypeAlias = bool | None  # whether a request is exempt; None: unknown
_Part: TypeAlias = Predicate | AsyncPredicate
_Function: TypeAlias = Callable[[Request], object]
_Verdicts: TypeAlias = Verdict | Awaitable[Verdict]


class UnusablePredicateError(TypeError):
    """A predicate that can give no verdict, whatever the request is; this is logged once."""


def verdict_of(said: object) -> Verdict:
    """Return what a predicate said, if it is a verdict; raises `TypeError` for anything that merely counts as true."""
    if said is None or isinstance(said, bool):
        return said
    if inspect.iscoroutine(said):
        said.close()  # else there is a warning that nobody awaited it
    return reject("what a predicate returns", "True, False or None", said)


def function_name(part: object) -> str:
    """Return the name of a function or of a class of callable objects, without what it was given."""
    while isinstance(part, partial):
        part = part.func
    return str(getattr(part, "__name__", type(part).__name__))


def _shown(part: object) -> str:
    if part is ...:
        return "..."
    return repr(part) if isinstance(part, (str, Composable)) else function_name(part)


class Composable:
    """A predicate that knows what it is made of.

    Args:
        ask: The function that it is around.
        name: The name of the factory that made it; None: it is that function itself.
        args: The arguments of the factory as `repr` shows them; `...` for a secret.
        on: What of a request it depends on, such as `"header X-Admin-Key"`; None: that is not known.
        paths: The paths that it names.
        below: Whether it covers what lies under them too.
        combine: The combinator that composed it, if it is a combination.
        parts: What that composed.
    """

    def __init__(  # noqa: PLR0913 -- what the library's own factories say of it
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
        self._shown = f"{name}({', '.join(map(_shown, args or parts))})" if name else self.__name__

    def __repr__(self) -> str:
        return self._shown

    def __reduce__(self) -> str:  # like a function, it is copied and pickled by its name
        return self.__qualname__

    def __bool__(self) -> NoReturn:
        msg = (
            f"{self!r} has no truth value, since `or`, `and` and `not` would leave out a part of it: use any_of(a, b) "
            "or a | b, all_of(a, b) or a & b, not_(a) or ~a"
        )
        raise TypeError(msg)


class BuiltInPredicate(Composable):
    """A predicate of this library: `a | b` is `any_of(a, b)`, `a & b` is `all_of(a, b)`, and `~a` is `not_(a)`.

    >>> from fastapi_maintenance import header_present, path_prefix
    >>> exempt = path_prefix("/health") | header_present("X-Admin")
    >>> exempt(get("/health")), exempt(get("/items"))
    (True, False)

    It has no truth value: `a or b` would be `a` alone, so that is a `TypeError`.
    """

    def __call__(self, request: Request, /) -> Verdict:
        """Return whether the request is exempt; None if that is unknown."""
        return self.ask(request)  # type: ignore[no-any-return]  # an awaitable only if a part surprises by one

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
    """The same with an async part, so that its answer has to be awaited."""

    async def __call__(self, request: Request, /) -> Verdict:
        """Return whether the request is exempt; None if that is unknown."""
        said: _Verdicts = self.ask(request)
        return said if said is None or isinstance(said, bool) else await _answer(request, said)

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
def always(request: Request, /) -> bool:  # noqa: ARG001 -- a predicate is given the request, used or not
    """Exempt every request: the unit of `all_of`.

    >>> always(get("/"))
    True
    """
    return True


@partial(BuiltInPredicate, on=())
def never(request: Request, /) -> bool:  # noqa: ARG001 -- a predicate is given the request, used or not
    """Exempt no request: the unit of `any_of`.

    >>> never(get("/"))
    False
    """
    return False


@overload
def any_of(*predicates: Predicate) -> BuiltInPredicate: ...  # type: ignore[overload-overlap]  # nothing but sync parts, or none: sync
@overload
def any_of(*predicates: Predicate | AsyncPredicate) -> AsyncBuiltInPredicate: ...
def any_of(*predicates: Predicate | AsyncPredicate) -> BuiltInPredicate | AsyncBuiltInPredicate:
    """Exempt what at least one of the predicates exempts; `any_of()` is `never`, and `any_of(a, b)` is `a | b`.

    >>> from fastapi_maintenance import header_present, path_prefix
    >>> exempt = any_of(path_prefix("/health"), header_present("X-Admin"))
    >>> exempt(get("/health")), exempt(get("/items"))
    (True, False)

    They are asked in their order until one says yes; else, where one says unknown, so does the result. It is async if
    one of them is.

    Raises:
        TypeError: A predicate is not callable.
    """
    return _composed(any_of, predicates, decisive=True)


@overload
def all_of(*predicates: Predicate) -> BuiltInPredicate: ...  # type: ignore[overload-overlap]  # nothing but sync parts, or none: sync
@overload
def all_of(*predicates: Predicate | AsyncPredicate) -> AsyncBuiltInPredicate: ...
def all_of(*predicates: Predicate | AsyncPredicate) -> BuiltInPredicate | AsyncBuiltInPredicate:
    """Exempt what every one of the predicates exempts; `all_of()` is `always`, and `all_of(a, b)` is `a & b`.

    >>> from fastapi_maintenance import path_prefix, safe_method
    >>> exempt = all_of(safe_method, not_(path_prefix("/ws")))
    >>> exempt(get("/items")), exempt(get("/ws/prices"))
    (True, False)

    They are asked in their order until one says no; else, where one says unknown, so does the result. It is async if
    one of them is.

    Raises:
        TypeError: A predicate is not callable.
    """
    return _composed(all_of, predicates, decisive=False)


@overload
def not_(predicate: Predicate) -> BuiltInPredicate: ...
@overload
def not_(predicate: AsyncPredicate) -> AsyncBuiltInPredicate: ...
def not_(predicate: Predicate | AsyncPredicate) -> BuiltInPredicate | AsyncBuiltInPredicate:
    """Exempt what the predicate does not, so that maintenance closes only what it names; `not_(a)` is `~a`.

    >>> from fastapi_maintenance import path_prefix
    >>> exempt = not_(path_prefix("/billing"))
    >>> exempt(get("/billing/7")), exempt(get("/items"))
    (False, True)

    Where the predicate says unknown, so does the result: a request in doubt is blocked.

    Raises:
        TypeError: The predicate is not callable.
    """
    part = _function_of(check_callable("predicate", predicate))

    async def opposite_of(request: Request, said: Awaitable[object]) -> Verdict:
        verdict = await _answer(request, said)
        return None if verdict is None else not verdict

    def ask(request: Request) -> _Verdicts:
        said = part(request)
        if said is None or isinstance(said, bool):
            return None if said is None else not said
        return opposite_of(request, said) if inspect.isawaitable(said) else verdict_of(said)

    return _kind_of((predicate,))(ask, "not_", combine=not_, parts=(predicate,))


def _composed(
    combine: Callable[..., Any], parts: tuple[_Part, ...], *, decisive: bool
) -> BuiltInPredicate | AsyncBuiltInPredicate:
    """Join predicates by Kleene's three-valued logic: `or` where True is decisive, `and` where False is."""
    functions = [_function_of(check_callable("predicates", part)) for part in parts]

    def ask(request: Request, rest: Iterator[_Function] | None = None, verdict: Verdict = not decisive) -> _Verdicts:
        rest = iter(functions) if rest is None else rest
        for part in rest:
            said = part(request)
            if said is decisive:
                return decisive
            if said is None:
                verdict = None
            elif not isinstance(said, bool):
                return go_on(request, rest, verdict, said) if inspect.isawaitable(said) else verdict_of(said)
        return verdict

    async def go_on(
        request: Request, rest: Iterator[_Function], verdict: Verdict, awaited: Awaitable[object]
    ) -> Verdict:
        """Wait for a part, and ask the rest."""
        said = await _answer(request, awaited)
        if said is decisive:
            return decisive
        later = ask(request, rest, None if said is None else verdict)
        return later if later is None or isinstance(later, bool) else await later

    return _kind_of(parts)(ask, combine.__name__, combine=combine, parts=parts)


async def _answer(request: Request, awaited: Awaitable[object]) -> Verdict:
    """Return what an async part says; None if it asked for what cannot be had of this request."""
    try:
        said = verdict_of(await awaited)
    except Exception:
        if end_part(request):
            return None
        raise
    return None if end_part(request) else said


def _function_of(part: _Part) -> _Function:
    """Return what is called for a part: the function itself, which saves a call."""
    return part.ask if isinstance(part, Composable) else part


def _kind_of(parts: Iterable[_Part]) -> type[BuiltInPredicate | AsyncBuiltInPredicate]:
    return AsyncBuiltInPredicate if any(map(is_async, parts)) else BuiltInPredicate


def is_async(part: object) -> bool:
    """Return whether a predicate is known to return what has to be awaited."""
    while isinstance(part, partial):
        part = part.func
    return inspect.iscoroutinefunction(part) or inspect.iscoroutinefunction(getattr(part, "__call__", None))  # noqa: B004 -- not whether it can be called, but how
