"""Where the command is run: in a folder without a project, by alice."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run where there is no project and no switch yet, and undo what the command changes in its process."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FASTAPI_MAINTENANCE_BACKEND", raising=False)
    monkeypatch.setenv("LOGNAME", "alice")
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(logging.getLogger("fastapi_maintenance"), "handlers", [])  # what `run` and `watch` add
