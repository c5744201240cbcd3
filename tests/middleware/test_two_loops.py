"""`_switch/websockets.py`: one app is served by two threads, each with its own event loop: WebSockets of both close."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import anyio
import pytest
from fastapi import FastAPI
from starlette.types import Message

from fastapi_maintenance import (
    LocalFileBackend,
    MemoryBackend,
    StateBackend,
    maintenance_middleware,
    maintenance_mode_on,
    set_maintenance_mode,
)
from tests.middleware.test_open_websockets import CLOSED, Client, Talk
from tests.switch.lifespans import living

LIMIT = 60.0  # seconds, after which a test fails instead of hanging


class Outcome(NamedTuple):
    """How a WebSocket ended: what its client received after the start, and from which thread."""

    sent: list[Message]
    has_ended: bool  # before the limit, also the app
    by_own_thread: bool


EXPECTED = Outcome([CLOSED], has_ended=True, by_own_thread=True)


class OwnClient(Client):
    """A client that accepts messages on its own event loop alone, as connections of servers do."""

    def __init__(self) -> None:
        super().__init__()
        self._thread = threading.get_ident()
        self.by_own_thread = True

    async def send(self, message: Message) -> None:
        self.by_own_thread &= threading.get_ident() == self._thread
        await super().send(message)


class Loop:
    """A WebSocket on its own event loop and thread, open until maintenance closes it."""

    def __init__(self, app: FastAPI, name: str, *, has_lifespan: bool) -> None:
        self.app = app
        self.has_lifespan = has_lifespan
        self.is_open = threading.Event()
        self._outcome: Outcome | None = None
        self._thread = threading.Thread(target=anyio.run, args=(self._serve,), kwargs={"backend": name}, daemon=True)
        self._thread.start()

    async def _serve(self) -> None:
        client, talk = OwnClient(), Talk()
        path = f"/{id(self)}"
        self.app.add_api_websocket_route(path, talk)
        async with AsyncExitStack() as stack:
            if self.has_lifespan:
                await stack.enter_async_context(living(self.app))
            with anyio.move_on_after(LIMIT) as scope:
                async with anyio.create_task_group() as group:
                    group.start_soon(client.connect, self.app, path)
                    await talk.begun.wait()
                    self.is_open.set()
        self._outcome = Outcome(client.sent[1:], not scope.cancelled_caught, client.by_own_thread)
        client.close()

    def outcome(self) -> Outcome | None:
        """Wait for the end, and return how it ended."""
        self._thread.join(timeout=60)
        return self._outcome


@contextmanager
def websockets_on_loops(backend: StateBackend, name: str, lifespans: tuple[bool, ...]) -> Iterator[list[Loop]]:
    """Open a WebSocket on each event loop; the lifespan of the app runs on those that have one."""
    app = FastAPI()
    app.add_middleware(maintenance_middleware(backend=backend))
    loops = []
    for has_lifespan in lifespans:
        loops.append(Loop(app, name, has_lifespan=has_lifespan))
        assert loops[-1].is_open.wait(timeout=60)
    yield loops


async def switch_on(backend: StateBackend, loops: list[Loop]) -> list[Outcome | None]:
    """Set the switch, on a third event loop."""
    await set_maintenance_mode(True, backend)
    return [await anyio.to_thread.run_sync(loop.outcome) for loop in loops]


async def hold_on(backend: StateBackend, loops: list[Loop]) -> list[Outcome | None]:
    async with maintenance_mode_on(backend):
        return [await anyio.to_thread.run_sync(loop.outcome) for loop in loops]


@pytest.mark.parametrize("store", ["memory", "file"])
@pytest.mark.parametrize(
    ("close", "lifespans"),
    [(switch_on, (True, True)), (switch_on, (True, False)), (switch_on, (False, False)), (hold_on, (True, True))],
)
def test_open_websockets_on_two_event_loops_are_closed_each_by_its_own_thread(
    store: str,
    close: Callable[[StateBackend, list[Loop]], Awaitable[list[Outcome | None]]],
    lifespans: tuple[bool, ...],
    anyio_backend: str,
    tmp_path: Path,
) -> None:
    backend = MemoryBackend() if store == "memory" else LocalFileBackend(tmp_path / "mode")
    with websockets_on_loops(backend, anyio_backend, lifespans) as loops:
        assert anyio.run(close, backend, loops, backend=anyio_backend) == [EXPECTED, EXPECTED]
