"""Fixtures of the tests about the switch."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import anyio
import pytest
from trio.testing import MockClock

from fastapi_maintenance._helpers import clock
from tests.switch.blocks import JumpingLoop, RunJumping


@pytest.fixture(params=["asyncio", "trio"])
def run_jumping(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> RunJumping:
    """Run a function on a clock that jumps to what is waited for next, as leases do: a slow machine is no matter."""
    began = clock.now()
    monkeypatch.setattr(clock, "now", lambda: began + timedelta(seconds=anyio.current_time()))
    options: dict[str, dict[str, Any]] = {
        "asyncio": {"loop_factory": JumpingLoop},
        "trio": {"clock": MockClock(autojump_threshold=0)},
    }
    name: str = request.param
    return lambda function: anyio.run(function, backend=name, backend_options=options[name])
