"""The examples of the README and of the pages run as they are written, and do what is said of them."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, cast

import anyio
import httpx
import pytest
import yaml
from fastapi import Body, FastAPI
from redis.asyncio import Redis
from starlette.types import ASGIApp, Message
from typer.testing import CliRunner
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from fastapi_maintenance import (
    DrainTimeoutError,
    Hold,
    LocalFileBackend,
    MaintenanceState,
    MemoryBackend,
    Switch,
    WorkerStatus,
    backend_from_url,
    get_maintenance_state,
    maintenance_middleware,
    maintenance_mode_on,
    set_maintenance_mode,
    state_to_text,
    text_to_state,
)
from fastapi_maintenance._switch import current_backend
from fastapi_maintenance._switch.drain import get_workers
from fastapi_maintenance.cli.commands import app as cli
from fastapi_maintenance.testing import PromiseBrokenError
from tests.documents import DOCS, Example, example, examples_of
from tests.servers import Server, running
from tests.support import (
    ROOT,
    client,
    eventually,
    free_port,
    handshake,
    uvicorn_process,
    wait_for_port,
    websocket_scope,
)
from tests.switch.lifespans import living

pytestmark = pytest.mark.anyio


def opened(names: dict[str, object]) -> FastAPI:
    """Return the example's app, with an endpoint at each path that the tests ask for."""
    app = cast("FastAPI", names["app"])
    for path in ("/", "/health", "/health/live", "/healthy", "/billing/1", "/items"):
        app.add_api_route(path, lambda: "open", methods=["GET", "POST"])
    return app


async def statuses(
    app: ASGIApp, *requests: str | tuple[str, str, dict[str, str]], peer: str = "192.0.2.1"
) -> list[int]:
    """Make requests, by path alone or by method, path and headers, and return their statuses."""
    async with client(app, peer=(peer, 50_000)) as http:
        whole = [("GET", request, {}) if isinstance(request, str) else request for request in requests]
        return [(await http.request(method, path, headers=headers)).status_code for method, path, headers in whole]


@pytest.fixture
def _maintenance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTAPI_MAINTENANCE_MODE", "1")


async def test_quick_start(monkeypatch: pytest.MonkeyPatch) -> None:
    app = example("Quick start").run()["app"]
    shown = example("Quick start", "http").text.splitlines()
    async with client(cast("FastAPI", app)) as http:
        is_open = await http.get("/")
        monkeypatch.setenv("FASTAPI_MAINTENANCE_MODE", "1")
        closed = await http.get("/")
    assert {"message": "Hello World"} == is_open.json()
    kept = [f"{name}: {closed.headers[name]}" for name in ("retry-after", "cache-control")]
    assert shown == [f"HTTP/1.1 {closed.status_code} {closed.reason_phrase}", *kept, "", closed.text]


async def test_toggle_it_by_api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    app = opened(example("Toggle it by API").run())
    path = "/admin/maintenance"
    asked = await statuses(app, "/", ("PUT", f"{path}/on", {}), "/", ("PUT", f"{path}/off", {}), "/")
    Path("maintenance.txt").write_text("1\n", encoding="utf-8")
    assert [200, 200, 503, 200, 200, 503] == [*asked, *await statuses(app, "/")]


@pytest.mark.servers
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_redis_or_valkey() -> None:
    with running("redis") as server:
        app = opened(run_on(server, example("Redis or Valkey"), "redis://localhost"))
        async with living(app):
            await set_maintenance_mode(True, server.url)

            async def is_closed() -> bool:
                return [503] == await statuses(app, "/")

            await eventually(is_closed)


@pytest.mark.servers
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_postgresql_and_other_databases() -> None:
    with running("asyncpg") as server:
        names = run_on(server, example("PostgreSQL and other databases"), "postgresql+asyncpg://localhost/shop")
        assert ["fastapi_maintenance"] == list(cast("Any", names["metadata"]).tables)
        async with living(opened(names)) as _:
            await set_maintenance_mode(True, server.url)

            async def is_closed() -> bool:
                return [503] == await statuses(cast("FastAPI", names["app"]), "/")

            await eventually(is_closed)
        await cast("Any", names["engine"]).dispose()


def run_on(server: Server, block: Example, url: str) -> dict[str, object]:
    """Run an example with the URL of a server in the place of its own."""
    assert url in block.text
    return replace(block, text=block.text.replace(url, server.url)).run()


async def test_a_file_from_a_config_map(tmp_path: Path) -> None:
    """The kubelet writes a new folder, and exchanges the link to it that the file is seen through."""

    def write(name: str, switch: str) -> None:
        (tmp_path / name).mkdir()
        (tmp_path / name / "switch").write_text(switch, encoding="utf-8")
        (tmp_path / "new").symlink_to(name)
        (tmp_path / "new").rename(tmp_path / "..data")

    write("..1", "0")
    (tmp_path / "switch").symlink_to("..data/switch")
    block = example("Kubernetes: a file from a ConfigMap")
    app = opened(replace(block, text=block.text.replace("/etc/maintenance", str(tmp_path))).run())
    asked = await statuses(app, "/")
    for name, switch in [("..2", '{"active": true, "message": "Back at ten"}'), ("..3", "0"), ("..4", "1")]:
        write(name, switch)
        asked += await statuses(app, "/")
    assert [200, 503, 200, 503] == asked


async def test_an_admin_api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    app = opened(example("An admin API").run())
    headers = {"X-Admin-Key": "secret-key", "If-Match": "*"}
    async with client(app) as http:
        refused = await http.put("/maintenance", headers={"If-Match": "*"}, json={"active": True})
        closed = await http.put("/maintenance", headers=headers, json={"active": True, "message": "Back at ten"})
        asked = await http.get("/")
    assert (403, 200, {"detail": "Back at ten"}) == (refused.status_code, closed.status_code, asked.json())
    assert "alice" == closed.json()["by"]


@pytest.mark.parametrize("while_it_sleeps", [True, False])
async def test_streams_that_do_not_end_end_for_a_drain(
    while_it_sleeps: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    block = example("Streams that do not end")
    assert "anyio.sleep(1)" in block.text
    wake_up = anyio.Event()
    if while_it_sleeps:
        block = replace(
            block, text=block.text.replace("anyio.sleep(1)", "wake_up.wait()\n        await anyio.sleep(0.01)")
        )
    app = cast("FastAPI", block.run(wake_up=wake_up)["app"])
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        await anyio.sleep_forever()
        raise AssertionError

    async def read() -> None:
        scope = {"type": "http", "method": "GET", "path": "/ticks", "headers": [], "query_string": b""}
        await app(scope, receive, send)

    async def is_streaming() -> bool:
        return len(sent) > 1

    async with living(app), anyio.create_task_group() as group:
        group.start_soon(read)
        await eventually(is_streaming)
        if while_it_sleeps:
            with pytest.raises(DrainTimeoutError, match=r"GET /ticks for \d+ s$"):
                await maintenance_mode_on("file:maintenance.txt", drain=2).__aenter__()
            wake_up.set()
        async with maintenance_mode_on("file:maintenance.txt", drain=60):
            assert {"type": "http.response.body", "body": b"", "more_body": False} == sent[-1]
    assert b"data: tick\n\n" == sent[1]["body"]


def test_the_job_of_a_cluster_drains_and_runs_its_command(tmp_path: Path) -> None:
    manifest = yaml.safe_load(example("In Kubernetes", "yaml").text)
    (container,) = manifest["spec"]["template"]["spec"]["containers"]
    (variable,) = container["env"]
    program, *words = container["command"]
    assert ("fastapi-maintenance", "FASTAPI_MAINTENANCE_BACKEND") == (program, variable["name"])
    own = words[: words.index("--") + 1]
    run = [*own, sys.executable, "-c", "raise SystemExit(4)"]
    result = CliRunner().invoke(cli, run, env={"FASTAPI_MAINTENANCE_BACKEND": f"file:{tmp_path / 'switch'}"})
    assert 4 == result.exit_code


async def test_a_drain_that_times_out_tells_what_the_page_shows() -> None:
    since = datetime.now(UTC) - timedelta(seconds=41)
    worker = WorkerStatus(host="web-2", process_id=4711, requests=3, oldest_since=since, oldest_route="POST /orders")
    assert f"error: {DrainTimeoutError(30, (worker,))}\n" == example("Migrations with `run --drain`", "text").text


async def test_see_who_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    block = example("See who is waited for")
    assert "drain=30" in block.text
    names = replace(block, text=block.text.replace("drain=30", "drain=2")).run()
    migrated: list[bool] = []
    app, begun, end = FastAPI(), anyio.Event(), anyio.Event()
    app.add_middleware(maintenance_middleware(backend="file:maintenance.txt"))

    async def migrate() -> None:
        migrated.append(True)

    @app.post("/orders")
    async def order() -> None:
        begun.set()
        await end.wait()

    names["migrate"] = migrate
    migrate_when_quiet = cast("Callable[[], Any]", names["migrate_when_quiet"])
    async with living(app), client(app) as http, anyio.create_task_group() as group:
        group.start_soon(http.post, "/orders")
        await begun.wait()
        assert not await migrate_when_quiet()
        end.set()
        assert [] == migrated
        assert await migrate_when_quiet()
    assert [True] == migrated
    assert ["POST /orders"] == [text.split(": ")[1] for text in caplog.messages if "POST" in text]


@pytest.mark.servers
@pytest.mark.usefixtures("_patient")
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_what_the_page_names_is_all_that_redis_must_permit_for_a_drain(
    caplog: pytest.LogCaptureFixture,
) -> None:
    page = (DOCS / "operations" / "drain.md").read_text(encoding="utf-8")
    (named,) = re.findall(r"a worker also needs (.*?)\. A worker", page, re.DOTALL)
    known = ["ping", "hello", "client|setinfo", "get", "set", "incr", "publish", "eval", "subscribe", "unsubscribe"]
    commands = [f"+{command}" for command in [*known, *re.findall(r"`([A-Z ]+)`", named)]]
    key = "fastapi_maintenance_mode"
    places = [f"~{key}", f"~{{{key}}}:*", f"&{key}", f"&{key}:worker:*"]
    with running("redis") as server:
        async with Redis.from_url(server.url) as client:
            rules = ["on", ">word", "resetchannels", *places, *(one.lower().replace(" ", "|") for one in commands)]
            await client.execute_command("ACL", "SETUSER", "shop", *rules)  # type: ignore[no-untyped-call]  # as redis-py has it
            backend, app = backend_from_url(server.url.replace("://", "://shop:word@")), FastAPI()
            app.add_middleware(maintenance_middleware(backend=backend))
            async with living(opened({"app": app})):
                async with maintenance_mode_on(backend, drain=60):
                    assert [503] == await statuses(app, "/")
                assert [os.getpid()] == [worker.process_id for worker in await get_workers(backend)]
            assert [key.encode(), f"{{{key}}}:changes".encode()] == sorted(await client.keys())
    assert [] == [text for text in caplog.messages if "permi" in text.lower()]


async def test_log_records_as_lines_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    logger = logging.getLogger("fastapi_maintenance")
    handlers, level = list(logger.handlers), logger.level
    names = example("Log records").run()
    try:
        backend, app = MemoryBackend(), FastAPI()
        app.add_middleware(maintenance_middleware(backend=backend))
        async with living(app):
            await set_maintenance_mode(True, backend, message="Back at ten", by="alice")
            lines: list[str] = []

            async def is_logged() -> bool:
                lines.extend(re.findall(r"^{.*$", capsys.readouterr().err, re.MULTILINE))
                return bool(lines)

            await eventually(is_logged)
    finally:
        logger.handlers, logger.level = handlers, level
        cast("logging.Handler", names["handler"]).close()
    record = json.loads(lines[0])
    assert ("INFO", True, "Back at ten", "alice") == (
        record["level"],
        *(record[f"maintenance_{name}"] for name in ("active", "message", "by")),
    )
    page = (DOCS / "operations" / "telemetry.md").read_text(encoding="utf-8")
    assert {name for name in record if name.startswith("maintenance_")} == set(re.findall(r"`(maintenance_\w+)`", page))


def test_a_script_that_reports_a_switch_that_somebody_forgot(tmp_path: Path) -> None:
    """As the pipe in the page runs it."""
    script = tmp_path / "forgotten.py"
    script.write_text(example("Alert on a switch that somebody forgot").text, encoding="utf-8")
    backend = f"file:{tmp_path / 'switch'}"

    def told() -> str:
        status = CliRunner().invoke(cli, ["--backend", backend, "status", "--json"])
        command = [sys.executable, str(script)]
        done = subprocess.run(command, input=status.stdout, text=True, capture_output=True, check=False, timeout=60)
        assert bool(done.returncode) is bool(done.stderr)
        return done.stderr

    def write(state: MaintenanceState) -> None:
        (tmp_path / "switch").write_text(state_to_text(state), encoding="utf-8")

    now = datetime.now(UTC)
    assert "" == told()
    write(MaintenanceState(switch=Switch(on=True, by="alice", since=now)))
    assert "" == told()
    for since, starts_at, is_forgotten in [(3, None, True), (3, 1, False), (5, 4, True), (1, None, False)]:
        state = MaintenanceState(
            active=True,
            by="alice",
            since=now - timedelta(hours=since),
            starts_at=None if starts_at is None else now - timedelta(hours=starts_at),
        )
        write(state)
        assert ("set by alice" in told()) is is_forgotten
    hold = Hold(id="a", on=True, by="bob", since=now - timedelta(hours=3))
    write(MaintenanceState(holds=(hold,)))
    assert "set by bob" in told()
    (tmp_path / "switch").write_text("1", encoding="utf-8")
    assert "an unknown time, set by somebody" in told()


async def test_a_public_notice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    app = cast("FastAPI", example("A public notice").run()["app"])
    shown = example("A public notice", "http").text.splitlines()
    told = json.loads(shown[-1])
    starts_at, ends_at = (datetime.fromisoformat(told[name]) for name in ("starts_at", "ends_at"))
    await set_maintenance_mode(
        True, "file:maintenance.txt", message=told["message"], starts_at=starts_at, ends_at=ends_at
    )
    async with client(app) as http:
        response = await http.get("/maintenance/notice")
    kept = [f"{name}: {response.headers[name]}" for name in ("cache-control", "access-control-allow-origin")]
    assert shown == [f"HTTP/1.1 {response.status_code} {response.reason_phrase}", *kept, "", response.text]


@pytest.mark.usefixtures("_maintenance")
async def test_getting_in_while_it_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BYPASS_SECRET", "correct horse battery staple")
    app = opened(example("Getting in while maintenance is on").run())
    async with client(app) as http:
        before = await http.get("/")
        await http.post("/maintenance/bypass", json={"secret": "correct horse battery staple"})
        assert (503, 200) == (before.status_code, (await http.get("/")).status_code)


@pytest.mark.usefixtures("_maintenance")
async def test_a_page_for_people_json_for_programs() -> None:
    app = opened(example("A page for people, JSON for programs").run())
    async with client(app) as http:
        kinds = [
            (await http.get("/", headers={"accept": accept})).headers["content-type"] for accept in ("text/html", "*/*")
        ]
    assert ["text/html; charset=utf-8", "application/json"] == kinds


async def test_a_time_window() -> None:
    backend = MemoryBackend()
    announce = cast("Callable[[MemoryBackend], Any]", example("A time window").run()["announce"])
    before = datetime.now(UTC)
    await announce(backend)
    state = await get_maintenance_state(backend)
    assert ("New database", True) == (state.message, state.switch.on)
    assert state.starts_at is not None
    assert timedelta(0) <= state.starts_at - before - timedelta(hours=6) < timedelta(minutes=1)
    assert state.starts_at + timedelta(minutes=30) == state.ends_at
    assert not await backend.get_value()


@pytest.mark.usefixtures("_maintenance")
async def test_exempt_health_checks_and_administrators() -> None:
    app = opened(example("Exempt health checks and administrators").run())
    admin, forwarded = {"X-Admin-Key": "secret-key"}, {"X-Forwarded-For": "10.1.2.3"}
    assert [200, 200, 503, 503, 200, 503] == await statuses(
        app, "/health", "/health/live", "/healthy", "/items", ("GET", "/items", admin), ("GET", "/items", forwarded)
    )
    assert [200] == await statuses(app, "/items", peer="10.9.9.9")
    assert [200] == await statuses(app, ("GET", "/items", forwarded), peer="192.0.2.10")


@pytest.mark.usefixtures("_maintenance")
async def test_read_only_mode() -> None:
    app = opened(example("Read-only mode").run())
    assert [200, 503] == await statuses(app, "/items", ("POST", "/items", {}))


@pytest.mark.usefixtures("_maintenance")
async def test_close_only_a_part() -> None:
    app = opened(example("Close only a part").run())
    assert [200, 503] == await statuses(app, "/items", "/billing/1")


def test_in_the_apis_own_documentation() -> None:
    app = cast("FastAPI", example("In the API's own documentation").run()["app"])
    for path in ("/items", "/healthy", "/health", "/health/live"):
        app.add_api_route(path, lambda: "open")
    shown = {path: set(operations["get"]["responses"]) for path, operations in app.openapi()["paths"].items()}
    assert {"200", "503"} == shown["/items"] == shown["/healthy"]
    assert {"200"} == shown["/health"] == shown["/health/live"]


async def test_your_own_response(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = MemoryBackend(MaintenanceState(switch=Switch(on=True, message="<b>Soon</b>")))
    monkeypatch.setattr(current_backend, "_configured", [backend])
    async with client(opened(example("Your own response").run())) as http:
        response = await http.get("/")
    assert (503, "3600") == (response.status_code, response.headers["retry-after"])
    assert "<p>&lt;b&gt;Soon&lt;/b&gt;</p>" in response.text


async def test_your_own_backend() -> None:
    service, flags = FastAPI(), {"maintenance": False}

    @service.get("/flags/maintenance")
    async def read_flag() -> bool:
        return flags["maintenance"]

    @service.put("/flags/maintenance")
    async def write_flag(value: Annotated[bool, Body()]) -> None:
        flags["maintenance"] = value

    names = example("Your own backend").run()
    backend, app = cast("Any", names["flags"]), opened(names)
    await backend.client.aclose()
    async with client(service) as backend.client:
        answered = await statuses(app, "/")
        await set_maintenance_mode(True, backend)
        answered += await statuses(app, "/")
    assert ([200, 503], {"maintenance": True}) == (answered, flags)


def test_test_your_own_backend() -> None:
    block = example("Test your own backend")
    cast("Any", block.run()["test_my_backend"])()
    keeping = '        self.settings["maintenance"] = value\n'
    assert keeping in block.text
    forgetting = replace(block, text=block.text.replace(keeping, "        pass\n")).run()
    with pytest.raises(PromiseBrokenError) as caught:
        cast("Any", forgetting["test_my_backend"])()
    assert example("Test your own backend", "text").text == f"{caught.value}\n"


@pytest.mark.filterwarnings("ignore:Using `httpx`")  # Starlette would rather have another client
async def test_your_own_tests() -> None:
    names = example("Your own tests").run()
    await cast("Any", names["test_it_opens_again_when_the_window_is_over"])()
    cast("Any", names["test_visitors_are_told_when_it_is_closed"])()


async def test_deployment_in_a_context_manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    seen: list[MaintenanceState] = []

    async def migrate() -> None:
        seen.append(await get_maintenance_state(LocalFileBackend("maintenance.txt")))

    names = example("Deployment in a context manager").run()
    names["migrate"] = migrate
    await cast("Any", names["deploy"])()
    (hold,) = seen[0].holds
    assert (True, "Back in ten minutes") == (hold.on, hold.message)
    assert hold.expires_at is not None
    assert MaintenanceState() == await get_maintenance_state(LocalFileBackend("maintenance.txt"))


@pytest.mark.usefixtures("_maintenance")
async def test_kubernetes_probes() -> None:
    app = opened(example("Kubernetes probes").run())
    assert [200, 200, 503] == await statuses(app, "/livez", "/readyz", "/items")


@pytest.mark.usefixtures("_maintenance")
async def test_where_to_put_it_among_other_middleware() -> None:
    app = opened(example("Where to put it among other middleware").run())
    async with client(app) as http:
        response = await http.get("/", headers={"Origin": "https://shop.example"})
    headers = response.headers
    assert (503, "https://shop.example", "Retry-After") == (
        response.status_code,
        headers["access-control-allow-origin"],
        headers["access-control-expose-headers"],
    )


async def test_wrap_any_asgi_app() -> None:
    app = cast("ASGIApp", example("Wrap any ASGI app").run()["app"])
    assert [503] == await statuses(app, "/")
    assert ["websocket.close"] == [message["type"] for message in await handshake(app, websocket_scope())]


async def test_a_few_lines_to_begin_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    app = opened(example("A few lines to begin with").run())
    before = await statuses(app, "/items")
    Path("maintenance.txt").write_text("1\n", encoding="utf-8")
    during = await statuses(app, "/items", "/health")
    Path("maintenance.txt").write_text("0\n", encoding="utf-8")
    assert [200, 503, 200, 200] == [*before, *during, *await statuses(app, "/items")]


def test_a_service_that_can_be_closed_and_the_commands_that_close_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    app = cast("FastAPI", example("1. A service that can be closed").run()["app"])
    heading = "2. Turn maintenance on and off"
    shown = example(heading, "http").text.splitlines()
    lines = [line for each in examples_of(DOCS / "tutorial.md", "console") for line in each.text.splitlines()]
    commands = [shlex.split(line) for line in lines if line.startswith(("export ", "fastapi-maintenance "))]
    assert ["export", "on", "status", "off"] == [words[0 if words[0] == "export" else 1] for words in commands[:4]]
    answers = []
    for words in commands[:4]:
        if words[0] == "export":
            monkeypatch.setenv(*words[1].split("=", 1))
            continue
        result = CliRunner().invoke(cli, words[1:])
        assert 0 == result.exit_code, result.output
        answers.append(anyio.run(answer, app, "/items"))
    closed, status, opened_again = answers
    assert closed.json() == status.json()
    assert ["apple", "pear"] == opened_again.json()
    assert 1790 <= int(closed.headers["retry-after"]) <= 1800
    kept = ["retry-after: 1800", f"cache-control: {closed.headers['cache-control']}"]
    assert shown == [f"HTTP/1.1 {closed.status_code} {closed.reason_phrase}", *kept, "", closed.text]


async def answer(app: FastAPI, path: str) -> httpx.Response:
    """Return what the app answers."""
    async with client(app) as http:
        return await http.get(path)


async def test_let_health_checks_and_administrators_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SHOP_ADMIN_KEY", "secret-key")
    app = cast("FastAPI", example("3. Let health checks and administrators in").run()["app"])
    Path("maintenance.txt").write_text("1", encoding="utf-8")
    key = {"X-Admin-Key": "secret-key"}
    assert [503, 200, 200] == await statuses(app, "/items", "/health", ("GET", "/items", key))


async def test_show_people_a_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    app = opened(example("4. Show people a page").run())
    Path("maintenance.txt").write_text("1", encoding="utf-8")
    async with client(app) as http:
        kinds = [
            (await http.get("/", headers={"accept": accept})).headers["content-type"]
            for accept in ("text/html,*/*;q=0.8", "*/*")
        ]
    assert ["text/html; charset=utf-8", "application/json"] == kinds


@pytest.mark.parametrize("store", [None, "file:elsewhere.txt"])
async def test_share_the_switch(store: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SHOP_STORE", raising=False)
    if store is not None:
        monkeypatch.setenv("SHOP_STORE", store)
    app = opened(example("5. Share the switch").run())
    await set_maintenance_mode(True, store or "file:maintenance.txt")
    assert [503] == await statuses(app, "/")


async def test_close_it_while_you_deploy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    seen: list[MaintenanceState] = []

    async def migrate() -> None:
        seen.append(await get_maintenance_state("file:maintenance.txt"))

    await cast("Any", example("6. Close it while you deploy").run()["upgrade"])(migrate)
    (hold,) = seen[0].holds
    assert (True, "New database") == (hold.on, hold.message)
    assert MaintenanceState() == await get_maintenance_state("file:maintenance.txt")


@pytest.mark.filterwarnings("ignore:Using `httpx`")  # Starlette would rather have another client
def test_the_tests_of_the_tutorial() -> None:
    names = example("7. Test it").run()
    cast("Any", names["test_visitors_are_told"])()
    cast("Any", names["test_the_shop_is_open_again"])()


async def test_addresses_of_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTAPI_MAINTENANCE_MODE", "1")
    app = opened(example("Addresses of clients").run())
    inside, outside = ({"X-Forwarded-For": address} for address in ("10.1.2.3", "192.0.2.7"))
    asked = [("GET", "/items", inside), ("GET", "/items", outside)]
    assert [200, 503] == await statuses(app, *asked, peer="127.0.0.1")
    assert [503, 503] == await statuses(app, *asked)


@pytest.mark.usefixtures("_maintenance")
async def test_search_engines() -> None:
    app = opened(example("Search engines").run())
    app.add_api_route("/robots.txt", lambda: "open", methods=["GET", "POST"])
    assert [200, 200, 503] == await statuses(app, "/robots.txt", "/items", ("POST", "/items", {}))


@pytest.mark.usefixtures("_maintenance")
async def test_the_deployment_asks_probes_that_pass() -> None:
    manifest = yaml.safe_load(example("The deployment", "yaml").text)
    pod = manifest["spec"]["template"]
    assert manifest["spec"]["selector"]["matchLabels"] == pod["metadata"]["labels"]
    (container,) = pod["spec"]["containers"]
    assert ["SHOP_STORE"] == [variable["name"] for variable in container["env"]]
    probes = [container[kind]["httpGet"] for kind in ("livenessProbe", "readinessProbe")]
    assert {container["ports"][0]["containerPort"]} == {probe["port"] for probe in probes}
    app = opened(example("Kubernetes probes").run())
    assert [200, 200] == await statuses(app, *(probe["path"] for probe in probes))


def test_the_config_map_is_a_switch_that_is_off() -> None:
    manifest = yaml.safe_load(example("Kubernetes: a file from a ConfigMap", "yaml").text)
    assert {"switch": MaintenanceState()} == {name: text_to_state(text) for name, text in manifest["data"].items()}


def shop(switch: Path) -> AbstractContextManager[str]:
    """Run a server with the shop, whose switch is a file."""
    env = {"SHOP_STORE": f"file:{switch}"}
    return uvicorn_process("shop:app", "--no-proxy-headers", env=env, folder=ROOT / "examples")


@contextmanager
def nginx(heading: str, folder: Path, **servers: str) -> Iterator[str]:
    """Run nginx with the configuration under a heading, in front of other servers than it names; yield its URL."""
    port = free_port()
    text = example(heading, "nginx").text.replace("listen 8080;", f"listen 127.0.0.1:{port};")
    for shown, server in servers.items():
        text = text.replace(f"127.0.0.1:{shown.removeprefix('port_')}", server.removeprefix("http://"))
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    folders = "".join(f"{kind}_temp_path {folder / kind};" for kind in kinds)
    config = folder / "nginx.conf"
    config.write_text(
        f"daemon off; pid {folder / 'pid'}; error_log {folder / 'log'}; events {{}}\n"
        f"http {{ access_log off; {folders}\n{text}}}\n",
        encoding="utf-8",
    )
    process = subprocess.Popen([str(shutil.which("nginx")), "-c", str(config), "-e", str(folder / "log")])
    try:
        wait_for_port(port, process)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(timeout=30)


@pytest.mark.servers
@pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not installed")
def test_behind_nginx(tmp_path: Path) -> None:
    """The 503 comes through as it is, again and again, and so does that of a WebSocket handshake."""
    with (
        shop(tmp_path / "switch") as one,
        shop(tmp_path / "switch") as two,
        nginx("Behind nginx", tmp_path, port_8001=one, port_8002=two) as url,
    ):
        before = httpx.get(f"{url}/items", timeout=30)
        with connect(f"ws{url.removeprefix('http')}/items/prices") as socket:
            socket.send("apple")
            assert {"item": "apple", "price": 5} == json.loads(socket.recv(timeout=30))
        (tmp_path / "switch").write_text('{"active": true, "message": "Back at ten"}', encoding="utf-8")
        during = [httpx.get(f"{url}/items", timeout=30) for _ in range(6)]
        with pytest.raises(InvalidStatus) as refused, connect(f"ws{url.removeprefix('http')}/items/prices"):
            pass
    assert ["apple", "pear"] == before.json()
    assert {(503, "3600", "no-store", '{"detail":"Back at ten"}')} == {
        (each.status_code, each.headers["retry-after"], each.headers["cache-control"], each.text) for each in during
    }
    assert (503, "3600") == (refused.value.response.status_code, refused.value.response.headers["retry-after"])


@pytest.mark.servers
@pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not installed")
def test_when_the_app_itself_is_down(tmp_path: Path) -> None:
    (tmp_path / "switch").write_text("1", encoding="utf-8")
    with contextlib.ExitStack() as stack:
        app = stack.enter_context(shop(tmp_path / "switch"))
        with nginx("When the app itself is down", tmp_path, port_8001=app) as url:
            by_app = httpx.get(f"{url}/items", timeout=30)
            stack.close()
            by_nginx = httpx.get(f"{url}/items", timeout=30)
    assert (503, "3600", "no-store") == (
        by_app.status_code,
        by_app.headers["retry-after"],
        by_app.headers["cache-control"],
    )
    assert (503, "60", "no-store", "Back in a moment") == (
        by_nginx.status_code,
        by_nginx.headers["retry-after"],
        by_nginx.headers["cache-control"],
        by_nginx.text,
    )
