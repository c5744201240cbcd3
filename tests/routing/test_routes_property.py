"""`_routing/finder.py`: in any tree of routers, mounts and routes, the endpoint that the plain app reaches decides."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import anyio
import pytest
from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute
from hypothesis import given
from hypothesis import strategies as st
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import BaseRoute, Host, Match, Mount, Route, WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from fastapi_maintenance import (
    MemoryBackend,
    force_maintenance_mode_off,
    force_maintenance_mode_on,
    maintenance_middleware,
)
from fastapi_maintenance._routing.routes import RouteIndex
from tests.middleware.test_fuzz import (
    REACHED,
    AllowsAll,
    DispatchesItself,
    HandlesItself,
    Layer,
    Outcome,
    answer,
    outcomes_of,
)
from tests.routing.apps import NESTED
from tests.support import websocket_scope

MARKED: dict[str, Callable[[Any], Any]] = {
    "unmarked": lambda endpoint: endpoint,
    "on": force_maintenance_mode_on,
    "off": force_maintenance_mode_off,
}
ANSWERED: list[object] = []
"""The endpoints that have answered."""
TEMPLATES = st.lists(
    st.sampled_from(["/a", "/b", "/{x}", "/{x:int}", "/{x:path}", "/v{x}", "/{x}.{y}", "/"]), min_size=1, max_size=3
).map("".join)


async def own(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer, whatever was asked for, as what has no routes or does not go by them."""
    await answer("own", scope, receive, send)


class CaseInsensitive(APIRoute):
    """A route whose pattern is not the one of its path."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **facts: Any) -> None:  # noqa: ANN401 -- of FastAPI
        super().__init__(path, endpoint, **facts)
        self.path_regex = re.compile(self.path_regex.pattern, re.IGNORECASE)


class OnlyPosts(APIRoute):
    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        return (Match.FULL, {"endpoint": self.endpoint}) if scope.get("method") == "POST" else (Match.NONE, {})


class Fifths(BaseRoute):
    """A route whose path says nothing."""

    path = "/anything"

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        return (Match.FULL, {}) if len(scope["path"]) % 5 == 0 else (Match.NONE, {})

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        await own(scope, receive, send)


class Handling:
    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        await own(scope, receive, send)


class HandlingRoute(Handling, APIRoute): ...


class HandlingMount(Handling, Mount): ...


class HandlingRouter(Handling, APIRouter): ...


class Uncompiled(Mount):
    """A mount with its own pattern, whose path cannot be compiled."""

    def __init__(self, path: str, app: ASGIApp) -> None:
        super().__init__(path, app)
        self.path += "/{a}{a}"


def endpoint_of(mark: str) -> Any:  # noqa: ANN401 -- FastAPI reads its signature
    """Return an endpoint with a mark or without, that records its kind."""

    async def endpoint(request: Request) -> PlainTextResponse:
        REACHED.append(mark)
        ANSWERED.append(endpoint)
        return PlainTextResponse(request.method)

    return MARKED[mark](endpoint)


def socket_of(mark: str) -> Any:  # noqa: ANN401 -- as above
    """Return the same for handshakes."""

    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        REACHED.append(mark)
        ANSWERED.append(endpoint)

    return MARKED[mark](endpoint)


ORDINARY: dict[str, Callable[[str, str, str], BaseRoute]] = {
    "plain": lambda path, mark, method: Route(path, endpoint_of(mark), methods=[method]),
    "socket": lambda path, mark, _: WebSocketRoute(path, socket_of(mark)),
    "case": lambda path, mark, method: CaseInsensitive(path, endpoint_of(mark), methods=[method]),
    "posts": lambda path, mark, _: OnlyPosts(path, endpoint_of(mark), methods=["POST"]),
}
OF_ITS_OWN: dict[str, Callable[[str, str, str], BaseRoute]] = {
    "fifths": lambda *_: Fifths(),
    "handling": lambda path, _, method: HandlesItself(path, endpoint_of("unmarked"), methods=[method]),
    "dispatching": lambda path, *_: Route(path, DispatchesItself),
    "allowing": lambda path, *_: Route(path, AllowsAll),
    "behind a layer": lambda path, *_: Route(path, AllowsAll, middleware=[Middleware(Layer)]),
}
MOUNTS: dict[str, Callable[[str, APIRouter], BaseRoute]] = {
    "mount": lambda path, inner: Mount(path, routes=inner.routes),
    "known layer": lambda path, inner: Mount(path, inner, middleware=[Middleware(GZipMiddleware)]),
    "host": lambda _, inner: Host("testserver", inner),
}
MOUNTS_OF_THEIR_OWN: dict[str, Callable[[str, APIRouter], BaseRoute]] = {
    "layered": lambda path, inner: Mount(path, inner, middleware=[Middleware(Layer)]),
    "handling mount": HandlingMount,
    "uncompiled": Uncompiled,
    "hidden": lambda path, inner: Mount(path, app=own, routes=inner.routes),
}


class Tree:
    """Routers in each other, grown at random, and the paths of their routes."""

    def __init__(self, draw: Callable[..., Any], *, ordinary: bool, depth: int = 2) -> None:
        self._draw, self._ordinary, self._depth = draw, ordinary, depth
        self.inner: list[APIRouter] = []
        self.paths = ["/"]
        classes = [APIRoute, APIRoute, CaseInsensitive, OnlyPosts, *([] if ordinary else [HandlingRoute])]
        kind = draw(st.sampled_from([APIRouter] if ordinary else [APIRouter, APIRouter, HandlingRouter]))
        self.router: APIRouter = kind(route_class=draw(st.sampled_from(classes)))
        self._routes = ORDINARY | ({} if ordinary else OF_ITS_OWN)
        self._mounts = MOUNTS | ({} if ordinary else MOUNTS_OF_THEIR_OWN)
        for _ in range(draw(st.integers(1, 5))):
            self.add(self.router, draw(st.sampled_from(["api", *self._routes, "include", *self._mounts])))

    def add(self, router: APIRouter, what: str) -> None:
        """Add something to a router."""
        path = self._draw(TEMPLATES).replace("//", "/")
        path = re.sub(
            r"\{(\w)", lambda found: "{" + found[1] + f"{found.start()}d{self._depth}n{len(self.paths)}", path
        )
        mark, method = self._draw(st.sampled_from(list(MARKED))), self._draw(st.sampled_from(["GET", "POST"]))
        if what in self._routes:
            router.routes.append(self._routes[what](path, mark, method))
        elif what == "api" or not self._depth:
            router.add_api_route(path, endpoint_of(mark), methods=[method])
        else:
            tree = Tree(self._draw, ordinary=self._ordinary, depth=self._depth - 1)
            prefix = "" if what == "host" else path.rstrip("/") or "/a"
            if what == "include":
                router.include_router(tree.router, prefix=prefix)
                self.inner += [tree.router, *tree.inner] if NESTED else []
            else:
                router.routes.append(self._mounts[what](prefix, tree.router))
            self.paths += [prefix + below for below in tree.paths]
        self.paths.append(path)

    def scope(self) -> Scope:
        """Return a request that one of the routes may match, or nearly."""
        values = st.sampled_from(["a", "7", "b/a", "v1", "a.b"])
        path = re.sub(r"\{[^}]*\}", lambda _: self._draw(values), self._draw(st.sampled_from(self.paths)))
        path = self._draw(st.sampled_from([path, path, path.upper(), path + "\n", path + "/", path + "/a", path[:-1]]))
        method = self._draw(st.sampled_from(["GET", "POST", "HEAD", None]))
        scope = {**websocket_scope(path), "headers": [(b"host", b"testserver")]}
        return scope if method is None else {**scope, "type": "http", "method": method}


def plain_off_and_on(app: FastAPI) -> list[ASGIApp]:
    """Return the app, and the same with maintenance around it, off and on."""
    around = [maintenance_middleware(backend=MemoryBackend(state=state)) for state in (False, True)]
    return [app, *(each(app) for each in around)]


def agrees(plain: Outcome, off: Outcome, on: Outcome, *, ordinary: bool) -> None:
    """Hold what is answered with maintenance off and on against what the plain app answers."""
    for each in (off, on):
        assert each.is_blocked or (each.reached, each.verdict) == (plain.reached, plain.verdict)
    expected = {"on": [True, True], "off": [False, False]}
    if plain.reached == ["own"]:  # in the place of the endpoint, whose mark counts all the same
        return
    if plain.reached:
        assert [off.is_blocked, on.is_blocked] == expected.get(plain.reached[0], [False, True])
    else:
        assert not off.is_blocked
        assert not on.is_blocked or not ordinary


@given(data=st.data(), ordinary=st.booleans())
def test_request_in_any_tree_of_routes_is_judged_by_the_endpoint_that_the_plain_app_reaches(
    data: st.DataObject, ordinary: bool
) -> None:
    """Also after a route is added or removed; what is left to the app is certain only where all routes are ordinary."""
    tree = Tree(data.draw, ordinary=ordinary)
    app = FastAPI(openapi_url=None)
    app.router = tree.router
    apps = plain_off_and_on(app)

    def agree() -> None:
        for scope in [tree.scope() for _ in range(data.draw(st.integers(3, 10)))]:
            agrees(*anyio.run(outcomes_of, apps, scope), ordinary=ordinary)

    agree()
    tree.add(data.draw(st.sampled_from([tree.router, *tree.inner])), "api" if ordinary else "fifths")
    if data.draw(st.booleans(), "remove the first"):
        del tree.router.routes[0]
    agree()


@pytest.mark.parametrize("kind", [APIRoute, CaseInsensitive, OnlyPosts])
@pytest.mark.parametrize("path", ["/a/b", "/a/{x}"])
def test_request_to_a_route_with_its_own_match_is_judged_by_its_endpoint(kind: type[APIRoute], path: str) -> None:
    app = FastAPI(openapi_url=None)
    app.router.route_class = kind
    app.add_api_route(path, endpoint_of("unmarked"), methods=["POST"])
    apps = plain_off_and_on(app)
    for asked in ("/a/b", "/a/b\n", "/A/B", "/c"):
        scope = {**websocket_scope(asked), "type": "http", "method": "POST"}
        agrees(*anyio.run(outcomes_of, apps, scope), ordinary=True)


def test_routes_of_many_only_few_are_candidates_for_a_path() -> None:
    router, outer = APIRouter(), APIRouter(prefix="/api")
    for number in range(50):
        inner = APIRouter(prefix=f"/things{number}")
        for path in ("/{thing}", "/all"):
            inner.add_api_route(path, endpoint_of("unmarked"))
        outer.include_router(inner)
    router.include_router(outer)
    index = RouteIndex(router)
    paths = ("/api/things7/all", "/api/things7/8", "/nothing" * 1000)
    candidates = [[each.effective.path for each in index.candidates(path)] for path in paths]
    assert candidates == [["/api/things7/{thing}", "/api/things7/all"], ["/api/things7/{thing}"], []]


class GrowingList(list[BaseRoute]):
    """A list of routes to which another thread adds one while they are read for the first time."""

    def __init__(self, routes: list[BaseRoute], grow: Callable[[], None]) -> None:
        super().__init__(routes)
        self.grow: list[Callable[[], None]] = [grow]

    def __iter__(self) -> Iterator[BaseRoute]:
        yield from list(super().__iter__())
        while self.grow:
            self.grow.pop()()


def test_routes_of_a_router_that_is_included_while_the_index_is_created_are_seen() -> None:
    router, inner = APIRouter(), APIRouter()
    inner.add_api_route("/early", endpoint_of("unmarked"))
    router.routes = GrowingList([], lambda: router.include_router(inner))
    index = RouteIndex(router)
    inner.add_api_route("/late", endpoint_of("unmarked"))
    index = index if index.is_current() else RouteIndex(router)
    assert [bool(index.candidates(path)) for path in ("/early", "/late")] == [True, NESTED]
