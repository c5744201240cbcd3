"""Examples run in an empty folder, with the settings that they read from the environment."""

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SHOP_STORE", raising=False)
    monkeypatch.setenv("SHOP_ADMIN_KEY", "secret-key")
    monkeypatch.setenv("BYPASS_SECRET", "correct horse battery staple")


@pytest.fixture
def _maintenance(monkeypatch: pytest.MonkeyPatch) -> None:
    """Turn maintenance on, in the environment and in the file that examples use."""
    monkeypatch.setenv("FASTAPI_MAINTENANCE_MODE", "1")
    Path("maintenance.txt").write_text("1\n", encoding="utf-8")
