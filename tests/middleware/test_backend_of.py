"""The backend of an app that has not been started, as the command looks for it: nothing of the user's runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.middleware.gzip import GZipMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from fastapi_maintenance import MaintenanceModeMiddleware, MemoryBackend, StateBackend, maintenance_middleware
from fastapi_maintenance._switch import current_backend
from fastapi_maintenance.middleware import backend_of
from fastapi_maintenance.openapi import document_maintenance
from fastapi_maintenance.testing import maintenance_forced
from tests.support import client

pytestmark = pytest.mark.anyio


class Connecting:
    """A middleware of the user's that does something when it is made."""

    made = 0

    def __init__(self, app: ASGIApp) -> None:
        type(self).made += 1
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)


class OwnMaintenance(MaintenanceModeMiddleware):
    """A subclass with a setting of its own."""

    def __init__(self, app: ASGIApp, *, switch: StateBackend) -> None:
        super().__init__(app, backend=switch)


def add_function(app: FastAPI, backend: StateBackend) -> None:
    app.add_middleware(maintenance_middleware(backend=backend))


def add_factory(app: FastAPI, backend: StateBackend) -> None:
    app.add_middleware(maintenance_middleware, backend=backend)


def add_class(app: FastAPI, backend: StateBackend) -> None:
    app.add_middleware(MaintenanceModeMiddleware, backend=backend)


def add_subclass(app: FastAPI, backend: StateBackend) -> None:
    app.add_middleware(OwnMaintenance, switch=backend)


def add_partial(app: FastAPI, backend: StateBackend) -> None:
    app.add_middleware(partial(partial(MaintenanceModeMiddleware), backend=backend))


def add_partial_factory(app: FastAPI, backend: StateBackend) -> None:
    app.add_middleware(partial(maintenance_middleware, backend=backend))


Add = Callable[[FastAPI, StateBackend], None]
WAYS = [add_function, add_factory, add_class, add_subclass, add_partial, add_partial_factory]
any_way = pytest.mark.parametrize("add", WAYS)


@pytest.fixture(autouse=True)
def _none_made() -> Iterator[None]:
    Connecting.made = 0
    yield
    Connecting.made = 0


def connecting_app(add: Add, backend: StateBackend) -> FastAPI:
    app = FastAPI()
    app.add_api_route("/items", lambda: "open")
    app.add_middleware(Connecting)
    add(app, backend)
    app.add_middleware(Connecting)
    app.add_middleware(GZipMiddleware)
    return app


@any_way
def test_backend_of_app_that_is_not_built_makes_no_middleware_of_the_user(add: Add) -> None:
    backend = MemoryBackend()
    app = connecting_app(add, backend)
    found = backend_of(app)
    assert (found is backend, Connecting.made, app.middleware_stack) == (True, 0, None)


@any_way
def test_backend_of_app_that_is_built_is_that_of_its_middleware(add: Add) -> None:
    backend = MemoryBackend()
    app = connecting_app(add, backend)
    app.middleware_stack = app.build_middleware_stack()
    found = backend_of(app)
    assert (found is backend, Connecting.made) == (True, 2)


@any_way
def test_backend_of_app_that_is_not_built_leaves_the_newest_middleware_as_it_is(add: Add) -> None:
    app = connecting_app(add, MemoryBackend())
    newest = MemoryBackend()
    maintenance_middleware(backend=newest)
    backend_of(app)
    assert current_backend.resolve(None) is newest


@any_way
async def test_app_is_closed_whichever_way_the_middleware_is_added(add: Add) -> None:
    app = connecting_app(add, MemoryBackend(state=True))
    async with client(app) as visitor:
        found = (await visitor.get("/items")).status_code
    assert found == 503


def test_backend_of_app_that_is_forced_makes_no_middleware_of_the_user() -> None:
    backend = MemoryBackend()
    app = connecting_app(add_function, backend)
    with maintenance_forced(app):
        found = backend_of(app)
    assert (found is backend, Connecting.made) == (True, 0)


def test_backend_of_app_with_two_middlewares_is_that_of_the_outermost() -> None:
    inner, outer = MemoryBackend(), MemoryBackend()
    app = connecting_app(add_function, inner)
    add_class(app, outer)
    found = backend_of(app)
    assert (found is outer, Connecting.made) == (True, 0)


def test_backend_of_app_without_maintenance_is_none_and_makes_no_middleware() -> None:
    app = FastAPI()
    app.add_middleware(Connecting)
    assert (backend_of(app), Connecting.made) == (None, 0)


@any_way
def test_document_maintenance_of_app_that_is_not_built_makes_no_middleware_of_the_user(add: Add) -> None:
    app = connecting_app(add, MemoryBackend())
    document_maintenance(app)
    operation: dict[str, Any] = app.openapi()["paths"]["/items"]["get"]
    assert (sorted(operation["responses"]), Connecting.made) == (["200", "503"], 0)
