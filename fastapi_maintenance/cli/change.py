"""Change the switch: `on` and `edit` keep what is not mentioned."""

from datetime import timedelta
from typing import Any

from fastapi_maintenance._helpers import clock
from fastapi_maintenance._switch.block import MaintenanceBlock
from fastapi_maintenance._switch.holds import check_detailed
from fastapi_maintenance._switch.reports import registry_of
from fastapi_maintenance.backends.base import replacing
from fastapi_maintenance.backends.known import update_state
from fastapi_maintenance.cli.hold import LEASE, drained
from fastapi_maintenance.cli.show import plain, say_who_holds, show, tell
from fastapi_maintenance.cli.times import shown_time
from fastapi_maintenance.cli.workers import say_who_has_it
from fastapi_maintenance.control import checked_switch, get_maintenance_state, set_maintenance_mode
from fastapi_maintenance.errors import MaintenanceError
from fastapi_maintenance.state import MaintenanceState, Switch, edit_switch, parts_in_force, status_of
from fastapi_maintenance.typing import DetailedStateBackend, StateBackend


async def turn_on(
    changes: dict[str, Any], drain: timedelta | None, workers: int | None, backend: StateBackend, name: str
) -> None:
    """Turn the switch on, show the state and who has it; then wait until no request that it blocks is in progress."""
    if drain is not None or workers is not None:  # what cannot be done is refused before anything is changed
        MaintenanceBlock(backend, on=True, drain=drain, workers=workers)
        registry_of(backend)
    if isinstance(backend, DetailedStateBackend):
        checked_switch(True, **changes)  # noqa: FBT003 -- as the parameter is called here
        all_changes = {"on": True, **changes}
        state = await update_state(backend, replacing(lambda state: edit_switch(state, all_changes, clock.now())))
    else:
        await set_maintenance_mode(True, backend, **changes)  # noqa: FBT003 -- as above
        state = await get_maintenance_state(backend)
    _show(state, changes)
    await say_who_has_it(state, name, backend)
    if drain is not None:
        details = {"ends_at": state.switch.ends_at, "by": state.switch.by}
        hold = {**details, "lease": LEASE, "drain": drain, "workers": workers}
        async with drained(backend, name, hold, "maintenance stays on"):
            pass


async def edit(changes: dict[str, Any], backend: StateBackend, name: str) -> None:
    """Change the switch while it is on, show the state and who has it; raises a `MaintenanceError` if it is off."""
    checked_switch(True, **changes)  # noqa: FBT003 -- as above
    state = await update_state(check_detailed(backend, "edit"), lambda state: _edited(state, changes))
    _show(state, changes)
    await say_who_has_it(state, name, backend)


async def turn_off(by: str | None, backend: StateBackend, name: str) -> None:
    """Turn the switch off, show the state and who has it."""
    await set_maintenance_mode(False, backend, by=by)  # noqa: FBT003 -- as above
    state = await get_maintenance_state(backend)
    show(state)
    say_who_holds(state)
    await say_who_has_it(state, name, backend)


def _edited(state: MaintenanceState, changes: dict[str, Any]) -> MaintenanceState:
    now = clock.now()
    part = next(iter(parts_in_force(state, now)), None)
    if isinstance(part, Switch):
        return edit_switch(state, changes, now)
    if part is not None:
        what = f"the switch is off, and the window {part.id} is in force"
        msg = f"{what}; use `on`, which keeps its message and end, or `cancel`"
    else:
        msg = f"{'the switch' if status_of(state, now).active else 'maintenance'} is off; use `on`"
    raise MaintenanceError(msg)


def _show(state: MaintenanceState, changes: dict[str, Any]) -> None:
    """Print on standard error what the switch keeps, and then the state."""
    switch = state.switch
    details = {
        "ends_at": switch.ends_at and f"until {shown_time(switch.ends_at)}",
        "message": switch.message and f'"{plain(switch.message)}"',
        "by": switch.by and f"by {plain(switch.by)}",
    }
    if kept := [text for name, text in details.items() if text and name not in changes]:
        tell(f"kept: {', '.join(kept)}", stderr=True)
    show(state)
    say_who_holds(state)
