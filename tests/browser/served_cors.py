"""The apps that a page of another origin asks: in maintenance by the file `SWITCH`, with CORS in each place."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from fastapi import FastAPI, Request, Response
from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Mount

from fastapi_maintenance import LocalFileBackend, as_problem, maintenance_middleware

ORIGIN = os.environ["ORIGIN"]
CORS: dict[str, Any] = {
    "allow_origins": [ORIGIN],
    "allow_methods": ["GET", "PUT"],
    "allow_headers": ["X-Token"],
}
LISTED = ["Retry-After", "X-Maintenance-Mode"]
SWITCH = LocalFileBackend(os.environ["SWITCH"])
maintenance = maintenance_middleware(backend=SWITCH, retry_after=120)
blocking = maintenance_middleware(backend=SWITCH, retry_after=120, unmatched="block")
problem = maintenance_middleware(backend=SWITCH, retry_after=120, response=as_problem())


def shop() -> FastAPI:
    """Return an app without middleware."""
    app = FastAPI()

    @app.api_route("/items", methods=["GET", "PUT"])
    async def items(request: Request) -> dict[str, str]:
        return {"detail": (await request.body()).decode()}

    return app


def inside(settings: Any = maintenance, **cors: Any) -> FastAPI:  # noqa: ANN401 -- a middleware, and settings of CORS
    """Return the shop with CORS inside."""
    app = shop()
    app.add_middleware(CORSMiddleware, **CORS, **cors)
    app.add_middleware(settings)
    return app


def outside(**cors: Any) -> FastAPI:  # noqa: ANN401 -- as above
    """Return the shop with CORS outside."""
    app = shop()
    app.add_middleware(maintenance)
    app.add_middleware(CORSMiddleware, **CORS, **cors)
    return app


def behind_a_function() -> FastAPI:
    """Return the shop with CORS inside, and a layer of its own between."""
    app = shop()
    app.add_middleware(CORSMiddleware, **CORS)

    @app.middleware("http")
    async def stamp(request: Request, call_next: Callable[[Request], Any]) -> Response:
        response: Response = await call_next(request)
        return response

    app.add_middleware(maintenance)
    return app


def in_a_mounted_app(mounted: FastAPI) -> FastAPI:
    """Return an app without CORS in which one is mounted that has its own."""
    app = FastAPI()
    app.mount("/shop", mounted)
    app.add_middleware(maintenance)
    return app


def with_cors_only() -> FastAPI:
    """Return the shop with CORS, and no maintenance of its own."""
    app = shop()
    app.add_middleware(CORSMiddleware, **CORS)
    return app


apps = {
    "inside": inside(),
    "problem": inside(problem),
    "blocking": inside(blocking),
    "credentials": inside(allow_credentials=True, expose_headers=["X-Total"]),
    "function": behind_a_function(),
    "mounted": in_a_mounted_app(with_cors_only()),
    "outside": outside(),
    "outside-listed": outside(expose_headers=LISTED),
    "outside-credentials": outside(expose_headers=LISTED, allow_credentials=True),
    "outside-unlisted": outside(expose_headers=["X-Total"]),
}
app = Starlette(routes=[Mount(f"/{name}", each) for name, each in apps.items()])
