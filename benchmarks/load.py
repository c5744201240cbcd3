"""Keep-alive connections that send one request after the other, each for a new path.

They run in a process that serves nothing. The answers are parsed as little as possible, so that the server is what is
measured.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from variants import REQUEST_HEADERS

_numbers = itertools.count()
_HEADERS = "".join(f"{name}: {value}\r\n" for name, value in REQUEST_HEADERS.items())


class Connection(asyncio.Protocol):
    """One connection, and the answers that it received."""

    def __init__(self, path: str) -> None:
        self._before, _, self._after = path.partition("{}")
        self._received = b""
        self._asked = self.answered = 0.0
        self.latencies: list[float] = []
        self.statuses: Counter[bytes] = Counter()
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._is_last: Callable[[bytes], bool] = lambda _: True

    def ask(self, is_last: Callable[[bytes], bool] = lambda _: True) -> asyncio.Future[None]:
        """Send requests until this is true of an answer's status; return a future that is done then."""
        self._over, self._is_last = asyncio.get_running_loop().create_future(), is_last
        self._write()
        return self._over

    def connection_made(self, transport: Any) -> None:  # noqa: ANN401 -- asyncio's or uvloop's
        """Keep the transport for the requests."""
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """Count the answer if it is complete, and send another request unless it was the last."""
        received = self._received = self._received + data if self._received else data
        head = received.find(b"\r\n\r\n")
        begin = received.find(b"content-length: ") + 16
        if head < 0 or len(received) < head + 4 + int(received[begin : received.find(b"\r\n", begin)]):
            return
        self._received, status = b"", received[9:12]
        self.statuses[status] += 1
        self.answered = time.perf_counter()
        self.latencies.append(self.answered - self._asked)
        if self._is_last(status):
            self._over.set_result(None)
        else:
            self._write()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 -- asyncio's
        """Count a connection that was lost during a request."""
        if not self._over.done():
            self.statuses[b"lost"] += 1
            self._over.set_result(None)

    def _write(self) -> None:
        if self.transport.is_closing():
            self.connection_lost(None)
            return
        self._asked = time.perf_counter()
        self.transport.write(f"GET {self._before}{next(_numbers)}{self._after} HTTP/1.1\r\n{_HEADERS}\r\n".encode())


async def connect(port: int, path: str, number: int) -> list[Connection]:
    """Open so many connections to a port of 127.0.0.1, few at a time."""
    loop = asyncio.get_running_loop()
    opened: list[Connection] = []
    while len(opened) < number:
        wanted = min(250, number - len(opened))
        connecting = [loop.create_connection(lambda: Connection(path), "127.0.0.1", port) for _ in range(wanted)]
        opened += [connection for _, connection in await asyncio.gather(*connecting)]
    return opened


def close(connections: Iterable[Connection], name: object, expected: int) -> None:
    """Close the connections, and report a server that answered with any other status than the expected one."""
    total: Counter[bytes] = Counter()
    for connection in connections:
        total += connection.statuses
        connection.transport.close()
    if set(total) != {str(expected).encode()}:
        print(f"wrong: {name} answered {dict(total)} instead of {expected} alone")
