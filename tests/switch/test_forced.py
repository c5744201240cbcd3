"""`maintenance_forced`: which requests a forced app blocks or lets pass, whatever its switch says."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest
from anyio.lowlevel import checkpoint
from fastapi import APIRouter, FastAPI, WebSocket
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Receive, Scope, Send

from fastapi_maintenance import (
    MaintenanceModeMiddleware,
    MemoryBackend,
    decorators,
    force_maintenance_mode_off,
    force_maintenance_mode_on,
    maintenance_middleware,
    maintenance_mode_off,
    maintenance_mode_on,
    path_is,
)
from fastapi_maintenance._routing import forced_by_tests
from fastapi_maintenance.testing import maintenance_forced
from tests.stores import WatchableStore
from tests.support import client, handshake, websocket_scope
from tests.switch.lifespans import living

pytestmark = pytest.mark.anyio


def service(backend: Any = None, **settings: Any) -> FastAPI:  # noqa: ANN401 -- those of the middleware
    """Return an app with a maintenance middleware and some endpoints."""
    app = FastAPI()
    app.add_middleware(maintenance_middleware(backend=backend or MemoryBackend(), **settings))
    return with_endpoints(app)


def with_endpoints(app: FastAPI) -> FastAPI:
    app.add_api_route("/items", lambda: "items")
    app.add_api_route("/health", lambda: "well")
    app.add_api_route("/open", force_maintenance_mode_off(lambda: "open"))
    app.add_api_route("/closed", force_maintenance_mode_on(lambda: "closed"))
    return app


async def status(app: ASGIApp, path: str = "/items") -> int:
    async with client(app) as http:
        return (await http.get(path)).status_code


def below_another() -> FastAPI:
    app = service()

    @app.middleware("http")
    async def pass_on(request, call_next):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202 -- as users write it
        return await call_next(request)

    return app


MAKERS: dict[str, Callable[[], FastAPI]] = {
    "factory": service,
    "class": lambda: with_endpoints(
        FastAPI(middleware=[Middleware(MaintenanceModeMiddleware, backend=MemoryBackend())])
    ),
    "below other middleware": below_another,
}


@pytest.mark.parametrize("is_built", [True, False])
@pytest.mark.parametrize("kind", MAKERS)
async def test_app_is_closed_for_the_block_and_no_longer(kind: str, is_built: bool) -> None:
    app = MAKERS[kind]()
    if is_built:
        assert await status(app) == 200
    with pytest.raises(ZeroDivisionError), maintenance_forced(app):
        assert await status(app) == 503
        raise ZeroDivisionError
    assert await status(app) == 200


async def test_forcing_overrules_the_backend_the_setting_and_open_holds() -> None:
    backend = MemoryBackend()
    for settings in ({"backend": MemoryBackend(True)}, {"enabled": True}):
        app = service(**settings)
        with maintenance_forced(app, False):
            assert await status(app) == 200
        assert await status(app) == 503
    app = service(backend)
    async with maintenance_mode_on(backend):
        with maintenance_forced(app, False):
            assert await status(app) == 200
    async with maintenance_mode_off(backend):
        with maintenance_forced(app):
            assert await status(app) == 503


async def test_forced_app_does_not_touch_its_store_also_if_it_starts_in_the_block() -> None:
    store, reads = WatchableStore(), list[bool]()

    async def count() -> None:
        reads.append(True)
        await checkpoint()

    store.before_read = count
    app = service(store)
    for active in (True, False):
        with maintenance_forced(app, active):
            assert (await status(app), reads) == (503 if active else 200, [])
    with ExitStack() as block:
        block.enter_context(maintenance_forced(app))
        async with living(app):
            assert (await status(app), reads) == (503, [])
            block.close()
            assert (await status(app), reads, store.watchers) == (200, [True], 0)
    async with living(app):
        assert (await status(app), store.watchers) == (200, 1)


async def test_forced_app_keeps_marks_predicates_and_unknown_paths() -> None:
    app = service(exempt=path_is("/health"))
    paths = ["/items", "/health", "/open", "/closed", "/none"]
    with maintenance_forced(app, message="Back at ten"):
        assert [await status(app, path) for path in paths] == [503, 200, 200, 503, 404]
        async with client(app) as http:
            response = await http.get("/items")
    assert (response.json(), response.headers["retry-after"]) == ({"detail": "Back at ten"}, "3600")
    with maintenance_forced(app, False):
        assert [await status(app, path) for path in paths] == [200, 200, 200, 503, 404]


async def test_forced_app_leaves_another_alone() -> None:
    one, other = service(), service(MemoryBackend(True))
    with maintenance_forced(one):
        assert [await status(one), await status(other)] == [503, 503]
        with maintenance_forced(other, False):
            assert [await status(one), await status(other)] == [503, 200]
    assert [await status(one), await status(other)] == [200, 503]


async def test_blocks_may_end_in_any_order() -> None:
    app = service()
    first, second = maintenance_forced(app), maintenance_forced(app, False)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert await status(app) == 200
    second.__exit__(None, None, None)
    assert await status(app) == 200
    assert not forced_by_tests.open_forcings
    assert not isinstance(app.middleware_stack, forced_by_tests._Entrance)


async def test_app_that_is_rebuilt_in_the_block_is_forced() -> None:
    app = service()
    with maintenance_forced(app):
        app.middleware_stack = None
        assert await status(app) == 503
        with maintenance_forced(app, False):
            assert await status(app) == 200
        app.middleware_stack = None
    assert await status(app) == 200


async def test_nested_apps_the_forced_one_nearest_to_the_middleware_counts() -> None:
    outer, inner = FastAPI(), service()
    outer.mount("/api", inner)
    with maintenance_forced(outer):
        assert [await status(outer, "/api/items"), await status(inner)] == [503, 200]
    assert await status(outer, "/api/items") == 200
    outer = service()
    outer.mount("/api", inner)
    with maintenance_forced(inner):
        assert [await status(outer), await status(outer, "/api/items")] == [200, 503]
        with maintenance_forced(outer, False):
            assert await status(outer, "/api/items") == 503
    with maintenance_forced(inner, False), maintenance_forced(outer):
        assert [await status(outer, "/api/items"), await status(inner)] == [503, 200]


async def plain(scope: Scope, receive: Receive, send: Send) -> None:
    await PlainTextResponse("open")(scope, receive, send)


@pytest.mark.parametrize("name", ["app", "middleware", "middleware around any ASGI app"])
async def test_app_in_a_middleware_is_forced_by_either(name: str) -> None:
    app = plain if name == "middleware around any ASGI app" else with_endpoints(FastAPI())
    maintained = maintenance_middleware(backend=MemoryBackend())(app)
    with maintenance_forced(app if name == "app" else maintained):
        assert await status(maintained) == 503
    assert await status(maintained) == 200


async def test_middleware_of_a_mount_is_forced() -> None:
    maintained = Middleware(MaintenanceModeMiddleware, backend=MemoryBackend())
    route = Route("/items", lambda _: PlainTextResponse("open"))
    app = Starlette(routes=[Mount("/api", routes=[route], middleware=[maintained])])
    with maintenance_forced(app):
        assert await status(app, "/api/items") == 503


async def test_websocket_is_forced() -> None:
    app = service()

    @app.websocket("/ws")
    async def talk(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.close()

    with maintenance_forced(app):
        assert [message["type"] for message in await handshake(app, websocket_scope("/ws"))] == ["websocket.close"]
    assert (await handshake(app, websocket_scope("/ws")))[0]["type"] == "websocket.accept"


def test_threads_force_their_own_apps() -> None:
    apps = [service() for _ in range(8)]
    statuses: dict[int, set[int]] = {}

    def force(place: int) -> None:
        http = TestClient(apps[place])
        for _ in range(5):
            with maintenance_forced(apps[place], place % 2 == 0):
                statuses.setdefault(place, set()).add(http.get("/items").status_code)

    threads = [threading.Thread(target=force, args=(place,)) for place in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == {place: {503 if place % 2 == 0 else 200} for place in range(8)}


@pytest.mark.parametrize(
    ("app", "settings", "kind", "message"),
    [
        (APIRouter(), {}, TypeError, "app must be an app, made by FastAPI, Starlette or a maintenance middleware"),
        (FastAPI, {}, TypeError, "app must be an app, .*, got the class FastAPI"),
        (FastAPI(), {"active": 1}, TypeError, "active must be True or False, got int 1"),
        (FastAPI(), {"message": 1}, TypeError, "message must be a str, got int 1"),
        (FastAPI(), {"active": False, "message": "a"}, ValueError, "message goes with active=True, got 'a' with"),
    ],
)
def test_wrong_argument_is_refused(app: Any, settings: dict[str, Any], kind: type[Exception], message: str) -> None:  # noqa: ANN401 -- wrong on purpose
    with pytest.raises(kind, match=message):
        maintenance_forced(app, **settings)


async def test_forcing_that_has_no_effect_warns() -> None:
    bare, outer = FastAPI(), FastAPI()
    bare.add_api_route("/", lambda: "open")
    outer.mount("/mounted", bare)
    outer.add_middleware(maintenance_middleware(backend=MemoryBackend()))
    for app, path in ((bare, "/"), (outer, "/mounted/")):
        with pytest.warns(UserWarning, match=r"^maintenance_forced\(\) had no effect: ") as warned:  # noqa: SIM117
            with maintenance_forced(bare):
                assert await status(app, path) == 200
        assert [warning.filename for warning in warned] == [__file__]


async def test_forcing_without_requests_or_with_a_forced_one_does_not_warn() -> None:
    app = service()
    with maintenance_forced(FastAPI()), maintenance_forced(app, False):
        async with living(app):
            pass
        with maintenance_forced(app):
            assert await status(app) == 503


class Retired:
    """An endpoint that can be pickled."""

    async def __call__(self) -> str:
        return "reached"


async def test_mark_that_was_unpickled_counts_in_a_new_process(monkeypatch: pytest.MonkeyPatch) -> None:
    pickled = pickle.dumps(force_maintenance_mode_on(Retired()))
    monkeypatch.setattr(decorators, "_forced_on", [])  # as in a process that has seen no mark
    app = FastAPI()
    app.add_middleware(maintenance_middleware(backend=MemoryBackend()))
    app.get("/retired")(pickle.loads(pickled))  # noqa: S301 -- our own
    assert await status(app, "/retired") == 503
