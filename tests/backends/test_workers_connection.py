"""The workers behind PostgreSQL whose connection is lost just when it begins to listen, as in a restart."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from fastapi_maintenance.backends.sqlalchemy import backend as sqlalchemy_backend
from fastapi_maintenance.backends.sqlalchemy import postgresql
from fastapi_maintenance.backends.url import opened
from tests.backends.helpers import on_asyncio  # noqa: F401 -- a fixture
from tests.backends.workers import counted
from tests.middleware.test_failures import app_on
from tests.switch.lifespans import living

pytestmark = [pytest.mark.anyio, pytest.mark.servers]


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
async def test_worker_whose_connection_is_lost_when_it_listens_signs_with_the_next_one(
    driver: str, url_of: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlalchemy_backend, "_LISTEN_AGAIN", 3600.0)
    listen = postgresql._LISTENERS[driver]
    lost: list[AsyncConnection] = []

    async def lose_first(connection: AsyncConnection) -> Any:  # noqa: ANN401 -- what the drivers return
        if not lost:
            lost.append(connection)
            raw: Any = (await connection.get_raw_connection()).driver_connection
            await raw.close()
        return await listen(connection)

    monkeypatch.setitem(postgresql._LISTENERS, driver, lose_first)
    async with opened(url_of(driver)) as backend, living(app_on(backend)):
        await counted(backend, os.getpid())
    assert len(lost) == 1
