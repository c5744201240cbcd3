"""Blocks on stores that fail, have an invalid value, or are a bare switch."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from fastapi_maintenance import (
    InvalidStateError,
    MaintenanceState,
    NotSupportedError,
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
from tests.switch.blocks import LOGGER, BodyError, file, kept_by, messages_of, served
from tests.switch.lifespans import once

pytestmark = pytest.mark.anyio
each_store = pytest.mark.parametrize("make", [BareSwitch, DetailedStore])
Make = type[BareSwitch | DetailedStore]


# A store that fails


@each_store
@pytest.mark.parametrize("moment", ["before_write", "after_write"])
async def test_block_whose_store_fails_when_it_is_entered_raises_and_holds_nothing(make: Make, moment: str) -> None:
    store = make()
    once(store, moment, be_down)
    with pytest.raises(ConnectionError):
        async with maintenance_mode_on(store):
            pytest.fail("a block that the store may not have was entered")
    assert await kept_by(store) == await get_maintenance_state(store) == MaintenanceState()


@each_store
async def test_block_whose_store_stays_down_when_it_is_entered_logs_that_it_could_not_be_released(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    store = make()
    store.go_down()
    with pytest.raises(ConnectionError):
        async with maintenance_mode_on(store):
            pytest.fail("a block that the store does not have was entered")
    store.come_back()
    assert messages_of(caplog) == [f"A hold could not be taken out of {make.__name__}"]
    assert await get_maintenance_state(store) == MaintenanceState()


@asynccontextmanager
async def failing_release(store: BareSwitch | DetailedStore) -> AsyncGenerator[None]:
    """Enter a block whose store is down when it ends, and which therefore raises; then let the store come back."""
    with pytest.raises(ConnectionError):
        async with maintenance_mode_on(store):
            yield
            store.go_down()
    assert holds.local_holds(store) == ()
    store.come_back()


@each_store
async def test_block_whose_store_fails_when_it_ends_raises_and_counts_no_longer_here(make: Make) -> None:
    store = make()
    async with failing_release(store):
        pass
    await set_maintenance_mode(False, store)


@each_store
async def test_block_that_raises_while_its_store_fails_raises_its_own_error_and_logs_the_other(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    store = make()
    with pytest.raises(BodyError):
        async with maintenance_mode_on(store):
            store.go_down()
            raise BodyError
    (record,) = [record for record in caplog.records if record.name == LOGGER]
    assert record.getMessage() == f"A hold could not be taken out of {make.__name__}"
    assert record.exc_info is not None
    assert record.exc_info[0] is ConnectionError
    store.come_back()
    await set_maintenance_mode(False, store)


@each_store
async def test_block_whose_store_hangs_ends(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(block, "_CLOSE_TIMEOUT", 0.02)
    store = make()
    with anyio.fail_after(30), pytest.raises(TimeoutError):
        async with maintenance_mode_on(store):
            store.before_write = anyio.sleep_forever
    store.come_back()
    await set_maintenance_mode(False, store)


# An invalid value


@pytest.mark.parametrize("value", ["on", None, 2, 1.0])
async def test_block_on_a_backend_with_an_invalid_value_does_not_begin(value: Any) -> None:  # noqa: ANN401 -- wrong on purpose
    with pytest.raises(InvalidStateError, match=rf"must return True or False, got {type(value).__name__} "):
        async with maintenance_mode_on(BareSwitch(value)):
            pytest.fail("the block was entered")


async def test_block_on_a_file_with_an_invalid_state_does_not_begin_and_leaves_it(tmp_path: Path) -> None:
    (tmp_path / "mode").write_text("1x")  # a typo: taking it for off would lose the operator's switch
    with pytest.raises(InvalidStateError, match="got '1x"):
        async with maintenance_mode_on(file(tmp_path), message="Never begun"):
            pytest.fail("the block was entered")
    assert (tmp_path / "mode").read_text() == "1x"


async def test_block_during_which_the_state_becomes_invalid_raises_and_leaves_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    backend = file(tmp_path)
    with pytest.raises(InvalidStateError, match="got '1x"):
        async with maintenance_mode_on(backend, lease=0.3):
            (tmp_path / "mode").write_text("1x")
            await eventually(lambda: "A hold could not be renewed" in "".join(messages_of(caplog)))
    assert (tmp_path / "mode").read_text() == "1x"
    await set_maintenance_mode(True, backend)
    assert await kept_by(backend) == MaintenanceState(switch=Switch(on=True))


# A bare switch


@pytest.mark.parametrize("operator", [True, False, 0])  # some databases return 0
async def test_bare_switch_is_set_for_a_block_and_back_to_the_operators_value(operator: Any) -> None:  # noqa: ANN401 -- also an int
    store = BareSwitch(operator)
    values = []
    async with maintenance_mode_on(store):
        values.append(store.value)
        async with maintenance_mode_off(store):
            values.append(store.value)
        values.append(store.value)
    assert [*values, store.value] == [True, False, True, bool(operator)]


@pytest.mark.parametrize("value", [True, False])
async def test_bare_switch_keeps_a_change_that_the_operator_makes_during_a_block(value: bool) -> None:
    here, elsewhere = BareSwitch(not value), BareSwitch(not value)
    wanted = maintenance_mode_off if value else maintenance_mode_on
    async with wanted(here), wanted(elsewhere):
        await set_maintenance_mode(value, here)
        elsewhere.value = value  # by another process
        assert here.value is not value
        assert (await get_maintenance_state(here)).switch.on is value
    assert (here.value, elsewhere.value) == (value, value)


async def test_bare_switch_keeps_the_second_change_by_another_process_too() -> None:
    store = BareSwitch()
    async with maintenance_mode_on(store):
        store.value = False
        async with maintenance_mode_off(store):
            store.value = True
    assert store.value


@pytest.mark.parametrize("operator", [None, True])
async def test_bare_switch_that_could_not_be_set_back_is_set_back_by_the_next_block(operator: bool | None) -> None:
    store = BareSwitch()
    async with failing_release(store):
        pass
    assert store.value
    if operator is not None:
        await set_maintenance_mode(operator, store)
    async with maintenance_mode_on(store):
        pass
    assert (store.value, holds.ledgers) == (bool(operator), {})


async def test_bare_switch_write_that_failed_is_not_later_taken_for_one_of_this_process() -> None:
    store = BareSwitch()
    store.before_write = be_down
    with pytest.raises(ConnectionError):
        async with maintenance_mode_on(store):
            pytest.fail("the block was entered")
    store.come_back()
    store.value = True
    async with maintenance_mode_on(store):
        pass
    assert store.value


async def test_read_only_switch_is_left_alone() -> None:
    store = served(ReadOnlySwitch())
    async with maintenance_mode_on(store):
        assert (await get_maintenance_mode(store), store.value) == (True, False)
        store.value = True
        async with maintenance_mode_off(store):
            assert (await get_maintenance_mode(store), store.value) == (False, True)
    assert (await get_maintenance_mode(store), store.value) == (True, True)


@pytest.mark.parametrize(
    ("wanted", "details"),
    [
        (maintenance_mode_on, {"message": "Copying"}),
        (maintenance_mode_on, {"lease": 60}),
        (maintenance_mode_off, {"lease": 60}),
    ],
)
async def test_bare_switch_cannot_keep_details_and_the_error_names_the_missing_method(
    wanted: Any,  # noqa: ANN401 -- one of two functions
    details: dict[str, Any],
) -> None:
    store = BareSwitch()
    with pytest.raises(NotSupportedError, match=rf"{next(iter(details))} needs .* update_state\(change\)"):
        async with wanted(store, **details):
            pytest.fail("the block was entered")
    assert not store.value
