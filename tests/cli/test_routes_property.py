"""`routes`: what it calls open or blocked is so for every request to that route."""

from __future__ import annotations

import re

import anyio
from fastapi import FastAPI, HTTPException, Request
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.routing import Mount
from starlette.types import ASGIApp, Scope

from fastapi_maintenance import (
    ExemptCallback,
    MemoryBackend,
    all_of,
    always,
    any_of,
    client_in,
    cookie_equals,
    dependency,
    header_equals,
    header_present,
    host_is,
    maintenance_middleware,
    method_in,
    never,
    not_,
    path_is,
    path_matches,
    path_prefix,
    query_equals,
    safe_method,
)
from fastapi_maintenance._helpers.scope import HIDDEN_APP, lenient_path, route_path
from fastapi_maintenance._routing.places import WEBSOCKET
from fastapi_maintenance.cli.routes import _judged, _together
from fastapi_maintenance.predicates.in_advance import outlook_on
from tests.middleware.test_fuzz import outcome_of
from tests.routing.test_routes_property import ANSWERED, Tree
from tests.strategies import verdict_of
from tests.support import make_request, websocket_scope


def fickle(request: Request) -> bool:
    if "x-raise" in request.headers:
        raise RuntimeError
    return request.url.path.endswith("a")


async def waiting(request: Request) -> bool | None:
    return "x-key" in request.headers or None


async def current_key(request: Request) -> str:
    if "x-key" not in request.headers:
        raise HTTPException(401)
    return request.headers["x-key"]


PATHS = st.sampled_from(["/a", "/b", "/a/", "/a/b", "/", "/in", "/in/a", "/A", "/v1", "/7"])
LEAVES: st.SearchStrategy[ExemptCallback] = st.one_of(
    st.lists(PATHS, min_size=1, max_size=2).map(lambda paths: path_prefix(*paths)),
    st.lists(PATHS, min_size=1, max_size=2).map(lambda paths: path_is(*paths)),
    st.sampled_from(
        [
            *(path_matches("/a.*"), method_in("POST"), safe_method, host_is("testserver"), client_in("192.0.2.0/24")),
            *(header_equals("X-Key", "k"), header_present("X-Key"), cookie_equals("c", "1"), query_equals("q", "1")),
            *(fickle, waiting, always, never, dependency(current_key, where=lambda key: key == "k")),
        ]
    ),
)
PREDICATES: st.SearchStrategy[ExemptCallback] = st.recursive(
    LEAVES,
    lambda inner: (
        inner.map(not_)
        | st.lists(inner, max_size=3).map(lambda parts: any_of(*parts))
        | st.lists(inner, max_size=3).map(lambda parts: all_of(*parts))
    ),
    max_leaves=4,
)
QUERIES = st.sampled_from([b"", b"q=1", b"q=1&q=2"])
HEADERS = st.lists(
    st.sampled_from([(b"x-key", b"k"), (b"x-key", b"other"), (b"x-raise", b""), (b"cookie", b"c=1")]), max_size=3
)


TEMPLATES = st.sampled_from(
    [
        *("/a", "/a/", "/{x}", "/a/{x}", "/A/{x}", "/{x}/"),
        *("/{x}/b", "/a/{x:path}", "/{x:path}", "/v{x}", "/in/a", "/{x:int}"),
    ]
)


def filled(template: str, data: st.DataObject) -> str:
    """Return a path that a route with this template matches."""
    values = {"int": ["7"], "path": ["", "a", "a/", "b/a", "a//b"]}

    def value(found: re.Match[str]) -> str:
        return data.draw(st.sampled_from(values.get(found[1] or "", ["a", "7", "b", "V1", "in", "..", "a;b"])))

    return re.sub(r"\{\w+(?::(\w+))?\}", value, template)


def closed(app: ASGIApp, exempt: ExemptCallback) -> ASGIApp:
    """Return the app with maintenance around it, switched on."""
    return maintenance_middleware(backend=MemoryBackend(state=True), exempt=exempt)(app)


def is_ambiguous(scope: Scope) -> bool:
    """Return whether others may read the path differently from the router."""
    path = route_path(scope)
    return lenient_path(path) != path.casefold()


@settings(max_examples=2 * settings().max_examples)
@given(
    data=st.data(), predicate=PREDICATES, template=TEMPLATES, method=st.sampled_from(["GET", "POST"]), headers=HEADERS
)
def test_outlook_of_a_predicate_has_its_verdict_on_each_request(
    data: st.DataObject, predicate: ExemptCallback, template: str, method: str, headers: list[tuple[bytes, bytes]]
) -> None:
    hidden, scope = data.draw(st.booleans()), make_request(filled(template, data), method=method).scope
    request = Request({**scope, "headers": headers, HIDDEN_APP: hidden})
    try:
        verdict: object = verdict_of(predicate, request)
    except RuntimeError:
        verdict = "raises"
    for known in (method, None):
        possible, _, on = outlook_on(predicate, known, template, hidden=hidden)
        assert bool(on) is (len(possible) > 1)
        assert verdict in possible or is_ambiguous(request.scope)


@given(
    data=st.data(),
    ordinary=st.booleans(),
    exempt=st.lists(PREDICATES, min_size=1, max_size=2),
    mounted=st.none() | PREDICATES,
)
def test_routes_that_are_open_or_blocked_are_so_for_each_request(
    data: st.DataObject, ordinary: bool, exempt: list[ExemptCallback], mounted: ExemptCallback | None
) -> None:
    """Also with several middlewares, and below a mount with its own; an ambiguous path is blocked anyway."""
    tree = Tree(data.draw, ordinary=ordinary)
    inner = FastAPI(openapi_url=None)
    inner.router = tree.router
    plain: ASGIApp = inner
    app: ASGIApp = inner
    if mounted is not None:
        plain, app = Mount("/in", inner), Mount("/in", closed(inner, mounted))
    for each in exempt:
        app = closed(app, each)
    judged = _judged(app, None)
    verdicts = {
        (getattr(place.what, "endpoint", None), place.method): _together(judgements) for place, judgements in judged
    }
    scopes = [tree.scope() for _ in range(2)]
    for place, _ in judged:
        path = filled(place.path, data)
        scopes.append({**websocket_scope(path), "headers": [(b"host", b"testserver")]})
        if place.method != WEBSOCKET:
            scopes[-1].update(type="http", method=place.method or "GET")
    for scope in scopes:
        scope["headers"] += data.draw(HEADERS)
        scope["query_string"] = data.draw(QUERIES)
        ANSWERED.clear()
        anyio.run(outcome_of, plain, scope)
        if not ANSWERED:
            continue
        endpoint, method = ANSWERED[0], WEBSOCKET if scope["type"] == "websocket" else scope["method"]
        verdict, why, _ = verdicts.get((endpoint, method)) or verdicts[endpoint, None]
        is_blocked = anyio.run(outcome_of, app, scope).is_blocked
        if verdict == "depends" or (why.startswith("exempt") and is_ambiguous(scope)):
            continue
        assert is_blocked is (verdict == "blocked"), why
