"""`_switch/websockets.py`: WebSockets that are open when maintenance begins, and that it blocks, are closed with 1012.

The app gets 1001 (going away), which frameworks treat as a normal end. A WebSocket whose handler holds maintenance on
stays open. Annotations are no strings here: older FastAPI cannot read those of endpoints that are objects.
"""

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from fastapi import FastAPI, WebSocket, WebSocketDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fastapi_maintenance import (
    MemoryBackend,
    StateBackend,
    force_maintenance_mode_off,
    maintenance_middleware,
    maintenance_mode_on,
    path_prefix,
    plan_maintenance,
    set_maintenance_mode,
)
from fastapi_maintenance._helpers import clock
from tests.stores import BareSwitch, WatchableStore
from tests.support import eventually, on_jumping_clock, websocket_scope
from tests.switch.lifespans import living

pytestmark = pytest.mark.anyio

LONG = 10.0  # seconds, in which whatever closes a WebSocket has done so; the clock jumps
CLOSED = {"type": "websocket.close", "code": 1012, "reason": "maintenance"}


@pytest.fixture
def anyio_backend(anyio_backend: str, monkeypatch: pytest.MonkeyPatch) -> tuple[str, dict[str, Any]]:
    """Let no test wait for time to pass."""
    return on_jumping_clock(anyio_backend, monkeypatch)


class Client:
    """A client of one WebSocket, with the server between: what the app sent, and what it receives."""

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

    async def connect(self, app: ASGIApp, path: str = "/ws", headers: Mapping[str, str] | None = None) -> None:
        await self.to_app.send({"type": "websocket.connect"})
        await app(websocket_scope(path, headers=headers), self.receive, self.send)

    async def disconnect(self) -> None:
        await self.to_app.send({"type": "websocket.disconnect", "code": 1000})

    async def is_closed(self) -> None:
        with anyio.fail_after(30):
            await self._closed.wait()

    def close(self) -> None:
        self.to_app.close()
        self._from_client.close()

    @property
    def texts(self) -> list[Any]:
        """What the app sent: texts, and the types of other messages."""
        return [message.get("text", message["type"]) for message in self.sent]


class Talk:
    """An endpoint that listens until it is disconnected, and records what it receives."""

    def __init__(self) -> None:
        self.received: list[object] = []
        self.begun = anyio.Event()

    async def __call__(self, websocket: WebSocket) -> None:
        await websocket.accept()
        self.begun.set()
        try:
            while True:
                self.received.append(await websocket.receive_text())
        except WebSocketDisconnect as disconnect:
            self.received.append(disconnect.code)
        finally:
            await websocket.close()  # as endpoints do in the end; nothing may be left to close
            self.received.append("cleaned up")

    async def has_heard(self, text: str) -> bool:
        return text in self.received


BY_MAINTENANCE, BY_CLIENT = [1001, "cleaned up"], [1000, "cleaned up"]


def service(backend: StateBackend, endpoint: Callable[[WebSocket], Any], **settings: Any) -> FastAPI:  # noqa: ANN401 -- those of the middleware
    app = FastAPI()
    app.add_middleware(maintenance_middleware(backend=backend, **{"read_timeout": 60, **settings}))
    app.add_api_websocket_route("/ws", endpoint)
    app.add_api_websocket_route("/exempt/ws", endpoint)
    return app


@asynccontextmanager
async def opened(
    app: FastAPI, talks: Mapping[str, Any], clients: list[Client] | None = None
) -> AsyncGenerator[list[Client]]:
    """Serve an app with a WebSocket open at each path; in the end, all clients disconnect.

    Args:
        app: The app.
        talks: The endpoints, each with an event `begun`, by their paths.
        clients: The client of each; None: plain ones.
    """
    clients = [Client() for _ in talks] if clients is None else clients
    with anyio.fail_after(60 * LONG):
        async with living(app), anyio.create_task_group() as group:
            for (path, talk), client in zip(talks.items(), clients, strict=True):
                add = app.mount if isinstance(talk, Listener) else app.add_api_websocket_route
                add(path, talk)
                group.start_soon(client.connect, app, path)
                await talk.begun.wait()
            yield clients
            for client in clients:
                await client.disconnect()
    for client in clients:
        client.close()


# Closed or left open


@pytest.mark.parametrize("backend", [MemoryBackend, WatchableStore, BareSwitch])
async def test_open_websocket_is_closed_by_the_switch_of_any_store(
    backend: type[MemoryBackend | WatchableStore | BareSwitch],
) -> None:
    switch, talk = backend(), Talk()
    async with opened(service(switch, Talk()), {"/one": talk}) as (client,):
        await client.to_app.send({"type": "websocket.receive", "text": "hello"})
        await eventually(partial(talk.has_heard, "hello"))
        await set_maintenance_mode(True, switch)
        await client.is_closed()
    assert (client.sent[1:], talk.received) == ([CLOSED], ["hello", *BY_MAINTENANCE])


async def test_open_websocket_that_is_exempt_or_forced_off_stays() -> None:
    switch, talks = MemoryBackend(), [Talk(), Talk(), Talk()]
    paths = {"/exempt": talks[0], "/off": force_maintenance_mode_off(talks[1]), "/on": talks[2]}
    async with opened(service(switch, Talk(), exempt=path_prefix("/exempt")), paths) as clients:
        await set_maintenance_mode(True, switch)
        await clients[2].is_closed()
    assert [talk.received for talk in talks] == [BY_CLIENT, BY_CLIENT, BY_MAINTENANCE]


async def test_open_websocket_without_close_websockets_stays() -> None:
    switch, talk = MemoryBackend(), Talk()
    async with opened(service(switch, Talk(), close_websockets=False), {"/one": talk}):
        await set_maintenance_mode(True, switch)
        await anyio.sleep(LONG)
    assert talk.received == BY_CLIENT


async def test_open_websocket_is_closed_at_the_start_of_a_window() -> None:
    switch = MemoryBackend()
    async with opened(service(switch, Talk()), {"/one": Talk()}) as (client,):
        starts_at = clock.now() + timedelta(seconds=20)
        await plan_maintenance(starts_at, backend=switch)
        await client.is_closed()
        assert starts_at <= clock.now() < starts_at + timedelta(seconds=0.1)


class Sending(Talk):
    async def __call__(self, websocket: WebSocket) -> None:
        await websocket.accept()
        self.begun.set()
        try:
            while True:
                await websocket.send_text("tick")
                await anyio.sleep(0.01)
        except (WebSocketDisconnect, OSError):  # the latter from Starlette before 0.37.2
            self.received.append("cleaned up")


class Accepting(Talk):
    async def __call__(self, websocket: WebSocket) -> None:
        self.begun.set()
        await anyio.sleep(LONG)
        await super().__call__(websocket)


class Closing(Talk):
    """An endpoint that has closed, or refused, its WebSocket, and still runs."""

    def __init__(self, *, accepts: bool) -> None:
        super().__init__()
        self._accepts = accepts

    async def __call__(self, websocket: WebSocket) -> None:
        if self._accepts:
            await websocket.accept()
        await websocket.close(4000)
        self.begun.set()
        await anyio.sleep(LONG)


@pytest.mark.parametrize(
    ("make", "sent", "ended"),
    [
        (Sending, ["websocket.accept", "tick", "websocket.close"], ["cleaned up"]),
        (Accepting, ["websocket.accept", "websocket.close"], BY_MAINTENANCE),
        (partial(Closing, accepts=True), ["websocket.accept", "websocket.close"], []),
        (partial(Closing, accepts=False), ["websocket.close"], []),
    ],
)
async def test_open_websocket_of_any_endpoint_is_closed_once(
    make: Callable[[], Talk], sent: list[str], ended: list[object]
) -> None:
    switch, talk = MemoryBackend(), make()
    async with opened(service(switch, Talk()), {"/one": talk}) as (client,):
        await set_maintenance_mode(True, switch)
        await client.is_closed()
        await anyio.sleep(2 * LONG)
    assert (list(dict.fromkeys(client.texts)), client.texts.count("websocket.close")) == (sent, 1)
    assert talk.received == ended


class Gone(Client):
    async def send(self, message: Message) -> None:
        if message["type"] == "websocket.close":
            raise OSError
        await super().send(message)


class Stuck(Client):
    async def send(self, message: Message) -> None:
        if message["type"] == "websocket.close":
            await anyio.sleep_forever()
        await super().send(message)


async def test_open_websocket_of_a_client_that_is_gone_or_stuck_delays_no_other() -> None:
    switch, talks = MemoryBackend(), {"/gone": Talk(), "/stuck": Talk(), "/other": Talk()}
    async with opened(service(switch, Talk()), talks, [Gone(), Stuck(), Client()]) as clients:
        await set_maintenance_mode(True, switch)
        await clients[2].is_closed()
    assert [talk.received for talk in talks.values()] == [BY_MAINTENANCE] * 3


# What the app receives


class ServerThatDisconnects(Client):
    """A server that lets the app receive a disconnect with its own code as soon as the close was sent."""

    def __init__(self, code: int) -> None:
        super().__init__()
        self.code = code

    async def send(self, message: Message) -> None:
        if message["type"] == "websocket.close":
            self.to_app.send_nowait({"type": "websocket.disconnect", "code": self.code})
            await checkpoint()
            await checkpoint()
        await super().send(message)


class Listener:
    """An ASGI app that records the messages that it receives, up to two disconnects."""

    def __init__(self) -> None:
        self.received: list[Message] = []
        self.begun = anyio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "websocket"
        await receive()
        await send({"type": "websocket.accept"})
        self.begun.set()
        while [message["type"] for message in self.received].count("websocket.disconnect") < 2:
            self.received.append(await receive())


@pytest.mark.parametrize("text", [None, "last words"])
@pytest.mark.parametrize("code", [None, 1012, 1006, 1005])
async def test_open_websocket_that_is_closed_gives_its_app_1001_whatever_the_server_sends(
    code: int | None, text: str | None
) -> None:
    """None: the server sends nothing, as uvicorn does. A text that came just before is not lost."""
    switch, listener = MemoryBackend(), Listener()
    client = Client() if code is None else ServerThatDisconnects(code)
    async with opened(service(switch, Talk()), {"/listen/": listener}, [client]):
        if text is not None:
            await client.to_app.send({"type": "websocket.receive", "text": text})
        await set_maintenance_mode(True, switch)
        await client.is_closed()
    received = [each.get("text", each.get("code")) for each in listener.received]
    assert (received, client.sent[1:]) == ([*([text] if text else []), 1001, 1001], [CLOSED])


# A handler that holds maintenance on


class Migration:
    """An endpoint that migrates while it holds maintenance on, then listens."""

    def __init__(self, migrate: Callable[[], Any], **details: Any) -> None:  # noqa: ANN401 -- those of the block
        self.migrate = migrate
        self.details = details
        self.talk = Talk()
        self.begun = self.talk.begun

    async def __call__(self, websocket: WebSocket) -> None:
        await websocket.accept()
        websocket.accept = checkpoint  # type: ignore[method-assign, assignment]  # which `talk` does next
        async with maintenance_mode_on(**self.details):  # on the switch of the app that runs
            await self.migrate()
            await websocket.send_text("migrated")
        await self.talk(websocket)


MIGRATED = ["websocket.accept", "migrated", "websocket.close"]


@pytest.mark.parametrize("details", [{}, {"lease": 30}, {"drain": 60}])
async def test_open_websocket_whose_handler_holds_maintenance_on_stays_and_others_are_closed(
    details: dict[str, Any],
) -> None:
    switch, others, theirs = MemoryBackend(), Talk(), Client()

    async def migrate() -> None:
        await theirs.is_closed()
        await anyio.sleep(2 * LONG)

    migration = Migration(migrate, **details)
    async with opened(service(switch, Talk()), {"/ws2": others, "/migrate": migration}, [theirs, Client()]) as (
        _,
        mine,
    ):
        await anyio.sleep(LONG)
        await mine.to_app.send({"type": "websocket.receive", "text": "hello"})
        await eventually(partial(migration.talk.has_heard, "hello"))
    assert (migration.talk.received, others.received) == (["hello", *BY_CLIENT], BY_MAINTENANCE)
    assert mine.texts == MIGRATED


async def slow_to_release(store: WatchableStore, _outer: MemoryBackend) -> None:
    store.before_write = partial(anyio.sleep, LONG / 2)


async def in_two_blocks(_store: WatchableStore, _outer: MemoryBackend) -> None:
    async with maintenance_mode_on():
        await anyio.sleep(LONG)
    await anyio.sleep(LONG)


async def of_another_middleware(_store: WatchableStore, outer: MemoryBackend) -> None:
    async with maintenance_mode_on(outer):
        await anyio.sleep(LONG)


async def pushed_before_it_is_entered(store: WatchableStore, _outer: MemoryBackend) -> None:
    async def push() -> None:
        store.ring()
        await anyio.sleep(LONG)

    store.after_write = push
    async with maintenance_mode_on():
        store.after_write = checkpoint


@pytest.mark.parametrize(
    "migrate", [slow_to_release, in_two_blocks, of_another_middleware, pushed_before_it_is_entered]
)
async def test_open_websocket_stays_until_each_block_of_its_handler_is_released(
    migrate: Callable[[WatchableStore, MemoryBackend], Any],
) -> None:
    inner, outer = WatchableStore(), MemoryBackend()
    migration = Migration(partial(migrate, inner, outer))
    app = service(inner, Talk())
    app.add_middleware(maintenance_middleware(backend=outer, read_timeout=60))
    async with opened(app, {"/migrate": migration}) as (client,):
        pass
    assert (client.texts, migration.talk.received) == (MIGRATED, BY_CLIENT)


async def test_open_websocket_is_closed_by_the_operator_when_its_handler_leaves_the_block() -> None:
    switch = MemoryBackend()

    async def migrate() -> None:
        await set_maintenance_mode(True, switch)
        await anyio.sleep(LONG)

    migration = Migration(migrate)
    async with opened(service(switch, Talk()), {"/migrate": migration}) as (client,):
        await client.is_closed()
    assert (client.sent[-1], client.texts, migration.talk.received) == (CLOSED, MIGRATED, BY_MAINTENANCE)
