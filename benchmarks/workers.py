"""The processes that are measured: workers in the environments of the peers, and the stores that they use."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from variants import PEER_OF

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from tests.servers import running  # noqa: E402 -- from here on the clone can be imported
from tests.support import free_port, wait_for_port  # noqa: E402


class Served(NamedTuple):
    """A variant, and whether it is in maintenance."""

    variant: str
    on: bool


@contextmanager
def stores() -> Iterator[dict[str, str]]:
    """Run the stores, and give the environment variables that name them."""
    with TemporaryDirectory(prefix="maintenance-") as folder, running("redis") as redis, running("asyncpg") as postgres:
        yield {"BENCHMARK_FOLDER": folder, "STORE_REDIS": redis.url, "STORE_POSTGRESQL": postgres.url}


@contextmanager
def run_worker(python: str, *arguments: str, env: Mapping[str, str], **pipes: Any) -> Iterator[subprocess.Popen[Any]]:  # noqa: ANN401 -- what Popen takes
    """Run `worker.py` with this Python, and end it by its id."""
    with subprocess.Popen([python, HERE / "worker.py", *arguments], env={**os.environ, **env}, **pipes) as process:
        try:
            yield process
        finally:
            process.kill()  # it keeps nothing


@contextmanager
def serving(
    pythons: Mapping[str, str], all_served: list[Served], env: Mapping[str, str]
) -> Iterator[dict[Served, tuple[int, int]]]:
    """Serve variants with 10 routes, each by a process of its own, and give the port and process id of each."""
    found = {}
    with ExitStack() as stack:
        for served in all_served:
            port = free_port()
            words = [served.variant, "10", "on" if served.on else "off", str(port)]
            process = stack.enter_context(run_worker(pythons[PEER_OF[served.variant]], *words, env=env))
            wait_for_port(port, process)
            found[served] = (port, process.pid)
        yield found
