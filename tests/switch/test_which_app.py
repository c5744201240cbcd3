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

from fastapi_maintenance import (
    LocalFileBackend,
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
from tests.switch.lifespans import living

pytestmark = pytest.mark.anyio


def app_on(backend: MemoryBackend | None) -> FastAPI:
    """Return an app with endpoints that switch it on, each in its way."""
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
    async with client(app) as http:
        return (await http.request(method, path)).status_code


@pytest.mark.parametrize("path", ["/async", "/sync", "/background"])
async def test_request_acts_on_its_own_app(path: str) -> None:
    first, second = app_on(MemoryBackend()), app_on(MemoryBackend())
    assert await status(first, path, "POST") == 200
    assert [await status(first), await status(second)] == [503, 200]


async def test_concurrent_requests_act_on_their_own_apps() -> None:
    backends = [MemoryBackend(), MemoryBackend(True)]
    arrived = [anyio.Event(), anyio.Event()]
    found: dict[int, bool] = {}

    def meet(number: int) -> Any:  # noqa: ANN401 -- an endpoint
        async def endpoint() -> None:
            arrived[number].set()
            await arrived[1 - number].wait()
            found[number] = await get_maintenance_mode()

        return force_maintenance_mode_off(endpoint)

    with anyio.fail_after(30):
        async with anyio.create_task_group() as group:
            for number, backend in enumerate(backends):
                app = app_on(backend)
                app.add_api_route("/meet", meet(number))
                group.start_soon(status, app, "/meet")
    assert found == {0: False, 1: True}


async def test_request_inside_a_request_acts_on_the_other_app_and_then_on_its_own_again() -> None:
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
    assert response.json() == [False, True]
    assert [await outer_backend.get_value(), await inner_backend.get_value()] == [True, True]


async def test_request_of_a_mounted_app_with_its_own_middleware_acts_on_that() -> None:
    outer_backend, inner_backend = MemoryBackend(), MemoryBackend()
    outer = app_on(outer_backend)
    outer.mount("/inner", app_on(inner_backend))
    await status(outer, "/inner/async", "POST")
    assert [await outer_backend.get_value(), await inner_backend.get_value()] == [False, True]


async def test_lifespan_acts_on_its_own_app() -> None:
    backend, values = MemoryBackend(), []

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncGenerator[None]:
        async with maintenance_mode_on():
            values.append(await backend.get_value())
        await set_maintenance_mode(True)
        yield
        await set_maintenance_mode(False)

    app = FastAPI(lifespan=lifespan)
    app.add_middleware(maintenance_middleware(backend=backend))
    maintenance_middleware(backend=MemoryBackend())  # the newest
    async with living(app):
        values.append(await backend.get_value())
    assert [*values, await backend.get_value()] == [True, True, False]


async def test_call_outside_any_app_acts_on_the_newest_middleware() -> None:
    earlier, newest = MemoryBackend(), MemoryBackend()
    configure_backend(MemoryBackend())
    maintenance_middleware(backend=earlier)
    maintenance_middleware(backend=newest)
    await set_maintenance_mode(True)
    assert [await earlier.get_value(), await newest.get_value()] == [False, True]


async def test_call_without_a_middleware_with_a_backend_acts_on_the_configured_one(tmp_path: Path) -> None:
    maintenance_middleware()
    for configured in (MemoryBackend(), LocalFileBackend(tmp_path / "switch")):
        configure_backend(configured)
        await set_maintenance_mode(True)
        assert await configured.get_value()


async def test_middleware_without_a_backend_uses_the_one_configured_later(tmp_path: Path) -> None:
    app = app_on(None)
    statuses = [await status(app)]
    maintenance_middleware(backend=MemoryBackend())  # the newest, but not this app's
    configure_backend("file", file_path=tmp_path / "switch")
    await status(app, "/async", "POST")
    statuses.append(await status(app))
    configure_backend(MemoryBackend())
    statuses.append(await status(app))
    assert statuses == [200, 503, 200]


async def test_call_with_nothing_configured_acts_on_the_environment_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    app = app_on(None)
    before = [await status(app), await get_maintenance_mode()]
    monkeypatch.setenv("FASTAPI_MAINTENANCE_MODE", "on")
    assert [*before, await status(app), await get_maintenance_mode()] == [200, False, 503, True]
    configure_backend("env", var_name="CLOSED")
    assert not await get_maintenance_mode()
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
def test_configure_backend_with_wrong_arguments_is_refused(
    arguments: tuple[Any, ...], settings: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        configure_backend(*arguments, **settings)


@pytest.mark.parametrize("function", [get_maintenance_mode, get_maintenance_state])
async def test_call_with_an_invalid_backend_is_refused(function: Any) -> None:  # noqa: ANN401 -- one of two
    with pytest.raises(TypeError, match=r"^backend must be an object with the async methods .*, got int$"):
        await function(1)
    with pytest.raises(ValueError, match=r"^backend must begin with one of env: .*, got 'file'"):
        await function("file")
