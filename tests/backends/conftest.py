"""A running store of each kind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.backends.places import Place
from tests.servers import running

KINDS = ["redis", "redis-text", "cluster", "asyncpg", "psycopg", "sqlite"]


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """Start a store of each kind, whose client waits for an answer as long as it takes."""
    kind: str = request.param
    if kind == "sqlite":
        yield Place(kind, f"sqlite+aiosqlite:///{tmp_path}/switch.db?timeout=60")
        return
    with running(kind.removesuffix("-text")) as server:
        url = f"{server.url}?socket_timeout=60" if server.url.startswith("redis") else server.url
        yield Place(kind, url + ("&decode_responses=1" if kind == "redis-text" else ""))
