"""The app that `soak.py` serves, and the ways in which maintenance begins and ends, inside its process and outside."""

from __future__ import annotations

import ctypes
import gc
import os
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import anyio
from fastapi import FastAPI, WebSocket

from fastapi_maintenance import (
    cancel_maintenance,
    maintenance_changes,
    maintenance_middleware,
    maintenance_mode_on,
    path_prefix,
    plan_maintenance,
    set_maintenance_mode,
)


@asynccontextmanager
async def switched(store: str | None) -> AsyncGenerator[None]:
    """Turn maintenance on and off by the operator's switch."""
    await set_maintenance_mode(True, store)  # noqa: FBT003 -- as in the API
    yield
    await set_maintenance_mode(False, store)  # noqa: FBT003 -- as in the API


@asynccontextmanager
async def planned(store: str | None) -> AsyncGenerator[None]:
    """Plan a window that begins by itself, and cancel it."""
    window = await plan_maintenance(datetime.now(UTC) + timedelta(seconds=1), None, store)
    yield
    await cancel_maintenance(window.id, store)


WAYS: dict[str, Callable[[str | None], AbstractAsyncContextManager[Any]]] = {
    "switch": switched,
    "window": planned,
    "block": partial(maintenance_mode_on, lease=1),
}
"""Context managers in which maintenance is on, for the URL of a store; None: the app's own."""

app = FastAPI()
app.state.opened = None
if "SOAK_STORE" in os.environ:
    app.add_middleware(maintenance_middleware(backend=os.environ["SOAK_STORE"], exempt=path_prefix("/exempt")))


@app.get("/")
async def root() -> str:
    """Answer a request that maintenance blocks."""
    return "open"


@app.websocket("/ws")
async def listen(websocket: WebSocket) -> None:
    """Listen until the client leaves, or maintenance begins."""
    await websocket.accept()
    await until_closed(websocket)


@app.websocket("/exempt/ws")
async def report(websocket: WebSocket) -> None:
    """Send the status whenever it changes, until the client leaves."""
    await websocket.accept()
    async with anyio.create_task_group() as group:

        async def send_changes() -> None:
            async for status in maintenance_changes():
                await websocket.send_json(status.active)

        group.start_soon(send_changes)
        await until_closed(websocket)
        group.cancel_scope.cancel()


async def until_closed(websocket: WebSocket) -> None:
    """Return when the client has left."""
    async for _ in websocket.iter_text():
        pass


@app.post("/exempt/close/{way}")
async def close(way: str) -> None:
    """Have maintenance on until a request to `open_again`."""
    opened = anyio.Event()
    async with WAYS[way](None):
        app.state.opened = opened
        await opened.wait()


@app.get("/exempt/entered")
async def has_entered() -> bool:
    """Return whether `close` waits for `open_again`."""
    return app.state.opened is not None


@app.post("/exempt/open")
async def open_again() -> None:
    """End the request to `close`."""
    app.state.opened.set()
    app.state.opened = None


@app.get("/exempt/figures")
async def figures() -> dict[str, Any]:
    """Return what this process holds after a garbage collection."""
    for _ in range(3):
        gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    tasks = sorted(f"{task.name} {getattr(task.coro, '__qualname__', '')}" for task in anyio.get_running_tasks())
    return {"process": os.getpid(), "objects": len(gc.get_objects()), "tasks": tasks}
