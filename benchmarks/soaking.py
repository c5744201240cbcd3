"""The clients of `soak.py`: they send requests, keep WebSockets open, change the switch and let the store fail."""

from __future__ import annotations

import asyncio
import math
import re
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from itertools import cycle, islice, product
from typing import Any

import httpx
import workers  # noqa: F401 -- from here on the clone can be imported
from soaked import WAYS
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from fastapi_maintenance import get_maintenance_state, set_maintenance_mode
from tests.servers import Server

_CONNECTIONS = 8
_FAULTS = [
    ("switch", False, "stopped"),
    ("block", True, "killed"),
    ("block", True, "stopped"),
    ("switch", True, "killed"),
]
"""How maintenance begins, whether inside the process, and what happens to the store while it is on."""

_FAULT_SECONDS = 3.0


@dataclass
class Soak:
    """The clients of one process, and what they were answered."""

    port: int
    url: str | None
    store: Server | None
    wrong: Counter[str] = field(default_factory=Counter)
    answers: Counter[str] = field(default_factory=Counter)
    last: str = ""
    in_a_row: int = 0
    slowest: float = 0.0
    closed: int = 0

    async def ask(self) -> None:
        """Send requests without pause, over a new connection where the server has closed one in good order."""
        while True:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
                with closing(writer):
                    while await self._ask_once(reader, writer):
                        pass
            except (OSError, EOFError) as error:
                self.wrong[f"request: {type(error).__name__}"] += 1
                await asyncio.sleep(0.1)

    async def _ask_once(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        begin = time.perf_counter()
        writer.write(b"GET / HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n")
        async with asyncio.timeout(10):
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            await reader.readexactly(int(re.findall(rb"\r\ncontent-length: *(\d+)\r\n", head)[0]))
        self.slowest = max(self.slowest, time.perf_counter() - begin)
        status = head[9:12].decode()
        answer = "on" if status == "503" and b"\r\nretry-after: " in head else status
        self.in_a_row = self.in_a_row + 1 if answer == self.last else 1
        self.last = answer
        self.answers[answer] += 1
        if answer not in {"200", "on"}:
            self.wrong[f"request: {answer}"] += 1
        return b"\r\nconnection: close\r\n" not in head

    async def listen(self, path: str) -> None:
        """Keep a WebSocket open. If it is not exempt, maintenance may close it with 1012, or refuse it."""
        exempt = path.startswith("/exempt")
        while True:
            try:
                async with connect(f"ws://127.0.0.1:{self.port}{path}", ping_interval=None) as websocket:
                    while True:
                        await websocket.recv()
            except InvalidStatus as error:
                if exempt or error.response.status_code not in {403, 503}:
                    self.wrong[f"{path}: {error.response.status_code}"] += 1
            except (ConnectionClosed, OSError) as error:
                code = error.rcvd.code if isinstance(error, ConnectionClosed) and error.rcvd else type(error).__name__
                self.closed += 1
                if exempt or code != 1012:  # noqa: PLR2004 -- "service restart"
                    self.wrong[f"{path}: {code}"] += 1
            await asyncio.sleep(0.1)

    async def until(self, answer: str, after: str) -> None:
        """Wait until every connection gets this answer."""
        if not await poll(lambda: self.last == answer and self.in_a_row >= 2 * _CONNECTIONS, 10):
            self.wrong[f"not {answer} after {after}"] += 1

    async def change(self, way: str, inside: bool, fault: str = "") -> None:  # noqa: FBT001 -- a row of a table
        """Begin and end maintenance; while it is on, let the store fail if a fault is given."""
        name = f"{way} {'inside' if inside else 'outside'}"
        try:
            async with self._closed_inside(way) if inside else WAYS[way](self.url):
                await self.until("on", f"{name} began")
                if fault and self.store is not None:
                    await self._fail(self.store, fault, name)
        except Exception as error:  # noqa: BLE001 -- whatever a write raises is a result
            self.wrong[f"{name}: {error!r:.80}"] += 1
            if self.store is not None:
                await set_maintenance_mode(False, self.url)  # noqa: FBT003 -- as in the API
        await self.until("200", f"{name} ended")

    @asynccontextmanager
    async def _closed_inside(self, way: str) -> AsyncGenerator[None]:
        async with self.client() as http:
            closing_it = asyncio.create_task(http.post(f"/exempt/close/{way}"))
            while not (closing_it.done() or (await http.get("/exempt/entered")).json()):  # noqa: ASYNC110 -- elsewhere
                await asyncio.sleep(0.01)
            yield
            (await http.post("/exempt/open")).raise_for_status()
            (await closing_it).raise_for_status()

    async def _fail(self, store: Server, fault: str, way: str) -> None:
        before = self.answers["200"]
        await asyncio.to_thread(store.kill if fault == "killed" else store.freeze)
        await asyncio.sleep(_FAULT_SECONDS)
        await asyncio.to_thread(store.start if fault == "killed" else store.thaw)
        assert self.url is not None
        await asyncio.wait_for(get_maintenance_state(self.url), 30)
        await asyncio.sleep(_FAULT_SECONDS)
        if opened := self.answers["200"] - before:
            self.wrong[f"200 while on by {way}, store {fault}"] += opened

    def client(self) -> httpx.AsyncClient:
        """Return a client of the app."""
        return httpx.AsyncClient(base_url=f"http://127.0.0.1:{self.port}", timeout=60)

    async def load(self, requests: int, changes: int, *, faults: bool = False) -> None:
        """Send at least this many requests, with the changes and faults spread evenly among them."""
        first, pairs = self.answers.total(), changes // 2 if self.url else 0
        kinds: list[tuple[Any, ...]] = list(product(WAYS, [True] if self.url == "memory:" else [False, True]))
        kinds = list(islice(cycle(kinds), pairs))
        for number, fault in enumerate(_FAULTS if faults else [], start=1):
            kinds.insert(number * pairs // len(_FAULTS), fault)
        paths = ["/ws", "/ws", "/exempt/ws", "/exempt/ws"]
        tasks = [asyncio.create_task(self.ask()) for _ in range(_CONNECTIONS)]
        tasks += [asyncio.create_task(self.listen(path)) for path in paths]
        for number, kind in enumerate(kinds):
            await poll(lambda: self.answers.total() >= first + requests * number // len(kinds))  # noqa: B023 -- awaited
            await self.change(*kind)
        await poll(lambda: self.answers.total() >= first + requests)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def poll(condition: Callable[[], bool], seconds: float = math.inf) -> bool:
    """Wait until the condition is true; return whether it was within these seconds."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        await asyncio.sleep(0.01)
    return True
