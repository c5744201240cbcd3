"""WebSockets that are open when maintenance begins, and that it blocks, are closed with 1012 (service restart).

The app gets 1001 (going away), which frameworks take for a normal end.
"""

from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

import anyio
import pytest
from fastapi import FastAPI, WebSocket, WebSocketDisconnect
from starlette.types import ASGIApp, Message

from fastapi_maintenance import (
    MemoryBackend,
    StateBackend,
    force_maintenance_mode_off,
    maintenance_middleware,
    path_prefix,
    plan_maintenance,
    set_maintenance_mode,
)
from fastapi_maintenance._helpers import clock
from tests.stores import BareSwitch, WatchableStore
from tests.support import eventually, on_jumping_clock, websocket_scope
from tests.switch.lifespans import living

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend(anyio_backend: str, monkeypatch: pytest.MonkeyPatch) -> tuple[str, dict[str, Any]]:
    """Let no test wait for the seconds between two reads of a store, or for the start of a window."""
    return on_jumping_clock(anyio_backend, monkeypatch)


CLOSED = {"type": "websocket.close", "code": 1012, "reason": "maintenance"}


class Client:
    """A client of one WebSocket, as a server has it: what the app sent, and what it is told."""

    def __init__(self) -> None:
        self.sent: list[Message] = []
        self.to_app, self._from_client = anyio.create_memory_object_stream[Message](10)
        self._closed = anyio.Event()

    async def receive(self) -> Message:
        return await self._from_client.receive()

    async def send(self, message: Message) -> None:
        self.sent.append(dict(message))
        if message["type"] == "websocket.close":
            self._closed.set()

    async def connect(self, app: ASGIApp, path: str = "/ws") -> None:
        await self.to_app.send({"type": "websocket.connect"})
        await app(websocket_scope(path), self.receive, self.send)

    async def is_closed(self) -> None:
        with anyio.fail_after(30):
            await self._closed.wait()

    def close(self) -> None:
        self.to_app.close()
        self._from_client.close()


def service(backend: StateBackend, endpoint: Callable[[WebSocket], Any], **settings: Any) -> FastAPI:  # noqa: ANN401 -- those of the middleware
    app = FastAPI()
    app.add_middleware(maintenance_middleware(backend=backend, **{"read_timeout": 60, **settings}))
    app.add_api_websocket_route("/ws", endpoint)
    app.add_api_websocket_route("/exempt/ws", endpoint)
    return app


class Talk:
    """An endpoint that listens until it is disconnected, and what it went through."""

    def __init__(self) -> None:
        self.told: list[object] = []
        self.begun = anyio.Event()

    async def __call__(self, websocket: WebSocket) -> None:
        await websocket.accept()
        self.begun.set()
        try:
            while True:
                self.told.append(await websocket.receive_text())
        except WebSocketDisconnect as disconnect:
            self.told.append(disconnect.code)
        finally:
            await websocket.close()  # as endpoints do in the end; nothing may be left to close
            self.told.append("cleaned up")


async def has_heard(talk: Talk, text: str) -> bool:
    return text in talk.told


@pytest.mark.parametrize("backend", [MemoryBackend, WatchableStore, BareSwitch])
async def test_it_is_closed_and_the_app_is_told(backend: type[MemoryBackend | WatchableStore | BareSwitch]) -> None:
    switch, talk, client = backend(), Talk(), Client()
    app = service(switch, talk)
    async with living(app), anyio.create_task_group() as group:
        group.start_soon(client.connect, app)
        await talk.begun.wait()
        await client.to_app.send({"type": "websocket.receive", "text": "hello"})
        await eventually(partial(has_heard, talk, "hello"))
        await set_maintenance_mode(True, switch)
        await client.is_closed()
    assert [CLOSED] == client.sent[1:]
    assert ["hello", 1001, "cleaned up"] == talk.told
    client.close()


async def test_one_that_is_exempt_or_forced_off_stays() -> None:
    switch, talks, clients = MemoryBackend(), [Talk(), Talk(), Talk()], [Client(), Client(), Client()]
    app = service(switch, talks[0], exempt=path_prefix("/exempt"))
    app.add_api_websocket_route("/off", force_maintenance_mode_off(talks[1]))
    app.add_api_websocket_route("/on", talks[2])
    async with living(app), anyio.create_task_group() as group:
        for talk, client, path in zip(talks, clients, ("/exempt/ws", "/off", "/on"), strict=True):
            group.start_soon(client.connect, app, path)
            await talk.begun.wait()
        await set_maintenance_mode(True, switch)
        await clients[2].is_closed()
        for client in clients[:2]:
            await client.to_app.send({"type": "websocket.disconnect", "code": 1000})
    assert [[1000, "cleaned up"], [1000, "cleaned up"], [1001, "cleaned up"]] == [talk.told for talk in talks]
    for client in clients:
        client.close()


async def test_it_is_left_open_where_that_is_wanted() -> None:
    switch, talk, client = MemoryBackend(), Talk(), Client()
    app = service(switch, talk, close_websockets=False)
    async with living(app), anyio.create_task_group() as group:
        group.start_soon(client.connect, app)
        await talk.begun.wait()
        await set_maintenance_mode(True, switch)
        await anyio.sleep(10)
        await client.to_app.send({"type": "websocket.disconnect", "code": 1000})
    assert [1000, "cleaned up"] == talk.told
    client.close()


async def test_an_endpoint_that_only_sends_is_told_when_it_does() -> None:
    switch, client, begun = MemoryBackend(), Client(), anyio.Event()
    ends: list[object] = []

    async def tick(websocket: WebSocket) -> None:
        await websocket.accept()
        begun.set()
        try:
            while True:
                await websocket.send_text("tick")
                await anyio.sleep(0.01)
        except (WebSocketDisconnect, OSError) as error:  # the latter from Starlette before 0.37.2
            ends.append(type(error))
        ends.append("cleaned up")

    app = service(switch, tick)
    async with living(app), anyio.create_task_group() as group:
        group.start_soon(client.connect, app)
        await begun.wait()
        await set_maintenance_mode(True, switch)
        await client.is_closed()
    assert CLOSED == client.sent[-1]
    assert 1 == client.sent.count(CLOSED)
    assert "cleaned up" == ends[-1]
    client.close()


async def test_one_that_is_being_accepted_is_closed_as_soon_as_it_is() -> None:
    switch, client = MemoryBackend(), Client()
    begun, go_on = anyio.Event(), anyio.Event()

    async def slow(websocket: WebSocket) -> None:
        begun.set()
        await go_on.wait()
        await websocket.accept()
        with pytest.raises(WebSocketDisconnect) as raised:
            await websocket.receive_text()
        assert 1001 == raised.value.code

    app = service(switch, slow)
    async with living(app), anyio.create_task_group() as group:
        group.start_soon(client.connect, app)
        await begun.wait()
        await set_maintenance_mode(True, switch)
        await anyio.sleep(10)
        assert [] == client.sent
        go_on.set()
    assert ["websocket.accept", "websocket.close"] == [message["type"] for message in client.sent]
    client.close()


async def test_one_that_the_app_has_closed_or_refused_is_not_closed_again() -> None:
    switch, clients = MemoryBackend(), [Client(), Client()]
    begun, go_on = [anyio.Event(), anyio.Event()], anyio.Event()

    async def closed(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.close(4000)
        begun[0].set()
        await go_on.wait()

    async def refused(websocket: WebSocket) -> None:
        await websocket.close()
        begun[1].set()
        await go_on.wait()

    app = service(switch, closed)
    app.add_api_websocket_route("/refused", refused)
    async with living(app), anyio.create_task_group() as group:
        group.start_soon(clients[0].connect, app)
        group.start_soon(clients[1].connect, app, "/refused")
        for event in begun:
            await event.wait()
        await set_maintenance_mode(True, switch)
        await anyio.sleep(10)
        go_on.set()
    assert ["websocket.accept", "websocket.close"] == [message["type"] for message in clients[0].sent]
    assert ["websocket.close"] == [message["type"] for message in clients[1].sent]
    for client in clients:
        client.close()


async def test_a_client_that_is_gone_or_takes_nothing_holds_up_no_other() -> None:
    class Gone(Client):
        async def send(self, message: Message) -> None:
            if message["type"] == "websocket.close":
                raise OSError
            await super().send(message)

    class Slow(Client):
        async def send(self, message: Message) -> None:
            if message["type"] == "websocket.close":
                await anyio.sleep_forever()
            await super().send(message)

    switch, clients, talks = MemoryBackend(), [Gone(), Slow(), Client()], [Talk(), Talk(), Talk()]
    app = service(switch, talks[0])
    for number in (1, 2):
        app.add_api_websocket_route(f"/{number}", talks[number])
    async with living(app), anyio.create_task_group() as group:
        for talk, client, path in zip(talks, clients, ("/ws", "/1", "/2"), strict=True):
            group.start_soon(client.connect, app, path)
            await talk.begun.wait()
        await set_maintenance_mode(True, switch)
    assert [[1001, "cleaned up"]] * 3 == [talk.told for talk in talks]
    for client in clients:
        client.close()


async def test_open_websocket_window_begins_is_closed_to_the_moment() -> None:
    switch, talk, client = MemoryBackend(), Talk(), Client()
    app = service(switch, talk)
    async with living(app), anyio.create_task_group() as group:
        group.start_soon(client.connect, app)
        await talk.begun.wait()
        starts_at = clock.now() + timedelta(seconds=20)
        await plan_maintenance(starts_at, backend=switch)
        await client.is_closed()
        assert starts_at <= clock.now() < starts_at + timedelta(seconds=0.1)
    client.close()
