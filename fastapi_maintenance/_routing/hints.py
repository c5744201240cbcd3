"""Hints at start-up, in the logger `fastapi_maintenance.hints.<topic>`: what in the app may surprise its owner."""

from collections.abc import Iterable, Iterator
from functools import partial
from types import FunctionType, MethodType
from typing import Any

from starlette.routing import Router
from starlette.types import Message, Scope, Send

from fastapi_maintenance._helpers.framework import Starlette, is_framework, shown_name
from fastapi_maintenance._helpers.logs import HINT, get_logger
from fastapi_maintenance._helpers.scope import as_http
from fastapi_maintenance._routing.finder import RouteFinder
from fastapi_maintenance._routing.layers import Layers, all_layers_of, mounted_layers
from fastapi_maintenance._routing.left_to_app import users_handler
from fastapi_maintenance._routing.routes import ListedRoute, list_routes, routers_in
from fastapi_maintenance.decorators import endpoints_in, mark_of, marked
from fastapi_maintenance.predicates.in_advance import paths_in, template_matches, verdict_on

_LOGGER = "fastapi_maintenance.hints"
_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
_NOT_AN_APP = (FunctionType, MethodType, partial, type, type(None))
_ROUTER = "fastapi_maintenance.router."  # the modules of the admin API
_TWICE = (
    "two maintenance middlewares of this app share a switch, so a request must be exempt from both: keep one, and "
    "combine their predicates with any_of"
)
_LAYER = (
    "{} may change the path or method of a request or answer it, so requests that no route answers (404, 405) are "
    "blocked too: add it after the maintenance middleware, which puts it outside"
)
_DECIDES = (
    "{} decides by itself what answers, so @force_maintenance_mode_off and exempt_docs have no effect behind it, and "
    "requests that no route answers (404, 405) are blocked too: exempt what must stay open with a predicate"
)
_HANDLER = (
    "{} handles 404, 405 or HTTPException and may answer anything, so what it handles is blocked: mark the handler "
    "with @force_maintenance_mode_off if it may answer during maintenance, or set unmatched='block'"
)
_BLOCKED = (
    "{} of a router of this library cannot be reached during maintenance, because another route answers that path, or "
    "a layer hides the routes or decides by itself what answers: include the router before routes that match "
    "everything, or exempt its paths with path_prefix"
)
_INCLUDED = "the mark on {} has no effect, since it is included and not mounted: mark the endpoints of its routes"
_HIDDEN = (
    "{} is marked, but no route to it is visible, so the mark has no effect if the app at {!r}, which hides its "
    "routes, leads to it: mark that app, or let it keep the app that it wraps as its attribute `app`"
)


def hints_on(
    finder: RouteFinder, lifespan: Scope, *, twice: bool, exempt: object, passes: bool
) -> Iterator[tuple[str, str]]:
    """Yield the topic and the text of each hint on an app that starts with this scope.

    `twice`: another maintenance middleware on the same switch is inside; `passes`: unmatched requests are left to the
    app.
    """
    app = lifespan.get("app")
    layers = finder.layers(lifespan)
    router = app.router if isinstance(app, Starlette) else layers.router
    routes = list(list_routes(router.routes)) if router is not None else []
    mounts = [(route.path, mounted_layers(route.mount)) for route in routes if route.mount is not None]
    routes += [route for path, each in mounts if each.is_guess for route in list_routes(each.routes(), path)]
    named = list(dict.fromkeys(paths_in(exempt)))

    def find(method: str, path: str) -> Any:  # noqa: ANN401 -- an answer
        return finder.find(as_http({"type": "http", "method": method, "path": path, "app": app}))

    if twice:
        yield "twice", _TWICE
    if passes and router is not None:
        yield from _layer_hints(layers, "inside the maintenance middleware, ")
        of_interest = [path for path, _ in named] + [each.path for each in routes if mark_of(each.endpoint) is not None]
        for path, inner in mounts:
            start = f"{path.rstrip('/')}/"
            if inner.router is not None and any(each.startswith(start) for each in of_interest):
                yield from _layer_hints(inner, f"in the app that is mounted at {path!r}, ")
    for path, below in named:
        has_route = any(_serves(route.path, path, below=below) for route in routes)
        if not has_route and not any(find(method, path).answered for method in _METHODS):
            lies = "lies under the path prefix" if below else "has the path"
            yield "path", f"no route {lies} {path!r}, which the predicate names: correct or remove it"
    admin = [route for route in routes if str(getattr(route.endpoint, "__module__", None)).startswith(_ROUTER)]
    operations = [(method, route.path) for route in admin if "{" not in route.path for method in sorted(route.methods)]
    blocked = dict.fromkeys(
        f"{method} {path}"
        for method, path in operations
        if find(method, path).mark is not False and verdict_on(exempt, method, path) is not True
    )
    if blocked:
        yield "router", _BLOCKED.format(", ".join(blocked))
    visible = routes if layers.router is not None else []
    included = [each for route in (router.routes if router is not None else ()) for each in routers_in(route)]
    yield from _mark_hints(visible, [("", layers), *mounts], included)


def _layer_hints(layers: Layers, where: str) -> Iterator[tuple[str, str]]:
    names = ", ".join(dict.fromkeys(map(shown_name, layers.unknown)))
    found = [users_handler(layers.handlers, status) for status in (404, 405)]
    handlers = ", ".join(dict.fromkeys(shown_name(each) for each in found if each is not None))
    if names:
        yield "layer", where + (_DECIDES if layers.decides or layers.is_guess else _LAYER).format(names)
    if handlers:
        yield "handler", where + _HANDLER.format(handlers)


def _mark_hints(
    routes: list[ListedRoute], apps: list[tuple[str, Layers]], included: list[Any]
) -> Iterator[tuple[str, str]]:
    """Yield a hint for each mark on an included router, or on something that only a hidden route may lead to."""
    reached: list[object] = [each for route in routes for each in endpoints_in(route.endpoint)]
    for _, layers in apps:
        reached += [*all_layers_of(layers.app), layers.owner, layers.router]
    hiding = [path for path, layers in apps if layers.router is None and not is_framework(type(layers.app))]
    hiding += [route.path for route in routes if not isinstance(route.endpoint, _NOT_AN_APP)]
    for thing in marked():
        is_app = isinstance(thing, (Starlette, Router))
        label = getattr(thing, "title", None) or getattr(thing, "prefix", "")
        name = f"{shown_name(thing)} {label!r}" if is_app else shown_name(thing)
        if any(thing is each for each in included):
            yield "mark", _INCLUDED.format(name)
        elif hiding and (is_app or mark_of(thing)) and not any(thing is each for each in reached):
            yield "mark", _HIDDEN.format(name, hiding[0] or "/")


def with_hints(scope: Scope, send: Send, hints: Iterable[tuple[str, str]]) -> Send:
    """Return a `send` that logs the hints once the app has started, and has added the routes of its start."""
    logged: set[str] = scope.setdefault(_LOGGER, set())  # shared with other middlewares of the app

    async def send_after_hints(message: Message) -> None:
        if message["type"] == "lifespan.startup.complete":
            _log_hints(hints, logged)
        await send(message)

    return send_after_hints


def _log_hints(hints: Iterable[tuple[str, str]], logged: set[str]) -> None:
    """Log each hint as a warning, unless it was logged before. An error never stops the app from starting."""
    try:
        for topic, text in hints:
            if text not in logged:
                logger = f"{_LOGGER}.{topic}"
                get_logger(logger).warning(HINT, text, logger)
                logged.add(text)
    except Exception:  # noqa: BLE001 -- whatever it is
        get_logger(_LOGGER).debug("The app could not be checked for hints", exc_info=True)


def _serves(template: str, path: str, *, below: bool) -> bool:
    """Return whether a route can match a path or, with `below`, one below it; a trailing slash makes another path."""
    is_same = below or template.endswith("/") is path.endswith("/") or template.endswith("}")
    return is_same and template_matches(template, path, below=below)
