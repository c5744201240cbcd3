"""The state in memory, and the base class of the spec."""

from __future__ import annotations

from typing import Any

import pytest

from fastapi_maintenance import BaseStateBackend, MaintenanceState, MemoryBackend, Switch
from tests.stores import TextSwitch

pytestmark = pytest.mark.anyio
ON, OFF = MaintenanceState(switch=Switch(on=True)), MaintenanceState()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (True, ON),
        (False, OFF),
        (MaintenanceState(switch=Switch(message="Soon")), MaintenanceState(switch=Switch(message="Soon"))),
    ],
)
async def test_memory_begins_with_what_it_is_given(given: MaintenanceState | bool, expected: MaintenanceState) -> None:
    backend = MemoryBackend(given)
    assert [expected, expected] == [backend.peek(), await backend.get_state()]
    assert repr(backend) == "MemoryBackend()"


@pytest.mark.parametrize("given", [1, "on", None])
def test_memory_refuses_to_begin_with_what_is_no_state(given: Any) -> None:  # noqa: ANN401 -- what is refused
    with pytest.raises(
        TypeError, match=rf"^state must be a MaintenanceState, True or False, got {type(given).__name__} {given!r}$"
    ):
        MemoryBackend(given)


async def test_the_base_class_converts_between_words_and_booleans() -> None:
    backend = TextSwitch({})
    seen = [await backend.get_value()]
    await backend.set_value(True)
    seen.append(await backend.get_value())
    assert ([False, True], {"mode": "1"}) == (seen, backend.store)
    await backend.set_value(False)
    assert {"mode": "0"} == backend.store
    assert backend._str_to_bool(" Yes ")
    with pytest.raises(ValueError, match="'perhaps'"):
        backend._str_to_bool("perhaps")


def test_the_base_class_cannot_be_made_without_its_two_methods() -> None:
    with pytest.raises(TypeError, match="abstract"):
        BaseStateBackend()  # type: ignore[abstract]  # what is refused
