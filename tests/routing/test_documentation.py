"""`_routing/documentation.py`: the app's own documentation stays open wherever it is, and nothing else does."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute

from fastapi_maintenance import MemoryBackend, maintenance_middleware
from tests.routing.apps import MARKS, added, around, below, plain, statuses, unmarked

pytestmark = MARKS

DEFAULT = ["/docs", "/docs/oauth2-redirect", "/redoc", "/openapi.json"]


@pytest.mark.parametrize(
    ("settings", "is_open", "not_open"),
    [
        ({}, DEFAULT, ["/docsx", "/docs/x", "/openapi.json.bak", "/redoc/more"]),
        ({"docs_url": "/a/help", "openapi_url": "/a/spec"}, ["/a/help", "/a/spec"], ["/docs", "/openapi.json"]),
        ({"openapi_url": None}, [], DEFAULT),
        ({"docs_url": None, "redoc_url": None}, ["/openapi.json"], ["/docs", "/redoc"]),
    ],
)
@pytest.mark.parametrize("prefix", ["", "/mounted"])
async def test_documentation_wherever_the_app_put_it_stays_open(
    settings: dict[str, Any], is_open: list[str], not_open: list[str], prefix: str
) -> None:
    documented = FastAPI(**settings)
    documented.add_api_route("/{path:path}", unmarked, methods=["GET", "POST"], include_in_schema=False)
    documented.add_route("/{path:path}", plain, methods=["PATCH"])
    outer = FastAPI(openapi_url=None)
    if prefix:
        outer.mount(prefix, documented)
    app = added(outer if prefix else documented)
    opened = below(prefix, *is_open)
    assert await statuses(app, *opened, *(f"HEAD {path}" for path in opened)) == [200] * 2 * len(opened)
    closed = [*below(prefix, *not_open), *(f"{method} {prefix}/docs" for method in ("POST", "PATCH"))]
    assert await statuses(app, *closed) == [503] * len(closed)


async def test_documentation_replaced_by_an_endpoint_of_the_app_is_blocked() -> None:
    app = FastAPI()
    app.router.routes.insert(0, APIRoute("/docs", unmarked))
    assert await statuses(around(app), "/docs", "/redoc") == [503, 200]


async def test_documentation_without_exempt_docs_is_blocked() -> None:
    app = maintenance_middleware(backend=MemoryBackend(state=True), exempt_docs=False)(FastAPI())
    assert await statuses(app, *DEFAULT) == [503] * 4
