"""Blocks of `maintenance_mode_on()` and `maintenance_mode_off()`: overlapping, nested, and as decorators."""

from __future__ import annotations

import inspect
from dataclasses import replace
from pathlib import Path

import anyio
import pytest
from fastapi import FastAPI

from fastapi_maintenance import (
    EnvVarBackend,
    Hold,
    MaintenanceState,
    MemoryBackend,
    get_maintenance_mode,
    get_maintenance_state,
    maintenance_mode_off,
    maintenance_mode_on,
)
from fastapi_maintenance._helpers import clock
from fastapi_maintenance.state import add_hold
from tests.middleware.test_failures import app_on, status
from tests.middleware.test_open_websockets import Client, Talk, service
from tests.stores import ReadOnlySwitch
from tests.support import client
from tests.switch.blocks import Make, any_backend, kept_by, served
from tests.switch.lifespans import living

pytestmark = pytest.mark.anyio


@any_backend
async def test_blocks_in_any_order_the_newest_open_one_decides(make: Make, tmp_path: Path) -> None:
    store = make(tmp_path)
    blocks = [maintenance_mode_on(store), maintenance_mode_off(store), maintenance_mode_on(store)]
    seen = []
    for step in ("enter 0", "enter 1", "enter 2", "exit 1", "exit 2", "enter 1", "exit 0", "exit 1"):
        action, number = step.split()
        block = blocks[int(number)]
        await (block.__aenter__() if action == "enter" else block.__aexit__(None, None, None))
        state = await get_maintenance_state(store)
        seen.append((await get_maintenance_mode(store), [hold.on for hold in state.holds]))
    assert seen == [
        (True, [True]),
        (False, [True, False]),
        (True, [True, False, True]),
        (True, [True, True]),
        (True, [True]),
        (False, [True, False]),
        (False, [False]),
        (False, []),
    ]
    assert await kept_by(store) == MaintenanceState()


async def test_block_with_holds_of_another_process_keeps_its_place_in_their_order() -> None:
    store, other = MemoryBackend(), Hold(id="other", on=True)
    apps = [app_on(store, enabled=enabled) for enabled in (None, True, False)]

    async def seen() -> list[object]:
        return [await get_maintenance_mode(store), *[await status(app) for app in apps]]

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


async def test_websocket_in_a_block_that_a_newer_block_blocks_is_closed() -> None:
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


async def test_block_can_be_used_again_but_not_while_it_is_open() -> None:
    store = MemoryBackend()
    block = maintenance_mode_on(store)
    ids = []
    for _ in range(2):
        async with block:
            with pytest.raises(RuntimeError, match="open already"):
                await block.__aenter__()
            ids += [hold.id for hold in (await store.get_state()).holds]
        assert not await get_maintenance_mode(store)
    assert len(set(ids)) == len(ids) == 2


async def test_backend_that_cannot_be_hashed_is_one_switch_by_its_identity() -> None:
    class Unhashable(ReadOnlySwitch):
        __hash__ = None  # type: ignore[assignment]  # as in a dataclass with equality

    one, other = served(Unhashable()), Unhashable()
    async with maintenance_mode_on(one):
        assert (await get_maintenance_mode(one), await get_maintenance_mode(other)) == (True, False)


async def test_block_without_a_backend_acts_on_the_current_one_when_it_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    block = maintenance_mode_on()
    served(EnvVarBackend())
    async with block:
        assert await get_maintenance_mode(EnvVarBackend())
    monkeypatch.setenv("FASTAPI_MAINTENANCE_MODE", "1")
    async with maintenance_mode_off():
        assert not await get_maintenance_mode(EnvVarBackend())


def test_block_with_an_invalid_backend_or_function_is_refused_at_once() -> None:
    def job() -> None: ...

    with pytest.raises(TypeError, match="backend must be an object"):
        maintenance_mode_on(1)  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises(ValueError, match=r"backend must begin with one of env: file: .*, got 'mode.txt'"):
        maintenance_mode_on("mode.txt")
    with pytest.raises(TypeError, match=r"the decorated function must be an async function, got function .*job"):
        maintenance_mode_on(MemoryBackend())(job)  # type: ignore[arg-type]  # wrong on purpose


# As a decorator


async def test_each_call_of_a_decorated_function_is_a_block_of_its_own() -> None:
    store = MemoryBackend()
    both, messages = anyio.Event(), []

    @maintenance_mode_on(store, message="Copying")
    async def job() -> None:
        messages.append([hold.message for hold in store.peek().holds])
        if len(messages) == 2:
            both.set()
        await both.wait()

    with anyio.fail_after(30):
        async with anyio.create_task_group() as group:
            group.start_soon(job)
            group.start_soon(job)
    assert messages == [["Copying"], ["Copying", "Copying"]]
    assert store.peek() == MaintenanceState()


async def test_decorated_function_keeps_its_signature_and_result() -> None:
    store = MemoryBackend()

    async def add(first: int, step: int = 1) -> list[int]:
        """Add."""
        return [first + step, len(store.peek().holds)]

    held = maintenance_mode_on(store)(add)
    app = FastAPI()
    app.get("/jobs/{first}")(held)
    async with client(app) as http:
        response = await http.get("/jobs/7?step=2")
    assert (response.json(), await held(7)) == ([9, 1], [8, 1])
    assert inspect.signature(held) == inspect.signature(add)
    assert (held.__name__, held.__doc__, inspect.iscoroutinefunction(held)) == ("add", "Add.", True)
