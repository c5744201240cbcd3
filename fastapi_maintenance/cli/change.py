"""The commands that change the state: `on`, `off`, `edit`, `plan`, `cancel` and `release`."""

from typing import Any

from fastapi_maintenance._helpers import clock
from fastapi_maintenance._switch.block import MaintenanceBlock
from fastapi_maintenance._switch.holds import check_detailed, is_put_back, remove_hold
from fastapi_maintenance._switch.reports import registry_of
from fastapi_maintenance.backends.base import replacing
from fastapi_maintenance.backends.last_known import update_state
from fastapi_maintenance.cli import options as opt
from fastapi_maintenance.cli.durations import format_time, parse_duration, parse_time
from fastapi_maintenance.cli.errors import fail
from fastapi_maintenance.cli.run import LEASE, drained
from fastapi_maintenance.cli.show import counted, plain, print_err, print_state, print_window
from fastapi_maintenance.cli.status import print_workers_with_state
from fastapi_maintenance.cli.target import Which, act
from fastapi_maintenance.control import (
    checked_switch,
    get_maintenance_state,
    plan_maintenance,
    remove_window,
    set_maintenance_mode,
)
from fastapi_maintenance.errors import MaintenanceError
from fastapi_maintenance.state import (
    Hold,
    MaintenanceState,
    Switch,
    Window,
    edit_switch,
    open_holds,
    parts_in_force,
    status_of,
)
from fastapi_maintenance.typing import DetailedStateBackend, StateBackend


def on(  # noqa: PLR0913, PLR0917 -- its options
    which: Which,
    message: opt.Message = None,
    lasting: opt.For = None,
    until: opt.Until = None,
    drain: opt.Drain = None,
    workers: opt.Workers = None,
    by: opt.By = None,
    start: opt.NotFrom = None,
    *,
    no_end: opt.NoEnd = False,
    no_message: opt.NoMessage = False,
) -> None:
    """Turn maintenance on. If it is on, keep what is not mentioned."""
    if start is not None:
        fail("--from belongs to `plan`; `on` begins now")
    changes = opt.read_changes(message, lasting, until, by, no_end=no_end, no_message=no_message)
    patience = opt.read("--drain", drain, parse_duration)

    async def turn_on(backend: StateBackend, name: str) -> None:
        if patience is not None or workers is not None:  # refuse what is impossible before anything is changed
            MaintenanceBlock(backend, on=True, drain=patience, workers=workers)
            registry_of(backend)
        if isinstance(backend, DetailedStateBackend):
            checked_switch(True, **changes)  # noqa: FBT003 -- as the parameter is called there
            fields = {"on": True, **changes}
            state = await update_state(backend, replacing(lambda state: edit_switch(state, fields, clock.now())))
        else:
            await set_maintenance_mode(True, backend, **changes)  # noqa: FBT003 -- as above
            state = await get_maintenance_state(backend)
        _print_kept(state, changes)
        _print_changed(state)
        if workers != 0:
            await print_workers_with_state(state, name, backend)
        if patience is not None:
            ends_at = state.switch.ends_at
            details = {"ends_at": ends_at if ends_at and ends_at > clock.now() else None, "by": state.switch.by}
            hold = {**details, "lease": LEASE, "drain": patience, "workers": workers}
            async with drained(backend, name, hold, "maintenance stays on"):
                pass

    act(turn_on, which)


def off(which: Which, by: opt.By = None) -> None:
    """Turn maintenance off. What is planned for later stays."""

    async def turn_off(backend: StateBackend, name: str) -> None:
        await set_maintenance_mode(False, backend, by=by)  # noqa: FBT003 -- as above
        state = await get_maintenance_state(backend)
        _print_changed(state)
        await print_workers_with_state(state, name, backend)

    act(turn_off, which)


def edit(  # noqa: PLR0913 -- its options
    which: Which,
    message: opt.Message = None,
    lasting: opt.For = None,
    until: opt.Until = None,
    by: opt.By = None,
    *,
    no_end: opt.NoEnd = False,
    no_message: opt.NoMessage = False,
) -> None:
    """Change the message or the end while maintenance is on."""
    changes = opt.read_changes(message, lasting, until, by, no_end=no_end, no_message=no_message)
    if not changes:
        fail("nothing to change: give --message, --no-message, --for, --until, --no-end or --by")

    async def change(backend: StateBackend, name: str) -> None:
        checked_switch(True, **changes)  # noqa: FBT003 -- as above
        state = await update_state(check_detailed(backend, "edit"), lambda state: _edited(state, changes))
        _print_kept(state, changes)
        _print_changed(state)
        await print_workers_with_state(state, name, backend)

    act(change, which)


def plan(  # noqa: PLR0913, PLR0917 -- its options
    which: Which,
    start: opt.From,
    message: opt.Message = None,
    lasting: opt.For = None,
    until: opt.Until = None,
    by: opt.By = None,
) -> None:
    """Plan maintenance for later. Nothing changes until then."""
    now = clock.now()
    starts_at, zone = opt.read("--from", start, lambda text: parse_time(text, now)) or (now, None)
    details = {**opt.read_end(lasting, until, starts_at, zone), "message": message, "by": by}

    async def add(backend: StateBackend, _name: str) -> Window:
        return await plan_maintenance(starts_at, backend=backend, **details)

    print_window(act(add, which))


def cancel(which: Which, window_id: opt.Id) -> None:
    """Cancel planned maintenance; if it has begun, end it."""
    print_state(act(lambda backend, _: remove_window(window_id, backend, shortest=opt.SHORTEST_PREFIX), which))


def release(which: Which, hold_id: opt.Id) -> None:
    """Remove the hold of a job that died. Wait two seconds: a running job puts its hold back."""

    async def remove(backend: StateBackend, _name: str) -> tuple[MaintenanceState, bool]:
        is_back = await is_put_back(await remove_hold(hold_id, backend, shortest=opt.SHORTEST_PREFIX), backend)
        return await get_maintenance_state(backend), is_back

    state, is_back = act(remove, which)
    print_state(state)
    if is_back:
        fail("the job of this hold still runs, and has put it back", status=1)


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


def _print_kept(state: MaintenanceState, changes: dict[str, Any]) -> None:
    """Print on standard error the details of the switch that were kept."""
    switch = state.switch
    details = {
        "ends_at": switch.ends_at and f"until {format_time(switch.ends_at)}",
        "message": switch.message and f'"{plain(switch.message)}"',
        "by": switch.by and f"by {plain(switch.by)}",
    }
    if kept := [text for name, text in details.items() if text and name not in changes]:
        print_err(f"kept: {', '.join(kept)}")


def _print_changed(state: MaintenanceState) -> None:
    """Print the state; if jobs hold maintenance on or off against the switch, say so on standard error."""
    print_state(state)
    now = clock.now()
    decided_by = status_of(state, now).decided_by
    if isinstance(decided_by, Hold) and decided_by.on is not state.switch.on:
        jobs = sum(hold.on is decided_by.on for hold in open_holds(state, now))
        hold = "holds" if jobs == 1 else "hold"
        words = {True: "on", False: "off"}
        still = f"{counted(jobs, 'job')} still {hold} maintenance {words[decided_by.on]}"
        print_err(f"the switch is {words[state.switch.on]}; {still}")
