"""`MemoryBackend`, and `BaseStateBackend` of the spec."""

from __future__ import annotations

from typing import Any

import pytest

from fastapi_maintenance import BaseStateBackend, MaintenanceState, MemoryBackend, Switch
from tests.backends.helpers import OFF, ON
from tests.stores import TextSwitch

pytestmark = pytest.mark.anyio
SOON = MaintenanceState(switch=Switch(message="Soon"))


@pytest.mark.parametrize(("given", "expected"), [(True, ON), (False, OFF), (SOON, SOON)])
async def test_memory_backend_begins_with_the_given_state(given: Any, expected: MaintenanceState) -> None:  # noqa: ANN401
    backend = MemoryBackend(given)
    assert [backend.peek(), await backend.get_state()] == [expected, expected]
    assert repr(backend) == "MemoryBackend()"


@pytest.mark.parametrize("given", [1, "on", None])
def test_memory_backend_with_invalid_state_raises(given: Any) -> None:  # noqa: ANN401 -- what is refused
    rule = rf"^state must be a MaintenanceState, True or False, got {type(given).__name__} {given!r}$"
    with pytest.raises(TypeError, match=rule):
        MemoryBackend(given)


async def test_base_state_backend_converts_between_words_and_booleans() -> None:
    backend = TextSwitch({})
    values: list[object] = [await backend.get_value()]
    for value in (True, False):
        await backend.set_value(value)
        values += [await backend.get_value(), backend.store["mode"]]
    assert values == [False, True, "1", False, "0"]
    assert backend._str_to_bool(" Yes ")
    with pytest.raises(ValueError, match="'perhaps'"):
        backend._str_to_bool("perhaps")


def test_base_state_backend_without_its_two_methods_is_abstract() -> None:
    with pytest.raises(TypeError, match="abstract"):
        BaseStateBackend()  # type: ignore[abstract]  # what is refused
