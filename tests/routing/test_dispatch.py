"""`_routing/routes.py`, `_routing/left_to_app.py`: each route is asked by its own `matches`; endpoints dispatch."""

from __future__ import annotations

import re
from collections.abc import Callable, Generator
from functools import cached_property, partial
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI, Request
from fastapi.routing import APIRoute
from starlette.convertors import StringConvertor
from starlette.endpoints import HTTPEndpoint
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import PlainTextResponse
from starlette.routing import BaseRoute, Match, Mount, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from fastapi_maintenance import force_maintenance_mode_off, force_maintenance_mode_on
from tests.middleware.test_fuzz import AllowsAll, DispatchesItself, HandlesItself
from tests.routing.apps import (
    MARKS,
    NESTED,
    Anything,
    Case,
    Resource,
    Rewriting,
    around,
    assert_decided,
    itself,
    marked,
    mounted,
    off,
    on,
    overridden_method,
    plain,
    rewriting,
    serve,
    served,
    statuses,
    unmarked,
    wrapping,
)
from tests.routing.test_routes_property import HandlingRoute, HandlingRouter

pytestmark = MARKS


# Routes


def with_one_path() -> FastAPI:
    app = FastAPI()
    app.get("/x")(marked)
    app.post("/x")(unmarked)
    app.put("/x")(force_maintenance_mode_on(wrapping(unmarked)))
    return app


class ByHeader(APIRoute):
    """A class of route that asks for a header as well."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        match, child = super().matches(scope)
        return (match, child) if overridden_method(scope) == self.name else (Match.NONE, {})


def by_header(*, is_included: bool) -> FastAPI:
    app, router = FastAPI(), APIRouter(route_class=ByHeader)
    app.router.route_class = ByHeader
    where = router if is_included else app.router
    where.add_api_route("/x", unmarked, name="1")
    where.add_api_route("/x", marked, name="2")
    app.include_router(router)
    return app


def unknown(endpoint: object, match: Match) -> Callable[[], FastAPI]:
    return lambda: FastAPI(routes=[Anything({"endpoint": endpoint} if endpoint else {}, match)])


# Endpoints and routes that answer all methods, since they dispatch or handle requests in their own way


class OwnAwait(Resource):
    def __await__(self) -> Generator[Any, None, None]:
        return served(self.scope, self.receive, self.send).__await__()


class OwnInit(Resource):
    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.put = serve
        super().__init__(scope, receive, send)


class OwnGetattr(Resource):
    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 -- of any name
        if name.startswith("_"):
            raise AttributeError(name)
        return serve


class Calling(type):
    """A metaclass whose classes answer when they are called."""

    def __call__(cls, scope: Scope, receive: Receive, send: Send) -> Any:  # noqa: ANN401, N805, RUF100 -- awaitable
        return served(scope, receive, send)


class OwnMetaclass(Resource, metaclass=Calling):
    """A class of which there is never an instance."""


def put_of(endpoint: HTTPEndpoint) -> Any:  # noqa: ANN401 -- a function, or nothing
    return serve if overridden_method({"headers": [], **endpoint.scope}) else None


class ByProperty(Resource):
    put = property(put_of)


class ByCachedProperty(Resource):
    put = cached_property(put_of)


class WithGetAlone(HTTPEndpoint):
    async def get(self, request: Request) -> PlainTextResponse:
        return await serve(request)


@force_maintenance_mode_off
class OpenDispatch(DispatchesItself):
    """A class that is marked, with a method of the other mark."""

    @force_maintenance_mode_on
    async def post(self, request: Request) -> PlainTextResponse:
        return await serve(request)


def shut_dispatch() -> Any:  # noqa: ANN401 -- a class of endpoints
    return force_maintenance_mode_on(type("ShutDispatch", (DispatchesItself,), {}))


def at_a(endpoint: Callable[[], Any]) -> Callable[[], FastAPI]:
    """Return what makes an app with an endpoint at `/a` and `/in/a`."""
    return lambda: FastAPI(routes=[Route("/a", endpoint()), Mount("/in", routes=[Route("/a", endpoint())])])


def with_its_own_app() -> Route:
    route = Route("/a", Resource)
    route.app = rewriting(route.app)
    return route


def with_its_own_handle() -> Route:
    route = Route("/a", plain, methods=["POST"])
    route.handle = HandlesItself("/a", plain).handle  # type: ignore[method-assign]  # under test
    return route


def before_another(make: Callable[[], BaseRoute]) -> Callable[[], FastAPI]:
    return lambda: FastAPI(routes=[make(), Route("/a", plain, methods=["PATCH"])])


def included(kind: type[APIRouter], prefix: str, **settings: Any) -> Callable[[], FastAPI]:  # noqa: ANN401 -- of a router
    """Return what makes an app with a router below others, whose prefixes are the segments of this one."""

    def app() -> FastAPI:
        outer, router = FastAPI(), kind(**settings)
        router.add_api_route("/x", unmarked, methods=["POST"])
        router.add_api_route("/off", marked, methods=["POST"])
        for segment in prefix.split("/")[:0:-1]:
            parent = APIRouter()
            parent.include_router(router, prefix=f"/{segment}")
            router = parent
        outer.include_router(router)
        return outer

    return app


ALL_METHODS = [f"{method} {path}" for method in ("GET", "POST", "PUT") for path in ("/a", "/in/a")]
CASES: dict[str, Case] = {
    "a mark on one method of a path": Case(
        with_one_path, passed=["/x"], blocked=["POST /x"], shut=["PUT /x"], left=["DELETE /x"]
    ),
    **{
        f"a class of route with a rule, {'included' if is_included else 'on the app'}": Case(
            partial(by_header, is_included=is_included),
            blocked=["/x as 1"],
            passed=["/x as 2"],
            left=["/x as 3"],
        )
        for is_included in (False, True)
    },
    **{
        f"an unknown class of route, {match.name}, {name}": Case(
            unknown(endpoint, match), **{"shut" if endpoint is on else "blocked": ["/"]}
        )
        for match in (Match.FULL, Match.PARTIAL)
        for name, endpoint in {"without endpoint": None, "off": marked, "on": on}.items()
    },
    **{
        f"class with its own {name}": Case(at_a(partial(itself, kind)), [*ALL_METHODS, "PREFLIGHT /a"])
        for name, kind in (
            ("dispatch", DispatchesItself),
            ("method_not_allowed", AllowsAll),
            ("await", OwnAwait),
            ("getattr", OwnGetattr),
            ("metaclass", OwnMetaclass),
        )
    },
    "class with its own init": Case(at_a(lambda: OwnInit), ALL_METHODS, doubtful=["PREFLIGHT /a"]),
    "class with a property": Case(at_a(lambda: ByProperty), ["PUT /a as 2"]),
    "class with a cached property": Case(at_a(lambda: ByCachedProperty), ["PUT /a as 2"]),
    "class with get, which answers HEAD": Case(at_a(lambda: WithGetAlone), ["/a", "HEAD /a"], left=["POST /a"]),
    "class with dispatch and marks": Case(
        at_a(lambda: OpenDispatch), passed=["/a", "PUT /a", "/in/a"], shut=["POST /a", "POST /in/a"]
    ),
    "class with dispatch, shut": Case(at_a(shut_dispatch), shut=ALL_METHODS),
    "route behind unknown middleware": Case(
        before_another(lambda: Route("/a", Resource, middleware=[Middleware(Rewriting)])), ["PUT /a as POST", "POST /a"]
    ),
    "route with its own app": Case(before_another(with_its_own_app), ["PUT /a as POST", "POST /a"]),
    "route with its own handle": Case(before_another(with_its_own_handle), ["PUT /a", "POST /a"]),
    "class of route with its own handle": Case(
        before_another(lambda: HandlesItself("/a", plain, methods=["POST"])), ["PUT /a", "POST /a"]
    ),
    "class of route with its own handle, marked off": Case(
        lambda: FastAPI(routes=[HandlesItself("/a", off, methods=["POST"])]), ["PUT /a"]
    ),
    "class of route with its own handle, marked on": Case(
        lambda: FastAPI(routes=[HandlesItself("/a", on, methods=["POST"])]), shut=["PUT /a"]
    ),
    "route behind known middleware": Case(
        lambda: FastAPI(routes=[Route("/a", Resource, middleware=[Middleware(GZipMiddleware)])]),
        passed=["/a"],
        blocked=["POST /a"],
        left=["PUT /a"],
    ),
    **{
        f"class of route with its own handle, in a router at {prefix!r}": Case(
            included(APIRouter, prefix, route_class=HandlingRoute), [f"{prefix}/x"], left=[f"{prefix}/nothing"]
        )
        for prefix in ("", "/a", "/a/b")
    },
}
if NESTED:
    CASES["router with its own handle, included"] = Case(
        included(HandlingRouter, "/a"), ["/a/x", "/a/off"], left=["/a/nothing"]
    )


@pytest.mark.parametrize("name", CASES)
async def test_routes_and_endpoints_are_decided_by_what_they_match_and_answer(name: str) -> None:
    await assert_decided(CASES[name])


class Helped(HTTPEndpoint):
    """A class with functions that are no methods of HTTP, and marks on them."""

    @force_maintenance_mode_on
    async def get(self, request: Request) -> PlainTextResponse:
        return await serve(request)

    async def post(self, request: Request) -> PlainTextResponse:
        return await serve(request)

    @force_maintenance_mode_off
    async def put(self, request: Request) -> PlainTextResponse:
        return await serve(request)

    @force_maintenance_mode_on
    async def purge(self, request: Request) -> PlainTextResponse:
        return await serve(request)

    @force_maintenance_mode_on
    async def query(self, request: Request) -> PlainTextResponse:
        return await serve(request)


@pytest.mark.parametrize("where", [itself, mounted])
async def test_endpoint_class_answers_the_methods_that_starlette_lists_and_refuses_all_others(
    where: Callable[[ASGIApp], ASGIApp],
) -> None:
    """A server passes any word as the method, and `get` is another one than `GET` (RFC 9110 9.1)."""
    words = ["DISPATCH", "dispatch", "METHOD_NOT_ALLOWED", "__INIT__", "SCOPE", "get", "post", "put", "PURGE", "Get"]
    make = at_a(lambda: Helped)
    if await statuses(make(), "PURGE /a") != [405]:
        words = []  # an older Starlette accepts any function of the class
    has_query = await statuses(make(), "QUERY /a") == [200]  # Starlette added it in 2026
    paths = ("/a", "/in/a")
    await assert_decided(
        Case(
            lambda: where(make()),
            blocked=[f"POST {path}" for path in paths],
            passed=[f"PUT {path}" for path in paths],
            shut=[
                f"{method} {path}" for method in ("GET", "HEAD", *(["QUERY"] if has_query else [])) for path in paths
            ],
            left=[f"{method} {path}" for method in (*words, "DELETE") for path in paths],
        )
    )
    assert has_query or await statuses(around(make()), "QUERY /a") == [405]


# Routes that change or fail


async def test_routes_added_after_the_first_request_are_seen() -> None:
    router, inner, app = APIRouter(), FastAPI(), FastAPI()
    app.include_router(router, prefix="/a")
    app.mount("/b", inner)
    closed = around(app)
    places: list[Any] = [app, inner, *([router] if NESTED else [])]
    paths = ["/late", "/b/late", "/a/late"][: len(places)]
    before = await statuses(closed, *paths)
    for place in places:
        place.add_api_route("/late", marked)
        place.add_api_route("/late/unmarked", unmarked)
    after = await statuses(closed, *(path + end for path in paths for end in ("", "/unmarked")))
    assert (before, after) == ([404] * len(paths), [200, 503] * len(paths))


async def test_routes_of_an_app_mounted_in_place_of_another_are_seen() -> None:
    mount = Mount("/a", routes=[Route("/x", plain)])
    closed = around(FastAPI(routes=[mount]))
    found = await statuses(closed, "/a/x")
    mount.app = FastAPI(routes=[Route("/x", off)])
    assert [*found, *await statuses(closed, "/a/x", "/a/x")] == [503, 200, 200]


async def test_routes_that_change_the_scope_while_asked_change_only_a_copy() -> None:
    class Recording(Route):
        def matches(self, scope: Scope) -> tuple[Match, Scope]:
            seen.append("recorded" in scope)
            scope["recorded"] = True
            return super().matches(scope)

    seen: list[bool] = []
    assert await statuses(around(FastAPI(routes=[Recording("/", off)])), "/") == [200]
    assert not seen[-1]


async def test_routes_that_fail_to_match_block_and_fail_in_the_app_without_maintenance() -> None:
    app = FastAPI(routes=[Anything(None)])
    assert await statuses(around(app), "/") == [503]
    with pytest.raises(ZeroDivisionError):
        await statuses(around(app, state=False), "/")


class Strange(Route):
    """A route with its own pattern, whose path cannot be compiled, or with an attribute that fails."""

    failing = ""

    def __init__(self, path: str, failing: str = "") -> None:
        super().__init__("/x", plain)
        self.path = path
        self.path_regex = re.compile("^/strange/(?P<rest>.*)$")
        self.param_convertors = {"rest": StringConvertor()}
        self.failing = failing

    def __getattribute__(self, name: str) -> Any:  # noqa: ANN401 -- of any attribute
        if name == object.__getattribute__(self, "failing"):
            raise ZeroDivisionError(name)
        return super().__getattribute__(name)


@pytest.mark.parametrize(
    "route",
    [
        *(Strange(path) for path in ("/x/{bad", "{a}{a}", "/{a:nothing}")),
        *(Strange("/x", name) for name in ("path", "path_regex", "matches", "methods", "handle")),
    ],
)
@pytest.mark.parametrize("where", [itself, mounted])
async def test_routes_that_cannot_be_indexed_block_and_leave_others_alone(
    route: Strange, where: Callable[[ASGIApp], ASGIApp]
) -> None:
    app = where(FastAPI(routes=[Route("/health", off), Route("/closed", plain), route]))
    assert await statuses(around(app), "/health", "/closed", "/strange/thing") == [200, 503, 503]


@pytest.mark.skipif(not NESTED, reason="included routers are flat in this FastAPI")
async def test_routes_that_cannot_be_indexed_in_an_included_router_block_and_leave_others_alone() -> None:
    router, app = APIRouter(), FastAPI(routes=[Route("/health", off)])
    router.routes.append(Strange("{a}{a}"))
    app.include_router(router)
    assert await statuses(around(app), "/health", "/anything") == [200, 503]


async def test_routes_of_an_app_that_fails_on_the_way_to_them_block() -> None:
    class Failing(FastAPI):
        @property
        def user_middleware(self) -> Any:  # noqa: ANN401 -- there is none
            raise ZeroDivisionError

        @user_middleware.setter
        def user_middleware(self, value: Any) -> None: ...  # noqa: ANN401 -- there is none

    assert await statuses(around(Failing()), "/") == [503]
