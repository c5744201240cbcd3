"""The current backend: which one a call without a backend acts on."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio import from_thread
from fastapi import BackgroundTasks, FastAPI
from starlette.types import Message

from fastapi_maintenance import (
    LocalFileBackend,
    MaintenanceModeMiddleware,
    MemoryBackend,
    configure_backend,
    force_maintenance_mode_off,
    get_maintenance_mode,
    get_maintenance_state,
    maintenance_middleware,
    maintenance_mode_on,
    set_maintenance_mode,
)
from tests.support import client

pytestmark = pytest.mark.anyio


def app_on(backend: MemoryBackend | None) -> FastAPI:
    """Return an app whose endpoints switch it on in every way that an endpoint can."""
    app = FastAPI()
    app.add_middleware(maintenance_middleware(backend=backend))

    @app.post("/async")
    @force_maintenance_mode_off
    async def in_async_endpoint() -> None:
        await set_maintenance_mode(True)

    @app.post("/sync")
    @force_maintenance_mode_off
    def in_sync_endpoint() -> None:
        from_thread.run(set_maintenance_mode, True)

    @app.post("/background")
    @force_maintenance_mode_off
    async def in_background_task(tasks: BackgroundTasks) -> None:
        tasks.add_task(set_maintenance_mode, True)

    @app.get("/")
    async def ordinary() -> str:
        return "open"

    return app


async def status(app: FastAPI, path: str = "/", method: str = "GET") -> int:
    """Return the status of one request."""
    async with client(app) as http:
        return (await http.request(method, path)).status_code


@pytest.mark.parametrize("path", ["/async", "/sync", "/background"])
async def test_a_request_acts_on_its_own_app(path: str) -> None:
    first, second = app_on(MemoryBackend()), app_on(MemoryBackend())
    assert 200 == await status(first, path, "POST")
    assert [503, 200] == [await status(first), await status(second)]


async def test_concurrent_requests_to_two_apps_never_mix() -> None:
    backends = [MemoryBackend(), MemoryBackend()]
    apps = [app_on(backend) for backend in backends]
    arrived = [anyio.Event(), anyio.Event()]
    found: list[tuple[int, bool]] = []

    def meet(mine: int) -> Any:  # noqa: ANN401 -- an endpoint
        async def endpoint() -> None:
            arrived[mine].set()
            await arrived[1 - mine].wait()  # both requests are under way now
            found.append((mine, await get_maintenance_mode()))

        return force_maintenance_mode_off(endpoint)

    for number, app in enumerate(apps):
        app.add_api_route("/meet", meet(number))
    await backends[1].set_value(True)
    with anyio.fail_after(30):
        async with anyio.create_task_group() as group:
            for app in apps:
                group.start_soon(status, app, "/meet")
    assert [(0, False), (1, True)] == sorted(found)


async def test_a_request_to_another_app_inside_a_request_acts_on_that_app_and_then_on_this_one_again() -> None:
    outer_backend, inner_backend = MemoryBackend(), MemoryBackend()
    outer, inner = app_on(outer_backend), app_on(inner_backend)

    @outer.post("/both")
    @force_maintenance_mode_off
    async def both() -> list[bool]:
        await status(inner, "/async", "POST")
        before = await get_maintenance_mode()
        await set_maintenance_mode(True)
        return [before, await get_maintenance_mode()]

    async with client(outer) as http:
        response = await http.post("/both")
    assert [False, True] == response.json()
    assert [True, True] == [await outer_backend.get_value(), await inner_backend.get_value()]


async def test_a_mounted_app_with_its_own_middleware_acts_on_itself() -> None:
    outer_backend, inner_backend = MemoryBackend(), MemoryBackend()
    outer, inner = app_on(outer_backend), app_on(inner_backend)
    outer.mount("/inner", inner)
    await status(outer, "/inner/async", "POST")
    assert [False, True] == [await outer_backend.get_value(), await inner_backend.get_value()]


async def test_the_lifespan_acts_on_its_own_app() -> None:
    backend = MemoryBackend()
    seen: list[bool] = []

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncGenerator[None]:
        async with maintenance_mode_on():
            seen.append(await get_maintenance_mode(backend))
        await set_maintenance_mode(True)
        yield
        await set_maintenance_mode(False)
        seen.append(await get_maintenance_mode(backend))

    app = FastAPI(lifespan=lifespan)
    app.add_middleware(MaintenanceModeMiddleware, backend=backend)
    maintenance_middleware(backend=MemoryBackend())  # made last, but not meant in there
    messages: list[Message] = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]

    async def receive() -> Message:
        if messages[0]["type"] == "lifespan.shutdown":
            seen.append(await backend.get_value())
        return messages.pop(0)

    sent: list[str] = []

    async def send(message: Message) -> None:
        sent.append(message["type"])

    await app({"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}, receive, send)
    assert ["lifespan.startup.complete", "lifespan.shutdown.complete"] == sent
    assert [True, True, False] == seen


async def test_call_outside_any_app_acts_on_the_newest_middleware() -> None:
    earlier, last = MemoryBackend(), MemoryBackend()
    configure_backend(MemoryBackend())
    maintenance_middleware(backend=earlier)
    maintenance_middleware(backend=last)
    await set_maintenance_mode(True)
    assert [False, True] == [await earlier.get_value(), await last.get_value()]


async def test_call_without_a_middleware_with_a_backend_acts_on_the_configured_one(tmp_path: Path) -> None:
    maintenance_middleware()
    for configured in (MemoryBackend(), LocalFileBackend(tmp_path / "switch")):
        configure_backend(configured)
        await set_maintenance_mode(True)
        assert await configured.get_value()


async def test_a_middleware_without_backend_follows_what_is_configured_later(tmp_path: Path) -> None:
    app = app_on(None)
    statuses = [await status(app)]
    maintenance_middleware(backend=MemoryBackend())  # made last; not meant by the requests of the first app
    configure_backend("file", file_path=tmp_path / "switch")
    await status(app, "/async", "POST")
    statuses.append(await status(app))
    configure_backend(MemoryBackend())
    statuses.append(await status(app))
    assert [200, 503, 200] == statuses


async def test_call_with_nothing_configured_acts_on_the_environment_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    app = app_on(None)
    before = [await status(app), await get_maintenance_mode()]
    monkeypatch.setenv("FASTAPI_MAINTENANCE_MODE", "on")
    assert [200, False, 503, True] == [*before, await status(app), await get_maintenance_mode()]


async def test_a_variable_of_another_name_is_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    configure_backend("env", var_name="CLOSED")
    monkeypatch.setenv("CLOSED", "1")
    assert await get_maintenance_mode()


@pytest.mark.parametrize(
    ("arguments", "settings", "error", "text"),
    [
        (("redis",), {}, ValueError, "^backend must begin with one of env: .*, got 'redis'"),
        ((MemoryBackend(),), {"file_path": "x"}, TypeError, "^settings go with 'env' or 'file'.*got file_path too"),
        ((None,), {}, TypeError, "^backend must be an object with the async methods"),
        ((MemoryBackend,), {}, TypeError, "^backend must be .*, got the class MemoryBackend"),
        (("file",), {}, TypeError, "file_path"),
        (("env",), {"file_path": "x"}, TypeError, "file_path"),
    ],
)
def test_what_cannot_be_configured_is_refused(
    arguments: tuple[Any, ...], settings: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        configure_backend(*arguments, **settings)


@pytest.mark.parametrize("function", [get_maintenance_mode, get_maintenance_state])
async def test_what_is_no_backend_is_refused_where_it_is_given(function: Any) -> None:  # noqa: ANN401 -- one of two
    with pytest.raises(TypeError, match=r"^backend must be an object with the async methods .*, got int$"):
        await function(1)
    with pytest.raises(ValueError, match=r"^backend must begin with one of env: .*, got 'file'"):
        await function("file")
