"""Setting and reading the switch: what comes of it, and what is refused."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from fastapi_maintenance import (
    EnvVarBackend,
    Hold,
    InvalidStateError,
    LocalFileBackend,
    MaintenanceState,
    MemoryBackend,
    NotSupportedError,
    ReadOnlyBackendError,
    StateBackend,
    get_maintenance_mode,
    get_maintenance_state,
    maintenance_mode_on,
    set_maintenance_mode,
)
from tests.stores import BareSwitch, DetailedStore, ReadOnlySwitch, TextSwitch

pytestmark = pytest.mark.anyio

HOUR = timedelta(hours=1)
LONG_AGO = datetime(2000, 1, 1, tzinfo=timezone.utc)
FAR_AWAY = datetime(2999, 1, 1, tzinfo=timezone.utc)


# What comes of it


@pytest.mark.parametrize("kind", ["memory", "file", "detailed", "bare", "text"])
async def test_what_is_set_is_what_is_read(kind: str, tmp_path: Path) -> None:
    stores: dict[str, StateBackend] = {
        "memory": MemoryBackend(),
        "file": LocalFileBackend(tmp_path / "mode"),
        "detailed": DetailedStore(),
        "bare": BareSwitch(),
        "text": TextSwitch({}),
    }
    store = stores[kind]
    seen = [await get_maintenance_mode(store)]
    for value in (True, True, False):
        await set_maintenance_mode(value, store)
        seen.append(await get_maintenance_mode(store))
        assert value is await store.get_value()
        assert MaintenanceState(active=value) == await get_maintenance_state(store)
    assert [False, True, True, False] == seen


async def test_a_message_and_a_window_are_kept_with_the_switch() -> None:
    store = MemoryBackend()
    await set_maintenance_mode(True, store, message="Back at ten", starts_at=LONG_AGO, ends_at=FAR_AWAY)
    expected = MaintenanceState(active=True, message="Back at ten", starts_at=LONG_AGO, ends_at=FAR_AWAY)
    assert expected == await get_maintenance_state(store)


async def test_what_was_set_before_is_replaced_as_a_whole() -> None:
    store = MemoryBackend()
    await set_maintenance_mode(True, store, message="Back at ten", ends_at=FAR_AWAY)
    await set_maintenance_mode(True, store, starts_at=LONG_AGO)
    assert MaintenanceState(active=True, starts_at=LONG_AGO) == store.peek()
    await set_maintenance_mode(False, store)
    assert MaintenanceState() == store.peek()


async def test_open_holds_of_whatever_process_go_on_when_the_switch_is_set() -> None:
    hold = Hold(id="of another process", active=True)
    store = MemoryBackend(MaintenanceState(holds=(hold,)))
    await set_maintenance_mode(False, store)
    assert MaintenanceState(holds=(hold,)) == store.peek()
    assert await get_maintenance_mode(store)


@pytest.mark.parametrize(
    ("starts_in", "ends_in", "expected"),
    [(-HOUR, HOUR, True), (None, HOUR, True), (-HOUR, None, True), (HOUR, None, False), (HOUR, 2 * HOUR, False)],
)
async def test_the_mode_is_on_only_within_the_window(
    starts_in: timedelta | None, ends_in: timedelta | None, expected: bool
) -> None:
    store, now = DetailedStore(), datetime.now(timezone.utc)
    await set_maintenance_mode(
        True,
        store,
        starts_at=None if starts_in is None else now + starts_in,
        ends_at=None if ends_in is None else now + ends_in,
    )
    assert (expected, True) == (await get_maintenance_mode(store), (await get_maintenance_state(store)).active)


async def test_a_window_that_has_passed_is_off_although_nobody_switched_it() -> None:
    store = DetailedStore(MaintenanceState(active=True, starts_at=LONG_AGO, ends_at=LONG_AGO + HOUR))
    assert not await get_maintenance_mode(store)


async def test_a_window_is_kept_in_utc_whatever_zone_it_was_given_in() -> None:
    store = MemoryBackend()
    zone = timezone(timedelta(hours=5, minutes=30))
    await set_maintenance_mode(True, store, starts_at=LONG_AGO.astimezone(zone), ends_at=FAR_AWAY.astimezone(zone))
    state = store.peek()
    assert (LONG_AGO, FAR_AWAY) == (state.starts_at, state.ends_at)
    assert state.starts_at is not None
    assert timezone.utc == state.starts_at.tzinfo


async def test_a_text_that_is_empty_is_a_message_too() -> None:
    store = MemoryBackend()
    await set_maintenance_mode(True, store, message="")
    assert "" == store.peek().message


async def test_the_state_of_a_bare_switch_has_its_value_and_the_blocks_of_this_process() -> None:
    store = BareSwitch(value=True)
    async with maintenance_mode_on(store):
        state = await get_maintenance_state(store)
    assert (True, [True]) == (state.active, [hold.active for hold in state.holds])


async def test_setting_or_reading_a_switch_leaves_nothing_behind_in_this_process() -> None:
    """The fixture that looks for holds that outlived their test sees to it."""
    for store in (BareSwitch(), BareSwitch(value=True)):
        await get_maintenance_state(store)
        await set_maintenance_mode(True, store)
        assert store.value


# What is refused


@pytest.mark.parametrize("value", [1, 0, "on", None, [], MaintenanceState()])
@pytest.mark.parametrize("store", [MemoryBackend, BareSwitch])
async def test_a_value_that_is_not_true_or_false_is_refused(
    value: Any,  # noqa: ANN401 -- what is refused
    store: type[MemoryBackend | BareSwitch],
) -> None:
    backend = store()
    with pytest.raises(TypeError, match=r"^value must be True or False, got "):
        await set_maintenance_mode(value, backend)
    assert MaintenanceState() == await get_maintenance_state(backend)


@pytest.mark.parametrize(
    ("settings", "error", "text"),
    [
        ({"message": 7}, TypeError, "^message must be a str, got int 7"),
        ({"message": "\ud800"}, ValueError, "^message must be text that UTF-8 can carry"),
        ({"starts_at": "2999-01-01"}, TypeError, "^starts_at must be a datetime or None, got str"),
        ({"ends_at": 3600}, TypeError, "^ends_at must be a datetime or None, got int 3600"),
        ({"starts_at": datetime(2999, 1, 1)}, ValueError, "^starts_at must be an aware datetime"),  # noqa: DTZ001 -- refused
        ({"ends_at": datetime(2999, 1, 1)}, ValueError, "^ends_at must be an aware datetime"),  # noqa: DTZ001 -- refused
        ({"ends_at": LONG_AGO}, ValueError, "^ends_at must be in the future, got 2000-01-01"),
        ({"starts_at": FAR_AWAY, "ends_at": FAR_AWAY}, ValueError, "^ends_at must be after starts_at"),
        ({"starts_at": FAR_AWAY, "ends_at": FAR_AWAY - HOUR}, ValueError, "^ends_at must be after starts_at"),
    ],
)
async def test_a_message_or_window_that_cannot_be_is_refused_and_changes_nothing(
    settings: dict[str, Any], error: type[Exception], text: str
) -> None:
    store = MemoryBackend()
    with pytest.raises(error, match=text):
        await set_maintenance_mode(True, store, **settings)
    assert MaintenanceState() == store.peek()


@pytest.mark.parametrize("settings", [{"message": "Done"}, {"starts_at": LONG_AGO}, {"ends_at": FAR_AWAY}])
async def test_a_message_or_window_of_a_switch_that_is_set_off_is_refused(settings: dict[str, Any]) -> None:
    store = MemoryBackend(state=True)
    with pytest.raises(ValueError, match=r"^message, starts_at and ends_at go with value=True"):
        await set_maintenance_mode(False, store, **settings)
    assert MaintenanceState(active=True) == store.peek()


@pytest.mark.parametrize(
    ("settings", "named"),
    [({"message": "Soon"}, "message"), ({"starts_at": LONG_AGO}, "starts_at"), ({"ends_at": FAR_AWAY}, "ends_at")],
)
@pytest.mark.parametrize("store", [BareSwitch, ReadOnlySwitch])
async def test_what_a_bare_switch_cannot_keep_is_refused_with_the_name_of_the_missing_method(
    settings: dict[str, Any], named: str, store: type[BareSwitch]
) -> None:
    backend = store()
    with pytest.raises(NotSupportedError, match=rf"^{named} needs a backend with the method update_state\(change\)"):
        await set_maintenance_mode(True, backend, **settings)
    assert not backend.value


@pytest.mark.parametrize("value", [True, False])
@pytest.mark.parametrize("store", [EnvVarBackend, ReadOnlySwitch])
async def test_a_switch_that_cannot_be_written_refuses_also_while_a_block_runs(
    value: bool, store: type[EnvVarBackend | ReadOnlySwitch]
) -> None:
    backend = store()
    with pytest.raises(ReadOnlyBackendError):
        await set_maintenance_mode(value, backend)
    async with maintenance_mode_on(backend):
        with pytest.raises(ReadOnlyBackendError):
            await set_maintenance_mode(value, backend)
        assert await get_maintenance_mode(backend)
    assert MaintenanceState() == await get_maintenance_state(backend)


@pytest.mark.parametrize("backend", ["mode.txt", 7, MemoryBackend, object()])
async def test_what_is_no_backend_is_refused_by_its_name(backend: Any) -> None:  # noqa: ANN401 -- what is refused
    with pytest.raises(TypeError, match=r"^backend must be an object with the async methods"):
        await set_maintenance_mode(True, backend)


@pytest.mark.parametrize("store", [BareSwitch, DetailedStore])
async def test_an_error_of_the_store_reaches_who_reads_it(store: type[BareSwitch | DetailedStore]) -> None:
    backend = store()
    backend.go_down()
    for read in (get_maintenance_mode, get_maintenance_state):
        with pytest.raises(ConnectionError):
            await read(backend)


@pytest.mark.parametrize("nonsense", ["on", None, 2, 1.0])
async def test_nonsense_of_the_store_is_an_error_for_who_reads_it(nonsense: Any) -> None:  # noqa: ANN401 -- nonsense
    with pytest.raises(InvalidStateError, match=r"^get_value\(\) must return True or False, got "):
        await get_maintenance_mode(BareSwitch(nonsense))
