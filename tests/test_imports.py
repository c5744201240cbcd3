"""Nothing optional is imported before it is used."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

OPTIONAL = [
    *("aiosqlite", "asyncpg", "httpx", "itsdangerous", "psycopg", "redis", "rich", "sqlalchemy", "tomli", "typer"),
    *("fastapi_maintenance._find", "fastapi_maintenance.backends.redis", "fastapi_maintenance.backends.sqlalchemy"),
    *("fastapi_maintenance.cli", "fastapi_maintenance.router"),
]
SCRIPT = """
import json, sys
import fastapi
before = set(sys.modules)
exec(sys.argv[1])
print(json.dumps(sorted(set(sys.modules) - before)))
"""
"""FastAPI itself may import some of them: what counts is what comes after it."""


def imported_by(line: str) -> set[str]:
    command = [sys.executable, "-c", SCRIPT, line]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    return set(json.loads(done.stdout))


@pytest.mark.parametrize("line", ["import fastapi_maintenance", "from fastapi_maintenance import *"])
def test_importing_the_package_imports_nothing_optional(line: str) -> None:
    assert set() == imported_by(line) & set(OPTIONAL)


def test_a_name_is_imported_when_it_is_used() -> None:
    used = imported_by("from fastapi_maintenance import path_prefix")
    assert "fastapi_maintenance.predicates" in used
    assert not {"fastapi_maintenance.middleware", "fastapi_maintenance.control", "filelock"} & used


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("import fastapi_maintenance.backends.redis", "redis"),
        ("import fastapi_maintenance.backends.sqlalchemy", "sqlalchemy"),
        ("import fastapi_maintenance.cli", "typer"),
    ],
)
def test_it_would_be_seen(line: str, expected: str) -> None:
    assert expected in imported_by(line)
