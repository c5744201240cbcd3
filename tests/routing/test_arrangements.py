"""Other arrangements: around, inside and below apps of any kind, seen through or not."""

from __future__ import annotations

import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from fastapi_maintenance import (
    MemoryBackend,
    maintenance_middleware,
    not_,
    path_prefix,
)
from tests.routing.apps import (
    EXPECTED,
    MARKS,
    TRIED,
    as_added,
    as_wrapped,
    as_wrapped_app,
    hiding,
    in_an_included_router,
    in_routers_three_deep,
    plain,
    starlette_routes,
    unmarked,
)
from tests.support import client

pytestmark = MARKS


async def test_the_server_may_have_a_root_path() -> None:
    app = as_added(in_an_included_router(), MemoryBackend(state=True))
    async with client(app, root_path="/behind/proxy") as http:
        statuses = [(await http.get(f"/behind/proxy/b/a{path}")).status_code for path in TRIED]
        docs = (await http.get("/behind/proxy/docs")).status_code
    assert ([503, 200, 503, 404], 200) == (statuses, docs)


async def test_the_middleware_may_be_inside_a_mounted_app_and_around_it_too() -> None:
    inner, outer = in_an_included_router(), FastAPI()
    outer.mount("/in", as_added(inner, MemoryBackend(state=True)))
    outer.add_api_route("/outside", unmarked)
    async with client(outer) as http:
        assert EXPECTED[True] == [(await http.get(f"/in/b/a{path}")).status_code for path in TRIED]
        assert 200 == (await http.get("/outside")).status_code
    async with client(as_wrapped(outer, MemoryBackend(state=False))) as http:
        assert EXPECTED[True] == [(await http.get(f"/in/b/a{path}")).status_code for path in TRIED]


async def test_what_fastapi_has_noted_in_the_scope_on_the_way_to_a_mounted_app_is_left_as_it_is() -> None:
    seen: list[Scope] = []

    def note(app: ASGIApp) -> ASGIApp:
        async def noting(scope: Scope, receive: Receive, send: Send) -> None:
            scope["fastapi"] = {"noted": True}
            await app(scope, receive, send)
            seen.append(scope["fastapi"])

        return noting

    inner = in_routers_three_deep()
    async with client(note(as_added(inner, MemoryBackend(state=True)))) as http:
        assert EXPECTED[True] == [(await http.get(f"/d/c/b/a{path}")).status_code for path in TRIED]
    assert [True] * 4 == [noted["noted"] for noted in seen]
    assert {"noted"} == set(seen[0])  # of a request that was blocked, nothing but that


@pytest.mark.parametrize(
    "app",
    [Starlette(routes=starlette_routes()), Router(starlette_routes()), Mount("", routes=starlette_routes())],
    ids=["Starlette", "Router", "Mount"],
)
async def test_an_application_that_is_not_fastapi_can_be_wrapped(app: ASGIApp) -> None:
    async with client(as_wrapped_app(app)) as http:
        assert [503, 200, 503, 404] == [(await http.get(path)).status_code for path in TRIED]


async def test_a_chain_of_middleware_without_end_is_not_followed_for_ever() -> None:
    class Circle:
        """Middleware that wraps itself."""

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            await PlainTextResponse("open")(scope, receive, send)

    circle = Circle()
    circle.app = circle  # type: ignore[attr-defined]  # the mistake that is tested
    async with client(as_wrapped_app(circle)) as http:
        assert 503 == (await http.get("/")).status_code


async def test_behind_a_layer_that_hides_the_app_a_path_may_have_a_root_path_before_it() -> None:
    app = FastAPI(root_path="/api")
    app.add_api_route("/billing", plain)
    app.add_api_route("/items", plain)
    outside = maintenance_middleware(backend=MemoryBackend(state=True), exempt=not_(path_prefix("/billing")))
    async with client(outside(hiding(app))) as http:
        paths = ("/api/billing", "/billing", "/api/items", "/items")
        assert [503, 503, 200, 200] == [(await http.get(path)).status_code for path in paths]
