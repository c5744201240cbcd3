"""What was built, seen where nothing else is installed: `python -I installed.py wheel sdist`.

It is run by the session `package` of the noxfile, and says what is wrong by an `AssertionError`.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.metadata
import importlib.util
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
"""What the extras and the tests need: were it there, this would prove nothing."""


def equal(expected: object, actual: object) -> None:
    """Compare, and show both where they differ."""
    assert expected == actual, f"expected {expected!r}, got {actual!r}"


def told_by(act: Callable[[], object]) -> str:
    """Return what an `ImportError` or the end of the process says."""
    try:
        act()
    except (ImportError, SystemExit) as error:
        return str(error)
    raise AssertionError(act)


def check_wheel(path: str) -> None:
    """The wheel has the package and what tells of it, and nothing else."""
    names = zipfile.ZipFile(path).namelist()
    tops = {name.split("/")[0] for name in names}
    equal({NAME, *(top for top in tops if top.endswith(".dist-info"))}, tops)
    equal([], [name for name in names if name.startswith(f"{NAME}/") and not name.endswith((".py", "/py.typed"))])
    for wanted in ("__init__.py", "py.typed", "backends/redis.py", "cli/commands.py", "testing/__init__.py"):
        assert f"{NAME}/{wanted}" in names, wanted
    for wanted in ("METADATA", "entry_points.txt", "licenses/LICENSE"):
        assert any(name.endswith(f".dist-info/{wanted}") for name in names), wanted


def check_sdist(path: str) -> None:
    """The source distribution has all that a clone has, so its tests pass as they do in a clone."""
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
        equal(set(), {name for name in tracked if name} - names)
    equal(set(), {name for name in names if re.search(r"\.nox|\.venv|__pycache__|\.coverage|\.hypothesis", name)})


def check_metadata() -> None:
    """It says what it needs and no more."""
    metadata = importlib.metadata.metadata(NAME)
    requirements = importlib.metadata.requires(NAME) or []
    always = {re.split(r"[^\w-]", one)[0] for one in requirements if "extra ==" not in one}
    equal(NEEDED, always)
    equal(EXTRAS, set(metadata.get_all("Provides-Extra") or ()))
    equal(("MIT", ">=3.11"), (metadata["License-Expression"], metadata["Requires-Python"]))
    equal("text/markdown", metadata["Description-Content-Type"])
    readme = str(metadata.json["description"])
    assert "## Quick start" in readme
    equal([], re.findall(r"\]\((?!https?://|#).*?\)", readme))  # a package index knows no relative links
    (command,) = [
        one for one in importlib.metadata.entry_points(group="console_scripts") if one.name == "fastapi-maintenance"
    ]
    equal(f"{NAME}.cli:main", command.value)


def check_imports() -> None:
    """All can be imported but what needs an extra, and that says which."""
    package = importlib.import_module(NAME)
    equal(set(), {name for name in MISSING if name in sys.modules or importlib.util.find_spec(name)})
    need = {f"{NAME}.backends.redis": "redis", f"{NAME}.backends.sqlalchemy": "sqlalchemy"}
    need[f"{NAME}.cli.commands"] = "cli"
    for module in pkgutil.walk_packages(package.__path__, f"{NAME}."):
        if module.name in need:
            told = told_by(lambda name=module.name: importlib.import_module(name))  # type: ignore[misc]
            assert f"pip install 'fastapi-maintenance[{need[module.name]}]'" in told, told
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
        told = told_by(act)
        assert wanted in told, told


async def check_that_it_works() -> None:
    """An app is closed, and opened again."""
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

    equal(503, await status())
    await package.set_maintenance_mode(False, backend)
    equal(200, await status())


if __name__ == "__main__":
    sdist, wheel = sorted(sys.argv[1:], key=lambda path: path.endswith(".whl"))
    check_wheel(wheel)
    check_sdist(sdist)
    check_metadata()
    check_imports()
    asyncio.run(check_that_it_works())
    print(f"{len(sys.argv) - 1} distributions are as they should be")  # noqa: T201 -- for whoever runs it
