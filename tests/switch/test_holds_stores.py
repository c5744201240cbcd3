"""Blocks on stores that fail, hold what cannot be read, or have nothing but a switch."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio import fail_after

from fastapi_maintenance import (
    InvalidStateError,
    MaintenanceState,
    NotSupportedError,
    StateBackend,
    Switch,
    get_maintenance_mode,
    get_maintenance_state,
    maintenance_mode_off,
    maintenance_mode_on,
    set_maintenance_mode,
)
from fastapi_maintenance._switch import block, holds
from tests.stores import BareSwitch, DetailedStore, ReadOnlySwitch, be_down
from tests.support import eventually
from tests.switch.blocks import LOGGER, BodyError, Make, any_hooked, file, kept_by, messages_of, served

pytestmark = pytest.mark.anyio


# A store that fails


@any_hooked
async def test_an_error_of_the_store_reaches_who_opens_the_block_and_then_nothing_is_held(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    store = make(Path())
    assert isinstance(store, (BareSwitch, DetailedStore))
    store.go_down()
    with pytest.raises(ConnectionError):
        async with maintenance_mode_on(store):
            pytest.fail("a block that nobody else can see was entered")
    store.come_back()
    assert [f"A hold could not be taken out of {type(store).__name__}"] == messages_of(caplog)
    assert MaintenanceState() == await get_maintenance_state(store)
    assert MaintenanceState() == await kept_by(store)


@any_hooked
async def test_what_was_written_before_the_store_failed_is_taken_back(make: Make) -> None:
    store = make(Path())
    assert isinstance(store, (BareSwitch, DetailedStore))

    async def fail_once() -> None:
        store.come_back()
        await be_down()

    store.after_write = fail_once
    with pytest.raises(ConnectionError):
        async with maintenance_mode_on(store):
            pytest.fail("a block that may not be kept was entered")
    assert MaintenanceState() == await kept_by(store)


@any_hooked
async def test_an_error_of_the_store_reaches_who_ends_the_block_and_the_block_no_longer_counts_here(make: Make) -> None:
    store = make(Path())
    assert isinstance(store, (BareSwitch, DetailedStore))
    with pytest.raises(ConnectionError):
        async with maintenance_mode_on(store):
            store.go_down()
    assert holds.local_holds(store) == ()
    store.come_back()
    await set_maintenance_mode(False, store)


@any_hooked
async def test_the_error_of_the_block_comes_before_that_of_the_store_which_is_logged(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    store = make(Path())
    assert isinstance(store, (BareSwitch, DetailedStore))
    with pytest.raises(BodyError):
        async with maintenance_mode_on(store):
            store.go_down()
            raise BodyError
    (record,) = [record for record in caplog.records if record.name == LOGGER]
    assert f"A hold could not be taken out of {type(store).__name__}" == record.getMessage()
    assert record.exc_info is not None
    assert ConnectionError is record.exc_info[0]
    store.come_back()
    await set_maintenance_mode(False, store)


@any_hooked
async def test_a_store_that_hangs_does_not_keep_a_block_from_ending(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(block, "_CLOSE_TIMEOUT", 0.02)
    store = make(Path())
    assert isinstance(store, (BareSwitch, DetailedStore))
    with fail_after(30), pytest.raises(TimeoutError):
        async with maintenance_mode_on(store):
            store.before_write = anyio.sleep_forever
    store.come_back()
    await set_maintenance_mode(False, store)


@pytest.mark.parametrize("nonsense", ["on", None, 2, 1.0])
async def test_a_backend_that_returns_nonsense_is_not_held(nonsense: Any) -> None:  # noqa: ANN401 -- the nonsense
    with pytest.raises(InvalidStateError, match=rf"must return True or False, got {type(nonsense).__name__} "):
        async with maintenance_mode_on(BareSwitch(nonsense)):
            pytest.fail("a block was entered on a store that says nothing sensible")


# What cannot be read


async def test_a_block_on_garbage_does_not_begin_and_leaves_it_alone(tmp_path: Path) -> None:
    """A slip of the pen in the file would else be taken for off, and the operator's switch would be gone."""
    (tmp_path / "mode").write_text("1x")
    with pytest.raises(InvalidStateError, match="got '1x"):
        async with maintenance_mode_on(file(tmp_path), message="Never begun"):
            pytest.fail("the block must not begin")
    assert "1x" == (tmp_path / "mode").read_text()


async def test_a_block_during_which_the_state_becomes_garbage_says_so_and_leaves_it_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    backend = file(tmp_path)
    with pytest.raises(InvalidStateError, match="got '1x"):
        async with maintenance_mode_on(backend, lease=0.3):
            (tmp_path / "mode").write_text("1x")
            await eventually_logged(caplog, "A hold could not be renewed")
    assert "1x" == (tmp_path / "mode").read_text()
    await set_maintenance_mode(True, backend)
    assert await kept_by(backend) == MaintenanceState(switch=Switch(on=True))


async def eventually_logged(caplog: pytest.LogCaptureFixture, text: str) -> None:
    async def is_logged() -> bool:
        return any(text in message for message in messages_of(caplog))

    await eventually(is_logged)


# A backend with nothing but a switch


@pytest.mark.parametrize("operator", [True, False])
async def test_a_bare_switch_is_set_for_the_block_and_back_to_the_value_of_the_operator(operator: bool) -> None:
    store = BareSwitch(operator)
    seen = []
    async with maintenance_mode_on(store):
        seen.append(store.value)
        async with maintenance_mode_off(store):
            seen.append(store.value)
        seen.append(store.value)
    assert [True, False, True, operator] == [*seen, store.value]


async def test_a_database_that_has_no_booleans_is_a_switch_too() -> None:
    store = BareSwitch(0)  # type: ignore[arg-type]  # what some databases return
    async with maintenance_mode_on(store):
        assert store.value is True
    assert store.value is False


@pytest.mark.parametrize("changed", [True, False])
async def test_a_change_by_the_operator_of_another_process_during_a_block_is_kept(changed: bool) -> None:
    store = BareSwitch(not changed)
    async with maintenance_mode_off(store) if changed else maintenance_mode_on(store):
        store.value = changed
    assert changed is store.value


@pytest.mark.parametrize("changed", [True, False])
async def test_a_change_by_the_operator_of_this_process_during_a_block_counts_after_it(changed: bool) -> None:
    store = BareSwitch(not changed)
    async with maintenance_mode_off(store) if changed else maintenance_mode_on(store):
        await set_maintenance_mode(changed, store)
        during = await get_maintenance_state(store)
        held = store.value
    assert (held, during.switch.on, store.value) == (not changed, changed, changed)


async def test_the_second_change_by_the_operator_of_another_process_is_kept_too() -> None:
    store = BareSwitch()
    async with maintenance_mode_on(store):
        store.value = False
        async with maintenance_mode_off(store):
            store.value = True
    assert store.value


async def test_bare_switch_that_could_not_be_set_back_is_when_the_next_block_ends() -> None:
    store = BareSwitch()
    with pytest.raises(ConnectionError):
        async with maintenance_mode_on(store):
            store.go_down()
    store.come_back()
    left_behind = store.value
    async with maintenance_mode_on(store):
        pass
    assert (True, False, {}) == (left_behind, store.value, holds.ledgers)


async def test_bare_switch_that_could_not_be_set_back_takes_the_next_value_of_the_operator() -> None:
    store = BareSwitch()
    with pytest.raises(ConnectionError):
        async with maintenance_mode_on(store):
            store.go_down()
    store.come_back()
    await set_maintenance_mode(True, store)
    async with maintenance_mode_on(store):
        pass
    assert store.value


async def test_a_write_that_was_not_made_is_not_taken_for_one_of_this_process_later() -> None:
    store = BareSwitch()
    store.before_write = be_down
    with pytest.raises(ConnectionError):
        async with maintenance_mode_on(store):
            pytest.fail("a block that nobody else can see was entered")
    store.come_back()
    store.value = True
    async with maintenance_mode_on(store):
        pass
    assert store.value


async def test_a_switch_that_cannot_be_written_is_left_alone() -> None:
    store = served(ReadOnlySwitch())
    async with maintenance_mode_on(store):
        assert (True, False) == (await get_maintenance_mode(store), store.value)
        store.value = True
        async with maintenance_mode_off(store):
            assert (False, True) == (await get_maintenance_mode(store), store.value)
    assert (True, True) == (await get_maintenance_mode(store), store.value)


@pytest.mark.parametrize(
    ("block", "named"),
    [
        (partial(maintenance_mode_on, message="Copying"), "message"),
        (partial(maintenance_mode_on, lease=60), "lease"),
        (partial(maintenance_mode_off, lease=60), "lease"),
    ],
)
async def test_what_a_bare_switch_cannot_keep_is_refused_with_the_name_of_the_missing_method(
    block: Callable[[StateBackend], block.MaintenanceBlock], named: str
) -> None:
    store = BareSwitch()
    with pytest.raises(NotSupportedError, match=rf"{named} needs .* update_state\(change\)"):
        async with block(store):
            pytest.fail("a block was entered without what it was told to keep")
    assert not store.value
