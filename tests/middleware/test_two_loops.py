"""One app that two threads serve, each on an event loop of its own: WebSockets of both are closed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import anyio
import pytest
from fastapi import FastAPI, WebSocket
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

LIMIT = 10.0  # seconds


class Outcome(NamedTuple):
    """What came of a WebSocket: what its client was sent after the start, and how."""

    sent: list[Message]
    has_ended: bool  # the app too, and before the limit
    by_own_thread: bool


EXPECTED = Outcome([CLOSED], has_ended=True, by_own_thread=True)


class OwnClient(Client):
    """A client that takes messages on its own event loop alone, as connections of servers do."""

    def __init__(self) -> None:
        super().__init__()
        self._thread = threading.get_ident()
        self.by_own_thread = True

    async def send(self, message: Message) -> None:
        self.by_own_thread &= threading.get_ident() == self._thread
        await super().send(message)


class Loop:
    """A WebSocket that is open on an event loop of its own, in a thread of its own, until maintenance closes it."""

    def __init__(self, app: FastAPI, name: str, *, has_lifespan: bool) -> None:
        self.app = app
        self.has_lifespan = has_lifespan
        self.is_open = threading.Event()
        self._outcome: Outcome | None = None
        self._thread = threading.Thread(target=anyio.run, args=(self._serve,), kwargs={"backend": name}, daemon=True)
        self._thread.start()

    async def _serve(self) -> None:
        client, talk = OwnClient(), Talk()

        async def endpoint(websocket: WebSocket) -> None:
            await talk(websocket)

        path = f"/{id(self)}"
        self.app.add_api_websocket_route(path, endpoint)
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
        """Wait for the end, and return what came of the WebSocket."""
        self._thread.join(timeout=60)
        return self._outcome


def memory(_folder: Path) -> StateBackend:
    return MemoryBackend()


def file(folder: Path) -> StateBackend:
    return LocalFileBackend(folder / "mode")


@contextmanager
def websockets_on_loops(backend: StateBackend, name: str, lifespans: tuple[bool, ...]) -> Iterator[list[Loop]]:
    """Have a WebSocket open on each event loop; the lifespan of the app runs on those that have one."""
    app = FastAPI()
    app.add_middleware(maintenance_middleware(backend=backend))
    loops = []
    for has_lifespan in lifespans:
        loops.append(Loop(app, name, has_lifespan=has_lifespan))
        assert loops[-1].is_open.wait(timeout=60)
    yield loops


any_store = pytest.mark.parametrize("make", [memory, file])
any_lifespans = pytest.mark.parametrize("lifespans", [(True, True), (True, False), (False, False)])


@any_store
@any_lifespans
def test_websockets_on_two_event_loops_are_both_closed_by_the_operator(
    make: Callable[[Path], StateBackend], lifespans: tuple[bool, ...], anyio_backend: str, tmp_path: Path
) -> None:
    """A switch that is set from a third event loop."""
    backend = make(tmp_path)
    with websockets_on_loops(backend, anyio_backend, lifespans) as loops:
        anyio.run(set_maintenance_mode, True, backend, backend=anyio_backend)
        assert [EXPECTED, EXPECTED] == [loop.outcome() for loop in loops]


@any_store
def test_websockets_on_two_event_loops_are_both_closed_by_a_block(
    make: Callable[[Path], StateBackend], anyio_backend: str, tmp_path: Path
) -> None:
    backend = make(tmp_path)

    with websockets_on_loops(backend, anyio_backend, (True, True)) as loops:

        async def hold() -> list[Outcome | None]:
            async with maintenance_mode_on(backend):
                return [await anyio.to_thread.run_sync(loop.outcome) for loop in loops]

        assert [EXPECTED, EXPECTED] == anyio.run(hold, backend=anyio_backend)
