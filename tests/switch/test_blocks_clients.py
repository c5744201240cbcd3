"""Blocks that are given a URL: each use makes one client, and closes it."""

from __future__ import annotations

from typing import Any

import pytest
import redis.asyncio

from fastapi_maintenance import maintenance_mode_off, maintenance_mode_on
from tests.switch.blocks import ONLY_ASYNCIO, BodyError

pytestmark = [pytest.mark.anyio, ONLY_ASYNCIO]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return which clients of Redis are created and closed."""
    calls: list[str] = []
    create, close = redis.asyncio.Redis.__init__, redis.asyncio.Redis.aclose

    def recorded_create(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 -- those of Redis
        calls.append("created")
        create(self, *args, **kwargs)

    async def recorded_close(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 -- those of Redis
        calls.append("closed")
        await close(self, *args, **kwargs)

    monkeypatch.setattr(redis.asyncio.Redis, "__init__", recorded_create)
    monkeypatch.setattr(redis.asyncio.Redis, "aclose", recorded_close)
    return calls


@pytest.mark.parametrize(
    ("block", "settings"), [(maintenance_mode_on, {}), (maintenance_mode_on, {"drain": 5}), (maintenance_mode_off, {})]
)
async def test_block_of_a_url_whose_store_is_down_closes_its_client(
    block: Any,  # noqa: ANN401 -- one of two
    settings: dict[str, Any],
    calls: list[str],
) -> None:
    with pytest.raises(redis.exceptions.ConnectionError):
        async with block("redis://localhost:1", **settings):
            pytest.fail("the store is down")
    assert calls == ["created", "closed"]


@pytest.mark.servers
async def test_block_of_a_url_makes_one_client_for_each_use(calls: list[str], redis_url: str) -> None:
    calls.clear()
    with pytest.raises(BodyError):
        async with maintenance_mode_on(redis_url, lease=60):
            raise BodyError
    assert calls == ["created", "closed"]

    @maintenance_mode_on(redis_url)
    async def migrate() -> str:
        return "migrated"

    assert [await migrate(), await migrate()] == ["migrated", "migrated"]
    assert calls == ["created", "closed"] * 3


async def test_block_of_a_url_that_names_no_backend_raises_before_it_is_entered() -> None:
    with pytest.raises(ValueError, match="backend must begin with one of"):
        maintenance_mode_on("nowhere:")
