"""The app that every variant is measured on: N routes, half with path parameters, half in nested routers.

Imported in the environment of each peer, so it needs FastAPI alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, FastAPI

__all__ = ["DETAIL", "EXEMPT", "FORCED_OFF", "PATHS", "make_app", "path_of"]

EXEMPT = "/health"
"""Whatever is below it is exempt by a predicate, where a variant has one."""

FORCED_OFF = "/open"
"""The path of the route that is forced off, where a variant can."""

DETAIL = "Service temporarily unavailable due to maintenance"
_A_ROUTER = 10
"""How many routes an inner router has."""

PATHS = {
    "first": "/first/{}",
    "last": "/api/{group}/last/{}",
    "exempt": EXEMPT + "/{}",
    "forced off": FORCED_OFF + "/{}",
    "404": "/nothing/{}",
}
"""The request of each scenario; the number makes each path a new one."""


async def item(number: int) -> dict[str, int]:
    """Answer a route with a path parameter."""
    return {"number": number}


async def fixed() -> dict[str, int]:
    """Answer a route without one."""
    return {"number": 0}


async def kept_open(number: int) -> dict[str, int]:
    """Answer the route that a variant forces off."""
    return {"number": number}


def make_app(routes: int, force_off: Callable[[Any], Any] | None = None) -> FastAPI:
    """Return an app with this many routes, 10 or more and even.

    Half of them are on the app, the other half ten to a router, and these routers in another one, as an API with
    versions or resources has it. Every other route has a path parameter. The last one is in the last inner router.
    """
    app = FastAPI()
    half = routes // 2
    app.get("/first/{number}")(item)
    app.get("/fixed")(fixed)
    app.get(EXEMPT + "/{number}")(item)
    app.get("/fixed/too")(fixed)
    app.get(FORCED_OFF + "/{number}")(kept_open if force_off is None else force_off(kept_open))
    for number in range(5, half):
        _add(app.get, number)
    outer = APIRouter(prefix="/api")
    for group, begin in enumerate(range(0, half, _A_ROUTER)):
        inner = APIRouter(prefix=f"/group{group}")
        size = min(_A_ROUTER, half - begin)
        for number in range(size - 1):
            _add(inner.get, number)
        inner.get("/last/{number}")(item)
        outer.include_router(inner)
    app.include_router(outer)
    return app


def path_of(scenario: str, routes: int) -> str:
    """Return the path of a scenario, with a place for a number."""
    last_group = (routes // 2 - 1) // _A_ROUTER
    return PATHS[scenario].replace("{group}", f"group{last_group}")


def _add(get: Callable[..., Any], number: int) -> None:
    if number % 2:
        get(f"/thing{number}/{{number}}")(item)
    else:
        get(f"/thing{number}")(fixed)
