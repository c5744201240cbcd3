"""The driver: a worker in one peer's environment, which times requests to its apps when it is told to.

It reads one JSON object a line from its input and answers each with one line. The conductor asks several workers in
turn, so that whatever else the machine does meanwhile meets all of them alike.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
import sys
import time
from typing import Any

from apps import path_of
from starlette.types import ASGIApp, Message, Scope
from variants import ALONE, Variant, make

_HEADERS = [
    (b"host", b"shop.example"),
    (b"user-agent", b"Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"),
    (b"accept", b"application/json, text/plain, */*"),
    (b"accept-language", b"en-US,en;q=0.5"),
    (b"accept-encoding", b"gzip, deflate, br, zstd"),
    (b"referer", b"https://shop.example/basket"),
    (b"cookie", b"session=3f2b8c1e; theme=dark"),
    (b"connection", b"keep-alive"),
]
_numbers = itertools.count()


def new_scope(template: str) -> Scope:
    """Return the scope of a GET as uvicorn makes it, with a path that was never asked for before."""
    path = template.format(next(_numbers))
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "server": ("127.0.0.1", 8000),
        "client": ("127.0.0.1", 50_000),
        "scheme": "http",
        "method": "GET",
        "root_path": "",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": list(_HEADERS),
        "state": {},
    }


async def receive() -> Message:
    """Give the body of a GET."""
    return {"type": "http.request", "body": b"", "more_body": False}


async def send(_message: Message) -> None:
    """Take a message."""


class Living:
    """An app that lives as under a server: its lifespan has begun, and goes on."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._started, self._over = asyncio.Event(), asyncio.Event()
        self._received = itertools.count()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Return when the lifespan has begun."""
        self._task = asyncio.create_task(self._live())
        await asyncio.wait_for(self._started.wait(), 10)

    async def end(self) -> None:
        """End the lifespan."""
        self._over.set()
        if self._task is not None:
            await self._task

    async def _live(self) -> None:
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": {}}
        await self._app(scope, self._receive, self._send)
        self._started.set()  # an app without a lifespan

    async def _receive(self) -> Message:
        if next(self._received) == 0:
            return {"type": "lifespan.startup"}
        await self._over.wait()
        return {"type": "lifespan.shutdown"}

    async def _send(self, _message: Message) -> None:
        self._started.set()


async def status_of(app: ASGIApp, template: str) -> int:
    """Return the status that a request is answered with; 0 where nothing is."""
    statuses: list[int] = []

    async def noting(message: Message) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    try:
        await app(new_scope(template), receive, noting)
    except Exception as error:  # noqa: BLE001 -- a peer that fails is told of by its status
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
    return statuses[0] if statuses else 0


async def time_block(app: ASGIApp, template: str, requests: int) -> float:
    """Return the processor time of one request in nanoseconds, the mean of a block."""
    scopes = [new_scope(template) for _ in range(requests)]
    gc.collect()
    gc.disable()
    begin = time.process_time_ns()
    for scope in scopes:
        await app(scope, receive, send)
    end = time.process_time_ns()
    gc.enable()
    return (end - begin) / requests


class Worker:
    """The apps of one process, each made when it is first asked for. Their switches are set together."""

    def __init__(self) -> None:
        self._variants: dict[tuple[str, int, bool], Variant] = {}
        self._living: list[Living] = []
        self._on = False

    async def turn(self, *, on: bool) -> dict[str, Any]:
        """Set all switches."""
        self._on = on
        for variant in self._variants.values():
            await variant.switch(on)
        return {"on": on}

    async def measure(self, order: dict[str, Any]) -> dict[str, Any]:
        """Return the status of a request, and the nanoseconds that one of a block of them takes."""
        key = (order["variant"], order["routes"], order["shortcut"])
        if key not in self._variants:
            self._variants[key] = await self._make(*key)
        app, template = self._variants[key].app, path_of(order["scenario"], order["routes"])
        status = await settled(app, template, order["expected"])
        is_app = status != 0 or order["variant"] == "driver"
        return {"status": status, "ns": await time_block(app, template, order["requests"]) if is_app else None}

    async def _make(self, name: str, routes: int, shortcut: bool) -> Variant:  # noqa: FBT001 -- the parts of a key
        variant = make(name, routes, shortcut=shortcut)
        await variant.switch(self._on)
        if name not in ALONE:
            living = Living(variant.app)
            await living.start()
            self._living.append(living)
        gc.freeze()
        return variant

    async def end(self) -> None:
        """End all apps."""
        for living in self._living:
            await living.end()


async def settled(app: ASGIApp, template: str, expected: int) -> int:
    """Wait until a change has arrived, and return the status of a request."""
    for _ in range(40):
        status = await status_of(app, template)
        if status == expected:
            break
        await asyncio.sleep(0.05)
    return status


async def main() -> None:
    """Do what each line of the input asks for, until it ends."""
    worker = Worker()
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        order = json.loads(line)
        print(json.dumps(await (worker.turn(**order) if "variant" not in order else worker.measure(order))), flush=True)
    await worker.end()


if __name__ == "__main__":
    asyncio.run(main())
