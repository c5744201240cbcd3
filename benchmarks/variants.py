"""What is measured: the floor and the limit, this library with each backend, and what users would pick instead.

A variant is made in a worker that runs in the environment of its peer, so each imports what it needs by itself.
"""

from __future__ import annotations

import importlib
import itertools
import os
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from apps import DETAIL, EXEMPT, make_app
from floor import Answering, Nothing, Shortcut, bare_503, empty, response_503
from starlette.requests import Request
from starlette.types import ASGIApp

__all__ = ["ALONE", "BACKENDS", "VARIANTS", "Variant", "make"]

_numbers = itertools.count()


async def _nothing_to_set(_active: bool) -> None:  # noqa: FBT001 -- the switch of an app that has none
    pass


@dataclass(frozen=True)
class Variant:
    """An app to be measured, and its switch."""

    app: ASGIApp
    switch: Callable[[bool], Awaitable[object]] = _nothing_to_set


def _alone(app: ASGIApp, *, routes: int, shortcut: bool) -> Variant:  # noqa: ARG001 -- the same for all
    return Variant(app)


def _floor(middleware: Any = None, *, routes: int, shortcut: bool, **keywords: Any) -> Variant:  # noqa: ANN401 -- any
    app = make_app(routes)
    if shortcut:
        app.add_middleware(Shortcut)
    if middleware is not None:
        app.add_middleware(middleware, **keywords)
    return Variant(app)


def _ours(kind: str, *, by_class: bool, routes: int, shortcut: bool) -> Variant:
    library: Any = importlib.import_module("fastapi_maintenance")
    app = make_app(routes, library.force_maintenance_mode_off)
    if shortcut:
        app.add_middleware(Shortcut)
    variable = _new_variable()
    backend = _backend(kind, variable)
    exempt = library.path_prefix(EXEMPT)
    if by_class:
        app.add_middleware(library.MaintenanceModeMiddleware, backend=backend, exempt_callback=exempt)
    else:
        app.add_middleware(library.maintenance_middleware(backend=backend, exempt=exempt))

    async def switch(active: bool) -> None:  # noqa: FBT001 -- the switch
        if kind == "env":
            os.environ[variable] = str(int(active))
        else:
            await library.set_maintenance_mode(active, backend)

    return Variant(app, switch)


def _backend(kind: str, variable: str) -> Any:  # noqa: ANN401 -- what the module that was found has
    library: Any = importlib.import_module("fastapi_maintenance")
    if kind == "env":
        return library.EnvVarBackend(variable)
    if kind == "memory":
        return library.MemoryBackend()
    if kind == "file":
        return library.LocalFileBackend(_new_file())
    if kind == "cached":
        return library.cached(library.LocalFileBackend(_new_file()))
    return library.backend_from_url(f"{os.environ[f'STORE_{kind.upper()}']}?key={variable}")


def _new_variable() -> str:
    return f"MAINTENANCE_{os.getpid()}_{next(_numbers)}"


def _new_file() -> str:
    return str(Path(tempfile.mkdtemp(dir=os.environ["BENCHMARK_FOLDER"]), "switch"))


def _version_0_0_5(kind: str, *, routes: int, shortcut: bool) -> Variant:
    library: Any = importlib.import_module("fastapi_maintenance")
    backends: Any = importlib.import_module("fastapi_maintenance.backends")
    app = make_app(routes, library.force_maintenance_mode_off)
    if shortcut:
        app.add_middleware(Shortcut)
    variable = _new_variable()
    backend = backends.EnvVarBackend(variable) if kind == "env" else backends.LocalFileBackend(_new_file())

    def exempt(request: Request) -> bool:
        return request.url.path.startswith(EXEMPT + "/")

    app.add_middleware(library.MaintenanceModeMiddleware, backend=backend, exempt_handler=exempt)

    async def switch(active: bool) -> None:  # noqa: FBT001 -- the switch
        if kind == "env":
            os.environ[variable] = str(int(active))
        else:
            await backend.set_value(active)

    return Variant(app, switch)


def _waygate(*, routes: int, shortcut: bool) -> Variant:
    waygate: Any = importlib.import_module("waygate")
    for_fastapi: Any = importlib.import_module("waygate.fastapi")
    engine = waygate.make_engine(backend_type="memory")
    app = make_app(routes, for_fastapi.force_active)
    if shortcut:
        app.add_middleware(Shortcut)
    app.add_middleware(for_fastapi.WaygateMiddleware, engine=engine)

    async def switch(active: bool) -> None:  # noqa: FBT001 -- the switch
        if active:
            await engine.enable_global_maintenance(reason=DETAIL, exempt_paths=[EXEMPT + "/{number}"])
        else:
            await engine.disable_global_maintenance()

    return Variant(app, switch)


ALONE = ("driver", "bare 503", "response 503")
"""What is no app of FastAPI."""

BACKENDS = ("env", "memory", "file", "redis", "postgresql", "cached")
_FLOOR: dict[str, Callable[..., Variant]] = {
    "driver": partial(_alone, empty),
    "plain": _floor,
    "nothing": partial(_floor, Nothing),
    "bare 503": partial(_alone, bare_503),
    "bare 503 in app": partial(_floor, Answering, answer=bare_503),
    "response 503": partial(_alone, response_503),
    "response 503 in app": partial(_floor, Answering, answer=response_503),
}
_COMPARED = ("plain", "bare 503 in app", "response 503 in app")
_OURS: dict[str, Callable[..., Variant]] = {
    f"{kind} {form}": partial(_ours, kind, by_class=form == "class")
    for kind in BACKENDS
    for form in ("factory", "class")
}
VARIANTS: dict[str, dict[str, Callable[..., Variant]]] = {
    "ours": {**_FLOOR, **_OURS},
    "0.0.5": {
        **{f"0.0.5 {kind}": partial(_version_0_0_5, kind) for kind in ("env", "file")},
        **{f"{name} of 0.0.5": _FLOOR[name] for name in _COMPARED},
    },
    "waygate": {"waygate": _waygate, **{f"{name} of waygate": _FLOOR[name] for name in _COMPARED}},
}
"""The variants that each peer's environment can make; its FastAPI is another, so the floor is measured there too."""


def make(name: str, routes: int, *, shortcut: bool) -> Variant:
    """Make a variant, with this number of routes, which are not reached if `shortcut`."""
    makers = {variant: maker for of_peer in VARIANTS.values() for variant, maker in of_peer.items()}
    return makers[name](routes=routes, shortcut=shortcut)
