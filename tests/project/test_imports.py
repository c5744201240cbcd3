"""Nothing optional is imported before it is used, and what users import stays where it is."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from importlib import metadata

import fastapi_maintenance

OPTIONAL = [
    *("aiosqlite", "asyncpg", "httpx", "itsdangerous", "psycopg", "redis", "rich", "sqlalchemy", "typer"),
    *("fastapi_maintenance.backends.redis", "fastapi_maintenance.backends.sqlalchemy", "fastapi_maintenance.cli"),
    *("filelock", "hypothesis", "fastapi_maintenance.router", "fastapi_maintenance.testing"),
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


def test_importing_the_package_imports_nothing_optional() -> None:
    assert imported_by("from fastapi_maintenance import *") & set(OPTIONAL) == set()


def test_importing_what_is_optional_would_be_seen() -> None:
    modules = "backends.redis, fastapi_maintenance.backends.sqlalchemy, fastapi_maintenance.cli.commands"
    assert imported_by(f"import fastapi_maintenance.{modules}") >= {"redis", "sqlalchemy", "typer"}


PATHS = {
    "fastapi_maintenance.backends": (
        "BaseStateBackend EnvVarBackend LocalFileBackend MemoryBackend backend_from_url cached"
    ),
    "fastapi_maintenance.backends.base": "BaseStateBackend",
    "fastapi_maintenance.backends.cached": "cached",
    "fastapi_maintenance.backends.env": "EnvVarBackend",
    "fastapi_maintenance.backends.file": "LocalFileBackend",
    "fastapi_maintenance.backends.memory": "MemoryBackend",
    "fastapi_maintenance.backends.redis": "RedisBackend",
    "fastapi_maintenance.backends.sqlalchemy": "SQLAlchemyBackend maintenance_table",
    "fastapi_maintenance.backends.url": "backend_from_url",
    "fastapi_maintenance.cli": "main",
    "fastapi_maintenance.codec": "bool_to_str state_to_text str_to_bool text_to_state",
    "fastapi_maintenance.control": (
        "cancel_maintenance configure_backend get_maintenance_mode get_maintenance_state get_maintenance_status "
        "maintenance_mode_off maintenance_mode_on plan_maintenance set_maintenance_mode"
    ),
    "fastapi_maintenance.decorators": "force_maintenance_mode_off force_maintenance_mode_on",
    "fastapi_maintenance.errors": (
        "InvalidStateError MaintenanceError NoSuchWindowError NotSupportedError PromiseBrokenError ReadOnlyBackendError"
    ),
    "fastapi_maintenance.middleware": "MaintenanceModeMiddleware maintenance_middleware",
    "fastapi_maintenance.openapi": "document_maintenance",
    "fastapi_maintenance.predicates": (
        "all_of always any_of client_in cookie_equals header_equals header_present host_is method_in never not_ "
        "path_is path_matches path_prefix query_equals safe_method"
    ),
    "fastapi_maintenance.responses": (
        "STATUS_KEY as_event_stream as_html as_json as_problem as_redirect current_status negotiate with_media_type"
    ),
    "fastapi_maintenance.router": "maintenance_router",
    "fastapi_maintenance.state": "Hold MaintenanceState MaintenanceStatus Switch Window status_of",
    "fastapi_maintenance.testing": (
        "MakeBackend MovedClock PromiseBrokenError SCENARIOS check_backend maintenance_forced moved_clock"
    ),
    "fastapi_maintenance.typing": (
        "AsyncPredicate AsyncResponseCallback DetailedStateBackend ExemptCallback PeekableStateBackend Predicate "
        "ResponseCallback StateBackend StateChange SyncResponseCallback WatchableStateBackend"
    ),
}
"""Where users import from, besides the package itself."""


def test_what_users_import_is_where_it_was() -> None:
    wanted = [(importlib.import_module(module), name) for module, names in PATHS.items() for name in names.split()]
    assert [f"{module.__name__}.{name}" for module, name in wanted if not hasattr(module, name)] == []


def test_the_version_is_that_of_the_package() -> None:
    assert metadata.version("fastapi-maintenance") == fastapi_maintenance.__version__
