"""An app written for version 0.0.5: its names exist or are listed as removed on the page on moving."""

from __future__ import annotations

import importlib
import re

import pytest
from fastapi import FastAPI

from fastapi_maintenance import MaintenanceModeMiddleware
from tests.documents import DOCS, statuses

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
