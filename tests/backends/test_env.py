"""`EnvVarBackend`: its values, and that it is read-only."""

from __future__ import annotations

import os

import pytest

from fastapi_maintenance import EnvVarBackend, MaintenanceState, ReadOnlyBackendError
from tests.backends.helpers import OFF, ON, messages_of

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("value", "expected"),
    [("1", ON), (" On ", ON), ("TRUE", ON), ("y", ON), ("0", OFF), ("off", OFF), ("No", OFF), ("", OFF), ("  ", OFF)],
)
async def test_env_backend_reads_words(value: str, expected: MaintenanceState, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLOSED", value)
    backend = EnvVarBackend("CLOSED")
    assert [backend.peek(), await backend.get_state()] == [expected, expected]
    assert await backend.get_value() is expected.switch.on


def test_env_backend_sees_each_change_and_warns_once_for_each_invalid_value(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    backend = EnvVarBackend()
    assert (backend.peek(), messages_of(caplog)) == (OFF, [])  # not set
    seen = []
    for value in ("maybe", "maybe", "2", "1", "maybe", "2"):
        monkeypatch.setenv("FASTAPI_MAINTENANCE_MODE", value)
        seen.append(backend.peek().switch.on)
    assert seen == [False, False, False, True, False, False]
    first, second = messages_of(caplog)
    assert first.startswith("The environment variable FASTAPI_MAINTENANCE_MODE counts as off: value must be one of ")
    assert ("'maybe'" in first, "'2'" in second) == (True, True)


def test_env_backends_of_one_variable_are_equal() -> None:
    assert EnvVarBackend("A") == EnvVarBackend("A")
    assert hash(EnvVarBackend("A")) == hash(EnvVarBackend("A"))
    assert EnvVarBackend() == EnvVarBackend("FASTAPI_MAINTENANCE_MODE")
    assert EnvVarBackend("A") not in (EnvVarBackend("B"), "A")
    assert repr(EnvVarBackend("A")) == "EnvVarBackend('A')"


async def test_env_backend_write_raises_saying_what_to_do_instead() -> None:
    backend = EnvVarBackend("CLOSED")
    rule = (
        "the environment variable CLOSED cannot be switched at run time, because no other process would see it: set it "
        r"before the service starts, or use .* LocalFileBackend, or .* maintenance_mode_on\(\)"
    )
    for attempt in (backend.set_value(True), backend.set_value(False), backend.update_state(lambda state: state)):
        with pytest.raises(ReadOnlyBackendError, match=rule):
            await attempt
    assert "CLOSED" not in os.environ


@pytest.mark.parametrize(
    ("name", "error", "rule"),
    [
        *((name, ValueError, "a name without '=' and null characters, got ") for name in ("", "A=B", "A\0B")),
        (7, TypeError, "a str, got int 7"),
    ],
)
def test_env_backend_with_invalid_name_raises(name: str, error: type[Exception], rule: str) -> None:
    with pytest.raises(error, match=f"^var_name must be {rule}"):
        EnvVarBackend(name)
