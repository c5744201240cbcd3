"""The environment variable: what it says, and that it cannot be written."""

from __future__ import annotations

import os

import pytest

from fastapi_maintenance import EnvVarBackend, MaintenanceState, ReadOnlyBackendError, Switch
from tests.backends.helpers import messages_of

pytestmark = pytest.mark.anyio
ON, OFF = MaintenanceState(switch=Switch(on=True)), MaintenanceState()


@pytest.mark.parametrize(
    ("value", "expected"),
    [("1", ON), (" On ", ON), ("TRUE", ON), ("y", ON), ("0", OFF), ("off", OFF), ("No", OFF), ("", OFF), ("  ", OFF)],
)
async def test_a_variable_says_on_or_off_in_words(
    value: str, expected: MaintenanceState, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLOSED", value)
    backend = EnvVarBackend("CLOSED")
    assert [expected, expected] == [backend.peek(), await backend.get_state()]
    assert expected.switch.on is await backend.get_value()


def test_a_variable_that_is_not_set_is_off_without_a_warning_and_one_set_later_is_seen(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    backend = EnvVarBackend()
    before = backend.peek()
    assert messages_of(caplog) == []
    monkeypatch.setenv("FASTAPI_MAINTENANCE_MODE", "1")
    assert (OFF, ON) == (before, backend.peek())


def test_a_variable_that_is_no_boolean_is_off_and_warned_about_once_for_each_value(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    backend = EnvVarBackend("CLOSED")
    seen = []
    for value in ("maybe", "maybe", "2", "1", "maybe", "2"):
        monkeypatch.setenv("CLOSED", value)
        seen.append(backend.peek().switch.on)
    assert [False, False, False, True, False, False] == seen
    first, second = messages_of(caplog)
    assert first.startswith("The environment variable CLOSED counts as off: value must be one of ")
    assert ("'maybe'" in first, "'2'" in second) == (True, True)


def test_two_backends_of_one_variable_are_equal() -> None:
    assert EnvVarBackend("A") == EnvVarBackend("A")
    assert hash(EnvVarBackend("A")) == hash(EnvVarBackend("A"))
    assert EnvVarBackend() == EnvVarBackend("FASTAPI_MAINTENANCE_MODE")
    assert EnvVarBackend("A") != EnvVarBackend("B")
    assert EnvVarBackend("A") != "A"
    assert "EnvVarBackend('A')" == repr(EnvVarBackend("A"))


@pytest.mark.parametrize("value", [True, False])
async def test_a_variable_cannot_be_written_and_the_error_says_what_to_do_instead(value: bool) -> None:
    backend = EnvVarBackend("CLOSED")
    with pytest.raises(ReadOnlyBackendError, match=r"CLOSED cannot be switched .* LocalFileBackend") as refused:
        await backend.set_value(value)
    assert "because no other process would see it: set it before the service starts, or use" in str(refused.value)
    with pytest.raises(ReadOnlyBackendError, match=r"maintenance_mode_on\(\)"):
        await backend.update_state(lambda state: state)
    assert "CLOSED" not in os.environ


@pytest.mark.parametrize("name", ["", "A=B", "A\0B"])
def test_what_cannot_name_a_variable_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"^var_name must be a name without '=' and null characters, got "):
        EnvVarBackend(name)


def test_a_variable_name_that_is_no_text_is_refused() -> None:
    with pytest.raises(TypeError, match=r"^var_name must be a str, got int 7"):
        EnvVarBackend(7)  # type: ignore[arg-type]  # what is refused
