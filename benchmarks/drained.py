"""The app that `drains.py` serves. It writes to its log when each request that maintenance blocks begins and ends."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

import anyio
from fastapi import BackgroundTasks, FastAPI

from fastapi_maintenance import maintenance_middleware, path_prefix

app = FastAPI()
app.add_middleware(maintenance_middleware(backend=os.environ["DRAINS_STORE"], exempt=path_prefix("/exempt")))
_log = os.open(os.environ["DRAINS_LOG"], os.O_APPEND | os.O_CREAT | os.O_WRONLY)
_numbers = itertools.count()
os.write(_log, f"{os.getpid()}\n".encode())


@contextmanager
def logged() -> Iterator[None]:
    """Write a line when a request begins, and one when it ends; both are there if the process is killed afterwards."""
    number = next(_numbers)
    os.write(_log, f"{number} {time.monotonic()}\n".encode())
    try:
        yield
    finally:
        os.write(_log, f"{number} {time.monotonic()}\n".encode())


@app.get("/work/{seconds}")
async def work(seconds: float) -> None:
    """Take so many seconds."""
    with logged():
        await anyio.sleep(seconds)


@app.get("/thread/{seconds}")
def work_in_thread(seconds: float) -> None:
    """Take so many seconds in a thread."""
    with logged():
        time.sleep(seconds)


@app.get("/background/{seconds}")
async def work_in_background(seconds: float, tasks: BackgroundTasks) -> None:
    """Answer, and take so many seconds afterwards."""
    within = logged()
    within.__enter__()

    async def go_on() -> None:
        await anyio.sleep(seconds)
        within.__exit__(None, None, None)

    tasks.add_task(go_on)


@app.get("/exempt/{seconds}")
async def work_exempt(seconds: float) -> None:
    """Take so many seconds also during maintenance."""
    await anyio.sleep(seconds)
