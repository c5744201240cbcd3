"""Routes are asked in the app's own order, each as it matches by itself."""

from __future__ import annotations

import pytest
from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute
from starlette.routing import Match, Mount, Route
from starlette.types import Receive, Scope, Send

from fastapi_maintenance import (
    MemoryBackend,
    force_maintenance_mode_on,
    maintenance_middleware,
)
from tests.routing.apps import (
    MARKS,
    NESTED,
    Anything,
    as_added,
    as_wrapped,
    in_routers_three_deep,
    marked,
    off,
    on,
    unmarked,
    wrapping,
)
from tests.support import client

pytestmark = MARKS


async def test_a_mark_holds_for_the_route_and_not_for_its_path() -> None:
    app = FastAPI()
    app.get("/x")(marked)
    app.post("/x")(unmarked)
    app.put("/x")(force_maintenance_mode_on(wrapping(unmarked)))
    for maintenance, expected in ((True, [200, 503, 503, 405]), (False, [200, 200, 503, 405])):
        wrapped = as_wrapped(app, MemoryBackend(state=maintenance))
        async with client(wrapped) as http:
            statuses = [(await http.request(method, "/x")).status_code for method in ("GET", "POST", "PUT", "DELETE")]
        assert expected == statuses


async def test_routes_that_are_added_after_the_first_request_are_seen() -> None:
    router, inner, app = APIRouter(), FastAPI(), FastAPI()
    app.include_router(router, prefix="/a")
    app.mount("/b", inner)
    closed = as_added(app, MemoryBackend(state=True))
    added = [(app, "/late"), (inner, "/late")] + ([(router, "/late")] if NESTED else [])
    paths = ["/late", "/b/late"] + (["/a/late"] if NESTED else [])
    async with client(closed) as http:
        before = [(await http.get(path)).status_code for path in paths]
        for where, path in added:
            where.add_api_route(path, marked)
            where.add_api_route(path + "/unmarked", unmarked)
        after = [(await http.get(path + end)).status_code for path in paths for end in ("", "/unmarked")]
    assert ([404] * len(paths), [200, 503] * len(paths)) == (before, after)


async def test_an_app_that_is_mounted_in_the_place_of_another_is_seen() -> None:
    before, after, app = FastAPI(), FastAPI(), FastAPI()
    before.add_api_route("/x", unmarked)
    after.add_api_route("/x", marked)
    app.mount("/a", before)
    closed = as_added(app, MemoryBackend(state=True))
    async with client(closed) as http:
        statuses = [(await http.get("/a/x")).status_code]
        mount = app.routes[-1]
        assert isinstance(mount, Mount)
        mount.app = after
        statuses += [(await http.get("/a/x")).status_code for _ in range(2)]
    assert [503, 200, 200] == statuses


@pytest.mark.parametrize(("path", "is_open", "closed"), [("/a/x", 404, 404), ("/a/a/x", 200, 503)])
async def test_a_mounted_app_is_asked_as_it_reads_the_path_with_its_own_root_path(
    path: str, is_open: int, closed: int
) -> None:
    inner, app = FastAPI(root_path="/elsewhere"), FastAPI()
    inner.add_api_route("/a/a/x", unmarked)
    inner.add_api_route("/x", unmarked)
    app.mount("/a", inner)
    statuses = []
    for maintenance in (False, True):
        async with client(as_wrapped(app, MemoryBackend(state=maintenance))) as http:
            statuses.append((await http.get(path)).status_code)
    assert [is_open, closed] == statuses


class ByVersion(APIRoute):
    """A class of route that asks for a header as well."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        match, child = super().matches(scope)
        versions = [value for name, value in scope["headers"] if name == b"x-version"]
        return (match, child) if versions == [self.name.encode()] else (Match.NONE, {})


@pytest.mark.parametrize("included", [False, True])
async def test_a_class_of_route_with_a_rule_of_its_own_is_asked_itself(included: bool) -> None:
    app, router = FastAPI(), APIRouter(route_class=ByVersion)
    where = router if included else app.router
    app.router.route_class = ByVersion
    where.add_api_route("/x", unmarked, name="1")
    where.add_api_route("/x", marked, name="2")
    if included:
        app.include_router(router, prefix="/a")
    closed = as_added(app, MemoryBackend(state=True))
    async with client(closed) as http:
        statuses = [
            (await http.get("/a/x" if included else "/x", headers={"X-Version": version})).status_code
            for version in ("1", "2", "3")
        ]
    assert [503, 200, 404] == statuses


@pytest.mark.parametrize("match", [Match.FULL, Match.PARTIAL])
async def test_a_route_of_an_unknown_class_has_the_mark_of_what_it_calls_its_endpoint_if_that_is_forced_on(
    match: Match,
) -> None:
    statuses = {}
    for state in (False, True):
        for name, endpoint in {"none": None, "off": marked, "on": on}.items():
            route = Anything({"endpoint": endpoint} if endpoint else {}, match)
            async with client(as_added(FastAPI(routes=[route]), MemoryBackend(state=state))) as http:
                statuses[state, name] = (await http.get("/")).status_code
    assert [statuses[False, name] for name in ("none", "off", "on")] == [200, 200, 503]
    assert [statuses[True, name] for name in ("none", "off", "on")] == [503, 503, 503]


async def test_a_route_that_fails_to_say_whether_it_matches_fails_in_the_app() -> None:
    app = FastAPI(routes=[Anything(None)])
    async with client(as_wrapped(app, MemoryBackend(state=True))) as http:
        assert 503 == (await http.get("/")).status_code
    async with client(as_wrapped(app, MemoryBackend(state=False))) as http:
        with pytest.raises(ZeroDivisionError):
            await http.get("/")


async def test_what_a_route_notes_in_the_scope_while_it_is_asked_is_for_the_app_to_be_noted_again() -> None:
    class Noting(Route):
        def matches(self, scope: Scope) -> tuple[Match, Scope]:
            noted.append("noted" in scope)
            scope["noted"] = True
            return super().matches(scope)

    noted: list[bool] = []
    app = FastAPI(routes=[Noting("/", off)])
    async with client(as_added(app, MemoryBackend(state=True))) as http:
        assert 200 == (await http.get("/")).status_code
    assert not noted[-1]


async def test_the_scope_is_left_as_it_is() -> None:
    app = in_routers_three_deep()
    seen: list[Scope] = []

    async def inner(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(dict(scope))
        await app(scope, receive, send)

    inner.app = app  # type: ignore[attr-defined]  # as classes of middleware have it
    wrapped = maintenance_middleware(backend=MemoryBackend(state=False))(inner)
    async with client(wrapped) as http:
        await http.get("/d/c/b/a/plain")
    assert {"route", "endpoint", "fastapi", "path_params"}.isdisjoint(seen[0])
