"""Reading and setting the switch: what is taken, what is refused, and what is kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from fastapi_maintenance import (
    EnvVarBackend,
    Hold,
    MaintenanceState,
    MemoryBackend,
    NoSuchHoldError,
    NoSuchWindowError,
    NotSupportedError,
    ReadOnlyBackendError,
    Switch,
    Window,
    cancel_maintenance,
    get_maintenance_mode,
    get_maintenance_state,
    get_maintenance_status,
    maintenance_mode_off,
    maintenance_mode_on,
    plan_maintenance,
    release_hold,
    set_maintenance_mode,
)
from fastapi_maintenance.testing import moved_clock
from tests.stores import BareSwitch, DetailedStore, ReadOnlySwitch
from tests.switch.blocks import served

pytestmark = pytest.mark.anyio

NOW = datetime.now(UTC)
LATER = NOW + timedelta(days=1)


@pytest.mark.parametrize("value", ["off", 1, None])
async def test_the_value_must_be_a_boolean(value: Any) -> None:  # noqa: ANN401 -- the mistake that is tested
    backend = MemoryBackend()
    with pytest.raises(TypeError, match=rf"^value must be True or False, got {type(value).__name__} {value!r}"):
        await set_maintenance_mode(value, backend)
    assert MaintenanceState() == backend.peek()


@pytest.mark.parametrize(
    ("value", "details", "error", "text"),
    [
        (True, {"message": 5}, TypeError, "^message must be a str, got int 5"),
        (True, {"message": "\ud800"}, ValueError, "^message must be text that UTF-8 can carry"),
        (True, {"ends_at": "noon"}, TypeError, "^ends_at must be a datetime or None, got str 'noon'"),
        (True, {"ends_at": datetime(2100, 1, 1)}, ValueError, "^ends_at must be an aware datetime"),  # noqa: DTZ001 -- naive
        (True, {"ends_at": NOW - timedelta(hours=1)}, ValueError, "^ends_at must be in the future, got "),
        (False, {"message": "closed"}, ValueError, "^message and ends_at go with value=True"),
        (False, {"ends_at": LATER}, ValueError, "^message and ends_at go with value=True"),
    ],
)
async def test_wrong_details_are_refused_and_change_nothing(
    value: bool, details: dict[str, Any], error: type[Exception], text: str
) -> None:
    backend = MemoryBackend()
    with pytest.raises(error, match=text):
        await set_maintenance_mode(value, backend, **details)
    assert MaintenanceState() == backend.peek()


async def test_set_maintenance_mode_replaces_the_switch(stopped_at: datetime) -> None:
    for backend in (MemoryBackend(), DetailedStore()):
        await set_maintenance_mode(True, backend, message="Back soon", ends_at=LATER, by="alice")
        switch = (await get_maintenance_state(backend)).switch
        assert switch == Switch(on=True, message="Back soon", ends_at=LATER, by="alice", since=stopped_at)
        await set_maintenance_mode(True, backend)
        assert await get_maintenance_state(backend) == MaintenanceState(switch=Switch(on=True))
        await set_maintenance_mode(False, backend, by="bob")
        assert (await get_maintenance_state(backend)).switch == Switch(on=False, by="bob", since=stopped_at)
        await set_maintenance_mode(False, backend)
        assert await get_maintenance_state(backend) == MaintenanceState()


@pytest.mark.parametrize("make_backend", [MemoryBackend, DetailedStore])
async def test_plan_maintenance_changes_nothing_until_it_starts(
    make_backend: Callable[[], MemoryBackend | DetailedStore],
) -> None:
    backend = make_backend()
    await set_maintenance_mode(True, backend, ends_at=NOW + timedelta(hours=1), message="now")
    with moved_clock() as clock:
        clock.move_to(NOW)
        before = await get_maintenance_status(backend)
        window = await plan_maintenance(LATER, LATER + timedelta(hours=6), backend, message="New database", by="alice")
        later = await plan_maintenance(LATER + timedelta(days=1), backend=backend)
        assert await get_maintenance_status(backend) == replace(before, next_window=window)
        clock.move_to(LATER)
        status = await get_maintenance_status(backend)
        assert (status.active, status.message, status.by, status.next_window) == (True, "New database", "alice", later)
        await set_maintenance_mode(False, backend)
        assert (await get_maintenance_state(backend)).windows == (later,)
        await cancel_maintenance(later.id, backend)
        assert await get_maintenance_state(backend) == MaintenanceState()


async def test_cancel_maintenance_ends_a_window_in_force() -> None:
    window = Window(id="tonight", starts_at=NOW, ends_at=LATER)
    ended = Window(id="over", starts_at=NOW - timedelta(days=1), ends_at=NOW)
    backend = MemoryBackend(MaintenanceState(windows=(window, ended)))
    assert await get_maintenance_mode(backend) is True
    await cancel_maintenance("tonight", backend)
    assert await get_maintenance_mode(backend) is False
    for unknown in ("tonight", "over", "to"):
        with pytest.raises(NoSuchWindowError, match=f"^no window has the id '{unknown}'$"):
            await cancel_maintenance(unknown, backend)
    with pytest.raises(TypeError, match=r"^window_id must be a str, got int 5"):
        await cancel_maintenance(5, backend)  # type: ignore[arg-type]  # the error under test


async def test_release_hold_takes_one_hold_out_of_the_store() -> None:
    gone, other = Hold(id="gone", on=True), Hold(id="other", on=True)
    backend = MemoryBackend(MaintenanceState(holds=(gone, other)))
    await release_hold("gone", backend)
    assert (await get_maintenance_state(backend)).holds == (other,)
    for unknown in ("gone", "ot"):
        with pytest.raises(NoSuchHoldError, match=f"^no hold has the id '{unknown}'$"):
            await release_hold(unknown, backend)
    with pytest.raises(TypeError, match=r"^hold_id must be a str, got int 5"):
        await release_hold(5, backend)  # type: ignore[arg-type]  # the error under test


@pytest.mark.parametrize(
    ("settings", "error", "text"),
    [
        ({"starts_at": NOW - timedelta(hours=1)}, ValueError, "^starts_at must be in the future, got "),
        ({"starts_at": LATER, "ends_at": LATER}, ValueError, "^ends_at must be after starts_at, got "),
        ({"starts_at": "noon"}, TypeError, "^starts_at must be a datetime or None, got str 'noon'"),
        ({"starts_at": None}, TypeError, "^starts_at must be a datetime, got NoneType None"),
        ({"starts_at": LATER, "message": 5}, TypeError, "^message must be a str, got int 5"),
        (
            {"starts_at": LATER, "backend": BareSwitch()},
            NotSupportedError,
            r"^plan_maintenance\(\) needs a backend with the method update_state\(change\), which .* lacks$",
        ),
    ],
)
async def test_plan_maintenance_wrong_arguments_are_refused(
    settings: dict[str, Any], error: type[Exception], text: str
) -> None:
    backend = MemoryBackend()
    with pytest.raises(error, match=text):
        await plan_maintenance(**{"backend": backend, **settings})
    assert backend.peek() == MaintenanceState()


async def test_maintenance_mode_on_with_an_expected_end_ends_nothing() -> None:
    backend = MemoryBackend()
    with moved_clock() as clock:
        clock.move_to(NOW)
        async with maintenance_mode_on(backend, ends_at=LATER):
            assert (await get_maintenance_status(backend)).ends_at == LATER
            clock.move_to(LATER + timedelta(hours=1))
            assert await get_maintenance_mode(backend) is True
        assert await get_maintenance_mode(backend) is False


async def test_who_opens_a_block_and_when_is_kept_with_its_hold() -> None:
    backend = MemoryBackend()
    async with maintenance_mode_on(backend, by="alice"), maintenance_mode_off(backend, by="bob", lease=60):
        holds = backend.peek().holds
        assert [(hold.by, hold.since is not None) for hold in holds] == [("alice", True), ("bob", True)]


async def test_the_switch_leaves_open_holds_as_they_are() -> None:
    hold = Hold(id="a job on another host", on=True)
    backend = MemoryBackend(MaintenanceState(holds=(hold,)))
    await set_maintenance_mode(False, backend)
    assert (True, (hold,)) == (await get_maintenance_mode(backend), backend.peek().holds)


@pytest.mark.parametrize(
    ("details", "name"),
    [({"message": "soon"}, "message"), ({"by": "alice"}, "by"), ({"ends_at": LATER}, "ends_at")],
)
async def test_a_bare_switch_refuses_details_and_names_the_method_that_it_lacks(
    details: dict[str, Any], name: str
) -> None:
    backend = BareSwitch()
    with pytest.raises(NotSupportedError, match=rf"^{name} needs a backend with the method update_state\(change\)"):
        await set_maintenance_mode(True, backend, **details)
    assert not backend.value


@pytest.mark.parametrize("backend", [EnvVarBackend(), ReadOnlySwitch()], ids=["environment", "read-only switch"])
async def test_a_backend_that_cannot_be_written_says_so(backend: EnvVarBackend | ReadOnlySwitch) -> None:
    with pytest.raises(ReadOnlyBackendError):
        await set_maintenance_mode(True, backend)
    assert not await get_maintenance_mode(backend)


async def test_the_newest_block_of_this_process_decides_what_is_read() -> None:
    backend = BareSwitch()
    async with maintenance_mode_on(backend):
        async with maintenance_mode_off(backend):
            inner = await get_maintenance_mode(backend)
        outer = await get_maintenance_state(backend)
    assert (inner, outer.switch.on, [hold.on for hold in outer.holds]) == (False, False, [True])
    assert MaintenanceState() == await get_maintenance_state(backend)


async def test_the_state_of_a_backend_that_cannot_keep_holds_tells_of_those_of_this_process() -> None:
    async with maintenance_mode_on(served(EnvVarBackend()), message="Back soon", lease=60):
        state = await get_maintenance_state(EnvVarBackend())
    assert [(hold.on, hold.message) for hold in state.holds] == [(True, "Back soon")]


@pytest.mark.parametrize(
    ("settings", "error", "text"),
    [
        ({"backend": 1}, TypeError, "^backend must be an object with the async methods"),
        ({"backend": "file"}, ValueError, "^backend must begin with one of env: .*, got 'file'"),
        ({"message": 5}, TypeError, "^message must be a str, got int 5"),
        ({"lease": 0}, ValueError, "^lease must be a finite number of seconds above 0, got 0"),
        ({"lease": timedelta(seconds=-1)}, ValueError, "^lease must be a finite number of seconds above 0, got "),
        ({"lease": "30s"}, TypeError, "^lease must be a number of seconds or a timedelta, got str '30s'"),
        ({"ends_at": NOW - timedelta(1)}, ValueError, "^ends_at must be in the future, got "),
        ({"ends_at": 5}, TypeError, "^ends_at must be a datetime or None, got int 5"),
        ({"lease": 1e12}, ValueError, "^lease must end before the year 10000"),
    ],
)
def test_wrong_settings_of_a_block_are_refused_before_it_runs(
    settings: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        maintenance_mode_on(**settings)
