"""What is measured: one app without a middleware, with this library on each backend, and with its alternatives.

A variant is made in the environment of its peer, so this module needs only FastAPI; each maker imports the rest.
"""

from __future__ import annotations

import importlib
import itertools
import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from fastapi import APIRouter, FastAPI
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

_DETAIL = "Service temporarily unavailable due to maintenance"
_ROUTES_PER_ROUTER = 10
_PATHS = {
    "first": "/first/{}",
    "last": "/api/{group}/last/{}",
    "exempt": "/health/{}",  # by the first part of a predicate, where a variant has one
    "forced off": "/open/{}",  # by a decorator of its route, where a variant has one
    "404": "/nothing/{}",
    "alone": "/first/{}",  # where no route is reached
}
_BODY = json.dumps({"detail": _DETAIL}, separators=(",", ":")).encode()
_HEADERS = [
    (b"content-length", str(len(_BODY)).encode()),
    (b"content-type", b"application/json"),
    (b"retry-after", b"3600"),
    (b"cache-control", b"no-store"),
    (b"x-maintenance-mode", b"on"),
    (b"access-control-expose-headers", b"Retry-After, X-Maintenance-Mode"),
]
_BY_HAND = {name.decode(): value.decode() for name, value in _HEADERS[2:]}
_numbers = itertools.count()

REQUEST_HEADERS = {
    "host": "shop.example",
    "user-agent": "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
    "accept": "application/json, text/plain, */*",
    "accept-language": "en-US,en;q=0.5",
    "accept-encoding": "gzip, deflate, br, zstd",
    "referer": "https://shop.example/basket",
    "cookie": "session=3f2b8c1e; theme=dark",
    "connection": "keep-alive",
}
"""What each request is sent with."""


def path_of(scenario: str, routes: int) -> str:
    """Return the path of a scenario, with `{}` in the place of a number that makes each request a new one."""
    last_group = (routes // 2 - 1) // _ROUTES_PER_ROUTER
    return _PATHS[scenario].replace("{group}", f"group{last_group}")


async def item(number: int) -> dict[str, int]:
    """Answer a route with a path parameter."""
    return {"number": number}


async def fixed() -> dict[str, int]:
    """Answer a route without one."""
    return {"number": 0}


def make_app(routes: int, force_off: Callable[[Any], Any] | None = None, *, alone: bool = False) -> FastAPI:
    """Return an app with this many routes, 10 or more and even.

    Half of them are on the app, the other half ten to a router, and these routers in another one, as an API with
    versions or resources has it. Every other route has a path parameter. The last one is in the last inner router.
    No request reaches them if `alone`: what is around them is measured alone.
    """
    app, outer, half = FastAPI(), APIRouter(prefix="/api"), routes // 2

    async def forced(number: int) -> dict[str, int]:
        return {"number": number}

    app.get("/first/{number}")(item)
    app.get("/fixed")(fixed)
    app.get("/health/{number}")(item)
    app.get("/fixed/too")(fixed)
    app.get("/open/{number}")(force_off(forced) if force_off else forced)
    _fill(app, range(5, half))
    for group, begin in enumerate(range(0, half, _ROUTES_PER_ROUTER)):
        inner = APIRouter(prefix=f"/group{group}")
        _fill(inner, range(min(_ROUTES_PER_ROUTER, half - begin) - 1))
        inner.get("/last/{number}")(item)
        outer.include_router(inner)
    app.include_router(outer)
    if alone:
        app.add_middleware(Answering, answer=shortcut)
    return app


def _fill(router: FastAPI | APIRouter, numbers: range) -> None:
    for number in numbers:
        path, endpoint = (f"/thing{number}/{{number}}", item) if number % 2 else (f"/thing{number}", fixed)
        router.get(path)(endpoint)


class Nothing:
    """A middleware that does nothing."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on."""
        await self.app(scope, receive, send)


class Answering:
    """A middleware that answers every request with a fixed app; only the lifespan reaches the app inside."""

    def __init__(self, app: ASGIApp, answer: ASGIApp) -> None:
        self.app = app
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        await (self.app if scope["type"] == "lifespan" else self._answer)(scope, receive, send)


async def shortcut(_scope: Scope, _receive: Receive, send: Send) -> None:
    """Answer 200 at once, instead of a route, so that the cost of what is around it stands out."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})


async def bare_503(_scope: Scope, _receive: Receive, send: Send) -> None:
    """Send what this library sends to a blocked request, in the least number of steps."""
    await send({"type": "http.response.start", "status": 503, "headers": _HEADERS})
    await send({"type": "http.response.body", "body": _BODY})


async def response_503(scope: Scope, receive: Receive, send: Send) -> None:
    """Send the same with a response of Starlette, as somebody would who writes it by hand."""
    await JSONResponse({"detail": _DETAIL}, status_code=503, headers=_BY_HAND)(scope, receive, send)


_FLOOR: dict[str, Callable[[ASGIApp], ASGIApp] | None] = {
    "plain": None,
    "nothing": Nothing,
    "bare 503": partial(Answering, answer=bare_503),
    "response 503": partial(Answering, answer=response_503),
}
OURS = ("env", "memory", "file", "redis", "postgresql", "cached", "memory class")
"""This library with each backend, by the factory; the last by the class."""

PEERS = {"0.0.5": ("0.0.5 env", "0.0.5 file"), "waygate": ("waygate",)}
VARIANTS = {
    "ours": (*_FLOOR, *OURS),
    **{peer: (*names, *(f"{floor} of {peer}" for floor in _FLOOR)) for peer, names in PEERS.items()},
}
"""What the environment of each peer makes; its FastAPI is another, so what it is compared with is made there too."""

PEER_OF = {name: peer for peer, names in VARIANTS.items() for name in names}


def base_of(variant: str, floor: str) -> str:
    """Return what a variant is compared with: that floor in the environment of the variant."""
    peer = PEER_OF[variant]
    return floor if peer == "ours" else f"{floor} of {peer}"


async def make(name: str, routes: int, *, on: bool, alone: bool = False) -> FastAPI:
    """Make the app of a variant, which is in maintenance if `on`."""
    new_app, kind = partial(make_app, routes, alone=alone), name.split(" of ", maxsplit=1)[0]
    if kind in _FLOOR:
        app = new_app()
        if middleware := _FLOOR[kind]:
            app.add_middleware(middleware)
        return app
    return await (_waygate(new_app, on=on) if kind == "waygate" else _maintenance(new_app, kind, on=on))


async def _maintenance(new_app: Callable[..., FastAPI], variant: str, *, on: bool) -> FastAPI:
    library: Any = importlib.import_module("fastapi_maintenance")
    *old, kind = variant.removesuffix(" class").split()
    key = f"MAINTENANCE_{os.getpid()}_{next(_numbers)}"
    app, backend = new_app(library.force_maintenance_mode_off), _backend(kind, key)
    exempt = (lambda request: request.url.path.startswith("/health/")) if old else _exempt(library)
    if old or variant.endswith(" class"):
        app.add_middleware(library.MaintenanceModeMiddleware, backend=backend, exempt_handler=exempt)
    else:
        app.add_middleware(library.maintenance_middleware(backend=backend, exempt=exempt))
    if kind == "env":
        os.environ[key] = str(int(on))
    else:
        await backend.set_value(on)
    return app


def _exempt(library: Any) -> Any:  # noqa: ANN401 -- a predicate of the module that was found
    return library.any_of(library.path_prefix("/health"), library.header_equals("X-Admin-Key", "secret-key"))


def _backend(kind: str, key: str) -> Any:  # noqa: ANN401 -- what the module that was found has
    backends: Any = importlib.import_module("fastapi_maintenance.backends")
    if kind == "env":
        return backends.EnvVarBackend(key)
    if kind == "memory":
        return backends.MemoryBackend()
    if kind in {"file", "cached"}:
        file = backends.LocalFileBackend(str(Path(os.environ["BENCHMARK_FOLDER"], key)))
        return backends.cached(file) if kind == "cached" else file
    return backends.backend_from_url(f"{os.environ[f'STORE_{kind.upper()}']}?key={key}")


async def _waygate(new_app: Callable[..., FastAPI], *, on: bool) -> FastAPI:
    waygate: Any = importlib.import_module("waygate")
    for_fastapi: Any = importlib.import_module("waygate.fastapi")
    engine = waygate.make_engine(backend_type="memory")
    app = new_app(for_fastapi.force_active)
    app.add_middleware(for_fastapi.WaygateMiddleware, engine=engine)
    if on:
        await engine.enable_global_maintenance(reason=_DETAIL, exempt_paths=["/health/{number}"])
    return app
