"""`middleware.py`: the backend of an app that has not started is found, as for the command, and no user code runs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, wraps
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.middleware.gzip import GZipMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from fastapi_maintenance import (
    MaintenanceModeMiddleware,
    MemoryBackend,
    StateBackend,
    get_maintenance_mode,
    maintenance_middleware,
)
from fastapi_maintenance.middleware import backend_of
from fastapi_maintenance.openapi import document_maintenance
from fastapi_maintenance.testing import maintenance_forced
from tests.support import client

pytestmark = pytest.mark.anyio


class Connecting:
    """A middleware of the user that does something when it is created."""

    created = 0

    def __init__(self, app: ASGIApp) -> None:
        type(self).created += 1
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)


class OwnMaintenance(MaintenanceModeMiddleware):
    """A subclass with its own setting."""

    def __init__(self, app: ASGIApp, *, switch: StateBackend) -> None:
        super().__init__(app, backend=switch)


@wraps(maintenance_middleware)
def wrapped_factory(app: ASGIApp, *, backend: StateBackend) -> ASGIApp:
    return GZipMiddleware(maintenance_middleware(app, backend=backend))


Add = Callable[[FastAPI, StateBackend], None]
ADD: dict[str, Add] = {
    "function": lambda app, backend: app.add_middleware(maintenance_middleware(backend=backend)),
    "factory": lambda app, backend: app.add_middleware(maintenance_middleware, backend=backend),
    "class": lambda app, backend: app.add_middleware(MaintenanceModeMiddleware, backend=backend),
    "subclass": lambda app, backend: app.add_middleware(OwnMaintenance, switch=backend),
    "partial": lambda app, backend: app.add_middleware(partial(partial(MaintenanceModeMiddleware), backend=backend)),
    "wrapped factory": lambda app, backend: app.add_middleware(wrapped_factory, backend=backend),
    "partial factory": lambda app, backend: app.add_middleware(partial(maintenance_middleware, backend=backend)),
}
any_way = pytest.mark.parametrize("add", ADD.values(), ids=ADD)


@pytest.fixture(autouse=True)
def _none_created(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Connecting, "created", 0)


def connecting_app(add: Add, backend: StateBackend) -> FastAPI:
    app = FastAPI()
    app.add_api_route("/items", lambda: "open")
    app.add_middleware(Connecting)
    add(app, backend)
    app.add_middleware(Connecting)
    app.add_middleware(GZipMiddleware)
    return app


@any_way
async def test_backend_of_app_that_is_not_built_creates_no_middleware_of_the_user(add: Add) -> None:
    backend, newest = MemoryBackend(), MemoryBackend(state=True)
    app = connecting_app(add, backend)
    maintenance_middleware(backend=newest)
    assert backend_of(app) is backend
    document_maintenance(app)
    operation: dict[str, Any] = app.openapi()["paths"]["/items"]["get"]
    assert (sorted(operation["responses"]), Connecting.created, app.middleware_stack) == (["200", "503"], 0, None)
    assert await get_maintenance_mode(), "the newest middleware is still the default"


@any_way
async def test_backend_of_app_that_is_built_is_that_of_its_middleware(add: Add) -> None:
    backend = MemoryBackend(state=True)
    app = connecting_app(add, backend)
    async with client(app) as visitor:
        status = (await visitor.get("/items")).status_code
    assert (status, backend_of(app) is backend, Connecting.created) == (503, True, 2)


def test_backend_of_app_that_is_forced_creates_no_middleware_of_the_user() -> None:
    backend = MemoryBackend()
    app = connecting_app(ADD["function"], backend)
    with maintenance_forced(app):
        found = backend_of(app)
    assert (found is backend, Connecting.created) == (True, 0)


def test_backend_of_app_with_two_middlewares_is_that_of_the_outermost() -> None:
    inner, outer = MemoryBackend(), MemoryBackend()
    app = connecting_app(ADD["function"], inner)
    ADD["class"](app, outer)
    assert (backend_of(app) is outer, Connecting.created) == (True, 0)


def test_backend_of_app_without_maintenance_is_none() -> None:
    app = FastAPI()
    app.add_middleware(Connecting)
    assert (backend_of(app), Connecting.created) == (None, 0)
