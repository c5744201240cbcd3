"""A failure while looking for the route blocks, and is in no other route's way."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI
from starlette.convertors import StringConvertor
from starlette.routing import Route
from starlette.types import ASGIApp

from fastapi_maintenance import (
    MemoryBackend,
)
from tests.routing.apps import MARKS, NESTED, as_wrapped, as_wrapped_app, itself, marked, mounted, off, plain
from tests.support import client

pytestmark = MARKS


class Strange(Route):
    """A route with a pattern of its own, whose path cannot be compiled, or with an attribute that fails."""

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
        Strange("/x/{bad"),
        Strange("{a}{a}"),
        Strange("/{a:nothing}"),
        Strange("/x", "path"),
        Strange("/x", "path_regex"),
        Strange("/x", "matches"),
        Strange("/x", "methods"),
        Strange("/x", "handle"),
    ],
)
@pytest.mark.parametrize("where", [itself, mounted])
async def test_a_route_that_cannot_be_indexed_is_asked_and_is_in_nobodys_way(
    route: Strange, where: Callable[[ASGIApp], ASGIApp]
) -> None:
    app = where(FastAPI(routes=[Route("/health", off), Route("/closed", plain), route]))
    async with client(as_wrapped_app(app)) as http:
        assert [200, 503, 503] == [
            (await http.get(path)).status_code for path in ("/health", "/closed", "/strange/thing")
        ]


@pytest.mark.skipif(not NESTED, reason="included routers are flat in this FastAPI")
async def test_a_route_that_fails_in_an_included_router_is_in_nobodys_way() -> None:
    router, app = APIRouter(), FastAPI()
    app.add_api_route("/health", marked)
    router.routes.append(Strange("{a}{a}"))
    app.include_router(router)
    async with client(as_wrapped(app, MemoryBackend(state=True))) as http:
        assert [200, 503] == [(await http.get(path)).status_code for path in ("/health", "/anything")]


async def test_a_failure_on_the_way_to_the_routes_blocks() -> None:
    class Failing(FastAPI):
        @property
        def user_middleware(self) -> Any:  # noqa: ANN401 -- there is none
            raise ZeroDivisionError

        @user_middleware.setter
        def user_middleware(self, value: Any) -> None: ...  # noqa: ANN401 -- there is none

    async with client(as_wrapped(Failing(), MemoryBackend(state=True))) as http:
        assert 503 == (await http.get("/")).status_code
