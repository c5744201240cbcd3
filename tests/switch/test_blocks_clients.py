"""A block that is given a URL makes one client, and closes it."""

from __future__ import annotations

from typing import Any

import pytest
import redis.asyncio

from fastapi_maintenance import maintenance_mode_off, maintenance_mode_on
from tests.switch.blocks import ONLY_ASYNCIO, BodyError

pytestmark = pytest.mark.anyio

NOWHERE = "redis://localhost:1"


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return what happens to clients of Redis."""
    happened: list[str] = []
    make, close = redis.asyncio.Redis.__init__, redis.asyncio.Redis.aclose

    def counted_make(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 -- those of Redis
        happened.append("made")
        make(self, *args, **kwargs)

    async def counted_close(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 -- those of Redis
        happened.append("closed")
        await close(self, *args, **kwargs)

    monkeypatch.setattr(redis.asyncio.Redis, "__init__", counted_make)
    monkeypatch.setattr(redis.asyncio.Redis, "aclose", counted_close)
    return happened


@ONLY_ASYNCIO
@pytest.mark.parametrize("block", [maintenance_mode_on, maintenance_mode_off])
async def test_block_of_a_url_whose_store_is_down_makes_one_client(block: Any, made: list[str]) -> None:  # noqa: ANN401 -- both
    with pytest.raises(redis.exceptions.ConnectionError):
        async with block(NOWHERE):
            pytest.fail("the store is down")
    assert ["made", "closed"] == made


@ONLY_ASYNCIO
@pytest.mark.servers
async def test_block_of_a_url_makes_one_client(made: list[str], redis_url: str) -> None:
    made.clear()
    with pytest.raises(BodyError):
        async with maintenance_mode_on(redis_url, lease=60):
            raise BodyError
    assert ["made", "closed"] == made


@ONLY_ASYNCIO
@pytest.mark.servers
async def test_decorator_of_a_url_makes_one_client_for_each_call(made: list[str], redis_url: str) -> None:
    made.clear()

    @maintenance_mode_on(redis_url)
    async def migrate() -> str:
        return "migrated"

    assert ["migrated", "migrated"] == [await migrate(), await migrate()]
    assert ["made", "closed"] * 2 == made


def test_url_that_names_no_backend_is_refused_before_the_block_is_entered() -> None:
    with pytest.raises(ValueError, match="backend must begin with one of"):
        maintenance_mode_on("nowhere:")
