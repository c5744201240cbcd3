"""Checks of the built distributions, where nothing else is installed: `python -I installed.py sdist wheel sbom`.

The session `package` of the noxfile runs it. It raises an `AssertionError` if something is wrong.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.metadata
import importlib.util
import json
import pkgutil
import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

NAME = "fastapi_maintenance"
NEEDED = {"anyio", "fastapi", "filelock", "pydantic", "typing-extensions"}
EXTRAS = {"bypass", "cli", "redis", "sqlalchemy"}
MISSING = {"redis", "sqlalchemy", "typer", "rich", "itsdangerous", "hypothesis"}
"""What the extras and the tests need. If it were installed, the checks would prove nothing."""


def equal(actual: object, expected: object) -> None:
    """Compare, and show both if they differ."""
    assert expected == actual, f"expected {expected!r}, got {actual!r}"


def error_of(act: Callable[[], object]) -> str:
    """Return the text of an `ImportError` or `SystemExit`."""
    try:
        act()
    except (ImportError, SystemExit) as error:
        return str(error)
    raise AssertionError(act)


def check_wheel(path: str) -> None:
    """Check that the wheel has the package and its metadata, and nothing else."""
    names = zipfile.ZipFile(path).namelist()
    tops = {name.split("/")[0] for name in names}
    equal(tops, {NAME, *(top for top in tops if top.endswith(".dist-info"))})
    equal([name for name in names if name.startswith(f"{NAME}/") and not name.endswith((".py", "/py.typed"))], [])
    for wanted in ("__init__.py", "py.typed", "backends/redis.py", "cli/commands.py", "testing/__init__.py"):
        assert f"{NAME}/{wanted}" in names, wanted
    for wanted in ("METADATA", "entry_points.txt", "licenses/LICENSE"):
        assert any(name.endswith(f".dist-info/{wanted}") for name in names), wanted


def check_sdist(path: str) -> None:
    """Check that the source distribution has every file of a clone, so that its tests pass."""
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for wanted in (
        "pyproject.toml",
        "README.md",
        "LICENSE",
        "CHANGELOG.md",
        "noxfile.py",
        "hatch_build.py",
        "tests/installed.py",
    ):
        assert wanted in names, wanted
    if Path(".git").exists():
        command = ["git", "ls-files", "-z"]
        tracked = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\0")
        equal({name for name in tracked if name} - names, set())
    equal({name for name in names if re.search(r"\.nox|\.venv|__pycache__|\.coverage|\.hypothesis", name)}, set())


def check_metadata() -> None:
    """Check the requirements and the description."""
    metadata = importlib.metadata.metadata(NAME)
    requirements = importlib.metadata.requires(NAME) or []
    always = {re.split(r"[^\w-]", one)[0] for one in requirements if "extra ==" not in one}
    equal(always, NEEDED)
    equal(set(metadata.get_all("Provides-Extra") or ()), EXTRAS)
    equal((metadata["License-Expression"], metadata["Requires-Python"]), ("MIT", ">=3.11"))
    equal(metadata["Description-Content-Type"], "text/markdown")
    readme = str(metadata.json["description"])
    assert "## Quick start" in readme
    equal(re.findall(r"\]\((?!https?://|#).*?\)", readme), [])  # a package index has no relative links
    (command,) = [
        one for one in importlib.metadata.entry_points(group="console_scripts") if one.name == "fastapi-maintenance"
    ]
    equal(command.value, f"{NAME}.cli:main")


def check_sbom(path: str) -> None:
    """Check that the SBOM lists this version and everything that it has installed, each with a license."""
    sbom = json.loads(Path(path).read_text("utf-8"))
    root = sbom["metadata"]["component"]
    equal((root["name"], root["version"]), ("fastapi-maintenance", importlib.metadata.version(NAME)))
    installed = {(one.name, one.version) for one in importlib.metadata.distributions()}
    listed = {(one["name"], one["version"]) for one in [root, *sbom["components"]]}
    equal(listed, installed)
    equal([one["name"] for one in sbom["components"] if not one.get("licenses")], [])


def check_imports() -> None:
    """Check that every module can be imported, or names the extra that it needs."""
    package = importlib.import_module(NAME)
    equal({name for name in MISSING if name in sys.modules or importlib.util.find_spec(name)}, set())
    need = {f"{NAME}.backends.redis": "redis", f"{NAME}.backends.sqlalchemy": "sqlalchemy"}
    need[f"{NAME}.cli.commands"] = "cli"
    for module in pkgutil.walk_packages(package.__path__, f"{NAME}."):
        if module.name in need:
            text = error_of(lambda name=module.name: importlib.import_module(name))  # type: ignore[misc]
            assert f"pip install 'fastapi-maintenance[{need[module.name]}]'" in text, text
        elif not module.name.startswith(f"{NAME}.cli."):
            importlib.import_module(module.name)
    for name in package.__all__:
        getattr(package, name)
    store = package.MemoryBackend()
    importlib.import_module(f"{NAME}.testing").check_backend(lambda: store)
    for act, wanted in (
        (lambda: package.bypass_cookie("correct horse battery staple"), "fastapi-maintenance[bypass]"),
        (lambda: package.backend_from_url("redis://localhost"), "fastapi-maintenance[redis]"),
        (lambda: package.maintenance_middleware(backend="sqlite+aiosqlite:///x"), "fastapi-maintenance[sqlalchemy]"),
        (importlib.import_module(f"{NAME}.cli").main, "fastapi-maintenance[cli]"),
    ):
        text = error_of(act)
        assert wanted in text, text


async def check_that_it_works() -> None:
    """Check that an app is closed and opened again."""
    fastapi: Any = importlib.import_module("fastapi")
    package: Any = importlib.import_module(NAME)
    app, backend = fastapi.FastAPI(), package.MemoryBackend(state=True)
    app.add_api_route("/", lambda: "open")
    app.add_middleware(package.maintenance_middleware(backend=backend))
    scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "query_string": b"", "http_version": "1.1"}

    async def status() -> int:
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        await app(dict(scope), receive, send)
        number: int = sent[0]["status"]
        return number

    equal(await status(), 503)
    await package.set_maintenance_mode(False, backend)
    equal(await status(), 200)


if __name__ == "__main__":
    sdist, wheel, sbom = sys.argv[1:]
    check_wheel(wheel)
    check_sdist(sdist)
    check_metadata()
    check_sbom(sbom)
    check_imports()
    asyncio.run(check_that_it_works())
    print("the distributions and the SBOM are right")  # noqa: T201 -- a program prints
