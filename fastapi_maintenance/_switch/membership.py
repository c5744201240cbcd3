"""What one app serves, as a part of the worker of its switch."""

from functools import partial

import anyio

from fastapi_maintenance._helpers import background
from fastapi_maintenance._helpers.waiting import ANSWER_TIMEOUT, current_loop
from fastapi_maintenance._switch import worker
from fastapi_maintenance._switch.requests import Served
from fastapi_maintenance.backends.known import uncached
from fastapi_maintenance.backends.url import close_if_made_here
from fastapi_maintenance.typing import StateBackend


class Membership:
    """A part of the worker of a switch in this event loop, until it ends.

    Args:
        backend: The switch.
        served: What the app serves.
        counted: Whether a drain waits for it.
    """

    def __init__(self, backend: StateBackend, served: Served, *, counted: bool = True) -> None:
        self.backend = backend
        self.served = served
        self._counted = counted
        self.worker = worker.join(self, counted=counted)

    def move(self, backend: StateBackend) -> None:
        """Move to the worker of another switch, unless this is another event loop."""
        if self.worker.loop is current_loop():
            self.end()
            self.backend = backend
            self.worker = worker.join(self, counted=self._counted)

    def end(self) -> background.Task | None:
        """Leave the worker; return the task that then closes the client of a backend that was made from a URL."""
        ending = worker.leave(self)
        if not self._counted or self.worker.loop is not current_loop():  # as when the collector ends it
            return None
        return background.start(partial(_close, self.backend, ending))


async def _close(backend: StateBackend, ending: list[background.Task]) -> None:
    with anyio.move_on_after(ANSWER_TIMEOUT):
        for task in ending:
            await task.ended(ANSWER_TIMEOUT)
    await close_if_made_here(uncached(backend))
