"""What a predicate says: of a request, or of all requests of one method and path."""

import inspect
from asyncio import CancelledError
from collections.abc import Awaitable, Iterator
from types import SimpleNamespace
from typing import Any, cast

from starlette.datastructures import URL
from starlette.requests import Request
from starlette.types import Scope

from fastapi_maintenance._helpers.logs import get_logger
from fastapi_maintenance._helpers.scope import HIDDEN_APP, as_http
from fastapi_maintenance._helpers.waiting import is_cancelled
from fastapi_maintenance.predicates.combinators import Composable, Verdict, verdict_of
from fastapi_maintenance.typing import ExemptCallback

_logger = get_logger()


async def exempts(predicate: ExemptCallback, scope: Scope) -> bool:
    """Tell whether a predicate exempts a request; one that raises does not, and is logged with its traceback."""
    try:
        said: Any = predicate(Request(as_http(scope)))  # anybody's, so it may be anything
        if not isinstance(said, bool) and inspect.isawaitable(said):
            said = await said
        return verdict_of(said) is True
    except (Exception, CancelledError) as error:
        if isinstance(error, CancelledError) and is_cancelled():
            raise
        _logger.exception("The predicate %r failed; the request is not exempt", predicate)
        return False


def verdict_on(predicate: Any, method: str, path: str) -> Verdict:  # noqa: ANN401 -- sync or async
    """Return what a predicate says to all requests of this method and path; None where it depends on more."""
    if isinstance(predicate, Composable) and predicate.combine is not None:
        verdicts = [verdict_on(part, method, path) for part in predicate.parts]
        predicate = predicate.combine(*(lambda _, verdict=verdict: verdict for verdict in verdicts))
    try:
        said = predicate(_PartialRequest(method, path))
        return verdict_of(_result_without_waiting(said) if inspect.isawaitable(said) else said)
    except Exception:  # noqa: BLE001 -- it looks at more than these, or fails
        return None


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

    def get(self, key: str, default: object = None) -> Any:  # noqa: ANN401, ARG002 -- as of any scope
        return self[key]

    setdefault = get

    def __contains__(self, key: object) -> bool:
        self.get(str(key))
        return True


class _PartialRequest(Request):
    """A request of which only the method and the path are known."""

    def __init__(self, method: str, path: str) -> None:
        known = {"type": "http", "method": method, "path": path, "root_path": "", HIDDEN_APP: False}
        super().__init__(_PartialScope(known))

    @property
    def url(self) -> URL:
        """Tell the path and nothing else."""
        return cast("URL", SimpleNamespace(path=self.scope["path"]))
