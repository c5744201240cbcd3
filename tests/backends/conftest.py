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
    """Start a store of each kind."""
    kind: str = request.param
    if kind == "sqlite":
        yield Place(kind, f"sqlite+aiosqlite:///{tmp_path}/switch.db")
        return
    with running(kind.removesuffix("-text")) as server:
        yield Place(kind, server.url + ("?decode_responses=1" if kind == "redis-text" else ""))
