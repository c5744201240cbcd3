"""The workers of the peers, each in its own environment, and what they are asked."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from tests.servers import running  # noqa: E402 -- from here on the clone can be imported

__all__ = ["Worker", "parse_peers", "stores", "workers"]


class Worker:
    """A process of `drive.py`."""

    def __init__(self, python: str, env: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            [python, HERE / "drive.py"],
            env={**os.environ, **env},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL if os.environ.get("BENCHMARK_QUIET", "1") == "1" else None,
            text=True,
        )

    def ask(self, **order: object) -> dict[str, Any]:
        """Return what it answers to an order."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def end(self) -> None:
        """Let it end."""
        try:
            self._process.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def parse_peers(peers: list[str]) -> dict[str, str]:
    """Return the Python of each peer, given as `name=path`; this library is measured in this process's environment."""
    return {"ours": sys.executable, **dict(peer.split("=", 1) for peer in peers)}


@contextmanager
def stores() -> Iterator[dict[str, str]]:
    """Run the stores, and give the variables that name them."""
    with ExitStack() as stack:
        folder = stack.enter_context(TemporaryDirectory(prefix="maintenance-"))
        redis = stack.enter_context(running("redis"))
        postgresql = stack.enter_context(running("asyncpg"))
        yield {"BENCHMARK_FOLDER": folder, "STORE_REDIS": redis.url, "STORE_POSTGRESQL": postgresql.url}


@contextmanager
def workers(pythons: Mapping[str, str]) -> Iterator[dict[str, Worker]]:
    """Run a worker for each peer."""
    with stores() as env:
        started: dict[str, Worker] = {}
        try:
            for name, python in pythons.items():
                started[name] = Worker(python, env)
            yield started
        finally:
            for worker in started.values():
                worker.end()
