"""A running store of each kind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.backends.places import Place

KINDS = ["redis", "redis-text", "cluster", "asyncpg", "psycopg", "sqlite"]


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest, tmp_path: Path, url_of: Callable[[str], str]) -> Place:
    """Give an empty store of each kind, whose client waits for an answer as long as it takes."""
    kind: str = request.param
    if kind == "sqlite":
        return Place(kind, f"sqlite+aiosqlite:///{tmp_path}/switch.db?timeout=60")
    url = url_of(kind.removesuffix("-text"))
    if url.startswith("redis"):
        url += "?socket_timeout=60"
    return Place(kind, url + ("&decode_responses=1" if kind == "redis-text" else ""))
