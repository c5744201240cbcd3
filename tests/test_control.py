"""`control`: reading and setting the switch, windows and holds, and which arguments are refused."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from anyio.lowlevel import checkpoint

from fastapi_maintenance import (
    EnvVarBackend,
    Hold,
    InvalidStateError,
    MaintenanceState,
    MemoryBackend,
    NoSuchHoldError,
    NoSuchWindowError,
    NotSupportedError,
    ReadOnlyBackendError,
    Switch,
    Window,
    cancel_maintenance,
    configure_backend,
    get_maintenance_mode,
    get_maintenance_state,
    get_maintenance_status,
    maintenance_mode_off,
    maintenance_mode_on,
    plan_maintenance,
    release_hold,
    set_maintenance_mode,
)
from fastapi_maintenance._switch.current_backend import default_backend
from fastapi_maintenance.testing import moved_clock
from fastapi_maintenance.typing import StateChange
from tests.stores import BareSwitch, DetailedStore, ReadOnlySwitch
from tests.switch.blocks import served

pytestmark = pytest.mark.anyio

NOW = datetime.now(UTC)
LATER, PAST = NOW + timedelta(days=1), NOW - timedelta(hours=1)
each_store = pytest.mark.parametrize("create", [MemoryBackend, DetailedStore])


@each_store
async def test_set_maintenance_mode_replaces_the_switch(
    create: Callable[[], MemoryBackend | DetailedStore], stopped_at: datetime
) -> None:
    backend = create()
    for value, details, expected in (
        (
            True,
            {"message": "Back soon", "ends_at": LATER, "by": "alice"},
            Switch(on=True, message="Back soon", ends_at=LATER, by="alice", since=stopped_at),
        ),
        (True, {}, Switch(on=True)),
        (False, {"by": "bob"}, Switch(on=False, by="bob", since=stopped_at)),
        (False, {}, Switch()),
    ):
        await set_maintenance_mode(value, backend, **details)
        assert await get_maintenance_state(backend) == MaintenanceState(switch=expected)


@each_store
async def test_plan_maintenance_changes_nothing_until_it_starts(
    create: Callable[[], MemoryBackend | DetailedStore],
) -> None:
    backend = create()
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
    modes = [await get_maintenance_mode(backend)]
    await cancel_maintenance("tonight", backend)
    assert [*modes, await get_maintenance_mode(backend)] == [True, False]
    for unknown in ("tonight", "over", "to"):
        with pytest.raises(NoSuchWindowError, match=f"^no window has the id '{unknown}'$"):
            await cancel_maintenance(unknown, backend)


async def test_release_hold_removes_one_hold() -> None:
    gone, other = Hold(id="gone", on=True), Hold(id="other", on=True)
    backend = MemoryBackend(MaintenanceState(holds=(gone, other)))
    await release_hold("gone", backend)
    assert (await get_maintenance_state(backend)).holds == (other,)
    for unknown in ("gone", "ot"):
        with pytest.raises(NoSuchHoldError, match=f"^no hold has the id '{unknown}'$"):
            await release_hold(unknown, backend)


async def test_change_whose_first_reply_is_lost_is_made_once() -> None:
    class RetriedStore(MemoryBackend):
        async def update_state(self, change: StateChange) -> MaintenanceState:
            await super().update_state(change)  # its reply is lost, so the client tries again
            return await super().update_state(change)

    backend = RetriedStore(MaintenanceState(holds=(Hold(id="job", on=True),)))
    window = await plan_maintenance(LATER, backend=backend)
    assert (await backend.get_state()).windows == (window,)
    await cancel_maintenance(window.id, backend)
    await release_hold("job", backend)
    assert await backend.get_state() == MaintenanceState()


async def test_get_maintenance_state_that_is_not_a_state_raises() -> None:
    store = DetailedStore()
    store.get_state = checkpoint  # type: ignore[assignment,method-assign]  # wrong on purpose: it returns None
    with pytest.raises(InvalidStateError, match=r"^a backend must return a MaintenanceState, got NoneType None"):
        await get_maintenance_status(store)


@pytest.mark.parametrize("store", [BareSwitch(), MemoryBackend()])
async def test_get_maintenance_state_that_is_a_long_text_raises_showing_its_beginning(store: Any) -> None:  # noqa: ANN401 -- wrong on purpose
    store.value = store._state = "x" * 100_000
    with pytest.raises(InvalidStateError, match=r"must return .*, got str 'x{199}$"):
        await get_maintenance_status(store)


async def test_configure_backend_does_not_compare_the_backend_with_text() -> None:
    class Named(BareSwitch):
        __hash__ = BareSwitch.__hash__

        def __eq__(self, other: object) -> bool:
            return bool(self.name == other.name)  # type: ignore[attr-defined]  # as some write it

    backend = Named()
    configure_backend(backend)
    assert default_backend() is backend


async def test_maintenance_mode_on_after_its_expected_end_is_still_on() -> None:
    backend = MemoryBackend()
    with moved_clock() as clock:
        clock.move_to(NOW)
        async with maintenance_mode_on(backend, ends_at=LATER):
            assert (await get_maintenance_status(backend)).ends_at == LATER
            clock.move_to(LATER + timedelta(hours=1))
            assert await get_maintenance_mode(backend) is True
        assert await get_maintenance_mode(backend) is False


async def test_block_stores_its_author_and_time_with_its_hold() -> None:
    backend = MemoryBackend()
    async with maintenance_mode_on(backend, by="alice"), maintenance_mode_off(backend, by="bob", lease=60):
        holds = backend.peek().holds
        assert [(hold.by, hold.since is not None) for hold in holds] == [("alice", True), ("bob", True)]


async def test_set_maintenance_mode_keeps_open_holds() -> None:
    hold = Hold(id="a job on another host", on=True)
    backend = MemoryBackend(MaintenanceState(holds=(hold,)))
    await set_maintenance_mode(False, backend)
    assert (await get_maintenance_mode(backend), backend.peek().holds) == (True, (hold,))


async def test_get_maintenance_state_of_a_bare_switch_has_the_holds_of_this_process() -> None:
    backend = BareSwitch()
    async with maintenance_mode_on(backend):
        async with maintenance_mode_off(backend):
            inner = await get_maintenance_mode(backend)
        outer = await get_maintenance_state(backend)
    assert (inner, outer.switch.on, [hold.on for hold in outer.holds]) == (False, False, [True])
    assert await get_maintenance_state(backend) == MaintenanceState()
    async with maintenance_mode_on(served(EnvVarBackend()), message="Back soon", lease=60):
        state = await get_maintenance_state(EnvVarBackend())
    assert [(hold.on, hold.message) for hold in state.holds] == [(True, "Back soon")]


@pytest.mark.parametrize("backend", [EnvVarBackend(), ReadOnlySwitch()], ids=["environment", "read-only switch"])
async def test_set_maintenance_mode_of_a_read_only_backend_raises(backend: EnvVarBackend | ReadOnlySwitch) -> None:
    with pytest.raises(ReadOnlyBackendError):
        await set_maintenance_mode(True, backend)
    assert not await get_maintenance_mode(backend)


async def block(**settings: Any) -> None:  # noqa: ANN401 -- those of the block
    """Create a block, which checks its settings before it runs."""
    maintenance_mode_on(**settings)


Call = Callable[..., Awaitable[object]]
turn_on, turn_off = partial(set_maintenance_mode, True), partial(set_maintenance_mode, False)
NAIVE = LATER.replace(tzinfo=None)
LACKS = r"needs a backend with the method update_state\(change\), which .* lacks$"


@pytest.mark.parametrize(
    ("call", "settings", "error", "text"),
    [
        *(
            (set_maintenance_mode, {"value": value}, TypeError, f"value must be True or False, got {kind} {value!r}")
            for value, kind in (("off", "str"), (1, "int"), (None, "NoneType"))
        ),
        (turn_on, {"message": 5}, TypeError, "message must be a str, got int 5"),
        (turn_on, {"message": "\ud800"}, ValueError, "message must be text that UTF-8 can carry"),
        (turn_on, {"ends_at": "noon"}, TypeError, "ends_at must be a datetime or None, got str 'noon'"),
        (turn_on, {"ends_at": NAIVE}, ValueError, "ends_at must be an aware datetime"),
        (turn_on, {"ends_at": PAST}, ValueError, "ends_at must be in the future, got "),
        (turn_off, {"message": "why"}, ValueError, "message and ends_at go with value=True"),
        (turn_off, {"ends_at": LATER}, ValueError, "message and ends_at go with value=True"),
        *(
            (turn_on, {"backend": BareSwitch(), **details}, NotSupportedError, f"{next(iter(details))} {LACKS}")
            for details in ({"message": "soon"}, {"by": "alice"}, {"ends_at": LATER})
        ),
        (plan_maintenance, {"starts_at": PAST}, ValueError, "starts_at must be in the future, got "),
        (plan_maintenance, {"starts_at": LATER, "ends_at": LATER}, ValueError, "ends_at must be after starts_at, got "),
        (plan_maintenance, {"starts_at": "noon"}, TypeError, "starts_at must be a datetime or None, got str 'noon'"),
        (plan_maintenance, {"starts_at": None}, TypeError, "starts_at must be a datetime, got NoneType None"),
        (plan_maintenance, {"starts_at": LATER, "message": 5}, TypeError, "message must be a str, got int 5"),
        (plan_maintenance, {"starts_at": LATER, "backend": BareSwitch()}, NotSupportedError, rf"plan_.*\(\) {LACKS}"),
        (cancel_maintenance, {"window_id": 5}, TypeError, "window_id must be a str, got int 5"),
        (release_hold, {"hold_id": 5}, TypeError, "hold_id must be a str, got int 5"),
        (block, {"backend": 1}, TypeError, "backend must be an object with the async methods"),
        (block, {"backend": "file"}, ValueError, "backend must begin with one of env: .*, got 'file'"),
        (block, {"message": 5}, TypeError, "message must be a str, got int 5"),
        (block, {"lease": 0}, ValueError, "lease must be a finite number of seconds above 0, got 0"),
        (block, {"lease": timedelta(seconds=-1)}, ValueError, "lease must be a finite number of seconds above 0, got "),
        (block, {"lease": "30s"}, TypeError, "lease must be a number of seconds or a timedelta, got str '30s'"),
        (block, {"lease": 1e12}, ValueError, "lease must end before the year 10000"),
        (block, {"ends_at": PAST}, ValueError, "ends_at must be in the future, got "),
        (block, {"ends_at": 5}, TypeError, "ends_at must be a datetime or None, got int 5"),
    ],
)
async def test_argument_that_is_invalid_is_refused_and_changes_nothing(
    call: Call, settings: dict[str, Any], error: type[Exception], text: str
) -> None:
    backend = settings.get("backend", memory := MemoryBackend())
    with pytest.raises(error, match=f"^{text}"):
        await call(**{"backend": memory, **settings})
    assert not isinstance(backend, BareSwitch) or not backend.value
    assert memory.peek() == MaintenanceState()
