"""`_routing/endpoints.py`: endpoints and routes with their own dispatch or handle answer all methods."""

from __future__ import annotations

from collections.abc import Callable, Generator
from functools import partial
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI, Request
from starlette.endpoints import HTTPEndpoint
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import PlainTextResponse
from starlette.routing import BaseRoute, Mount, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from fastapi_maintenance import force_maintenance_mode_off, force_maintenance_mode_on
from tests.middleware.test_fuzz import AllowsAll, DispatchesItself, HandlesItself
from tests.routing.apps import (
    MARKS,
    NESTED,
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
)
from tests.routing.test_routes_property import HandlingRoute, HandlingRouter

pytestmark = MARKS


class OwnAwait(Resource):
    """A class that is awaited in its own way."""

    def __await__(self) -> Generator[Any, None, None]:
        return served(self.scope, self.receive, self.send).__await__()


class OwnInit(Resource):
    """A class that adds a function for a method to each instance."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.put = serve
        super().__init__(scope, receive, send)


class OwnGetattr(Resource):
    """A class that has a function for every method."""

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


class ByProperty(Resource):
    """A class that computes a function for some requests."""

    @property
    def put(self) -> Any:  # noqa: ANN401 -- a function, or nothing
        return serve if overridden_method(self.scope) else None


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
    "class with a property": Case(at_a(lambda: ByProperty), ["/a", "PUT /a as 2"], doubtful=["PUT /a"]),
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
async def test_endpoint_that_dispatches_or_handles_in_its_own_way_answers_all_methods(name: str) -> None:
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
