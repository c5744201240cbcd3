"""Blocks on a switch that this process cannot write: they hold what is served here, and raise where nothing is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from fastapi import FastAPI

from fastapi_maintenance import (
    EnvVarBackend,
    MaintenanceModeMiddleware,
    MemoryBackend,
    StateBackend,
    configure_backend,
    get_maintenance_mode,
    get_maintenance_state,
    maintenance_middleware,
    maintenance_mode_off,
    maintenance_mode_on,
    set_maintenance_mode,
)
from fastapi_maintenance.errors import ReadOnlyBackendError
from tests.middleware.test_failures import status
from tests.stores import ReadOnlySwitch

pytestmark = pytest.mark.anyio

VARIABLE = "HOLDS_MODE"
any_block = pytest.mark.parametrize("block", [maintenance_mode_on, maintenance_mode_off])


@any_block
async def test_block_in_a_process_without_a_middleware_raises_and_says_to_name_the_backend(
    block: Callable[..., Any],
) -> None:
    ran = False
    with pytest.raises(ReadOnlyBackendError, match=r"(?i)(name|give|pass)\b.*\bbackend"):
        async with block():
            ran = True
    assert (False, ()) == (ran, (await get_maintenance_state()).holds)


async def test_decorated_function_in_a_process_without_a_middleware_raises_and_does_not_run() -> None:
    ran = False

    @maintenance_mode_on()
    async def migrate() -> None:
        nonlocal ran
        ran = True

    with pytest.raises(ReadOnlyBackendError):
        await migrate()
    assert not ran


@pytest.mark.parametrize(
    "backend", [EnvVarBackend(VARIABLE), ReadOnlySwitch(), f"env:{VARIABLE}"], ids=["env", "own", "URL"]
)
async def test_block_on_a_named_read_only_switch_without_a_middleware_raises(backend: StateBackend | str) -> None:
    with pytest.raises(ReadOnlyBackendError):
        async with maintenance_mode_on(backend):
            pytest.fail("nobody sees this maintenance")


async def test_block_on_a_configured_read_only_switch_without_a_middleware_raises() -> None:
    configure_backend("env", var_name=VARIABLE)
    with pytest.raises(ReadOnlyBackendError):
        async with maintenance_mode_on():
            pytest.fail("nobody sees this maintenance")


async def test_block_on_a_read_only_switch_with_a_middleware_on_another_raises() -> None:
    app = FastAPI()
    app.add_middleware(maintenance_middleware(backend=MemoryBackend()))
    assert 404 == await status(app)
    with pytest.raises(ReadOnlyBackendError):
        async with maintenance_mode_on(EnvVarBackend(VARIABLE)):
            pytest.fail("nobody sees this maintenance")


# With a middleware, as ever


def by_function(app: FastAPI, backend: StateBackend | None) -> None:
    app.add_middleware(maintenance_middleware(backend=backend))


def by_class(app: FastAPI, backend: StateBackend | None) -> None:
    app.add_middleware(MaintenanceModeMiddleware, backend=backend)


@pytest.mark.parametrize("add", [by_function, by_class])
@pytest.mark.parametrize("backend", [None, EnvVarBackend(VARIABLE), ReadOnlySwitch()], ids=["default", "env", "own"])
async def test_block_on_a_read_only_switch_with_a_middleware_closes_its_app(
    add: Callable[[FastAPI, StateBackend | None], None], backend: StateBackend | None
) -> None:
    app = FastAPI()
    app.add_api_route("/", lambda: "open")
    add(app, backend)
    statuses = [await status(app)]
    async with maintenance_mode_on(backend):
        statuses += [await status(app), await get_maintenance_mode(backend)]
    statuses.append(await status(app))
    assert [200, 503, True, 200] == statuses


async def test_block_on_a_read_only_switch_with_a_middleware_that_serves_nothing_yet_holds_it() -> None:
    app = FastAPI()
    app.add_api_route("/", lambda: "open")
    app.add_middleware(maintenance_middleware())
    async with maintenance_mode_on():
        assert 503 == await status(app)


async def test_block_in_a_process_without_a_middleware_holds_a_backend_that_is_named() -> None:
    backend = MemoryBackend()
    async with maintenance_mode_on(backend):
        assert await get_maintenance_mode(backend)


# A URL that names another switch each time


@any_block
async def test_block_on_the_url_of_a_memory_raises(block: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match="memory:"):
        async with block("memory:"):
            pytest.fail("nobody sees this maintenance")


async def test_write_to_a_read_only_switch_in_a_block_raises_as_outside() -> None:
    app = FastAPI()
    app.add_middleware(maintenance_middleware())
    async with maintenance_mode_on():
        with pytest.raises(ReadOnlyBackendError):
            await set_maintenance_mode(False)
        assert await get_maintenance_mode()
