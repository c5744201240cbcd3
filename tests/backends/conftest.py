"""Running stores of each kind, and how they are read and written without the library."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy

from fastapi_maintenance.backends.redis import RedisBackend
from tests.backends.helpers import connected


@dataclass
class Place:
    """A running store."""

    kind: str
    url: str

    @property
    def is_redis(self) -> bool:
        return self.kind in {"redis", "redis-text", "cluster"}

    def opened(self) -> AbstractAsyncContextManager[Any]:
        """Return a context with a backend that has its own client, as in another process."""
        return connected(self.url)

    async def write(self, text: str | bytes) -> None:
        """Store a value as another program does."""
        async with self.opened() as backend:
            if isinstance(backend, RedisBackend):
                await backend.client.set(backend.key, text)
                return
            await backend.set_value(False)  # creates the table and the row
            async with backend.engine.begin() as connection:
                statement = sqlalchemy.text("UPDATE fastapi_maintenance SET state = :text")
                await connection.execute(statement, {"text": text})

    async def read(self) -> str:
        """Return the value as another program reads it."""
        async with self.opened() as backend:
            if isinstance(backend, RedisBackend):
                value = await backend.client.get(backend.key)
                return value.decode() if isinstance(value, bytes) else str(value)
            async with backend.engine.connect() as connection:
                return str(await connection.scalar(sqlalchemy.text("SELECT state FROM fastapi_maintenance")))


@pytest.fixture(params=["redis", "redis-text", "cluster", "asyncpg", "psycopg", "sqlite"])
def place(request: pytest.FixtureRequest, tmp_path: Path, url_of: Callable[[str], str]) -> Place:
    """Return an empty store of each kind, whose client waits a minute for an answer."""
    kind: str = request.param
    if kind == "sqlite":
        return Place(kind, f"sqlite+aiosqlite:///{tmp_path}/switch.db?timeout=60")
    url = url_of(kind.removesuffix("-text"))
    options = "" if not url.startswith("redis") else "?socket_timeout=60"
    return Place(kind, url + options + ("&decode_responses=1" if kind == "redis-text" else ""))
