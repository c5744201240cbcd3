"""The examples of the two documents that define the library run as they are written."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio
from fastapi import FastAPI

from fastapi_maintenance import MaintenanceModeMiddleware, force_maintenance_mode_off, set_maintenance_mode
from tests.documents import SPEC, ask, example, examples_of, statuses
from tests.servers import running

pytestmark = pytest.mark.anyio


def test_examples_have_a_test_each() -> None:
    tests = Path(__file__).read_text(encoding="utf-8")
    headings = [block.heading for document in SPEC for block in examples_of(document, "python")]
    assert len(headings) == len(set(headings)) == 8
    assert [heading for heading in headings if f'"{heading}"' not in tests] == []


async def test_quick_start_follows_the_environment_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    app = example("Quick Start").run()["app"]
    responses = [await ask(app, "/")]
    monkeypatch.setenv("FASTAPI_MAINTENANCE_MODE", "1")
    responses.append(await ask(app, "/"))
    shown = [block.text.strip() for block in examples_of(SPEC[0], "json")]
    lines = [line for block in examples_of(SPEC[0], "bash") for line in block.text.splitlines() if "pip" not in line]
    assert lines == ["export FASTAPI_MAINTENANCE_MODE=1", "uvicorn main:app"]
    assert [(each.status_code, each.text) for each in responses] == list(zip((200, 503), shown, strict=True))


async def test_api_controls_toggle_maintenance() -> None:
    app = example("Using API Controls").app()
    path = "POST /admin/maintenance"
    assert await statuses(app, "/", f"{path}/enable", "/", f"{path}/disable", "/") == [200, 200, 503, 200, 200]
    assert Path("maintenance_mode.txt").read_text(encoding="utf-8").strip() == "0"


@pytest.mark.usefixtures("_maintenance")
async def test_decorated_route_stays_open() -> None:
    response = await ask(example("Using Decorators").run()["app"], "/status")
    assert (response.status_code, response.json()) == (200, {"status": "operational"})


@pytest.mark.usefixtures("_maintenance")
async def test_callback_exempts_health_checks_and_administrators() -> None:
    app = example("Using Callbacks").app({"app": FastAPI(), "MaintenanceModeMiddleware": MaintenanceModeMiddleware})
    requests = ("/health", "/items", "/items X-Admin-Key=secret-key", "/items X-Admin-Key=guess")
    assert await statuses(app, *requests) == [200, 503, 200, 503]


@pytest.mark.usefixtures("_maintenance")
async def test_custom_response_is_sent() -> None:
    response = await ask(example("Customizing Responses").app(), "/")
    assert (response.status_code, response.headers["content-type"]) == (503, "text/html; charset=utf-8")
    assert "<h1>Under Maintenance</h1>" in response.text


def visit(app: list[FastAPI], seen: list[int]) -> Callable[[], Awaitable[None]]:
    """Return a function for the block of an example, which sends a request."""

    async def visit_once() -> None:
        seen.extend(await statuses(app[0], "/open"))

    return visit_once


async def test_maintenance_is_on_while_the_deployment_runs() -> None:
    apps: list[FastAPI] = []
    seen: list[int] = []
    apps.append(example("Context Managers for Temporary Maintenance").app({"perform_deployment": visit(apps, seen)}))
    response = await ask(apps[0], "POST /start-deployment")
    seen += await statuses(apps[0], "/open")
    assert (seen, response.json()) == ([503, 200], {"status": "deployed"})


@pytest.mark.usefixtures("_maintenance")
async def test_maintenance_is_off_while_the_database_is_checked() -> None:
    apps: list[FastAPI] = []
    seen: list[int] = []
    names: dict[str, Any] = {"check_database_health": visit(apps, seen)}
    apps.append(example("Context Managers for Temporary Maintenance").app(names))
    apps[0].add_api_route("/check-by-night", force_maintenance_mode_off(names["check_database"]))
    response = await ask(apps[0], "/check-by-night")
    seen += await statuses(apps[0], "/open")
    assert (seen, response.json()) == ([200, 503], {"database": "healthy"})


@pytest.mark.servers
@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # the client of the example needs it
async def test_custom_redis_backend_switches_the_app(monkeypatch: pytest.MonkeyPatch) -> None:
    with running("redis") as server:
        real = redis.asyncio.Redis.from_url(server.url)
        place = {"host": "localhost", "port": 6379, "db": 0}
        monkeypatch.setattr(redis.asyncio, "Redis", lambda **given: real if given == place else None)
        names = example("Creating a Custom Backend").run()
        app = example("Using Your Custom Backend").app(names)
        seen = await statuses(app, "/")
        for value in (True, False):
            await set_maintenance_mode(value, names["redis_backend"])
            seen += await statuses(app, "/")
        assert (seen, await real.get("fastapi_maintenance_mode")) == ([200, 503, 200], b"0")
        await real.aclose()
