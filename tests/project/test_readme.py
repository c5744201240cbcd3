"""What the README says is so: its examples run as written, its demonstration prints what it shows."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Annotated, Any, cast

import pytest
from fastapi import Body, FastAPI
from starlette.types import ASGIApp
from typer.testing import CliRunner

from fastapi_maintenance import (
    LocalFileBackend,
    MaintenanceState,
    MemoryBackend,
    get_maintenance_state,
    set_maintenance_mode,
)
from fastapi_maintenance._switch import current_backend
from fastapi_maintenance._switch.app_switch import Settings
from fastapi_maintenance.cli.commands import app as cli
from fastapi_maintenance.predicates import __all__ as predicates
from fastapi_maintenance.testing import PromiseBrokenError
from tests.documents import Example, examples_of
from tests.servers import Server, running
from tests.support import ROOT, client, eventually, handshake, websocket_scope
from tests.switch.lifespans import living

pytestmark = pytest.mark.anyio

README = ROOT / "README.md"
EXAMPLES = {block.heading: block for block in examples_of(README, "python")}


def example(heading: str) -> Example:
    """Return the README's example under a heading."""
    return EXAMPLES[heading]


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


def test_each_example_has_a_heading_of_its_own_and_a_test() -> None:
    headings = [block.heading for block in examples_of(README, "python")]
    tests = Path(__file__).read_text(encoding="utf-8")
    assert sorted(set(headings)) == sorted(headings)
    assert [] == [heading for heading in headings if f'example("{heading}")' not in tests]


async def test_quick_start(monkeypatch: pytest.MonkeyPatch) -> None:
    app = example("Quick start").run()["app"]
    (shown,) = [block.text.splitlines() for block in examples_of(README, "http")]
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
    before = datetime.now(timezone.utc)
    await announce(backend)
    state = await get_maintenance_state(backend)
    assert ("New database", True) == (state.message, state.active)
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


def test_the_hints_are_those_that_there_are() -> None:
    hints = (ROOT / "fastapi_maintenance" / "_routing" / "hints.py").read_text(encoding="utf-8")
    topics = re.findall(r'yield "(\w+)"', hints)
    assert topics
    assert sorted(topics) == re.findall(
        r"^\| `fastapi_maintenance\.hints\.(\w+)`", README.read_text("utf-8"), re.MULTILINE
    )


async def test_your_own_response(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = MemoryBackend(MaintenanceState(active=True, message="<b>Soon</b>"))
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
    (shown,) = [text.text for text in examples_of(README, "text") if text.heading == block.heading]
    assert shown == f"{caught.value}\n"


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
    assert (True, "Back in ten minutes") == (hold.active, hold.message)
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


def test_the_demonstration_prints_what_the_readme_shows() -> None:
    shown = next(block.text for block in examples_of(README, "text") if block.heading == "See it work")
    printed = subprocess.run(
        [sys.executable, ROOT / "examples" / "demo.py"], capture_output=True, text=True, check=True, timeout=60
    ).stdout
    assert shown.strip() == printed.strip()


def test_the_commands_are_those_of_the_noxfile() -> None:
    blocks = [
        block
        for block in examples_of(README, "console")
        if block.heading in {"See it work", "Installation", "Contributing"}
    ]
    commands = [line for block in blocks for line in block.text.splitlines()]
    assert ["python3 noxfile.py -s demo", "pip install fastapi-maintenance", "python3 noxfile.py"] == commands
    assert "exec python3 noxfile.py\n" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_the_commands_of_the_terminal_are_those_that_there_are() -> None:
    (block,) = [block for block in examples_of(README, "console") if block.heading == "From the terminal"]
    shown = [line.split()[1] for line in block.text.splitlines() if line.startswith("fastapi-maintenance ")]
    assert ["on", "status", "watch", "off", "run", "release"] == shown
    for name in shown:
        result = CliRunner().invoke(cli, [name, "--help"])
        options = {
            word for line in block.text.splitlines() for word in line.split() if word.startswith("--") and word != "--"
        }
        assert 0 == result.exit_code
        used = next(line for line in block.text.splitlines() if line.startswith(f"fastapi-maintenance {name}"))
        assert [] == [option for option in options if option in used and option not in result.output]


def test_all_predicates_and_settings_are_told_of() -> None:
    text = README.read_text(encoding="utf-8")
    assert [] == [name for name in predicates if f"`{name}`" not in text]
    assert [] == [name for name in Settings.__dataclass_fields__ if f"| `{name}` |" not in text]


def test_links_lead_to_files_of_the_repository() -> None:
    links = [
        line.split("](")[1].split(")")[0] for line in README.read_text(encoding="utf-8").splitlines() if "](" in line
    ]
    local = [link for link in links if not link.startswith("https://")]
    assert "examples/shop.py" in local
    assert [] == [link for link in local if not (ROOT / link).is_file()]
