"""Marks on endpoints: maintenance is always on, or always off, for this one.

A mark is an attribute of the function itself, so its order and that of `@app.get` do not matter. It applies to the
routes of this function, not to their paths. `_routing/finder.py` finds the route of a request.
"""

from collections.abc import Iterator
from functools import partial
from types import FunctionType, MethodType
from typing import Any, TypeVar
from weakref import WeakValueDictionary, ref

from fastapi_maintenance._helpers.checks import check_callable
from fastapi_maintenance._helpers.process import alive, remembered

__all__ = [
    "endpoints_in",
    "force_maintenance_mode_off",
    "force_maintenance_mode_on",
    "has_forced_on",
    "mark_of",
    "marked",
    "marks_put",
]

_Endpoint = TypeVar("_Endpoint")
_MARK = "__fastapi_maintenance_mark__"
_METHOD_MARKS = "__fastapi_maintenance_method_marks__"

_forced_on: list[bool] = remembered([])
_marks_put = [0]
_marked: WeakValueDictionary[int, Any] = remembered(WeakValueDictionary())


class _Mark:
    """A mark on an endpoint. Unpickling creates it anew, so that `has_forced_on` knows about it in this process."""

    def __init__(self, forced_on: bool) -> None:  # noqa: FBT001 -- its only argument
        self.forced_on = forced_on
        _forced_on.extend([True] * (forced_on and not _forced_on))

    def __reduce__(self) -> tuple[type["_Mark"], tuple[bool]]:
        return _Mark, (self.forced_on,)


def force_maintenance_mode_on(endpoint: _Endpoint) -> _Endpoint:
    """Block the endpoint at all times, whatever the switch says and whoever makes the request.

    >>> @force_maintenance_mode_on
    ... def retired() -> str:
    ...     return "never again"

    Returns:
        The same endpoint.

    Raises:
        TypeError: The endpoint is not callable, or is an object that cannot carry a mark.
    """
    return _put(endpoint, forced_on=True)


def force_maintenance_mode_off(endpoint: _Endpoint) -> _Endpoint:
    """Keep the endpoint open at all times.

    >>> @force_maintenance_mode_off
    ... def status() -> str:
    ...     return "always available"

    Returns:
        The same endpoint.

    Raises:
        TypeError: The endpoint is not callable, or is an object that cannot carry a mark.
    """
    return _put(endpoint, forced_on=False)


def has_forced_on() -> bool:
    """Return whether any endpoint of this process is forced on. Otherwise routes matter only during maintenance."""
    return bool(_forced_on)


def marks_put() -> int:
    """Return how many times this process has marked an endpoint."""
    return _marks_put[0]


def marked() -> list[Any]:
    """Return the marked objects of this process that still exist."""
    return [thing for _, thing in alive(_marked)]


def mark_of(endpoint: object) -> bool | None:
    """Return True if the endpoint is forced on, False if it is forced off, None if it has no mark.

    The outermost mark counts: that of the endpoint, else that of the function behind it, if the endpoint is a partial,
    a method, a callable object or a wrapper.
    """
    if isinstance(endpoint, FunctionType) and not vars(endpoint):  # like nearly every endpoint
        return None
    marks = (_mark_on(each) for each in _chain_of(endpoint))
    return next((mark for mark in marks if mark is not None), None)


def endpoints_in(endpoint: object) -> Iterator[object]:
    """Yield each object whose mark would count for this endpoint or for one of its methods."""
    for each in _chain_of(endpoint):
        yield each
        for kind in each.__mro__ if isinstance(each, type) else ():
            yield from vars(kind).values()


def _chain_of(endpoint: object) -> Iterator[object]:
    seen: set[int] = set()
    while endpoint is not None and id(endpoint) not in seen:
        seen.add(id(endpoint))
        yield endpoint
        endpoint = _inner(endpoint)


def _put(endpoint: _Endpoint, *, forced_on: bool) -> _Endpoint:
    # Attribute access on the class returns the function, not the descriptor.
    thing: Any = endpoint.__func__ if isinstance(endpoint, (staticmethod, classmethod)) else endpoint
    check_callable("endpoint", thing)
    try:
        if isinstance(thing, MethodType):
            # A bound method has no attributes of its own, and all instances share its function.
            marks = vars(thing.__self__).get(_METHOD_MARKS, {})
            setattr(thing.__self__, _METHOD_MARKS, {**marks, thing.__func__: _Mark(forced_on)})
        else:
            ref(thing)  # fails if the thing cannot be in `_marked`
            setattr(thing, _MARK, _Mark(forced_on))
            _marked[id(thing)] = thing
        _marks_put[0] += 1
    except (AttributeError, TypeError):
        msg = f"endpoint must be able to carry a mark, got {thing!r}: mark a function that calls it"
        raise TypeError(msg) from None
    return endpoint


def _mark_on(endpoint: Any) -> bool | None:  # noqa: ANN401 -- anything can be an endpoint
    mark = getattr(endpoint, _MARK, None)
    if isinstance(endpoint, MethodType):
        owner = endpoint.__self__
        for each in reversed(owner.__mro__) if isinstance(owner, type) else [owner]:
            marks = getattr(each, _METHOD_MARKS, None)
            mark = marks.get(endpoint.__func__, mark) if isinstance(marks, dict) else mark
    return mark.forced_on if isinstance(mark, _Mark) else None


def _inner(endpoint: Any) -> Any:  # noqa: ANN401 -- anything can be an endpoint
    if isinstance(endpoint, partial):
        return endpoint.func
    wrapped = getattr(endpoint, "__wrapped__", None)
    if wrapped is not None:
        return wrapped
    is_object = not isinstance(endpoint, (type, FunctionType))
    return getattr(type(endpoint), "__call__", None) if is_object else None  # noqa: B004 -- for its function
