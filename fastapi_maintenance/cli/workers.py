"""Who has the state: the workers behind a switch, as they are shown to people."""

from collections.abc import Sequence

import anyio

from fastapi_maintenance._switch.reports import get_workers
from fastapi_maintenance.cli.show import counted, in_progress, plain, tell
from fastapi_maintenance.errors import NotSupportedError, WorkerStatus
from fastapi_maintenance.typing import StateBackend

_PATIENCE = 2.0  # seconds; a worker looks at the store each second where changes are not pushed
_POLL = 0.05  # seconds
_SHOWN_SKEW = 1.0  # seconds


async def say_who_has_it(word: str, name: str, backend: StateBackend) -> None:
    """Print on standard error who goes by the stored state, after waiting up to two seconds for those that do not.

    Args:
        word: What it is: `on`, `off`.
        name: The name of the switch.
        backend: The switch.
    """
    workers: Sequence[WorkerStatus] = ()
    try:
        with anyio.move_on_after(_PATIENCE):
            while not workers or not all(one.is_current for one in workers):
                workers = await get_workers(backend)
                await anyio.sleep(_POLL)
    except NotSupportedError:
        tell(f"{word}: this store cannot say who has it", stderr=True)
        return
    except Exception as error:  # noqa: BLE001 -- whatever a store raises: the state has been written
        tell(f"{word}: who has it is not known: {plain(f'{type(error).__name__}: {error}')}", stderr=True)
        return
    if not workers:
        text = f"{word}: no worker has signed in behind {plain(name)}; is this the switch of the service?"
        tell(text, stderr=True)
        return
    current = [one for one in workers if one.is_current]
    tell(f"{word}: {_number_of(current)} {'has' if len(current) == 1 else 'have'} it", stderr=True)
    for one in workers:
        if not one.is_current:
            tell(f"{word}: {plain(_who(one))} does not have it", stderr=True)


def show_workers(workers: Sequence[WorkerStatus], name: str) -> None:
    """Print each worker on a line."""
    if not workers:
        tell(f"no worker has signed in behind {plain(name)}")
    for one in workers:
        has = {True: "has the state", False: "does not have the state", None: "has not reported"}[one.is_current]
        parts = [plain(_who(one)), has, in_progress([one]) if one.requests else "no requests in progress"]
        if one.oldest_route is not None:
            parts[-1] += f": {plain(one.oldest_route)}"
        if one.clock_ahead is not None and abs(one.clock_ahead) >= _SHOWN_SKEW:
            direction = "ahead of" if one.clock_ahead > 0 else "behind"
            parts.append(f"its clock is {abs(one.clock_ahead):g} s {direction} that of the store")
        tell(*parts)


def _number_of(workers: Sequence[WorkerStatus]) -> str:
    hosts = {one.host for one in workers}
    return counted(len(workers), "worker") + (f" on {counted(len(hosts), 'host')}" if workers else "")


def _who(worker: WorkerStatus) -> str:
    return f"process {worker.process_id} on {worker.host}"
