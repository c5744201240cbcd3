"""Fixtures of the tests of the command: each runs in an empty folder, where nothing says which switch to use."""

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
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FASTAPI_MAINTENANCE_BACKEND", raising=False)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr("fastapi_maintenance.cli.status._PATIENCE", 0)  # no app is served
    monkeypatch.setattr(logging.getLogger("fastapi_maintenance"), "handlers", [])


@pytest.fixture
def of_app(monkeypatch: pytest.MonkeyPatch) -> OfApp:
    """Return a function that gives the app of `on_app` a store with these reports."""

    def make(**reports: str) -> CountingStore:
        store = CountingStore(**reports)
        use(monkeypatch, store)
        return store

    return make


@pytest.fixture
def store_url(request: pytest.FixtureRequest, url_of: Callable[[str], str]) -> str:
    """Return the URL of an empty store of the kind of the parameter."""
    local = {"file": "file:switch", "sqlite": "sqlite+aiosqlite:///switch.db"}
    return local.get(request.param) or url_of(request.param)


@pytest.fixture
def _at_noon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stop the clock at `NOW`."""
    monkeypatch.setattr(clock, "now", lambda: NOW)
