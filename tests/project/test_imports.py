"""The public package: what importing it imports, what it exports, and which names of version 0.0.5 are gone."""

import ast
import importlib
import inspect
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from typing import Any, get_args, get_type_hints

import pytest
from fastapi import FastAPI

import fastapi_maintenance
from fastapi_maintenance import MaintenanceModeMiddleware
from tests.documents import DOCS, statuses

OPTIONAL = {
    *("aiosqlite", "asyncpg", "httpx", "itsdangerous", "psycopg", "redis", "rich", "sqlalchemy", "typer"),
    *("fastapi_maintenance.backends.redis", "fastapi_maintenance.backends.sqlalchemy", "fastapi_maintenance.cli"),
    *("filelock", "hypothesis", "fastapi_maintenance.router", "fastapi_maintenance.testing"),
}
SCRIPT = """
import json, sys
import fastapi  # may import some of them itself
before = set(sys.modules)
exec(sys.argv[1])
print(json.dumps(sorted(set(sys.modules) - before)))
"""
MODULES = [
    importlib.import_module(f"fastapi_maintenance{name}")
    for name in ("", ".backends.redis", ".backends.sqlalchemy", ".codec", ".router", ".testing", ".typing")
]
PUBLIC = {f"{module.__name__}.{name}": getattr(module, name) for module in MODULES for name in module.__all__}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("from fastapi_maintenance import *", set()),
        ("import fastapi_maintenance.backends.redis, fastapi_maintenance.cli.commands", {"redis", "typer", "rich"}),
    ],
)
def test_import_loads_what_is_optional_only_with_its_module(line: str, expected: set[str]) -> None:
    command = [sys.executable, "-c", SCRIPT, line]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    loaded = OPTIONAL.intersection(json.loads(done.stdout))
    assert loaded >= expected
    assert bool(loaded) is bool(expected)


def test_version_is_that_of_the_distribution() -> None:
    assert fastapi_maintenance.__version__ == metadata.version("fastapi-maintenance")


def test_package_is_imports_and_the_sorted_list_of_their_names() -> None:
    source = ast.parse(inspect.getsource(fastapi_maintenance))
    imports = [node for node in source.body if isinstance(node, ast.ImportFrom)]
    imported = {alias.asname or alias.name for node in imports for alias in node.names}
    assert fastapi_maintenance.__all__ == sorted(imported)
    assert {type(node) for node in source.body} == {ast.Expr, ast.ImportFrom, ast.Assign}


def types_in(annotation: Any) -> Iterator[type]:  # noqa: ANN401 -- any annotation
    """Yield the classes of the package in an annotation."""
    for part in annotation if isinstance(annotation, list) else get_args(annotation):
        yield from types_in(part)
    if getattr(annotation, "__module__", "").startswith("fastapi_maintenance") and isinstance(annotation, type):
        yield annotation


def signatures_of(value: Any) -> Iterator[Any]:  # noqa: ANN401 -- a function, a class or another object
    """Yield a function, or the public methods and properties of a class that the package defines."""
    if inspect.isroutine(value):
        yield value
    for name, member in inspect.getmembers(value if isinstance(value, type) else type(value)):
        function = member.fget if isinstance(member, property) else member
        is_public = name in {"__init__", "__call__", "__aenter__"} or not name.startswith("_")
        is_own = str(getattr(function, "__module__", "")).startswith("fastapi_maintenance")
        if is_public and is_own and inspect.isroutine(function):
            yield function


def test_signature_of_a_public_name_has_only_public_types() -> None:
    signatures = [(name, one) for name, value in PUBLIC.items() for one in signatures_of(value)]
    types = {
        (name, each) for name, one in signatures for hint in get_type_hints(one).values() for each in types_in(hint)
    }
    assert [(name, each) for name, each in types if not any(each is public for public in PUBLIC.values())] == []
    assert len(signatures) > len(PUBLIC) > 100


PAGE = (DOCS / "moving.md").read_text(encoding="utf-8")
NAMES = {
    "": "__author__ __version__ configure_backend get_maintenance_mode set_maintenance_mode force_maintenance_mode_off"
    " force_maintenance_mode_on MaintenanceModeMiddleware maintenance_mode_on",
    ".backends": "BaseStateBackend EnvVarBackend LocalFileBackend",
    ".cli": "app main",
    ".decorators": "RouteHandler force_maintenance_mode_off force_maintenance_mode_on",
    ".middleware": "HandlerFunction MaintenanceModeMiddleware",
    **dict.fromkeys(("._constants", "._context", "._core", "._handlers"), ""),
}
"""All modules of version 0.0.5, and the names in them that have no underscore."""


@pytest.mark.parametrize("module", NAMES)
def test_name_of_0_0_5_exists_or_is_listed_as_removed(module: str) -> None:
    try:
        found: object = importlib.import_module(f"fastapi_maintenance{module}")
    except ModuleNotFoundError:
        assert f"`{module[1:]}`" in PAGE
    else:
        missing = [name for name in NAMES[module].split() if not hasattr(found, name)]
        assert [name for name in missing if not re.search(rf"`{module[1:]}\.?{name}`".replace("`.", "`"), PAGE)] == []


@pytest.mark.anyio
@pytest.mark.parametrize(("verdict", "status"), [(True, 200), ("yes", 503), (re.match("", ""), 503), (None, 503)])
async def test_exempt_handler_of_0_0_5_exempts_only_with_true(verdict: bool, status: int) -> None:
    app = FastAPI()
    app.add_api_route("/", lambda: "open")
    app.add_middleware(MaintenanceModeMiddleware, enable_maintenance=True, exempt_handler=lambda _: verdict)
    assert await statuses(app, "/") == [status]
