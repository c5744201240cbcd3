"""What a predicate is made of, for those who have to say beforehand which requests it can exempt."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Iterator
from types import SimpleNamespace
from typing import Any, Literal, NoReturn, TypeVar, cast

from starlette.datastructures import URL
from starlette.requests import Request

__all__ = ["Composition", "composed", "on_paths", "paths_in", "verdicts"]

_P = TypeVar("_P")
Composition = Literal["any_of", "all_of", "not_"]
_EITHER = frozenset({True, False})


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


def verdicts(predicate: Any, method: str, path: str) -> frozenset[bool]:  # noqa: ANN401 -- sync or async
    """Return what a predicate can say to requests of this method and path, whatever else they carry.

    Only a predicate that looks at nothing but the method and the path says one and the same to all of them.
    """
    how, parts = _composition(predicate)
    possible = [verdicts(part, method, path) for part in parts]
    if how == "not_":
        return frozenset(not verdict for verdict in possible[0])
    if how is None:
        return _verdicts_on_outline(predicate, method, path)
    decisive = how == "any_of"  # one part that says so decides
    can_be_decided = any(decisive in each for each in possible)
    can_be_left = all((not decisive) in each for each in possible)
    return frozenset({decisive} if can_be_decided else ()) | frozenset({not decisive} if can_be_left else ())


def _composition(predicate: object) -> tuple[Composition | None, tuple[object, ...]]:
    composition: tuple[Composition | None, tuple[object, ...]] = getattr(predicate, "composed", (None, ()))
    return composition


def _verdicts_on_outline(predicate: Any, method: str, path: str) -> frozenset[bool]:  # noqa: ANN401 -- sync or async
    try:
        verdict = predicate(_Outline({"type": "http", "method": method, "path": path, "root_path": ""}))
        return frozenset({bool(_at_once(verdict) if inspect.isawaitable(verdict) else verdict)})
    except Exception:  # noqa: BLE001 -- it wants to know more, or fails
        return _EITHER


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
