"""Pages about several switches and other programs, tested as far as possible without these programs."""

from __future__ import annotations

import configparser
import json
import logging
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from starlette.types import Message
from typer.testing import CliRunner

from fastapi_maintenance import EnvVarBackend, maintenance_middleware, not_, path_prefix, set_maintenance_mode
from fastapi_maintenance.cli.commands import app as cli
from tests.documents import DOCS, blocks_of, example, statuses
from tests.support import ROOT, make_request, uvicorn_process

pytestmark = pytest.mark.anyio


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
