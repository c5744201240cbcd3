"""The commands that show the state, `status` and `watch`, and which workers have it, `workers`."""

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any

import anyio
import typer

from fastapi_maintenance._helpers import clock
from fastapi_maintenance._helpers.waiting import ANSWER_TIMEOUT, in_time
from fastapi_maintenance._switch.reports import get_workers
from fastapi_maintenance.cli import options as opt
from fastapi_maintenance.cli.errors import store_problem
from fastapi_maintenance.cli.show import (
    counted,
    on_or_off,
    plain,
    print_change,
    print_err,
    print_error,
    print_parts,
    print_state,
)
from fastapi_maintenance.cli.target import Which, act, print_switch
from fastapi_maintenance.control import get_maintenance_state, maintenance_changes
from fastapi_maintenance.errors import NotSupportedError, WorkerStatus
from fastapi_maintenance.state import MaintenanceState, open_holds, status_of
from fastapi_maintenance.typing import StateBackend

_ON_STATUS = 3  # an exit status
_PATIENCE = 2.0  # seconds; where changes are not pushed, a worker reads the store every second
_POLL = 0.1  # seconds
_SHOWN_SKEW = 1.0  # seconds


def status(
    which: Which,
    var_name: opt.VarName = None,
    file_path: opt.FilePath = None,
    *,
    as_json: opt.AsJson = False,
    exit_code: Annotated[bool, typer.Option("--exit-code", help="End with 3 if maintenance is on.")] = False,
) -> None:
    """Show whether maintenance is on, and why, and what is planned."""
    names: list[str] = []

    async def look(backend: StateBackend, _name: str) -> tuple[MaintenanceState, Sequence[WorkerStatus] | None]:
        state, workers = await get_maintenance_state(backend), None
        try:
            with suppress(NotSupportedError):
                workers = await get_workers(backend)
        except Exception as error:  # noqa: BLE001 -- whatever a store raises: the state is known all the same
            print_error(store_problem(error))
        return state, workers

    which = which._replace(url=opt.url_of(which.url, var_name, file_path))
    state, workers = act(look, which, names.append if as_json else print_switch)
    if as_json:
        typer.echo(json.dumps(_as_json(names[0], state, workers), default=datetime.isoformat))
    else:
        print_state(state, workers)
    if exit_code and status_of(state, clock.now()).active:
        raise typer.Exit(_ON_STATUS)


def _as_json(name: str, state: MaintenanceState, workers: Sequence[WorkerStatus] | None) -> dict[str, Any]:
    now = clock.now()
    status = status_of(state, now)
    kind = None if status.decided_by is None else type(status.decided_by).__name__.lower()
    reports = None if workers is None else [asdict(worker) for worker in workers]
    for report in reports or ():
        del report["holds"]
    return {
        "name": name,
        "status": {**asdict(status), "decided_by": kind},
        "switch": asdict(state.switch),
        "windows": [asdict(window) for window in state.windows if window.ends_at is None or window.ends_at > now],
        "holds": [asdict(hold) for hold in open_holds(state, now)],
        "workers": reports,
    }


def watch(which: Which) -> None:
    """Print each change as it happens, until you press Ctrl-C."""

    async def follow(backend: StateBackend, _name: str) -> None:
        await get_maintenance_state(backend)  # an error here ends the command
        async for status in maintenance_changes(backend):
            print_change(status)

    act(follow, which)


def workers(which: Which) -> None:
    """Show the processes that serve behind the switch, and whether they have its state."""

    async def look(backend: StateBackend, name: str) -> None:
        workers = await get_workers(backend)
        if not workers:
            print_parts(f"no worker has signed in behind {plain(name)}")
        for worker in workers:
            known = "" if worker.is_on is None else f"{on_or_off(is_on=worker.is_on)}  "
            print_parts(known + _name_of(worker), _has_state(worker), *_requests(worker), *_skew(worker))

    act(look, which)


async def print_workers_with_state(state: MaintenanceState, name: str, backend: StateBackend) -> None:
    """Print on standard error which workers have a state, after waiting up to two seconds for those that lack it.

    Args:
        state: The state, as it was stored.
        name: The name of the switch.
        backend: The switch.
    """

    def say(text: str, *, is_bad: bool = False) -> None:
        word = "on" if status_of(state, clock.now()).active else "off"
        print_err(f"{word}: [yellow]{text}[/]" if is_bad else f"{word}: {text}")

    end = anyio.current_time() + _PATIENCE
    try:
        while True:
            with in_time(ANSWER_TIMEOUT):
                workers = await get_workers(backend)
            active = status_of(state, clock.now()).active
            others = [worker for worker in workers if not worker.is_current or worker.is_on is not active]
            if (workers and not others) or anyio.current_time() >= end:
                break
            await anyio.sleep(_POLL)
    except NotSupportedError:
        say("this store cannot say which workers have it")
        return
    except Exception as error:  # noqa: BLE001 -- whatever a store raises: the state has been written
        say(f"which workers have it is not known: {plain(f'{type(error).__name__}: {error}')}", is_bad=True)
        return
    if not workers:
        say(f"no worker has signed in behind {plain(name)}; is this the switch of the service?", is_bad=True)
    elif len(others) < len(workers):
        hosts = {worker.host for worker in workers if worker not in others}
        count = len(workers) - len(others)
        say(f"{counted(count, 'worker')} on {counted(len(hosts), 'host')} {'has' if count == 1 else 'have'} it")
    for worker in others:
        known = [] if worker.is_on is None else [f"maintenance is {'on' if worker.is_on else 'off'} for it"]
        say("; ".join([f"{_name_of(worker)} {_has_state(worker)}", *known, *_skew(worker)]), is_bad=True)


def _name_of(worker: WorkerStatus) -> str:
    return plain(f"process {worker.process_id} on {worker.host}")


def _has_state(worker: WorkerStatus) -> str:
    return {True: "has the state", False: "does not have the state", None: "has not reported"}[worker.is_current]


def _requests(worker: WorkerStatus) -> list[str]:
    """Describe the requests in progress that maintenance blocks; while it is off, none are known."""
    if not worker.requests:
        return ["no requests in progress"] * bool(worker.is_on)
    which = "" if worker.requests == 1 else "the oldest "
    oldest = f"{which}{plain(worker.oldest_route or '')} for {worker.oldest_for or 0:.0f} s"
    return [f"{counted(worker.requests, 'request')} in progress, {oldest}"]


def _skew(worker: WorkerStatus) -> list[str]:
    ahead = worker.clock_ahead or 0
    direction = "ahead of" if ahead > 0 else "behind"
    return [f"its clock is {abs(ahead):g} s {direction} that of the store"] * (abs(ahead) >= _SHOWN_SKEW)
