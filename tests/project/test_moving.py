"""Names of version 0.0.5 still exist, or the page on moving says that they were removed."""

from __future__ import annotations

import importlib
import re

import pytest

from tests.documents import DOCS

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
