"""A worker that has left is forgotten by those who have seen it, also while its process goes on."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path

import pytest

from fastapi_maintenance.backends import file_workers, redis_workers
from tests.backends.helpers import on_asyncio  # noqa: F401 -- a fixture
from tests.backends.places import Place

pytestmark = [pytest.mark.anyio, pytest.mark.servers, pytest.mark.usefixtures("_patient")]


@pytest.fixture(params=["file", "redis"])
def place(request: pytest.FixtureRequest, tmp_path: Path, url_of: Callable[[str], str]) -> Place:
    """Give a store in which the end of a worker is known for a minute."""
    return Place(request.param, f"file:{tmp_path}/switch" if request.param == "file" else url_of("redis"))


@pytest.mark.parametrize("seconds", [60.0, -1.0])
async def test_registry_worker_that_left_is_forgotten_however_long_nobody_looked(
    place: Place, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    async with (
        place.opened() as one,
        place.opened() as other,
        place.opened() as watcher,
        aclosing(one.watch()) as states,
    ):
        await anext(states)
        await one.workers.sign("host.1.one", "{}")
        assert await watcher.workers.reports() == {"host.1.one": "{}"}
        await one.workers.leave("host.1.one")
        for module in (file_workers, redis_workers):
            monkeypatch.setattr(module, "_KEPT_FOR", seconds)
        await other.workers.sign("host.2.two", "{}")
        assert await other.workers.reports() == {"host.2.two": "{}"}
        assert await watcher.workers.reports() == {"host.2.two": "{}"}
        await other.workers.leave("host.2.two")
