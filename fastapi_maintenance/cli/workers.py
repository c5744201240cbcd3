"""Who has the state: the workers behind a switch, as they are shown to people."""

from collections.abc import Sequence

import anyio

from fastapi_maintenance._helpers import clock
from fastapi_maintenance._helpers.waiting import ANSWER_TIMEOUT, in_time
from fastapi_maintenance._switch.reports import get_workers
from fastapi_maintenance.cli.show import counted, plain, tell, word_of
from fastapi_maintenance.errors import NotSupportedError, WorkerStatus
from fastapi_maintenance.state import MaintenanceState, status_of
from fastapi_maintenance.typing import StateBackend

_PATIENCE = 2.0  # seconds; a worker looks at the store each second where changes are not pushed
_POLL = 0.1  # seconds
_SHOWN_SKEW = 1.0  # seconds


async def say_who_has_it(state: MaintenanceState, name: str, backend: StateBackend) -> None:
    """Print on standard error which workers go by a state, after waiting up to two seconds for those that do not.

    Args:
        state: The state, as it was stored.
        name: The name of the switch.
        backend: The switch.
    """
    end = anyio.current_time() + _PATIENCE
    try:
        while True:
            with in_time(ANSWER_TIMEOUT):
                workers = await get_workers(backend)
            active = status_of(state, clock.now()).active
            others = [one for one in workers if not one.is_current or one.is_on is not active]
            if (workers and not others) or anyio.current_time() >= end:
                break
            await anyio.sleep(_POLL)
    except NotSupportedError:
        _say(state, "this store cannot say which workers have it")
        return
    except Exception as error:  # noqa: BLE001 -- whatever a store raises: the state has been written
        _say(state, f"which workers have it is not known: {plain(f'{type(error).__name__}: {error}')}", is_bad=True)
        return
    if not workers:
        question = "is this the switch of the service?"
        _say(state, f"no worker has signed in behind {plain(name)}; {question}", is_bad=True)
    elif len(others) < len(workers):
        those = [one for one in workers if one not in others]
        hosts = counted(len({one.host for one in those}), "host")
        _say(state, f"{counted(len(those), 'worker')} on {hosts} {'has' if len(those) == 1 else 'have'} it")
    for one in others:
        which = [] if one.is_on is None else [f"maintenance is {'on' if one.is_on else 'off'} for it"]
        _say(state, "; ".join([f"{_who(one)} {_has(one)}", *which, *_skew(one)]), is_bad=True)


def _say(state: MaintenanceState, text: str, *, is_bad: bool = False) -> None:
    word = "on" if status_of(state, clock.now()).active else "off"
    tell(f"{word}: [yellow]{text}[/]" if is_bad else f"{word}: {text}", stderr=True)


def show_workers(workers: Sequence[WorkerStatus], name: str) -> None:
    """Print each worker on a line."""
    if not workers:
        tell(f"no worker has signed in behind {plain(name)}")
    for one in workers:
        known = "" if one.is_on is None else f"{word_of(is_on=one.is_on)}  "
        tell(known + _who(one), _has(one), *_requests(one), *_skew(one))


def _who(worker: WorkerStatus) -> str:
    return plain(f"process {worker.process_id} on {worker.host}")


def _has(worker: WorkerStatus) -> str:
    return {True: "has the state", False: "does not have the state", None: "has not reported"}[worker.is_current]


def _requests(worker: WorkerStatus) -> list[str]:
    """Say which requests are in progress that maintenance blocks; while it is off, none is known."""
    if not worker.requests:
        return ["no requests in progress"] * bool(worker.is_on)
    which = "" if worker.requests == 1 else "the oldest "
    oldest = f"{which}{plain(worker.oldest_route or '')} for {worker.oldest_for or 0:.0f} s"
    return [f"{counted(worker.requests, 'request')} in progress, {oldest}"]


def _skew(worker: WorkerStatus) -> list[str]:
    ahead = worker.clock_ahead or 0
    direction = "ahead of" if ahead > 0 else "behind"
    return [f"its clock is {abs(ahead):g} s {direction} that of the store"] * (abs(ahead) >= _SHOWN_SKEW)
