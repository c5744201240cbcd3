"""A WebSocket whose handler holds maintenance on is not closed by it; the app gets one code on every server."""

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import anyio
import pytest
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint
from fastapi import FastAPI, WebSocket
from starlette.types import Message, Receive, Scope, Send

from fastapi_maintenance import MemoryBackend, maintenance_middleware, maintenance_mode_on, set_maintenance_mode
from tests.middleware.test_open_websockets import CLOSED, Client, Talk, has_heard, service
from tests.stores import WatchableStore
from tests.support import eventually, on_jumping_clock
from tests.switch.lifespans import living

pytestmark = pytest.mark.anyio

LONG = 10.0  # seconds, in which whatever closes a WebSocket has done so; the clock jumps


@pytest.fixture
def anyio_backend(anyio_backend: str, monkeypatch: pytest.MonkeyPatch) -> tuple[str, dict[str, Any]]:
    """Let no test wait for what does not happen."""
    return on_jumping_clock(anyio_backend, monkeypatch)


@asynccontextmanager
async def served(app: FastAPI) -> AsyncGenerator[TaskGroup]:
    """Run the lifespan of an app, and give a task group for its clients; nothing waits for ever."""
    with anyio.fail_after(60 * LONG):
        async with living(app), anyio.create_task_group() as group:
            yield group


# The handler opens a block


class Migration:
    """An endpoint that migrates in a block, then listens."""

    def __init__(self, migrate: Callable[[], Any], **details: Any) -> None:  # noqa: ANN401 -- those of the block
        self.migrate = migrate
        self.details = details
        self.talk = Talk()

    async def __call__(self, websocket: WebSocket) -> None:
        await websocket.accept()
        websocket.accept = checkpoint  # type: ignore[method-assign, assignment]  # which the endpoint does next
        async with maintenance_mode_on(**self.details):  # on the switch of the app that runs
            await self.migrate()
            await websocket.send_text("migrated")
        await self.talk(websocket)


def texts(client: Client) -> list[Any]:
    """Return what the client was sent."""
    return [message.get("text", message["type"]) for message in client.sent]


@pytest.mark.parametrize("details", [{}, {"lease": 30}, {"drain": 60}])
async def test_block_of_a_websocket_handler_closes_the_others_and_not_its_own(details: dict[str, Any]) -> None:
    switch, others, mine, theirs = MemoryBackend(), Talk(), Client(), Client()

    async def migrate() -> None:
        await theirs.is_closed()
        await anyio.sleep(LONG)

    migration = Migration(migrate, **details)
    app = service(switch, others)
    app.add_api_websocket_route("/migrate", migration)
    async with served(app) as group:
        group.start_soon(theirs.connect, app)
        await others.begun.wait()
        group.start_soon(mine.connect, app, "/migrate")
        await migration.talk.begun.wait()
        await anyio.sleep(LONG)
        await mine.to_app.send({"type": "websocket.receive", "text": "hello"})
        await eventually(partial(has_heard, migration.talk, "hello"))
        await mine.to_app.send({"type": "websocket.disconnect", "code": 1000})
    assert (["hello", 1000, "cleaned up"], [1001, "cleaned up"]) == (migration.talk.told, others.told)
    assert ["websocket.accept", "migrated", "websocket.close"] == texts(mine)
    for client in (mine, theirs):
        client.close()


async def test_websocket_stays_open_while_the_block_of_its_handler_is_released() -> None:
    store, client = WatchableStore(), Client()

    async def migrate() -> None:
        store.before_write = partial(anyio.sleep, LONG / 2)  # so slowly

    migration = Migration(migrate)
    app = service(store, Talk())
    app.add_api_websocket_route("/migrate", migration)
    async with served(app) as group:
        group.start_soon(client.connect, app, "/migrate")
        await migration.talk.begun.wait()
        await client.to_app.send({"type": "websocket.disconnect", "code": 1000})
    assert ["websocket.accept", "migrated", "websocket.close"] == texts(client)
    assert [1000, "cleaned up"] == migration.talk.told
    client.close()


async def test_websocket_in_a_block_of_its_own_is_closed_by_the_operator_when_it_leaves() -> None:
    switch, client = MemoryBackend(), Client()
    set_on = anyio.Event()

    async def migrate() -> None:
        await set_maintenance_mode(True, switch)
        set_on.set()
        await anyio.sleep(LONG)

    migration = Migration(migrate)
    app = service(switch, Talk())
    app.add_api_websocket_route("/migrate", migration)
    async with served(app) as group:
        group.start_soon(client.connect, app, "/migrate")
        await set_on.wait()
        await client.is_closed()
    assert ["websocket.accept", "migrated", "websocket.close"] == texts(client)
    assert (CLOSED, [1001, "cleaned up"]) == (client.sent[-1], migration.talk.told)
    client.close()


async def test_websocket_in_two_blocks_of_its_own_is_not_closed_when_it_leaves_one() -> None:
    switch, client = MemoryBackend(), Client()

    async def migrate() -> None:
        async with maintenance_mode_on():
            await anyio.sleep(LONG)
        await anyio.sleep(LONG)

    migration = Migration(migrate)
    app = service(switch, Talk())
    app.add_api_websocket_route("/migrate", migration)
    async with served(app) as group:
        group.start_soon(client.connect, app, "/migrate")
        await migration.talk.begun.wait()
        await client.to_app.send({"type": "websocket.disconnect", "code": 1000})
    assert (["websocket.accept", "migrated", "websocket.close"], [1000, "cleaned up"]) == (
        texts(client),
        migration.talk.told,
    )
    client.close()


async def test_websocket_behind_two_middlewares_is_not_closed_by_its_own_block() -> None:
    inner, outer, client = MemoryBackend(), MemoryBackend(), Client()

    async def migrate() -> None:
        async with maintenance_mode_on(outer):
            await anyio.sleep(LONG)

    migration = Migration(migrate)
    app = service(inner, Talk())
    app.add_middleware(maintenance_middleware(backend=outer, read_timeout=60))
    app.add_api_websocket_route("/migrate", migration)
    async with served(app) as group:
        group.start_soon(client.connect, app, "/migrate")
        await migration.talk.begun.wait()
        await client.to_app.send({"type": "websocket.disconnect", "code": 1000})
    assert ["websocket.accept", "migrated", "websocket.close"] == texts(client)
    client.close()


# What the app gets


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
    """An ASGI app that keeps the messages that it receives, up to two disconnects."""

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


def listening(switch: MemoryBackend) -> tuple[FastAPI, Listener]:
    app, listener = service(switch, Talk()), Listener()
    app.mount("/listen/", listener)
    return app, listener


@pytest.mark.parametrize("code", [None, 1012, 1006, 1005])
async def test_app_of_a_closed_websocket_gets_1001_whatever_the_server_says(code: int | None) -> None:
    """None: the server says nothing, as uvicorn does."""
    switch = MemoryBackend()
    client = Client() if code is None else ServerThatDisconnects(code)
    app, listener = listening(switch)
    async with served(app) as group:
        group.start_soon(client.connect, app, "/listen/")
        await listener.begun.wait()
        await set_maintenance_mode(True, switch)
        await client.is_closed()
    assert [("websocket.disconnect", 1001)] * 2 == [(each["type"], each["code"]) for each in listener.received]
    assert [CLOSED] == client.sent[1:]
    client.close()


async def test_message_received_just_before_the_websocket_is_closed_reaches_the_app() -> None:
    switch, client = MemoryBackend(), ServerThatDisconnects(1012)
    app, listener = listening(switch)
    async with served(app) as group:
        group.start_soon(client.connect, app, "/listen/")
        await listener.begun.wait()
        await client.to_app.send({"type": "websocket.receive", "text": "last words"})
        await set_maintenance_mode(True, switch)
        await client.is_closed()
    assert ["last words", 1001, 1001] == [each.get("text", each.get("code")) for each in listener.received]
    client.close()
