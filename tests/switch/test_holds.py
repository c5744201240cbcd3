"""Blocks of `maintenance_mode_on()` and `maintenance_mode_off()`: overlapping, nested, and as decorators."""

from __future__ import annotations

import inspect
from dataclasses import replace
from pathlib import Path

import anyio
import pytest
from anyio import fail_after
from fastapi import FastAPI

from fastapi_maintenance import (
    EnvVarBackend,
    Hold,
    MaintenanceState,
    MemoryBackend,
    get_maintenance_mode,
    get_maintenance_state,
    maintenance_middleware,
    maintenance_mode_off,
    maintenance_mode_on,
)
from fastapi_maintenance._helpers import clock
from fastapi_maintenance.state import add_hold
from tests.middleware.test_failures import status
from tests.middleware.test_open_websockets import Client, Talk, service
from tests.stores import ReadOnlySwitch
from tests.support import client
from tests.switch.blocks import Make, any_backend, kept_by, served
from tests.switch.lifespans import living

pytestmark = pytest.mark.anyio


# Overlapping and nested


@any_backend
async def test_a_block_holds_maintenance_on_and_then_off_again(make: Make, tmp_path: Path) -> None:
    store = make(tmp_path)
    before = await kept_by(store)
    async with maintenance_mode_on(store):
        during = await get_maintenance_mode(store)
    assert (during, await get_maintenance_mode(store)) == (True, False)
    assert await kept_by(store) == before == MaintenanceState()


@any_backend
async def test_a_block_that_ends_first_does_not_lift_the_maintenance_of_another(make: Make, tmp_path: Path) -> None:
    store = make(tmp_path)
    first, second = maintenance_mode_on(store), maintenance_mode_on(store)
    await first.__aenter__()
    await second.__aenter__()
    await first.__aexit__(None, None, None)
    between = await get_maintenance_mode(store)
    await second.__aexit__(None, None, None)
    assert (True, False) == (between, await get_maintenance_mode(store))


@any_backend
async def test_the_newest_open_block_decides(make: Make, tmp_path: Path) -> None:
    store = make(tmp_path)
    seen = []
    async with maintenance_mode_on(store):
        async with maintenance_mode_off(store):
            seen.append(await get_maintenance_mode(store))
            async with maintenance_mode_on(store):
                seen.append(await get_maintenance_mode(store))
            seen.append(await get_maintenance_mode(store))
        seen.append(await get_maintenance_mode(store))
    assert [False, True, False, True] == seen


@any_backend
async def test_the_state_shows_the_open_blocks_with_the_newest_last(make: Make, tmp_path: Path) -> None:
    store = make(tmp_path)
    async with maintenance_mode_on(store), maintenance_mode_off(store):
        state = await get_maintenance_state(store)
    assert [True, False] == [hold.on for hold in state.holds]
    assert () == (await get_maintenance_state(store)).holds


async def test_block_with_holds_of_another_process_keeps_its_place_in_their_order() -> None:
    store, other = MemoryBackend(), Hold(id="other", on=True)
    apps = {enabled: FastAPI() for enabled in (None, True, False)}
    for enabled, app in apps.items():
        app.add_api_route("/", lambda: "open")
        app.add_middleware(maintenance_middleware(backend=store, enabled=enabled))

    async def seen() -> list[object]:
        return [await get_maintenance_mode(store), *[await status(app) for app in apps.values()]]

    async with maintenance_mode_off(store):
        await store.update_state(lambda state: add_hold(state, other, clock.now()))
        with_both = await seen()
        (own, _) = store.peek().holds
        lapsed = replace(own, expires_at=clock.now())
        await store.update_state(lambda _: MaintenanceState(holds=(other, lapsed)))
        with_own_newest_and_lapsed = await seen()
        await store.update_state(lambda _: MaintenanceState(holds=(other,)))
        with_own_lost = await seen()
    assert with_both == [True, 503, 503, 503]
    assert with_own_newest_and_lapsed == with_own_lost == [False, 200, 200, 200]
    assert await seen() == [True, 503, 503, 200]


async def test_websocket_in_a_block_that_a_newer_block_closes_is_closed() -> None:
    switch, talk, visitor = ReadOnlySwitch(), Talk(), Client()
    app = service(switch, talk)
    async with living(app), maintenance_mode_off(switch), anyio.create_task_group() as group:
        group.start_soon(visitor.connect, app)
        await talk.begun.wait()
        await anyio.sleep(0.05)
        async with maintenance_mode_on(switch):
            await visitor.is_closed()
    assert talk.told == [1001, "cleaned up"]
    visitor.close()


async def test_a_block_that_is_open_cannot_be_entered_again_and_stays_open() -> None:
    store = MemoryBackend()
    block = maintenance_mode_on(store)
    async with block:
        with pytest.raises(RuntimeError, match="open already"):
            await block.__aenter__()
        assert await get_maintenance_mode(store)
    assert not await get_maintenance_mode(store)


async def test_a_block_that_is_closed_can_be_used_again() -> None:
    store = MemoryBackend()
    block = maintenance_mode_on(store)
    seen = []
    for _ in range(2):
        async with block:
            seen.append([hold.id for hold in (await store.get_state()).holds])
    assert [1, 1] == [len(ids) for ids in seen]
    assert seen[0] != seen[1]


async def test_backend_that_cannot_be_hashed_is_one_switch_by_its_identity() -> None:
    class Unhashable(ReadOnlySwitch):
        __hash__ = None  # type: ignore[assignment]  # as a dataclass with equality has it

    one, other = served(Unhashable()), Unhashable()
    async with maintenance_mode_on(one):
        assert (True, False) == (await get_maintenance_mode(one), await get_maintenance_mode(other))


async def test_block_without_a_backend_acts_on_the_current_one_where_it_begins(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    block = maintenance_mode_on()
    served(EnvVarBackend())
    async with block:
        assert await get_maintenance_mode(EnvVarBackend())
    monkeypatch.setenv("FASTAPI_MAINTENANCE_MODE", "1")
    async with maintenance_mode_off():
        assert not await get_maintenance_mode(EnvVarBackend())


def test_what_is_no_backend_is_refused_when_the_block_is_made() -> None:
    with pytest.raises(TypeError, match="backend must be an object"):
        maintenance_mode_on(1)  # type: ignore[arg-type]  # what is refused
    with pytest.raises(ValueError, match=r"backend must begin with one of env: file: .*, got 'mode.txt'"):
        maintenance_mode_on("mode.txt")


# As a decorator


async def test_a_decorated_function_holds_maintenance_while_a_call_of_it_runs() -> None:
    store = MemoryBackend()

    @maintenance_mode_on(store, message="Copying")
    async def job() -> str | None:
        return (await get_maintenance_state(store)).holds[0].message

    assert ("Copying", False) == (await job(), await get_maintenance_mode(store))


async def test_each_call_of_a_decorated_function_is_a_block_of_its_own() -> None:
    store = MemoryBackend()
    both, counts = anyio.Event(), []

    @maintenance_mode_on(store)
    async def job() -> None:
        counts.append(len(store.peek().holds))
        if len(counts) == 2:
            both.set()
        await both.wait()

    with fail_after(30):
        async with anyio.create_task_group() as group:
            group.start_soon(job)
            group.start_soon(job)
    assert [1, 2] == counts
    assert () == store.peek().holds


async def test_a_decorated_function_keeps_its_signature_and_name_and_what_it_returns() -> None:
    async def add(first: int, *, second: int = 2) -> int:
        """Add."""
        return first + second

    held = maintenance_mode_off(MemoryBackend())(add)
    assert inspect.signature(add) == inspect.signature(held)
    assert ("add", "Add.", True) == (held.__name__, held.__doc__, inspect.iscoroutinefunction(held))
    assert 5 == await held(3)


async def test_a_decorated_endpoint_receives_its_parameters() -> None:
    store = MemoryBackend()
    app = FastAPI()

    @app.get("/jobs/{number}")
    @maintenance_mode_on(store)
    async def job(number: int, step: int = 1) -> list[int]:
        return [number, step, len(store.peek().holds)]

    async with client(app) as http:
        response = await http.get("/jobs/7?step=2")
    assert [7, 2, 1] == response.json()


def test_a_function_that_is_not_async_is_refused_when_it_is_decorated() -> None:
    def job() -> None: ...

    with pytest.raises(TypeError, match=r"the decorated function must be an async function, got function .*job"):
        maintenance_mode_on(MemoryBackend())(job)  # type: ignore[arg-type]  # what is refused
