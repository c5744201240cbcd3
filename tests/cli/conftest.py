"""What the tests of the command share: they run where nothing says which switch is used."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import pytest

from fastapi_maintenance._helpers import clock
from tests.cli.driving import NOW


@pytest.fixture(autouse=True)
def _somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run in an empty folder, without what the command leaves behind in its process."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FASTAPI_MAINTENANCE_BACKEND", raising=False)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(logging.getLogger("fastapi_maintenance"), "handlers", [])


@pytest.fixture
def _at_noon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stop the clock at `NOW`."""
    monkeypatch.setattr(clock, "now", lambda: NOW)
