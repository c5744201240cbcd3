"""Change the switch: `on` and `edit` keep what is not mentioned."""

from datetime import timedelta
from typing import Any

from fastapi_maintenance._helpers import clock
from fastapi_maintenance._switch.block import Block
from fastapi_maintenance._switch.holds import check_detailed
from fastapi_maintenance._switch.reports import get_workers
from fastapi_maintenance.backends.base import replacing
from fastapi_maintenance.backends.known import update_state
from fastapi_maintenance.cli.hold import LEASE, shown_progress
from fastapi_maintenance.cli.show import plain, say_who_holds, show, tell
from fastapi_maintenance.cli.times import shown_time
from fastapi_maintenance.control import checked_switch, get_maintenance_state, set_maintenance_mode
from fastapi_maintenance.errors import MaintenanceError
from fastapi_maintenance.state import MaintenanceState, Switch, edit_switch, parts_in_force, status_of
from fastapi_maintenance.typing import DetailedStateBackend, StateBackend


async def turn_on(changes: dict[str, Any], drain: timedelta | None, backend: StateBackend) -> None:
    """Turn the switch on and show the state; then wait until no request that it blocks is in progress."""
    if drain is not None:
        await get_workers(backend)  # where that cannot be done, nothing has been changed yet
    if isinstance(backend, DetailedStateBackend):
        checked_switch(True, **changes)  # noqa: FBT003 -- as the parameter is called here
        all_changes = {"on": True, **changes}
        state = await update_state(backend, replacing(lambda state: edit_switch(state, all_changes, clock.now())))
    else:
        await set_maintenance_mode(True, backend, **changes)  # noqa: FBT003 -- as above
        state = await get_maintenance_state(backend)
    _show(state, changes)
    if drain is not None:
        ends_at, by = state.switch.ends_at, state.switch.by
        with shown_progress() as progress:
            async with Block(backend, on=True, ends_at=ends_at, lease=LEASE, drain=drain, by=by, progress=progress):
                pass


async def edit(changes: dict[str, Any], backend: StateBackend) -> None:
    """Change the switch while it is on, and show the state; raises a `MaintenanceError` if it is off."""
    checked_switch(True, **changes)  # noqa: FBT003 -- as above
    _show(await update_state(check_detailed(backend, "edit"), lambda state: _edited(state, changes)), changes)


async def turn_off(by: str | None, backend: StateBackend) -> None:
    """Turn the switch off and show the state."""
    await set_maintenance_mode(False, backend, by=by)  # noqa: FBT003 -- as above
    state = await get_maintenance_state(backend)
    show(state)
    say_who_holds(state)


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
