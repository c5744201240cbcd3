"""A process in one peer's environment: it measures its variants in process, or serves one of them.

Without arguments it reads one JSON object a line and answers each with one line; several workers take turns, so that
other load on the machine affects all of them. With a variant, a number of routes,
`on` or `off` and a port, it serves that variant under uvicorn with httptools and uvloop.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
import logging
import resource
import sys
import time
from typing import Any

import uvicorn
import uvloop
from starlette.types import ASGIApp, Message, Scope
from variants import REQUEST_HEADERS, make, path_of

_HEADERS = [(name.encode(), value.encode()) for name, value in REQUEST_HEADERS.items()]
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
    """Drop a message."""


async def live(app: ASGIApp, started: asyncio.Event) -> None:
    """Run the lifespan of an app as a server does, until the process ends."""
    messages: asyncio.Queue[Message] = asyncio.Queue()
    messages.put_nowait({"type": "lifespan.startup"})

    async def note(_message: Message) -> None:
        started.set()

    await app({"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": {}}, messages.get, note)


async def status_of(app: ASGIApp, template: str) -> int:
    """Return the status that a request is answered with; 0 where the app raises or sends nothing."""
    statuses = [0]

    async def note(message: Message) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    try:
        await app(new_scope(template), receive, note)
    except Exception as error:  # noqa: BLE001 -- the status shows that a peer has failed
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
    return statuses[-1]


async def time_block(app: ASGIApp, template: str, requests: int) -> float:
    """Return the processor time of one request in nanoseconds, the mean of a block."""
    scopes = [new_scope(template) for _ in range(requests)]
    gc.collect()
    begin = time.process_time_ns()
    for scope in scopes:
        await app(scope, receive, send)
    return (time.process_time_ns() - begin) / requests


async def answer_orders() -> None:
    """Measure what each line of the input asks for, until it ends; an app is made when it is first asked for."""
    apps: dict[tuple[Any, ...], ASGIApp] = {}
    lives = []
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        order = json.loads(line)
        alone = order["scenario"] == "alone"
        key = (order["variant"], order["routes"], order["on"], alone)
        if key not in apps:
            started = asyncio.Event()
            apps[key] = await make(order["variant"], order["routes"], on=order["on"], alone=alone)
            lives.append(asyncio.create_task(live(apps[key], started)))
            await asyncio.wait_for(started.wait(), 10)
            gc.freeze()
        template = path_of(order["scenario"], order["routes"])
        status = await status_of(apps[key], template)
        ns = await time_block(apps[key], template, order["requests"]) if status else None
        print(json.dumps({"status": status, "ns": ns}), flush=True)


async def serve(name: str, routes: str, switch: str, port: str) -> None:
    """Serve a variant until a signal ends it."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    app = await make(name, int(routes), on=switch == "on")
    config = uvicorn.Config(
        app, port=int(port), loop="uvloop", http="httptools", log_level="critical", access_log=False, backlog=16_384
    )
    await uvicorn.Server(config).serve()


if __name__ == "__main__":
    if sys.argv[1:]:
        uvloop.run(serve(*sys.argv[1:]))
    else:
        logging.disable(logging.WARNING)  # hints on what stands inside the middleware here
        asyncio.run(answer_orders())
