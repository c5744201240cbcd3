"""What the tests of the command share: they run where nothing says which switch is used."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fastapi_maintenance._helpers import clock
from tests.cli.driving import NOW, CountingStore, OfApp, use


@pytest.fixture(autouse=True)
def _somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run in an empty folder, without what the command leaves behind in its process."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FASTAPI_MAINTENANCE_BACKEND", raising=False)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr("fastapi_maintenance.cli.workers._PATIENCE", 0)  # nobody serves
    monkeypatch.setattr(logging.getLogger("fastapi_maintenance"), "handlers", [])


@pytest.fixture
def of_app(monkeypatch: pytest.MonkeyPatch) -> OfApp:
    """Let the app of `--app` have a store whose workers report this."""

    def have(**reports: str) -> CountingStore:
        store = CountingStore(**reports)
        use(monkeypatch, store)
        return store

    return have


@pytest.fixture
def store_url(request: pytest.FixtureRequest, url_of: Callable[[str], str]) -> str:
    """Return the URL of a store of each kind that is named: an empty one."""
    return "file:switch" if request.param == "file" else url_of(request.param)


@pytest.fixture
def _at_noon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stop the clock at `NOW`."""
    monkeypatch.setattr(clock, "now", lambda: NOW)
