"""`dependency(...)`: exempt requests that a FastAPI dependency accepts. FastAPI itself resolves it."""

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Mapping
from collections.abc import Set as AbstractSet
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from inspect import iscoroutine, iscoroutinefunction
from typing import Annotated, Any, NoReturn, TypeVar, cast, get_args, get_origin, overload

from fastapi import params
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic.fields import FieldInfo
from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException, WebSocketException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Scope

from fastapi_maintenance._helpers.checks import check_callable, reject
from fastapi_maintenance._helpers.framework import FastAPI, Starlette
from fastapi_maintenance._helpers.metrics import without_fastapi_request
from fastapi_maintenance._helpers.scope import TEMPLATE
from fastapi_maintenance.predicates.combinators import (
    AsyncBuiltInPredicate,
    UnusablePredicateError,
    Verdict,
    function_name,
)
from fastapi_maintenance.predicates.request_body import PredicateRequest, reads_body

_PUT_BY_ROUTER = ("endpoint", "path_params", "route")
_REFUSALS = (HTTPException, RequestValidationError, WebSocketException)
_REFUSED = object()
_T = TypeVar("_T")


@overload
def dependency(
    call: Callable[..., Coroutine[Any, Any, _T] | AsyncIterator[_T] | Iterator[_T]],
    where: Callable[[_T], bool | None],
) -> AsyncBuiltInPredicate: ...
@overload
def dependency(call: Callable[..., _T], where: Callable[[_T], bool | None]) -> AsyncBuiltInPredicate: ...
@overload  # `Annotated[...]`, which has no type that all checkers know
def dependency(call: object, where: Callable[[Any], bool | None]) -> AsyncBuiltInPredicate: ...
@overload
def dependency(
    call: Callable[..., bool | Awaitable[bool | None] | AsyncIterator[bool | None] | Iterator[bool | None] | None],
    where: None = None,
) -> AsyncBuiltInPredicate: ...
def dependency(call: object, where: Callable[[Any], bool | None] | None = None) -> AsyncBuiltInPredicate:
    """Exempt the requests that a FastAPI dependency accepts.

    >>> from fastapi import HTTPException
    >>> async def current_user(request: Request) -> str:
    ...     if "x-user" not in request.headers:
    ...         raise HTTPException(401)
    ...     return request.headers["x-user"]
    >>> exempt = dependency(current_user, where=lambda user: user == "ada")

    FastAPI resolves it as for a route, with sub-dependencies, security schemes, `yield`, parameters and the app's
    `dependency_overrides`. Dependencies with `yield` are closed before the app receives the request. A route that has
    the same dependency resolves it again.

    `request.app` is the app that the middleware was added to, and path parameters are those of the route that will
    answer. If that route is not certain (as behind a layer that may change the path), a dependency whose parameters may
    come from the path is unknown; declare query parameters with `Query()` to avoid this. A dependency that reads a body
    of more than 1 MiB is unknown too. For a request in progress it returns its first verdict, or unknown if it has
    none. A `BackgroundTasks` or `Response` that it takes has no effect.

    Args:
        call: What a route can depend on: a function, another callable, `Depends(...)`, `Security(...)`, or an
            `Annotated[...]` with one of these. An `HTTPException` or invalid parameters count as False; any other
            exception is logged, and the request is not exempt. It may take an `HTTPConnection`, but not a `WebSocket`.
        where: Returns the verdict for the result, before dependencies with `yield` are closed; None: the result itself
            is the verdict.

    Raises:
        TypeError: `call` is of another kind, FastAPI refuses its parameters, or `where` is not callable or is async.
    """
    resolver = _Resolver(call, where)
    name = resolver.name

    async def ask(request: Request) -> Verdict:
        if not isinstance(request, PredicateRequest):  # in a unit test, or created by another predicate
            request = PredicateRequest(request.scope, request.receive)
        if request.is_in_progress:
            return request.verdicts.get(ask)
        result = await resolver.resolve(request)
        if request.missed:
            result = None
        if result is not None and not isinstance(result, bool):
            if iscoroutine(result):
                result.close()  # prevents the warning that it was never awaited
            source = f"the dependency {name}" if where is None else f"where for {name}"
            hint = ": add a `where` that returns one of these" if where is None else ""
            msg = f"the result of {source} must be True, False or None, got {type(result).__name__}{hint}"
            raise UnusablePredicateError(msg)
        request.verdicts[ask] = result
        return result

    on = (f"the dependency {name}", "the body") if resolver.reads_body else (f"the dependency {name}",)
    return AsyncBuiltInPredicate(ask, "dependency", args=(resolver.function,), on=on)


@dataclass(slots=True)
class _Resolution:
    """A request whose dependency is being resolved."""

    dependency_overrides: Mapping[Any, Callable[..., Any]]
    result: object = _REFUSED


_running: ContextVar[_Resolution] = ContextVar("fastapi_maintenance_resolution")


class _Resolver:
    """Resolve a dependency with FastAPI, through an app with one route that depends on it.

    The path of a route determines which parameters are path parameters, so there is one app per set of their names.
    """

    def __init__(self, call: object, where: Callable[[Any], Any] | None) -> None:
        self._annotation, self.function = _annotation_of(call)
        self.name = function_name(self.function)
        if where is not None and iscoroutinefunction(check_callable("where", where)):
            reject("where", "a function that is not async", where)
        self._where = where
        self._built = cache(self._build)
        try:
            parts = list(_parts(self._build(())[1], {}))
        except Exception as error:
            msg = f"call must be a dependency that FastAPI accepts, got {self.name}: {error}"
            raise TypeError(msg) from error
        self.reads_body = any(part.body_params or _looks_at_body(part) for part in parts)
        if any(part.websocket_param_name for part in parts):
            msg = f"call must take an HTTPConnection, not a WebSocket, which a handshake is not yet: {self.name}"
            raise TypeError(msg)

    async def resolve(self, request: PredicateRequest) -> object:
        """Return the result of the dependency, or of `where`, for a request; False if it refuses the request."""
        app, routed = request.app, request.routed or {}
        overrides = getattr(app, "dependency_overrides", {})
        names = tuple(sorted(set(re.findall(r"{(\w+)(?::\w+)?}", routed.get(TEMPLATE, "")))))
        try:  # only now, since annotations may name what is defined after the predicate
            inner, dependant = self._built(names)
        except Exception as error:
            msg = f"FastAPI refuses the dependency {self.name} for a route with the path parameters {names}: {error}"
            raise UnusablePredicateError(msg) from error
        parts = list(_parts(dependant, overrides))
        bodies = {field.name for part in parts for field in part.body_params}
        foreign = None if request.routed is None else routed.get("path_params", {}).keys() - set(names)
        if _may_be_in_path(parts, foreign) or (bodies and _reads_another_body(routed.get("route"), bodies)):
            request.missed = True
            return None
        scope = {key: value for key, value in request.scope.items() if key.partition(".")[0] != "fastapi"}
        scope |= {"app": app, "path_params": _UnknownParameters(request) if request.routed is None else {}}
        scope |= {key: routed[key] for key in _PUT_BY_ROUTER if key in routed}
        if isinstance(app, Starlette):
            scope["router"] = app.router
        resolution = _Resolution(overrides)
        token = _running.set(resolution)
        try:
            with without_fastapi_request():
                await inner(scope, request.reader(), _do_nothing)
        finally:
            with suppress(ValueError):  # the garbage collector closes the coroutine in another context
                _running.reset(token)
        if resolution.result is not _REFUSED:
            return resolution.result
        # `strict_content_type` decides whether a route reads such a body as JSON.
        return None if bodies and request.has_body and "content-type" not in request.headers else False

    def _build(self, path_parameters: tuple[str, ...]) -> tuple[ASGIApp, Any]:
        """Return the app for a route with these path parameters, and FastAPI's analysis of the dependency."""

        async def resolved(dependency_result: Any) -> Response:  # noqa: ANN401 -- of any type
            result = dependency_result if self._where is None else self._where(dependency_result)
            _running.get().result = result
            # Replaces tasks that the dependency added. Not a `BackgroundTask`, for which agents create spans.
            return Response(background=cast("BackgroundTask", _do_nothing))

        resolved.__annotations__["dependency_result"] = self._annotation
        path = "/" + "/".join(f"{{{name}}}" for name in path_parameters)
        route = _AnyRequest(path, resolved, dependency_overrides_provider=_Overrides())
        route.methods = set()  # any method
        app = FastAPI(openapi_url=None, exception_handlers=dict.fromkeys(_REFUSALS, _refuse))
        app.router.routes[:] = [route]
        return app.build_middleware_stack(), route.dependant.dependencies[0]


class _AnyRequest(APIRoute):
    """A route that answers every request."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:  # noqa: ARG002 -- Starlette's signature
        return Match.FULL, {}


class _Overrides:
    """The `dependency_overrides` of the app whose request is being resolved."""

    @property
    def dependency_overrides(self) -> Mapping[Any, Callable[..., Any]]:
        return _running.get().dependency_overrides


class _UnknownParameters(Mapping[str, Any]):
    """The path parameters of an unknown route: reading them makes the verdict unknown."""

    def __init__(self, request: PredicateRequest) -> None:
        self._request = request

    def __getitem__(self, key: object) -> NoReturn:
        self._request.missed = True
        msg = "the path parameters are not known, since the route that will answer is hidden"
        raise RuntimeError(msg)

    def __iter__(self) -> Iterator[str]:
        return self[""]

    def __len__(self) -> int:
        return self[""]


def _annotation_of(call: object) -> tuple[Any, object]:
    """Return the annotation for a parameter that depends on `call`, and the function or class that FastAPI calls."""
    while type(call).__name__ == "TypeAliasType":  # of `typing` or `typing_extensions`
        call = cast("Any", call).__value__
    if get_origin(call) is Annotated:
        annotation: Any = call
        kind, *metadata = get_args(call)
        *_, depends = [None, *(each for each in metadata if isinstance(each, (params.Depends, FieldInfo)))]
    else:
        kind, depends = None, call if isinstance(call, params.Depends) else params.Depends(cast("Any", call))
        annotation = Annotated[Any, depends]
    function = depends.dependency or kind if isinstance(depends, params.Depends) else None
    if not callable(function):
        reject("call", "a callable, Depends(...) or Security(...) with one, or Annotated with one of these", call)
    return annotation, function


def _parts(dependant: Any, overrides: Mapping[Any, Callable[..., Any]]) -> Iterator[Any]:  # noqa: ANN401 -- no public type
    """Yield FastAPI's analysis of a dependency and its sub-dependencies, with overrides applied."""
    override = overrides.get(dependant.call)
    if override is not None:
        dependant = APIRoute("/", override).dependant
    yield dependant
    for each in dependant.dependencies:
        yield from _parts(each, overrides)


def _may_be_in_path(parts: list[Any], names: AbstractSet[str] | None) -> bool:
    """Return whether a query parameter of these names (None: any) may be a path parameter, having no `Query()`."""
    if names is not None and not names:
        return False
    queries = [(part.call, field.name) for part in parts for field in part.query_params]
    return any((names is None or name in names) and _is_implicit(call, name) for call, name in queries)


@cache
def _is_implicit(call: Callable[..., Any], name: str) -> bool:
    """Return whether a query parameter would be a path parameter if the path of the route contained its name."""
    try:
        APIRoute(f"/{{{name}}}", call)
    except Exception:  # noqa: BLE001 -- FastAPI refuses a path parameter with `Query()`
        return False
    return True


def _looks_at_body(dependant: Any) -> bool:  # noqa: ANN401 -- as above
    name = dependant.request_param_name or dependant.http_connection_param_name
    return name is not None and reads_body(dependant.call, name)


def _reads_another_body(route: object, names: set[str]) -> bool:
    """Return whether a route may read the body differently: it decodes it, or has more body parameters."""
    if not isinstance(route, APIRoute):
        return False
    more = {field.name for part in _parts(route.dependant, {}) for field in part.body_params} - names
    return bool(more) or type(route).get_route_handler is not APIRoute.get_route_handler


async def _refuse(request: Request, error: Exception) -> Response:  # noqa: ARG001 -- FastAPI's signature
    _running.get().result = _REFUSED  # also if closing a `yield` dependency raises one of these
    return Response(status_code=403)


async def _do_nothing(*_: Message) -> None:
    pass
