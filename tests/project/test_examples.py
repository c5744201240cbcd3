"""The examples of the README and of the pages run as they are written, and do what the text says."""

import configparser
import contextlib
import json
import logging
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import anyio
import httpx
import pytest
import yaml
from fastapi import Body, FastAPI
from redis.asyncio import Redis
from starlette.types import Message
from typer.testing import CliRunner
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from fastapi_maintenance import (
    DrainTimeoutError,
    EnvVarBackend,
    Hold,
    MaintenanceState,
    MemoryBackend,
    Switch,
    Window,
    WorkerStatus,
    backend_from_url,
    configure_backend,
    get_maintenance_mode,
    get_maintenance_state,
    get_workers,
    maintenance_middleware,
    maintenance_mode_on,
    not_,
    path_prefix,
    plan_maintenance,
    set_maintenance_mode,
)
from fastapi_maintenance.cli.commands import app as cli
from fastapi_maintenance.codec import state_to_text, text_to_state
from fastapi_maintenance.testing import PromiseBrokenError, moved_clock
from tests.documents import DOCS, as_shown, ask, blocks_of, example, examples_of, statuses
from tests.servers import running
from tests.support import (
    ROOT,
    client,
    eventually,
    free_port,
    handshake,
    make_request,
    uvicorn_process,
    wait_for_port,
    websocket_scope,
)
from tests.switch.lifespans import answers, living

pytestmark = pytest.mark.anyio

FILE = "file:maintenance.txt"
ON_ASYNCIO = pytest.mark.parametrize("anyio_backend", ["asyncio"])  # for slow tests, and packages that need it
ASKED: dict[str, dict[str, int]] = {
    "A few lines to begin with": {"/items": 503, "/health": 200},
    "Health checks and administrators": {
        "/health": 200,
        "/health/live": 200,
        "/healthy": 503,
        "/items": 503,
        "/items X-Admin-Key=secret-key": 200,
        "/items X-Forwarded-For=10.1.2.3": 503,
        "/items from 10.9.9.9": 200,
        "/items X-Forwarded-For=10.1.2.3 from 192.0.2.10": 200,
    },
    "Read-only mode": {"/items": 200, "POST /items": 503},
    "Close only a part": {"/items": 200, "/billing/1": 503},
    "Kubernetes probes": {"/livez": 200, "/readyz": 200, "/items": 503},
    "Addresses of clients": {
        "/items X-Forwarded-For=10.1.2.3 from 127.0.0.1": 200,
        "/items X-Forwarded-For=192.0.2.7 from 127.0.0.1": 503,
        "/items X-Forwarded-For=10.1.2.3": 503,
    },
    "Search engines": {"/robots.txt": 200, "/items": 200, "POST /items": 503},
}
"""The statuses of an app's responses during maintenance. While it is off, all are 200."""


@pytest.mark.usefixtures("_maintenance")
@pytest.mark.parametrize("heading", ASKED)
async def test_app_passes_the_requests_that_its_page_says(heading: str, monkeypatch: pytest.MonkeyPatch) -> None:
    app, asked = example(heading).app(), ASKED[heading]
    assert dict(zip(asked, await statuses(app, *asked), strict=True)) == asked
    monkeypatch.setenv("FASTAPI_MAINTENANCE_MODE", "0")
    Path("maintenance.txt").write_text("0\n", encoding="utf-8")
    assert {*await statuses(app, *asked)} == {200}


@pytest.mark.usefixtures("_maintenance")
@pytest.mark.parametrize(
    ("heading", "request_", "parts"),
    [
        ("A page for people", "/ Accept=text/html,*/*;q=0.8", ["text/html; charset=utf-8"]),
        ("A page for people", "/ Accept=*/*", ["application/json"]),
        (
            "Languages of the page",
            "/ Accept-Language=pl-PL",
            ['lang="pl" dir="ltr"', 'status.example/">Stan usługi</a>'],
        ),
        (
            "CORS",
            "/ Origin=https://shop.example",
            ["'https://shop.example'", "'X-Total-Count, Retry-After, X-Maintenance-Mode'"],
        ),
    ],
)
async def test_app_responds_as_its_page_says(heading: str, request_: str, parts: list[str]) -> None:
    response = await ask(example(heading).app(), request_)
    assert response.status_code == 503
    assert [part for part in parts if part not in f"{dict(response.headers)} {response.text}"] == []


async def test_route_of_your_own_sets_the_switch() -> None:
    app = example("A route of your own").app()
    path = "PUT /admin/maintenance"
    assert await statuses(app, "/", f"{path}/on", "/", f"{path}/off", "/") == [200, 200, 503, 200, 200]
    Path("maintenance.txt").write_text("1\n", encoding="utf-8")
    assert await statuses(app, "/") == [503]


@pytest.mark.servers
@ON_ASYNCIO
@pytest.mark.parametrize(
    ("kind", "heading", "url"),
    [
        ("redis", "Redis or Valkey", "redis://localhost"),
        ("asyncpg", "PostgreSQL and other databases", "postgresql+asyncpg://localhost/shop"),
    ],
)
async def test_app_on_a_server_follows_its_switch(kind: str, heading: str, url: str) -> None:
    with running(kind) as server:
        names: dict[str, Any] = {}
        app = example(heading).replaced(url, server.url).app(names)
        async with living(app):
            await set_maintenance_mode(True, server.url)
            await answers(app, 503)
        if kind == "asyncpg":
            await names["engine"].dispose()


async def test_file_from_a_config_map_is_followed(tmp_path: Path) -> None:
    """The kubelet writes a new folder, and replaces the link through which the file is read."""
    manifest = yaml.safe_load(example("A file from a ConfigMap", "yaml").text)
    assert {name: text_to_state(text) for name, text in manifest["data"].items()} == {"switch": MaintenanceState()}

    def write(name: str, switch: str) -> None:
        Path(name).mkdir()
        Path(name, "switch").write_text(switch, encoding="utf-8")
        Path("new").symlink_to(name)
        Path("new").rename("..data")

    write("..1", manifest["data"]["switch"])
    Path("switch").symlink_to("..data/switch")
    app = example("A file from a ConfigMap").replaced("/etc/maintenance", str(tmp_path)).app()
    seen = await statuses(app, "/")
    for name, switch in [("..2", '{"switch": {"on": true, "message": "Back at ten"}}'), ("..3", "0"), ("..4", "1")]:
        write(name, switch)
        seen += await statuses(app, "/")
    assert seen == [200, 503, 200, 503]


async def test_admin_api_accepts_the_commands_of_its_page() -> None:
    app, seen = example("An admin API").app(), []
    commands = "".join(block.text for block in examples_of(DOCS / "how-to" / "admin-api.md", "console"))
    async with client(app) as http:
        for method, path, body in re.findall(r"curl -X (\w+) localhost:8000(\S+) [^']*'(.*)'", commands):
            for key in ("guess", "secret-key"):
                headers = {"X-Admin-Key": key, "If-Match": "*"}
                response = await http.request(method, path, headers=headers, json=json.loads(body))
                seen.append((method, response.status_code, response.json().get("by")))
    expected = {"PUT": 200, "PATCH": 200, "POST": 201}
    assert seen == [row for name, code in expected.items() for row in ((name, 403, None), (name, code, "alice"))]
    assert (await ask(app, "/")).json() == {"detail": "Back at eleven"}


async def test_stream_ends_for_a_drain() -> None:
    app = example("Streams that do not end").run()["app"]
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        await anyio.sleep_forever()
        raise AssertionError

    scope = {"type": "http", "method": "GET", "path": "/ticks", "headers": [], "query_string": b""}
    async with living(app), anyio.create_task_group() as group:
        group.start_soon(app, scope, receive, send)
        await eventually(lambda: len(sent) > 2)
        async with maintenance_mode_on(FILE, drain=60):
            assert sent[-1] == {"type": "http.response.body", "body": b"", "more_body": False}
    assert [message["body"] for message in sent[1:3]] == [b"retry: 3000\n\n", b"data: tick\n\n"]


def test_job_in_kubernetes_drains_and_runs_its_command() -> None:
    manifest = yaml.safe_load(example("In Kubernetes", "yaml").text)
    (container,) = manifest["spec"]["template"]["spec"]["containers"]
    (variable,) = container["env"]
    program, *words = container["command"]
    assert (program, variable["name"]) == ("fastapi-maintenance", "FASTAPI_MAINTENANCE_BACKEND")
    own = words[: words.index("--")]
    run = [*own, "--workers", "0", "--", sys.executable, "-c", "raise SystemExit(4)"]
    assert CliRunner().invoke(cli, run, env={"FASTAPI_MAINTENANCE_BACKEND": FILE}).exit_code == 4


def test_drain_that_times_out_prints_what_the_page_shows() -> None:
    since = datetime.now(UTC) - timedelta(seconds=41)
    worker = WorkerStatus(host="web-2", process_id=4711, requests=3, oldest_since=since, oldest_route="POST /orders")
    assert example("Migrations", "text").text == (
        f"error: {DrainTimeoutError(30, (worker,))}\nthe hold was released, and the command was not started\n"
    )


@ON_ASYNCIO
async def test_drain_logs_the_requests_that_it_waits_for(caplog: pytest.LogCaptureFixture) -> None:
    names = example("See which workers are left").replaced("drain=30", "drain=2").run()
    migrated: list[bool] = []
    app, begun, end = FastAPI(), anyio.Event(), anyio.Event()
    app.add_middleware(maintenance_middleware(backend=FILE))

    async def migrate() -> None:
        migrated.append(True)

    @app.post("/orders")
    async def order() -> None:
        begun.set()
        await end.wait()

    names["migrate"] = migrate
    async with living(app), anyio.create_task_group() as group:
        group.start_soon(ask, app, "POST /orders")
        await begun.wait()
        assert (await names["migrate_when_quiet"](), migrated) == (False, [])
        end.set()
        assert (await names["migrate_when_quiet"](), migrated) == (True, [True])
    assert [text.split(": ")[1] for text in caplog.messages if "POST" in text] == ["POST /orders"]


@pytest.mark.servers
@pytest.mark.usefixtures("_patient")
@ON_ASYNCIO
async def test_drain_on_redis_needs_only_the_permissions_of_the_page(caplog: pytest.LogCaptureFixture) -> None:
    page = (DOCS / "operations" / "drain.md").read_text(encoding="utf-8")
    (named,) = re.findall(r"allow these too: (.*?)\. A worker", page, re.DOTALL)
    known = ["ping", "hello", "client|setinfo", "get", "set", "incr", "publish", "eval", "subscribe", "unsubscribe"]
    commands = [f"+{command}" for command in [*known, *re.findall(r"`([A-Z|]+)`", named)]]
    key = "fastapi_maintenance_mode"
    places = [f"~{key}", f"~{{{key}}}:*", f"&{key}", f"&{{{key}}}:worker:*"]
    with running("redis") as server:
        async with Redis.from_url(server.url) as client:
            rules = ["on", ">word", "resetchannels", *places, *map(str.lower, commands)]
            await client.execute_command("ACL", "SETUSER", "shop", *rules)  # type: ignore[no-untyped-call]  # as in redis-py
            backend, app = backend_from_url(server.url.replace("://", "://shop:word@")), FastAPI()
            app.add_middleware(maintenance_middleware(backend=backend))
            app.add_api_route("/", lambda: "open")
            async with living(app):
                async with maintenance_mode_on(backend, drain=60):
                    assert await statuses(app, "/") == [503]
                assert [worker.process_id for worker in await get_workers(backend)] == [os.getpid()]
            kept = [key, f"{{{key}}}:changes", f"{{{key}}}:workers"]
            assert sorted(await client.keys()) == [each.encode() for each in kept]
    assert [text for text in caplog.messages if "permi" in text.lower()] == []


async def test_log_records_are_lines_of_json_with_the_fields_of_the_page(capsys: pytest.CaptureFixture[str]) -> None:
    logger = logging.getLogger("fastapi_maintenance")
    handlers, level = list(logger.handlers), logger.level
    names = example("Log records").run()
    lines: list[str] = []

    async def is_logged() -> bool:
        lines.extend(re.findall(r"^{.*$", capsys.readouterr().err, re.MULTILINE))
        return bool(lines)

    try:
        backend, app = MemoryBackend(), FastAPI()
        app.add_middleware(maintenance_middleware(backend=backend))
        async with living(app):
            soon = datetime.now(UTC) + timedelta(hours=1)
            await set_maintenance_mode(True, backend, message="Back at ten", ends_at=soon, by="alice")
            await eventually(is_logged)
    finally:
        logger.handlers, logger.level = handlers, level
        names["handler"].close()
    record = json.loads(lines[0])
    facts = {name.removeprefix("maintenance_"): value for name, value in record.items() if "maintenance_" in name}
    assert [record["level"], *map(facts.get, ("active", "message", "by"))] == ["INFO", True, "Back at ten", "alice"]
    page = (DOCS / "operations" / "telemetry.md").read_text(encoding="utf-8")
    assert set(facts) == set(re.findall(r"`maintenance_(\w+)`", page))


def test_script_names_who_left_maintenance_on_for_two_hours() -> None:
    Path("forgotten.py").write_text(example("Alert on a switch that somebody forgot").text, encoding="utf-8")

    def named(text: str) -> list[str]:
        Path("switch").write_text(text, encoding="utf-8")
        status = CliRunner().invoke(cli, ["--backend", "file:switch", "status", "--json"])
        command = [sys.executable, "forgotten.py"]
        done = subprocess.run(command, input=status.stdout, text=True, capture_output=True, check=False, timeout=60)
        names = re.findall(r"since .+, set by (\w+)$", done.stderr)
        assert done.returncode == bool(names)
        return names

    names = [*named("0"), *named("1")]
    for hours in (1, 3):
        since = datetime.now(UTC) - timedelta(hours=hours)
        for state in (
            MaintenanceState(switch=Switch(on=True, by=f"alice{hours}", since=since)),
            MaintenanceState(windows=(Window(id="a", by=f"carol{hours}", starts_at=since),)),
            MaintenanceState(holds=(Hold(id="a", on=True, by=f"bob{hours}", since=since),)),
        ):
            names += named(state_to_text(state))
    assert names == ["somebody", "alice3", "carol3", "bob3"]


async def test_public_notice_shows_a_planned_window() -> None:
    app = example("A public notice").run()["app"]
    shown = example("A public notice", "http").text
    (window,) = json.loads(shown.splitlines()[-1])["windows"]
    starts_at, ends_at = (datetime.fromisoformat(window[name]) for name in ("starts_at", "ends_at"))
    await plan_maintenance(starts_at, ends_at, FILE, message=window["message"])
    response = await ask(app, "/maintenance/notice")
    assert as_shown(response, "cache-control", "access-control-allow-origin") == shown


@pytest.mark.usefixtures("_maintenance")
async def test_bypass_cookie_lets_in() -> None:
    async with client(example("A bypass cookie").app()) as http:
        http.base_url = httpx.URL("https://testserver")
        before = await http.get("/")
        await http.post("/maintenance/bypass", json={"secret": "correct horse battery staple"})
        assert (before.status_code, (await http.get("/")).status_code) == (503, 200)


async def test_unknown_layer_that_is_declared_keeps_its_404() -> None:
    app = example("Layers that the library does not know").app()
    async with client(maintenance_middleware(backend=MemoryBackend(state=True))(app)) as http:
        response = await http.get("/nothing")
    assert (response.status_code, response.json()) == (404, {"message": "Not Found"})


async def test_planned_window_begins_and_ends_by_itself() -> None:
    backend = MemoryBackend()
    with moved_clock() as clock:
        window = await example("Planned windows").run()["announce"](backend)
        assert window.message == "New database"
        asked = []
        for hours in (0, 6.1, 0.5):
            clock.move(hours=hours)
            asked.append(await get_maintenance_mode(backend))
        assert asked == [False, True, False]


def test_openapi_documents_the_503() -> None:
    document = example("OpenAPI").app().openapi()
    shown = {path: set(operations["get"]["responses"]) for path, operations in document["paths"].items()}
    assert shown["/items"] == shown["/healthy"] == {"200", "503"}
    assert shown["/health"] == shown["/health/live"] == {"200"}


async def test_response_of_your_own_escapes_the_message() -> None:
    configure_backend(MemoryBackend(MaintenanceState(switch=Switch(on=True, message="<b>Soon</b>"))))
    response = await ask(example("Your own response").app(), "/")
    assert (response.status_code, "<p>&lt;b&gt;Soon&lt;/b&gt;</p>" in response.text) == (503, True)


async def test_backend_of_your_own_is_followed() -> None:
    service, flags, names = FastAPI(), {"maintenance": False}, dict[str, Any]()

    @service.get("/flags/maintenance")
    async def read_flag() -> bool:
        return flags["maintenance"]

    @service.put("/flags/maintenance")
    async def write_flag(value: Annotated[bool, Body()]) -> None:
        flags["maintenance"] = value

    app = example("Your own backend").app(names)
    backend = names["flags"]
    await backend.client.aclose()
    async with client(service) as backend.client:
        before = await statuses(app, "/")
        await set_maintenance_mode(True, backend)
        assert (before, await statuses(app, "/"), flags) == ([200], [503], {"maintenance": True})


def test_check_of_your_own_backend_finds_a_broken_promise() -> None:
    block = example("Test your own backend")
    block.run()["test_my_backend"]()
    forgetting = block.replaced('        self.settings["maintenance"] = value\n', "        pass\n").run()
    with pytest.raises(PromiseBrokenError) as caught:
        forgetting["test_my_backend"]()
    assert example("Test your own backend", "text").text == f"{caught.value}\n"


def test_tests_of_your_own_app_pass() -> None:
    Path("test_shop.py").write_text(example("Your own tests").text, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "ignore:Using `httpx`"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=60)
    assert "2 passed" in done.stdout, done.stdout


async def test_block_holds_maintenance_on_while_it_runs() -> None:
    seen: list[MaintenanceState] = []

    async def migrate() -> None:
        seen.append(text_to_state(Path("maintenance.txt").read_text(encoding="utf-8")))

    names = example("A block of code").run()
    names["migrate"] = migrate
    app = FastAPI()
    app.add_middleware(maintenance_middleware(backend=FILE))
    async with living(app):
        await names["deploy"]()
    (hold,) = seen[0].holds
    assert (hold.on, hold.message, hold.expires_at is None) == (True, "Back in ten minutes", False)
    assert await get_maintenance_state(FILE) == MaintenanceState()


async def test_asgi_app_is_wrapped() -> None:
    app = example("Any ASGI app").run()["app"]
    assert await statuses(app, "/") == [503]
    assert [message["type"] for message in await handshake(app, websocket_scope())] == ["websocket.close"]


@pytest.mark.usefixtures("_maintenance")
async def test_probes_of_the_deployment_pass() -> None:
    manifest = yaml.safe_load(example("The deployment", "yaml").text)
    pod = manifest["spec"]["template"]
    assert manifest["spec"]["selector"]["matchLabels"] == pod["metadata"]["labels"]
    (container,) = pod["spec"]["containers"]
    assert [variable["name"] for variable in container["env"]] == ["SHOP_STORE"]
    probes = [container[kind]["httpGet"] for kind in ("livenessProbe", "readinessProbe")]
    assert {probe["port"] for probe in probes} == {container["ports"][0]["containerPort"]}
    assert await statuses(example("Kubernetes probes").app(), *(probe["path"] for probe in probes)) == [200, 200]


def shop(switch: Path) -> AbstractContextManager[str]:
    """Run a server of the shop with its switch in a file."""
    env = {"SHOP_STORE": f"file:{switch}"}
    return uvicorn_process("shop:app", "--no-proxy-headers", env=env, folder=ROOT / "examples")


@contextmanager
def nginx(heading: str, folder: Path, **servers: str) -> Iterator[str]:
    """Run nginx with the configuration under a heading, in front of these servers; yield its URL."""
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
def test_nginx_forwards_the_503_of_requests_and_handshakes(tmp_path: Path) -> None:
    with (
        shop(tmp_path / "switch") as one,
        shop(tmp_path / "switch") as two,
        nginx("Behind nginx", tmp_path, port_8001=one, port_8002=two) as url,
    ):
        before = httpx.get(f"{url}/items", timeout=30)
        with connect(f"ws{url.removeprefix('http')}/items/prices") as socket:
            socket.send("apple")
            assert json.loads(socket.recv(timeout=30)) == {"item": "apple", "price": 5}
        (tmp_path / "switch").write_text('{"switch": {"on": true, "message": "Back at ten"}}', encoding="utf-8")
        during = [httpx.get(f"{url}/items", timeout=30) for _ in range(6)]
        with pytest.raises(InvalidStatus) as refused, connect(f"ws{url.removeprefix('http')}/items/prices"):
            pass
    assert before.json() == ["apple", "pear"]
    assert {*map(facts_of, during)} == {(503, "3600", "no-store", '{"detail":"Back at ten"}')}
    assert (refused.value.response.status_code, refused.value.response.headers["retry-after"]) == (503, "3600")


def facts_of(response: httpx.Response) -> tuple[int, str, str, str]:
    headers = response.headers
    return response.status_code, headers["retry-after"], headers["cache-control"], response.text


@pytest.mark.servers
@pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not installed")
def test_nginx_sends_its_own_503_if_the_app_is_down(tmp_path: Path) -> None:
    (tmp_path / "switch").write_text("1", encoding="utf-8")
    with contextlib.ExitStack() as stack:
        app = stack.enter_context(shop(tmp_path / "switch"))
        with nginx("When the app itself is down", tmp_path, port_8001=app) as url:
            by_app = httpx.get(f"{url}/items", timeout=30)
            stack.close()
            by_nginx = httpx.get(f"{url}/items", timeout=30)
    assert facts_of(by_app)[:3] == (503, "3600", "no-store")
    assert facts_of(by_nginx) == (503, "60", "no-store", "Back in a moment")


@pytest.mark.parametrize(
    ("closed", "answers"),
    [("", (200, 200, 200)), ("shop", (503, 503, 200)), ("billing", (200, 503, 200)), ("shop billing", (503, 503, 200))],
)
async def test_several_switches_close_only_their_part(closed: str, answers: tuple[int, ...]) -> None:
    app = example("Several switches").app()
    for name in closed.split():
        await set_maintenance_mode(True, f"file:{name}.txt")
    assert tuple(await statuses(app, "/items", "/billing/1", "/health")) == answers


def test_command_sets_one_of_several_switches(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("shop.py").write_text(example("Several switches").text, encoding="utf-8")
    monkeypatch.syspath_prepend(".")
    (block,) = [each for each in blocks_of(DOCS / "how-to" / "several-switches.md") if each.language == "console"]
    kept = []
    for line in block.text.splitlines():
        result = CliRunner().invoke(cli, shlex.split(line)[1:])
        assert result.exit_code == 0, result.output
        kept.append(Path("billing.txt").read_text(encoding="utf-8").strip())
    sys.modules.pop("shop", None)
    assert kept == ["1", "0"]


async def test_switch_of_a_tenant_closes_only_its_host() -> None:
    app = example("A switch for each tenant").app()
    await set_maintenance_mode(True, "file:apples.txt")
    assert await statuses(app, "/items Host=apples.example", "/items Host=pears.example", "/items") == [503, 200, 200]


async def test_part_has_the_statuses_of_its_page() -> None:
    """Paths that look like the part are not found, or blocked if a route matches them."""
    rows = re.findall(r"^\| (`/.+?`) \| (.+?) \|$", (DOCS / "how-to" / "one-part.md").read_text("utf-8"), re.MULTILINE)
    closed, open_, others = [re.findall(r"`(.+?)`", paths) for paths, _ in rows]
    assert [answer.partition(":")[0] for _, answer in rows] == ["`503`", "as usual", "what the app makes of it"]
    part, everything = (FastAPI() for _ in range(2))
    for app in (part, everything):
        switch = EnvVarBackend("CLOSED")
        app.add_middleware(maintenance_middleware(backend=switch, enabled=True, exempt=not_(path_prefix("/billing"))))
    for path in ("/billing/1", "/items"):
        part.add_api_route(path, lambda: "open")
    everything.add_api_route("/{path:path}", lambda: "open")
    asked = [*closed, *open_, *others]
    assert [await status_at(part, path) for path in asked] == [503, 200, 404, 404, 404]
    assert [await status_at(everything, path) for path in asked] == [503, 200, 503, 503, 503]


async def status_at(app: FastAPI, path: str) -> int:
    """Return the status of a path that a client would normalize."""
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    await app(make_request(path).scope, receive_nothing, send)
    status: int = sent[0]["status"]
    return status


async def receive_nothing() -> Message:
    """Return the end of a request without a body."""
    return {"type": "http.request", "body": b"", "more_body": False}


def test_nothing_is_logged_recipe_enables_info() -> None:
    logger, root = logging.getLogger("fastapi_maintenance"), logging.getLogger()
    before = (logger.level, root.level)
    try:
        example("Nothing is logged").run()
        assert logger.isEnabledFor(logging.INFO)
    finally:
        logger.level, root.level = before
        logging.Logger.manager._clear_cache()  # type: ignore[attr-defined]


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    """Run the shop with maintenance on."""
    (tmp_path / "switch").write_text("1", encoding="utf-8")
    with uvicorn_process("shop:app", env={"SHOP_STORE": f"file:{tmp_path}/switch"}, folder=ROOT / "examples") as url:
        yield url


@pytest.mark.servers
def test_docker_image_is_healthy_during_maintenance(served: str) -> None:
    lines = dict(line.split(" ", 1) for line in example("Docker", "dockerfile").text.splitlines())
    assert lines["EXPOSE"] in json.loads(lines["CMD"])
    assert json.loads(lines["CMD"])[0] == "uvicorn"
    program, *words = json.loads(lines["HEALTHCHECK"].removeprefix("CMD "))
    assert program == "python3"
    words = [word.replace(f"http://localhost:{lines['EXPOSE']}", served) for word in words]
    assert subprocess.run([sys.executable, *words], check=False, timeout=60).returncode == 0


def test_systemd_unit_has_the_switch_of_the_command(tmp_path: Path) -> None:
    unit = configparser.ConfigParser()
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string(example("systemd", "ini").text)
    service = unit["Service"]
    (block,) = [each for each in blocks_of(DOCS / "operations" / "servers.md") if each.heading == "systemd"][1:]
    assert service["Environment"] == f"SHOP_STORE={shlex.split(block.text)[-1]}"
    assert f"/var/lib/{service['StateDirectory']}/" in service["Environment"]
    verify = shutil.which("systemd-analyze")
    if verify is None:
        pytest.skip("systemd is not installed")
    file = tmp_path / "shop.service"
    program = service["ExecStart"].split()[0]
    file.write_text(example("systemd", "ini").text.replace(program, sys.executable).replace("=shop\n", "=root\n"))
    done = subprocess.run([verify, "verify", file], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, [line for line in done.stderr.splitlines() if "shop.service" in line]) == (0, [])
