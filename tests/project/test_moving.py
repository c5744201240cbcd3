"""What an app has that was written for version 0.0.5, and what the page on moving says of it."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest
from fastapi import FastAPI, Request

from fastapi_maintenance import (
    LocalFileBackend,
    MaintenanceModeMiddleware,
    get_maintenance_mode,
    set_maintenance_mode,
)
from tests.documents import DOCS, statuses

pytestmark = pytest.mark.anyio

PAGE = (DOCS / "moving.md").read_text(encoding="utf-8")
NAMES = {
    "": "__author__ __version__ configure_backend get_maintenance_mode set_maintenance_mode force_maintenance_mode_off"
    " force_maintenance_mode_on MaintenanceModeMiddleware maintenance_mode_on",
    ".backends": "BaseStateBackend EnvVarBackend LocalFileBackend",
    ".cli": "app main",
    ".decorators": "RouteHandler force_maintenance_mode_off force_maintenance_mode_on",
    ".middleware": "HandlerFunction MaintenanceModeMiddleware",
    "._constants": "",
    "._context": "",
    "._core": "",
    "._handlers": "",
}
"""All modules of version 0.0.5, and the names in them that have no underscore."""


@pytest.mark.parametrize("module", NAMES)
def test_name_of_0_0_5_is_there_or_named_as_removed(module: str) -> None:
    try:
        found: object = importlib.import_module(f"fastapi_maintenance{module}")
    except ModuleNotFoundError:
        assert f"`{module[1:]}`" in PAGE
    else:
        gone = [name for name in NAMES[module].split() if not hasattr(found, name)]
        assert [name for name in gone if not re.search(rf"`{module[1:]}\.?{name}`".replace("`.", "`"), PAGE)] == []


async def test_missing_file_of_0_0_5_is_off_and_not_created() -> None:
    switch = LocalFileBackend(file_path="switch")
    assert (await get_maintenance_mode(switch), list(Path().iterdir())) == (False, [])
    await set_maintenance_mode(True, switch)
    assert (Path("switch").read_text("utf-8"), Path("switch.lock").exists()) == ("1\n", True)


@pytest.mark.parametrize(("verdict", "status"), [(True, 200), ("yes", 503), (re.match("", ""), 503), (None, 503)])
async def test_exempt_handler_of_0_0_5_exempts_by_true_alone(verdict: object, status: int) -> None:
    app = FastAPI()
    app.add_api_route("/", lambda: "open")

    def handler(_: Request) -> bool:
        return verdict  # type: ignore[return-value]

    app.add_middleware(MaintenanceModeMiddleware, enable_maintenance=True, exempt_handler=handler)
    assert await statuses(app, "/") == [status]
