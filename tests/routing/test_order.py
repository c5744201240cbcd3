"""`_routing/routes.py`: routes are asked in the app's order, each by its own `matches`; one that fails blocks."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute
from starlette.convertors import StringConvertor
from starlette.routing import Match, Mount, Route
from starlette.types import ASGIApp, Scope

from fastapi_maintenance import force_maintenance_mode_on
from tests.routing.apps import (
    MARKS,
    NESTED,
    Anything,
    Case,
    around,
    assert_decided,
    itself,
    marked,
    mounted,
    off,
    on,
    overridden_method,
    plain,
    statuses,
    unmarked,
    wrapping,
)

pytestmark = MARKS


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
}


@pytest.mark.parametrize("name", CASES)
async def test_routes_are_decided_each_by_its_own_match(name: str) -> None:
    await assert_decided(CASES[name])


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


# Routes that fail


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
