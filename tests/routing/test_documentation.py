"""The app's own documentation stays open wherever the app put it, and nothing else does."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute

from fastapi_maintenance import (
    MemoryBackend,
    maintenance_middleware,
)
from tests.routing.apps import MARKS, as_added, plain, unmarked
from tests.support import client

pytestmark = MARKS


DEFAULT_DOCS = ["/docs", "/docs/oauth2-redirect", "/redoc", "/openapi.json"]


@pytest.mark.parametrize(
    ("settings", "is_open", "not_open"),
    [
        ({}, DEFAULT_DOCS, ["/docsx", "/docs/x", "/openapi.json.bak", "/redoc/more"]),
        ({"docs_url": "/a/help", "openapi_url": "/a/spec"}, ["/a/help", "/a/spec"], ["/docs", "/openapi.json"]),
        ({"openapi_url": None}, [], DEFAULT_DOCS),
        ({"docs_url": None, "redoc_url": None}, ["/openapi.json"], ["/docs", "/redoc"]),
    ],
)
@pytest.mark.parametrize("prefix", ["", "/mounted"])
async def test_the_documentation_stays_open_wherever_the_app_put_it(
    settings: dict[str, Any], is_open: list[str], not_open: list[str], prefix: str
) -> None:
    documented = FastAPI(**settings)
    documented.add_api_route("/{path:path}", unmarked, methods=["GET", "POST"], include_in_schema=False)
    documented.add_route("/{path:path}", plain, methods=["PATCH"])
    app = FastAPI(openapi_url=None)
    if prefix:
        app.mount(prefix, documented)
    async with client(as_added(app if prefix else documented, MemoryBackend(state=True))) as http:
        assert [200] * len(is_open) == [(await http.get(prefix + path)).status_code for path in is_open]
        assert [200] * len(is_open) == [(await http.head(prefix + path)).status_code for path in is_open]
        assert [503] * len(not_open) == [(await http.get(prefix + path)).status_code for path in not_open]
        assert 503 == (await http.post(prefix + "/docs")).status_code
        assert 503 == (await http.patch(prefix + "/docs")).status_code


async def test_an_endpoint_of_the_app_in_the_place_of_its_documentation_is_closed_as_others_are() -> None:
    app = FastAPI()
    app.router.routes.insert(0, APIRoute("/docs", unmarked))
    async with client(as_added(app, MemoryBackend(state=True))) as http:
        assert [503, 200] == [(await http.get(path)).status_code for path in ("/docs", "/redoc")]


async def test_the_documentation_is_closed_on_request() -> None:
    app = FastAPI()
    app.add_middleware(maintenance_middleware(backend=MemoryBackend(state=True), exempt_docs=False))
    async with client(app) as http:
        assert [503] * 4 == [(await http.get(path)).status_code for path in DEFAULT_DOCS]
