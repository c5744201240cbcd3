"""Blocks on a switch that this process cannot write: they hold the apps of this process, and raise if it has none."""

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
from tests.middleware.test_failures import app_on, status
from tests.stores import ReadOnlySwitch

pytestmark = pytest.mark.anyio

ENVIRONMENT = EnvVarBackend("HOLDS_MODE")
any_block = pytest.mark.parametrize("block", [maintenance_mode_on, maintenance_mode_off])


@any_block
async def test_block_without_a_middleware_raises_and_asks_for_a_backend(block: Callable[..., Any]) -> None:
    async def body() -> None:
        pytest.fail("no request sees this maintenance")

    for configured in (False, True):
        if configured:
            configure_backend("env", var_name="HOLDS_MODE")
        with pytest.raises(ReadOnlyBackendError, match=r"(?i)(name|give|pass)\b.*\bbackend"):
            async with block():
                await body()
        with pytest.raises(ReadOnlyBackendError):
            await block()(body)()
    assert (await get_maintenance_state()).holds == ()


@pytest.mark.parametrize("has_other_middleware", [False, True])
@pytest.mark.parametrize("backend", [ENVIRONMENT, ReadOnlySwitch(), "env:HOLDS_MODE"], ids=["env", "own", "URL"])
async def test_block_on_a_named_switch_without_a_middleware_raises(
    backend: StateBackend | str, has_other_middleware: bool
) -> None:
    if has_other_middleware:
        assert await status(app_on(MemoryBackend())) == 200
    with pytest.raises(ReadOnlyBackendError):
        async with maintenance_mode_on(backend):
            pytest.fail("no request sees this maintenance")


def by_function(app: FastAPI, backend: StateBackend | None) -> None:
    app.add_middleware(maintenance_middleware(backend=backend))


def by_class(app: FastAPI, backend: StateBackend | None) -> None:
    app.add_middleware(MaintenanceModeMiddleware, backend=backend)


@pytest.mark.parametrize("serves_before", [False, True])
@pytest.mark.parametrize("add", [by_function, by_class])
@pytest.mark.parametrize("backend", [None, ENVIRONMENT, ReadOnlySwitch()], ids=["default", "env", "own"])
async def test_block_with_a_middleware_closes_its_app(
    add: Callable[[FastAPI, StateBackend | None], None], backend: StateBackend | None, serves_before: bool
) -> None:
    app = FastAPI()
    app.add_api_route("/", lambda: "open")
    add(app, backend)
    if serves_before or add is by_class:  # which is made with the first request
        assert await status(app) == 200
    async with maintenance_mode_on(backend):
        assert (await status(app), await get_maintenance_mode(backend)) == (503, True)
        if backend is None:
            with pytest.raises(ReadOnlyBackendError):
                await set_maintenance_mode(False)
            assert await get_maintenance_mode()
    assert await status(app) == 200


async def test_block_on_a_named_backend_that_can_be_written_needs_no_middleware() -> None:
    backend = MemoryBackend()
    async with maintenance_mode_on(backend):
        assert await get_maintenance_mode(backend)


@any_block
async def test_block_on_the_url_of_a_memory_raises(block: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match="memory:"):  # each use would be another switch
        block("memory:")
