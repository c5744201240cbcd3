"""What a predicate is made of, and the logic of verdicts: of a request, and of all requests of one method and path."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Iterator
from functools import partial, reduce
from types import SimpleNamespace
from typing import Any, Literal, NoReturn, TypeVar, cast

from starlette.datastructures import URL
from starlette.requests import Request

from fastapi_maintenance._helpers.checks import reject
from fastapi_maintenance._helpers.scope import HIDDEN_APP

__all__ = [
    "Composition",
    "Verdict",
    "composed",
    "joined",
    "negated",
    "on_paths",
    "paths_in",
    "verdict_of",
    "verdict_on",
]

_P = TypeVar("_P")
Composition = Literal["any_of", "all_of", "not_"]
Verdict = bool | None
"""Whether a request is exempt; None: unknown."""


def composed(how: Composition, parts: tuple[object, ...], predicate: _P) -> _P:
    """Return the predicate, which now tells what it is composed of."""
    vars(predicate)["composed"] = how, parts
    return predicate


def on_paths(paths: frozenset[str], predicate: _P, *, prefixes: bool) -> _P:
    """Return the predicate, which now tells the paths that it is about, or the prefixes of paths."""
    vars(predicate)["paths"] = paths, prefixes
    return predicate


def paths_in(predicate: object) -> Iterator[tuple[str, bool]]:
    """Yield each path that was given to a predicate or its parts, and whether what lies under it is meant too."""
    paths, prefixes = getattr(predicate, "paths", ((), False))
    for path in sorted(paths):
        yield path, prefixes
    for part in _composition(predicate)[1]:
        yield from paths_in(part)


def joined(one: Verdict, other: Verdict, *, decisive: bool) -> Verdict:
    """Return what two verdicts come to in Kleene's three-valued logic: `or` where True is decisive, `and` where False.

    >>> joined(None, True, decisive=True), joined(None, True, decisive=False)
    (True, None)
    """
    if one is decisive or other is decisive:
        return decisive
    return None if one is None or other is None else not decisive


def negated(verdict: Verdict) -> Verdict:
    """Return the opposite of a verdict; that of unknown is unknown."""
    return None if verdict is None else not verdict


def verdict_of(said: object) -> Verdict:
    """Return what a predicate said, if it is a verdict; raises `TypeError` for anything that merely counts as true."""
    if said is None or isinstance(said, bool):
        return said
    if inspect.iscoroutine(said):
        said.close()  # else there is a warning that nobody awaited it
    return reject("what a predicate returns", "True, False or None", said)


def verdict_on(predicate: Any, method: str, path: str) -> Verdict:  # noqa: ANN401 -- sync or async
    """Return what a predicate says to all requests of this method and path; None where it depends on more."""
    how, parts = _composition(predicate)
    if how is None:
        return _verdict_on_outline(predicate, method, path)
    verdicts = (verdict_on(part, method, path) for part in parts)
    if how == "not_":
        return negated(next(verdicts))
    decisive = how == "any_of"
    so_far: Verdict = not decisive
    return reduce(partial(joined, decisive=decisive), verdicts, so_far)


def _composition(predicate: object) -> tuple[Composition | None, tuple[object, ...]]:
    composition: tuple[Composition | None, tuple[object, ...]] = getattr(predicate, "composed", (None, ()))
    return composition


def _verdict_on_outline(predicate: Any, method: str, path: str) -> Verdict:  # noqa: ANN401 -- sync or async
    try:
        known = {"type": "http", "method": method, "path": path, "root_path": "", HIDDEN_APP: False}
        said = predicate(_Outline(known))
        return verdict_of(_at_once(said) if inspect.isawaitable(said) else said)
    except Exception:  # noqa: BLE001 -- it wants to know more, or fails
        return None


def _at_once(verdict: Awaitable[object]) -> object:
    steps = verdict.__await__()
    try:
        next(steps)
    except StopIteration as end:
        return end.value
    cast("Any", steps).close()
    raise _TellsNothingMoreError


class _TellsNothingMoreError(Exception):
    """A predicate looks at more than the method and the path."""


class _OutlineScope(dict[str, Any]):
    """A scope that owns up to what it does not know, where others give a default."""

    def get(self, key: str, default: object = None) -> Any:  # noqa: ANN401, ARG002 -- as of any scope
        return self[key]

    def __contains__(self, key: object) -> bool:
        return super().__contains__(key) or self._unknown()

    def setdefault(self, *_: object) -> NoReturn:
        self._unknown()

    def _unknown(self) -> NoReturn:
        raise _TellsNothingMoreError


class _Outline(Request):
    """All requests of one method and path."""

    def __init__(self, scope: dict[str, Any]) -> None:
        super().__init__(_OutlineScope(scope))

    @property
    def url(self) -> URL:
        """Tell the path and nothing else."""
        return cast("URL", SimpleNamespace(path=self.scope["path"]))
