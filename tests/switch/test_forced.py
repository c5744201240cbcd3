"""An app that a test forces into maintenance, or out of it, whatever its switch says."""

from __future__ import annotations

import pickle
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack

import anyio
import pytest
from fastapi import APIRouter, FastAPI, WebSocket
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Receive, Scope, Send

from fastapi_maintenance import (
    MaintenanceModeMiddleware,
    MaintenanceState,
    MemoryBackend,
    decorators,
    force_maintenance_mode_off,
    force_maintenance_mode_on,
    maintenance_middleware,
    maintenance_mode_off,
    maintenance_mode_on,
    path_is,
)
from fastapi_maintenance._routing import forced
from fastapi_maintenance.testing import maintenance_forced
from tests.stores import WatchableStore
from tests.support import client, handshake, websocket_scope
from tests.switch.lifespans import living

pytestmark = pytest.mark.anyio


class Noting:
    """A switch that notes what it is asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def get_value(self) -> bool:
        self.asked.append("get_value")
        return False

    async def set_value(self, value: bool, /) -> None:
        self.asked.append(f"set_value({value})")

    async def watch(self) -> AsyncIterator[MaintenanceState]:
        self.asked.append("watch")
        yield MaintenanceState()
        await anyio.sleep_forever()


def service(**settings: object) -> FastAPI:
    """Return an app with a maintenance middleware and some endpoints."""
    return with_endpoints(FastAPI(), maintenance_middleware(**settings))  # type: ignore[call-overload]  # each test's own


def with_endpoints(app: FastAPI, *middleware: Callable[[ASGIApp], ASGIApp]) -> FastAPI:
    for one in middleware:
        app.add_middleware(one)

    @app.get("/items")
    async def items() -> str:
        return "items"

    @app.get("/open")
    @force_maintenance_mode_off
    async def always_open() -> str:
        return "open"

    return app


async def status(app: ASGIApp, path: str = "/items") -> int:
    async with client(app) as http:
        return (await http.get(path)).status_code


def below_another() -> FastAPI:
    app = service(backend=MemoryBackend())

    @app.middleware("http")
    async def pass_on(request, call_next):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202 -- as users write it
        return await call_next(request)

    return app


MAKERS: dict[str, Callable[[], FastAPI]] = {
    "factory": lambda: service(backend=MemoryBackend()),
    "class": lambda: with_endpoints(
        FastAPI(middleware=[Middleware(MaintenanceModeMiddleware, backend=MemoryBackend())])
    ),
    "below other middleware": below_another,
}


@pytest.mark.parametrize("has_answered", [True, False])
@pytest.mark.parametrize("kind", MAKERS)
async def test_app_is_closed_for_the_block_and_no_longer(kind: str, has_answered: bool) -> None:
    app = MAKERS[kind]()
    before = await status(app) if has_answered else 200
    with maintenance_forced(app):
        during = await status(app)
    assert [200, 503, 200] == [before, during, await status(app)]


@pytest.mark.parametrize("settings", [{"backend": MemoryBackend(True)}, {"enabled": True}])
async def test_it_is_open_for_the_block_whatever_the_backend_and_enabled_say(settings: dict[str, object]) -> None:
    app = service(**settings)
    with maintenance_forced(app, False):
        assert 200 == await status(app)
    assert 503 == await status(app)


async def test_it_goes_over_an_open_hold() -> None:
    backend = MemoryBackend()
    app = service(backend=backend)
    async with maintenance_mode_on(backend):
        with maintenance_forced(app, False):
            assert 200 == await status(app)
    async with maintenance_mode_off(backend):
        with maintenance_forced(app):
            assert 503 == await status(app)


@pytest.mark.parametrize("active", [True, False])
async def test_no_store_is_touched(active: bool) -> None:
    switch = Noting()
    app = service(backend=switch)
    with maintenance_forced(app, active):
        assert (503 if active else 200, []) == (await status(app), switch.asked)


async def test_an_app_that_starts_within_the_block_is_not_followed() -> None:
    switch = Noting()
    app = service(backend=switch)
    with maintenance_forced(app):
        async with living(app):
            assert (503, []) == (await status(app), switch.asked)
    async with living(app):
        assert (200, True) == (await status(app), "watch" in switch.asked)


async def test_an_app_that_started_within_the_block_reads_its_store_after_it() -> None:
    switch = Noting()
    app = service(backend=switch)
    with ExitStack() as block:
        block.enter_context(maintenance_forced(app))
        async with living(app):
            block.close()
            assert (200, ["get_value"]) == (await status(app), switch.asked)


async def test_forced_app_shows_the_message() -> None:
    app = service(backend=MemoryBackend())
    with maintenance_forced(app, message="Back at ten"):
        async with client(app) as http:
            response = await http.get("/items")
    assert ({"detail": "Back at ten"}, "3600") == (response.json(), response.headers["retry-after"])


async def test_forced_app_keeps_marks_predicates_and_unknown_paths() -> None:
    app = service(backend=MemoryBackend(), exempt=path_is("/health"))
    app.add_api_route("/health", lambda: "well")

    @app.get("/closed")
    @force_maintenance_mode_on
    async def always_closed() -> str:
        return "closed"

    with maintenance_forced(app):
        assert [200, 200, 404, 503] == [await status(app, path) for path in ("/open", "/health", "/none", "/closed")]
    with maintenance_forced(app, False):
        assert [200, 503] == [await status(app, path) for path in ("/items", "/closed")]


async def test_two_apps_never_mix() -> None:
    one, other = service(backend=MemoryBackend()), service(backend=MemoryBackend(True))
    with maintenance_forced(one):
        assert [503, 503] == [await status(one), await status(other)]
        with maintenance_forced(other, False):
            assert [503, 200] == [await status(one), await status(other)]
    assert [200, 503] == [await status(one), await status(other)]


async def test_blocks_may_end_in_any_order() -> None:
    app = service(backend=MemoryBackend())
    first, second = maintenance_forced(app), maintenance_forced(app, False)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert 200 == await status(app)
    second.__exit__(None, None, None)
    assert 200 == await status(app)
    assert not forced.open_forcings
    assert not isinstance(app.middleware_stack, forced._Entrance)


async def test_it_ends_with_a_block_that_raises() -> None:
    app = service(backend=MemoryBackend())
    with pytest.raises(ZeroDivisionError), maintenance_forced(app):
        raise ZeroDivisionError
    assert 200 == await status(app)


async def test_an_app_that_is_built_anew_within_the_block_is_forced_too() -> None:
    app = service(backend=MemoryBackend())
    with maintenance_forced(app):
        app.middleware_stack = None
        assert 503 == await status(app)
        with maintenance_forced(app, False):
            assert 200 == await status(app)
        app.middleware_stack = None
    assert 200 == await status(app)


def mounted() -> tuple[FastAPI, FastAPI]:
    """Return an app without maintenance, and the one mounted in it that has it."""
    inner, outer = service(backend=MemoryBackend()), FastAPI()
    outer.mount("/api", inner)
    return outer, inner


async def test_the_middleware_of_a_mounted_app_is_forced_with_the_app_around_it() -> None:
    outer, inner = mounted()
    with maintenance_forced(outer):
        assert [503, 200] == [await status(outer, "/api/items"), await status(inner)]
    assert 200 == await status(outer, "/api/items")


async def test_an_app_that_is_nearer_to_the_middleware_counts() -> None:
    outer, inner = mounted()
    outer.add_middleware(maintenance_middleware(backend=MemoryBackend(True)))
    with maintenance_forced(outer, False), maintenance_forced(inner):
        assert 503 == await status(outer, "/api/items")
    with maintenance_forced(inner, False), maintenance_forced(outer):
        assert [503, 200] == [await status(outer, "/api/items"), await status(inner)]


async def test_a_mounted_app_is_forced_alone() -> None:
    outer, inner = mounted()
    outer.add_middleware(maintenance_middleware(backend=MemoryBackend()))
    outer.add_api_route("/", lambda: "outer")
    with maintenance_forced(inner):
        assert [200, 503] == [await status(outer, "/"), await status(outer, "/api/items")]


async def test_the_middleware_of_a_mount_is_forced() -> None:
    async def endpoint(_request: object) -> PlainTextResponse:
        return PlainTextResponse("open")

    maintained = Middleware(MaintenanceModeMiddleware, backend=MemoryBackend())
    app = Starlette(routes=[Mount("/api", routes=[Route("/items", endpoint)], middleware=[maintained])])
    with maintenance_forced(app):
        assert 503 == await status(app, "/api/items")


async def test_an_app_in_a_middleware_is_forced_by_either_name() -> None:
    app = with_endpoints(FastAPI())
    maintained = maintenance_middleware(backend=MemoryBackend())(app)
    for named in (app, maintained):
        with maintenance_forced(named):
            assert 503 == await status(maintained)
    assert 200 == await status(maintained)


async def test_any_asgi_app_in_a_middleware_is_forced() -> None:
    async def plain(scope: Scope, receive: Receive, send: Send) -> None:
        await PlainTextResponse("open")(scope, receive, send)

    maintained = maintenance_middleware(backend=MemoryBackend())(plain)
    with maintenance_forced(maintained):
        assert 503 == await status(maintained)
    assert 200 == await status(maintained)


async def test_a_websocket_is_forced_too() -> None:
    app = service(backend=MemoryBackend())

    @app.websocket("/ws")
    async def talk(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.close()

    with maintenance_forced(app):
        assert ["websocket.close"] == [message["type"] for message in await handshake(app, websocket_scope("/ws"))]
    assert "websocket.accept" == (await handshake(app, websocket_scope("/ws")))[0]["type"]


def test_it_holds_in_the_thread_of_a_test_client() -> None:
    app = service(backend=WatchableStore())
    with TestClient(app) as http:
        with maintenance_forced(app):
            assert 503 == http.get("/items").status_code
        assert 200 == http.get("/items").status_code


def test_threads_force_different_apps() -> None:
    apps = [service(backend=MemoryBackend()) for _ in range(8)]
    wrong: list[int] = []

    def force(app: FastAPI, active: bool) -> None:
        http = TestClient(app)
        for _ in range(5):
            with maintenance_forced(app, active):
                answered = http.get("/items").status_code
            if answered != (503 if active else 200):
                wrong.append(answered)

    threads = [threading.Thread(target=force, args=(app, place % 2 == 0)) for place, app in enumerate(apps)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [] == wrong


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
def test_maintenance_forced_with_wrong_arguments_raises(
    app: ASGIApp, settings: dict[str, bool], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        maintenance_forced(app, **settings)  # type: ignore[arg-type]  # wrong ones are the point


async def test_where_there_is_nothing_to_force_there_is_a_warning() -> None:
    bare, outer = FastAPI(), FastAPI()
    bare.add_api_route("/", lambda: "open")
    outer.mount("/mounted", bare)
    outer.add_middleware(maintenance_middleware(backend=MemoryBackend()))

    async def forced_status(app: FastAPI, path: str) -> int:
        with maintenance_forced(bare):
            async with client(app) as http:
                return (await http.get(path)).status_code

    for app, path in ((bare, "/"), (outer, "/mounted/")):
        with pytest.warns(UserWarning, match=r"^maintenance_forced\(\) had no effect: ") as warned:
            assert 200 == await forced_status(app, path)
        assert [__file__] == [warning.filename for warning in warned]


async def test_there_is_no_warning_without_requests_or_where_one_was_forced() -> None:
    app, other = FastAPI(), FastAPI()
    app.add_api_route("/", lambda: "open")
    app.add_middleware(maintenance_middleware(backend=MemoryBackend()))
    with maintenance_forced(other), maintenance_forced(app, False):
        async with living(app):
            pass
        with maintenance_forced(app):
            async with client(app) as http:
                assert 503 == (await http.get("/")).status_code


class Retired:
    """An endpoint that can be pickled."""

    async def __call__(self) -> str:
        return "reached"


async def test_a_mark_that_comes_by_pickle_is_known_in_the_process_that_it_comes_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    endpoint = force_maintenance_mode_on(Retired())
    pickled = pickle.dumps(endpoint)
    monkeypatch.setattr(decorators, "_forced_on", [])  # as in a process that has seen no mark
    app = FastAPI()
    app.add_middleware(maintenance_middleware(backend=MemoryBackend()))
    app.get("/retired")(pickle.loads(pickled))  # noqa: S301 -- our own
    assert 503 == await status(app, "/retired")
